// SPDX-License-Identifier: Apache-2.0

package autoscale

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// world is a small Kubernetes in steps: a scheduler, nodes that take their time
// to come, pods that are evicted from nodes that go.
type world struct {
	t      *testing.T
	random *rand.Rand
	in     Input
	live   []*Pod // that should run
	next   int
	comes  map[string]time.Time // missing nodes, when they come
	moves  int                  // changes of any pool's count
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{t: t, random: rand.New(rand.NewPCG(seed, 7)), comes: map[string]time.Time{}}
	w.in = Input{Now: begin, Profile: DefaultProfile()}
	w.in.Profile.Expander = []string{Random, LeastWaste, MostPods}[w.random.IntN(3)]
	w.in.Profile.Balance = w.random.IntN(2) == 0
	for i := range 1 + w.random.IntN(3) {
		least := w.random.IntN(3)
		w.in.Pools = append(w.in.Pools, Pool{Name: fmt.Sprint("pool", i), Min: least, Count: least, Max: least + 1 + w.random.IntN(12), Template: template(int64(1+w.random.IntN(4)) * 1000)})
	}
	w.in.Daemons = []*Pod{{Namespace: "kube-system", Name: "proxy", Daemon: true, System: true, Requests: Resources{cpuName: 50, memoryName: 50 << 20}}}
	return w
}

// deploy starts pods of one application, with a budget.
func (w *world) deploy() {
	app, size := fmt.Sprint("app", w.next), int64(50+w.random.IntN(900))
	mine := Selector{Set: true, Labels: []Requirement{{"app", "In", []string{app}}}}
	apart := w.random.IntN(4) == 0
	for range 1 + w.random.IntN(12) {
		p := pod(fmt.Sprint("pod", w.next), size)
		p.Labels = map[string]string{"app": app}
		if apart {
			p.Apart = []PodTerm{{Topology: hostnameLabel, Selector: mine}}
		}
		p.Since = w.in.Now
		w.next++
		w.live = append(w.live, p)
		w.in.Pending = append(w.in.Pending, p)
	}
	w.in.Budgets = append(w.in.Budgets, Budget{Namespace: "default", Name: app, Selector: mine})
}

func (w *world) undeploy(share float64) {
	gone := map[*Pod]bool{}
	for _, p := range w.live {
		gone[p] = w.random.Float64() < share
	}
	w.live = slices.DeleteFunc(w.live, func(p *Pod) bool { return gone[p] })
	w.in.Pending = slices.DeleteFunc(w.in.Pending, func(p *Pod) bool { return gone[p] })
	for _, n := range w.in.Nodes {
		n.Pods = slices.DeleteFunc(n.Pods, func(p *Pod) bool { return gone[p] })
	}
}

// schedule is what the scheduler does: it knows of nothing to come.
func (w *world) schedule() {
	b := newBoard()
	for _, n := range w.in.Nodes {
		p := standing(n, n.Ready && !n.Going, n.Taints)
		for _, one := range n.Pods {
			p.take(one)
		}
		b.add(p)
	}
	decreasing(w.in.Pending)
	w.in.Pending = slices.DeleteFunc(w.in.Pending, func(p *Pod) bool {
		at := b.first(p, b.places)
		if at != nil {
			at.node.Pods = append(at.node.Pods, p)
		}
		return at != nil
	})
	// A budget allows one disruption when all of its pods run.
	for i := range w.in.Budgets {
		waits := slices.ContainsFunc(w.in.Pending, w.in.Budgets[i].protects)
		if w.in.Budgets[i].Allowed = 1; waits {
			w.in.Budgets[i].Allowed = 0
		}
	}
}

// arrive lets nodes come, and gives pools those that they lack.
func (w *world) arrive() {
	w.in.Missing = slices.DeleteFunc(w.in.Missing, func(m Missing) bool {
		if w.comes[m.Name].After(w.in.Now) {
			return false
		}
		i := slices.IndexFunc(w.in.Pools, func(p Pool) bool { return p.Name == m.Pool })
		n := node(m.Pool, m.Name, w.in.Pools[i].Template.CPU, w.in.Daemons[0])
		n.Labels["size"], n.Since, n.Created = fmt.Sprint(w.in.Pools[i].Template.CPU), w.in.Now, w.in.Now
		w.in.Nodes = append(w.in.Nodes, n)
		return true
	})
	have := map[string]int{}
	for _, n := range w.in.Nodes {
		have[n.Pool]++
	}
	for _, m := range w.in.Missing {
		have[m.Pool]++
	}
	for _, p := range w.in.Pools {
		for ; have[p.Name] < p.Count; have[p.Name]++ {
			name := fmt.Sprint(p.Name, "-", w.next)
			w.next++
			w.comes[name] = w.in.Now.Add(time.Duration(w.random.IntN(120)) * time.Second)
			w.in.Missing = append(w.in.Missing, Missing{name, p.Name})
		}
	}
}

