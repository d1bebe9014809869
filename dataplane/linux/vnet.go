// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"

	"bastide.dev/dataplane"
)

// applyVNet makes one network's router and interfaces what they should be, and
// tells which interfaces stand.
func (p *Plane) applyVNet(v *dataplane.VNet, netns func(string) string) ([]string, error) {
	r, err := p.vnetRouter(v.ID)
	if err != nil {
		return nil, err
	}
	own := []netip.Prefix{single(routerAddress()), single(dataplane.WireServer)}
	for _, s := range v.Subnets {
		own = append(own, single(s.Gateway()))
	}
	if err := loopbackUp(r.nl, own); err != nil {
		return nil, err
	}
	// The rules come first: no packet is ever forwarded without them.
	if err := r.fw.put(vnetTable{Egress: firstEgress(v), Public: slices.Clone(v.Public)}); err != nil {
		return nil, err
	}
	edge, err := p.connectVNet(v.ID, r)
	if err != nil {
		return nil, err
	}
	standing, nicErr := p.applyNICs(v, r, netns)
	if err := syncRoutes(r.nl, vnetRoutes(v, edge, standing), 0); err != nil {
		return nil, errors.Join(nicErr, err)
	}
	if err := p.serveNames(v, r); err != nil {
		return nil, errors.Join(nicErr, err)
	}
	ids := []string{}
	for _, nic := range v.NICs {
		if _, ok := standing[nic.ID]; ok {
			ids = append(ids, nic.ID)
		}
	}
	return ids, nicErr
}

// vnetRouter is the network's router: the one in use, one that an earlier
// process left, or a new one.
func (p *Plane) vnetRouter(id string) (*router, error) {
	r := p.vnets[id]
	if r != nil && r.current() {
		return r, nil
	}
	if r != nil {
		delete(p.vnets, id)
		if err := r.close(); err != nil {
			return nil, err
		}
	}
	r, err := p.openRouter(p.vnetPath(id), vnetSettings())
	if err != nil {
		return nil, err
	}
	p.vnets[id] = r
	return r, nil
}

// connectVNet makes the pair between the edge and a router, unless it stands,
// and returns the index of the router's end.
func (p *Plane) connectVNet(id string, r *router) (int, error) {
	name := p.transit(id)
	outside, err := findLink(p.edge.nl, name)
	if err != nil {
		return 0, err
	}
	stands := false
	if outside != nil {
		if stands, err = leadsTo(p.edge.nl, outside, r.ns); err != nil {
			return 0, err
		}
		if !stands {
			if err := removeLink(p.edge.nl, name); err != nil {
				return 0, err
			}
		}
	}
	if !stands {
		if err := addPair(p.edge.nl, name, p.mtu, edgeLink, r.space); err != nil {
			return 0, err
		}
		err := within(r.ns, func() error {
			return apply([]setting{{"ipv4/conf/" + edgeLink + "/rp_filter", "0"}, {"ipv4/conf/" + edgeLink + "/proxy_arp", "0"}})
		})
		if err != nil {
			return 0, err
		}
	} else if err := ready(p.edge.nl, outside, p.mtu); err != nil {
		return 0, err
	}
	inside, err := mustLink(r.nl, edgeLink)
	if err != nil {
		return 0, err
	}
	return inside.Attrs().Index, ready(r.nl, inside, p.mtu)
}

// vnetRoutes are a router's routes: to each interface that stands and what is
// behind it, nowhere for the rest of the network, and to the edge for all else.
func vnetRoutes(v *dataplane.VNet, edge int, standing map[string]int) []route {
	routes := []route{{dst: anywhere(), via: edgeAddress(), link: edge}}
	for _, prefix := range v.Prefixes {
		routes = append(routes, route{dst: prefix, blackhole: true})
	}
	// Without this, what isn't forwarded would go to the edge and come back.
	for _, a := range v.PublicAddresses() {
		routes = append(routes, route{dst: single(a), blackhole: true})
	}
	links := map[netip.Addr]int{}
	for _, nic := range v.NICs {
		link, ok := standing[nic.ID]
		if !ok {
			continue
		}
		links[nic.Address] = link
		routes = append(routes, route{dst: single(nic.Address), link: link})
		for _, pods := range nic.Pods {
			routes = append(routes, route{dst: pods, via: nic.Address, link: link})
		}
	}
	for _, r := range v.Routes {
		if link, ok := links[r.Via]; ok {
			routes = append(routes, route{dst: r.Prefix, via: r.Via, link: link})
		}
	}
	return dedupe(routes)
}

// serveNames starts the network's name server, or gives it what changed.
func (p *Plane) serveNames(v *dataplane.VNet, r *router) error {
	if r.dns == nil {
		server, err := p.startNames(r.ns)
		if err != nil {
			return fmt.Errorf("name server: %w", err)
		}
		r.dns = server
	}
	r.dns.set(v.Names)
	return nil
}

// removeVNets removes every network of the instance that isn't among keep.
func (p *Plane) removeVNets(keep []dataplane.VNet) error {
	entries, err := p.entries("routers")
	if err != nil {
		return err
	}
	var failed []error
	for _, name := range entries {
		id, isVNet := strings.CutPrefix(name, vnetPrefix)
		if !isVNet || slices.ContainsFunc(keep, func(v dataplane.VNet) bool { return v.ID == id }) {
			continue
		}
		if err := p.removeVNet(id); err != nil {
			failed = append(failed, fmt.Errorf("remove vnet %s: %w", id, err))
		}
	}
	return errors.Join(failed...)
}

// removeVNet deletes a router's links at once, not when the kernel gets round
// to the namespace: their other ends are in namespaces that live on.
func (p *Plane) removeVNet(id string) error {
	path := p.vnetPath(id)
	s, err := openSpace(path)
	if err == nil {
		err = errors.Join(removeVeths(s), s.close())
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if r := p.vnets[id]; r != nil {
		delete(p.vnets, id)
		err = errors.Join(err, r.close())
	}
	return errors.Join(err, removeNetns(path))
}

func removeVeths(s *space) error {
	byName, err := links(s.nl)
	if err != nil {
		return err
	}
	var failed []error
	for name, link := range byName {
		if link.Type() == "veth" {
			failed = append(failed, removeLink(s.nl, name))
		}
	}
	return errors.Join(failed...)
}

// removeNICSpaces removes the namespaces made for NICs that are no more.
func (p *Plane) removeNICSpaces(keep []dataplane.VNet) error {
	entries, err := p.entries("netns")
	if err != nil {
		return err
	}
	wanted := map[string]bool{}
	for i := range keep {
		for _, nic := range keep[i].NICs {
			wanted[nic.Namespace] = true
		}
	}
	var failed []error
	for _, name := range entries {
		if !wanted[name] {
			failed = append(failed, removeNetns(p.NetnsPath(name)))
		}
	}
	return errors.Join(failed...)
}

// firstEgress is the address that all of a network leaves by.
func firstEgress(v *dataplane.VNet) netip.Addr {
	for _, nic := range v.NICs {
		for _, e := range nic.Egress {
			return e.Address
		}
	}
	return netip.Addr{}
}
