// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	rs "bastide.dev/ruleset"
)

// linkForm is an interface's name: the kernel allows 15 bytes.
var linkForm = regexp.MustCompile(`^[a-z][a-z0-9-]{0,14}$`)

// place checks where an interface lives: one place may have several, by
// different names.
func (v *validator) place(target string, nic *NIC) {
	link := nic.Link
	if link == "" {
		link = "eth0"
	}
	at := "machine/" + nic.Machine + "/" + link
	switch {
	case (nic.Namespace == "") == (nic.Machine == ""):
		v.bad(target, "The interface %q needs either a namespace or a machine.", nic.ID)
		return
	case nic.Namespace != "":
		at = "namespace/" + nic.Namespace + "/" + link
		v.form(target+".namespace", "namespace", nic.Namespace)
		v.namespaces[nic.Namespace] = true
	default:
		v.form(target+".machine", "machine", nic.Machine)
	}
	if !linkForm.MatchString(link) || link == "lo" {
		v.bad(target+".link", "%q isn't a valid name of an interface.", link)
	}
	if v.links[at] {
		v.bad(target, "Two interfaces are named %s at the same place (%s).", link, strings.TrimSuffix(at, "/"+link))
	}
	v.links[at] = true
}

func (v *validator) form(target, what, id string) {
	if !idForm.MatchString(id) {
		v.bad(target, "%q isn't a valid %s: 1 to 63 lower-case letters, digits and hyphens.", id, what)
	}
}

func (v *validator) egress(target string, nic *NIC) {
	for i, e := range nic.Egress {
		if (e.First == 0) != (e.Last == 0) || e.First > e.Last {
			v.bad(fmt.Sprintf("%s.egress[%d]", target, i), "%d to %d isn't a range of ports.", e.First, e.Last)
		}
		v.origin(fmt.Sprintf("%s.egress[%d]", target, i), e.Origin)
		v.idle(fmt.Sprintf("%s.egress[%d]", target, i), e.Idle)
	}
}

// origin checks a text that rules bear as a comment, with a few words of theirs.
func (v *validator) origin(target, origin string) {
	if len(origin) > 200 || strings.ContainsRune(origin, 0) {
		v.bad(target+".origin", "An origin has at most 200 characters, and no zero byte.")
	}
}

// idle checks the life of a silent connection.
func (v *validator) idle(target string, seconds uint32) {
	const day = 24 * 60 * 60
	if seconds > day {
		v.bad(target+".idle", "A silent connection can't be kept for %d seconds: a day is the most.", seconds)
	}
}

// clients checks terminals: each has an address and a namespace of its own.
func (v *validator) clients(terminals []Terminal) {
	spaces := map[string]bool{}
	for i, t := range terminals {
		target := fmt.Sprintf("edge.terminals[%d]", i)
		v.unique(v.terminals, target+".id", "terminal id", t.ID)
		v.unique(spaces, target+".namespace", "namespace", t.Namespace)
		if v.namespaces[t.Namespace] {
			v.bad(target+".namespace", "The namespace %q has an interface of a network.", t.Namespace)
		}
		v.own(target+".address", "terminal "+t.ID, t.Address)
	}
}

// group checks that a group, if any, is there.
func (v *validator) group(target string, n *VNet, id string) {
	if id != "" && !slices.ContainsFunc(n.NSGs, func(g NSG) bool { return g.ID == id }) {
		v.bad(target, "The network has no security group %q.", id)
	}
}

func (v *validator) groups(target string, n *VNet) {
	seen := map[string]bool{}
	for i, g := range n.NSGs {
		target := fmt.Sprintf("%s.nsgs[%d]", target, i)
		if g.ID == "" || len(g.ID) > 160 || seen[g.ID] {
			v.bad(target+".id", "A security group needs an id of its own, not %q.", g.ID)
		}
		seen[g.ID] = true
		type place struct {
			priority int
			inbound  bool
		}
		taken := map[place]string{}
		for j := range g.Rules {
			r := &g.Rules[j]
			target := fmt.Sprintf("%s.rules[%d]", target, j)
			at := place{r.Priority, r.Inbound}
			if other, found := taken[at]; found {
				v.bad(target+".priority", "The rules %q and %q have the same priority %d.", other, r.Name, r.Priority)
			}
			taken[at] = r.Name
			v.rule(target, r)
		}
	}
}

