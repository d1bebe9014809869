// SPDX-License-Identifier: Apache-2.0

package autoscale

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// decider is one decision in the making.
type decider struct {
	*Input
	Decision
	board *board
	// present and upcoming are how many nodes of each pool are registered and on their way.
	present, upcoming map[string]int
	targets           []*place // where pods may be moved to, the fullest first
}

// Decide says what should be done with a cluster as it stands. The same input
// has the same answer.
func Decide(in *Input) Decision {
	d := &decider{Input: measured(in), board: newBoard(), present: map[string]int{}, upcoming: map[string]int{}}
	d.Decision = Decision{Want: map[string]int{}, Helped: map[string]string{}, Unhelped: map[string]string{}, Kept: map[string]string{}}
	d.remember()
	d.missing()
	if d.Unwell = d.unwell(); d.Unwell != "" {
		d.Decision.Memory.Unneeded = map[string]time.Time{}
		return d.Decision
	}
	d.stand()
	d.grow()
	d.shrink()
	return d.Decision
}

// measured is the input with templates that give what the nodes that there are
// give: kubelets know better than whoever sized them.
func measured(in *Input) *Input {
	known := *in
	known.Pools = slices.Clone(in.Pools)
	for i := range known.Pools {
		p := &known.Pools[i]
		for _, n := range in.Nodes {
			if n.Pool == p.Name && n.Ready && n.Allocatable[cpuName] > 0 && n.Allocatable[memoryName] > 0 && n.Allocatable[podsName] > 0 {
				p.Template.CPU, p.Template.Memory, p.Template.Pods = n.Allocatable[cpuName], n.Allocatable[memoryName], n.Allocatable[podsName]
				break
			}
		}
	}
	return &known
}

// remember copies the memory, without what is gone.
func (d *decider) remember() {
	was := d.Input.Memory
	d.Decision.Memory = Memory{Unneeded: map[string]time.Time{}, Missing: map[string]time.Time{}, Asked: maps.Clone(was.Asked),
		Added: was.Added, Deleted: was.Deleted, Failed: was.Failed, Pools: map[string]PoolMemory{}}
	for i := range d.Pools {
		if m, known := was.Pools[d.Pools[i].Name]; known {
			d.Decision.Memory.Pools[d.Pools[i].Name] = m
		}
	}
	if d.Decision.Memory.Asked == nil {
		d.Decision.Memory.Asked = map[string]time.Time{}
	}
}

// due notes when something will be another way although nothing happens.
func (d *decider) due(at time.Time) {
	if at.After(d.Now) && (d.Next.IsZero() || at.Before(d.Next)) {
		d.Next = at
	}
}

// missing counts the nodes of pools. One that doesn't come in time is given up,
// and its pool isn't tried for a while.
func (d *decider) missing() {
	for _, n := range d.Nodes {
		if n.Pool != "" && !n.Going {
			d.present[n.Pool]++
		}
	}
	m := &d.Decision.Memory
	given := map[string]int{}
	late := map[string][]string{}
	for _, one := range d.Missing {
		given[one.Pool]++
		since, known := d.Input.Memory.Missing[one.Name]
		if !known {
			since = d.Now
		}
		m.Missing[one.Name] = since
		if end := since.Add(d.Profile.Provision); end.After(d.Now) {
			d.upcoming[one.Pool]++
			d.due(end)
		} else {
			late[one.Pool] = append(late[one.Pool], one.Name)
		}
	}
	for i := range d.Pools {
		pool := &d.Pools[i]
		overdue := len(late[pool.Name]) > 0
		if lacking := pool.Count - d.present[pool.Name] - given[pool.Name]; lacking > 0 {
			// What wasn't even given to the pool has its time too: perhaps there are no addresses.
			name := "of " + pool.Name
			since, known := d.Input.Memory.Missing[name]
			if !known {
				since = d.Now
			}
			m.Missing[name] = since
			if end := since.Add(d.Profile.Provision); end.After(d.Now) {
				d.upcoming[pool.Name] += lacking
				d.due(end)
			} else {
				overdue = true
			}
		}
		d.giveUp(pool, late[pool.Name], overdue)
	}
}

// The pause after nodes that didn't come, which doubles from the first to the last.
const (
	firstPause = 5 * time.Minute
	lastPause  = 30 * time.Minute
)

// giveUp has the nodes of a pool removed that are late, down to its minimum.
func (d *decider) giveUp(pool *Pool, late []string, overdue bool) {
	m := d.Decision.Memory.Pools[pool.Name]
	if !overdue {
		if d.upcoming[pool.Name] == 0 {
			m.Failures = 0
		}
	} else if !m.Until.After(d.Now) {
		m.Until = d.Now.Add(min(firstPause<<min(m.Failures, 10), lastPause))
		m.Failures++
		d.Decision.Memory.Failed = d.Now
	}
	d.Decision.Memory.Pools[pool.Name] = m
	d.due(m.Until)
	slices.Sort(late)
	for i := 0; i < len(late) && pool.Count-i > pool.Min; i++ {
		d.Remove = append(d.Remove, late[i])
	}
}

// young tells whether a node that isn't ready may still become so.
func (d *decider) young(n *Node) bool {
	return !n.Ready && n.Created.Add(d.Profile.Provision).After(d.Now)
}

// unwell says why a cluster is too sick for any decision.
func (d *decider) unwell() string {
	unready, all := 0, len(d.Nodes)+len(d.Missing)
	for _, one := range d.Missing {
		if !d.Decision.Memory.Missing[one.Name].Add(d.Profile.Provision).After(d.Now) {
			unready++
		}
	}
	for _, n := range d.Nodes {
		if !n.Ready && !n.Going && !n.Leaving && !d.young(n) {
			unready++
		}
	}
	if unready > d.Profile.UnreadyCount && unready*100 > d.Profile.UnreadyShare*all {
		return fmt.Sprintf("%d of %d nodes aren't ready", unready, all)
	}
	return ""
}

// stand sets the board up with the nodes that there are and that come.
func (d *decider) stand() {
	for _, n := range d.Nodes {
		taints, young := n.Taints, d.young(n)
		if young {
			taints = settled(taints)
		}
		p := standing(n, (n.Ready || young) && !n.Cordoned && !n.Going && !n.Leaving, taints)
		for _, pod := range n.Pods {
			p.take(pod)
		}
		d.board.add(p)
	}
	for i := range d.Pools {
		pool := &d.Pools[i]
		for n := range d.upcoming[pool.Name] {
			d.board.add(coming(pool, fmt.Sprintf("upcoming-%s-%d", pool.Name, n), d.Daemons))
		}
	}
}

// settled are a node's taints without those that its start brings and ends.
func settled(taints []Taint) []Taint {
	return slices.DeleteFunc(slices.Clone(taints), func(t Taint) bool {
		return strings.HasPrefix(t.Key, "node.kubernetes.io/") || t.Key == "node.cloudprovider.kubernetes.io/uninitialized"
	})
}

// decreasing sorts pods: the most important first, then the largest.
func decreasing(pods []*Pod) {
	slices.SortStableFunc(pods, func(a, b *Pod) int {
		return cmp.Or(cmp.Compare(b.Priority, a.Priority), cmp.Compare(b.Requests[cpuName], a.Requests[cpuName]),
			cmp.Compare(b.Requests[memoryName], a.Requests[memoryName]), strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
}
