// SPDX-License-Identifier: Apache-2.0

package network

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v7"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// privateEndpointType are private endpoints: an address in a subnet that leads
// to a service of the instance. Their address is in the stored body, in customDnsConfigs.
func (p *Provider) privateEndpointType() arm.Type {
	return arm.Type{Name: "privateEndpoints", Versions: edgeVersions(), Queue: true,
		Model: func() any { return &armnetwork.PrivateEndpoint{} }, ReadOnly: arm.ReadOnlyPaths(privateEndpointProperties()),
		Links: privateEndpointLinks(), Put: p.putPrivateEndpoint, Delete: p.deletePrivateEndpoint, View: p.viewPrivateEndpoint}
}

const (
	typeCluster = "Microsoft.ContainerService/managedClusters"
	// groupManagement is the one thing of a cluster that an endpoint can lead to: its API server.
	groupManagement = "management"
)

func (p *Provider) putPrivateEndpoint(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	f, model, err := readRequest[armnetwork.PrivateEndpoint](p, r, privateEndpointProperties())
	if err != nil {
		return nil, err
	}
	props := normalEndpoint(model)
	old := &armnetwork.PrivateEndpointProperties{}
	if r.Old != nil {
		was, err := readBody[armnetwork.PrivateEndpoint](r.Old)
		if err != nil {
			return nil, err
		}
		old = was.Properties
	}
	server, err := p.endpointTarget(ctx, &f, r, props, old)
	if err != nil {
		return nil, err
	}
	subnet, ok := reference(&f, "properties.subnet", ptr(subnetID(props.Subnet)), typeSubnet)
	if ok && r.Old != nil && !strings.EqualFold(subnetID(old.Subnet), subnetID(props.Subnet)) {
		f.bad("PrivateEndpointSubnetCannotBeChanged", "properties.subnet", "The subnet of private endpoint %s can't change: delete it and make it again.", r.ID)
	}
	static := endpointStatic(&f, props)
	if len(f) > 0 {
		return nil, f.err()
	}
	address, changes, err := p.endpointGrant(ctx, &f, r, subnet, static, old)
	if err != nil || len(f) > 0 {
		return nil, firstOf(err, f.err())
	}
	config := &armnetwork.CustomDNSConfigPropertiesFormat{IPAddresses: []*string{ptr(address.String())}}
	if name := cmp.Or(server.PrivateFQDN, server.FQDN); name != "" {
		config.Fqdn = &name
	}
	props.CustomDNSConfigs = []*armnetwork.CustomDNSConfigPropertiesFormat{config}
	return planned(r, model, changes...)
}

// normalEndpoint leaves out what the service computes.
func normalEndpoint(model *armnetwork.PrivateEndpoint) *armnetwork.PrivateEndpointProperties {
	model.Properties = orEmpty(model.Properties)
	props := model.Properties
	props.NetworkInterfaces, props.CustomDNSConfigs, props.ManualPrivateLinkServiceConnections = nil, nil, nil
	if props.Subnet != nil {
		props.Subnet = &armnetwork.Subnet{ID: props.Subnet.ID}
	}
	props.IPConfigurations = present(props.IPConfigurations)
	for _, c := range props.IPConfigurations {
		c.Etag, c.Type = nil, nil
		c.Properties = orEmpty(c.Properties)
	}
	props.PrivateLinkServiceConnections = present(props.PrivateLinkServiceConnections)
	for _, c := range props.PrivateLinkServiceConnections {
		c.ID, c.Etag, c.Type = nil, nil, nil
		c.Properties = orEmpty(c.Properties)
		c.Properties.PrivateLinkServiceConnectionState, c.Properties.ProvisioningState = nil, nil
	}
	return props
}

// endpointTarget finds the private cluster that an endpoint leads to.
func (p *Provider) endpointTarget(ctx context.Context, f *findings, r *arm.Request, props, old *armnetwork.PrivateEndpointProperties) (Server, error) {
	const target = "properties.privateLinkServiceConnections"
	if len(props.PrivateLinkServiceConnections) != 1 {
		f.bad("InvalidPrivateLinkServiceConnections", target, "Private endpoint %s must have exactly one private link service connection.", r.ID)
		return Server{}, nil
	}
	connection := props.PrivateLinkServiceConnections[0]
	if problem := arm.CheckName(value(connection.Name), target+"[0].name"); problem != nil {
		*f = append(*f, problem)
	}
	groups := connection.Properties.GroupIDs
	if len(groups) != 1 || value(groups[0]) != groupManagement {
		f.bad("PrivateLinkServiceGroupIdNotSupported", target+"[0].properties.groupIds", "The group of a private link connection to a managed cluster is [%q].", groupManagement)
	}
	text := value(connection.Properties.PrivateLinkServiceID)
	if len(old.PrivateLinkServiceConnections) == 1 && !strings.EqualFold(value(old.PrivateLinkServiceConnections[0].Properties.PrivateLinkServiceID), text) {
		f.bad("PrivateLinkServiceIdCannotBeChanged", target+"[0].properties.privateLinkServiceId", "What private endpoint %s leads to can't change: delete it and make it again.", r.ID)
	}
	id, ok := reference(f, target+"[0].properties.privateLinkServiceId", &text, typeCluster)
	if !ok {
		return Server{}, nil
	}
	servers, err := p.servers(ctx)
	if err != nil {
		return Server{}, err
	}
	i := slices.IndexFunc(servers, func(s Server) bool { return s.Cluster.Equal(id) })
	switch {
	case i < 0:
		missingReference(f, r.ID, target+"[0].properties.privateLinkServiceId", id)
		return Server{}, nil
	case !servers[i].Private:
		f.bad("PrivateLinkNotSupported", target+"[0].properties.privateLinkServiceId", "Managed cluster %s isn't a private cluster: private endpoints lead to private clusters only.", id)
	}
	return servers[i], nil
}

