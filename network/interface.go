// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"net/netip"
	"strings"

	compute "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/compute/armcompute/v7"
	sdk "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v7"

	"bastide.dev/fault"
	"bastide.dev/resource"
)

// InterfaceInfo is what a machine needs to know of its network interface.
type InterfaceInfo struct {
	ID       resource.ID
	Location string
	Address  netip.Addr
	Public   netip.Addr  // its own public address, when it has one
	Owner    resource.ID // the virtual machine that has it; the root: none
}

// Interface reads a network interface; fault.NotFound when there is none.
func (p *Provider) Interface(ctx context.Context, id resource.ID) (InterfaceInfo, error) {
	inv, err := p.inventory(ctx)
	if err != nil {
		return InterfaceInfo{}, err
	}
	found := inv.items[id.Key()]
	if found == nil || found.gone() {
		return InterfaceInfo{}, fault.New(fault.NotFound, "ResourceNotFound", "The network interface %s was not found.", id)
	}
	info := InterfaceInfo{ID: found.doc.ID, Location: found.doc.Location}
	nic, _ := found.model.(*sdk.Interface)
	if nic != nil && nic.Properties != nil {
		for _, c := range nic.Properties.IPConfigurations {
			if c == nil || c.Properties == nil || c.Properties.PrivateIPAddress == nil || info.Address.IsValid() {
				continue
			}
			if info.Address, err = netip.ParseAddr(*c.Properties.PrivateIPAddress); err != nil {
				return info, err
			}
			if public := c.Properties.PublicIPAddress; public != nil && public.ID != nil {
				info.Public = inv.publicOf(*public.ID)
			}
		}
	}
	info.Owner = inv.ownerOf(id)
	return info, nil
}

// publicOf is a public address by the id of its resource.
func (inv *inventory) publicOf(text string) netip.Addr {
	id, err := resource.ParseID(text)
	if err != nil || inv.items[id.Key()] == nil {
		return netip.Addr{}
	}
	ip, _ := inv.items[id.Key()].model.(*sdk.PublicIPAddress)
	if ip == nil || ip.Properties == nil || ip.Properties.IPAddress == nil {
		return netip.Addr{}
	}
	address, _ := netip.ParseAddr(*ip.Properties.IPAddress) // our own; the zero address is none
	return address
}

// ownerOf is the virtual machine that names an interface.
func (inv *inventory) ownerOf(nic resource.ID) resource.ID {
	for _, vm := range inv.types[typeVM] {
		model, _ := vm.model.(*compute.VirtualMachine)
		if model == nil || model.Properties == nil || model.Properties.NetworkProfile == nil {
			continue
		}
		for _, n := range model.Properties.NetworkProfile.NetworkInterfaces {
			if n != nil && n.ID != nil && strings.EqualFold(*n.ID, nic.String()) {
				return vm.doc.ID
			}
		}
	}
	return resource.ID{}
}

// SubnetOf is the subnet of a network interface; the root when it has none.
func (p *Provider) SubnetOf(ctx context.Context, nic resource.ID) (resource.ID, error) {
	inv, err := p.inventory(ctx)
	if err != nil {
		return resource.ID{}, err
	}
	found := inv.items[nic.Key()]
	if found == nil {
		return resource.ID{}, nil
	}
	model, _ := found.model.(*sdk.Interface)
	if model == nil || model.Properties == nil {
		return resource.ID{}, nil
	}
	for _, c := range model.Properties.IPConfigurations {
		if c != nil && c.Properties != nil && c.Properties.Subnet != nil && c.Properties.Subnet.ID != nil {
			return resource.ParseID(*c.Properties.Subnet.ID)
		}
	}
	return resource.ID{}, nil
}
