// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v7"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/resource"
)

// The lists of a virtual network's parts.
const (
	subnetList  = "properties.subnets"
	peeringList = "properties.virtualNetworkPeerings"
)

func (p *Provider) vnetTypes() []arm.Type {
	return []arm.Type{
		coreType("virtualNetworks", func() any { return &armnetwork.VirtualNetwork{} }, vnetRows(),
			arm.Type{Links: vnetLinks(), Put: p.putVNet, Delete: p.deleteVNet, View: p.viewVNet}),
		partType("virtualNetworks/subnets", subnetList, func() any { return &armnetwork.Subnet{} }, subnetRows()),
		partType("virtualNetworks/virtualNetworkPeerings", peeringList, func() any { return &armnetwork.VirtualNetworkPeering{} }, peeringRows()),
		{Name: "virtualNetworks/CheckIPAddressAvailability", Versions: edgeVersions(), List: p.checkAddress},
		{Name: "virtualNetworks/usages", Versions: edgeVersions(), List: p.subnetUsages},
	}
}

// putVNet creates or replaces a virtual network with its subnets and peerings.
// A request without these lists keeps them: many clients change a network's
// own properties only.
func (p *Provider) putVNet(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	f, model, err := readRequest[armnetwork.VirtualNetwork](p, r, vnetRows())
	if err != nil {
		return nil, err
	}
	model.Properties = orEmpty(model.Properties)
	old := &armnetwork.VirtualNetwork{}
	if r.Old != nil {
		if old, err = readBody[armnetwork.VirtualNetwork](r.Old); err != nil {
			return nil, err
		}
	}
	old.Properties = orEmpty(old.Properties)
	if model.Properties.Subnets == nil {
		model.Properties.Subnets = old.Properties.Subnets
	}
	if model.Properties.VirtualNetworkPeerings == nil {
		model.Properties.VirtualNetworkPeerings = old.Properties.VirtualNetworkPeerings
	}
	c := &vnetCheck{p: p, f: &f, id: r.ID, next: normalVNet(&f, model), old: old}
	if err := c.run(ctx); err != nil {
		return nil, err
	}
	if err := f.err(); err != nil {
		return nil, err
	}
	changes, err := holds(c.held...)
	if err != nil {
		return nil, err
	}
	state, more, err := p.outbound(ctx, r, c.next)
	if err != nil {
		return nil, err
	}
	plan, err := planned(r, c.next, append(changes, more...)...)
	if err == nil {
		plan.Document.State = state
	}
	return plan, err
}

// normalVNet is what is kept of a virtual network, with the defaults in it.
func normalVNet(f *findings, m *armnetwork.VirtualNetwork) *armnetwork.VirtualNetwork {
	props := &armnetwork.VirtualNetworkPropertiesFormat{
		AddressSpace:                &armnetwork.AddressSpace{AddressPrefixes: present(orEmpty(m.Properties.AddressSpace).AddressPrefixes)},
		EnableDdosProtection:        ptr(false),
		PrivateEndpointVNetPolicies: ptr(armnetwork.PrivateEndpointVNetPoliciesDisabled),
		Subnets:                     []*armnetwork.Subnet{},
		VirtualNetworkPeerings:      []*armnetwork.VirtualNetworkPeering{},
	}
	if options := m.Properties.DhcpOptions; options != nil && len(options.DNSServers) > 0 {
		props.DhcpOptions = &armnetwork.DhcpOptions{DNSServers: options.DNSServers}
	}
	for i, s := range present(m.Properties.Subnets) {
		props.Subnets = append(props.Subnets, normalSubnet(f, fmt.Sprintf("%s[%d]", subnetList, i), s))
	}
	for _, s := range present(m.Properties.VirtualNetworkPeerings) {
		in := orEmpty(s.Properties)
		props.VirtualNetworkPeerings = append(props.VirtualNetworkPeerings, &armnetwork.VirtualNetworkPeering{Name: s.Name,
			Properties: &armnetwork.VirtualNetworkPeeringPropertiesFormat{
				AllowVirtualNetworkAccess: orDefault(in.AllowVirtualNetworkAccess, true),
				AllowForwardedTraffic:     orDefault(in.AllowForwardedTraffic, false),
				AllowGatewayTransit:       ptr(false),
				UseRemoteGateways:         ptr(false),
				DoNotVerifyRemoteGateways: in.DoNotVerifyRemoteGateways,
				PeerCompleteVnets:         ptr(true),
				RemoteVirtualNetwork:      link(orEmpty(in.RemoteVirtualNetwork).ID),
			}})
	}
	return &armnetwork.VirtualNetwork{Properties: props}
}

func normalSubnet(f *findings, at string, s *armnetwork.Subnet) *armnetwork.Subnet {
	in := orEmpty(s.Properties)
	props := &armnetwork.SubnetPropertiesFormat{
		AddressPrefix:                  in.AddressPrefix,
		AddressPrefixes:                present(in.AddressPrefixes),
		DefaultOutboundAccess:          in.DefaultOutboundAccess,
		Delegations:                    []*armnetwork.Delegation{},
		NatGateway:                     link(orEmpty(in.NatGateway).ID),
		PrivateEndpointNetworkPolicies: ptr(armnetwork.VirtualNetworkPrivateEndpointNetworkPoliciesDisabled),
		PrivateLinkServiceNetworkPolicies: oneOf(f, at+".properties.privateLinkServiceNetworkPolicies", in.PrivateLinkServiceNetworkPolicies,
			armnetwork.VirtualNetworkPrivateLinkServiceNetworkPoliciesEnabled, armnetwork.PossibleVirtualNetworkPrivateLinkServiceNetworkPoliciesValues()...),
	}
	if id := orEmpty(in.NetworkSecurityGroup).ID; value(id) != "" {
		props.NetworkSecurityGroup = &armnetwork.SecurityGroup{ID: id}
	}
	if id := orEmpty(in.RouteTable).ID; value(id) != "" {
		props.RouteTable = &armnetwork.RouteTable{ID: id}
	}
	for _, d := range present(in.Delegations) {
		props.Delegations = append(props.Delegations, &armnetwork.Delegation{Name: d.Name,
			Properties: &armnetwork.ServiceDelegationPropertiesFormat{ServiceName: ptr(delegatedService)}})
	}
	return &armnetwork.Subnet{Name: s.Name, Properties: props}
}