// endpointStatic is the address that a client asks for; the zero one is any.
func endpointStatic(f *findings, props *armnetwork.PrivateEndpointProperties) netip.Addr {
	const target = "properties.ipConfigurations"
	if len(props.IPConfigurations) > 1 {
		f.bad("InvalidPrivateEndpointIpConfigurations", target, "A private endpoint to a managed cluster has one IP configuration.")
	}
	if len(props.IPConfigurations) == 0 {
		return netip.Addr{}
	}
	c := props.IPConfigurations[0].Properties
	for what, have := range map[string]*string{"groupId": c.GroupID, "memberName": c.MemberName} {
		if text := value(have); text != "" && text != groupManagement {
			f.bad("InvalidPrivateEndpointIpConfigurations", target+"[0].properties."+what, "The %s of a managed cluster is %q.", what, groupManagement)
		}
	}
	a, err := netip.ParseAddr(value(c.PrivateIPAddress))
	if err != nil || !a.Is4() {
		f.bad("InvalidIPAddress", target+"[0].properties.privateIPAddress", "%q isn't an IPv4 address.", value(c.PrivateIPAddress))
	}
	return a
}

// endpointGrant keeps the address that there is, or takes one of the subnet.
func (p *Provider) endpointGrant(ctx context.Context, f *findings, r *arm.Request, subnet resource.ID, static netip.Addr, old *armnetwork.PrivateEndpointProperties) (netip.Addr, []store.Change, error) {
	if r.Old != nil {
		had, ok := endpointAddress(&armnetwork.PrivateEndpoint{Properties: old})
		if ok && (!static.IsValid() || static == had) {
			return had, nil, nil
		}
	}
	grants, changes, err := p.Allocate(ctx, subnet, []Want{{Address: static}})
	if fault.Is(err, fault.NotFound) {
		missingReference(f, r.ID, "properties.subnet", subnet)
		return netip.Addr{}, nil, nil
	}
	if err != nil {
		return netip.Addr{}, nil, err
	}
	return grants[0].Address, changes, nil
}

// deletePrivateEndpoint takes the records that its zone groups keep along.
func (p *Provider) deletePrivateEndpoint(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	groups, _, err := arm.ListDocuments(ctx, p.Store, r.ID, typeZoneGroup)
	if err != nil {
		return nil, err
	}
	plan := &arm.Plan{Async: true}
	for _, group := range groups {
		changes, err := p.dropRecords(ctx, group)
		if err != nil {
			return nil, err
		}
		plan.Changes = append(plan.Changes, changes...)
	}
	return plan, nil
}

func (p *Provider) viewPrivateEndpoint(_ context.Context, d *arm.Document, _ resource.APIVersion) (any, error) {
	body, properties, err := edgeView(d)
	if err != nil {
		return nil, err
	}
	for _, list := range []string{"manualPrivateLinkServiceConnections", "ipConfigurations", "privateLinkServiceConnections"} {
		if properties[list] == nil {
			properties[list] = []any{}
		}
	}
	for _, connection := range arm.Elements(body, "properties.privateLinkServiceConnections") {
		name, _ := connection["name"].(string)
		connection["id"] = d.ID.Child("privateLinkServiceConnections", name).String()
		connection["type"], connection["etag"] = "Microsoft.Network/privateEndpoints/privateLinkServiceConnections", arm.WeakEtag(d)
		if props, _ := connection["properties"].(map[string]any); props != nil {
			props["provisioningState"] = d.ProvisioningState
			props["privateLinkServiceConnectionState"] = map[string]any{"status": "Approved", "description": "", "actionsRequired": "None"}
		}
	}
	return body, nil
}

// linkServiceType are private link services, which aren't offered: none can be
// made. The row is there since cloud-provider-azure looks, for each Service that
// goes, whether one hangs on its front end, and wants a list as the answer.
func (p *Provider) linkServiceType() arm.Type {
	return arm.Type{Name: "privateLinkServices", Versions: edgeVersions(),
		Put: func(_ context.Context, r *arm.Request) (*arm.Plan, error) {
			return nil, fault.New(fault.Unsupported, "PrivateLinkServiceNotSupported",
				"The private link service %s can't be made: private link services aren't offered here.", r.ID)
		}}
}
