// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"bastide.dev/controlplane"
	"bastide.dev/reconcile"
)

// Marks are annotations that say what of a node is our doing: what a user did
// stays when a Leave goes.
const (
	cordonMark = "bastide.dev/cordoned" // why
	outMark    = "bastide.dev/excluded-from-load-balancers"
	rebootMark = "bastide.dev/rebooting"
)

// What others look for.
const (
	excludeLabel         = corev1.LabelNodeExcludeBalancers
	azureLabels          = "kubernetes.azure.com/"
	statusLabel          = azureLabels + "upgrade-status"
	quarantinedStatus    = "Quarantined"
	kuredInProgress      = "weave.works/kured-reboot-in-progress"
	kuredMostRecentNeed  = "weave.works/kured-most-recent-reboot-needed"
	leavesAtOnce         = 16
	leaveLook            = 15 * time.Second // of one look at a node
	leaveSoon            = 150 * time.Millisecond
	leaveHeld            = 500 * time.Millisecond // evictions that were refused are tried again
	leaveFailed          = 2 * time.Second
	unanswered           = time.Second // the longest wait after an error
	defaultEventsOfLeave = 50
)

// leaves are the nodes that are left, as one session sees them. What it
// remembers only spares requests.
type leaves struct {
	queue *reconcile.Queue // of nodes' names
	typed func() (*kubernetes.Clientset, error)
	http  *http.Client

	mu   sync.Mutex                 // guards what follows
	said map[string]map[string]bool // keys of the events of a node's Leave
	gone map[string]time.Time       // when the last pod of a node had gone
	free bool                       // the lock of reboots isn't ours
}

func newLeaves(c *connection) *leaves {
	return &leaves{queue: reconcile.NewQueue(reconcile.Backoff{Min: 20 * time.Millisecond, Max: unanswered}), typed: c.typed, http: c.http, said: map[string]map[string]bool{}, gone: map[string]time.Time{}}
}

func marked(annotations map[string]string) bool {
	for _, mark := range []string{cordonMark, outMark, rebootMark} {
		if _, is := annotations[mark]; is {
			return true
		}
	}
	return false
}

func (s *session) setLeft(name string, left controlplane.Left) {
	left.Since = left.Since.Round(0).UTC() // to be comparable
	s.update(func(st *State) {
		for i := range st.Nodes {
			if st.Nodes[i].Name == name {
				st.Nodes[i].Left = left
			}
		}
	})
}

// keepLeave has a node be as its Leave says, and looks again as long as pods
// have to go.
func (s *session) keepLeave(ctx context.Context, name string) (time.Duration, error) {
	want := find(s.current(), name)
	s.mu.Lock()
	o := s.nodes[name]
	s.mu.Unlock()
	if o == nil || want == nil || want.Removed {
		s.leaves.forget(name)
		return 0, nil
	}
	if want.Leave == nil && !marked(o.GetAnnotations()) && len(missing(o.GetLabels(), want.Labels)) == 0 {
		s.leaves.forget(name)
		s.setLeft(name, controlplane.Left{})
		return 0, nil
	}
	ctx, cancel := context.WithTimeout(ctx, leaveLook)
	defer cancel()
	client, err := s.leaves.typed()
	if err != nil {
		return 0, fmt.Errorf("make client: %w", err)
	}
	node, err := client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return 0, nil // the watch tells the same in a moment
	}
	if err != nil {
		return 0, fmt.Errorf("leave node %s: %w", name, err)
	}
	leave, tuned, err := s.tuned(ctx, client, want.Leave)
	if err != nil {
		return 0, fmt.Errorf("leave node %s: %w", name, err)
	}
	if err := mark(ctx, client, node, leave, want.Labels); err != nil {
		return 0, fmt.Errorf("leave node %s: %w", name, err)
	}
	if leave == nil {
		s.leaves.forget(name)
		s.setLeft(name, controlplane.Left{})
		return 0, nil
	}
	d := drainer{session: s, client: client, node: node, leave: *leave, tuning: tuned}
	left, again, err := d.look(ctx)
	if err != nil {
		return 0, fmt.Errorf("drain node %s: %w", name, err)
	}
	if now := find(s.current(), name); now != nil && now.Leave != nil && now.Leave.Since.Equal(want.Leave.Since) {
		s.setLeft(name, left)
	}
	return again, nil
}

