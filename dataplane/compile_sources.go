// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"maps"
	"net/netip"
	"slices"

	rs "bastide.dev/ruleset"
)

// Unrouted are the ranges that mean nothing outside a virtual network. As on
// Azure, what is sent there without a network that has it, goes nowhere: not
// to another network, not to the machine's own surroundings.
func Unrouted() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"),
		netip.MustParsePrefix("127.0.0.0/8"), single(WireServer), netip.MustParsePrefix("169.254.0.0/16"),
		netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("224.0.0.0/3"),
	}
}

// platform are the addresses that only the router itself may send from.
func (k *compiler) platform() []netip.Prefix {
	all := []netip.Prefix{single(WireServer), netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("127.0.0.0/8")}
	for _, s := range k.v.Subnets {
		all = append(all, single(s.Gateway()))
	}
	return all
}

// Names of the sets and maps that more than one part uses.
const (
	ownSet       = "own"       // link and source: the interface's addresses
	ledSet       = "led"       // link and connection's mark: those that are the interface's
	frontSet     = "fronts"    // every address that is a front end
	detouredSet  = "detoured"  // mark and destination: front ends that a route table leads past
	platformSet  = "platforms" // links of API servers
	outboundMap  = "outbound"  // link → the groups that its packets pass
	inboundMap   = "inbound"
	leavingMap   = "leaving"
	egressMap    = "egress"
	ownPublicMap = "own-public" // an interface's address → its public one
)

// prerouting is the first chain after connection tracking. Whoever the packet
// comes from, its source is checked before anything is decided by it. Here is
// also where senders' groups decide: before translation, so that they see the
// address that the sender wrote, as on Azure.
func (k *compiler) prerouting() {
	t := k.table
	base := t.hooked(rs.Chain{Name: "prerouting", Hook: rs.Prerouting, Priority: rs.Mangle})
	links := rs.Map{Name: "links", Kind: rs.ToVerdict, Fields: fields(rs.InLink)}
	add := func(l string, a rs.Action) {
		links.Elements = append(links.Elements, rs.MapElement{Key: []rs.Range{link(l)}, Verdict: a})
	}
	add("lo", accept)
	add(RouterLink, goTo(k.fromEdge()))
	fromNIC, fromForwarder := k.fromNIC(), k.fromForwarder()
	for _, p := range k.ports {
		if p.Forwarding {
			add(p.link, goTo(fromForwarder))
		} else {
			add(p.link, goTo(fromNIC))
		}
	}
	for _, p := range k.peers {
		add(p.link, goTo(k.fromPeer(p)))
	}
	t.mapping(links)
	base.Rules = []rs.Rule{
		{Actions: []rs.Action{dispatch("links", rs.InLink)}},
		rule("platform/unknownInterface", drop),
	}
	k.checked()
}

// fromNIC lets an interface send from its own addresses, and answer from the
// front ends of connections that were led to it: also of a balancer that it has
// left since, for its connections stay.
func (k *compiler) fromNIC() string {
	var own, led [][]rs.Range
	for _, p := range k.ports {
		for _, r := range rs.Addresses(p.own) {
			own = append(own, []rs.Range{link(p.link), r})
		}
		if !p.Platform { // an API server is no back end
			led = append(led, []rs.Range{link(p.link), number(p.mark, p.mark)}, []rs.Range{link(p.link), number(ownFrontEnd|p.mark, ownFrontEnd|p.mark)})
		}
	}
	var floating []netip.Prefix
	for i := range k.v.Balancers {
		if b := &k.v.Balancers[i]; b.Floating {
			floating = append(floating, single(b.Address))
		}
	}
	k.table.set(ownSet, fields(rs.InLink, rs.Source), own)
	c := k.table.chain("from-nic")
	c.Rules = append(c.Rules, rule("", goTo("checked"), in(ownSet, rs.InLink, rs.Source)))
	if len(floating) > 0 {
		k.table.set(ledSet, fields(rs.InLink, rs.ConnMark), led)
		c.Rules = append(c.Rules, rule("", goTo("checked"), is(rs.Reply, 1), in(ledSet, rs.InLink, rs.ConnMark), k.table.from(floating...)))
	}
	c.Rules = append(c.Rules, rule("platform/spoofedSource", drop))
	return c.Name
}

// fromForwarder lets an interface with Forwarding send from any address but the
// platform's.
func (k *compiler) fromForwarder() string {
	c := k.table.chain("from-forwarder")
	c.Rules = []rs.Rule{
		rule("platform/spoofedSource", drop, k.table.from(k.platform()...)),
		rule("", goTo("checked")),
	}
	return c.Name
}

func (k *compiler) fromEdge() string {
	c := k.table.chain("from-edge")
	c.Rules = []rs.Rule{
		rule("platform/privateSource", drop, k.table.from(Unrouted()...)),
		rule("", goTo("checked")),
	}
	return c.Name
}

// fromPeer lets a peer send from its own prefixes, or, when it may forward,
// from any but the platform's. Its route tables may lead through an appliance
// in this network: nobody here but this chain knows.
func (k *compiler) fromPeer(p *peer) string {
	c := k.table.chain("from-" + p.link)
	c.Rules = append(c.Rules, rule("platform/spoofedSource", drop, k.table.from(k.platform()...)))
	if !p.Forwarded {
		c.Rules = append(c.Rules, rule(p.Origin+"/forwardedTraffic", drop, not(k.table.from(p.Prefixes...))))
	}
	if through := k.appliances(p); len(through) > 0 {
		name := "through-" + p.link
		k.table.mapping(rs.Map{Name: name, Kind: rs.ToMark, Fields: fields(rs.Source, rs.Destination), Elements: through})
		c.Rules = append(c.Rules,
			rs.Rule{Actions: []rs.Action{{Verb: rs.SetMark, Map: name, Fields: fields(rs.Source, rs.Destination)}}},
			rule("", accept, not(is(rs.State, rs.Invalid)), between(rs.Mark, 1, backendBits)))
	}
	c.Rules = append(c.Rules, rule("", goTo("checked")))
	return c.Name
}

