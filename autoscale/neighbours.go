// SPDX-License-Identifier: Apache-2.0

package autoscale

import (
	"slices"
	"strconv"
)

// The reasons that other pods are.
const (
	apartReason  = "node(s) didn't match pod anti-affinity rules"
	nearReason   = "node(s) didn't match pod affinity rules"
	spreadReason = "node(s) didn't match pod topology spread constraints"
)

// neighbours says why other pods keep a pod from a place.
func (b *board) neighbours(pod *Pod, p *place) string {
	for i := range pod.Apart {
		if term := &pod.Apart[i]; b.within(term.Topology, p, func(other *Pod) bool { return other != pod && term.chooses(pod, other) }) {
			return apartReason
		}
	}
	for other, at := range b.apart {
		for i := range other.Apart {
			if term := &other.Apart[i]; other != pod && together(term.Topology, at, p) && term.chooses(other, pod) {
				return apartReason
			}
		}
	}
	for i := range pod.Near {
		if !b.near(&pod.Near[i], pod, p) {
			return nearReason
		}
	}
	for i := range pod.Spread {
		if !b.spreads(&pod.Spread[i], pod, p) {
			return spreadReason
		}
	}
	return ""
}

// together tells whether two places are in the same part of a topology.
func together(topology string, a, b *place) bool {
	at, is := a.labels[topology]
	other, too := b.labels[topology]
	return is && too && at == other
}

// within tells whether any pod in a place's part of a topology is such.
func (b *board) within(topology string, p *place, such func(*Pod) bool) bool {
	for _, other := range b.places {
		if together(topology, p, other) && slices.ContainsFunc(other.pods, such) {
			return true
		}
	}
	return false
}

// near tells whether a term of affinity holds: one of those it means is there,
// or there is none at all and the pod is itself the first.
func (b *board) near(term *PodTerm, pod *Pod, p *place) bool {
	if _, is := p.labels[term.Topology]; !is {
		return false
	}
	meant := func(other *Pod) bool { return other != pod && term.chooses(pod, other) }
	if b.within(term.Topology, p, meant) {
		return true
	}
	for _, other := range b.places {
		if slices.ContainsFunc(other.pods, meant) {
			return false
		}
	}
	return term.chooses(pod, pod)
}

// spreads tells whether a pod more in a place's part keeps the skew.
func (b *board) spreads(s *Spread, pod *Pod, p *place) bool {
	part, is := p.labels[s.Topology]
	if !is {
		return false
	}
	counts := map[string]int32{part: 0}
	for _, other := range b.places {
		at, is := other.labels[s.Topology]
		if !is || other != p && !other.usable {
			continue
		}
		n := int32(0)
		for _, q := range other.pods {
			if q != pod && q.Namespace == pod.Namespace && !q.Ending && s.Selector.chooses(q.Labels) {
				n++
			}
		}
		counts[at] += n
	}
	least := counts[part]
	for _, n := range counts {
		least = min(least, n)
	}
	one := int32(0)
	if s.Selector.chooses(pod.Labels) {
		one = 1
	}
	return counts[part]+one-least <= s.MaxSkew
}

// chooses tells whether a term of pod's means other.
func (t *PodTerm) chooses(pod, other *Pod) bool {
	if !t.Everywhere && other.Namespace != pod.Namespace && len(t.Namespaces) == 0 {
		return false
	}
	if len(t.Namespaces) > 0 && !t.Everywhere && !slices.Contains(t.Namespaces, other.Namespace) {
		return false
	}
	return t.Selector.chooses(other.Labels)
}

func (s *Selector) chooses(labels map[string]string) bool { return s.Set && all(s.Labels, labels) }

// all tells whether labels meet every requirement.
func all(requirements []Requirement, labels map[string]string) bool {
	for i := range requirements {
		if !requirements[i].met(labels) {
			return false
		}
	}
	return true
}

func (r *Requirement) met(labels map[string]string) bool {
	value, is := labels[r.Key]
	switch r.Operator {
	case "In":
		return is && slices.Contains(r.Values, value)
	case "NotIn":
		return !is || !slices.Contains(r.Values, value)
	case "Exists":
		return is
	case "DoesNotExist":
		return !is
	case "Gt", "Lt":
		if !is || len(r.Values) != 1 {
			return false
		}
		have, err := strconv.ParseInt(value, 10, 64)
		want, bad := strconv.ParseInt(r.Values[0], 10, 64)
		if err != nil || bad != nil {
			return false
		}
		return r.Operator == "Gt" && have > want || r.Operator == "Lt" && have < want
	}
	return false
}
