// SPDX-License-Identifier: Apache-2.0

package autoscale

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// patience is how long a node that was asked to go may stay before that counts
// as a failure.
const patience = 5 * time.Minute

// idle is a node that isn't needed.
type idle struct {
	place *place
	empty bool
	since time.Time
	wait  time.Duration
}

// shrink finds the nodes that aren't needed, and asks for those to go that
// weren't for long enough.
func (d *decider) shrink() {
	asked := d.answered()
	room := map[string]int{}
	for i := range d.Pools {
		room[d.Pools[i].Name] = d.Pools[i].Count - d.Pools[i].Min
	}
	for _, name := range d.Remove { // nodes that didn't come
		for _, m := range d.Missing {
			if m.Name == name {
				room[m.Pool]--
			}
		}
	}
	budgets := make([]int32, len(d.Budgets))
	for i := range d.Budgets {
		budgets[i] = d.Budgets[i].Allowed
	}
	var unneeded []idle
	for _, p := range d.sorted() {
		if room[p.pool] <= 0 {
			continue
		}
		one, ok := d.unneeded(p, budgets)
		if !ok {
			continue
		}
		room[p.pool]--
		unneeded = append(unneeded, one)
		d.Idle = append(d.Idle, p.name)
	}
	d.pick(unneeded, asked)
}

// answered are the nodes that were asked for and stand still; those that went
// begin the delay after a deletion.
func (d *decider) answered() map[string]bool {
	m := &d.Decision.Memory
	standing := map[string]bool{}
	for _, n := range d.Nodes {
		if _, asked := m.Asked[n.Name]; asked && !n.Going {
			standing[n.Name] = true
		}
	}
	for name, at := range m.Asked {
		switch {
		case !standing[name]:
			m.Deleted = d.Now
			delete(m.Asked, name)
		case d.Now.Sub(at) > patience:
			m.Failed = d.Now
			delete(m.Asked, name)
			delete(standing, name)
		default:
			d.due(at.Add(patience + time.Second))
		}
	}
	return standing
}

