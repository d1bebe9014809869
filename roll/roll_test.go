// SPDX-License-Identifier: Apache-2.0

package roll

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// world is a pool whose nodes do what they are asked, sooner or later, or never.
type world struct {
	t    *testing.T
	r    *rand.Rand
	pool Pool
	now  time.Time
	next int
	// What goes wrong: nodes that can't be drained, that don't come back, surge nodes that don't boot.
	held, broken map[string]bool
	stillborn    bool
	acted        map[string]int
	most         int
	halted       string
	undrained    bool
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{t: t, r: rand.New(rand.NewPCG(seed, 1)), now: time.Unix(1e9, 0), held: map[string]bool{}, broken: map[string]bool{}, acted: map[string]int{}}
	w.pool = Pool{Count: 1 + w.r.IntN(6), Drain: 5 * time.Minute, Progress: w.now}
	switch w.r.IntN(3) {
	case 0:
		w.pool.Surge = 1 + w.r.IntN(4)
	case 1:
		w.pool.Unavailable = 1 + w.r.IntN(w.pool.Count)
	case 2:
		w.pool.Surge, w.pool.Unavailable = 1+w.r.IntN(2), w.r.IntN(2)
	}
	if w.r.IntN(2) == 0 {
		w.pool.Soak = 3 * time.Minute
	}
	if w.r.IntN(2) == 0 {
		w.pool.Pause = time.Second
	}
	w.pool.Cordon = w.r.IntN(2) == 0
	for range w.pool.Count {
		w.add(Node{Outdated: true, Ready: true})
	}
	return w
}

func (w *world) add(n Node) {
	w.next++
	n.Name = fmt.Sprintf("n%02d", w.next)
	w.pool.Nodes = append(w.pool.Nodes, n)
}

func (w *world) node(name string) *Node {
	for i := range w.pool.Nodes {
		if w.pool.Nodes[i].Name == name {
			return &w.pool.Nodes[i]
		}
	}
	w.t.Fatalf("there is no node %s", name)
	return nil
}

func (w *world) serving() int {
	count := 0
	for _, n := range w.pool.Nodes {
		if n.Ready && !n.Work.away() {
			count++
		}
	}
	return count
}

// look lets the engine look once, and writes what it says.
func (w *world) look() Plan {
	before, serving := fmt.Sprintf("%+v", w.pool), w.serving()
	plan := Next(w.pool, w.now)
	if again := Next(w.pool, w.now); !reflect.DeepEqual(plan, again) {
		w.t.Fatalf("two looks at the same: %+v and %+v", plan, again)
	}
	if fmt.Sprintf("%+v", w.pool) != before {
		w.t.Fatal("a look changed what it looked at")
	}
	for _, m := range plan.Moves {
		w.move(m)
	}
	for range plan.Add {
		w.add(Node{Surge: true})
	}
	if plan.Halt != "" {
		w.pool.Halted, w.halted, w.undrained = true, plan.Halt, plan.Undrained
	}
	if len(plan.Moves)+plan.Add > 0 {
		w.pool.Progress = w.now
	}
	if after := w.serving(); after < serving && after < w.pool.Count-w.pool.Unavailable {
		w.t.Fatalf("%d nodes serve after %+v, of %d", after, plan.Moves, w.pool.Count)
	}
	limit := w.pool.Count + max(w.pool.Surge, 0)
	if w.pool.Cordon {
		limit += w.pool.Surge
	}
	if n := len(w.pool.Nodes); n > limit {
		w.t.Fatalf("there are %d nodes, more than %d", n, limit)
	}
	w.most = max(w.most, len(w.pool.Nodes))
	return plan
}

