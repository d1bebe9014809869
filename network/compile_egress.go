// SPDX-License-Identifier: Apache-2.0

package network

import (
	"net/netip"
	"slices"

	sdk "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v7"

	"bastide.dev/dataplane"
)

// Ports of a public address that outbound connections may come from: Azure's
// 64,000, after the well-known ones.
const (
	firstEgressPort = 1024
	egressPorts     = 64000
)

// egress gives each interface its way out, by Azure's order of precedence: the
// subnet's NAT gateway, an address of its own, outbound rules, load-balancing
// rules. Without any there is none.
func (c *compiler) egress() {
	balanced := c.outboundRules()
	for n, more := range c.implicitOutbound(balanced) {
		balanced[n] = more
	}
	for _, v := range c.vnets {
		gateways := map[string][]dataplane.Egress{}
		for _, n := range v.nics {
			address, public := c.publicAddress(v, n.public)
			if public != nil {
				v.out.Public = append(v.out.Public, dataplane.Public{Origin: origin(public.doc.ID), Address: address, Target: n.out.Address, Idle: publicIdle(public)})
			}
			switch gateway := c.gateway(v, n.subnet, gateways); {
			case len(gateway) > 0:
				n.out.Egress = gateway
			case public != nil:
				n.out.Egress = []dataplane.Egress{{Origin: origin(public.doc.ID), Address: address, Idle: publicIdle(public)}}
			default:
				n.out.Egress = balanced[n]
				if len(n.out.Egress) == 0 && value(n.subnet.Properties.DefaultOutboundAccess) {
					n.out.Egress = defaultOutbound(v.item.doc)
				}
			}
			v.out.NICs = append(v.out.NICs, n.out)
		}
	}
}

// publicIdle is how many seconds of silence connections by a public address survive.
func publicIdle(i *item) uint32 {
	model, ok := i.model.(*sdk.PublicIPAddress)
	if !ok || model.Properties == nil {
		return 0
	}
	return uint32(value(model.Properties.IdleTimeoutInMinutes)) * secondsPerMinute
}

// gateway is the way out through a subnet's NAT gateway, compiled once.
func (c *compiler) gateway(v *vnet, subnet *sdk.Subnet, known map[string][]dataplane.Egress) []dataplane.Egress {
	id := keyOf(subID(subnet.Properties.NatGateway))
	if id == "" {
		return nil
	}
	if egress, done := known[id]; done {
		return egress
	}
	i, model := lookup[sdk.NatGateway](c.inv, id)
	if model == nil || model.Properties == nil {
		return nil
	}
	var addresses []netip.Addr
	for _, reference := range model.Properties.PublicIPAddresses {
		if address, public := c.publicAddress(v, keyOf(subID(reference))); public != nil {
			addresses = append(addresses, address)
		}
	}
	for _, reference := range model.Properties.PublicIPPrefixes {
		if members, prefix := c.prefixAddresses(subID(reference)); prefix != nil {
			c.use(v, prefix)
			addresses = append(addresses, members...)
		}
	}
	var egress []dataplane.Egress
	for _, a := range addresses {
		egress = append(egress, dataplane.Egress{Origin: origin(i.doc.ID), Address: a,
			Idle: uint32(value(model.Properties.IdleTimeoutInMinutes)) * secondsPerMinute})
	}
	known[id] = egress
	return egress
}

// outboundRules are the ways out that outbound rules give to pools' members.
func (c *compiler) outboundRules() map[*nic][]dataplane.Egress {
	found := map[*nic][]dataplane.Egress{}
	for _, b := range c.loadBalancers() {
		for _, rule := range b.props.OutboundRules {
			if rule == nil || rule.Properties == nil {
				continue
			}
			p := rule.Properties
			members := c.members[keyOf(subID(p.BackendAddressPool))]
			c.backends(b, subID(p.BackendAddressPool))
			var addresses []netip.Addr
			for _, reference := range p.FrontendIPConfigurations {
				f := b.frontends[keyOf(subID(reference))]
				if f.vnet == nil {
					c.usedBy(members, f.items)
					addresses = append(addresses, f.addresses...)
				}
			}
			template := dataplane.Egress{Origin: origin(b.item.doc.ID, "outboundRules", value(rule.Name)),
				Idle: uint32(value(p.IdleTimeoutInMinutes)) * secondsPerMinute, Reset: value(p.EnableTCPReset)}
			for at, a := range addresses {
				template.Address = a
				c.deal(found, members, template, portsEach(value(p.AllocatedOutboundPorts), len(members), at, len(addresses)))
			}
		}
	}
	return found
}

func (c *compiler) usedBy(members []*nic, items []*item) {
	for _, n := range members {
		for _, i := range items {
			c.use(n.vnet, i)
		}
	}
}

// implicitOutbound is for members of pools that a load-balancing rule lets out
// and that no outbound rule does: the rule's public address, once however many
// rules name it.
func (c *compiler) implicitOutbound(explicit map[*nic][]dataplane.Egress) map[*nic][]dataplane.Egress {
	type way struct {
		address netip.Addr
		pool    string
	}
	found, seen := map[*nic][]dataplane.Egress{}, map[way]bool{}
	for _, b := range c.loadBalancers() {
		for _, rule := range b.props.LoadBalancingRules {
			if rule == nil || rule.Properties == nil || value(rule.Properties.DisableOutboundSnat) {
				continue
			}
			p := rule.Properties
			f, pool := b.frontends[keyOf(subID(p.FrontendIPConfiguration))], keyOf(subID(p.BackendAddressPool))
			if f.vnet != nil || len(f.addresses) != 1 || seen[way{f.addresses[0], pool}] {
				continue
			}
			seen[way{f.addresses[0], pool}] = true
			all := c.members[pool]
			c.usedBy(all, f.items)
			members := slices.DeleteFunc(slices.Clone(all), func(n *nic) bool { return len(explicit[n]) > 0 })
			template := dataplane.Egress{Origin: origin(b.item.doc.ID, "loadBalancingRules", value(rule.Name)), Address: f.addresses[0],
				Idle: uint32(value(p.IdleTimeoutInMinutes)) * secondsPerMinute}
			c.deal(found, members, template, portsEach(0, len(all), 0, 1))
		}
	}
	return found
}

// deal gives each member the next ports of an address, as long as there are any.
func (c *compiler) deal(to map[*nic][]dataplane.Egress, members []*nic, template dataplane.Egress, each uint32) {
	if each == 0 {
		return
	}
	for _, n := range members {
		next := c.blocks[template.Address]
		if next+each > egressPorts {
			return
		}
		c.blocks[template.Address] = next + each
		egress := template
		egress.First, egress.Last = uint16(firstEgressPort+next), uint16(firstEgressPort+next+each-1)
		to[n] = append(to[n], egress)
	}
}

// portsEach is how many ports a member has of the at-th of several addresses:
// its part of those allocated to it, or by the pool's size as many of each address.
func portsEach(allocated int32, members, at, addresses int) uint32 {
	if allocated > 0 {
		each := uint32(allocated) / uint32(addresses)
		if uint32(at) < uint32(allocated)%uint32(addresses) {
			each++
		}
		return each
	}
	for _, tier := range []struct {
		members int
		ports   uint32
	}{{50, 1024}, {100, 512}, {200, 256}, {400, 128}, {800, 64}} {
		if members <= tier.members {
			return tier.ports
		}
	}
	return 32
}