// mark brings a node's marks, cordon, labels and kured's annotations to what its
// Leave says, in one conditional write.
func mark(ctx context.Context, client kubernetes.Interface, node *corev1.Node, leave *controlplane.Leave, wanted map[string]string) error {
	change := nodeChange(node, leave, wanted, time.Now())
	if change == nil {
		return nil
	}
	patch, err := json.Marshal(change)
	if err != nil {
		return err
	}
	_, err = client.CoreV1().Nodes().Patch(ctx, node.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: "bastide"})
	return err
}

// nodeChange is the merge patch that mark writes; nil when there is nothing to write.
func nodeChange(node *corev1.Node, leave *controlplane.Leave, wanted map[string]string, now time.Time) map[string]any {
	annotations, labels, spec := map[string]any{}, missing(node.Labels, wanted), map[string]any{}
	has := func(name string) bool { _, is := node.Annotations[name]; return is }
	switch {
	case leave != nil && !node.Spec.Unschedulable:
		spec["unschedulable"] = true
		annotations[cordonMark] = reasonOf(leave)
	case leave == nil && has(cordonMark):
		spec["unschedulable"] = nil
		annotations[cordonMark] = nil
	}
	_, excluded := node.Labels[excludeLabel]
	switch out := leave != nil && leave.Out; {
	case out && !excluded:
		labels[excludeLabel] = "true"
		annotations[outMark] = "true"
	case !out && has(outMark):
		labels[excludeLabel] = nil
		annotations[outMark] = nil
	}
	switch quarantined, is := leave != nil && leave.Quarantined, node.Labels[statusLabel] == quarantinedStatus; {
	case quarantined && !is:
		labels[statusLabel] = quarantinedStatus
	case !quarantined && is:
		labels[statusLabel] = nil
	}
	switch reboot := leave != nil && leave.Reboot; {
	case reboot && !has(rebootMark):
		annotations[rebootMark] = "true"
		annotations[kuredInProgress] = now.UTC().Format(time.RFC3339)
		annotations[kuredMostRecentNeed] = now.UTC().Format(time.RFC3339)
	case !reboot && has(rebootMark):
		annotations[rebootMark] = nil
		annotations[kuredInProgress] = nil // as kured: when a reboot was needed last stays
	}
	if len(annotations)+len(labels)+len(spec) == 0 {
		return nil
	}
	// Another's cordon between our look and our write must not become ours.
	change := map[string]any{"metadata": map[string]any{"annotations": annotations, "labels": labels, "resourceVersion": node.ResourceVersion}}
	if len(spec) > 0 {
		change["spec"] = spec
	}
	return change
}

// missing are the labels that a node should have and has not.
func missing(labels, wanted map[string]string) map[string]any {
	lacks := map[string]any{}
	for name, value := range wanted {
		if labels[name] != value {
			lacks[name] = value
		}
	}
	return lacks
}

func reasonOf(leave *controlplane.Leave) string {
	if leave.Reason == "" {
		return "maintenance"
	}
	return leave.Reason
}

func (l *leaves) forget(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.said, name)
	delete(l.gone, name)
}

// emptied tells since when a node has no pods that had to go.
func (l *leaves) emptied(name string) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gone[name].IsZero() {
		l.gone[name] = time.Now()
	}
	return l.gone[name]
}

// first tells whether a node's event is said for the first time, and notes that
// it was; of a node there is a bounded number.
func (l *leaves) first(name, key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.said[name][key] || len(l.said[name]) >= defaultEventsOfLeave {
		return false
	}
	if l.said[name] == nil {
		l.said[name] = map[string]bool{}
	}
	l.said[name][key] = true
	return true
}