// obey does what was decided, and sees that it may be done.
func (w *world) obey(d Decision) {
	for name, want := range d.Want {
		i := slices.IndexFunc(w.in.Pools, func(p Pool) bool { return p.Name == name })
		if p := &w.in.Pools[i]; want <= p.Count || want > p.Max {
			w.t.Fatalf("%s is to have %d nodes: it has %d of %d to %d", name, want, p.Count, p.Min, p.Max)
		}
		w.in.Pools[i].Count = want
		w.moves++
	}
	budgets := map[string]int32{}
	for _, name := range d.Remove {
		i := slices.IndexFunc(w.in.Nodes, func(n *Node) bool { return n.Name == name })
		n := w.in.Nodes[i]
		w.in.Nodes = slices.Delete(w.in.Nodes, i, i+1)
		j := slices.IndexFunc(w.in.Pools, func(p Pool) bool { return p.Name == n.Pool })
		if w.in.Pools[j].Count--; w.in.Pools[j].Count < w.in.Pools[j].Min {
			w.t.Fatalf("%s falls below its minimum", n.Pool)
		}
		w.moves++
		for _, p := range n.Pods {
			if p.Daemon {
				continue
			}
			for _, b := range w.in.Budgets {
				if !b.protects(p) {
					continue
				}
				if budgets[b.Name]++; budgets[b.Name] > b.Allowed {
					w.t.Fatalf("the budget of %s is broken", b.Name)
				}
			}
			p.Since = w.in.Now
			w.in.Pending = append(w.in.Pending, p)
		}
	}
}

func (w *world) step() {
	w.in.Now = w.in.Now.Add(w.in.Profile.Scan)
	w.arrive()
	w.schedule()
	d := Decide(&w.in)
	w.in.Memory = d.Memory
	w.obey(d)
	for _, n := range w.in.Nodes {
		if used, total := used(n), n.Allocatable[cpuName]; used > total {
			w.t.Fatalf("%s gives %d of %d", n.Name, used, total)
		}
	}
}

func used(n *Node) int64 {
	sum := int64(0)
	for _, p := range n.Pods {
		sum += p.Requests[cpuName]
	}
	return sum
}

func (w *world) pass(d time.Duration) {
	for end := w.in.Now.Add(d); w.in.Now.Before(end); {
		w.step()
	}
}

// Whatever is asked of the pools: they stay within their bounds, no budget is
// broken, what fits a node gets one, nothing goes to and fro, and in the end
// what nobody needs is gone.
func TestSimulation(t *testing.T) {
	for seed := range uint64(40) {
		w := newWorld(t, seed)
		for range 4 {
			for range 1 + w.random.IntN(3) {
				w.deploy()
			}
			w.pass(5 * time.Minute)
			w.fed(seed)
			w.undeploy(w.random.Float64())
			w.pass(time.Duration(w.random.IntN(40)) * time.Minute)
		}
		w.pass(12 * time.Hour)
		w.fed(seed)
		before := maps.Collect(counts(w))
		moves := w.moves
		w.pass(2 * time.Hour)
		if w.moves != moves {
			t.Fatalf("seed %d: nothing changes, and pools change %d times; before %v", seed, w.moves-moves, before)
		}
		w.undeploy(1)
		w.pass(6 * time.Hour)
		for _, p := range w.in.Pools {
			if p.Count != p.Min {
				t.Fatalf("seed %d: %s has %d idle nodes, its minimum is %d", seed, p.Name, p.Count, p.Min)
			}
		}
	}
}

func counts(w *world) func(func(string, int) bool) {
	return func(yield func(string, int) bool) {
		for _, p := range w.in.Pools {
			if !yield(p.Name, p.Count) {
				return
			}
		}
	}
}

// fed fails when a pod waits although a pool that isn't full yet has nodes for it.
func (w *world) fed(seed uint64) {
	w.t.Helper()
	for _, p := range w.in.Pending {
		for i := range w.in.Pools {
			pool := &w.in.Pools[i]
			if fresh := coming(pool, "new", w.in.Daemons); pool.Count < pool.Max && newBoard().fits(p, fresh) == "" {
				w.t.Fatalf("seed %d at %s: pod %s of %d waits, pool %s has %d of %d", seed, w.in.Now, p.Name, p.Requests[cpuName], pool.Name, pool.Count, pool.Max)
			}
		}
	}
}

func BenchmarkDecide(b *testing.B) {
	in := input(Pool{Name: "np", Min: 1, Max: 1000, Count: 300, Template: template(4000)})
	for i := range 300 {
		n := node("np", fmt.Sprint("n", i), 4000)
		for j := range 20 {
			n.Pods = append(n.Pods, pod(fmt.Sprint("p", i, "-", j), 150))
		}
		in.Nodes = append(in.Nodes, n)
	}
	in.Pending = pods(1000, 500)
	for b.Loop() {
		Decide(in)
	}
}
