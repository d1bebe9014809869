// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"slices"
	"strings"

	compute "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/compute/armcompute/v7"
	sdk "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v7"

	"bastide.dev/resource"
)

// usersOf lists what has a public address or a public prefix: front ends,
// interfaces' configurations, NAT gateways and, of a prefix, addresses made from it.
// What is being deleted counts until it is gone.
func (p *Provider) usersOf(ctx context.Context, id resource.ID) ([]resource.ID, error) {
	inv, err := p.inventory(ctx)
	if err != nil {
		return nil, err
	}
	return inv.users(id), nil
}

func (inv *inventory) users(id resource.ID) []resource.ID {
	var found []resource.ID
	is := func(text string) bool { return strings.EqualFold(text, id.String()) }
	for _, i := range inv.types[typeLB] {
		lb, _ := i.model.(*sdk.LoadBalancer)
		for _, f := range frontends(lb) {
			if is(publicID(f.Properties.PublicIPAddress)) || is(subID(f.Properties.PublicIPPrefix)) {
				found = append(found, i.doc.ID.Child("frontendIPConfigurations", value(f.Name)))
			}
		}
	}
	for _, i := range inv.types[typeNIC] {
		nic, _ := i.model.(*sdk.Interface)
		for _, c := range nicConfigs(nic) {
			if is(publicID(c.Properties.PublicIPAddress)) {
				found = append(found, i.doc.ID.Child("ipConfigurations", value(c.Name)))
			}
		}
	}
	for _, i := range inv.types[typeNATGateway] {
		gateway, _ := i.model.(*sdk.NatGateway)
		if gateway.Properties != nil && slices.ContainsFunc(slices.Concat(gateway.Properties.PublicIPAddresses, gateway.Properties.PublicIPPrefixes),
			func(s *sdk.SubResource) bool { return is(subID(s)) }) {
			found = append(found, i.doc.ID)
		}
	}
	for _, i := range inv.types[typePublicIP] {
		address, _ := i.model.(*sdk.PublicIPAddress)
		if address.Properties != nil && is(subID(address.Properties.PublicIPPrefix)) {
			found = append(found, i.doc.ID)
		}
	}
	return found
}

func publicID(a *sdk.PublicIPAddress) string {
	if a == nil {
		return ""
	}
	return value(a.ID)
}

func subnetID(s *sdk.Subnet) string {
	if s == nil {
		return ""
	}
	return value(s.ID)
}

// frontends are the front ends of a load balancer that have properties.
func frontends(lb *sdk.LoadBalancer) []*sdk.FrontendIPConfiguration {
	if lb == nil || lb.Properties == nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(lb.Properties.FrontendIPConfigurations),
		func(f *sdk.FrontendIPConfiguration) bool { return f == nil || f.Properties == nil })
}

// nicConfigs are the IP configurations of an interface that have properties.
func nicConfigs(nic *sdk.Interface) []*sdk.InterfaceIPConfiguration {
	if nic == nil || nic.Properties == nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(nic.Properties.IPConfigurations),
		func(c *sdk.InterfaceIPConfiguration) bool { return c == nil || c.Properties == nil })
}

// members lists, by the key of each back-end pool or inbound NAT rule, the
// interfaces' configurations that say they are in it.
func (inv *inventory) members() map[string][]resource.ID {
	found := map[string][]resource.ID{}
	join := func(text string, config resource.ID) {
		key := keyOf(text)
		if key != "" && !slices.ContainsFunc(found[key], config.Equal) {
			found[key] = append(found[key], config)
		}
	}
	for _, i := range inv.types[typeNIC] {
		nic, _ := i.model.(*sdk.Interface)
		for _, c := range nicConfigs(nic) {
			config := i.doc.ID.Child("ipConfigurations", value(c.Name))
			for _, pool := range c.Properties.LoadBalancerBackendAddressPools {
				if pool != nil {
					join(value(pool.ID), config)
				}
			}
			for _, rule := range c.Properties.LoadBalancerInboundNatRules {
				if rule != nil {
					join(value(rule.ID), config)
				}
			}
		}
	}
	for _, i := range inv.types[typeInstance] {
		vm, _ := i.model.(*compute.VirtualMachineScaleSetVM)
		for _, c := range instanceConfigs(vm) {
			nic, name, _ := strings.Cut(c.name, "/")
			config := i.doc.ID.Child("networkInterfaces", nic).Child("ipConfigurations", name)
			for _, pool := range c.config.LoadBalancerBackendAddressPools {
				if pool != nil {
					join(value(pool.ID), config)
				}
			}
		}
	}
	return found
}

// subnetsOf lists the subnets for which pick gives the id.
func (inv *inventory) subnetsOf(id resource.ID, pick func(*sdk.SubnetPropertiesFormat) string) []resource.ID {
	var found []resource.ID
	for _, i := range inv.types[typeVNet] {
		vnet, _ := i.model.(*sdk.VirtualNetwork)
		if vnet.Properties == nil {
			continue
		}
		for _, s := range vnet.Properties.Subnets {
			if s != nil && s.Properties != nil && strings.EqualFold(pick(s.Properties), id.String()) {
				found = append(found, i.doc.ID.Child("subnets", value(s.Name)))
			}
		}
	}
	return found
}
