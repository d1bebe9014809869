// SPDX-License-Identifier: Apache-2.0

package autoscale

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

var begin = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func template(cpu int64) Template {
	return Template{CPU: cpu, Memory: cpu << 20, Pods: 30, Labels: map[string]string{"size": fmt.Sprint(cpu)}}
}

func pod(name string, cpu int64) *Pod {
	return &Pod{Namespace: "default", Name: name, Owner: "rs", Requests: Resources{cpuName: cpu, memoryName: cpu << 20}, Since: begin.Add(-time.Minute)}
}

func pods(count int, cpu int64) []*Pod {
	var all []*Pod
	for i := range count {
		all = append(all, pod(fmt.Sprintf("p%03d-%d", i, cpu), cpu))
	}
	return all
}

func node(pool, name string, cpu int64, on ...*Pod) *Node {
	return &Node{Name: name, Pool: pool, Allocatable: Resources{cpuName: cpu, memoryName: cpu << 20, podsName: 30}, Ready: true,
		Since: begin.Add(-time.Hour), Created: begin.Add(-time.Hour), Labels: map[string]string{hostnameLabel: name}, Pods: on}
}

func input(pools ...Pool) *Input {
	return &Input{Now: begin, Profile: DefaultProfile(), Pools: pools}
}

func TestGrow(t *testing.T) {
	small := Pool{Name: "small", Max: 10, Template: template(1000)}
	large := Pool{Name: "large", Max: 10, Template: template(4000)}
	tainted := Pool{Name: "tainted", Max: 10, Template: template(8000)}
	tainted.Template.Taints = []Taint{{Key: "k", Value: "v", Effect: "NoSchedule"}}
	for name, c := range map[string]struct {
		change func(*Input)
		want   map[string]int
		why    string // in the reason of pod p000
	}{
		"from zero, all at once":   {func(in *Input) { in.Pools, in.Pending = []Pool{small}, pods(9, 900) }, map[string]int{"small": 9}, ""},
		"several to a node":        {func(in *Input) { in.Pools, in.Pending = []Pool{large}, pods(9, 900) }, map[string]int{"large": 3}, ""},
		"no more than the maximum": {func(in *Input) { in.Pools, in.Pending = []Pool{small}, pods(30, 900) }, map[string]int{"small": 10}, "max node group size reached"},
		"too large for any":        {func(in *Input) { in.Pools, in.Pending = []Pool{small, large}, pods(1, 5000) }, nil, "2 Insufficient cpu"},
		"taints keep away":         {func(in *Input) { in.Pools, in.Pending = []Pool{tainted}, pods(1, 5000) }, nil, "untolerated taint {k: v}"},
		"what is on its way is waited for": {func(in *Input) {
			small.Count = 4
			in.Pools, in.Pending = []Pool{small}, pods(4, 900)
			small.Count = 0
		}, nil, ""},
		"nodes that are there have room": {func(in *Input) {
			one := small
			one.Count = 1
			in.Pools, in.Pending, in.Nodes = []Pool{one}, pods(1, 900), []*Node{node("small", "n1", 1000)}
		}, nil, ""},
		"not on a cordoned one": {func(in *Input) {
			one := small
			one.Count = 1
			in.Pools, in.Pending, in.Nodes = []Pool{one}, pods(1, 900), []*Node{node("small", "n1", 1000)}
			in.Nodes[0].Cordoned = true
		}, map[string]int{"small": 2}, ""},
		"least waste": {func(in *Input) {
			in.Profile.Expander = LeastWaste
			in.Pools, in.Pending = []Pool{large, small}, pods(1, 900)
		}, map[string]int{"small": 1}, ""},
		"most pods": {func(in *Input) {
			in.Profile.Expander = MostPods
			in.Pools, in.Pending = []Pool{small, large}, append(pods(2, 900), pods(1, 3000)...)
		}, map[string]int{"large": 2}, ""},
		"priority": {func(in *Input) {
			in.Profile.Expander = ByPriority
			in.Priorities = []Priority{{10, ".*"}, {50, "lar.*"}, {90, "("}}
			in.Pools, in.Pending = []Pool{small, large}, pods(1, 900)
		}, map[string]int{"large": 1}, ""},
		"two kinds need two pools": {func(in *Input) {
			in.Pools, in.Pending = []Pool{small, large}, append(pods(1, 3500), pods(1, 900)...)
			in.Pending[1].Selector = map[string]string{"size": "1000"}
		}, map[string]int{"small": 1, "large": 1}, ""},
		"balanced": {func(in *Input) {
			other := small
			other.Name, other.Count = "other", 0
			in.Profile.Balance = true
			in.Pools, in.Pending = []Pool{small, other}, pods(6, 900)
		}, map[string]int{"small": 3, "other": 3}, ""},
		"one to a node": {func(in *Input) {
			in.Pools, in.Pending = []Pool{large}, pods(3, 100)
			for _, p := range in.Pending {
				p.Labels = map[string]string{"app": "a"}
				p.Apart = []PodTerm{{Topology: hostnameLabel, Selector: Selector{Set: true, Labels: []Requirement{{"app", "In", []string{"a"}}}}}}
			}
		}, map[string]int{"large": 3}, ""},
		"spread": {func(in *Input) {
			in.Pools, in.Pending = []Pool{large}, pods(4, 100)
			for _, p := range in.Pending {
				p.Labels = map[string]string{"app": "a"}
				p.Spread = []Spread{{hostnameLabel, 1, Selector{Set: true, Labels: []Requirement{{"app", "In", []string{"a"}}}}}}
			}
		}, map[string]int{"large": 1}, ""},
		"DaemonSets take their part": {func(in *Input) {
			in.Pools, in.Pending, in.Daemons = []Pool{small}, pods(2, 450), pods(1, 200)
		}, map[string]int{"small": 2}, ""},
		"a young pod waits": {func(in *Input) { in.Pools, in.Pending, in.Profile.PodDelay = []Pool{small}, pods(2, 450), time.Hour }, nil, ""},
		"expendable":        {func(in *Input) { in.Pools, in.Pending = []Pool{small}, pods(1, 450); in.Pending[0].Priority = -11 }, nil, ""},
		"minimum":           {func(in *Input) { small := small; small.Min = 2; in.Pools = []Pool{small} }, map[string]int{"small": 2}, ""},
		"unknown resource": {func(in *Input) {
			in.Pools, in.Pending = []Pool{small}, pods(1, 1)
			in.Pending[0].Requests["nvidia.com/gpu"] = 1
		}, nil, "Insufficient nvidia.com/gpu"},
		"storage isn't known": {func(in *Input) {
			in.Pools, in.Pending = []Pool{small}, pods(1, 1)
			in.Pending[0].Requests[storageName] = 1
		}, map[string]int{"small": 1}, ""},
		"a node knows better": {func(in *Input) {
			one := large
			one.Count = 1
			in.Pools, in.Pending, in.Nodes = []Pool{one}, pods(1, 3900), []*Node{node("large", "n1", 3800)}
		}, nil, "Insufficient cpu"},
		"a sick cluster rests": {func(in *Input) { in.Pools, in.Pending, in.Nodes = []Pool{small}, pods(1, 1), sick(4) }, nil, ""},
	} {
		in := input()
		c.change(in)
		d := Decide(in)
		if c.want == nil {
			c.want = map[string]int{}
		}
		if !reflect.DeepEqual(d.Want, c.want) {
			t.Errorf("%s: %v, want %v; %v", name, d.Want, c.want, d.Unhelped)
		}
		reasons := fmt.Sprint(d.Unhelped)
		if c.why != "" && !strings.Contains(reasons, c.why) || c.why == "" && len(d.Unhelped) > 0 {
			t.Errorf("%s: reasons %s", name, reasons)
		}
	}
}