func (w *world) move(m Move) {
	n := w.node(m.Node)
	n.Work = m.Work
	if m.Work == nil || m.Work.Step != Leaving {
		n.Left, n.Failed, n.Dropped = false, false, false
	}
	switch m.Act {
	case Remove:
		w.pool.Nodes = slices.DeleteFunc(w.pool.Nodes, func(o Node) bool { return o.Name == m.Node })
	case Reimage, Reboot:
		w.acted[n.Name]++
		n.Outdated = n.Outdated && m.Act != Reimage
		n.Ready, n.Made, n.Back = false, false, false
	}
}

// report lets something happen to some nodes.
func (w *world) report() {
	for i := range w.pool.Nodes {
		n := &w.pool.Nodes[i]
		if w.r.IntN(3) == 0 {
			continue
		}
		switch {
		case n.Work == nil || n.Work.Error != "":
			n.Ready = n.Ready || n.Surge && !w.stillborn
		case n.Work.Step == Leaving && w.held[n.Name]:
			n.Held = "budget b"
			n.Failed = w.now.Sub(n.Work.Since) >= w.pool.Drain
		case n.Work.Step == Leaving:
			n.Left = true
			n.Dropped = n.Dropped || w.r.IntN(2) == 0
		case n.Work.Step == Acting:
			n.Made = true
		case n.Work.Step == Returning && !w.broken[n.Name]:
			n.Ready, n.Back = true, true
		}
	}
}

// run rolls until nothing is left to do.
func (w *world) run() {
	w.t.Helper()
	for range 2000 {
		plan := w.look()
		if !plan.Busy {
			return
		}
		w.now = w.now.Add(time.Duration(w.r.IntN(40)) * time.Second)
		w.report()
		if plan.Again > 0 && w.r.IntN(4) == 0 { // long enough for everything that comes to have come
			for range 20 {
				w.report()
			}
			for w.now = w.now.Add(plan.Again); len(w.look().Moves) > 0; {
				w.report()
			}
		}
	}
	w.t.Fatalf("the roll doesn't end: %+v", w.pool)
}

func (w *world) wantDone() {
	w.t.Helper()
	if w.halted != "" {
		w.t.Fatalf("halted: %s", w.halted)
	}
	for _, n := range w.pool.Nodes {
		if n.Outdated || n.Work != nil || n.Surge {
			w.t.Errorf("left over: %+v", n)
		}
	}
	if len(w.pool.Nodes) != w.pool.Count {
		w.t.Errorf("%d nodes, want %d", len(w.pool.Nodes), w.pool.Count)
	}
}

func seeds(t *testing.T, n int, f func(t *testing.T, seed uint64)) {
	for seed := range uint64(n) {
		if !t.Run(fmt.Sprint(seed), func(t *testing.T) { f(t, seed) }) {
			return
		}
	}
}

// A roll with nothing in its way brings every node there, each once.
func TestRolls(t *testing.T) {
	seeds(t, 300, func(t *testing.T, seed uint64) {
		w := newWorld(t, seed)
		w.run()
		w.wantDone()
		for name, times := range w.acted {
			if times != 1 {
				t.Errorf("%s was reimaged %d times", name, times)
			}
		}
		if w.pool.Surge > 0 && w.most == w.pool.Count {
			t.Error("no surge node was used")
		}
	})
}

// Whatever fails, the roll ends, says why, and leaves no node away for nothing;
// asked again when the reason is gone, it goes on and comes to its end.
func TestTroubleEndsAndCanBeRetried(t *testing.T) {
	seeds(t, 400, func(t *testing.T, seed uint64) {
		w := newWorld(t, seed)
		victim := w.pool.Nodes[w.r.IntN(w.pool.Count)].Name
		kind := w.r.IntN(3)
		if kind == 2 && w.pool.Surge == 0 {
			kind = 0
		}
		switch kind {
		case 0:
			w.held[victim] = true
		case 1:
			w.broken[victim] = true
		case 2:
			w.stillborn = true
		}
		w.run()
		stops := kind != 2 || w.pool.Unavailable == 0
		if stops && w.halted == "" {
			t.Fatal("nothing says that it failed")
		}
		if kind == 0 && !w.undrained {
			t.Errorf("it wasn't a drain that failed: %s", w.halted)
		}
		for _, n := range w.pool.Nodes {
			if n.Work.away() && !n.Work.Quarantined {
				t.Errorf("node is kept away for nothing: %+v %+v", n, *n.Work)
			}
			if n.Work != nil && n.Work.Quarantined && !w.pool.Cordon {
				t.Errorf("node stays cordoned: %+v", n)
			}
		}
		if kind != 1 && w.serving() < w.pool.Count-w.pool.Unavailable {
			t.Errorf("only %d of %d serve", w.serving(), w.pool.Count)
		}
		w.held, w.broken, w.stillborn = map[string]bool{}, map[string]bool{}, false
		w.retry()
		w.run()
		w.wantDone()
	})
}

