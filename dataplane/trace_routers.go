// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"net/netip"
	"slices"

	rs "bastide.dev/ruleset"
)

// atRouter is a packet in a network's router, from a link, or, without one,
// from the router itself.
func (w *walk) atRouter(id, in string) error {
	r, where := w.router(id), "vnet/"+id
	p := &w.packet
	now := pass{router: id, in: in, ends: w.ends(), proto: p.Protocol}
	table := &r.Table
	p.InLink, p.OutLink, p.Mark, p.ConnMark, p.Translated = in, "", 0, 0, false
	if known, again := w.seen[now.tuple()]; again {
		// A connection's translations are settled when it first passes.
		p.ConnMark, table = known, untranslating(table)
	}
	p.Local = slices.Contains(r.Addresses, p.Destination)
	first := rs.Prerouting
	if in == "" {
		first = rs.Output
	}
	if ok, err := w.hook(where, table, first); !ok {
		return err
	}
	now.dnat = p.Translated
	if in != "" && slices.Contains(r.Addresses, p.Destination) {
		ok, err := w.hook(where, table, rs.Input)
		if ok {
			w.arrive(where, "delivered to the router", Arrival{Router: id})
		}
		return err
	}
	route, found := r.Lookup(p.Mark, p.Destination)
	w.noteRoute(where, route, found)
	if !found || route.Link == "" {
		w.deny(where, "no way", route.Origin)
		return nil
	}
	p.OutLink = route.Link
	if in != "" {
		if ok, err := w.hook(where, table, rs.Forward); !ok {
			return err
		}
	}
	if ok, err := w.hook(where, table, rs.Postrouting); !ok {
		return err
	}
	now.leaving, now.out = w.ends(), route.Link
	w.passes, w.marks = append(w.passes, now), append(w.marks, p.ConnMark)
	w.seen[now.tuple()] = p.ConnMark
	w.onward(id, r, route)
	return nil
}

// tuple is what connection tracking knows a connection by.
func (p pass) tuple() pass { return pass{router: p.router, ends: p.ends, proto: p.proto} }

func (w *walk) ends() [2]netip.AddrPort {
	p := &w.packet
	return [2]netip.AddrPort{netip.AddrPortFrom(p.Source, p.SourcePort), netip.AddrPortFrom(p.Destination, p.DestPort)}
}

// untranslating is a table without its NAT chains.
func untranslating(t *rs.Table) *rs.Table {
	without := *t
	without.Chains = slices.DeleteFunc(slices.Clone(t.Chains), func(c rs.Chain) bool { return c.NAT })
	return &without
}

func (w *walk) noteRoute(where string, r RouterRoute, found bool) {
	switch {
	case !found:
		w.note(where, "no route", "", "")
	case r.Link == "":
		w.note(where, "route "+r.Prefix.String()+" leads nowhere", r.Origin, "")
	default:
		w.note(where, "route "+r.Prefix.String()+" by "+r.Link, r.Origin, "")
	}
}

// onward hands a packet to whatever a link leads to.
func (w *walk) onward(id string, r *Router, route RouterRoute) {
	if route.Link == RouterLink {
		w.next = func() error { return w.atEdge(TransitLink(w.instance, id)) }
		return
	}
	for _, p := range r.Peers {
		if p.Link == route.Link {
			w.next = func() error { return w.atRouter(p.VNet, p.Far) }
			return
		}
	}
	for _, n := range r.NICs {
		if n.Link == route.Link {
			w.atNIC(id, r, n)
			return
		}
	}
}

// atNIC is a packet at an interface. One that forwards sends on what isn't for
// itself, unless its own network would send that to it again: then it is for
// what is behind it.
func (w *walk) atNIC(id string, r *Router, n RouterNIC) {
	where, p := "vnet/"+id, &w.packet
	nic := w.nic(id, n.ID)
	if nic.Forwarding && !isFor(w.vnet(id), nic, p.Destination) {
		mark := w.tableMark(r, n.Link)
		if route, ok := r.Lookup(mark, p.Destination); !ok || route.Link != n.Link {
			w.note(where, "forwarded by the interface "+n.ID, "", "")
			w.next = func() error { return w.atRouter(id, n.Link) }
			return
		}
	}
	w.arrive(where, "delivered to the interface "+n.ID, Arrival{NIC: n.ID})
}

func (w *walk) nic(vnet, id string) *NIC {
	v := w.vnet(vnet)
	for i := range v.NICs {
		if v.NICs[i].ID == id {
			return &v.NICs[i]
		}
	}
	return &NIC{}
}

