// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"bastide.dev/controlplane"
	"bastide.dev/reboots"
)

const (
	problemsSaid = 20 // of settings
	blockersSaid = 5  // of a node and a selector
)

// keepReboots looks at what the reboot coordinator wants to know, and keeps the
// lock, as long as some node needs a reboot.
func (s *session) keepReboots(ctx context.Context) (time.Duration, error) {
	client, err := s.leaves.typed()
	if err != nil {
		return 0, fmt.Errorf("make client: %w", err)
	}
	want := s.current().Reboots
	if want == nil && s.State().Reboots == nil && s.leaves.lockFree() {
		return 0, nil
	}
	stored, err := client.CoreV1().ConfigMaps(reboots.Namespace).Get(ctx, reboots.ConfigMap, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return 0, fmt.Errorf("settings of reboots: %w", err)
	}
	if apierrors.IsNotFound(err) {
		stored = nil
	}
	status := &controlplane.RebootsStatus{}
	status.Settings, status.Problems = rebootSettings(stored)
	if want == nil {
		if _, err := keepLock(ctx, client, stored, nil, nil, status.Settings); err != nil {
			return 0, err
		}
		s.leaves.setLockFree(true)
		s.setReboots(nil)
		return 0, nil
	}
	s.leaves.setLockFree(false)
	s.complain(ctx, client, stored, status.Problems)
	if err := s.blockers(ctx, client, want.Waiting, status); err != nil {
		return 0, err
	}
	// What came up since the claim was decided on is seen here: what isn't clear isn't granted.
	clear := func(node string) bool {
		i := slices.IndexFunc(status.Nodes, func(n controlplane.RebootNode) bool { return n.Name == node })
		return i >= 0 && len(status.Nodes[i].Blocked) == 0 && len(status.Problems) == 0 && status.Settings.Window.Contains(time.Now())
	}
	if status.Locked, err = keepLock(ctx, client, stored, want.Claims, clear, status.Settings); err != nil {
		return 0, err
	}
	s.setReboots(status)
	return status.Settings.Period, nil
}

func (s *session) setReboots(status *controlplane.RebootsStatus) {
	if before := s.State().Reboots; !reflect.DeepEqual(before, status) {
		s.update(func(st *State) { st.Reboots = status })
	}
}

func (l *leaves) lockFree() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.free
}

func (l *leaves) setLockFree(is bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.free = is
}

// rebootSettings reads the settings of a cluster, which may have none.
func rebootSettings(stored *corev1.ConfigMap) (reboots.Settings, []string) {
	if stored == nil {
		return reboots.Default(), nil
	}
	settings, problems := reboots.Parse(stored.Data, func(text string) error { _, err := labels.Parse(text); return err })
	return settings, problems[:min(len(problems), problemsSaid)]
}

// tuned is a Leave with what the settings of reboots say of it.
func (s *session) tuned(ctx context.Context, client kubernetes.Interface, leave *controlplane.Leave) (*controlplane.Leave, tuning, error) {
	tuned := tuning{grace: -1}
	if leave == nil || !leave.Reboot {
		return leave, tuned, nil
	}
	stored, err := client.CoreV1().ConfigMaps(reboots.Namespace).Get(ctx, reboots.ConfigMap, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return leave, tuned, nil
	}
	if err != nil {
		return nil, tuned, fmt.Errorf("settings of reboots: %w", err)
	}
	settings, problems := rebootSettings(stored)
	if len(problems) > 0 {
		return leave, tuned, nil
	}
	with := *leave
	with.Reboot = settings.Annotate
	if settings.DrainTimeout > 0 {
		with.Timeout = settings.DrainTimeout
	}
	return &with, tuning{grace: settings.DrainGracePeriod, selector: settings.DrainPodSelector, skip: settings.SkipWait,
		before: settings.DrainDelay, after: settings.RebootDelay, anyway: settings.ForceReboot}, nil
}

// complain says what is wrong with the settings, once for each text.
func (s *session) complain(ctx context.Context, client kubernetes.Interface, stored *corev1.ConfigMap, problems []string) {
	text := strings.Join(problems, "; ")
	if text == "" || !s.leaves.first("", text) {
		return
	}
	object := corev1.ObjectReference{Kind: "ConfigMap", APIVersion: "v1", Namespace: stored.Namespace, Name: stored.Name, UID: stored.UID}
	event := newEvent(object, stored.Namespace, corev1.EventTypeWarning, "InvalidSettings", text, "No node reboots: "+text)
	if _, err := client.CoreV1().Events(stored.Namespace).Create(ctx, event, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		s.Logger.Debug("event not written", "reason", event.Reason, "error", err)
	}
}

// blockers finds the pods and alerts that stand against the reboot of each node.
func (s *session) blockers(ctx context.Context, client kubernetes.Interface, nodes []string, status *controlplane.RebootsStatus) error {
	alerts := s.alerts(ctx, &status.Settings)
	for _, name := range nodes {
		node := controlplane.RebootNode{Name: name, Blocked: slices.Clone(alerts)}
		for _, selector := range status.Settings.Pods {
			pods, err := client.CoreV1().Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{LabelSelector: selector, Limit: blockersSaid,
				FieldSelector: "spec.nodeName=" + name + ",status.phase!=Succeeded,status.phase!=Failed,status.phase!=Unknown"})
			if err != nil {
				return fmt.Errorf("pods that block reboots: %w", err)
			}
			for _, pod := range pods.Items {
				node.Blocked = append(node.Blocked, fmt.Sprintf("pod %s/%s is there (%s)", pod.Namespace, pod.Name, selector))
			}
		}
		status.Nodes = append(status.Nodes, node)
	}
	return nil
}

// keepLock brings the annotation to what the claims want, on condition that
// nobody else wrote it meanwhile, and returns how it stands then.
func keepLock(ctx context.Context, client kubernetes.Interface, stored *corev1.ConfigMap, claims []string, clear func(string) bool, settings reboots.Settings) (reboots.Locked, error) {
	text := ""
	if stored != nil {
		text = stored.Annotations[reboots.LockAnnotation]
	}
	next, locked := reboots.Lock(text, claims, clear, settings, time.Now())
	if next == text {
		return locked, nil
	}
	maps := client.CoreV1().ConfigMaps(reboots.Namespace)
	var err error
	if stored == nil {
		_, err = maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: reboots.ConfigMap, Namespace: reboots.Namespace,
			Annotations: map[string]string{reboots.LockAnnotation: next}}}, metav1.CreateOptions{FieldManager: "bastide"})
	} else {
		var value any = next
		if next == "" {
			value = nil
		}
		patch, failed := json.Marshal(map[string]any{"metadata": map[string]any{"resourceVersion": stored.ResourceVersion,
			"annotations": map[string]any{reboots.LockAnnotation: value}}})
		if failed != nil {
			return locked, failed
		}
		_, err = maps.Patch(ctx, reboots.ConfigMap, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: "bastide"})
	}
	if err != nil {
		return locked, fmt.Errorf("lock of reboots: %w", err)
	}
	return locked, nil
}
