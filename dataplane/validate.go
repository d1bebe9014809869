// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"bastide.dev/fault"
)

var (
	idForm   = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	nameForm = regexp.MustCompile(`^(\*\.)?([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$`)
)

// maxName is the longest DNS name in text form.
const maxName = 253

// Validate reports everything that is wrong with the configuration, at once,
// as one fault with a detail per problem.
func (c *Config) Validate() error {
	v := &validator{
		vnets: map[string]bool{}, nics: map[string]bool{}, links: map[string]bool{},
		namespaces: map[string]bool{}, terminals: map[string]bool{}, owners: map[netip.Addr]string{},
	}
	v.edge(&c.Edge)
	for i := range c.VNets {
		v.vnet(fmt.Sprintf("vnets[%d]", i), &c.VNets[i])
	}
	v.clients(c.Edge.Terminals)
	return fault.Join(v.problems...)
}

// validator collects problems, and what must be unique in the whole instance.
type validator struct {
	problems   []*fault.Error
	pools      []netip.Prefix
	frontDoor  netip.Addr
	vnets      map[string]bool
	nics       map[string]bool
	links      map[string]bool // where an interface lives, and its name there
	namespaces map[string]bool // of interfaces; terminals have others
	terminals  map[string]bool
	owners     map[netip.Addr]string // public address → who has it
}

func (v *validator) bad(target, format string, args ...any) {
	v.problems = append(v.problems, fault.New(fault.Invalid, "InvalidParameter", format, args...).At(target))
}

func (v *validator) prefix(target string, p netip.Prefix) bool {
	switch {
	case !p.IsValid():
		v.bad(target, "A prefix is missing or malformed.")
	case p != p.Masked():
		v.bad(target, "%s has bits beyond its length: write %s.", p, p.Masked())
	default:
		return true
	}
	return false
}

func (v *validator) unique(seen map[string]bool, target, what, id string) {
	if !idForm.MatchString(id) {
		v.bad(target, "%q isn't a valid %s: 1 to 63 lower-case letters, digits and hyphens.", id, what)
		return
	}
	if seen[id] {
		v.bad(target, "The %s %q is used twice.", what, id)
	}
	seen[id] = true
}

func (v *validator) edge(e *Edge) {
	v.pools, v.frontDoor = e.Pools, e.FrontDoor
	for i, p := range e.Pools {
		target := fmt.Sprintf("edge.pools[%d]", i)
		if !v.prefix(target, p) {
			continue
		}
		if p.Overlaps(netip.PrefixFrom(WireServer, WireServer.BitLen())) {
			v.bad(target, "The pool %s holds the platform's own address %s.", p, WireServer)
		}
		for _, other := range e.Pools[:i] {
			if p.Overlaps(other) {
				v.bad(target, "The pools %s and %s overlap.", p, other)
			}
		}
	}
	if !v.pooled(e.FrontDoor) {
		v.bad("edge.frontDoor", "The front door's address %s is in none of the pools.", e.FrontDoor)
	}
	v.names("edge.names", e.Names)
}

