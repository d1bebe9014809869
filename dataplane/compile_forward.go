// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"fmt"
	"net/netip"

	rs "bastide.dev/ruleset"
)

// input is what reaches the router itself: names, the metadata address, and echo requests.
func (k *compiler) input() {
	const dns, echo = 53, 8
	server := k.table.to(single(WireServer))
	base := k.table.hooked(rs.Chain{Name: "input", Hook: rs.Input, Priority: rs.Filter, Drop: true})
	base.Rules = []rs.Rule{
		rule("", accept, is(rs.State, rs.Established)),
		rule("platform/router", drop, via(rs.InLink, RouterLink)),
		rule("platform/dns", accept, server, is(rs.Protocol, rs.UDP), is(rs.DestinationPort, dns)),
		rule("platform/dns", accept, server, is(rs.Protocol, rs.TCP), is(rs.DestinationPort, dns)),
		k.metadata(),
		rule("platform/gateway", accept, is(rs.ICMPType, echo)),
		rule("platform/router", drop),
	}
}

// forward decides about ways: who may go where at all. (Groups decide in
// prerouting and inbound.)
func (k *compiler) forward() {
	base := k.table.hooked(rs.Chain{Name: "forward", Hook: rs.Forward, Priority: rs.Filter})
	base.Rules = append(base.Rules, rule("", accept, is(rs.State, rs.Established)))
	ways := rs.Map{Name: "ways", Kind: rs.ToVerdict, Fields: fields(rs.InLink)}
	ways.Elements = append(ways.Elements, rs.MapElement{Key: []rs.Range{link(RouterLink)}, Verdict: goTo(k.wayIn())})
	for _, p := range k.peers {
		ways.Elements = append(ways.Elements, rs.MapElement{Key: []rs.Range{link(p.link)}, Verdict: goTo(k.wayFrom(p))})
	}
	k.table.mapping(ways)
	leave := k.wayOut()
	base.Rules = append(base.Rules,
		rs.Rule{Actions: []rs.Action{dispatch("ways", rs.InLink)}},
		rule("", goTo(leave), via(rs.OutLink, RouterLink)),
		rule("", goTo("egress-needed"), between(rs.Mark, ownFrontEnd, 1<<32-1)))
}

// wayIn is from the edge: to what a public address leads to, nothing else.
func (k *compiler) wayIn() string {
	c := k.table.chain("way-in")
	c.Rules = append(c.Rules, rule("", accept, between(rs.Mark, 1, backendBits)))
	if idle := k.ownIdle("idle-in", rs.Destination, (*Public).oneToOne); k.table.mapping(idle) {
		c.Rules = append(c.Rules, rs.Rule{Matches: []rs.Match{is(rs.Translated, 1)}, Actions: []rs.Action{dispatch(idle.Name, idle.Fields...)}})
	}
	c.Rules = append(c.Rules, rule("", accept, is(rs.Translated, 1)), rule("platform/notPublic", drop))
	return c.Name
}

// wayFrom is from a peer: to this network's interfaces, when it has access.
// Peering leads no further.
func (k *compiler) wayFrom(p *peer) string {
	c := k.table.chain("way-" + p.link)
	if !p.Access {
		c.Rules = []rs.Rule{rule(p.Origin+"/virtualNetworkAccess", drop)}
		return c.Name
	}
	onward := []string{RouterLink}
	for _, other := range k.peers {
		onward = append(onward, other.link)
	}
	c.Rules = []rs.Rule{rule(p.Origin+"/notTransitive", drop, via(rs.OutLink, onward...)), rule("", accept)}
	return c.Name
}

// wayOut is to the edge: from interfaces with a public address to leave by.
func (k *compiler) wayOut() string {
	c := k.table.chain("way-out")
	c.Rules = []rs.Rule{
		rule("platform/privateDestination", drop, k.table.to(Unrouted()...)),
		rule("platform/notOwnSource", drop, not(in(ownSet, rs.InLink, rs.Source))),
		rule("", goTo("egress-needed")),
	}
	needed := k.table.chain("egress-needed")
	leaving := rs.Map{Name: leavingMap, Kind: rs.ToVerdict, Fields: fields(rs.InLink)}
	for _, p := range k.ports {
		if len(p.Egress) > 0 {
			leaving.Elements = append(leaving.Elements, rs.MapElement{Key: []rs.Range{link(p.link)}, Verdict: k.idle(p.Egress[0].Idle)})
		}
	}
	var own []netip.Prefix
	for i := range k.v.Public {
		if p := &k.v.Public[i]; k.leavesBy(p) {
			own = append(own, single(p.Target))
		}
	}
	if idle := k.ownIdle("idle-out", rs.Source, k.leavesBy); k.table.mapping(idle) {
		needed.Rules = append(needed.Rules, rs.Rule{Actions: []rs.Action{dispatch(idle.Name, idle.Fields...)}})
	}
	if len(own) > 0 {
		needed.Rules = append(needed.Rules, rule("", accept, k.table.from(own...)))
	}
	if k.table.mapping(leaving) {
		needed.Rules = append(needed.Rules, rs.Rule{Actions: []rs.Action{dispatch(leavingMap, rs.InLink)}})
	}
	needed.Rules = append(needed.Rules, rule("platform/noOutbound", drop))
	return c.Name
}

// ownIdle leads from interfaces that have a public address of their own, with
// a life of silent connections, to where they get it.
func (k *compiler) ownIdle(name string, by rs.Field, holds func(*Public) bool) rs.Map {
	m := rs.Map{Name: name, Kind: rs.ToVerdict, Fields: fields(by)}
	for i := range k.v.Public {
		if p := &k.v.Public[i]; p.Idle > 0 && holds(p) {
			m.Elements = append(m.Elements, rs.MapElement{Key: []rs.Range{address(p.Target)}, Verdict: k.idle(p.Idle)})
		}
	}
	return m
}

// idle accepts, and gives the connection a life of so many seconds of silence.
func (k *compiler) idle(seconds uint32) rs.Action {
	if seconds == 0 {
		return accept
	}
	name := fmt.Sprintf("idle-%d", seconds)
	if !k.table.has(name) {
		c := k.table.chain(name)
		c.Rules = []rs.Rule{idleRule(seconds), rule("", accept)}
	}
	return goTo(name)
}

// idleRule gives a new TCP connection its life.
func idleRule(seconds uint32) rs.Rule {
	return rs.Rule{Matches: []rs.Match{is(rs.State, rs.New), is(rs.Protocol, rs.TCP)}, Actions: []rs.Action{{Verb: rs.Timeout, Seconds: seconds}}}
}
