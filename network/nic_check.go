// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v7"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// interfaceCheck judges an interface's IP configuration, and finds its address.
type interfaceCheck struct {
	p      *Provider
	f      *findings
	id     resource.ID
	old    *armnetwork.InterfaceIPConfigurationPropertiesFormat
	subnet resource.ID // root when there is none
	held   []*arm.Document
}

// config is what is kept of the configuration, but for its address.
func (c *interfaceCheck) config(ctx context.Context, in *armnetwork.InterfaceIPConfigurationPropertiesFormat) (*armnetwork.InterfaceIPConfigurationPropertiesFormat, error) {
	const at = configList + "[0].properties."
	kept := &armnetwork.InterfaceIPConfigurationPropertiesFormat{
		Primary:                 ptr(true),
		PrivateIPAddress:        in.PrivateIPAddress,
		PrivateIPAddressVersion: ptr(armnetwork.IPVersionIPv4),
		PrivateIPAllocationMethod: oneOf(c.f, at+"privateIPAllocationMethod", in.PrivateIPAllocationMethod,
			armnetwork.IPAllocationMethodDynamic, armnetwork.PossibleIPAllocationMethodValues()...),
		Subnet: &armnetwork.Subnet{ID: orEmpty(in.Subnet).ID},
	}
	if err := c.inSubnet(ctx, at+"subnet.id", value(kept.Subnet.ID)); err != nil {
		return nil, err
	}
	if id := publicID(in.PublicIPAddress); id != "" {
		kept.PublicIPAddress = &armnetwork.PublicIPAddress{ID: &id}
		if err := c.public(ctx, at+"publicIPAddress.id", id); err != nil {
			return nil, err
		}
	}
	for i, g := range present(in.ApplicationSecurityGroups) {
		kept.ApplicationSecurityGroups = append(kept.ApplicationSecurityGroups, &armnetwork.ApplicationSecurityGroup{ID: g.ID})
		if err := c.names(ctx, fmt.Sprintf("%sapplicationSecurityGroups[%d].id", at, i), value(g.ID), c.hadGroup(value(g.ID)), typeASG, ""); err != nil {
			return nil, err
		}
	}
	for i, b := range present(in.LoadBalancerBackendAddressPools) {
		kept.LoadBalancerBackendAddressPools = append(kept.LoadBalancerBackendAddressPools, &armnetwork.BackendAddressPool{ID: b.ID})
		if err := c.names(ctx, fmt.Sprintf("%sloadBalancerBackendAddressPools[%d].id", at, i), value(b.ID), "", typeLB+"/backendAddressPools", "properties.backendAddressPools"); err != nil {
			return nil, err
		}
	}
	for i, n := range present(in.LoadBalancerInboundNatRules) {
		kept.LoadBalancerInboundNatRules = append(kept.LoadBalancerInboundNatRules, &armnetwork.InboundNatRule{ID: n.ID})
		if err := c.names(ctx, fmt.Sprintf("%sloadBalancerInboundNatRules[%d].id", at, i), value(n.ID), "", typeLB+"/inboundNatRules", "properties.inboundNatRules"); err != nil {
			return nil, err
		}
	}
	return kept, nil
}

func (c *interfaceCheck) hadGroup(id string) string {
	for _, g := range present(c.old.ApplicationSecurityGroups) {
		if strings.EqualFold(value(g.ID), id) {
			return id
		}
	}
	return ""
}

// names checks that what a property names is there, unless it was named before.
// list is where it is in its parent's body, "" when it is a document.
func (c *interfaceCheck) names(ctx context.Context, target, text, had, typ, list string) error {
	if strings.EqualFold(text, had) && text != "" {
		return nil
	}
	id, ok := reference(c.f, target, &text, typ)
	if !ok {
		return nil
	}
	document := id
	if list != "" {
		document = id.Parent()
	}
	d, err := c.p.referenced(ctx, c.f, c.id, target, document)
	if err != nil || d == nil {
		return err
	}
	if list != "" {
		view, err := arm.ViewBase(d)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(arm.Elements(view, list), func(e map[string]any) bool { return strings.EqualFold(fmt.Sprint(e["name"]), id.Name()) }) {
			missingReference(c.f, c.id, target, id)
			return nil
		}
	}
	c.held = append(c.held, d)
	return nil
}

