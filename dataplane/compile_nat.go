// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"slices"

	rs "bastide.dev/ruleset"
)

// destinationNAT translates what isn't floating: forwarded ports, interfaces'
// own public addresses, and balanced connections to their back end.
func (k *compiler) destinationNAT() {
	base := k.table.hooked(rs.Chain{Name: "dnat", Hook: rs.Prerouting, NAT: true, Priority: rs.DestinationNAT})
	if _, any := k.table.sets[detouredSet]; any {
		base.Rules = append(base.Rules, rule("", accept, in(detouredSet, rs.Mark, rs.Destination)))
	}
	translate := func(m rs.Map) {
		if k.table.mapping(m) {
			base.Rules = append(base.Rules, rs.Rule{Actions: []rs.Action{{Verb: rs.DNAT, Map: m.Name, Fields: m.Fields}}})
		}
	}
	forwards := rs.Map{Name: "forwards", Kind: rs.ToAddress, Ports: true, Fields: fields(rs.Destination, rs.Protocol, rs.DestinationPort)}
	whole := rs.Map{Name: "interfaces", Kind: rs.ToAddress, Fields: fields(rs.Destination)}
	for i := range k.v.Public {
		p := &k.v.Public[i]
		if p.oneToOne() {
			whole.Elements = append(whole.Elements, rs.MapElement{Key: []rs.Range{address(p.Address)}, Address: p.Target})
			continue
		}
		forwards.Elements = append(forwards.Elements, rs.MapElement{Address: p.Target, First: p.TPort, Last: p.TPort,
			Key: []rs.Range{address(p.Address), number(rs.TCP, rs.TCP), number(uint32(p.Port), uint32(p.Port))}})
	}
	translate(forwards)
	ported, unported, all := k.backendMaps()
	translate(ported)
	translate(unported)
	translate(all)
	translate(whole)
}

// backendMaps lead from a packet's back end and port to the back end's address
// and port: with a port of its own, with the packet's, for all protocols.
func (k *compiler) backendMaps() (ported, unported, all rs.Map) {
	byPort := fields(rs.Mark, rs.Destination, rs.Protocol, rs.DestinationPort)
	ported = rs.Map{Name: "backends", Kind: rs.ToAddress, Ports: true, Fields: byPort}
	unported = rs.Map{Name: "backends-same-port", Kind: rs.ToAddress, Fields: byPort}
	all = rs.Map{Name: "backends-any", Kind: rs.ToAddress, Fields: fields(rs.Mark, rs.Destination)}
	for _, f := range k.fronted {
		if f.Floating {
			continue
		}
		marks := []uint32{0}
		if f.public {
			marks = append(marks, ownFrontEnd)
		}
		for _, p := range f.backends {
			for _, m := range marks {
				at := number(m|p.mark, m|p.mark)
				switch {
				case f.whole():
					all.Elements = append(all.Elements, rs.MapElement{Key: []rs.Range{at, address(f.Address)}, Address: p.Address})
				case f.BackendPort == 0:
					unported.Elements = append(unported.Elements, rs.MapElement{Key: append([]rs.Range{at}, f.backendKey()...), Address: p.Address})
				default:
					ported.Elements = append(ported.Elements, rs.MapElement{Key: append([]rs.Range{at}, f.backendKey()...),
						Address: p.Address, First: f.BackendPort, Last: f.BackendPort})
				}
			}
		}
	}
	return ported, unported, all
}

