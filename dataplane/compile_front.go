// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"cmp"
	"net/netip"
	"slices"

	rs "bastide.dev/ruleset"
)

// front is a balancer and who answers for it now.
type front struct {
	*Balancer
	public   bool
	backends []*port // healthy
}

// whole tells whether the balancer takes all protocols and ports.
func (b *Balancer) whole() bool { return b.Protocol == 0 }

// oneToOne tells whether the address is an interface's, with all of its ports.
func (p *Public) oneToOne() bool { return p.Port == 0 }

// internal tells whether an address is the network's own private one.
func (k *compiler) internal(a netip.Addr) bool { return within(single(a), k.v.Prefixes) }

// answering are a balancer's back ends that get new connections. Nobody knows
// of those that weren't probed yet: they do when no other one answers.
func (k *compiler) answering(b *Balancer) []*port {
	var healthy, unknown []*port
	for _, id := range b.Backends {
		p := k.nics[id]
		if p == nil {
			continue
		}
		well, probed := k.health[b.Probe][id]
		switch {
		case b.Probe == "" || well:
			healthy = append(healthy, p)
		case !probed:
			unknown = append(unknown, p)
		}
	}
	if len(healthy) == 0 {
		healthy = unknown
	}
	slices.SortFunc(healthy, func(a, b *port) int { return int(a.mark) - int(b.mark) })
	return slices.Compact(healthy)
}

// toFronts leads to the front ends' chain what is sent to one of them.
func (k *compiler) toFronts() []rs.Rule {
	var rules []rs.Rule
	if all := k.frontAddresses(); len(all) > 0 {
		k.table.set(frontSet, fields(rs.Destination), rs.Prefixes(all...))
		rules = append(rules, rule("", goTo("fronts"), in(frontSet, rs.Destination)))
	}
	var whole []netip.Prefix
	for i := range k.v.Public {
		if p := &k.v.Public[i]; p.oneToOne() {
			whole = append(whole, single(p.Address))
		}
	}
	if len(whole) > 0 {
		rules = append(rules, rule("", mark(ownFrontEnd), not(via(rs.InLink, RouterLink)), k.table.to(whole...)))
	}
	return rules
}

// frontAddresses are the addresses with ports that lead to different places.
func (k *compiler) frontAddresses() []netip.Prefix {
	var all []netip.Prefix
	for i := range k.v.Balancers {
		all = append(all, single(k.v.Balancers[i].Address))
	}
	for i := range k.v.Public {
		if p := &k.v.Public[i]; !p.oneToOne() {
			all = append(all, single(p.Address))
		}
	}
	return all
}

// fronts finds the balancer or the forwarded port that a packet in a
// connection's own direction is for. What no rule is for, is dropped.
func (k *compiler) fronts() {
	if len(k.frontAddresses()) == 0 {
		return
	}
	byPort := rs.Map{Name: "services", Kind: rs.ToVerdict, Fields: fields(rs.Destination, rs.Protocol, rs.DestinationPort)}
	byAddress := rs.Map{Name: "services-any", Kind: rs.ToVerdict, Fields: fields(rs.Destination)}
	for i := range k.v.Public {
		if p := &k.v.Public[i]; !p.oneToOne() {
			byPort.Elements = append(byPort.Elements, rs.MapElement{Verdict: goTo(k.forwarded(p)),
				Key: []rs.Range{address(p.Address), number(rs.TCP, rs.TCP), number(uint32(p.Port), uint32(p.Port))}})
		}
	}
	for i := range k.v.Balancers {
		b := &k.v.Balancers[i]
		f := &front{Balancer: b, public: !k.internal(b.Address), backends: k.answering(b)}
		k.fronted = append(k.fronted, f)
		element := rs.MapElement{Key: []rs.Range{address(b.Address)}, Verdict: goTo(k.balanced(f))}
		if b.whole() {
			byAddress.Elements = append(byAddress.Elements, element)
			continue
		}
		proto := uint32(b.Protocol)
		element.Key = append(element.Key, number(proto, proto), ports(b.Ports))
		byPort.Elements = append(byPort.Elements, element)
	}
	c := k.table.chain("fronts")
	// An ICMP error of a known connection goes where the connection goes.
	c.Rules = append(c.Rules, rs.Rule{Matches: []rs.Match{between(rs.ConnMark, 1, 1<<32-1)}, Actions: []rs.Action{{Verb: rs.LoadMark}, accept}},
		rule("", accept, is(rs.Protocol, rs.ICMP), is(rs.State, rs.Established)))
	if k.table.mapping(byPort) {
		c.Rules = append(c.Rules, rs.Rule{Actions: []rs.Action{dispatch(byPort.Name, byPort.Fields...)}})
	}
	if k.table.mapping(byAddress) {
		c.Rules = append(c.Rules, rs.Rule{Actions: []rs.Action{dispatch(byAddress.Name, byAddress.Fields...)}})
	}
	c.Rules = append(c.Rules, rule("platform/noListener", drop))
}

