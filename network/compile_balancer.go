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

const secondsPerMinute = 60

// frontend is where a load balancer listens.
type frontend struct {
	addresses []netip.Addr // several: of a public prefix, for outbound rules
	vnet      *vnet        // of an internal one
	items     []*item      // the public addresses' documents
}

// balancer is a load balancer while it is compiled.
type balancer struct {
	item      *item
	props     *sdk.LoadBalancerPropertiesFormat
	frontends map[string]frontend // by key
}

// balancers gives each network the rules of the load balancers that have a
// front end or back ends in it.
func (c *compiler) balancers() {
	for _, b := range c.loadBalancers() {
		for _, rule := range b.props.LoadBalancingRules {
			if rule != nil && rule.Properties != nil {
				c.balancingRule(b, value(rule.Name), rule.Properties)
			}
		}
		for _, rule := range b.props.InboundNatRules {
			if rule != nil && rule.Properties != nil {
				c.natRule(b, value(rule.Name), rule.Properties)
			}
		}
	}
}

func (c *compiler) loadBalancers() []*balancer {
	var found []*balancer
	for i, lb := range all[sdk.LoadBalancer](c.inv, typeLB) {
		if lb.Properties == nil {
			continue
		}
		b := &balancer{item: i, props: lb.Properties, frontends: map[string]frontend{}}
		for _, f := range frontends(lb) {
			b.frontends[i.doc.ID.Child("frontendIPConfigurations", value(f.Name)).Key()] = c.frontend(b, f.Properties)
		}
		found = append(found, b)
	}
	return found
}

func (c *compiler) frontend(b *balancer, p *sdk.FrontendIPConfigurationPropertiesFormat) frontend {
	if p.Subnet != nil {
		address, ok := addrOf(value(p.PrivateIPAddress))
		v := c.byKey[parsedID(subnetID(p.Subnet)).Parent().Key()]
		if !ok || v == nil {
			return frontend{}
		}
		c.use(v, b.item)
		return frontend{addresses: []netip.Addr{address}, vnet: v}
	}
	if id := subID(p.PublicIPPrefix); id != "" {
		addresses, i := c.prefixAddresses(id)
		return frontend{addresses: addresses, items: []*item{i}}
	}
	address, i := c.publicAddress(nil, keyOf(publicID(p.PublicIPAddress)))
	if i == nil {
		return frontend{}
	}
	return frontend{addresses: []netip.Addr{address}, items: []*item{i}}
}

// prefixAddresses are all addresses of a public prefix.
func (c *compiler) prefixAddresses(id string) ([]netip.Addr, *item) {
	i, model := lookup[sdk.PublicIPPrefix](c.inv, id)
	if model == nil || model.Properties == nil {
		return nil, nil
	}
	prefix, ok := prefixOf(value(model.Properties.IPPrefix))
	if !ok {
		return nil, nil
	}
	return addressesOf(prefix), i
}

// backends are a pool's interfaces by the network they are in. Every network
// that has one depends on the load balancer.
func (c *compiler) backends(b *balancer, pool string) map[*vnet][]*nic {
	found := map[*vnet][]*nic{}
	for _, n := range c.members[keyOf(pool)] {
		found[n.vnet] = append(found[n.vnet], n)
		c.use(n.vnet, b.item)
	}
	return found
}

// eachNetwork are the networks that a rule is compiled for, in order: those of
// its back ends, and an internal front end's even without any.
func (c *compiler) eachNetwork(f frontend, members map[*vnet][]*nic) []*vnet {
	if f.vnet != nil {
		return []*vnet{f.vnet}
	}
	var found []*vnet
	for _, v := range c.vnets {
		if len(members[v]) > 0 {
			found = append(found, v)
		}
	}
	return found
}