// inSubnet checks the subnet: it is there, in the network of the interface, and not given to a service.
func (c *interfaceCheck) inSubnet(ctx context.Context, target, text string) error {
	id, ok := reference(c.f, target, &text, typeSubnet)
	if !ok {
		return nil
	}
	d, err := c.p.referenced(ctx, c.f, c.id, target, id.Parent())
	if err != nil || d == nil {
		return err
	}
	vnet, err := readBody[armnetwork.VirtualNetwork](d)
	if err != nil {
		return err
	}
	all := subnets(vnet)
	i := slices.IndexFunc(all, func(s *armnetwork.Subnet) bool { return strings.EqualFold(value(s.Name), id.Name()) })
	switch had := parsedID(subnetID(c.old.Subnet)); {
	case i < 0:
		missingReference(c.f, c.id, target, id)
		return nil
	case !had.IsRoot() && !had.Parent().Equal(id.Parent()):
		c.f.bad("SubnetsNotInSameVnet", target, "Subnet %s is not in the same virtual network as subnet %s, which interface %s is in.", id, had, c.id)
		return nil
	case len(all[i].Properties.Delegations) > 0:
		c.f.bad("SubnetWithDelegationsCannotBeUsed", target, "Subnet %s can't have interface %s: it is delegated to %s.", id, c.id, delegatedService)
		return nil
	}
	c.subnet = id
	c.held = append(c.held, d)
	return nil
}

// public checks that a public address is there and no one else's.
func (c *interfaceCheck) public(ctx context.Context, target, text string) error {
	if err := c.names(ctx, target, text, publicID(c.old.PublicIPAddress), typePublicIP, ""); err != nil {
		return err
	}
	id := parsedID(text)
	users, err := c.p.usersOf(ctx, id)
	if err != nil {
		return err
	}
	for _, user := range users {
		if !user.Under(c.id) {
			c.f.bad("PublicIPAddressInUse", target, "Resource %s is referencing public IP address %s that is already allocated to resource %s.", c.id, id, user)
		}
	}
	return nil
}

// address keeps the address that the interface has, or takes one of the subnet.
func (c *interfaceCheck) address(ctx context.Context, config *armnetwork.InterfaceIPConfigurationPropertiesFormat) ([]store.Change, error) {
	const target = configList + "[0].properties.privateIPAddress"
	if c.subnet.IsRoot() {
		return nil, nil
	}
	had, wants := value(c.old.PrivateIPAddress), value(config.PrivateIPAddress)
	stays := strings.EqualFold(subnetID(c.old.Subnet), c.subnet.String()) && had != ""
	want := Want{}
	if value(config.PrivateIPAllocationMethod) == armnetwork.IPAllocationMethodStatic {
		if wants == "" && stays {
			wants = had
		}
		address, err := netip.ParseAddr(wants)
		switch {
		case wants == "":
			c.f.bad("PrivateIPAddressMissing", target, "Interface %s must have a private IP address: its allocation method is Static.", c.id)
			return nil, nil
		case err != nil:
			c.f.bad("InvalidIPAddressFormat", target, "The private IP address %s of interface %s isn't an IP address.", wants, c.id)
			return nil, nil
		case !address.Is4():
			*c.f = append(*c.f, ipv6(target, wants))
			return nil, nil
		}
		want.Address = address
	}
	if stays && (!want.Address.IsValid() || want.Address.String() == had) {
		config.PrivateIPAddress = &had
		return nil, nil
	}
	grants, changes, err := c.p.Allocate(ctx, c.subnet, []Want{want})
	if err != nil {
		if f := fault.From(err); f.Kind == fault.Invalid || f.Kind == fault.Exhausted {
			*c.f = append(*c.f, f.At(target))
			return nil, nil
		}
		return nil, err
	}
	config.PrivateIPAddress = ptr(grants[0].Address.String())
	return changes, nil
}
