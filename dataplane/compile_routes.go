// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"cmp"
	"net/netip"
	"slices"

	rs "bastide.dev/ruleset"
)

// userTable is a route table that a subnet of the network has.
type userTable struct {
	*RouteTable
	number uint32
	ports  []*port // whose packets it routes
}

// mark is that of the packets from the table's subnets.
func (t *userTable) mark() uint32 { return t.number << tableShift }

func (k *compiler) userTables() []*userTable {
	byID := map[string]*userTable{}
	for i := range k.v.RouteTables {
		t := &k.v.RouteTables[i]
		for _, p := range k.ports {
			id, routes := t.ID, t
			switch {
			case p.subnet.RouteTable != t.ID:
				continue
			case p.Platform:
				id, routes = t.ID+"/platform", inside(t)
			}
			if byID[id] == nil {
				byID[id] = &userTable{RouteTable: routes}
			}
			byID[id].ports = append(byID[id].ports, p)
		}
	}
	var all []*userTable
	for id, number := range numbers(sortedKeys(byID), lastTable) {
		byID[id].number = number
		all = append(all, byID[id])
	}
	slices.SortFunc(all, func(a, b *userTable) int { return cmp.Compare(a.number, b.number) })
	return all
}

// inside is a table as API servers have it: its routes in private ranges, where
// pods and other networks are. Outside are the API server's clients, whose
// answers must not go through a user's firewall that never saw their questions.
func inside(t *RouteTable) *RouteTable {
	private := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"),
		netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("100.64.0.0/10")}
	kept := &RouteTable{ID: t.ID}
	for _, r := range t.Routes {
		if within(r.Prefix, private) {
			kept.Routes = append(kept.Routes, r)
		}
	}
	return kept
}

// way is a route as users see it: to a prefix, by what.
type way struct {
	prefix netip.Prefix
	hop    Hop
	via    netip.Addr // of HopAppliance
	peer   *peer      // instead of a hop
	origin string
}

func (w *way) same(p netip.Prefix) bool { return w.prefix == p }

// ways are the routes of a subnet with a route table, the longest prefix
// first: the system's, and the user's in their place.
func (k *compiler) ways(t *RouteTable) []way {
	all := k.systemWays()
	if t != nil {
		for _, r := range t.Routes {
			origin := "routeTables/" + t.ID + "/routes/" + r.Name
			all = slices.DeleteFunc(all, func(w way) bool { return w.same(r.Prefix.Masked()) && w.origin != origin })
			all = append(all, way{prefix: r.Prefix.Masked(), hop: r.Hop, via: r.Via, origin: origin})
		}
	}
	slices.SortStableFunc(all, func(a, b way) int {
		return cmp.Or(cmp.Compare(b.prefix.Bits(), a.prefix.Bits()), a.prefix.Addr().Compare(b.prefix.Addr()))
	})
	return all
}

// systemWays are the routes that each subnet has by itself. An overlay's pod
// ranges are among them: no address of the network leads there.
func (k *compiler) systemWays() []way {
	all := []way{
		{prefix: netip.PrefixFrom(netip.IPv4Unspecified(), 0), hop: HopInternet, origin: "system"},
		{prefix: netip.PrefixFrom(netip.IPv6Unspecified(), 0), hop: HopInternet, origin: "system"},
	}
	for _, p := range k.v.Prefixes {
		all = append(all, way{prefix: p.Masked(), hop: HopLocal, origin: "system"})
	}
	for _, p := range k.peers {
		for _, prefix := range p.Prefixes {
			all = append(all, way{prefix: prefix.Masked(), peer: p, origin: p.Origin})
		}
	}
	for _, p := range k.ports {
		for _, pods := range p.Pods {
			if !within(pods, k.v.Prefixes) {
				all = append(all, way{prefix: pods.Masked(), hop: HopLocal, origin: "system"})
			}
		}
	}
	for _, r := range k.v.Routes {
		all = append(all, way{prefix: r.Prefix.Masked(), hop: HopAppliance, via: r.Via, origin: "system"})
	}
	return all
}

// wayTo is the one of ways, the longest first, that all of a prefix takes.
func wayTo(ways []way, p netip.Prefix) *way {
	for i := range ways {
		if w := &ways[i]; w.prefix.Bits() <= p.Bits() && w.prefix.Contains(p.Addr()) {
			return w
		}
	}
	return nil
}

