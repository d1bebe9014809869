// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"

	"bastide.dev/ruleset"
)

// flushConnections forgets the router's connections.
func flushConnections(t *testing.T, l *lab) {
	t.Helper()
	within(t, l.router, func() { must(t, netlink.ConntrackTableFlush(netlink.ConntrackTable)) })
}

func randomPacket(r *rand.Rand, n uint16) ruleset.Packet {
	p := ruleset.Packet{InLink: "left", State: ruleset.New,
		Source:      netip.AddrFrom4([4]byte{10, 1, 0, byte(r.IntN(16))}),
		Destination: netip.AddrFrom4([4]byte{10, 2, 0, byte(r.IntN(16))})}
	switch r.IntN(3) {
	case 0:
		p.Protocol, p.ICMPType = ruleset.ICMP, []uint8{8, 13}[r.IntN(2)]
		return p
	case 1:
		p.Protocol = ruleset.UDP
	default:
		p.Protocol = ruleset.TCP
	}
	p.SourcePort, p.DestPort = 1000+n, uint16(1+r.IntN(20))
	return p
}

// randomTable is a few chains, with sets and maps of all forms.
func randomTable(r *rand.Rand) ruleset.Table {
	g := &generator{r: r}
	t := ruleset.Table{Name: "t"}
	for _, f := range [][]ruleset.Field{{ruleset.Source}, {ruleset.Destination}, {ruleset.DestinationPort}, {ruleset.Source, ruleset.DestinationPort}, {ruleset.Source, ruleset.Destination, ruleset.Protocol, ruleset.DestinationPort}, {ruleset.InLink, ruleset.Protocol}} {
		for _, ranged := range []bool{false, true} {
			name := fmt.Sprintf("s%d", len(t.Sets))
			t.Sets = append(t.Sets, ruleset.Set{Name: name, Fields: f, Elements: g.keys(f, 1+r.IntN(8), ranged)})
			m := ruleset.Map{Name: "m" + name, Kind: ruleset.ToVerdict, Fields: f}
			for _, k := range g.keys(f, 1+r.IntN(8), ranged) {
				m.Elements = append(m.Elements, ruleset.MapElement{Key: k, Verdict: []ruleset.Action{{Verb: ruleset.Accept}, {Verb: ruleset.Drop}, {Verb: ruleset.Return}, {Verb: ruleset.Jump, Chain: "c0"}, {Verb: ruleset.Goto, Chain: "c1"}}[r.IntN(5)]})
			}
			t.Maps = append(t.Maps, m)
		}
	}
	g.table = &t
	own := when(ruleset.Accept, is(ruleset.Protocol, num(ruleset.ESP)))
	dnat := ruleset.Chain{Name: "dnat", Hook: ruleset.Prerouting, NAT: true, Priority: ruleset.DestinationNAT}
	for range 3 {
		rule := does(ruleset.Action{Verb: ruleset.DNAT, Address: netip.AddrFrom4([4]byte{10, 2, 0, byte(r.IntN(16))})}, g.match(), not(ruleset.Protocol, num(ruleset.ESP)))
		dnat.Rules = append(dnat.Rules, rule)
	}
	t.Chains = []ruleset.Chain{dnat,
		{Name: "f1", Hook: ruleset.Forward, Drop: r.IntN(2) == 0, Rules: append([]ruleset.Rule{own}, g.rules(8, "c2", "c0", "c1")...)},
		{Name: "f2", Hook: ruleset.Forward, Priority: 1, Rules: append([]ruleset.Rule{own}, g.rules(4, "c2", "c0")...)},
		{Name: "c0", Rules: g.rules(3)}, {Name: "c1", Rules: g.rules(3)}, {Name: "c2", Rules: g.rules(4, "c0")},
	}
	return t
}

type generator struct {
	r     *rand.Rand
	table *ruleset.Table
}

