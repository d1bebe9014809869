// SPDX-License-Identifier: Apache-2.0

package network

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v7"

	"bastide.dev/resource"
)

// balancerCheck holds a load balancer in normal form against Azure's rules and
// against everything else there is. It finds every problem at once.
type balancerCheck struct {
	findings
	id       resource.ID
	lb       *armnetwork.LoadBalancerPropertiesFormat
	inv      *inventory
	location string

	members map[string][]resource.ID // of pools and NAT rules, by key
	used    []listener               // what rules listen on so far
}

// listener is what a rule takes of a front end.
type listener struct {
	rule, frontend string
	protocol       armnetwork.TransportProtocol
	port           int32
}

func (c *balancerCheck) check() {
	c.members = c.inv.members()
	c.frontends()
	for i, e := range c.lb.BackendAddressPools {
		c.pool(part(listPools, i)+".properties.", e)
	}
	for i, e := range c.lb.Probes {
		c.probe(part(listProbes, i)+".properties.", e)
	}
	for i, e := range c.lb.LoadBalancingRules {
		c.rule(part(listRules, i)+".properties.", e)
	}
	c.sharedBackends()
	for i, e := range c.lb.InboundNatRules {
		c.nat(part(listNAT, i)+".properties.", e)
	}
	for i, e := range c.lb.OutboundRules {
		c.outbound(part(listOutbound, i)+".properties.", i, e)
	}
}

// child is the id of a part of this load balancer.
func (c *balancerCheck) child(list, name string) resource.ID { return c.id.Child(list, name) }

// find resolves a reference to another part of the same load balancer.
func (c *balancerCheck) find(by resource.ID, target, list string, ref *armnetwork.SubResource, names func() []*string) (string, bool) {
	text := subID(ref)
	id, err := resource.ParseID(text)
	if text == "" || err != nil {
		c.bad("InvalidRequestFormat", target, "%s must have the id of one of the load balancer's %s.", target, list)
		return "", false
	}
	for _, name := range names() {
		if id.Equal(c.child(list, value(name))) {
			return strings.ToLower(value(name)), true
		}
	}
	missingReference(&c.findings, by, target, id)
	return "", false
}

func (c *balancerCheck) frontendNames() []*string {
	return namesOf(c.lb.FrontendIPConfigurations, func(e *armnetwork.FrontendIPConfiguration) *string { return e.Name })
}

func (c *balancerCheck) poolNames() []*string {
	return namesOf(c.lb.BackendAddressPools, func(e *armnetwork.BackendAddressPool) *string { return e.Name })
}

func (c *balancerCheck) probeNames() []*string {
	return namesOf(c.lb.Probes, func(e *armnetwork.Probe) *string { return e.Name })
}

func namesOf[T any](list []*T, name func(*T) *string) []*string {
	names := make([]*string, len(list))
	for i, e := range list {
		names[i] = name(e)
	}
	return names
}

// public tells whether a front end has a public address.
func (c *balancerCheck) public(name string) bool {
	for _, e := range c.lb.FrontendIPConfigurations {
		if strings.EqualFold(value(e.Name), name) {
			return e.Properties.Subnet == nil
		}
	}
	return false
}

// frontends: each has a public address, a public prefix or a subnet, and all are public or none is.
func (c *balancerCheck) frontends() {
	public, internal := 0, 0
	vnet := ""
	for i, e := range c.lb.FrontendIPConfigurations {
		at := part(listFrontends, i) + ".properties."
		props := e.Properties
		given := 0
		for _, is := range []bool{props.PublicIPAddress != nil, props.PublicIPPrefix != nil, props.Subnet != nil} {
			if is {
				given++
			}
		}
		switch {
		case given != 1:
			c.bad("FrontendIPConfigurationMustHaveSubnetOrPublicIPAddress", strings.TrimSuffix(at, "."),
				"Frontend IP configuration %s must reference either a subnet, a public IP address or a public IP prefix.", c.child(listFrontends, value(e.Name)))
		case props.PublicIPAddress != nil:
			public++
			c.publicAddress(at+"publicIPAddress", c.child(listFrontends, value(e.Name)), props, props.PublicIPAddress.ID, typePublicIP)
		case props.PublicIPPrefix != nil:
			public++
			c.publicAddress(at+"publicIPPrefix", c.child(listFrontends, value(e.Name)), props, props.PublicIPPrefix.ID, typePrefix)
		default:
			internal++
			its := keyOf(parsedID(subnetID(props.Subnet)).Parent().String())
			if vnet != "" && its != vnet {
				c.bad("LoadBalancerFrontendsInDifferentVirtualNetworks", at+"subnet", "All front ends of the internal load balancer %s must be in subnets of one virtual network.", c.id)
			}
			vnet = its
		}
	}
	if public > 0 && internal > 0 {
		c.bad("LoadBalancerFrontendIPConfigurationsOfDifferentTypes", "properties."+listFrontends,
			"Load balancer %s can't have both public and internal frontend IP configurations.", c.id)
	}
}

