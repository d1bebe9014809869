// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/kubectl/pkg/drain"

	"bastide.dev/controlplane"
)

const (
	evictionsAtOnce = 16
	evictionTime    = 10 * time.Second // of one: webhooks may review it
	// forcedGrace bounds the grace period of pods that are deleted at the end, and
	// forcedWait how long beyond it one is waited for.
	forcedGrace = 30
	forcedWait  = 10 * time.Second
	namedPods   = 5    // in a message
	heldBytes   = 1024 // of what holds a pod: foreign text
)

// drainer is one look at a node that is being drained: what kubectl's package
// says has to go is asked to go, and what is left is counted. It never waits, so
// that an end of this process, or of the API server, loses nothing.
type drainer struct {
	*session
	client kubernetes.Interface
	node   *corev1.Node
	leave  controlplane.Leave
	tuning tuning
}

// tuning is what reboots' settings say of drains.
type tuning struct {
	grace    int           // seconds; negative: each pod's own
	selector string        // of the pods that go; empty: all
	skip     int           // seconds after which a pod that is being deleted isn't waited for; 0: it is
	before   time.Duration // how long to wait before the first eviction,
	after    time.Duration // and after the last
	anyway   bool          // a drain that fails is as good as one that doesn't
}

// held is a pod that can't go yet, and why.
type held struct{ pod, why string }

func (d *drainer) look(ctx context.Context) (controlplane.Left, time.Duration, error) {
	left := controlplane.Left{Since: d.leave.Since, Phase: controlplane.Leaving}
	if !d.leave.Drain {
		left.Phase = controlplane.LeftNode
		return left, 0, nil
	}
	if wait := d.tuning.before - time.Since(d.leave.Since); wait > 0 {
		return left, wait, nil
	}
	pods, err := d.pods(ctx)
	if err != nil {
		return left, 0, err
	}
	expired := d.leave.Timeout > 0 && time.Since(d.leave.Since) >= d.leave.Timeout
	if expired && d.leave.Force {
		pods = slices.DeleteFunc(pods, lingers)
	}
	if left.Pods = len(pods); left.Pods == 0 {
		if wait := d.tuning.after - time.Since(d.leaves.emptied(d.node.Name)); d.tuning.after > 0 && wait > 0 {
			return left, wait, nil
		}
		left.Phase = controlplane.LeftNode
		d.say(ctx, corev1.EventTypeNormal, "Drain", "drained", fmt.Sprintf("Drained node: [%s]", d.node.Name))
		return left, 0, nil
	}
	d.say(ctx, corev1.EventTypeNormal, "Drain", "draining", fmt.Sprintf("Draining node: [%s] for %s", d.node.Name, reasonOf(&d.leave)))
	switch {
	case expired && d.leave.Force:
		d.say(ctx, corev1.EventTypeWarning, "Drain", "forced", fmt.Sprintf("Draining node: [%s] took longer than %v: deleting %s", d.node.Name, d.leave.Timeout, names(pods)))
		left.Held = first(d.each(ctx, pods, d.remove))
		return left, leaveSoon, nil
	case expired:
		return d.expire(ctx, left, pods), leaveFailed, nil
	}
	refused := d.each(ctx, pods, d.evict)
	for _, h := range refused {
		d.say(ctx, corev1.EventTypeWarning, "Drain", "held "+h.pod, "Eviction blocked: "+h.String())
	}
	left.Held = first(refused)
	if len(refused) == len(pods) {
		return left, leaveHeld, nil
	}
	return left, leaveSoon, nil
}

// pods are those that have to go, in a fixed order: all but DaemonSets' and
// mirror pods. Their emptyDir data goes with them, as when AKS drains.
func (d *drainer) pods(ctx context.Context) ([]corev1.Pod, error) {
	helper := &drain.Helper{Ctx: ctx, Client: d.client, Force: true, GracePeriodSeconds: -1, IgnoreAllDaemonSets: true, DeleteEmptyDirData: true, ChunkSize: 500,
		PodSelector: d.tuning.selector, SkipWaitForDeleteTimeoutSeconds: d.tuning.skip, Out: io.Discard, ErrOut: io.Discard}
	list, errs := helper.GetPodsForDeletion(d.node.Name)
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	pods := list.Pods()
	slices.SortFunc(pods, func(a, b corev1.Pod) int { return cmp.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name) })
	return pods, nil
}

