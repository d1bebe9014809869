// SPDX-License-Identifier: Apache-2.0

package network

import (
	"net/netip"
	"slices"
	"strings"

	sdk "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v7"

	"bastide.dev/dataplane"
	"bastide.dev/resource"
)

// settings are what the compiler needs beside resources.
type settings struct {
	Pool             netip.Prefix
	FrontDoor        netip.Addr
	Location, Domain string
	Names            []dataplane.Name
}

func (p *Provider) settings() settings {
	return settings{Pool: p.PublicPool, FrontDoor: p.FrontDoor, Location: p.Location, Domain: p.Domain, Names: p.Names}
}

// vnet is a virtual network while it is compiled.
type vnet struct {
	item     *item
	key      string
	prefixes []netip.Prefix
	subnets  map[string]*sdk.Subnet // by lower-case name
	nics     []*nic
	groups   map[string]bool // security groups in use, by key
	tables   map[string]bool // route tables in use, by key
	reached  []netip.Prefix  // of peers that it may send to
	out      dataplane.VNet
}

// compiler turns an inventory into what the data plane should be. It is pure:
// the same documents give the same configuration, in the same order.
type compiler struct {
	settings
	inv     *inventory
	tags    *tags
	vnets   []*vnet
	byKey   map[string]*vnet
	members map[string][]*nic       // of a back-end pool or an inbound NAT rule, by its key
	groups  map[string][]netip.Addr // members of application security groups, by key
	blocks  map[netip.Addr]uint32   // the next port to give out of a public address
	ties    ties
}

// ties are the virtual networks that were compiled from a document: its key →
// the networks' IDs.
type ties map[string]map[string]bool

func (t ties) note(key, vnet string) {
	if t[key] == nil {
		t[key] = map[string]bool{}
	}
	t[key][vnet] = true
}

// use notes that a network depends on a document.
func (c *compiler) use(v *vnet, i *item) {
	if i != nil {
		c.ties.note(i.doc.ID.Key(), v.out.ID)
	}
}

// compile says, purely, what networks there should be and what each came from.
func compile(inv *inventory, s settings) ([]dataplane.VNet, dataplane.Edge, ties) {
	c := &compiler{settings: s, inv: inv, tags: instanceTags(s, inv), byKey: map[string]*vnet{},
		members: map[string][]*nic{}, groups: map[string][]netip.Addr{}, blocks: map[netip.Addr]uint32{}, ties: ties{}}
	c.networks()
	c.peerings()
	c.interfaces()
	c.balancers()
	c.egress()
	c.servers()
	c.names()
	c.security()
	vnets := make([]dataplane.VNet, len(c.vnets))
	for i, v := range c.vnets {
		vnets[i] = v.out
	}
	return vnets, c.edge(), c.ties
}

// networks begins each virtual network with its subnets.
func (c *compiler) networks() {
	for i, model := range all[sdk.VirtualNetwork](c.inv, typeVNet) {
		v := &vnet{item: i, key: i.doc.ID.Key(), prefixes: addressSpace(model), subnets: map[string]*sdk.Subnet{},
			groups: map[string]bool{}, tables: map[string]bool{}}
		v.out = dataplane.VNet{ID: VNetID(i.doc.ID), Prefixes: v.prefixes, Subnets: []dataplane.Subnet{}}
		c.use(v, i)
		if model.Properties != nil {
			for _, s := range model.Properties.Subnets {
				c.subnet(v, s)
			}
		}
		c.vnets = append(c.vnets, v)
		c.byKey[v.key] = v
	}
}

func (c *compiler) subnet(v *vnet, s *sdk.Subnet) {
	if s == nil || s.Properties == nil || !subnetPrefix(s).IsValid() {
		return
	}
	v.subnets[strings.ToLower(value(s.Name))] = s
	out := dataplane.Subnet{Name: value(s.Name), Prefix: subnetPrefix(s)}
	if group := s.Properties.NetworkSecurityGroup; group != nil {
		out.NSG = c.group(v, value(group.ID))
	}
	if table := s.Properties.RouteTable; table != nil {
		out.RouteTable = c.table(v, value(table.ID))
	}
	if gateway := s.Properties.NatGateway; gateway != nil {
		i, _ := lookup[sdk.NatGateway](c.inv, value(gateway.ID))
		c.use(v, i)
	}
	v.out.Subnets = append(v.out.Subnets, out)
}

