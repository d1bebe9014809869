// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"net/netip"

	rs "bastide.dev/ruleset"
)

// CompileEdge makes the edge, and its counterpart in the machine's own
// namespace, from the desired state.
func CompileEdge(instance string, c *Config) EdgeRouter {
	e := EdgeRouter{Table: edgeTable(instance, c), Root: rootTable(instance, c), Addresses: []netip.Addr{EdgeAddress}, RootEnd: RootEnd(instance)}
	routes := []RouterRoute{
		{Prefix: single(c.Edge.FrontDoor), Link: RootLink, Origin: "frontDoor"},
		{Prefix: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Link: RootLink, Via: c.Edge.FrontDoor, Origin: "uplink"},
	}
	for _, pool := range c.Edge.Pools {
		routes = append(routes, RouterRoute{Prefix: pool, Origin: "unusedPublicAddress"})
		e.RootRoutes = append(e.RootRoutes, RouterRoute{Prefix: pool, Link: e.RootEnd, Via: EdgeAddress, Source: c.Edge.FrontDoor})
	}
	for i := range c.VNets {
		v := &c.VNets[i]
		transit := TransitLink(instance, v.ID)
		e.VNets = append(e.VNets, EdgeVNet{ID: v.ID, Link: transit})
		for _, a := range v.PublicAddresses() {
			routes = append(routes, RouterRoute{Prefix: single(a), Link: transit, Via: RouterAddress, Origin: "vnet/" + v.ID})
		}
	}
	if len(c.Edge.Terminals) > 0 {
		e.Addresses = append(e.Addresses, WireServer) // their name server
	}
	for _, t := range c.Edge.Terminals {
		l := TerminalLink(instance, t.ID)
		e.Terminals = append(e.Terminals, EdgeTerminal{ID: t.ID, Namespace: t.Namespace, Link: l, Address: t.Address})
		routes = append(routes, RouterRoute{Prefix: single(t.Address), Link: l, Origin: "terminal/" + t.ID})
	}
	e.Routes = unique(append(routes[2:], routes[:2]...)) // a pool of one address is the address's own route
	return e
}

// edgeTable lets public addresses pass, from where they belong. It asks for no
// connection's state, so that the edge tracks none.
func edgeTable(instance string, c *Config) rs.Table {
	t := newTable(TableName(instance))
	input := t.hooked(rs.Chain{Name: "input", Hook: rs.Input, Priority: rs.Filter, Drop: true})
	var sources [][]rs.Range
	for i := range c.VNets {
		for _, a := range c.VNets[i].PublicAddresses() {
			sources = append(sources, []rs.Range{link(TransitLink(instance, c.VNets[i].ID)), address(a)})
		}
	}
	for _, terminal := range c.Edge.Terminals {
		sources = append(sources, []rs.Range{link(TerminalLink(instance, terminal.ID)), address(terminal.Address)})
	}
	t.set("sources", fields(rs.InLink, rs.Source), sources)
	if len(c.Edge.Terminals) > 0 {
		input.Rules = terminalNames(t, instance, c.Edge.Terminals)
	}
	outside := t.chain("from-machine")
	outside.Rules = []rs.Rule{
		rule("", accept, t.from(single(c.Edge.FrontDoor))),
		rule("platform/spoofedSource", drop, t.from(c.Edge.Pools...)),
		rule("", accept),
	}
	forward := t.hooked(rs.Chain{Name: "forward", Hook: rs.Forward, Priority: rs.Filter})
	forward.Rules = []rs.Rule{
		rule("platform/privateDestination", drop, t.to(Unrouted()...)),
		rule("platform/privateSource", drop, t.from(Unrouted()...)),
		rule("", goTo(outside.Name), via(rs.InLink, RootLink)),
		rule("", accept, in("sources", rs.InLink, rs.Source)),
		rule("platform/spoofedSource", drop),
	}
	return t.finish()
}

// terminalNames lets terminals ask the edge's name server. Its own questions to
// the machine's resolvers are asked in the machine's namespace.
func terminalNames(t *tableWriter, instance string, terminals []Terminal) []rs.Rule {
	const dns = 53
	var links []rs.Range
	for _, terminal := range terminals {
		links = append(links, link(TerminalLink(instance, terminal.ID)))
	}
	t.set("terminals", fields(rs.InLink), rs.Elements(links...))
	from := []rs.Match{in("terminals", rs.InLink), in("sources", rs.InLink, rs.Source), t.to(single(WireServer)), is(rs.DestinationPort, dns)}
	return []rs.Rule{
		rule("platform/dns", accept, append([]rs.Match{is(rs.Protocol, rs.UDP)}, from...)...),
		rule("platform/dns", accept, append([]rs.Match{is(rs.Protocol, rs.TCP)}, from...)...),
	}
}

// rootTable is ours in the machine's own namespace.
func rootTable(instance string, c *Config) rs.Table {
	const echo = 8
	t := newTable(TableName(instance))
	end := RootEnd(instance)
	frontDoor := t.to(single(c.Edge.FrontDoor))
	input := t.hooked(rs.Chain{Name: "input", Hook: rs.Input, Priority: rs.Filter})
	ours := via(rs.InLink, end)
	input.Rules = []rs.Rule{
		rule("", accept, ours, is(rs.State, rs.Established)),
		rule("platform/frontDoor", accept, ours, frontDoor, is(rs.Protocol, rs.TCP), is(rs.DestinationPort, FrontDoorPort)),
		rule("platform/frontDoor", accept, ours, frontDoor, is(rs.ICMPType, echo)),
		rule("platform/machine", drop, ours),
	}
	post := t.hooked(rs.Chain{Name: "postrouting", Hook: rs.Postrouting, NAT: true, Priority: rs.SourceNAT})
	masq := rs.Action{Verb: rs.Masq}
	// A private client's address could be one of a virtual network's too.
	post.Rules = append(post.Rules, rule("", masq, via(rs.OutLink, end), t.from(Unrouted()...)))
	if len(c.Edge.Pools) > 0 {
		post.Rules = append(post.Rules, rule("", masq, not(via(rs.OutLink, end, "lo")), t.from(c.Edge.Pools...)))
	}
	return t.finish()
}