// expire answers when the time is over: nothing more is evicted.
func (d *drainer) expire(ctx context.Context, left controlplane.Left, pods []corev1.Pod) controlplane.Left {
	before := d.leftBefore()
	left.Phase, left.Held = controlplane.LeaveFailed, before.Held
	left.Error = fmt.Sprintf("%d pods were still there after %v: %s", len(pods), d.leave.Timeout, names(pods))
	if left.Held == "" {
		left.Held = first(d.each(ctx, pods, func(_ context.Context, pod corev1.Pod) string { return lasting(pod) }))
	}
	if left.Held != "" {
		left.Error += "; " + left.Held
	}
	if d.tuning.anyway {
		left.Phase, left.Error = controlplane.LeftNode, ""
		d.say(ctx, corev1.EventTypeWarning, "Drain", "anyway", fmt.Sprintf("Draining node: [%s] failed, and it reboots all the same: %s", d.node.Name, names(pods)))
		return left
	}
	d.say(ctx, corev1.EventTypeWarning, "Drain", "failed", fmt.Sprintf("Draining node: [%s] failed: %s", d.node.Name, left.Error))
	return left
}

// leftBefore is what the last look found.
func (d *drainer) leftBefore() controlplane.Left {
	for _, n := range d.State().Nodes {
		if n.Name == d.node.Name && n.Left.Since.Equal(d.leave.Since) {
			return n.Left
		}
	}
	return controlplane.Left{}
}

// each does something to all pods, several at once, and returns those that it
// couldn't be done to, in their order.
func (d *drainer) each(ctx context.Context, pods []corev1.Pod, do func(context.Context, corev1.Pod) string) []held {
	why := make([]string, len(pods))
	slots := make(chan struct{}, evictionsAtOnce)
	var all sync.WaitGroup
	for i := range pods {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			why[i] = do(ctx, pods[i])
		})
	}
	all.Wait()
	var some []held
	for i, text := range why {
		if text != "" {
			some = append(some, held{pods[i].Namespace + "/" + pods[i].Name, text})
		}
	}
	return some
}

// evict asks for a pod to go, and says what holds it. The precondition keeps a
// pod of the same name, made on another node meanwhile, out of it.
func (d *drainer) evict(ctx context.Context, pod corev1.Pod) string {
	if pod.DeletionTimestamp != nil {
		return lasting(pod)
	}
	ctx, cancel := context.WithTimeout(ctx, evictionTime)
	defer cancel()
	err := d.client.PolicyV1().Evictions(pod.Namespace).Evict(ctx, &policyv1.Eviction{
		ObjectMeta: metav1.ObjectMeta{Name: pod.Name, Namespace: pod.Namespace}, DeleteOptions: d.options(pod, int64(d.tuning.grace))})
	return holds(err)
}

// remove deletes a pod, whatever its budget says.
func (d *drainer) remove(ctx context.Context, pod corev1.Pod) string {
	if pod.DeletionTimestamp != nil && time.Until(pod.DeletionTimestamp.Time) < forcedGrace*time.Second {
		return lasting(pod)
	}
	grace := int64(forcedGrace)
	if own := pod.Spec.TerminationGracePeriodSeconds; own != nil {
		grace = min(grace, *own)
	}
	ctx, cancel := context.WithTimeout(ctx, evictionTime)
	defer cancel()
	return holds(d.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, *d.options(pod, grace)))
}

func (d *drainer) options(pod corev1.Pod, grace int64) *metav1.DeleteOptions {
	options := &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &pod.UID}}
	if grace >= 0 {
		options.GracePeriodSeconds = &grace
	}
	return options
}

// holds says what an answer means for a pod: nothing when it goes or is gone.
func holds(err error) string {
	if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return "" // a conflict: it is another pod by now, and the next look decides
	}
	text := err.Error()
	var status apierrors.APIStatus
	if errors.As(err, &status) && status.Status().Details != nil {
		for _, cause := range status.Status().Details.Causes {
			if cause.Type == policyv1.DisruptionBudgetCause {
				text = cause.Message
			}
		}
	}
	return strings.ToValidUTF8(text[:min(len(text), heldBytes)], "")
}

// lasting says what keeps a pod that was told to go longer than its grace.
func lasting(pod corev1.Pod) string {
	if pod.DeletionTimestamp == nil || time.Since(pod.DeletionTimestamp.Time) < forcedWait {
		return ""
	}
	if len(pod.Finalizers) > 0 {
		return "the finalizer " + pod.Finalizers[0] + " isn't done"
	}
	return "its containers don't end"
}

// lingers tells whether a pod was deleted so long ago that nothing helps.
func lingers(pod corev1.Pod) bool {
	return pod.DeletionTimestamp != nil && time.Since(pod.DeletionTimestamp.Time) >= forcedWait
}

func (h held) String() string { return "pod " + h.pod + ": " + h.why }

func first(some []held) string {
	if len(some) == 0 {
		return ""
	}
	return some[0].String()
}

func names(pods []corev1.Pod) string {
	var some []string
	for _, pod := range pods[:min(len(pods), namedPods)] {
		some = append(some, pod.Namespace+"/"+pod.Name)
	}
	text := strings.Join(some, ", ")
	if more := len(pods) - namedPods; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}
