// SPDX-License-Identifier: Apache-2.0

package netpolicy

import (
	"slices"

	"bastide.dev/ruleset"
)

// portMatch is what a rule says of ports: a protocol with its ranges (none:
// all of it), and the names that each destination has its own numbers for.
type portMatch struct {
	protocol uint8
	all      bool
	ranges   []ruleset.Range
	names    []string
}

// portsMatch is all that a rule says of ports; any is a rule that says nothing.
type portsMatch struct {
	any  bool
	list []*portMatch // one for each protocol
}

func (m *portsMatch) of(protocol uint8) *portMatch {
	for _, p := range m.list {
		if p.protocol == protocol {
			return p
		}
	}
	p := &portMatch{protocol: protocol}
	m.list = append(m.list, p)
	return p
}

func protocolOf(name string) (uint8, bool) {
	switch name {
	case "", "TCP":
		return ruleset.TCP, true
	case "UDP":
		return ruleset.UDP, true
	case "SCTP":
		return ruleset.SCTP, true
	}
	return 0, false
}

// ports reads the ports of a network policy's rule for a pod.
func (c *compiler) ports(p *Pod, d *direction, ports []Port) portsMatch {
	m := portsMatch{any: len(ports) == 0}
	for _, port := range ports {
		protocol, ok := protocolOf(port.Protocol)
		if !ok {
			continue // allows nothing that is known here
		}
		of := m.of(protocol)
		switch {
		case port.Port == nil:
			of.all = true
		case port.Port.Name != "":
			of.name(p, d, port.Port.Name)
		case port.EndPort != nil:
			of.numbers(port.Port.Number, *port.EndPort)
		default:
			of.numbers(port.Port.Number, port.Port.Number)
		}
	}
	return m
}

// clusterPorts reads the protocols of a cluster-wide rule; false: one of them
// isn't known here.
func (c *compiler) clusterPorts(p *Pod, d *direction, protocols []ClusterProtocol) (portsMatch, bool) {
	m := portsMatch{any: len(protocols) == 0}
	for _, one := range protocols {
		switch {
		case one.NamedPort != "":
			for _, protocol := range []uint8{ruleset.TCP, ruleset.UDP, ruleset.SCTP} {
				m.of(protocol).name(p, d, one.NamedPort)
			}
		case one.TCP != nil:
			m.of(ruleset.TCP).cluster(one.TCP)
		case one.UDP != nil:
			m.of(ruleset.UDP).cluster(one.UDP)
		case one.SCTP != nil:
			m.of(ruleset.SCTP).cluster(one.SCTP)
		default:
			return m, false
		}
	}
	return m, true
}

func (m *portMatch) cluster(p *ClusterPorts) {
	switch port := p.DestinationPort; {
	case port == nil:
		m.all = true
	case port.Range != nil:
		m.numbers(port.Range.Start, port.Range.End)
	default:
		m.numbers(port.Number, port.Number)
	}
}

func (m *portMatch) numbers(first, last int32) {
	if first < 0 || last > 65535 || first > last {
		return
	}
	m.ranges = append(m.ranges, ruleset.Between(ruleset.Number(int(first)), ruleset.Number(int(last))))
}

// name: a pod that packets come to says itself what number the name has; of
// packets that go, each destination does.
func (m *portMatch) name(p *Pod, d *direction, name string) {
	if d == egress {
		if !slices.Contains(m.names, name) {
			m.names = append(m.names, name)
		}
		return
	}
	for _, port := range p.Ports {
		if protocol, ok := protocolOf(port.Protocol); ok && protocol == m.protocol && port.Name == name {
			m.numbers(int32(port.Port), int32(port.Port))
		}
	}
}

// fewRanges is how many a rule compares one by one.
const fewRanges = 3

// allow is the rules that do action to packets between a pod and a peer.
func (c *compiler) allow(d *direction, origin string, who peerSet, ports portsMatch, action ruleset.Action) []ruleset.Rule {
	var rules []ruleset.Rule
	add := func(matches []ruleset.Match) {
		rules = append(rules, ruleset.Rule{Origin: clip(origin), Count: true, Matches: matches, Actions: []ruleset.Action{action}})
	}
	for _, port := range c.portMatches(ports) {
		if who.any {
			add(port)
			continue
		}
		for _, f := range sortedKeys(who.sets) {
			add(append(slices.Clone(port), in(who.sets[f], d.peer)))
		}
	}
	for _, m := range ports.list {
		if m.all {
			continue
		}
		for _, name := range m.names {
			for _, set := range c.namedPorts(who, m.protocol, name) {
				add([]ruleset.Match{number(ruleset.Protocol, int(m.protocol)), in(set, ruleset.Destination, ruleset.DestinationPort)})
			}
		}
	}
	return rules
}

// portMatches is what to compare of ports, an alternative each.
func (c *compiler) portMatches(ports portsMatch) [][]ruleset.Match {
	if ports.any {
		return [][]ruleset.Match{nil}
	}
	var found [][]ruleset.Match
	for _, m := range ports.list {
		protocol := number(ruleset.Protocol, int(m.protocol))
		ranges := ruleset.Merge(m.ranges)
		switch {
		case m.all:
			found = append(found, []ruleset.Match{protocol})
		case len(ranges) == 0:
		case len(ranges) <= fewRanges:
			found = append(found, []ruleset.Match{protocol, {Fields: []ruleset.Field{ruleset.DestinationPort}, Ranges: ranges}})
		default:
			set := ruleset.Set{Name: "ports-" + digest(ranges), Fields: []ruleset.Field{ruleset.DestinationPort}, Elements: ruleset.Elements(ranges...)}
			c.addSet(set)
			found = append(found, []ruleset.Match{protocol, in(set.Name, ruleset.DestinationPort)})
		}
	}
	return found
}

// namedPorts is sets of the addresses of a peer's pods that name a port, each
// with its number.
func (c *compiler) namedPorts(who peerSet, protocol uint8, name string) []string {
	id := digest([]any{who.id, protocol, name})
	if names, ok := c.named[id]; ok {
		return names
	}
	byFamily := map[string][][]ruleset.Range{"4": nil}
	for _, m := range who.pods() {
		for _, port := range m.Ports {
			if p, ok := protocolOf(port.Protocol); !ok || p != protocol || port.Name != name {
				continue
			}
			for _, a := range m.addresses {
				k := key(ruleset.Addr(a), ruleset.Number(port.Port))
				same := func(other []ruleset.Range) bool { return slices.Equal(k, other) }
				if !slices.ContainsFunc(byFamily[family(a)], same) {
					byFamily[family(a)] = append(byFamily[family(a)], k)
				}
			}
		}
	}
	var names []string
	for _, f := range sortedKeys(byFamily) { // that of IPv4 is always there, as peers' sets are
		set := ruleset.Set{Name: "named-" + id + "-" + f,
			Fields: []ruleset.Field{ruleset.Destination, ruleset.DestinationPort}, Elements: byFamily[f]}
		c.addSet(set)
		names = append(names, set.Name)
	}
	c.named[id] = names
	return names
}
