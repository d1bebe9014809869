// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"cmp"
	"net/netip"
	"slices"
)

// SubnetRoute is a route that a subnet's packets take, as users see it.
type SubnetRoute struct {
	Prefix netip.Prefix
	Hop    Hop        // "" when it leads to a peer
	Via    netip.Addr // of HopAppliance
	Peer   string     // a VNet's ID
	User   string     // the name of the user's route; "": the system's
	// Overridden is one of the system's that gives way to the user's to the same prefix.
	Overridden bool
}

// SubnetRoutes are the routes of a subnet: the same that the router's tables
// are made of, those that gave way, and ranges that lead nowhere unless a
// network has them. The system's come first.
func SubnetRoutes(c *Config, v *VNet, subnet string) []SubnetRoute {
	k := newCompiler("", c, v, nil)
	var table *RouteTable
	s, _ := v.Subnet(subnet)
	for i := range v.RouteTables {
		if v.RouteTables[i].ID == s.RouteTable {
			table = &v.RouteTables[i]
		}
	}
	system := k.systemWays()
	for _, p := range Unrouted() {
		if p != single(WireServer) && !slices.ContainsFunc(system, func(w way) bool { return w.same(p) }) {
			system = append(system, way{prefix: p, hop: HopNone})
		}
	}
	var all []SubnetRoute
	for _, w := range system {
		if !w.prefix.Addr().Is4() {
			continue // the edge has no IPv6
		}
		r := SubnetRoute{Prefix: w.prefix, Hop: w.hop, Via: w.via}
		if w.peer != nil {
			r.Peer = w.peer.VNet
		}
		r.Overridden = table != nil && slices.ContainsFunc(table.Routes, func(u UserRoute) bool { return w.same(u.Prefix.Masked()) })
		all = append(all, r)
	}
	slices.SortStableFunc(all, func(a, b SubnetRoute) int {
		return cmp.Or(cmp.Compare(rankOf(a), rankOf(b)), a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()))
	})
	if table != nil {
		for _, u := range table.Routes {
			all = append(all, SubnetRoute{Prefix: u.Prefix.Masked(), Hop: u.Hop, Via: u.Via, User: u.Name})
		}
	}
	return all
}

// rankOf has what is inside first, then peers, the Internet and what leads nowhere.
func rankOf(r SubnetRoute) int {
	switch {
	case r.Hop == HopLocal:
		return 0
	case r.Peer != "":
		return 1
	case r.Hop == HopNone:
		return 3
	}
	return 2
}
