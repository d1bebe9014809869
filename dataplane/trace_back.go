// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"fmt"
	"net/netip"
	"slices"

	rs "bastide.dev/ruleset"
)

// back walks the answer the same way in the other direction. Connection
// tracking undoes translations; what can go wrong is a route that leads
// elsewhere than where the packet came from.
func (w *walk) back() error {
	for at := len(w.passes) - 1; at >= 0; {
		link, err := w.returning(at)
		if err != nil || link == refused {
			return err
		}
		if from := w.earlier(at, link); from >= 0 {
			at = from - 1
			continue
		}
		where := w.passes[at].where()
		w.deny(where, "no way back: the answer goes by "+link, w.path.Hops[len(w.path.Hops)-1].Origin)
		return nil
	}
	return nil
}

// refused is no link: the answer ended.
const refused = "\x00"

func (p *pass) where() string {
	if p.router == "" {
		return "edge"
	}
	return "vnet/" + p.router
}

// earlier is the pass that a link leads back from: this one, or one before of
// the same connection, past an appliance that the answer leaves out.
func (w *walk) earlier(at int, link string) int {
	now := &w.passes[at]
	for ; at >= 0; at-- {
		if p := &w.passes[at]; p.router == now.router && p.ends[0] == now.ends[0] && p.in == link {
			return at
		}
	}
	return -1
}

// returning is the link by which a router sends an answer on.
func (w *walk) returning(at int) (string, error) {
	now := &w.passes[at]
	if now.router == "" {
		route, ok := longest(w.theEdge().Routes, 0, now.ends[0].Addr())
		if !ok || route.Link == "" {
			w.deny("edge", "no way back", route.Origin)
			return refused, nil
		}
		w.note("edge", "back by "+route.Link, route.Origin, "")
		return route.Link, nil
	}
	r := w.router(now.router)
	p := rs.Packet{InLink: now.out, Source: now.leaving[1].Addr(), SourcePort: now.leaving[1].Port(),
		Destination: now.leaving[0].Addr(), DestPort: now.leaving[0].Port(), Protocol: now.proto,
		State: rs.Established, Reply: true, Translated: now.dnat, ConnMark: w.marks[at]}
	o, err := r.Table.Run(rs.Prerouting, &p, nil)
	if err != nil {
		return refused, fmt.Errorf("%s: %w", now.where(), err)
	}
	if o.Verdict != rs.Accept {
		w.deny(now.where(), "no way back", o.Decided.Origin)
		return refused, nil
	}
	p.Destination, p.DestPort = now.ends[0].Addr(), now.ends[0].Port()
	if now.in == "" && slices.Contains(r.Addresses, p.Destination) {
		return "", nil
	}
	return w.routeBack(now, r, &p)
}

func (w *walk) routeBack(now *pass, r *Router, p *rs.Packet) (string, error) {
	route, found := r.Lookup(p.Mark, p.Destination)
	if !found || route.Link == "" {
		w.deny(now.where(), "no way back: route "+prefixText(route.Prefix)+" leads nowhere", route.Origin)
		return refused, nil
	}
	w.note(now.where(), "back by route "+route.Prefix.String()+" and "+route.Link, route.Origin, "")
	p.OutLink, p.Source, p.SourcePort = route.Link, now.leaving[1].Addr(), now.leaving[1].Port()
	for _, hook := range []rs.Hook{rs.Forward, rs.Postrouting} {
		o, err := r.Table.Run(hook, p, nil)
		if err != nil {
			return refused, fmt.Errorf("%s: %w", now.where(), err)
		}
		if o.Verdict != rs.Accept {
			w.deny(now.where(), "no way back", o.Decided.Origin)
			return refused, nil
		}
	}
	return route.Link, nil
}

func prefixText(p netip.Prefix) string {
	if !p.IsValid() {
		return "(none)"
	}
	return p.String()
}