func sick(count int) []*Node {
	var all []*Node
	for i := range count {
		n := node("small", fmt.Sprint("n", i), 1000)
		n.Ready = false
		all = append(all, n)
	}
	return all
}

// A wish stays the same as long as nothing changes, whatever the time.
func TestRandomIsSteady(t *testing.T) {
	in := input(Pool{Name: "a", Max: 5, Template: template(1000)}, Pool{Name: "b", Max: 5, Template: template(1000)})
	in.Pending = pods(1, 900)
	first := Decide(in).Want
	for range 20 {
		in.Now = in.Now.Add(time.Second)
		if again := Decide(in).Want; !reflect.DeepEqual(first, again) {
			t.Fatalf("%v, then %v", first, again)
		}
	}
}

func TestShrink(t *testing.T) {
	pool := Pool{Name: "np", Min: 1, Max: 10, Count: 3, Template: template(1000)}
	yes, no := true, false
	for name, c := range map[string]struct {
		change func(*Input)
		want   []string
		kept   string
	}{
		"empty ones":              {func(in *Input) { in.Nodes[0].Pods = pods(1, 700) }, []string{"n2", "n3"}, ""},
		"down to the minimum":     {func(in *Input) { in.Pools[0].Min = 2 }, []string{"n1"}, ""},
		"not with a bulk of none": {func(in *Input) { in.Profile.EmptyBulk = 0 }, nil, ""},
		"what is busy stays": {func(in *Input) {
			for _, n := range in.Nodes {
				n.Pods = pods(1, 600)
			}
		}, nil, ""},
		"one that pods leave at a time": {func(in *Input) {
			for i, n := range in.Nodes {
				n.Pods = []*Pod{pod(fmt.Sprint("p", i), 100)}
			}
		}, []string{"n1"}, ""},
		"no other place": {func(in *Input) {
			in.Nodes[0].Pods, in.Nodes[1].Pods, in.Nodes[2].Pods = pods(1, 400), pods(1, 900), pods(1, 900)
		}, nil, "there is no other place"},
		"an annotation on the node": {func(in *Input) { busy(in); in.Nodes[2].Keep = true }, nil, "scale-down-disabled"},
		"a pod that mustn't":        {func(in *Input) { busy(in).Evict = &no }, nil, "isn't safe to evict"},
		"a pod of nobody":           {func(in *Input) { busy(in).Owner = "" }, nil, "nothing would start"},
		"a pod of nobody that may":  {func(in *Input) { p := busy(in); p.Owner, p.Evict = "", &yes }, []string{"n3"}, ""},
		"local storage":             {func(in *Input) { busy(in).Local, in.Profile.SkipLocal = true, true }, nil, "local storage"},
		"local storage by default":  {func(in *Input) { busy(in).Local = true }, []string{"n3"}, ""},
		"kube-system":               {func(in *Input) { busy(in).System = true }, nil, "kube-system's"},
		"kube-system with a budget": {func(in *Input) {
			busy(in).System = true
			in.Budgets = []Budget{{"default", "b", Selector{Set: true}, 1}}
		}, []string{"n3"}, ""},
		"kube-system, allowed": {func(in *Input) { busy(in).System = true; in.Profile.SkipSystem = false }, []string{"n3"}, ""},
		"a DaemonSet's pod":    {func(in *Input) { busy(in).Daemon = true }, []string{"n3"}, ""},
		"a budget":             {func(in *Input) { busy(in); in.Budgets = []Budget{{"default", "b", Selector{Set: true}, 0}} }, nil, "disruption budget b"},
		"another's budget":     {func(in *Input) { busy(in); in.Budgets = []Budget{{"other", "b", Selector{Set: true}, 0}} }, []string{"n3"}, ""},
		"after a pool grew":    {func(in *Input) { busy(in); in.Memory.Added = begin.Add(-time.Minute) }, nil, ""},
		"after a failure":      {func(in *Input) { busy(in); in.Memory.Failed = begin.Add(-time.Minute) }, nil, ""},
		"not yet":              {func(in *Input) { busy(in); in.Profile.Unneeded = time.Hour }, nil, ""},
		"while pods wait":      {func(in *Input) { busy(in); in.Pending = pods(1, 1000) }, nil, ""},
		"a dead node": {func(in *Input) {
			busy(in).Evict = &no
			in.Nodes[2].Ready = false
		}, []string{"n3"}, ""},
		"while another is being left": {func(in *Input) {
			busy(in)
			in.Nodes[0].Going = true
		}, nil, ""},
	} {
		in := input(pool)
		in.Nodes = []*Node{node("np", "n1", 1000), node("np", "n2", 1000), node("np", "n3", 1000)}
		in.Memory.Unneeded = map[string]time.Time{}
		in.Profile.Unneeded, in.Profile.Unready = 0, 0
		c.change(in)
		d := Decide(in)
		slices.Sort(d.Remove)
		if !slices.Equal(d.Remove, c.want) {
			t.Errorf("%s: %v, want %v; kept %v", name, d.Remove, c.want, d.Kept)
		}
		if c.kept != "" && !strings.Contains(d.Kept["n3"]+d.Kept["n1"], c.kept) {
			t.Errorf("%s: kept %v", name, d.Kept)
		}
	}
}

