// SPDX-License-Identifier: Apache-2.0

package dataplane_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"bastide.dev/dataplane"
	"bastide.dev/ruleset"
)

// reference is what a group is, in Azure's words: the rule with the lowest
// priority that matches decides. It returns the rule's name and its verdict.
func reference(g *dataplane.NSG, inbound bool, p ruleset.Packet) (string, bool) {
	var best *dataplane.NSGRule
	for i := range g.Rules {
		r := &g.Rules[i]
		if r.Inbound == inbound && applies(r, p) && (best == nil || r.Priority < best.Priority) {
			best = r
		}
	}
	if best == nil {
		return "nsg/" + g.ID, false
	}
	return "nsg/" + g.ID + "/" + best.Name, best.Allow
}

func applies(r *dataplane.NSGRule, p ruleset.Packet) bool {
	ported := p.Protocol == 6 || p.Protocol == 17 || p.Protocol == 132
	holds := func(list []netip.Prefix, a netip.Addr) bool {
		return len(list) == 0 || slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	open := func(list []dataplane.Ports, n uint16) bool {
		all := slices.ContainsFunc(list, func(p dataplane.Ports) bool { return p.First == 0 && p.Last == 65535 })
		return len(list) == 0 || all || ported && slices.ContainsFunc(list, func(p dataplane.Ports) bool { return p.First <= n && n <= p.Last })
	}
	return !r.None && (r.Protocol == 0 || r.Protocol == p.Protocol) && holds(r.Sources, p.Source) && holds(r.Destinations, p.Destination) &&
		open(r.SourcePorts, p.SourcePort) && open(r.DestinationPorts, p.DestPort)
}

// random makes groups and flows; few different values, so that they meet.
type random struct{ *rand.Rand }

func (r random) address() netip.Addr {
	if r.IntN(10) == 0 {
		return netip.AddrFrom4([4]byte{byte(r.IntN(256)), byte(r.IntN(256)), byte(r.IntN(256)), byte(r.IntN(256))})
	}
	return netip.AddrFrom4([4]byte{10, 0, byte(r.IntN(2)), byte(4 + r.IntN(8))})
}

func (r random) prefixes() []netip.Prefix {
	var all []netip.Prefix
	for range []int{0, 0, 1, 1, 2, 5}[r.IntN(6)] {
		all = append(all, netip.PrefixFrom(r.address(), []int{0, 8, 16, 24, 28, 30, 32, 32, 32}[r.IntN(9)]).Masked())
	}
	return all
}

var somePorts = []uint16{0, 22, 53, 79, 80, 81, 443, 1024, 8080, 30000, 65535}

func (r random) port() uint16 {
	if r.IntN(4) == 0 {
		return uint16(r.IntN(65536))
	}
	return somePorts[r.IntN(len(somePorts))]
}

func (r random) ports() []dataplane.Ports {
	var all []dataplane.Ports
	for range []int{0, 1, 1, 1, 2, 4}[r.IntN(6)] {
		a, b := r.port(), r.port()
		if r.IntN(2) == 0 {
			b = a
		}
		all = append(all, dataplane.Ports{First: min(a, b), Last: max(a, b)})
	}
	return all
}

func (r random) group(id string, size int) dataplane.NSG {
	g := dataplane.NSG{ID: id, Log: r.IntN(5) == 0}
	for i, priority := range r.Perm(size) {
		rule := dataplane.NSGRule{Name: fmt.Sprint("r", i), Priority: 100 + priority, Inbound: r.IntN(2) == 0, Allow: r.IntN(2) == 0,
			Protocol: []uint8{0, 0, 1, 6, 6, 6, 17, 17, 50}[r.IntN(9)], None: r.IntN(30) == 0,
			Sources: r.prefixes(), Destinations: r.prefixes(), DestinationPorts: r.ports()}
		if r.IntN(5) == 0 {
			rule.SourcePorts = r.ports()
		}
		if r.IntN(3) == 0 {
			rule.DestinationPorts = nil
		}
		g.Rules = append(g.Rules, rule)
	}
	if r.IntN(4) > 0 {
		g.Rules = append(g.Rules, standard("10.0.0.0/16")...)
	}
	return g
}

// pair is a network of two interfaces with groups at each level.
func pair(r random, size int) *dataplane.Config {
	v := dataplane.VNet{ID: "v", Prefixes: prefixes("10.0.0.0/16"), NSGs: []dataplane.NSG{r.group("g/a", size), r.group("g/b", size), r.group("g/c", size)}}
	pick := func() string { return []string{"", "g/a", "g/b", "g/c", "g/c"}[r.IntN(5)] }
	for i, name := range []string{"x", "y"} {
		v.Subnets = append(v.Subnets, dataplane.Subnet{Name: name, Prefix: prefix(fmt.Sprintf("10.0.%d.0/24", i)), NSG: pick()})
		v.NICs = append(v.NICs, dataplane.NIC{ID: name, Namespace: name, Subnet: name, NSG: pick(), Forwarding: true,
			Address: addr(fmt.Sprintf("10.0.%d.4", i)), Pods: prefixes(fmt.Sprintf("10.0.%d.8/29", i))})
	}
	return &dataplane.Config{Edge: dataplane.Edge{Pools: prefixes("192.88.99.0/24"), FrontDoor: addr("192.88.99.1")}, VNets: []dataplane.VNet{v}}
}

// expect is who decides about a packet from x to y.
func expect(v *dataplane.VNet, p ruleset.Packet) (string, bool) {
	group := func(id string) *dataplane.NSG {
		at := slices.IndexFunc(v.NSGs, func(g dataplane.NSG) bool { return g.ID == id })
		if at < 0 {
			return nil
		}
		return &v.NSGs[at]
	}
	by := ""
	for i, id := range []string{v.NICs[0].NSG, v.Subnets[0].NSG, v.Subnets[1].NSG, v.NICs[1].NSG} {
		if g := group(id); g != nil {
			origin, allowed := reference(g, i >= 2, p)
			if by = origin; !allowed {
				return by, false
			}
		}
	}
	return by, true
}

// TestGroupsDecideAsTheReference compares the compiled tables with a loop over
// rules, on thousands of random cases.
func TestGroupsDecideAsTheReference(t *testing.T) {
	r := random{rand.New(rand.NewPCG(1, 2))}
	cases, allowed, depth := 0, 0, 0
	for n := range 90 {
		c := pair(r, []int{3, 12, 40, 150, 400, 1000}[n%6])
		if err := c.Validate(); err != nil {
			t.Fatal(err)
		}
		v := &c.VNets[0]
		router := compile(t, c, "v")
		depth = max(depth, len(router.Table.Chains))
		for range 60 {
			p := ruleset.Packet{Source: r.address(), Destination: addr(fmt.Sprintf("10.0.1.%d", 8+r.IntN(8))), Protocol: []uint8{1, 6, 6, 17, 50, 132}[r.IntN(6)], State: ruleset.New}
			if ruleset.HasPorts(p.Protocol) {
				p.SourcePort, p.DestPort = r.port(), r.port()
			}
			if r.IntN(2) == 0 {
				p.Source = addr("10.0.0.4")
			}
			if p.Source == addr("10.0.0.1") || p.Source == addr("10.0.1.1") || p.Source.IsLoopback() || p.Source.IsLinkLocalUnicast() {
				continue // nobody may send from the platform's own
			}
			cases++
			wantBy, want := expect(v, p)
			if want {
				allowed++
			}
			if by, got := decide(t, &router, v, p); got != want || by != wantBy {
				text, _ := json.Marshal(c)
				t.Fatalf("%+v: got %v by %q, want %v by %q\n%s", p, got, by, want, wantBy, text)
			}
		}
	}
	if cases < 5000 || allowed < cases/20 || allowed > cases*19/20 {
		t.Errorf("%d cases, %d allowed: that shows little", cases, allowed)
	}
	t.Logf("%d cases, %d allowed, up to %d chains", cases, allowed, depth)
}

// decide runs a packet from x to y through the router's table.
func decide(t *testing.T, r *dataplane.Router, v *dataplane.VNet, p ruleset.Packet) (string, bool) {
	t.Helper()
	p.InLink = dataplane.NICLink(instance, "x")
	by := ""
	for _, hook := range []ruleset.Hook{ruleset.Prerouting, ruleset.Forward, ruleset.Postrouting} {
		if hook == ruleset.Forward {
			p.OutLink = dataplane.NICLink(instance, "y")
		}
		o, err := r.Table.Run(hook, &p, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range o.Steps {
			if s.Verdict == ruleset.Return {
				by = s.Origin
			}
		}
		if o.Verdict != ruleset.Accept {
			return o.Decided.Origin, false
		}
	}
	return by, true
}

func big(rules int) *dataplane.Config {
	c := &dataplane.Config{Edge: dataplane.Edge{Pools: prefixes("192.88.0.0/16"), FrontDoor: addr("192.88.99.1")}}
	v := dataplane.VNet{ID: "v", Prefixes: prefixes("10.0.0.0/8"), Subnets: []dataplane.Subnet{{Name: "s", Prefix: prefix("10.0.0.0/16"), NSG: "g"}}}
	g := dataplane.NSG{ID: "g", Rules: standard("10.0.0.0/8")}
	for i := range rules {
		g.Rules = append(g.Rules, dataplane.NSGRule{Name: fmt.Sprint("r", i), Priority: 100 + i, Inbound: i%4 != 0, Allow: i%3 != 0, Protocol: 6,
			Sources: prefixes(fmt.Sprintf("20.%d.%d.0/24", i%7, i%250), fmt.Sprintf("30.%d.0.0/16", i%200)), DestinationPorts: portsOf(uint16(1000+i), uint16(1000+i+i%3))})
	}
	v.NSGs = []dataplane.NSG{g}
	for i := range 100 {
		id := fmt.Sprint("n", i)
		v.NICs = append(v.NICs, dataplane.NIC{ID: id, Machine: id, Subnet: "s", Address: addr(fmt.Sprintf("10.0.0.%d", 4+i)), Egress: []dataplane.Egress{
			{Address: addr("192.88.99.2"), First: uint16(1024 + 512*i), Last: uint16(1024 + 512*i + 511)}}, Pods: prefixes(fmt.Sprintf("10.244.%d.0/24", i))})
	}
	for i := range 20 {
		b := dataplane.Balancer{Origin: fmt.Sprint("lb/", i), Address: addr("192.88.99.3"), Protocol: 6, Ports: dataplane.Ports{First: uint16(80 + i), Last: uint16(80 + i)}, Floating: true}
		for _, n := range v.NICs {
			b.Backends = append(b.Backends, n.ID)
		}
		v.Balancers = append(v.Balancers, b)
	}
	c.VNets = []dataplane.VNet{v}
	return c
}

// longestList is how many rules the longest chain has.
func longestList(r *dataplane.Router) int {
	longest := 0
	for _, c := range r.Table.Chains {
		longest = max(longest, len(c.Rules))
	}
	return longest
}

func TestManyRulesCostLittle(t *testing.T) {
	r := compile(t, big(1000), "v")
	// Eight rules of two prefixes each, and a jump.
	if n := longestList(&r); n > 17 {
		t.Errorf("a chain has %d rules", n)
	}
}

func TestOneRuleChangesLittle(t *testing.T) {
	before := compile(t, big(1000), "v")
	c := big(1000)
	c.VNets[0].NSGs[0].Rules[500].Allow = !c.VNets[0].NSGs[0].Rules[500].Allow
	after := compile(t, c, "v")
	if n := differing(before.Table.Chains, after.Table.Chains, func(c ruleset.Chain) string { return c.Name }); n == 0 || n > 16 {
		t.Errorf("%d of %d chains differ", n, len(before.Table.Chains))
	}
	if n := differing(before.Table.Sets, after.Table.Sets, func(s ruleset.Set) string { return s.Name }); n != 0 {
		t.Errorf("%d sets differ", n)
	}
	if n := differing(before.Table.Maps, after.Table.Maps, func(m ruleset.Map) string { return m.Name }); n == 0 || n > 1 {
		t.Errorf("%d maps differ", n)
	}
}

// differing counts the names whose content isn't the same, or is in one only.
func differing[T any](a, b []T, name func(T) string) int {
	content := func(list []T) map[string]string {
		m := map[string]string{}
		for _, x := range list {
			text, _ := json.Marshal(x)
			m[name(x)] = string(text)
		}
		return m
	}
	x, y := content(a), content(b)
	n := 0
	for k := range x {
		if x[k] != y[k] {
			n++
		}
	}
	for k := range y {
		if _, ok := x[k]; !ok {
			n++
		}
	}
	return n
}

func TestCompileIsDeterministic(t *testing.T) {
	c := world()
	shuffled := world()
	v := network(t, shuffled, "c")
	slices.Reverse(v.NSGs)
	slices.Reverse(v.RouteTables)
	for i := range v.Balancers {
		slices.Reverse(v.Balancers[i].Backends)
	}
	for i := range v.NSGs {
		slices.SortFunc(v.NSGs[i].Rules, func(a, b dataplane.NSGRule) int { return cmp.Compare(a.Name, b.Name) })
	}
	first := compile(t, c, "c")
	for range 5 {
		again, other := compile(t, c, "c"), compile(t, shuffled, "c")
		if again.Digest() != first.Digest() || other.Digest() != first.Digest() {
			t.Fatal("two compilations differ")
		}
	}
	one := random{rand.New(rand.NewPCG(7, 7))}
	two := random{rand.New(rand.NewPCG(7, 7))}
	a, b := compile(t, pair(one, 300), "v"), compile(t, pair(two, 300), "v")
	if a.Digest() != b.Digest() {
		t.Fatal("two compilations of random groups differ")
	}
}

func BenchmarkCompile(b *testing.B) {
	c := big(1000)
	for b.Loop() {
		dataplane.Compile(instance, c, &c.VNets[0], nil)
	}
}

func BenchmarkCompileRandom(b *testing.B) {
	c := pair(random{rand.New(rand.NewPCG(3, 3))}, 1000)
	for b.Loop() {
		dataplane.Compile(instance, c, &c.VNets[0], nil)
	}
}
