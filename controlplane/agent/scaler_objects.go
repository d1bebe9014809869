// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/component-helpers/resource"

	"bastide.dev/autoscale"
)

// Annotations of cluster-autoscaler's, which users know.
const (
	evictMark  = "cluster-autoscaler.kubernetes.io/safe-to-evict"
	volumeMark = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes"
	keepMark   = "cluster-autoscaler.kubernetes.io/scale-down-disabled"
	mirrorMark = "kubernetes.io/config.mirror"
)

// nameOf names an object among all of its kind.
func nameOf(o *unstructured.Unstructured) string {
	if ns := o.GetNamespace(); ns != "" {
		return ns + "/" + o.GetName()
	}
	return o.GetName()
}

// as reads an object into its type. What can't be read is as if it were empty:
// the API server doesn't send such.
func as[T any](o *unstructured.Unstructured) *T {
	into := new(T)
	if runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, into) != nil {
		return new(T)
	}
	return into
}

// podOf is what a decision needs of a pod; nil of one that has ended.
func podOf(o *unstructured.Unstructured) *placed {
	p := as[corev1.Pod](o)
	if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
		return nil
	}
	h := &placed{pod: slimmed(&p.ObjectMeta, &p.Spec, p), node: p.Spec.NodeName}
	h.pod.UID, h.pod.Ending, h.pod.Since = string(p.UID), p.DeletionTimestamp != nil, p.CreationTimestamp.Time
	if _, h.pod.Mirror = p.Annotations[mirrorMark]; h.node != "" || h.pod.Ending || p.Status.NominatedNodeName != "" {
		return h // one that others make room for has a place
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && c.Reason == corev1.PodReasonUnschedulable {
			h.waiting = true
		}
	}
	return h
}

// slimmed is a pod without what no decision looks at.
func slimmed(meta *metav1.ObjectMeta, spec *corev1.PodSpec, p *corev1.Pod) *autoscale.Pod {
	pod := &autoscale.Pod{Namespace: meta.Namespace, Name: meta.Name, Labels: meta.Labels, Selector: spec.NodeSelector, Requests: amounts(resource.PodRequests(p, resource.PodResourcesOptions{})),
		System: meta.Namespace == metav1.NamespaceSystem, Local: local(meta, spec)}
	if spec.Priority != nil {
		pod.Priority = *spec.Priority
	}
	if owner := metav1.GetControllerOfNoCopy(meta); owner != nil {
		pod.Owner, pod.Daemon = owner.Kind+"/"+string(owner.UID), owner.Kind == "DaemonSet"
	}
	if text, is := meta.Annotations[evictMark]; is && (text == "true" || text == "false") {
		safe := text == "true"
		pod.Evict = &safe
	}
	for _, t := range spec.Tolerations {
		pod.Tolerations = append(pod.Tolerations, autoscale.Toleration{Key: t.Key, Operator: string(t.Operator), Value: t.Value, Effect: string(t.Effect)})
	}
	for _, s := range spec.TopologySpreadConstraints {
		if s.WhenUnsatisfiable == corev1.DoNotSchedule {
			pod.Spread = append(pod.Spread, autoscale.Spread{Topology: s.TopologyKey, MaxSkew: s.MaxSkew, Selector: selectorOf(s.LabelSelector)})
		}
	}
	for i := range spec.Containers {
		for _, port := range spec.Containers[i].Ports {
			if port.HostPort != 0 {
				pod.Ports = append(pod.Ports, autoscale.Port{Protocol: string(port.Protocol), Number: port.HostPort})
			}
		}
	}
	affinities(pod, spec.Affinity)
	return pod
}

// local tells whether a pod has storage that ends with its node, and hasn't been
// declared to do without.
func local(meta *metav1.ObjectMeta, spec *corev1.PodSpec) bool {
	without := strings.Split(meta.Annotations[volumeMark], ",")
	return slices.ContainsFunc(spec.Volumes, func(v corev1.Volume) bool {
		return (v.EmptyDir != nil && v.EmptyDir.Medium != corev1.StorageMediumMemory || v.HostPath != nil) && !slices.Contains(without, v.Name)
	})
}

func affinities(pod *autoscale.Pod, a *corev1.Affinity) {
	if a == nil {
		return
	}
	if a.NodeAffinity != nil && a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution != nil {
		for _, term := range a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
			pod.Required = append(pod.Required, autoscale.NodeTerm{Labels: nodeRequirements(term.MatchExpressions), Names: nodeRequirements(term.MatchFields)})
		}
	}
	if a.PodAffinity != nil {
		pod.Near = podTerms(pod, a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution)
	}
	if a.PodAntiAffinity != nil {
		pod.Apart = podTerms(pod, a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution)
	}
}