// retry is another request: see package cluster.
func (w *world) retry() {
	w.pool.Halted, w.halted, w.pool.Progress = false, "", w.now
	for i := range w.pool.Nodes {
		n := &w.pool.Nodes[i]
		if n.Work == nil || n.Work.Error == "" {
			continue
		}
		n.Work, n.Failed, n.Held = Again(*n), false, ""
	}
}

// Canceled anywhere, it ends soon: what was being left is taken back, what was
// being reimaged is finished, and surge nodes go.
func TestCancel(t *testing.T) {
	seeds(t, 200, func(t *testing.T, seed uint64) {
		w := newWorld(t, seed)
		for range w.r.IntN(20) {
			w.look()
			w.now = w.now.Add(time.Duration(w.r.IntN(20)) * time.Second)
			w.report()
		}
		acted := len(w.acted)
		w.pool.Halted, w.pool.Canceled = true, true
		w.run()
		if len(w.acted) != acted {
			t.Error("another node was reimaged")
		}
		for _, n := range w.pool.Nodes {
			if n.Work != nil || n.Surge {
				t.Errorf("left over: %+v", n)
			}
		}
		w.pool.Halted, w.pool.Canceled = false, false
		w.run()
		w.wantDone()
	})
}

func TestHeldBack(t *testing.T) {
	w := newWorld(t, 1)
	w.pool.Hold = "the control plane runs 1.35.4"
	plan := w.look()
	if len(plan.Moves)+plan.Add > 0 || !plan.Busy || plan.Waits != w.pool.Hold {
		t.Errorf("%+v", plan)
	}
	w.now = w.now.Add(time.Hour)
	if plan = w.look(); plan.Halt != "" {
		t.Errorf("it halted: %+v", plan)
	}
	w.pool.Hold = ""
	w.pool.Progress = w.now
	w.run()
	w.wantDone()
}

// What others ask for waits for the roll, unless its node doesn't serve anyway;
// an outdated node's new disk does their work, too.
func TestOthersWorks(t *testing.T) {
	now := time.Unix(1e9, 0)
	pool := Pool{Count: 3, Surge: 1, Drain: time.Minute, Progress: now, Nodes: []Node{
		{Name: "a", Ready: true, Outdated: true, Work: &Work{Kind: Reboot}},
		{Name: "b", Ready: true, Work: &Work{Kind: Reboot}},
		{Name: "c", Dead: true, Work: &Work{Kind: Reboot}},
		{Name: "s", Ready: true, Surge: true},
	}}
	plan := Next(pool, now)
	if len(plan.Moves) != 1 || plan.Moves[0].Node != "c" || plan.Moves[0].Act != Reboot || plan.Moves[0].Work.Step != Acting {
		t.Fatalf("%+v", plan.Moves)
	}
	pool.Nodes[2] = Node{Name: "c", Ready: true}
	plan = Next(pool, now)
	if len(plan.Moves) != 1 || plan.Moves[0].Node != "a" || plan.Moves[0].Work.Kind != Reimage || !plan.Moves[0].Work.Roll {
		t.Fatalf("%+v", plan.Moves)
	}
	pool.Nodes[0] = Node{Name: "a", Ready: true}
	plan = Next(pool, now) // the roll is over: the surge node goes, b may
	var done []string
	for _, m := range plan.Moves {
		done = append(done, fmt.Sprint(m.Node, m.Work.Kind, m.Work.Step))
	}
	if strings.Join(done, " ") != "bRebootLeaving" {
		t.Fatalf("%v", done)
	}
}