// deleteVNet refuses while anything stands in one of its subnets. Peerings of
// others stay behind, disconnected, as do links of private zones.
func (p *Provider) deleteVNet(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	users, err := p.references(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	users = slices.DeleteFunc(users, func(id resource.ID) bool { return id.IsType(typeVNet) || id.IsType(typeZoneLink) })
	if len(users) > 0 {
		return nil, fault.New(fault.Invalid, "InUseSubnetCannotBeDeleted",
			"Virtual network %s is in use by %s and cannot be deleted. In order to delete it, delete all the resources within its subnets.", r.ID.Name(), nameList(users))
	}
	return &arm.Plan{Async: true, Changes: FreePublic(outboundAddresses(r.Old)...)}, nil
}

// viewVNet shows a network with who uses its subnets and how its peerings stand.
func (p *Provider) viewVNet(ctx context.Context, d *arm.Document, _ resource.APIVersion) (any, error) {
	view, _, err := edgeView(d)
	if err != nil {
		return nil, err
	}
	inv, err := p.inventory(ctx)
	if err != nil {
		return nil, err
	}
	uses := inv.backRefs()
	for _, element := range arm.Elements(view, subnetList) {
		name, _ := element["name"].(string)
		properties, _ := element["properties"].(map[string]any)
		if properties == nil {
			continue
		}
		key := d.ID.Child("subnets", name).Key()
		show(properties, "ipConfigurations", uses.configs[key])
		show(properties, "privateEndpoints", uses.endpoints[key])
		for _, delegation := range arm.Elements(properties, "delegations") {
			of, _ := delegation["name"].(string)
			delegation["id"] = d.ID.Child("subnets", name).Child("delegations", of).String()
			delegation["type"] = Namespace + "/virtualNetworks/subnets/delegations"
		}
	}
	_, vnet := lookup[armnetwork.VirtualNetwork](inv, d.ID.String())
	for _, element := range arm.Elements(view, peeringList) {
		if properties, ok := element["properties"].(map[string]any); ok {
			inv.showPeering(properties, d, vnet)
		}
	}
	return view, nil
}

// show puts a list of ids into a view, unless it is empty.
func show(properties map[string]any, name string, ids []string) {
	if len(ids) == 0 {
		return
	}
	list := make([]any, len(ids))
	for i, id := range ids {
		list[i] = map[string]any{"id": id}
	}
	properties[name] = list
}

// showPeering completes a peering: it is connected when the other network names this one.
func (inv *inventory) showPeering(properties map[string]any, d *arm.Document, vnet *armnetwork.VirtualNetwork) {
	link, _ := properties["remoteVirtualNetwork"].(map[string]any)
	id, _ := link["id"].(string)
	_, remote := lookup[armnetwork.VirtualNetwork](inv, id)
	state := armnetwork.VirtualNetworkPeeringStateInitiated
	switch {
	case remote == nil:
		state = armnetwork.VirtualNetworkPeeringStateDisconnected
	case peersWith(remote, d.ID):
		state = armnetwork.VirtualNetworkPeeringStateConnected
	}
	properties["peeringState"], properties["peeringSyncLevel"] = state, armnetwork.VirtualNetworkPeeringLevelFullyInSync
	if state != armnetwork.VirtualNetworkPeeringStateConnected {
		properties["peeringSyncLevel"] = armnetwork.VirtualNetworkPeeringLevelRemoteNotInSync
	}
	if vnet != nil {
		properties["localAddressSpace"] = space(vnet)
		properties["localVirtualNetworkAddressSpace"] = space(vnet)
	}
	if remote != nil {
		properties["remoteAddressSpace"] = space(remote)
		properties["remoteVirtualNetworkAddressSpace"] = space(remote)
	}
}

// peersWith tells whether a network has a peering with id.
func peersWith(vnet *armnetwork.VirtualNetwork, id resource.ID) bool {
	return slices.ContainsFunc(peerings(vnet), func(p *armnetwork.VirtualNetworkPeering) bool {
		return strings.EqualFold(subID(p.Properties.RemoteVirtualNetwork), id.String())
	})
}

// peerings are a network's peerings that have properties.
func peerings(vnet *armnetwork.VirtualNetwork) []*armnetwork.VirtualNetworkPeering {
	return slices.DeleteFunc(present(orEmpty(vnet.Properties).VirtualNetworkPeerings), func(p *armnetwork.VirtualNetworkPeering) bool { return p.Properties == nil })
}

// subnets are a network's subnets that have properties.
func subnets(vnet *armnetwork.VirtualNetwork) []*armnetwork.Subnet {
	return slices.DeleteFunc(present(orEmpty(vnet.Properties).Subnets), func(s *armnetwork.Subnet) bool { return s.Properties == nil })
}

func space(vnet *armnetwork.VirtualNetwork) map[string]any {
	texts := []any{}
	for _, prefix := range addressSpace(vnet) {
		texts = append(texts, prefix.String())
	}
	return map[string]any{"addressPrefixes": texts}
}
