// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"cmp"
	"net/netip"
	"slices"

	rs "bastide.dev/ruleset"
)

// term is one rule of a group, in one direction and for one family: each of
// its dimensions is a list of disjoint ranges, or nil for any.
type term struct {
	origin string
	allow  bool
	log    bool
	dims   [dimensions][]rs.Range
}

// The dimensions of a term.
const (
	protocolDim = iota
	destinationPortDim
	sourceDim
	destinationDim
	sourcePortDim
	dimensions
)

var dimFields = [dimensions]rs.Field{rs.Protocol, rs.DestinationPort, rs.Source, rs.Destination, rs.SourcePort}

// group writes the chains of a group's rules for one direction, once, and
// returns the name of the first: it returns when the group allows, and drops
// what it doesn't.
func (k *compiler) group(id string, inbound bool) string {
	direction := "out"
	if inbound {
		direction = "in"
	}
	name := contentName("nsg-"+direction, id)
	if k.table.has(name) {
		return name
	}
	for i := range k.v.NSGs {
		if g := &k.v.NSGs[i]; g.ID == id {
			terms := termsOf(g, inbound)
			c := &classifier{table: k.table, origin: "nsg/" + id, budget: spread*len(terms) + spare}
			c.node(name, terms, "")
		}
	}
	return name
}

// termsOf are a group's rules of one direction by priority.
func termsOf(g *NSG, inbound bool) []term {
	sorted := slices.Clone(g.Rules)
	slices.SortStableFunc(sorted, func(a, b NSGRule) int { return cmp.Compare(a.Priority, b.Priority) })
	var terms []term
	for i := range sorted {
		if r := &sorted[i]; r.Inbound == inbound && !r.None {
			terms = append(terms, r.terms("nsg/"+g.ID+"/"+r.Name, g.Log)...)
		}
	}
	return terms
}

// terms are a rule's: one for each family that its addresses have. A rule with
// ports is about protocols that have some.
func (r *NSGRule) terms(origin string, log bool) []term {
	t := term{origin: origin, allow: r.Allow, log: log}
	t.dims[sourcePortDim], t.dims[destinationPortDim] = portRanges(r.SourcePorts), portRanges(r.DestinationPorts)
	hasPorts := t.dims[sourcePortDim] != nil || t.dims[destinationPortDim] != nil
	switch {
	case r.Protocol != 0 && hasPorts && !rs.HasPorts(r.Protocol):
		return nil
	case r.Protocol != 0:
		t.dims[protocolDim] = []rs.Range{number(uint32(r.Protocol), uint32(r.Protocol))}
	case hasPorts:
		t.dims[protocolDim] = []rs.Range{number(rs.TCP, rs.TCP), number(rs.UDP, rs.UDP), number(rs.SCTP, rs.SCTP)}
	}
	if len(r.Sources) == 0 && len(r.Destinations) == 0 {
		return []term{t}
	}
	var all []term
	for _, bits := range []int{32, 128} {
		of := t
		var ok1, ok2 bool
		of.dims[sourceDim], ok1 = family(r.Sources, bits)
		of.dims[destinationDim], ok2 = family(r.Destinations, bits)
		if ok1 && ok2 {
			all = append(all, of)
		}
	}
	return all
}

// family are the ranges of those prefixes that have so many bits; false when
// there are only others.
func family(prefixes []netip.Prefix, bits int) ([]rs.Range, bool) {
	if len(prefixes) == 0 {
		return nil, true
	}
	var of []netip.Prefix
	for _, p := range prefixes {
		if p.Addr().BitLen() == bits {
			of = append(of, p)
		}
	}
	return rs.Addresses(of), len(of) > 0
}

// portRanges merges ports. All of them are no condition, as in Azure's "*": also
// protocols without ports are meant.
func portRanges(list []Ports) []rs.Range {
	ranges := make([]rs.Range, len(list))
	for i, p := range list {
		if ranges[i] = ports(p); ranges[i] == rs.AllPorts {
			return nil
		}
	}
	return rs.Merge(ranges)
}

// outbound leads each interface's new packets to the groups that decide about
// them: the interface's own first, then its subnet's.
func (k *compiler) outbound() bool {
	m := rs.Map{Name: outboundMap, Kind: rs.ToVerdict, Fields: fields(rs.InLink)}
	for _, p := range k.ports {
		if chain := k.both("out", p, p.NSG, p.subnet.NSG, false); chain != "" && !p.Platform {
			m.Elements = append(m.Elements, rs.MapElement{Key: []rs.Range{link(p.link)}, Verdict: jump(chain)})
		}
	}
	return k.table.mapping(m)
}

// both is a chain that asks two groups; "" without any.
func (k *compiler) both(prefix string, p *port, first, second string, inbound bool) string {
	if p.Platform || first == "" && second == "" {
		return ""
	}
	name := contentName(prefix, first, second)
	if k.table.has(name) {
		return name
	}
	c := k.table.chain(name)
	for _, id := range slices.Compact([]string{first, second}) {
		if id != "" {
			c.Rules = append(c.Rules, rule("", jump(k.group(id, inbound))))
		}
	}
	return name
}

// inbound is the last chain: the receivers' groups decide, about addresses as
// they arrive. Connections that were let in once aren't asked about again, nor
// what an API server sends.
func (k *compiler) inbound() {
	base := k.table.hooked(rs.Chain{Name: "inbound", Hook: rs.Postrouting, Priority: rs.AfterNAT})
	base.Rules = append(base.Rules, rule("", accept, not(is(rs.State, rs.New))))
	m := rs.Map{Name: inboundMap, Kind: rs.ToVerdict, Fields: fields(rs.OutLink)}
	var platform [][]rs.Range
	for _, p := range k.ports {
		if p.Platform {
			platform = append(platform, []rs.Range{link(p.link)})
			continue
		}
		chain := k.both("in", p, p.subnet.NSG, p.NSG, true)
		if chain == "" {
			chain = k.closed()
		}
		m.Elements = append(m.Elements, rs.MapElement{Key: []rs.Range{link(p.link)}, Verdict: goTo(chain)})
	}
	if len(platform) > 0 {
		k.table.set(platformSet, fields(rs.InLink), platform)
		base.Rules = append(base.Rules, rule("platform/apiServer", accept, in(platformSet, rs.InLink)))
	}
	if k.table.mapping(m) {
		base.Rules = append(base.Rules, rs.Rule{Actions: []rs.Action{dispatch(inboundMap, rs.OutLink)}})
	}
}

// closed is for interfaces without any group: a standard public address is
// closed unless a group opens it.
func (k *compiler) closed() string {
	const name = "closed"
	if !k.table.has(name) {
		c := k.table.chain(name)
		c.Rules = []rs.Rule{
			rule("platform/noNetworkSecurityGroup", drop, via(rs.InLink, RouterLink)),
			rule("platform/noNetworkSecurityGroup", drop, between(rs.Mark, ownFrontEnd, 1<<32-1)),
		}
	}
	return name
}