func (v *validator) rule(target string, r *NSGRule) {
	if r.Name == "" || len(r.Name) > 80 {
		v.bad(target+".name", "A rule needs a name of at most 80 characters.")
	}
	for _, p := range append(slices.Clone(r.Sources), r.Destinations...) {
		v.prefix(target, p)
	}
	for _, p := range append(slices.Clone(r.SourcePorts), r.DestinationPorts...) {
		if p.First > p.Last {
			v.bad(target, "%d to %d isn't a range of ports.", p.First, p.Last)
		}
	}
}

func (v *validator) routeTables(target string, n *VNet) {
	if most := lastTable / 2; len(n.RouteTables) > most { // of each, one for users and one for API servers
		v.bad(target+".routeTables", "A network has at most %d route tables.", most)
	}
	seen := map[string]bool{}
	for i, t := range n.RouteTables {
		target := fmt.Sprintf("%s.routeTables[%d]", target, i)
		if t.ID == "" || len(t.ID) > 160 || seen[t.ID] {
			v.bad(target+".id", "A route table needs an id of its own, not %q.", t.ID)
		}
		seen[t.ID] = true
		prefixes := map[netip.Prefix]string{}
		for j, r := range t.Routes {
			target := fmt.Sprintf("%s.routes[%d]", target, j)
			if !v.prefix(target+".prefix", r.Prefix) {
				continue
			}
			if other, taken := prefixes[r.Prefix]; taken {
				v.bad(target+".prefix", "The routes %q and %q have the same prefix %s.", other, r.Name, r.Prefix)
			}
			prefixes[r.Prefix] = r.Name
			switch r.Hop {
			case HopAppliance:
				if r.Via.BitLen() != r.Prefix.Addr().BitLen() {
					v.bad(target+".via", "The route %q needs an appliance's address.", r.Name)
				}
			case HopLocal, HopInternet, HopNone:
				if r.Via.IsValid() {
					v.bad(target+".via", "Only a route to an appliance has an address.")
				}
			default:
				v.bad(target+".hop", "%q isn't a next hop.", r.Hop)
			}
		}
	}
}

// frontClaims are the addresses of subnets that are internal front ends.
func frontClaims(n *VNet) []claim {
	var claims []claim
	seen := map[netip.Addr]bool{}
	for _, b := range n.Balancers {
		if b.Address.IsValid() && within(single(b.Address), n.Prefixes) && !seen[b.Address] {
			seen[b.Address] = true
			claims = append(claims, claim{single(b.Address), "the front end of " + b.Origin})
		}
	}
	return claims
}

func (v *validator) balancers(target string, n *VNet) {
	probes, nics := map[string]bool{"": true}, map[string]bool{}
	for i := range n.NICs {
		nics[n.NICs[i].ID] = true
	}
	for i, p := range n.Probes {
		v.probe(fmt.Sprintf("%s.probes[%d]", target, i), &p, probes)
	}
	for i := range n.Balancers {
		b := &n.Balancers[i]
		target := fmt.Sprintf("%s.balancers[%d]", target, i)
		switch inside := within(single(b.Address), n.Prefixes); {
		case !inside:
			v.own(target+".address", "network "+n.ID, b.Address)
		case !slices.ContainsFunc(n.Subnets, func(s Subnet) bool { return s.Prefix.Contains(b.Address) }):
			v.bad(target+".address", "The address %s is in none of the network's subnets.", b.Address)
		}
		v.balancer(target, nics, b)
		if !probes[b.Probe] {
			v.bad(target+".probe", "The network has no probe %q.", b.Probe)
		}
		for _, other := range n.Balancers[:i] {
			if b.meets(&other) {
				v.bad(target, "%q and %q share ports of %s.", b.Origin, other.Origin, b.Address)
			}
		}
		for _, p := range n.Public {
			one := Balancer{Address: p.Address, Protocol: rs.TCP, Ports: Ports{p.Port, p.Port}}
			if p.oneToOne() {
				one.Protocol = 0
			}
			if b.meets(&one) {
				v.bad(target, "%q has a port of %s that is forwarded already.", b.Origin, b.Address)
			}
		}
	}
}

