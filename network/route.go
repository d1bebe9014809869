// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v7"

	"bastide.dev/arm"
	"bastide.dev/resource"
)

// routeList is where a table's routes are; maxRoutes is Azure's bound.
const (
	routeList = "properties.routes"
	maxRoutes = 400
)

func (p *Provider) routeTypes() []arm.Type {
	return []arm.Type{
		coreType("routeTables", func() any { return &armnetwork.RouteTable{} }, tableRows(),
			arm.Type{Put: p.putTable, Delete: p.deleteUnused("InUseRouteTableCannotBeDeleted", "Route table"), View: p.viewTable}),
		partType("routeTables/routes", routeList, func() any { return &armnetwork.Route{} }, routeRows()),
	}
}

// putTable creates or replaces a route table with its routes.
func (p *Provider) putTable(_ context.Context, r *arm.Request) (*arm.Plan, error) {
	f, model, err := readRequest[armnetwork.RouteTable](p, r, tableRows())
	if err != nil {
		return nil, err
	}
	in := orEmpty(model.Properties)
	next := &armnetwork.RouteTable{Properties: &armnetwork.RouteTablePropertiesFormat{
		DisableBgpRoutePropagation: orDefault(in.DisableBgpRoutePropagation, false), Routes: []*armnetwork.Route{}}}
	if len(in.Routes) > maxRoutes {
		f.bad("RouteTableRouteLimitReached", routeList, "Route table %s has %d routes; at most %d are possible.", r.ID.Name(), len(in.Routes), maxRoutes)
	}
	names := map[netip.Prefix]string{}
	for i, route := range present(in.Routes) {
		kept, prefix := checkRoute(&f, fmt.Sprintf("%s[%d].properties.", routeList, i), r.ID, route)
		if other, taken := names[prefix]; taken && prefix.IsValid() {
			f.bad("RouteConflict", fmt.Sprintf("%s[%d].properties.addressPrefix", routeList, i),
				"Route %s conflicts with route %s. Routes of a table cannot have the same address prefix %s.", value(route.Name), other, prefix)
		}
		names[prefix] = value(route.Name)
		next.Properties.Routes = append(next.Properties.Routes, kept)
	}
	if err := f.err(); err != nil {
		return nil, err
	}
	return planned(r, next)
}

// checkRoute judges one route; the prefix is invalid when it can't be read.
func checkRoute(f *findings, at string, table resource.ID, route *armnetwork.Route) (*armnetwork.Route, netip.Prefix) {
	in := orEmpty(route.Properties)
	kept := &armnetwork.RoutePropertiesFormat{AddressPrefix: in.AddressPrefix, NextHopIPAddress: in.NextHopIPAddress}
	id := table.Child("routes", value(route.Name))
	var prefix netip.Prefix
	if text := value(in.AddressPrefix); tagForm.MatchString(text) {
		f.bad("PropertyNotSupported", at+"addressPrefix", "%saddressPrefix can't be %q here: a route leads to a prefix, not to a service tag.", at, text)
	} else {
		prefix, _ = cidrAt(f, at+"addressPrefix", text, id)
	}
	var hops []armnetwork.RouteNextHopType
	for _, hop := range armnetwork.PossibleRouteNextHopTypeValues() {
		if hop != armnetwork.RouteNextHopTypeVirtualNetworkGateway {
			hops = append(hops, hop)
		}
	}
	hop := value(in.NextHopType)
	switch {
	case hop == "":
		f.bad("InvalidRequestFormat", at+"nextHopType", "Route %s must have a nextHopType.", id)
		return route, prefix
	case strings.EqualFold(string(hop), string(armnetwork.RouteNextHopTypeVirtualNetworkGateway)):
		f.bad("PropertyNotSupported", at+"nextHopType", "%snextHopType can't be %q here: there are no gateways.", at, hop)
		return route, prefix
	}
	kept.NextHopType = oneOf(f, at+"nextHopType", in.NextHopType, "", hops...)
	address := value(in.NextHopIPAddress)
	if value(kept.NextHopType) != armnetwork.RouteNextHopTypeVirtualAppliance {
		if address != "" {
			f.bad("NextHopIpAddressNotAllowed", at+"nextHopIpAddress", "Route %s with next hop type %s can't have a next hop IP address.", id, value(kept.NextHopType))
		}
		kept.NextHopIPAddress = nil
		return &armnetwork.Route{Name: route.Name, Properties: kept}, prefix
	}
	switch addr, err := netip.ParseAddr(address); {
	case address == "":
		f.bad("NextHopIpAddressRequired", at+"nextHopIpAddress", "Route %s with next hop type VirtualAppliance must have a next hop IP address.", id)
	case err != nil || addr.IsUnspecified():
		f.bad("InvalidIPAddressFormat", at+"nextHopIpAddress", "The next hop IP address %s of route %s isn't an IP address.", address, id)
	case !addr.Is4():
		*f = append(*f, ipv6(at+"nextHopIpAddress", address))
	}
	return &armnetwork.Route{Name: route.Name, Properties: kept}, prefix
}

// viewTable shows a table with the subnets that have it.
func (p *Provider) viewTable(ctx context.Context, d *arm.Document, _ resource.APIVersion) (any, error) {
	view, properties, err := edgeView(d)
	if err != nil {
		return nil, err
	}
	inv, err := p.inventory(ctx)
	if err != nil {
		return nil, err
	}
	show(properties, "subnets", inv.backRefs().tables[d.ID.Key()])
	return view, nil
}