func (v *validator) pooled(a netip.Addr) bool {
	for _, p := range v.pools {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

func (v *validator) names(target string, names []Name) {
	for i, n := range names {
		target := fmt.Sprintf("%s[%d]", target, i)
		if len(n.Name) > maxName || !nameForm.MatchString(strings.ToLower(n.Name)) {
			v.bad(target, "%q isn't a DNS name.", n.Name)
		}
		if n.TTL > math.MaxInt32 {
			v.bad(target, "The name %q can't be kept for %d seconds.", n.Name, n.TTL)
		}
		if len(n.Addresses) == 0 {
			v.bad(target, "The name %q has no address.", n.Name)
		}
		for _, a := range n.Addresses {
			if !a.IsValid() || a.Zone() != "" {
				v.bad(target, "The name %q has a malformed address.", n.Name)
			}
		}
	}
}

func (v *validator) vnet(target string, n *VNet) {
	v.unique(v.vnets, target+".id", "VNet id", n.ID)
	for i, p := range n.Prefixes {
		v.prefix(fmt.Sprintf("%s.prefixes[%d]", target, i), p)
	}
	v.groups(target, n)
	v.routeTables(target, n)
	v.subnets(target, n)
	v.interfaces(target, n)
	v.public(target, n)
	v.balancers(target, n)
	v.peers(target, n)
	v.names(target+".names", n.Names)
}

func (v *validator) subnets(target string, n *VNet) {
	for i, s := range n.Subnets {
		target := fmt.Sprintf("%s.subnets[%d]", target, i)
		if !v.prefix(target, s.Prefix) {
			continue
		}
		if s.Prefix.Addr().BitLen()-s.Prefix.Bits() < 2 {
			v.bad(target, "The subnet %s has no room for a gateway.", s.Prefix)
		}
		if !within(s.Prefix, n.Prefixes) {
			v.bad(target, "The subnet %s isn't inside the network's prefixes.", s.Prefix)
		}
		v.group(target+".nsg", n, s.NSG)
		if s.RouteTable != "" && !slices.ContainsFunc(n.RouteTables, func(t RouteTable) bool { return t.ID == s.RouteTable }) {
			v.bad(target+".routeTable", "The network has no route table %q.", s.RouteTable)
		}
		for _, other := range n.Subnets[:i] {
			if s.Name == other.Name {
				v.bad(target, "Two subnets are named %q.", s.Name)
			}
			if other.Prefix.IsValid() && s.Prefix.Overlaps(other.Prefix) {
				v.bad(target, "The subnets %s and %s overlap.", s.Prefix, other.Prefix)
			}
		}
	}
}

// within tells whether p lies in one of the prefixes.
func within(p netip.Prefix, prefixes []netip.Prefix) bool {
	for _, outer := range prefixes {
		if outer.IsValid() && outer.Bits() <= p.Bits() && outer.Contains(p.Addr()) {
			return true
		}
	}
	return false
}

// claim is a range of a VNet that belongs to one interface.
type claim struct {
	prefix netip.Prefix
	target string
}

func (v *validator) interfaces(target string, n *VNet) {
	var claims []claim
	for _, s := range n.Subnets {
		if s.Prefix.IsValid() {
			g := s.Gateway()
			claims = append(claims, claim{netip.PrefixFrom(g, g.BitLen()), "the gateway of subnet " + s.Name})
		}
	}
	addresses := map[netip.Addr]bool{}
	for i, nic := range n.NICs {
		target := fmt.Sprintf("%s.nics[%d]", target, i)
		claims = append(claims, v.nic(target, n, nic)...)
		addresses[nic.Address] = true
	}
	claims = append(claims, frontClaims(n)...)
	v.disjoint(claims)
	for i, r := range n.Routes {
		target := fmt.Sprintf("%s.routes[%d]", target, i)
		v.prefix(target, r.Prefix)
		if !addresses[r.Via] {
			v.bad(target, "No interface of the network has the address %s.", r.Via)
		}
	}
}

func (v *validator) nic(target string, n *VNet, nic NIC) []claim {
	if nic.ID == "" || len(nic.ID) > 200 {
		v.bad(target+".id", "An interface needs an id of at most 200 characters.")
	} else if v.nics[nic.ID] {
		v.bad(target+".id", "The interface id %q is used twice.", nic.ID)
	}
	v.nics[nic.ID] = true
	v.place(target, &nic)
	v.group(target+".nsg", n, nic.NSG)
	v.egress(target, &nic)
	subnet, known := n.Subnet(nic.Subnet)
	switch {
	case !known:
		v.bad(target+".subnet", "The network has no subnet %q.", nic.Subnet)
	case !subnet.Prefix.Contains(nic.Address):
		v.bad(target+".address", "The address %s isn't in subnet %s.", nic.Address, subnet.Prefix)
	}
	var claims []claim
	if nic.Address.IsValid() {
		claims = append(claims, claim{netip.PrefixFrom(nic.Address, nic.Address.BitLen()), target + ".address"})
	}
	for i, p := range nic.Pods {
		target := fmt.Sprintf("%s.pods[%d]", target, i)
		if v.prefix(target, p) {
			claims = append(claims, claim{p, target})
		}
	}
	return claims
}

// disjoint reports claims that meet. Sorted by address, the wider range first,
// a range meets an earlier one only if it meets the one that reaches furthest.
func (v *validator) disjoint(claims []claim) {
	slices.SortStableFunc(claims, func(a, b claim) int {
		return cmp.Or(a.prefix.Addr().Compare(b.prefix.Addr()), cmp.Compare(a.prefix.Bits(), b.prefix.Bits()))
	})
	for i, j := 1, 0; i < len(claims); i++ {
		if claims[j].prefix.Overlaps(claims[i].prefix) {
			v.bad(claims[i].target, "%s is already used by %s (%s).", claims[i].prefix, claims[j].target, claims[j].prefix)
			continue
		}
		j = i
	}
}

// own notes whose a public address is.
func (v *validator) own(target, owner string, a netip.Addr) {
	switch other, taken := v.owners[a]; {
	case !v.pooled(a):
		v.bad(target, "The public address %s is in none of the instance's pools.", a)
	case a == v.frontDoor:
		v.bad(target, "The address %s is the front door's.", a)
	case taken && other != owner:
		v.bad(target, "The public address %s belongs to %s already.", a, other)
	default:
		v.owners[a] = owner
	}
}

func (v *validator) public(target string, n *VNet) {
	owner := "network " + n.ID
	for i, nic := range n.NICs {
		for _, e := range nic.Egress {
			v.own(fmt.Sprintf("%s.nics[%d].egress", target, i), owner, e.Address)
		}
	}
	seen := map[netip.AddrPort]bool{}
	for i, p := range n.Public {
		target := fmt.Sprintf("%s.public[%d]", target, i)
		v.own(target+".address", owner, p.Address)
		v.origin(target, p.Origin)
		v.idle(target, p.Idle)
		switch {
		case p.Port != 0 && p.Idle != 0:
			v.bad(target+".idle", "Only a whole address keeps silent connections for a time of its own.")
		case p.Port == 0 && (p.TPort != 0 || p.Restricted):
			v.bad(target, "A whole address has neither a target port nor allowed sources.")
		case p.Port != 0 && p.TPort == 0:
			v.bad(target, "A port is missing.")
		case !p.Restricted && len(p.Allowed) > 0:
			v.bad(target, "Allowed sources need Restricted.")
		}
		if at := netip.AddrPortFrom(p.Address, p.Port); seen[at] || seen[netip.AddrPortFrom(p.Address, 0)] {
			v.bad(target, "%s is forwarded twice.", at)
		} else {
			seen[at] = true
		}
		for j, allowed := range p.Allowed {
			v.prefix(fmt.Sprintf("%s.allowed[%d]", target, j), allowed)
		}
		switch at := slices.ContainsFunc(n.NICs, func(nic NIC) bool { return nic.Address == p.Target }); {
		case !p.Target.IsValid() || !within(single(p.Target), n.Prefixes):
			v.bad(target+".target", "The target %s isn't in the network.", p.Target)
		case p.Port == 0 && !at:
			v.bad(target+".target", "No interface of the network has the address %s.", p.Target)
		}
	}
}