// routes are those of the main table and of each table that a mark leads to.
func (k *compiler) routes() []RouterRoute {
	routes := append(k.tableRoutes(0, nil), k.frontRoutes()...)
	for _, t := range k.tables {
		routes = append(routes, k.tableRoutes(tableOfUsers+t.number, t.RouteTable)...)
	}
	for _, id := range sortedKeys(k.hops) {
		p := k.nics[id]
		routes = append(routes, RouterRoute{Table: tableOfHop + p.mark, Prefix: netip.PrefixFrom(unspecified(p.Address), 0),
			Link: p.link, Via: p.Address, Origin: "system"})
	}
	return unique(routes)
}

func unspecified(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// tableRoutes are a table's: each way, and where it is to the network itself,
// the interfaces behind it. Addresses that nobody has lead nowhere, and so do
// the network's public addresses: what isn't translated would go to the edge
// and come back.
func (k *compiler) tableRoutes(table uint32, user *RouteTable) []RouterRoute {
	ways := k.ways(user)
	var routes []RouterRoute
	add := func(r RouterRoute) {
		r.Table = table
		routes = append(routes, r)
	}
	for i := range ways {
		if r, ok := k.byWay(&ways[i]); ok {
			add(r)
		}
	}
	for _, a := range k.publics {
		if w := wayTo(ways, single(a)); w != nil && w.hop == HopInternet {
			add(RouterRoute{Prefix: single(a), Origin: "platform/notPublic"})
		}
	}
	for _, p := range k.ports {
		if w := wayTo(ways, single(p.Address)); w != nil && w.hop == HopLocal {
			add(RouterRoute{Prefix: single(p.Address), Link: p.link, Origin: w.origin})
		}
		for _, pods := range p.Pods {
			if w := wayTo(ways, pods); w != nil && w.hop == HopLocal {
				add(RouterRoute{Prefix: pods.Masked(), Link: p.link, Via: p.Address, Origin: w.origin})
			}
		}
	}
	return routes
}

// byWay is the kernel's route for a way.
func (k *compiler) byWay(w *way) (RouterRoute, bool) {
	r := RouterRoute{Prefix: w.prefix, Origin: w.origin}
	switch {
	case w.peer != nil:
		r.Link, r.Via = w.peer.link, PeerGateway
	case w.hop == HopInternet:
		if !w.prefix.Addr().Is4() {
			return r, false // the edge has no IPv6
		}
		r.Link, r.Via = RouterLink, EdgeAddress
	case w.hop == HopAppliance:
		k.byAppliance(w, &r)
	}
	return r, true // no link: a black hole, as for None, and what in the network nobody has
}

// byAppliance leads to the interface that a way's address means, here or in a
// peered network, whose router knows which one it is. Nobody there, or nobody
// who may take what isn't its own: a black hole.
func (k *compiler) byAppliance(w *way, r *RouterRoute) {
	if p := k.appliance(w.via); p != nil {
		if p.Forwarding || w.origin == "system" {
			r.Link, r.Via = p.link, p.Address
		} else {
			r.Origin += "/noForwarding"
		}
		return
	}
	for _, p := range k.peers {
		if within(single(w.via), p.Prefixes) && stands(p.other, w.via) {
			r.Link, r.Via = p.link, PeerGateway
		}
	}
}

// appliance is the interface with an address, or the first that answers for a
// balancer of all ports with it.
func (k *compiler) appliance(a netip.Addr) *port {
	if p := k.owners[a]; p != nil {
		return p
	}
	for i := range k.v.Balancers {
		if b := &k.v.Balancers[i]; b.Address == a && b.whole() {
			if answering := k.answering(b); len(answering) > 0 {
				return answering[0]
			}
		}
	}
	return nil
}

// stands tells whether an address of a network is somebody's.
func stands(v *VNet, a netip.Addr) bool {
	return slices.ContainsFunc(v.NICs, func(n NIC) bool { return n.Address == a }) ||
		slices.ContainsFunc(v.Balancers, func(b Balancer) bool { return b.Address == a })
}

// frontRoutes make the router answer for internal front ends when a neighbour
// asks who has them. No packet takes these routes: the rules come first.
func (k *compiler) frontRoutes() []RouterRoute {
	var routes []RouterRoute
	for i := range k.v.Balancers {
		if b := &k.v.Balancers[i]; k.internal(b.Address) {
			routes = append(routes, RouterRoute{Prefix: single(b.Address), Link: RouterLink, Via: EdgeAddress, Origin: b.Origin})
		}
	}
	return routes
}

// unique keeps the last route to each prefix of a table, in order.
func unique(routes []RouterRoute) []RouterRoute {
	slices.SortStableFunc(routes, func(a, b RouterRoute) int {
		return cmp.Or(cmp.Compare(a.Table, b.Table), a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()))
	})
	var kept []RouterRoute
	for _, r := range routes {
		if n := len(kept); n > 0 && kept[n-1].Table == r.Table && kept[n-1].Prefix == r.Prefix {
			kept[n-1] = r
			continue
		}
		kept = append(kept, r)
	}
	return kept
}