func nodeRequirements(list []corev1.NodeSelectorRequirement) []autoscale.Requirement {
	var all []autoscale.Requirement
	for _, r := range list {
		all = append(all, autoscale.Requirement{Key: r.Key, Operator: string(r.Operator), Values: r.Values})
	}
	return all
}

func podTerms(pod *autoscale.Pod, list []corev1.PodAffinityTerm) []autoscale.PodTerm {
	var all []autoscale.PodTerm
	for _, t := range list {
		term := autoscale.PodTerm{Topology: t.TopologyKey, Selector: selectorOf(t.LabelSelector), Namespaces: t.Namespaces}
		// Which namespaces a selector chooses isn't watched: it is taken to choose all.
		term.Everywhere = t.NamespaceSelector != nil
		for _, key := range t.MatchLabelKeys {
			if value, is := pod.Labels[key]; is {
				term.Selector.Labels = append(term.Selector.Labels, autoscale.Requirement{Key: key, Operator: "In", Values: []string{value}})
			}
		}
		all = append(all, term)
	}
	return all
}

func selectorOf(s *metav1.LabelSelector) autoscale.Selector {
	if s == nil {
		return autoscale.Selector{}
	}
	found := autoscale.Selector{Set: true}
	for key, value := range s.MatchLabels {
		found.Labels = append(found.Labels, autoscale.Requirement{Key: key, Operator: "In", Values: []string{value}})
	}
	slices.SortFunc(found.Labels, func(a, b autoscale.Requirement) int { return strings.Compare(a.Key, b.Key) })
	for _, r := range s.MatchExpressions {
		found.Labels = append(found.Labels, autoscale.Requirement{Key: r.Key, Operator: string(r.Operator), Values: r.Values})
	}
	return found
}

// amounts are a list's figures, cpu in thousandths.
func amounts(list corev1.ResourceList) autoscale.Resources {
	found := autoscale.Resources{}
	for name, quantity := range list {
		if name == corev1.ResourceCPU {
			found[string(name)] = quantity.MilliValue()
		} else {
			found[string(name)] = quantity.Value()
		}
	}
	return found
}

func nodeOf(o *unstructured.Unstructured) *autoscale.Node {
	n := as[corev1.Node](o)
	node := &autoscale.Node{Name: o.GetName(), Labels: n.Labels, Allocatable: amounts(n.Status.Allocatable), Created: n.CreationTimestamp.Time,
		Cordoned: n.Spec.Unschedulable, Keep: n.Annotations[keepMark] == "true"}
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			node.Ready, node.Since = c.Status == corev1.ConditionTrue, c.LastTransitionTime.Time
		}
	}
	for _, t := range n.Spec.Taints {
		node.Taints = append(node.Taints, autoscale.Taint{Key: t.Key, Value: t.Value, Effect: string(t.Effect)})
	}
	return node
}

// daemonOf is the pod that a DaemonSet starts on each node.
func daemonOf(o *unstructured.Unstructured) *autoscale.Pod {
	d := as[appsv1.DaemonSet](o)
	p := &corev1.Pod{ObjectMeta: d.Spec.Template.ObjectMeta, Spec: d.Spec.Template.Spec}
	p.Name, p.Namespace = o.GetName(), o.GetNamespace()
	pod := slimmed(&p.ObjectMeta, &p.Spec, p)
	pod.Daemon = true
	return pod
}

func budgetOf(o *unstructured.Unstructured) autoscale.Budget {
	b := as[policyv1.PodDisruptionBudget](o)
	budget := autoscale.Budget{Namespace: o.GetNamespace(), Name: o.GetName(), Selector: selectorOf(b.Spec.Selector), Allowed: b.Status.DisruptionsAllowed}
	if b.Status.ObservedGeneration < b.Generation {
		budget.Allowed = 0 // it hasn't been counted since it changed
	}
	return budget
}

// order has the same cluster give the same input.
func order(in *autoscale.Input) {
	byKey := func(a, b *autoscale.Pod) int { return strings.Compare(a.Key(), b.Key()) }
	slices.SortFunc(in.Nodes, func(a, b *autoscale.Node) int { return strings.Compare(a.Name, b.Name) })
	for _, n := range in.Nodes {
		slices.SortFunc(n.Pods, byKey)
	}
	slices.SortFunc(in.Pending, byKey)
	slices.SortFunc(in.Daemons, byKey)
	slices.SortFunc(in.Budgets, func(a, b autoscale.Budget) int {
		return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
	})
}
