// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v7"

	"bastide.dev/arm"
	"bastide.dev/fault"
)

// offered is how many free addresses are named in place of one that isn't free.
const offered = 5

// checkAddress answers GET …/CheckIPAddressAvailability?ipAddress=.
func (p *Provider) checkAddress(ctx context.Context, r *arm.Request) (any, error) {
	text := ""
	for name, values := range r.Query {
		if strings.EqualFold(name, "ipAddress") && len(values) > 0 {
			text = values[0]
		}
	}
	address, err := netip.ParseAddr(text)
	if err != nil {
		return nil, fault.New(fault.Invalid, "InvalidIPAddressFormat", "The query parameter ipAddress '%s' isn't an IP address.", text).At("ipAddress")
	}
	inv, err := p.inventory(ctx)
	if err != nil {
		return nil, err
	}
	_, vnet := lookup[armnetwork.VirtualNetwork](inv, r.Parent.ID.String())
	if vnet == nil {
		return nil, fault.New(fault.NotFound, "NotFound", "Virtual network %s was not found.", r.Parent.ID)
	}
	for _, s := range subnets(vnet) {
		prefix := subnetPrefix(s)
		if !prefix.IsValid() || !prefix.Contains(address) {
			continue
		}
		reserved := !slices.ContainsFunc(usable(prefix), func(u span) bool { return u.contains(address) })
		free := freeIn(prefix, inv.takenIn(r.Parent.ID.Child("subnets", value(s.Name))))
		available := slices.ContainsFunc(free, func(u span) bool { return u.contains(address) })
		answer := map[string]any{"available": available, "isPlatformReserved": reserved}
		if !available {
			answer["availableIPAddresses"] = first(free, offered)
		}
		return answer, nil
	}
	return nil, fault.New(fault.Invalid, "PrivateIPAddressNotInAnySubnet",
		"Private static IP address %s does not belong to the range of any subnet in the virtual network %s.", address, r.Parent.Name).At("ipAddress")
}

// subnetUsages answers GET …/usages: how many addresses of each subnet are had, of
// those that it can give.
func (p *Provider) subnetUsages(ctx context.Context, r *arm.Request) (any, error) {
	inv, err := p.inventory(ctx)
	if err != nil {
		return nil, err
	}
	_, vnet := lookup[armnetwork.VirtualNetwork](inv, r.Parent.ID.String())
	if vnet == nil {
		return nil, fault.New(fault.NotFound, "NotFound", "Virtual network %s was not found.", r.Parent.ID)
	}
	list := []any{}
	for _, s := range subnets(vnet) {
		prefix, id := subnetPrefix(s), r.Parent.ID.Child("subnets", value(s.Name))
		if !prefix.IsValid() {
			continue
		}
		list = append(list, map[string]any{"id": id.String(), "unit": "Count", "name": map[string]any{"value": "SubnetSpace", "localizedValue": "Subnet size and usage"},
			"limit": count(usable(prefix)), "currentValue": count(usable(prefix)) - count(freeIn(prefix, inv.takenIn(id)))})
	}
	return map[string]any{"value": list}, nil
}

func count(spans []span) (addresses uint64) {
	for _, s := range spans {
		addresses += s.size()
	}
	return addresses
}

// first are the lowest n addresses of spans.
func first(spans []span, n int) []string {
	found := []string{}
	for _, s := range spans {
		for a := s.first; a.IsValid() && !s.last.Less(a) && len(found) < n; a = a.Next() {
			found = append(found, a.String())
		}
	}
	return found
}