func (c *compiler) balancingRule(b *balancer, name string, p *sdk.LoadBalancingRulePropertiesFormat) {
	f := b.frontends[keyOf(subID(p.FrontendIPConfiguration))]
	if len(f.addresses) != 1 {
		return
	}
	pools := p.BackendAddressPools
	if p.BackendAddressPool != nil {
		pools = []*sdk.SubResource{p.BackendAddressPool}
	}
	members := map[*vnet][]*nic{}
	for _, pool := range pools {
		for v, nics := range c.backends(b, subID(pool)) {
			members[v] = append(members[v], nics...)
		}
	}
	for _, v := range c.eachNetwork(f, members) {
		for _, i := range f.items {
			c.use(v, i)
		}
		rule := dataplane.Balancer{Origin: origin(b.item.doc.ID, "loadBalancingRules", name), Address: f.addresses[0],
			Protocol: protocolNumber(string(value(p.Protocol))), Floating: value(p.EnableFloatingIP),
			Affinity: dataplane.Affinity(value(p.LoadDistribution)), Reset: value(p.EnableTCPReset),
			Idle: uint32(value(p.IdleTimeoutInMinutes)) * secondsPerMinute}
		if rule.Protocol != 0 { // else all of them on all ports
			rule.Ports = ports(value(p.FrontendPort), value(p.FrontendPort))
			rule.BackendPort = uint16(value(p.BackendPort))
		}
		for _, n := range members[v] {
			rule.Backends = append(rule.Backends, n.out.ID)
		}
		if p.Probe != nil {
			rule.Probe = v.probe(b, subID(p.Probe))
		}
		v.out.Balancers = append(v.out.Balancers, rule)
	}
}

func ports(first, last int32) dataplane.Ports {
	return dataplane.Ports{First: uint16(first), Last: uint16(last)}
}

// probe is the ID of a load balancer's probe, which the network has from now on.
func (v *vnet) probe(b *balancer, id string) string {
	name := parsedID(id).Name()
	at := slices.IndexFunc(b.props.Probes, func(p *sdk.Probe) bool {
		return p != nil && p.Properties != nil && strings.EqualFold(value(p.Name), name)
	})
	if at < 0 {
		return ""
	}
	p := b.props.Probes[at].Properties
	probe := dataplane.Probe{ID: origin(b.item.doc.ID, "probes", value(b.props.Probes[at].Name)),
		Protocol: string(value(p.Protocol)), Port: uint16(value(p.Port)), Path: value(p.RequestPath),
		Interval: int(value(p.IntervalInSeconds)), Failures: int(max(value(p.ProbeThreshold), value(p.NumberOfProbes), 1))}
	if !slices.ContainsFunc(v.out.Probes, func(have dataplane.Probe) bool { return have.ID == probe.ID }) {
		v.out.Probes = append(v.out.Probes, probe)
	}
	return probe.ID
}

// natRule is an inbound NAT rule: of one interface, or, over a range of ports,
// of a pool, whose members have a port each in their order.
func (c *compiler) natRule(b *balancer, name string, p *sdk.InboundNatRulePropertiesFormat) {
	f := b.frontends[keyOf(subID(p.FrontendIPConfiguration))]
	if len(f.addresses) != 1 {
		return
	}
	id := b.item.doc.ID.Child("inboundNatRules", name)
	if p.BackendAddressPool == nil {
		if members := c.members[id.Key()]; len(members) > 0 {
			c.natPort(b, f, id, p, members[0], value(p.FrontendPort))
		}
		return
	}
	c.backends(b, subID(p.BackendAddressPool))
	for i, n := range c.members[keyOf(subID(p.BackendAddressPool))] {
		if port := value(p.FrontendPortRangeStart) + int32(i); port <= value(p.FrontendPortRangeEnd) {
			c.natPort(b, f, id, p, n, port)
		}
	}
}

func (c *compiler) natPort(b *balancer, f frontend, id resource.ID, p *sdk.InboundNatRulePropertiesFormat, n *nic, port int32) {
	c.use(n.vnet, b.item)
	for _, i := range f.items {
		c.use(n.vnet, i)
	}
	rule := dataplane.Balancer{Origin: origin(b.item.doc.ID, "inboundNatRules", id.Name()), Address: f.addresses[0],
		Protocol: protocolNumber(string(value(p.Protocol))), Floating: value(p.EnableFloatingIP), Reset: value(p.EnableTCPReset),
		Idle: uint32(value(p.IdleTimeoutInMinutes)) * secondsPerMinute, Backends: []string{n.out.ID}}
	if rule.Protocol != 0 {
		rule.Ports, rule.BackendPort = ports(port, port), uint16(value(p.BackendPort))
	}
	n.vnet.out.Balancers = append(n.vnet.out.Balancers, rule)
}