// forwarded is the chain of a public port that leads to a target. Sources that
// aren't allowed (any more) are refused also in connections that stand.
func (k *compiler) forwarded(p *Public) string {
	name := contentName("public", p.Address, p.Port)
	c := k.table.chain(name)
	if p.Restricted {
		allowed := k.allowed(p)
		k.cuts = append(k.cuts, Cut{Destination: p.Address, Port: p.Port, Allowed: allowed})
		refuse := rule(cmp.Or(p.Origin, "public/"+p.Address.String())+"/authorizedIPRanges", drop)
		if len(allowed) > 0 {
			refuse.Matches = []rs.Match{not(k.table.from(allowed...))}
		}
		c.Rules = append(c.Rules, refuse)
	}
	c.Rules = append(c.Rules, rule("", mark(ownEndpoint), not(via(rs.InLink, RouterLink))), rule("", accept))
	return name
}

// allowed are the sources that may come in: those of the list, and the
// interfaces of this network whose packets would come from one of those
// outside. Inside they still have their own addresses.
func (k *compiler) allowed(p *Public) []netip.Prefix {
	all := slices.Clone(p.Allowed)
	for i := range k.v.NICs {
		nic := k.nics[k.v.NICs[i].ID]
		if out := k.effective(nic); out.IsValid() && within(single(out), p.Allowed) || nic.Address == p.Target {
			all = append(all, nic.own...)
		}
	}
	var merged []netip.Prefix
	for _, r := range rs.Addresses(all) {
		merged = append(merged, rs.Cover(r)...)
	}
	return merged
}

// affinities say which fields choose the back end.
var affinities = map[Affinity][]rs.Field{
	"":               {rs.Source, rs.Destination, rs.SourcePort, rs.DestinationPort, rs.Protocol},
	ByConnection:     {rs.Source, rs.Destination, rs.SourcePort, rs.DestinationPort, rs.Protocol},
	BySource:         {rs.Source, rs.Destination},
	BySourceProtocol: {rs.Source, rs.Destination, rs.Protocol},
}

// balanced is the chain of a balancer: it chooses who gets a new connection.
// Balancers with the same back ends share no chain: their counters differ.
func (k *compiler) balanced(f *front) string {
	name := contentName("lb", f.Address, f.Protocol, f.Ports)
	c := k.table.chain(name)
	if len(f.backends) == 0 {
		c.Rules = []rs.Rule{rule(f.Origin+"/noHealthyBackend", drop)}
		return name
	}
	marks := make([]uint32, len(f.backends))
	for i, p := range f.backends {
		marks[i] = p.mark
	}
	if f.Idle > 0 {
		c.Rules = append(c.Rules, idleRule(f.Idle))
	}
	c.Rules = append(c.Rules, k.choice(f, marks)...)
	if f.public {
		c.Rules = append(c.Rules, rs.Rule{Matches: []rs.Match{not(via(rs.InLink, RouterLink))},
			Actions: []rs.Action{{Verb: rs.SetMark, Mark: ownFrontEnd, Mask: ^uint32(backendBits)}}})
	}
	c.Rules = append(c.Rules, rs.Rule{Origin: f.Origin, Count: true, Actions: []rs.Action{{Verb: rs.SaveMark}, accept}})
	return name
}

// choice marks the packet with a back end. A packet without ports (of a
// balancer for all protocols) is chosen for by its addresses.
func (k *compiler) choice(f *front, marks []uint32) []rs.Rule {
	if len(marks) == 1 {
		return []rs.Rule{rule("", mark(marks[0]))}
	}
	by := affinities[f.Affinity]
	balance := func(by []rs.Field) rs.Rule {
		return rs.Rule{Actions: []rs.Action{{Verb: rs.Balance, Fields: by, Marks: marks}}}
	}
	if f.whole() && slices.Contains(by, rs.SourcePort) {
		return []rs.Rule{balance([]rs.Field{rs.Source, rs.Destination, rs.Protocol}), balance(by)}
	}
	return []rs.Rule{balance(by)}
}

// backendKey is the part of a DNAT map's key that names a balancer's port.
func (f *front) backendKey() []rs.Range {
	proto := uint32(f.Protocol)
	return []rs.Range{address(f.Address), number(proto, proto), ports(f.Ports)}
}