// group is the ID of a security group that a network uses; "" when it isn't there.
func (c *compiler) group(v *vnet, id string) string {
	i, model := lookup[sdk.SecurityGroup](c.inv, id)
	if model == nil {
		return ""
	}
	c.use(v, i)
	v.groups[keyOf(id)] = true
	return shown(i.doc.ID)
}

// table is the ID of a route table that a network uses.
func (c *compiler) table(v *vnet, id string) string {
	i, model := lookup[sdk.RouteTable](c.inv, id)
	if model == nil {
		return ""
	}
	if c.use(v, i); v.tables[i.doc.ID.Key()] || model.Properties == nil {
		return shown(i.doc.ID)
	}
	v.tables[i.doc.ID.Key()] = true
	table := dataplane.RouteTable{ID: shown(i.doc.ID)}
	for _, r := range model.Properties.Routes {
		if r == nil || r.Properties == nil {
			continue
		}
		prefix, ok := prefixOf(value(r.Properties.AddressPrefix))
		if !ok {
			continue
		}
		route := dataplane.UserRoute{Name: value(r.Name), Prefix: prefix, Hop: dataplane.Hop(value(r.Properties.NextHopType))}
		if route.Hop == dataplane.HopAppliance {
			route.Via, _ = addrOf(value(r.Properties.NextHopIPAddress))
		}
		table.Routes = append(table.Routes, route)
	}
	v.out.RouteTables = append(v.out.RouteTables, table)
	return table.ID
}

// shown is how people know a resource: "resourceGroup/name".
func shown(id resource.ID) string { return id.Group() + "/" + id.Name() }

// origin names a part of a resource, uniquely among resource groups:
// "rg/loadBalancers/kubernetes/outboundRules/aks".
func origin(id resource.ID, parts ...string) string {
	_, typ, _ := strings.Cut(id.Type(), "/")
	return strings.Join(append([]string{id.Group(), typ, id.Name()}, parts...), "/")
}

// peerings connects networks of which each names the other.
func (c *compiler) peerings() {
	for _, v := range c.vnets {
		for far, own := range c.peeringsOf(v) {
			back := c.peeringsOf(far)[v]
			c.use(v, far.item)
			if back == nil {
				continue
			}
			if allowed(own.AllowVirtualNetworkAccess) {
				v.reached = append(v.reached, far.prefixes...)
			}
			v.out.Peers = append(v.out.Peers, dataplane.Peer{VNet: far.out.ID, Origin: origin(v.item.doc.ID, "virtualNetworkPeerings", own.name),
				Prefixes: far.prefixes, Access: allowed(back.AllowVirtualNetworkAccess), Forwarded: value(own.AllowForwardedTraffic)})
		}
		slices.SortFunc(v.out.Peers, func(a, b dataplane.Peer) int { return strings.Compare(a.VNet, b.VNet) })
	}
}

// allowed is a peering's access, which is there unless it is denied.
func allowed(access *bool) bool { return access == nil || *access }

// peering is one side of a peering.
type peering struct {
	name string
	*sdk.VirtualNetworkPeeringPropertiesFormat
}

// peeringsOf are a network's peerings by the network they name.
func (c *compiler) peeringsOf(v *vnet) map[*vnet]*peering {
	found := map[*vnet]*peering{}
	model, _ := v.item.model.(*sdk.VirtualNetwork)
	if model.Properties == nil {
		return nil
	}
	for _, p := range model.Properties.VirtualNetworkPeerings {
		if p == nil || p.Properties == nil {
			continue
		}
		if far := c.byKey[keyOf(subID(p.Properties.RemoteVirtualNetwork))]; far != nil && far != v {
			found[far] = &peering{value(p.Name), p.Properties}
		}
	}
	return found
}
