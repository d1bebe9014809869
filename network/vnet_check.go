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
	"bastide.dev/resource"
)

// Azure's bounds of prefixes' lengths: of a network's ranges and of its subnets.
const (
	largestPrefix  = 8
	smallestPrefix = 29
)

// vnetCheck holds a virtual network as it shall be against Azure's rules, and
// against what uses it as it is.
type vnetCheck struct {
	p     *Provider
	f     *findings
	id    resource.ID
	next  *armnetwork.VirtualNetwork
	old   *armnetwork.VirtualNetwork
	space []netip.Prefix
	held  []*arm.Document // newly named: they must stay
}

func (c *vnetCheck) run(ctx context.Context) error {
	c.addressSpace()
	c.subnets()
	if err := c.links(ctx); err != nil {
		return err
	}
	if err := c.inUse(ctx); err != nil {
		return err
	}
	return c.peerings(ctx)
}

func (c *vnetCheck) addressSpace() {
	const list = "properties.addressSpace.addressPrefixes"
	texts := c.next.Properties.AddressSpace.AddressPrefixes
	if len(texts) == 0 {
		c.f.bad("InvalidRequestFormat", list, "Virtual network %s must have at least one address prefix.", c.id.Name())
	}
	for i, text := range texts {
		target := fmt.Sprintf("%s[%d]", list, i)
		prefix, ok := cidrAt(c.f, target, value(text), c.id)
		if !ok {
			continue
		}
		if prefix.Bits() < largestPrefix || prefix.Bits() > smallestPrefix {
			c.f.bad("InvalidAddressPrefixFormat", target, "Address prefix %s of resource %s must be between /%d and /%d.", prefix, c.id, largestPrefix, smallestPrefix)
		}
		for _, r := range append(reservedRanges(), c.p.PublicPool) {
			if r.Overlaps(prefix) {
				c.f.bad("AddressPrefixNotAllowed", target, "Address prefix %s of resource %s overlaps %s, which no virtual network can have.", prefix, c.id, r)
			}
		}
		for _, other := range c.space {
			if other.Overlaps(prefix) {
				c.f.bad("VnetAddressPrefixesOverlap", target, "Address prefixes %s and %s of virtual network %s overlap.", other, prefix, c.id.Name())
			}
		}
		c.space = append(c.space, prefix)
	}
}

// reservedRanges mean something else on every network.
func reservedRanges() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("169.254.0.0/16"),
		netip.MustParsePrefix("168.63.129.16/32"), netip.MustParsePrefix("224.0.0.0/3"),
	}
}

func (c *vnetCheck) subnets() {
	var seen []netip.Prefix
	var names []string
	for i, s := range c.next.Properties.Subnets {
		at := fmt.Sprintf("%s[%d].properties.", subnetList, i)
		target := at + "addressPrefix"
		texts := s.Properties.AddressPrefixes
		if single := value(s.Properties.AddressPrefix); single != "" {
			if len(texts) == 1 && value(texts[0]) != single {
				c.f.bad("InvalidRequestFormat", target, "addressPrefix and addressPrefixes of subnet %s differ: give one of them.", value(s.Name))
			}
			texts = []*string{&single}
		} else if len(texts) > 0 {
			target = at + "addressPrefixes[0]"
		}
		if len(texts) != 1 {
			problem := ipv6(at+"addressPrefixes", "a list of "+fmt.Sprint(len(texts)))
			problem.Message = fmt.Sprintf("Subnet %s must have exactly one address prefix.", value(s.Name))
			*c.f = append(*c.f, problem)
			continue
		}
		prefix, ok := cidrAt(c.f, target, value(texts[0]), c.id.Child("subnets", value(s.Name)))
		if !ok {
			continue
		}
		switch {
		case prefix.Bits() > smallestPrefix:
			c.f.bad("NetcfgInvalidSubnet", target, "Subnet '%s' is not valid in virtual network '%s': a subnet's prefix is /%d or larger.", value(s.Name), c.id.Name(), smallestPrefix)
		case !slices.ContainsFunc(c.space, func(p netip.Prefix) bool { return p.Overlaps(prefix) && p.Bits() <= prefix.Bits() }):
			c.f.bad("NetcfgInvalidSubnet", target, "Subnet '%s' is not valid in virtual network '%s'.", value(s.Name), c.id.Name())
		}
		for j, other := range seen {
			if other.Overlaps(prefix) {
				c.f.bad("NetcfgSubnetRangesOverlap", target, "Subnet '%s' is not valid because its IP address range overlaps with that of an existing subnet in virtual network '%s': %s of subnet '%s'.",
					value(s.Name), c.id.Name(), other, names[j])
			}
		}
		seen, names = append(seen, prefix), append(names, value(s.Name))
	}
}

// links are what subnets name: it must be there.
func (c *vnetCheck) links(ctx context.Context) error {
	for i, s := range c.next.Properties.Subnets {
		had := orEmpty(c.oldSubnet(value(s.Name)).Properties)
		at := fmt.Sprintf("%s[%d].properties.", subnetList, i)
		for _, l := range []struct {
			name, typ string
			id, old   *string
		}{
			{"networkSecurityGroup", typeNSG, orEmpty(s.Properties.NetworkSecurityGroup).ID, orEmpty(had.NetworkSecurityGroup).ID},
			{"routeTable", typeRouteTable, orEmpty(s.Properties.RouteTable).ID, orEmpty(had.RouteTable).ID},
			{"natGateway", typeNATGateway, orEmpty(s.Properties.NatGateway).ID, orEmpty(had.NatGateway).ID},
		} {
			if value(l.id) == "" || strings.EqualFold(value(l.id), value(l.old)) {
				continue // what was there can't have been deleted
			}
			id, ok := reference(c.f, at+l.name+".id", l.id, l.typ)
			if !ok {
				continue
			}
			d, err := c.p.referenced(ctx, c.f, c.id.Child("subnets", value(s.Name)), at+l.name+".id", id)
			if err != nil {
				return err
			}
			if d != nil {
				c.held = append(c.held, d)
			}
		}
	}
	return nil
}

func (c *vnetCheck) oldSubnet(name string) *armnetwork.Subnet {
	for _, s := range subnets(c.old) {
		if strings.EqualFold(value(s.Name), name) {
			return s
		}
	}
	return &armnetwork.Subnet{}
}

// inUse refuses to take away subnets, and ranges of subnets, in which something is.
func (c *vnetCheck) inUse(ctx context.Context) error {
	for _, old := range subnets(c.old) {
		i := slices.IndexFunc(c.next.Properties.Subnets, func(s *armnetwork.Subnet) bool { return strings.EqualFold(value(s.Name), value(old.Name)) })
		if i >= 0 && subnetPrefix(c.next.Properties.Subnets[i]) == subnetPrefix(old) {
			continue
		}
		id := c.id.Child("subnets", value(old.Name))
		users, err := c.p.references(ctx, id)
		if err != nil {
			return err
		}
		switch {
		case len(users) == 0:
		case i < 0:
			c.f.bad("InUseSubnetCannotBeDeleted", subnetList, "Subnet %s is in use by %s and cannot be deleted. In order to delete the subnet, delete all the resources within the subnet.",
				value(old.Name), nameList(users))
		default:
			c.f.bad("InUsePrefixCannotBeDeleted", fmt.Sprintf("%s[%d].properties.addressPrefix", subnetList, i),
				"IpPrefix %s on Subnet %s has active allocations and cannot be deleted: it is in use by %s.", subnetPrefix(old), value(old.Name), nameList(users))
		}
	}
	return nil
}
