// SPDX-License-Identifier: Apache-2.0

package autoscale

import "maps"

// hostnameLabel is the topology of single nodes.
const hostnameLabel = "kubernetes.io/hostname"

// storageName is a resource that a template doesn't tell of: it isn't short there.
const storageName = "ephemeral-storage"

// place is a node of the simulation.
type place struct {
	name   string
	pool   string
	labels map[string]string
	taints []Taint
	total  Resources
	free   Resources
	pods   []*Pod
	usable bool // pods may be put here
	fresh  bool // it isn't there yet
	node   *Node
	// load is the share that pods ask for; bare: none of them would have to move.
	load float64
	bare bool
}

// board is a cluster in simulation: pods are put on it and taken off again.
type board struct {
	places []*place
	apart  map[*Pod]*place // pods that keep others away
}

func newBoard() *board { return &board{apart: map[*Pod]*place{}} }

// standing puts a node on the board as it is.
func standing(n *Node, usable bool, taints []Taint) *place {
	p := &place{name: n.Name, pool: n.Pool, labels: n.Labels, taints: taints, total: n.Allocatable, free: maps.Clone(n.Allocatable), usable: usable, node: n}
	if p.free == nil {
		p.free = Resources{}
	}
	return p
}

// coming is a node of a template that isn't there yet, with the pods that
// DaemonSets would start on it.
func coming(pool *Pool, name string, daemons []*Pod) *place {
	t := &pool.Template
	labels := maps.Clone(t.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	labels[hostnameLabel] = name
	total := Resources{cpuName: t.CPU, memoryName: t.Memory, podsName: t.Pods}
	p := &place{name: name, pool: pool.Name, labels: labels, taints: t.Taints, total: total, free: maps.Clone(total), usable: true, fresh: true}
	for _, d := range daemons {
		if p.welcomes(d) == "" {
			p.take(d)
		}
	}
	return p
}

// take subtracts what a pod asks for.
func (p *place) take(pod *Pod) {
	p.pods = append(p.pods, pod)
	for name, amount := range pod.Requests {
		p.free[name] -= amount
	}
	p.free[podsName]--
}

func (b *board) add(p *place) {
	b.places = append(b.places, p)
	for _, pod := range p.pods {
		if len(pod.Apart) > 0 {
			b.apart[pod] = p
		}
	}
}

// drop takes the place that was added last off the board.
func (b *board) drop() {
	p := b.places[len(b.places)-1]
	b.places = b.places[:len(b.places)-1]
	for _, pod := range p.pods {
		delete(b.apart, pod)
	}
}

func (b *board) put(pod *Pod, p *place) {
	p.take(pod)
	if len(pod.Apart) > 0 {
		b.apart[pod] = p
	}
}

// lift takes a pod off its place.
func (b *board) lift(pod *Pod, p *place) {
	for i := len(p.pods) - 1; i >= 0; i-- {
		if p.pods[i] != pod {
			continue
		}
		p.pods = append(p.pods[:i:i], p.pods[i+1:]...)
		for name, amount := range pod.Requests {
			p.free[name] += amount
		}
		p.free[podsName]++
		delete(b.apart, pod)
		return
	}
}

// first puts a pod on the first place that has room for it, and returns that.
func (b *board) first(pod *Pod, among []*place) *place {
	for _, p := range among {
		if p.usable && b.fits(pod, p) == "" {
			b.put(pod, p)
			return p
		}
	}
	return nil
}

// fits says why a pod can't be on a place, "" when it can.
func (b *board) fits(pod *Pod, p *place) string {
	if reason := p.welcomes(pod); reason != "" {
		return reason
	}
	if reason := p.room(pod); reason != "" {
		return reason
	}
	return b.neighbours(pod, p)
}

// room says what a place has too little of.
func (p *place) room(pod *Pod) string {
	if p.free[podsName] < 1 {
		return "Too many pods"
	}
	short := "" // the first by name: maps have no order
	for name, amount := range pod.Requests {
		free, known := p.free[name]
		if !known && p.fresh && name == storageName {
			continue
		}
		if amount > 0 && free < amount && (short == "" || name < short) {
			short = name
		}
	}
	if short != "" {
		return "Insufficient " + short
	}
	for _, port := range pod.Ports {
		for _, other := range p.pods {
			for _, taken := range other.Ports {
				if taken == port {
					return "node(s) didn't have free ports for the requested pod ports"
				}
			}
		}
	}
	return ""
}

// welcomes says why a node isn't one for a pod, whatever else is on it.
func (p *place) welcomes(pod *Pod) string {
	for i := range p.taints {
		if taint := &p.taints[i]; taint.Effect != "PreferNoSchedule" && !pod.tolerates(taint) {
			return "node(s) had untolerated taint {" + taint.Key + ": " + taint.Value + "}"
		}
	}
	for key, value := range pod.Selector {
		if have, is := p.labels[key]; !is || have != value {
			return "node(s) didn't match Pod's node affinity/selector"
		}
	}
	if len(pod.Required) == 0 {
		return ""
	}
	for i := range pod.Required {
		if pod.Required[i].holds(p) {
			return ""
		}
	}
	return "node(s) didn't match Pod's node affinity/selector"
}

func (t *NodeTerm) holds(p *place) bool {
	return len(t.Labels)+len(t.Names) > 0 && all(t.Labels, p.labels) && all(t.Names, map[string]string{nameField: p.name})
}

// nameField is the one field that terms may speak of.
const nameField = "metadata.name"

func (pod *Pod) tolerates(taint *Taint) bool {
	for i := range pod.Tolerations {
		t := &pod.Tolerations[i]
		if (t.Effect == "" || t.Effect == taint.Effect) && (t.Key == taint.Key || t.Key == "" && t.Operator == "Exists") &&
			(t.Operator == "Exists" || t.Value == taint.Value) {
			return true
		}
	}
	return false
}