// isFor tells whether an interface has an address, or answers for it.
func isFor(v *VNet, nic *NIC, a netip.Addr) bool {
	if a == nic.Address || within(single(a), nic.Pods) {
		return true
	}
	return slices.ContainsFunc(v.Balancers, func(b Balancer) bool {
		return b.Address == a && b.Floating && slices.Contains(b.Backends, nic.ID)
	})
}

// tableMark is the mark that packets from a link get for their route table.
func (w *walk) tableMark(r *Router, link string) uint32 {
	for _, m := range r.Table.Maps {
		if m.Name != "tables" {
			continue
		}
		for _, e := range m.Elements {
			if e.Key[0].From.Name == link {
				return e.Mark
			}
		}
	}
	return 0
}

// Lookup is the route that a packet takes, as the kernel finds it: the tables
// that the selectors name, one after another, then main.
func (r *Router) Lookup(mark uint32, to netip.Addr) (RouterRoute, bool) {
	for _, s := range r.Selectors {
		if mark&s.Mask == s.Mark {
			if found, ok := longest(r.Routes, s.Table, to); ok {
				return found, true
			}
		}
	}
	return longest(r.Routes, 0, to)
}

// longest is the route to the longest prefix in a table.
func longest(routes []RouterRoute, table uint32, to netip.Addr) (RouterRoute, bool) {
	best := -1
	for i, r := range routes {
		if r.Table == table && r.Prefix.Contains(to) && (best < 0 || r.Prefix.Bits() > routes[best].Prefix.Bits()) {
			best = i
		}
	}
	if best < 0 {
		return RouterRoute{}, false
	}
	return routes[best], true
}

// atEdge is a packet in the edge.
func (w *walk) atEdge(in string) error {
	e, p := w.theEdge(), &w.packet
	p.InLink, p.OutLink, p.Mark, p.ConnMark, p.Translated, p.Local = in, "", 0, 0, false, false
	now := pass{in: in, ends: w.ends(), leaving: w.ends(), proto: p.Protocol}
	if slices.Contains(e.Addresses, p.Destination) {
		p.Local = true
		ok, err := w.hook("edge", &e.Table, rs.Input)
		if ok {
			w.arrive("edge", "delivered to the edge", Arrival{Edge: true})
		}
		return err
	}
	route, found := longest(e.Routes, 0, p.Destination)
	w.noteRoute("edge", route, found)
	if !found || route.Link == "" {
		w.deny("edge", "no way", route.Origin)
		return nil
	}
	p.OutLink = route.Link
	if ok, err := w.hook("edge", &e.Table, rs.Forward); !ok {
		return err
	}
	w.passes, w.marks = append(w.passes, now), append(w.marks, 0)
	if route.Link == RootLink {
		w.next = w.toMachine
		return nil
	}
	for _, v := range e.VNets {
		if v.Link == route.Link {
			w.next = func() error { return w.atRouter(v.ID, RouterLink) }
		}
	}
	for _, t := range e.Terminals {
		if t.Link == route.Link {
			w.arrive("edge", "delivered to the terminal "+t.ID, Arrival{Terminal: t.ID})
		}
	}
	return nil
}

// toMachine is a packet that leaves the instance, or is for the front door.
func (w *walk) toMachine() error {
	e, p := w.theEdge(), &w.packet
	p.InLink, p.OutLink = e.RootEnd, ""
	if p.Destination != w.config.Edge.FrontDoor {
		w.arrive("machine", "leaves to the Internet", Arrival{Outside: true})
		return nil
	}
	p.Local = true
	ok, err := w.hook("machine", &e.Root, rs.Input)
	if ok {
		w.arrive("machine", "delivered to the front door", Arrival{Machine: true})
	}
	return err
}

// fromMachine is a packet from outside, or the machine itself, to the edge.
func (w *walk) fromMachine() error {
	e, p := w.theEdge(), &w.packet
	route, found := longest(e.RootRoutes, 0, p.Destination)
	if !found {
		w.deny("machine", "not an address of this instance", "platform/unroutedDestination")
		return nil
	}
	p.OutLink = route.Link
	before := p.Source
	o, err := e.Root.Run(rs.Postrouting, p, nil)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(o.NAT, func(n rs.Translation) bool { return n.Verb == rs.Masq }) {
		p.Source = route.Source
		w.note("machine", "source "+before.String()+" becomes "+p.Source.String(), "platform/privateSource", "")
	}
	w.next = func() error { return w.atEdge(RootLink) }
	return nil
}
