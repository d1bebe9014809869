// SPDX-License-Identifier: Apache-2.0

package network

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	sdk "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v7"

	"bastide.dev/dataplane"
)

// servers puts API servers into their networks, and into those that have a
// private endpoint to them.
func (c *compiler) servers() {
	for _, s := range c.inv.servers {
		if v := c.byKey[s.Subnet.Parent().Key()]; v != nil && s.Address.IsValid() {
			c.server(v, s)
		}
	}
	for i, endpoint := range all[sdk.PrivateEndpoint](c.inv, typeEndpoint) {
		if endpoint.Properties != nil {
			c.endpoint(i, endpoint.Properties)
		}
	}
}

func (c *compiler) server(v *vnet, s Server) {
	name := origin(s.Cluster)
	out := dataplane.NIC{ID: shortID("a", s.Cluster.Key()), Namespace: s.Namespace, Address: s.Address, Subnet: s.Subnet.Name(), Platform: true}
	if s.Public.IsValid() {
		out.Egress = []dataplane.Egress{{Origin: name, Address: s.Public}}
	}
	if s.Public.IsValid() && !s.Private {
		public := dataplane.Public{Origin: name, Address: s.Public, Port: s.Port, Target: s.Address, TPort: s.Port, Restricted: s.Restricted}
		if s.Restricted {
			public.Allowed = merged(append(v.sources(), s.Allowed...))
		}
		v.out.Public = append(v.out.Public, public)
	}
	v.out.NICs = append(v.out.NICs, out)
	if s.FQDN != "" {
		v.name(s.FQDN, s.Address)
	}
}

// sources are the public addresses that a network's interfaces send from: their
// own API server lets them in, whatever ranges are authorised.
func (v *vnet) sources() []netip.Prefix {
	var all []netip.Prefix
	for _, n := range v.nics {
		for _, e := range n.out.Egress {
			all = append(all, netip.PrefixFrom(e.Address, e.Address.BitLen()))
		}
	}
	return all
}

// endpoint is a private endpoint: a further interface of the API server, in the endpoint's subnet.
func (c *compiler) endpoint(i *item, p *sdk.PrivateEndpointProperties) {
	subnet := parsedID(subnetID(p.Subnet))
	address, ok := endpointAddress(&sdk.PrivateEndpoint{Properties: p})
	v := c.byKey[subnet.Parent().Key()]
	s := c.endpointServer(p)
	if !ok || v == nil || s == nil {
		return
	}
	c.use(v, i)
	if address == s.Address && subnet.Equal(s.Subnet) {
		return // the cluster's own endpoint: its API server's interface has that address
	}
	id := shortID("e", i.doc.ID.Key())
	v.out.NICs = append(v.out.NICs, dataplane.NIC{ID: id, Namespace: s.Namespace, Link: id, Address: address, Subnet: subnet.Name(), Platform: true})
}

// endpointServer is the API server that a private endpoint leads to.
func (c *compiler) endpointServer(p *sdk.PrivateEndpointProperties) *Server {
	for _, connection := range slices.Concat(p.PrivateLinkServiceConnections, p.ManualPrivateLinkServiceConnections) {
		if connection == nil || connection.Properties == nil {
			continue
		}
		target := keyOf(value(connection.Properties.PrivateLinkServiceID))
		for i := range c.inv.servers {
			if c.inv.servers[i].Cluster.Key() == target {
				return &c.inv.servers[i]
			}
		}
	}
	return nil
}

// edge is what the machine has of all networks together: public names, and
// terminals on the instance's Internet.
func (c *compiler) edge() dataplane.Edge {
	edge := dataplane.Edge{Pools: []netip.Prefix{c.Pool}, FrontDoor: c.FrontDoor, Names: slices.Clone(c.Names)}
	for i, t := range all[Terminal](c.inv, typeTerminal) {
		if t.Properties == nil {
			continue
		}
		if address, ok := addrOf(t.Properties.Address); ok {
			edge.Terminals = append(edge.Terminals, dataplane.Terminal{ID: terminalID(i.doc.ID), Namespace: terminalID(i.doc.ID), Address: address})
		}
	}
	for _, s := range c.inv.servers {
		address := s.Public
		if s.Private {
			address = s.Address
		}
		if s.FQDN != "" && address.IsValid() {
			edge.Names = append(edge.Names, dataplane.Name{Name: s.FQDN, Addresses: []netip.Addr{address}})
		}
	}
	for _, p := range all[sdk.PublicIPAddress](c.inv, typePublicIP) {
		if p.Properties == nil || p.Properties.DNSSettings == nil {
			continue
		}
		address, ok := addrOf(value(p.Properties.IPAddress))
		if label := value(p.Properties.DNSSettings.DomainNameLabel); ok && label != "" {
			edge.Names = append(edge.Names, dataplane.Name{Name: strings.ToLower(label) + "." + c.Location + ".cloudapp." + c.Domain, Addresses: []netip.Addr{address}})
		}
	}
	slices.SortStableFunc(edge.Names, func(a, b dataplane.Name) int { return cmp.Compare(a.Name, b.Name) })
	return edge
}
