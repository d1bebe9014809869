// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"bastide.dev/autoscale"
	"bastide.dev/controlplane"
)

const (
	scalerName      = "cluster-autoscaler" // as users know it
	statusMap       = "cluster-autoscaler-status"
	priorityMap     = "cluster-autoscaler-priority-expander"
	priorityBytes   = 64 << 10
	eventsOfScan    = 100
	tellAgain       = 5 * time.Minute
	scaleUpReason   = "TriggeredScaleUp"
	noScaleUpReason = "NotTriggerScaleUp"
	scaleDownReason = "ScaleDown"
)

// telling is what was told already.
type telling struct {
	pods   map[string]string // the last event of a pod that waits, by key
	nodes  map[string]bool   // nodes whose removal was told
	status string            // of the ConfigMap, without its time
	at     time.Time
}

func newTelling() *telling { return &telling{pods: map[string]string{}, nodes: map[string]bool{}} }

// tell writes a decision's events and the status that users of
// cluster-autoscaler read. Nothing depends on either: what fails is logged, and
// the next scan tells again.
func (c *scaler) tell(ctx context.Context, spec *controlplane.Autoscaler, in *autoscale.Input, d *autoscale.Decision) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := errors.Join(c.tellPods(ctx, in, d), c.tellNodes(ctx, d), c.tellStatus(ctx, spec, in, d)); err != nil && ctx.Err() == nil {
		c.Logger.Debug("scaling not told", "error", err)
	}
}

func (c *scaler) tellPods(ctx context.Context, in *autoscale.Input, d *autoscale.Decision) error {
	told, events := map[string]string{}, 0
	for _, pod := range in.Pending {
		key := pod.Key()
		kind, reason, text := "", "", c.told.pods[key]
		if grown, is := d.Helped[key]; is {
			kind, reason, text = corev1.EventTypeNormal, scaleUpReason, "pod triggered scale-up: "+grown
		} else if why, is := d.Unhelped[key]; is {
			kind, reason, text = corev1.EventTypeNormal, noScaleUpReason, "pod didn't trigger scale-up: "+why
		}
		told[key] = c.told.pods[key]
		if text == c.told.pods[key] || reason == "" || events >= eventsOfScan {
			continue
		}
		events++
		object := corev1.ObjectReference{Kind: "Pod", APIVersion: "v1", Namespace: pod.Namespace, Name: pod.Name, UID: types.UID(pod.UID)}
		if err := c.event(ctx, object, pod.Namespace, kind, reason, text); err != nil {
			c.told.pods = told
			return err
		}
		told[key] = text
	}
	c.told.pods = told
	return nil
}

func (c *scaler) tellNodes(ctx context.Context, d *autoscale.Decision) error {
	told := map[string]bool{}
	var errs []error
	for _, name := range d.Remove {
		if told[name] = c.told.nodes[name]; told[name] {
			continue
		}
		object := corev1.ObjectReference{Kind: "Node", APIVersion: "v1", Name: name, UID: types.UID(name)}
		err := c.event(ctx, object, metav1.NamespaceDefault, corev1.EventTypeNormal, scaleDownReason, "node isn't needed: it is drained and removed")
		told[name] = err == nil
		errs = append(errs, err)
	}
	c.told.nodes = told
	return errors.Join(errs...)
}

func (c *scaler) event(ctx context.Context, about corev1.ObjectReference, namespace, kind, reason, text string) error {
	event := newEvent(about, namespace, kind, reason, text, text)
	event.Source.Component, event.ReportingController, event.ReportingInstance = scalerName, scalerName, scalerName
	return c.createEvent(ctx, event)
}

// createEvent writes an event; that it is there already is no error.
func (s *session) createEvent(ctx context.Context, event *corev1.Event) error {
	object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(event)
	if err != nil {
		return fmt.Errorf("event of %s: %w", event.InvolvedObject.Name, err)
	}
	o := &unstructured.Unstructured{Object: object}
	o.SetAPIVersion("v1")
	o.SetKind("Event")
	_, err = s.client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "events"}).Namespace(event.Namespace).Create(ctx, o, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("event of %s: %w", event.InvolvedObject.Name, err)
	}
	return nil
}

// tellStatus writes the ConfigMap when it says something else, and now and then.
func (c *scaler) tellStatus(ctx context.Context, spec *controlplane.Autoscaler, in *autoscale.Input, d *autoscale.Decision) error {
	raw, err := yaml.Marshal(statusOf(spec, in, d))
	if err != nil {
		return fmt.Errorf("status of scaling: %w", err)
	}
	if string(raw) == c.told.status && time.Since(c.told.at) < tellAgain {
		return nil
	}
	now := time.Now().UTC().Format(time.RFC3339)
	o := &unstructured.Unstructured{Object: map[string]any{"data": map[string]any{"status": "time: " + strconv.Quote(now) + "\n" + string(raw)}}}
	o.SetAPIVersion("v1")
	o.SetKind("ConfigMap")
	o.SetName(statusMap)
	o.SetNamespace(system)
	o.SetAnnotations(map[string]string{"cluster-autoscaler.kubernetes.io/last-updated": now})
	_, err = c.client.Resource(configMaps()).Namespace(system).Apply(ctx, statusMap, o, metav1.ApplyOptions{FieldManager: scalerName, Force: true})
	if err != nil {
		return fmt.Errorf("status of scaling: %w", err)
	}
	c.told.status, c.told.at = string(raw), time.Now()
	return nil
}