// selectors ask main at once for what has no mark, so that only marked packets
// pay for the others.
func (k *compiler) selectors() []Selector {
	if len(k.hops) == 0 && len(k.tables) == 0 {
		return nil
	}
	all := []Selector{{Mark: 0, Mask: 1<<32 - 1, Table: 0}}
	for _, t := range k.tables {
		all = append(all, Selector{Mark: t.mark(), Mask: 1<<32 - 1, Table: tableOfUsers + t.number})
	}
	for _, id := range sortedKeys(k.hops) {
		all = append(all, Selector{Mark: k.hops[id], Mask: backendBits, Table: tableOfHop + k.hops[id]})
	}
	for i := range all {
		all[i].Priority = i + 1
	}
	return all
}

// detoured are the front ends and own public addresses that a route table
// leads elsewhere: they aren't answered at once, but by who gets the packet.
func (k *compiler) detoured() [][]rs.Range {
	addresses := slices.Clone(k.publics)
	for i := range k.v.Balancers {
		addresses = append(addresses, k.v.Balancers[i].Address)
	}
	var all [][]rs.Range
	for _, t := range k.tables {
		ways := k.ways(t.RouteTable)
		for _, a := range addresses {
			if w := wayTo(ways, single(a)); w != nil && w.hop != HopInternet && w.hop != HopLocal {
				all = append(all, []rs.Range{number(t.mark(), t.mark()), address(a)})
			}
		}
	}
	return all
}

// appliances are what a peer's route tables lead through an appliance in this
// network: sources and destinations, and the mark that leads to it.
func (k *compiler) appliances(p *peer) []rs.MapElement {
	var all []rs.MapElement
	for _, s := range p.other.Subnets {
		at := slices.IndexFunc(p.other.RouteTables, func(t RouteTable) bool { return t.ID == s.RouteTable })
		if s.RouteTable == "" || at < 0 {
			continue
		}
		theirs := &compiler{instance: k.instance, v: p.other, nics: map[string]*port{}}
		sources := []netip.Prefix{s.Prefix}
		for i := range p.other.NICs {
			nic := &p.other.NICs[i]
			theirs.ports = append(theirs.ports, &port{NIC: nic})
			if nic.Subnet == s.Name {
				sources = append(sources, nic.Pods...)
			}
		}
		theirs.peers = theirPeers(p.other)
		for _, to := range k.throughHere(theirs.ways(&p.other.RouteTables[at])) {
			for _, from := range rs.Addresses(sources) {
				all = append(all, rs.MapElement{Key: []rs.Range{from, to.span}, Mark: to.mark})
			}
		}
	}
	return all
}

// theirPeers are a peer's own peers, as far as routes need them.
func theirPeers(v *VNet) []*peer {
	all := make([]*peer, len(v.Peers))
	for i := range v.Peers {
		all[i] = &peer{Peer: v.Peers[i]}
	}
	return all
}

// through is a range that goes through an appliance.
type through struct {
	span rs.Range
	mark uint32
}

// throughHere are the parts of each way by an appliance of this network that
// no longer prefix takes away.
func (k *compiler) throughHere(ways []way) []through {
	var all []through
	var longer []rs.Range
	for i := range ways {
		w := &ways[i]
		span := []rs.Range{rs.Prefix(w.prefix)}
		if p := k.appliance(w.via); p != nil && w.hop == HopAppliance && p.Forwarding {
			for _, rest := range rs.Without(span, longer) {
				all = append(all, through{rest, k.hop(p)})
			}
		}
		longer = append(longer, span...)
	}
	return all
}