func (g *generator) value(f ruleset.Field, ranged bool) ruleset.Range {
	from := g.r.IntN(16)
	to := from
	if ranged {
		to = min(15, from+g.r.IntN(6))
	}
	switch f {
	case ruleset.InLink:
		return link([]string{"left", "right", "other"}[g.r.IntN(3)])
	case ruleset.Source:
		return ruleset.Between(ruleset.Addr(netip.AddrFrom4([4]byte{10, 1, 0, byte(from)})), ruleset.Addr(netip.AddrFrom4([4]byte{10, 1, 0, byte(to)})))
	case ruleset.Destination:
		return ruleset.Between(ruleset.Addr(netip.AddrFrom4([4]byte{10, 2, 0, byte(from)})), ruleset.Addr(netip.AddrFrom4([4]byte{10, 2, 0, byte(to)})))
	case ruleset.Protocol:
		return num([]uint32{ruleset.TCP, ruleset.UDP, ruleset.ICMP}[g.r.IntN(3)])
	case ruleset.ICMPType:
		return num([]uint32{8, 13}[g.r.IntN(2)])
	case ruleset.Mark:
		return num(uint32(g.r.IntN(4)))
	case ruleset.State:
		return num(uint32(1 + g.r.IntN(3)))
	}
	return ruleset.Between(ruleset.Number(from), ruleset.Number(to))
}

// keys are keys that don't overlap.
func (g *generator) keys(f []ruleset.Field, n int, ranged bool) [][]ruleset.Range {
	var keys [][]ruleset.Range
	for range n {
		k := make([]ruleset.Range, len(f))
		for i := range f {
			k[i] = g.value(f[i], ranged)
		}
		try := ruleset.Table{Name: "t", Sets: []ruleset.Set{{Name: "s", Fields: f, Elements: append(keys, k)}}}
		if try.Validate() == nil {
			keys = append(keys, k)
		}
	}
	return keys
}

func (g *generator) match() ruleset.Match {
	if g.r.IntN(2) == 0 {
		s := g.table.Sets[g.r.IntN(len(g.table.Sets))]
		return ruleset.Match{Fields: s.Fields, Set: s.Name, Not: g.r.IntN(3) == 0}
	}
	f := []ruleset.Field{ruleset.Source, ruleset.Destination, ruleset.Protocol, ruleset.DestinationPort, ruleset.ICMPType, ruleset.Mark, ruleset.State}[g.r.IntN(7)]
	m := ruleset.Match{Fields: []ruleset.Field{f}, Not: g.r.IntN(3) == 0}
	for _, k := range g.keys(m.Fields, 1+g.r.IntN(3), g.r.IntN(2) == 0) {
		m.Ranges = append(m.Ranges, k[0])
	}
	return m
}

func (g *generator) rules(n int, chains ...string) []ruleset.Rule {
	var rules []ruleset.Rule
	for i := range n {
		rule := ruleset.Rule{Origin: fmt.Sprintf("rule %d", i), Count: g.r.IntN(2) == 0}
		for range 1 + g.r.IntN(2) {
			rule.Matches = append(rule.Matches, g.match())
		}
		switch k := g.r.IntN(8); {
		case k == 0:
			rule.Actions = []ruleset.Action{{Verb: ruleset.SetMark, Mark: uint32(g.r.IntN(4)), Mask: uint32(g.r.IntN(4))}}
		case k == 1:
			rule.Actions = act(ruleset.Reject)
		case k == 2 && len(chains) > 0:
			rule.Actions = []ruleset.Action{{Verb: ruleset.Jump, Chain: chains[g.r.IntN(len(chains))]}}
		case k <= 4 && len(chains) == 3:
			m := g.table.Maps[g.r.IntN(len(g.table.Maps))]
			rule.Actions = []ruleset.Action{{Verb: ruleset.Dispatch, Fields: m.Fields, Map: m.Name}}
		default:
			rule.Actions = act([]ruleset.Verb{ruleset.Accept, ruleset.Drop, ruleset.Return}[g.r.IntN(3)])
		}
		rules = append(rules, rule)
	}
	return rules
}