// Times are held from what is written, not from when the process began.
func TestBounds(t *testing.T) {
	now := time.Unix(1e9, 0)
	at := func(d time.Duration) Plan {
		return Next(Pool{Count: 1, Surge: 1, Drain: time.Hour, Pause: time.Second, Progress: now, Nodes: []Node{{Name: "a",
			Ready: true, Left: true, Work: &Work{Kind: Reimage, Roll: true, Step: Leaving, Since: now}}}}, now.Add(d))
	}
	if plan := at(0); len(plan.Moves) != 0 || plan.Again != 200*time.Millisecond {
		t.Errorf("as long as load balancers lead to it: %+v", plan)
	}
	if plan := at(dropping); len(plan.Moves) != 1 || plan.Moves[0].Work.Gone.IsZero() || plan.Moves[0].Act != "" {
		t.Errorf("load balancers that nobody keeps: %+v", plan)
	}
	plan := Next(Pool{Count: 1, Surge: 1, Nodes: []Node{{Name: "a", Trouble: "no init in the image",
		Work: &Work{Kind: Reimage, Roll: true, Step: Acting, Since: now}}}}, now.Add(Patience))
	if !strings.Contains(plan.Halt, "no init in the image") {
		t.Errorf("an image that doesn't boot: %+v", plan)
	}
}

// What a node passes on to others ends while its own pods are drained.
func TestPauseGoesOnBesideTheDrain(t *testing.T) {
	now := time.Unix(1e9, 0)
	node := Node{Name: "a", Ready: true, Dropped: true, Work: &Work{Kind: Reimage, Roll: true, Step: Leaving, Since: now}}
	at := func(d time.Duration) Plan {
		return Next(Pool{Count: 1, Surge: 1, Drain: time.Hour, Pause: time.Second, Progress: now, Nodes: []Node{node, {Name: "s", Surge: true, Ready: true}}}, now.Add(d))
	}
	plan := at(0)
	if len(plan.Moves) != 1 || !plan.Moves[0].Work.Gone.Equal(now) || plan.Moves[0].Act != "" {
		t.Fatalf("out of load balancers: %+v", plan)
	}
	node.Work = plan.Moves[0].Work
	if plan := at(5 * time.Second); len(plan.Moves) != 0 {
		t.Errorf("its pods aren't gone: %+v", plan)
	}
	node.Left, node.Dropped = true, false
	if plan := at(5 * time.Second); len(plan.Moves) != 1 || !plan.Moves[0].Work.Gone.IsZero() || plan.Moves[0].Act != "" {
		t.Errorf("it was joined meanwhile: %+v", plan)
	}
	node.Dropped = true
	if plan := at(500 * time.Millisecond); len(plan.Moves) != 0 || plan.Again != 500*time.Millisecond {
		t.Errorf("its connections have time to end: %+v", plan)
	}
	if plan := at(5 * time.Second); len(plan.Moves) != 1 || plan.Moves[0].Act != Reimage {
		t.Errorf("nothing of it is needed: %+v", plan)
	}
}

// Nothing is looked at again and again that a report will tell of.
func TestHoldWaitsForReports(t *testing.T) {
	plan := Next(Pool{Count: 1, Surge: 1, Hold: "the control plane is older", Progress: time.Unix(1e9, 0),
		Nodes: []Node{{Name: "a", Ready: true, Outdated: true}}}, time.Unix(1e9, 0))
	if plan.Waits == "" || plan.Again != 0 {
		t.Errorf("%+v", plan)
	}
}