func configMaps() schema.GroupVersionResource {
	return schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}
}

// counts is how the nodes of a group are.
type counts struct{ registered, ready, unready, coming int }

func (n counts) health(target, least, most int) map[string]any {
	return map[string]any{"status": "Healthy", "cloudProviderTarget": target, "minSize": least, "maxSize": most, "nodeCounts": map[string]any{
		"registered":       map[string]any{"total": n.registered, "ready": n.ready, "unready": map[string]any{"total": n.unready}},
		"longUnregistered": 0, "unregistered": n.coming}}
}

// statusOf is the status in the form that cluster-autoscaler gives it.
func statusOf(spec *controlplane.Autoscaler, in *autoscale.Input, d *autoscale.Decision) map[string]any {
	groups, idle := map[string]*counts{}, map[string]int{}
	all := counts{coming: len(in.Missing)}
	for i := range spec.Pools {
		groups[spec.Pools[i].Name] = &counts{}
	}
	for _, n := range in.Nodes {
		for _, count := range []*counts{&all, groups[n.Pool]} {
			switch {
			case count == nil:
			case n.Ready:
				count.registered, count.ready = count.registered+1, count.ready+1
			default:
				count.registered, count.unready = count.registered+1, count.unready+1
			}
		}
		if slices.Contains(d.Idle, n.Name) {
			idle[n.Pool]++
		}
	}
	for _, m := range in.Missing {
		groups[m.Pool].coming++
	}
	target, least, most := 0, 0, 0
	var list []any
	for i := range spec.Pools {
		p := &spec.Pools[i]
		target, least, most = target+p.Count, least+p.Min, most+p.Max
		_, grows := d.Want[p.Name]
		health := groups[p.Name].health(p.Count, p.Min, p.Max)
		if d.Memory.Pools[p.Name].Until.After(in.Now) {
			health["status"] = "Unhealthy"
		}
		list = append(list, map[string]any{"name": p.Name, "health": health,
			"scaleUp":   map[string]any{"status": either(grows || groups[p.Name].coming > 0, "InProgress", "NoActivity")},
			"scaleDown": map[string]any{"status": either(idle[p.Name] > 0, "CandidatesPresent", "NoCandidates"), "candidates": idle[p.Name]}})
	}
	wide := all.health(target, least, most)
	if d.Unwell != "" {
		wide["status"], wide["reason"] = "Unhealthy", d.Unwell
	}
	return map[string]any{"autoscalerStatus": "Running", "nodeGroups": list, "clusterWide": map[string]any{"health": wide,
		"scaleUp":   map[string]any{"status": either(len(d.Want) > 0 || all.coming > 0, "InProgress", "NoActivity")},
		"scaleDown": map[string]any{"status": either(len(d.Idle) > 0, "CandidatesPresent", "NoCandidates"), "candidates": len(d.Idle)}}}
}

func either(is bool, yes, no string) string {
	if is {
		return yes
	}
	return no
}

// priorities reads the priority expander's ConfigMap: lists of patterns by
// priority. Without a good one all pools are alike.
func (c *scaler) priorities(ctx context.Context) []autoscale.Priority {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	o, err := c.client.Resource(configMaps()).Namespace(system).Get(ctx, priorityMap, metav1.GetOptions{})
	if err != nil {
		c.Logger.Debug("priorities of pools not read", "error", err)
		return nil
	}
	text, _, _ := unstructured.NestedString(o.Object, "data", "priorities")
	priorities, err := parsePriorities(text)
	if err != nil {
		c.Logger.Warn("the ConfigMap of pools' priorities can't be read", "name", priorityMap, "error", err)
	}
	return priorities
}

// parsePriorities reads foreign text, of bounded length.
func parsePriorities(text string) ([]autoscale.Priority, error) {
	if len(text) > priorityBytes {
		return nil, fmt.Errorf("it is longer than %d bytes", priorityBytes)
	}
	lists := map[string][]string{}
	if err := yaml.Unmarshal([]byte(text), &lists); err != nil {
		return nil, err
	}
	var all []autoscale.Priority
	for value, patterns := range lists {
		n, err := strconv.Atoi(value)
		if err != nil {
			return nil, fmt.Errorf("%q is no priority", value)
		}
		for _, pattern := range patterns {
			all = append(all, autoscale.Priority{Value: n, Pattern: pattern})
		}
	}
	return all, nil
}