// busy fills two nodes and puts a small pod on the third.
func busy(in *Input) *Pod {
	in.Nodes[0].Pods, in.Nodes[1].Pods = pods(1, 700), pods(1, 700)
	p := pod("small", 100)
	in.Nodes[2].Pods = []*Pod{p}
	return p
}

// A node that doesn't come is given up, others are tried instead, and the pool
// has a pause that grows.
func TestNodesThatDontCome(t *testing.T) {
	in := input(Pool{Name: "bad", Min: 0, Max: 3, Count: 1, Template: template(1000)}, Pool{Name: "good", Max: 3, Template: template(1000)})
	in.Missing = []Missing{{"n1", "bad"}}
	in.Pending = pods(1, 900)
	d := Decide(in)
	if len(d.Want) != 0 || len(d.Remove) != 0 || !d.Next.Equal(begin.Add(in.Profile.Provision)) {
		t.Fatalf("%+v", d)
	}
	in.Now, in.Memory = d.Next, d.Memory
	d = Decide(in)
	if !slices.Equal(d.Remove, []string{"n1"}) || !reflect.DeepEqual(d.Want, map[string]int{"good": 1}) {
		t.Errorf("remove %v, want %v", d.Remove, d.Want)
	}
	if until := d.Memory.Pools["bad"].Until; !until.Equal(in.Now.Add(firstPause)) {
		t.Errorf("pause until %s", until)
	}
	// It was never given an address: nothing can be removed, the others are tried all the same.
	in.Missing, in.Memory = nil, Memory{}
	d = Decide(in)
	in.Now, in.Memory = in.Now.Add(in.Profile.Provision), d.Memory
	if d = Decide(in); len(d.Remove) != 0 || d.Want["good"] != 1 {
		t.Errorf("remove %v, want %v", d.Remove, d.Want)
	}
}