// publicAddress checks the public address or prefix that a front end names.
func (c *balancerCheck) publicAddress(target string, frontend resource.ID, props *armnetwork.FrontendIPConfigurationPropertiesFormat, text *string, typ string) {
	if *props.PrivateIPAllocationMethod == armnetwork.IPAllocationMethodStatic || value(props.PrivateIPAddress) != "" {
		c.bad("PublicFrontendCannotHavePrivateIPAddress", target, "Frontend IP configuration %s has a public IP address and can't have a private one.", frontend)
	}
	id, ok := reference(&c.findings, target, text, typ)
	if !ok {
		return
	}
	address := c.inv.items[id.Key()]
	switch {
	case address == nil:
		missingReference(&c.findings, frontend, target, id)
		return
	case address.gone():
		c.bad("ReferencedResourceNotProvisioned", target, "Cannot proceed with operation because resource %s used by resource %s is not in Succeeded state. Resource is in %s state.", id, frontend, address.doc.ProvisioningState)
		return
	}
	for _, e := range c.lb.FrontendIPConfigurations {
		other := c.child(listFrontends, value(e.Name))
		if strings.EqualFold(outsideOf(e.Properties), id.String()) && !other.Equal(frontend) {
			c.publicInUse(target, frontend, id, other)
			return
		}
	}
	for _, user := range c.inv.users(id) {
		if !user.Under(c.id) {
			c.publicInUse(target, frontend, id, user)
		}
	}
}

func (f *findings) publicInUse(target string, by, address, user resource.ID) {
	f.bad("PublicIPAddressInUse", target, "Resource %s is referencing public IP address %s that is already allocated to resource %s.", by, address, user)
}

// alone refuses a rule on a front end that has a whole prefix: packets come to one address.
func (c *balancerCheck) alone(target string, rule resource.ID, frontend string) {
	for _, e := range c.lb.FrontendIPConfigurations {
		if strings.EqualFold(value(e.Name), frontend) && e.Properties.PublicIPPrefix != nil {
			c.bad("PublicIPPrefixFrontendIsForOutboundRules", target, "Rule %s can't use frontend IP configuration %s, which has a public IP prefix: that is for outbound rules.", rule, frontend)
		}
	}
}

// addresses is how many public addresses front ends have together.
func (c *balancerCheck) addresses(refs []*armnetwork.SubResource) int {
	count := 0
	for _, ref := range refs {
		for _, e := range c.lb.FrontendIPConfigurations {
			if keyOf(subID(ref)) != c.child(listFrontends, value(e.Name)).Key() {
				continue
			}
			count++
			if prefix := c.inv.items[keyOf(subID(e.Properties.PublicIPPrefix))]; prefix != nil {
				if block, err := blockOf(prefix.doc); err == nil {
					count += len(addressesOf(block)) - 1
				}
			}
		}
	}
	return count
}

// pool checks members that are named by their addresses.
func (c *balancerCheck) pool(at string, e *armnetwork.BackendAddressPool) {
	props := e.Properties
	if location := value(props.Location); location != "" && resource.NormalizeLocation(location) != c.location {
		c.bad("InvalidResourceLocation", at+"location", "The location %s of a back-end address pool must be its load balancer's, %s.", location, c.location)
	}
	if props.VirtualNetwork != nil {
		c.vnet(at+"virtualNetwork", c.child(listPools, value(e.Name)), props.VirtualNetwork)
	}
	seen := map[string]bool{}
	for i, a := range props.LoadBalancerBackendAddresses {
		at := fmt.Sprintf("%sloadBalancerBackendAddresses[%d].", at, i)
		address, err := netip.ParseAddr(value(a.Properties.IPAddress))
		if err != nil || !address.Is4() {
			c.bad("InvalidIPAddress", at+"properties.ipAddress", "%q isn't an IPv4 address.", value(a.Properties.IPAddress))
			continue
		}
		for _, key := range []string{"name " + strings.ToLower(value(a.Name)), address.String()} {
			if seen[key] {
				c.bad("DuplicateBackendAddress", at+"name", "Back-end address pool %s has %s twice.", c.child(listPools, value(e.Name)), key)
			}
			seen[key] = true
		}
		switch own := a.Properties.VirtualNetwork; {
		case own != nil:
			c.vnet(at+"properties.virtualNetwork", c.child(listPools, value(e.Name)), own)
		case props.VirtualNetwork == nil && subID(a.Properties.Subnet) == "":
			c.bad("BackendAddressMustHaveVirtualNetwork", at+"properties.virtualNetwork", "The back-end address %s needs a virtual network: set virtualNetwork of the pool or of the address.", address)
		}
	}
}

func (c *balancerCheck) vnet(target string, by resource.ID, ref *armnetwork.SubResource) {
	if id, ok := reference(&c.findings, target, ref.ID, typeVNet); ok && c.inv.items[id.Key()] == nil {
		missingReference(&c.findings, by, target, id)
	}
}

// removed refuses to take away a pool or a NAT rule that interfaces are in.
func (c *balancerCheck) removed(old *armnetwork.LoadBalancer) {
	if old.Properties == nil {
		return
	}
	kept := map[string]bool{}
	for _, name := range c.poolNames() {
		kept[c.child(listPools, value(name)).Key()] = true
	}
	for _, e := range c.lb.InboundNatRules {
		kept[c.child(listNAT, value(e.Name)).Key()] = true
	}
	for key, members := range c.members {
		if strings.HasPrefix(key, c.id.Key()+"/") && !kept[key] {
			c.findings = append(c.findings, inUse(c.id, members[0]).At("properties"))
		}
	}
}
