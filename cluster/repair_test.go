// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"slices"
	"strings"
	"testing"
	"time"

	"bastide.dev/controlplane"
	"bastide.dev/resource"
)

func TestTreat(t *testing.T) {
	var times RepairTimes
	times.complete()
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	for name, c := range map[string]struct {
		patient  patient
		others   bool
		replaced int
		want     remedy
	}{
		"ready":                         {patient{ready: true, since: ago(time.Hour)}, false, 0, remedy{}},
		"nobody knows since when":       {patient{}, false, 0, remedy{}},
		"not for long":                  {patient{since: ago(4 * time.Minute)}, false, 0, remedy{after: 6 * time.Minute}},
		"for long":                      {patient{since: ago(10 * time.Minute)}, false, 0, remedy{kind: rebootNode}},
		"kept out by a user":            {patient{since: ago(time.Hour), barred: true}, false, 0, remedy{}},
		"all at once":                   {patient{since: ago(time.Hour)}, true, 0, remedy{after: times.Between}},
		"all at once, and it is dead":   {patient{since: ago(time.Hour), dead: true}, true, 0, remedy{kind: rebootNode}},
		"all at once, restarted before": {patient{since: ago(time.Hour), dead: true, repair: repair{Tried: 1, Last: ago(time.Hour)}}, true, 0, remedy{after: times.Between}},
		"a restart has its time":        {patient{since: ago(time.Hour), repair: repair{Tried: 1, Last: ago(9 * time.Minute)}}, false, 0, remedy{after: time.Minute}},
		"a restart didn't help":         {patient{since: ago(time.Hour), repair: repair{Tried: 1, Last: ago(10 * time.Minute)}}, false, 0, remedy{kind: reimageNode}},
		"it came back, and went again":  {patient{since: ago(4 * time.Minute), repair: repair{Tried: 1, Last: ago(20 * time.Minute)}}, false, 0, remedy{after: 6 * time.Minute}},
		"a reimage didn't help":         {patient{since: ago(time.Hour), repair: repair{Tried: 2, Last: ago(time.Hour)}}, false, 2, remedy{kind: removeNode}},
		"nor did replacing":             {patient{since: ago(time.Hour), repair: repair{Tried: 2, Last: ago(time.Hour)}}, false, 3, remedy{giveUp: true}},
		"given up":                      {patient{since: ago(time.Hour), repair: repair{Tried: 2, Last: ago(time.Hour), GaveUp: true}}, false, 3, remedy{}},
	} {
		if got := times.treat(&c.patient, now, c.others, c.replaced); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

// ward is a fleet in which a test says which nodes aren't ready, and since when.
type ward struct {
	*fleet
	sick map[string]time.Time
	gone map[string]bool
	out  map[string]bool // cordoned
	all  bool            // every node there is and comes is sick
}

func newWard(t *testing.T, nodes int) *ward {
	w := &ward{fleet: newFleet(t, nodes), sick: map[string]time.Time{}, gone: map[string]bool{}, out: map[string]bool{}}
	w.images.image = "12.1"
	w.host.Told = func(status *controlplane.Status) {
		status.Nodes = slices.DeleteFunc(status.Nodes, func(n controlplane.NodeStatus) bool { return w.gone[n.Name] })
		for i := range status.Nodes {
			n := &status.Nodes[i]
			if since, is := w.sick[n.Name]; is || w.all {
				if !is {
					w.sick[n.Name], since = w.clock, w.clock
				}
				n.Ready, n.NotReadySince = false, since
			}
			n.Cordoned = n.Cordoned || w.out[n.Name]
		}
	}
	w.settle()
	return w
}

func (w *ward) pass(d time.Duration) {
	w.t.Helper()
	w.clock = w.clock.Add(d)
	w.settle()
}

func (w *ward) nodes() []allotted { return w.pool(workPool).Nodes }

// A node that isn't ready is restarted, made anew, and replaced, each in its
// time; the pool's count stays what it was.
func TestRepairEscalates(t *testing.T) {
	w := newWard(t, 3)
	name := w.nodes()[1].Name
	w.sick[name] = w.clock
	w.settle()
	w.pass(9 * time.Minute)
	if n := w.nodes()[1]; n.Boots != 0 || n.Work != nil {
		t.Fatalf("too early: %+v", n)
	}
	steps := map[string]time.Duration{}
	begin := w.clock
	for range 40 {
		w.pass(5 * time.Minute)
		n := w.pool(workPool).node(name)
		switch {
		case n == nil:
			if _, is := steps["replaced"]; !is {
				steps["replaced"] = w.clock.Sub(begin)
			}
		case n.Images > 0 && steps["reimaged"] == 0:
			steps["reimaged"] = w.clock.Sub(begin)
		case n.Boots > 0 && steps["restarted"] == 0:
			steps["restarted"] = w.clock.Sub(begin)
		}
		for i, other := range w.nodes() {
			if other.Name != name && (other.Boots != 0 || other.Images != 0) {
				t.Fatalf("node %d was repaired: %+v", i, other)
			}
		}
	}
	if steps["restarted"] == 0 || steps["reimaged"] < steps["restarted"]+10*time.Minute || steps["replaced"] < steps["reimaged"]+10*time.Minute {
		t.Errorf("%v", steps)
	}
	pool := w.pool(workPool)
	if pool.Pool.Count != 3 || len(pool.Nodes) != 3 || pool.node(name) != nil {
		t.Errorf("count %d, nodes %+v", pool.Pool.Count, pool.Nodes)
	}
	if pool.Repairs != 0 {
		t.Errorf("all nodes are well, and %d replacements are remembered", pool.Repairs)
	}
	notes := w.host.Planes[w.state().ID].Nodes
	if slices.ContainsFunc(notes, func(n controlplane.Node) bool { return n.Note != nil && n.Name != name }) {
		t.Errorf("others are told of: %+v", notes)
	}
}

// One that comes back is left alone, and in the end what was tried is forgotten.
func TestRepairEndsWhenItHelps(t *testing.T) {
	w := newWard(t, 2)
	name := w.nodes()[0].Name
	w.sick[name] = w.clock
	w.pass(11 * time.Minute)
	if n := w.nodes()[0]; n.Boots != 1 || n.Note == nil || n.Note.Reason != "NodeRebootStart" {
		t.Fatalf("%+v", n)
	}
	delete(w.sick, name)
	w.pass(time.Minute)
	w.pass(time.Minute)
	if n := w.nodes()[0]; n.Work != nil || n.Repair == nil {
		t.Fatalf("%+v", n)
	}
	w.pass(31 * time.Minute)
	if n := w.nodes()[0]; n.Boots != 1 || n.Images != 0 || n.Repair != nil {
		t.Errorf("%+v", n)
	}
}

// An outage that makes every node unready isn't a reason to restart them all.
func TestOutageRepairsNothing(t *testing.T) {
	w := newWard(t, 3)
	for _, n := range w.nodes() {
		w.sick[n.Name] = w.clock
	}
	for range 30 {
		w.pass(10 * time.Minute)
	}
	for _, n := range w.nodes() {
		if n.Boots != 0 || n.Images != 0 || n.Work != nil {
			t.Errorf("%+v", n)
		}
	}
}

func TestRepairLeavesUsersNodesAlone(t *testing.T) {
	w := newWard(t, 3)
	name := w.nodes()[0].Name
	w.sick[name], w.out[name] = w.clock, true
	for range 12 {
		w.pass(10 * time.Minute)
	}
	if n := w.nodes()[0]; n.Boots != 0 || n.Work != nil {
		t.Errorf("%+v", n)
	}
}

// A node that no Node stands for any more is missed, and repaired.
func TestMissingNodesAreRepaired(t *testing.T) {
	w := newWard(t, 2)
	name := w.nodes()[0].Name
	w.gone[name] = true
	w.settle()
	w.pass(9 * time.Minute)
	if n := w.nodes()[0]; n.Boots != 0 {
		t.Fatalf("too early: %+v", n)
	}
	w.pass(2 * time.Minute)
	if n := w.nodes()[0]; n.Boots != 1 {
		t.Fatalf("%+v", n)
	}
	w.gone[name] = false
	w.pass(time.Minute)
	w.pass(time.Hour)
	w.pass(time.Hour)
	if n := w.nodes()[0]; n.Repair != nil || n.Work != nil {
		t.Errorf("%+v", n)
	}
}

// An image that doesn't run ends in a state that says so, and not in a loop.
func TestRepairGivesUp(t *testing.T) {
	w := newWard(t, 3)
	healthy := map[string]bool{w.nodes()[0].Name: true, w.nodes()[1].Name: true}
	told := w.host.Told
	w.host.Told = func(status *controlplane.Status) {
		for _, n := range status.Nodes {
			if _, is := w.sick[n.Name]; !is && !healthy[n.Name] {
				w.sick[n.Name] = w.clock
			}
		}
		told(status)
	}
	w.settle()
	for range 200 {
		w.pass(10 * time.Minute)
	}
	pool := w.pool(workPool)
	if len(pool.Nodes) != 3 || pool.Next > 2+1+replacements+1 {
		t.Fatalf("%d nodes, %d were made: %+v", len(pool.Nodes), pool.Next, pool.Nodes)
	}
	last := pool.Nodes[len(pool.Nodes)-1]
	if last.Repair == nil || !last.Repair.GaveUp || last.Note == nil || !strings.Contains(last.Note.Message, "gave up") {
		t.Errorf("%+v", last)
	}
	if get(w.view(workPool, testVersion), "properties.provisioningState") != string(resource.Succeeded) {
		t.Errorf("%v", w.view(workPool, testVersion))
	}
}