// What is asked for is asked for until it is done or pointless.
func TestRemovalStands(t *testing.T) {
	in := input(Pool{Name: "np", Min: 1, Max: 10, Count: 3, Template: template(1000)})
	in.Nodes = []*Node{node("np", "n1", 1000), node("np", "n2", 1000), node("np", "n3", 1000)}
	p := busy(in)
	in.Profile.Unneeded = time.Minute
	step := func(after time.Duration) Decision {
		in.Now = in.Now.Add(after)
		d := Decide(in)
		in.Memory = d.Memory
		return d
	}
	if d := step(0); len(d.Remove) != 0 || !slices.Equal(d.Idle, []string{"n3"}) || !d.Next.Equal(begin.Add(time.Minute)) {
		t.Fatalf("%+v", d)
	}
	for range 3 {
		if d := step(time.Minute); !slices.Equal(d.Remove, []string{"n3"}) {
			t.Fatalf("%+v", d)
		}
	}
	p.Requests[cpuName] = 900
	if d := step(time.Second); len(d.Remove) != 0 {
		t.Errorf("a node that is needed again is removed: %v", d.Remove)
	}
	p.Requests[cpuName] = 100
	step(time.Second)
	step(time.Minute)
	in.Nodes[2].Going, in.Pools[0].Count = true, 2
	if d := step(time.Second); !d.Memory.Deleted.Equal(in.Now) || len(d.Remove) != 0 {
		t.Errorf("%+v", d)
	}
}