// meets tells whether a packet could be for both.
func (b *Balancer) meets(other *Balancer) bool {
	return b.Address == other.Address && (b.whole() || other.whole() ||
		b.Protocol == other.Protocol && b.Ports.First <= other.Ports.Last && other.Ports.First <= b.Ports.Last)
}

func (v *validator) balancer(target string, nics map[string]bool, b *Balancer) {
	v.origin(target, b.Origin)
	v.idle(target, b.Idle)
	if _, known := affinities[b.Affinity]; !known {
		v.bad(target+".affinity", "%q isn't an affinity.", b.Affinity)
	}
	several := b.whole() || b.Ports.First != b.Ports.Last
	switch {
	case b.Protocol != 0 && b.Protocol != rs.TCP && b.Protocol != rs.UDP:
		v.bad(target+".protocol", "Protocol %d can't be balanced: TCP, UDP and all can.", b.Protocol)
	case !b.whole() && (b.Ports.First == 0 || b.Ports.First > b.Ports.Last):
		v.bad(target+".ports", "%d to %d isn't a range of ports.", b.Ports.First, b.Ports.Last)
	case several && b.BackendPort != 0 && !b.whole():
		v.bad(target+".backendPort", "Several ports have no back-end port: they stay as they are.")
	case b.Floating && b.BackendPort != 0 && b.BackendPort != b.Ports.First:
		v.bad(target+".backendPort", "With a floating address the port stays as it is.")
	}
	seen := map[string]bool{}
	for _, id := range b.Backends {
		if seen[id] || !nics[id] {
			v.bad(target+".backends", "%q is no interface of the network, or twice a back end.", id)
		}
		seen[id] = true
	}
}

func (v *validator) probe(target string, p *Probe, seen map[string]bool) {
	if p.ID == "" || seen[p.ID] {
		v.bad(target+".id", "A probe needs an id of its own, not %q.", p.ID)
	}
	seen[p.ID] = true
	switch http := p.Protocol == "Http" || p.Protocol == "Https"; {
	case !http && p.Protocol != "Tcp":
		v.bad(target+".protocol", "%q isn't a probe's protocol: Tcp, Http or Https.", p.Protocol)
	case http && !strings.HasPrefix(p.Path, "/"):
		v.bad(target+".path", "The path of a probe begins with a slash, unlike %q.", p.Path)
	}
	if p.Port == 0 || p.Interval < 1 || p.Failures < 1 {
		v.bad(target, "A probe needs a port, an interval and a number of failures.")
	}
}

// peers checks peerings: networks that reach each other have different ranges.
func (v *validator) peers(target string, n *VNet) {
	seen := map[string]bool{}
	for i, p := range n.Peers {
		target := fmt.Sprintf("%s.peers[%d]", target, i)
		v.unique(seen, target+".vnet", "peer", p.VNet)
		v.origin(target, p.Origin)
		if p.VNet == n.ID {
			v.bad(target+".vnet", "A network can't be its own peer.")
		}
		for _, prefix := range p.Prefixes {
			if !v.prefix(target+".prefixes", prefix) {
				continue
			}
			meets := func(other netip.Prefix) bool { return other.Overlaps(prefix) }
			if slices.ContainsFunc(n.Prefixes, meets) {
				v.bad(target+".prefixes", "%s overlaps with the network itself.", prefix)
			}
			for _, other := range n.Peers[:i] {
				if slices.ContainsFunc(other.Prefixes, meets) {
					v.bad(target+".prefixes", "%s overlaps with the peer %s.", prefix, other.VNet)
				}
			}
		}
	}
}
