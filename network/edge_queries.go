// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"strings"

	"bastide.dev/arm"
	"bastide.dev/fault"
)

// edgeQueries are what clients ask of a region.
func (p *Provider) edgeQueries() []arm.Type {
	return []arm.Type{
		{Name: "locations/CheckDnsNameAvailability", Scope: arm.InSubscription, Versions: edgeVersions(), List: p.checkLabel},
		{Name: "locations/usages", Scope: arm.InSubscription, Versions: edgeVersions(), List: p.usages},
	}
}

// checkLabel tells whether a DNS label can be had.
func (p *Provider) checkLabel(ctx context.Context, r *arm.Request) (any, error) {
	label := ""
	for name, values := range r.Query {
		if strings.EqualFold(name, "domainNameLabel") {
			label = strings.ToLower(values[0])
		}
	}
	if !labelForm.MatchString(label) {
		return nil, fault.New(fault.Invalid, "InvalidDomainNameLabel",
			"The domain name label %s is invalid. It must conform to the following regular expression: %s.", label, labelForm).At("domainNameLabel")
	}
	free, err := p.labelFree(ctx, label)
	return map[string]any{"available": free}, err
}

// usages counts what there is against what there can be.
func (p *Provider) usages(ctx context.Context, r *arm.Request) (any, error) {
	inv, err := p.inventory(ctx)
	if err != nil {
		return nil, err
	}
	pool := len(addressesOf(p.PublicPool))
	rows := []any{}
	for _, row := range []struct {
		name, text, typ string
		limit           int
	}{
		{"VirtualNetworks", "Virtual Networks", typeVNet, 1000},
		{"PublicIPAddresses", "Public IP Addresses", typePublicIP, pool},
		{"StandardSkuPublicIpAddresses", "Public IPv4 Addresses - Standard", typePublicIP, pool},
		{"PublicIpPrefixes", "Public IP Prefixes", typePrefix, pool / 2},
		{"NetworkSecurityGroups", "Network Security Groups", typeNSG, 5000},
		{"NetworkInterfaces", "Network Interfaces", typeNIC, 65536},
		{"RouteTables", "Route Tables", typeRouteTable, 200},
		{"LoadBalancers", "Load Balancers", typeLB, 1000},
		{"StandardSkuLoadBalancers", "Standard Sku Load Balancers", typeLB, 1000},
		{"NatGateways", "NAT Gateways", typeNATGateway, 1000},
		{"PrivateEndpoints", "Private Endpoints", typeEndpoint, 1000},
	} {
		rows = append(rows, map[string]any{"id": r.ID.String() + "/usages/" + row.name, "unit": "Count", "limit": row.limit,
			"currentValue": len(inv.types[row.typ]), "name": map[string]any{"value": row.name, "localizedValue": row.text}})
	}
	return map[string]any{"value": rows}, nil
}