// sorted are the nodes that may be taken away, those first that have been
// unneeded longest: what was begun is ended, and nothing goes to and fro.
func (d *decider) sorted() []*place {
	pools := map[string]bool{}
	for i := range d.Pools {
		pools[d.Pools[i].Name] = true
	}
	var found []*place
	for _, p := range d.board.places {
		p.load, p.bare = d.utilization(p), d.empty(p)
		if p.usable && !p.fresh && p.node.Ready {
			d.targets = append(d.targets, p)
		}
		if n := p.node; n != nil && pools[n.Pool] && !n.Going && !n.Leaving && !d.young(n) {
			found = append(found, p)
		}
	}
	// What moves goes to the fullest: so the others can go, too.
	slices.SortStableFunc(d.targets, func(a, b *place) int {
		return cmp.Or(cmp.Compare(b.load, a.load), strings.Compare(a.name, b.name))
	})
	was := d.Input.Memory.Unneeded
	slices.SortStableFunc(found, func(a, b *place) int {
		one, first := was[a.name]
		other, second := was[b.name]
		return cmp.Or(-compareBool(first, second), one.Compare(other), -compareBool(a.bare, b.bare),
			cmp.Compare(a.load, b.load), strings.Compare(a.name, b.name))
	})
	return found
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// empty tells whether nothing on a place would have to move.
func (d *decider) empty(p *place) bool {
	return !slices.ContainsFunc(p.pods, func(pod *Pod) bool { return pod.moves() })
}

// moves tells whether a pod has to be somewhere else when its node goes.
func (pod *Pod) moves() bool { return !pod.Daemon && !pod.Mirror && !pod.Ending }

// utilization is the larger of the shares of cpu and memory that pods ask for.
func (d *decider) utilization(p *place) float64 {
	used, top := Resources{}, 0.0
	for _, pod := range p.pods {
		if pod.Ending || pod.Daemon && d.Profile.IgnoreDaemons {
			continue
		}
		for name, amount := range pod.Requests {
			used[name] += amount
		}
	}
	for _, name := range []string{cpuName, memoryName} {
		top = max(top, share(used, p.total, name))
	}
	return top
}

// unneeded tells whether a node could go, and since when that is so. What would
// move is moved on the board, for the nodes that are looked at next.
func (d *decider) unneeded(p *place, budgets []int32) (idle, bool) {
	n := p.node
	one := idle{place: p, empty: p.bare, wait: d.Profile.Unneeded}
	if n.Keep {
		d.Kept[p.name] = "it has the annotation cluster-autoscaler.kubernetes.io/scale-down-disabled"
		return one, false
	}
	if n.Ready {
		if p.load >= d.Profile.Threshold {
			return one, false
		}
		if reason := d.clear(p, budgets); reason != "" {
			d.Kept[p.name] = reason
			return one, false
		}
	} else {
		one.wait = d.Profile.Unready // what ran there is lost already
	}
	p.usable = false
	since, known := d.Input.Memory.Unneeded[p.name]
	if !known || !n.Ready && n.Since.After(since) {
		since = d.Now
	}
	one.since = since
	d.Decision.Memory.Unneeded[p.name] = since
	d.due(since.Add(one.wait))
	return one, true
}

// clear moves the pods of a place to others, or says why that can't be.
func (d *decider) clear(p *place, budgets []int32) string {
	var moving []*Pod
	for _, pod := range p.pods {
		if !pod.moves() {
			continue
		}
		if reason := d.held(pod); reason != "" {
			return reason
		}
		moving = append(moving, pod)
	}
	spent := slices.Clone(budgets)
	for _, pod := range moving {
		for i := range d.Budgets {
			if !d.Budgets[i].protects(pod) {
				continue
			}
			if spent[i]--; spent[i] < 0 {
				return "the disruption budget " + d.Budgets[i].Name + " doesn't let pod " + pod.Key() + " go"
			}
		}
	}
	decreasing(moving)
	was := p.usable
	p.usable = false
	var moved []*place
	for i, pod := range moving {
		d.board.lift(pod, p)
		to := d.board.first(pod, d.targets)
		if to == nil {
			d.board.put(pod, p)
			for j := range i {
				d.board.lift(moving[j], moved[j])
				d.board.put(moving[j], p)
			}
			p.usable = was
			return "there is no other place for pod " + pod.Key()
		}
		moved = append(moved, to)
	}
	copy(budgets, spent)
	return ""
}

func (b *Budget) protects(pod *Pod) bool {
	return b.Namespace == pod.Namespace && b.Selector.chooses(pod.Labels)
}

// held says why a pod mustn't be moved.
func (d *decider) held(pod *Pod) string {
	if pod.Evict != nil {
		if *pod.Evict {
			return ""
		}
		return "pod " + pod.Key() + " isn't safe to evict, its annotation says"
	}
	switch {
	case pod.Owner == "":
		return "nothing would start pod " + pod.Key() + " again"
	case pod.Local && d.Profile.SkipLocal:
		return "pod " + pod.Key() + " has local storage"
	case pod.System && d.Profile.SkipSystem && !slices.ContainsFunc(d.Budgets, func(b Budget) bool { return b.protects(pod) }):
		return "pod " + pod.Key() + " is kube-system's and has no disruption budget"
	}
	return ""
}

// pick asks for the nodes whose time has come: many empty ones, or a single one
// that pods have to leave.
func (d *decider) pick(unneeded []idle, asked map[string]bool) {
	m := &d.Decision.Memory
	draining, bulk := false, d.Profile.EmptyBulk
	for _, n := range d.Nodes {
		draining = draining || n.Going && slices.ContainsFunc(n.Pods, (*Pod).moves)
	}
	still := map[string]bool{}
	for _, one := range unneeded {
		if asked[one.place.name] {
			still[one.place.name] = true
			d.Remove = append(d.Remove, one.place.name)
			draining, bulk = draining || !one.empty, bulk-1
		}
	}
	for name := range m.Asked {
		if !still[name] {
			delete(m.Asked, name) // it is needed again
		}
	}
	if len(d.Want) > 0 || d.cooling() {
		return
	}
	for _, one := range unneeded {
		name := one.place.name
		if still[name] || one.since.Add(one.wait).After(d.Now) || one.empty && bulk <= 0 || !one.empty && (draining || len(d.Remove) > 0) {
			continue
		}
		m.Asked[name] = d.Now
		d.Remove = append(d.Remove, name)
		draining, bulk = draining || !one.empty, bulk-1
		if !one.empty {
			return
		}
	}
}

// cooling tells whether it is too early to take anything away.
func (d *decider) cooling() bool {
	m, p := &d.Decision.Memory, &d.Profile
	cool := false
	for _, until := range []time.Time{m.Added.Add(p.AfterAdd), m.Deleted.Add(p.AfterDelete), m.Failed.Add(p.AfterFailure)} {
		cool = cool || until.After(d.Now)
		d.due(until)
	}
	return cool
}