// sourceNAT gives what leaves, and what comes back in by an own public
// address, the public address of its interface.
func (k *compiler) sourceNAT() {
	base := k.table.hooked(rs.Chain{Name: "snat", Hook: rs.Postrouting, NAT: true, Priority: rs.SourceNAT})
	itself := rs.Map{Name: "itself", Kind: rs.ToAddress, Fields: fields(rs.Source, rs.Destination)}
	for i := range k.v.Public {
		// A target that calls its own public address would see itself as the
		// client, and drop that.
		p := &k.v.Public[i]
		itself.Elements = append(itself.Elements, rs.MapElement{Key: []rs.Range{address(p.Target), address(p.Target)}, Address: p.Address})
	}
	if k.table.mapping(itself) {
		base.Rules = append(base.Rules, rs.Rule{Matches: []rs.Match{is(rs.Translated, 1)},
			Actions: []rs.Action{{Verb: rs.SNAT, Map: itself.Name, Fields: itself.Fields}}})
	}
	c := k.table.chain("leave")
	own := rs.Map{Name: ownPublicMap, Kind: rs.ToAddress, Fields: fields(rs.Source)}
	for i := range k.v.Public {
		if p := &k.v.Public[i]; k.leavesBy(p) {
			own.Elements = append(own.Elements, rs.MapElement{Key: []rs.Range{address(p.Target)}, Address: p.Address})
		}
	}
	if k.table.mapping(own) {
		c.Rules = append(c.Rules, rs.Rule{Actions: []rs.Action{{Verb: rs.SNAT, Map: own.Name, Fields: own.Fields}}})
	}
	egress := rs.Map{Name: egressMap, Kind: rs.ToVerdict, Fields: fields(rs.InLink)}
	for _, p := range k.ports {
		if len(p.Egress) > 0 {
			egress.Elements = append(egress.Elements, rs.MapElement{Key: []rs.Range{link(p.link)}, Verdict: goTo(k.egress(p.Egress))})
		}
	}
	if k.table.mapping(egress) {
		c.Rules = append(c.Rules, rs.Rule{Actions: []rs.Action{dispatch(egressMap, rs.InLink)}})
	}
	base.Rules = append(base.Rules, rule("", goTo(c.Name), between(rs.Mark, ownEndpoint, 1<<32-1)),
		rule("", goTo(c.Name), via(rs.OutLink, RouterLink)))
}

// egress is the chain for a list of egresses. Of several, each new connection
// that leaves takes one by its own hash; the packet's mark has done its work by
// then. What comes back in takes the first: its mark is still asked for.
func (k *compiler) egress(list []Egress) string {
	text := make([]any, len(list))
	for i := range list {
		text[i] = list[i]
	}
	name := contentName("egress", text...)
	if k.table.has(name) {
		return name
	}
	c := k.table.chain(name)
	if len(list) > 1 {
		c.Rules = append(c.Rules, rule("", goTo(k.egress(list[:1])), not(via(rs.OutLink, RouterLink))))
		marks := make([]uint32, len(list))
		for i := range list {
			marks[i] = uint32(i + 1)
		}
		by := fields(rs.Source, rs.Destination, rs.Protocol)
		c.Rules = append(c.Rules, rs.Rule{Actions: []rs.Action{{Verb: rs.Balance, Fields: by, Marks: marks}}},
			rs.Rule{Actions: []rs.Action{{Verb: rs.Balance, Fields: affinities[ByConnection], Marks: marks}}})
	}
	for i := range list {
		var chosen []rs.Match
		if len(list) > 1 {
			chosen = []rs.Match{is(rs.Mark, uint32(i+1))}
		}
		c.Rules = append(c.Rules, list[i].rules(chosen)...)
	}
	return name
}

// rules translate to an egress; only TCP and UDP have ports to be held to.
func (e *Egress) rules(chosen []rs.Match) []rs.Rule {
	plain := rs.Rule{Origin: e.Origin, Count: true, Matches: chosen, Actions: []rs.Action{{Verb: rs.SNAT, Address: e.Address}}}
	if e.First == 0 && e.Last == 0 {
		return []rs.Rule{plain}
	}
	held := plain
	held.Matches = append(slices.Clone(chosen), is(rs.Protocol, rs.TCP, rs.UDP))
	held.Actions = []rs.Action{{Verb: rs.SNAT, Address: e.Address, First: e.First, Last: e.Last}}
	return []rs.Rule{held, plain}
}