// checked goes on with a packet whose source is what it should be.
func (k *compiler) checked() {
	c := k.table.chain("checked")
	c.Rules = append(c.Rules, rule("", goTo("invalid"), is(rs.State, rs.Invalid)))
	if k.markTables() {
		c.Rules = append(c.Rules, rs.Rule{Actions: []rs.Action{{Verb: rs.SetMark, Map: "tables", Fields: fields(rs.InLink)}}})
	}
	c.Rules = append(c.Rules, rule("", accept, is(rs.Reply, 1)))
	if k.outbound() {
		c.Rules = append(c.Rules, rs.Rule{Matches: []rs.Match{is(rs.State, rs.New), not(is(rs.Type, rs.Local))},
			Actions: []rs.Action{dispatch(outboundMap, rs.InLink)}})
	}
	if detoured := k.detoured(); len(detoured) > 0 {
		k.table.set(detouredSet, fields(rs.Mark, rs.Destination), detoured)
		c.Rules = append(c.Rules, rule("", accept, in(detouredSet, rs.Mark, rs.Destination)))
	}
	c.Rules = append(c.Rules, k.toFronts()...)
	c.Rules = append(c.Rules, rule("", accept))
	k.invalid()
}

// markTables marks packets with the route table of the subnet they come from.
func (k *compiler) markTables() bool {
	m := rs.Map{Name: "tables", Kind: rs.ToMark, Fields: fields(rs.InLink)}
	for _, t := range k.tables {
		for _, p := range t.ports {
			m.Elements = append(m.Elements, rs.MapElement{Key: []rs.Range{link(p.link)}, Mark: t.mark()})
		}
	}
	return k.table.mapping(m)
}

// invalid refuses what belongs to no connection, with a reset where a balancer
// promises one: to a client, and to a back end that goes on after the end. A
// floating back end isn't told: what is sent to a front end from here has no mark
// that leads to it, so that its own timeouts end the connection there.
func (k *compiler) invalid() {
	var fronts []netip.Prefix
	var ends [][]rs.Range
	for i := range k.v.Balancers {
		b := &k.v.Balancers[i]
		if !b.Reset {
			continue
		}
		fronts = append(fronts, single(b.Address))
		for _, id := range b.Backends {
			if p := k.nics[id]; p != nil && !b.Floating && b.BackendPort != 0 {
				ends = append(ends, []rs.Range{address(p.Address), number(uint32(b.BackendPort), uint32(b.BackendPort))})
			}
		}
	}
	c := k.table.chain("invalid")
	tcp := is(rs.Protocol, rs.TCP)
	if len(fronts) > 0 {
		c.Rules = append(c.Rules, rule("platform/idleReset", reject, tcp, k.table.to(fronts...)))
	}
	if len(ends) > 0 {
		k.table.set("reset-ends", fields(rs.Source, rs.SourcePort), ends)
		c.Rules = append(c.Rules, rule("platform/idleReset", reject, tcp, in("reset-ends", rs.Source, rs.SourcePort)))
	}
	c.Rules = append(c.Rules, k.egressResets()...)
	c.Rules = append(c.Rules, rule("platform/invalid", drop))
}

// egressResets end connections that left by an egress with Reset: towards the
// interface that goes on sending outside, and towards whoever outside sends to
// a port that is the interface's.
func (k *compiler) egressResets() []rs.Rule {
	var leaving [][]rs.Range
	ports := map[netip.Addr][]rs.Range{}
	for _, p := range k.ports {
		for i, e := range p.Egress {
			if !e.Reset {
				continue
			}
			if !slices.ContainsFunc(p.Egress[:i], func(e Egress) bool { return e.Reset }) {
				leaving = append(leaving, []rs.Range{link(p.link)})
			}
			of := rs.AllPorts
			if e.First != 0 {
				of = number(uint32(e.First), uint32(e.Last))
			}
			ports[e.Address] = append(ports[e.Address], of)
		}
	}
	if len(leaving) == 0 {
		return nil
	}
	var returning [][]rs.Range
	for _, a := range slices.SortedFunc(maps.Keys(ports), netip.Addr.Compare) {
		for _, r := range rs.Merge(ports[a]) {
			returning = append(returning, []rs.Range{address(a), r})
		}
	}
	inside := slices.Concat(Unrouted(), k.v.Prefixes)
	for _, p := range k.peers {
		inside = append(inside, p.Prefixes...)
	}
	k.table.set("reset-leaving", fields(rs.InLink), leaving)
	k.table.set("reset-returning", fields(rs.Destination, rs.DestinationPort), returning)
	tcp := is(rs.Protocol, rs.TCP)
	return []rs.Rule{
		rule("platform/idleReset", reject, tcp, in("reset-leaving", rs.InLink), not(k.table.to(inside...))),
		rule("platform/idleReset", reject, tcp, via(rs.InLink, RouterLink), in("reset-returning", rs.Destination, rs.DestinationPort)),
	}
}
