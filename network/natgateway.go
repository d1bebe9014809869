// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"fmt"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v7"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/resource"
)

// natGatewayType are NAT gateways. Which subnets use one, the subnets say.
func (p *Provider) natGatewayType() arm.Type {
	return arm.Type{Name: "natGateways", Versions: edgeVersions(), Queue: true,
		Model: func() any { return &armnetwork.NatGateway{} }, ReadOnly: arm.ReadOnlyPaths(natGatewayProperties()),
		Links: natGatewayLinks(), Put: p.putNATGateway, Delete: p.deleteNATGateway, View: p.viewNATGateway}
}

// maxGatewayAddresses is how many public addresses a NAT gateway can have.
const maxGatewayAddresses = 16

func (p *Provider) putNATGateway(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	f, model, err := readRequest[armnetwork.NatGateway](p, r, natGatewayProperties())
	if err != nil {
		return nil, err
	}
	if model.Properties == nil {
		model.Properties = &armnetwork.NatGatewayPropertiesFormat{}
	}
	props := model.Properties
	model.SKU = &armnetwork.NatGatewaySKU{Name: ptr(armnetwork.NatGatewaySKUNameStandard)}
	props.Subnets = nil
	props.IdleTimeoutInMinutes = orDefault(props.IdleTimeoutInMinutes, 4)
	props.PublicIPAddresses, props.PublicIPPrefixes = present(props.PublicIPAddresses), present(props.PublicIPPrefixes)
	between(&f, "InvalidIdleTimeout", "properties.idleTimeoutInMinutes", props.IdleTimeoutInMinutes, 4, 120)
	ids := f.listed("properties.publicIpAddresses", props.PublicIPAddresses, typePublicIP)
	ids = append(ids, f.listed("properties.publicIpPrefixes", props.PublicIPPrefixes, typePrefix)...)
	held, err := p.named(ctx, ids...)
	if err != nil {
		return nil, err
	}
	inv, err := p.inventory(ctx)
	if err != nil {
		return nil, err
	}
	addresses := 0
	for _, id := range ids {
		addresses += inv.gatewayMay(&f, r.ID, id)
	}
	if addresses > maxGatewayAddresses {
		f.bad("NatGatewayPublicIpLimitExceeded", "properties.publicIpAddresses", "NAT gateway %s would have %d public IP addresses; at most %d are possible.", r.ID, addresses, maxGatewayAddresses)
	}
	if len(f) > 0 {
		return nil, f.err()
	}
	return planned(r, model, held...)
}

// listed parses a list of references, each of which may stand in it once.
func (f *findings) listed(target string, refs []*armnetwork.SubResource, typ string) []resource.ID {
	var ids []resource.ID
	seen := map[string]bool{}
	for i, ref := range refs {
		at := fmt.Sprintf("%s[%d]", target, i)
		id, ok := reference(f, at, ref.ID, typ)
		if !ok {
			continue
		}
		if seen[id.Key()] {
			f.bad("DuplicateReference", at, "%s stands twice in %s.", id, target)
		}
		seen[id.Key()] = true
		ids = append(ids, id)
	}
	return ids
}

// gatewayMay refuses a public address or prefix that isn't there or is another's; it tells how many addresses it has.
func (inv *inventory) gatewayMay(f *findings, gateway, id resource.ID) int {
	target := "properties.publicIpAddresses"
	if id.IsType(typePrefix) {
		target = "properties.publicIpPrefixes"
	}
	i := inv.items[id.Key()]
	if i == nil || i.gone() {
		missingReference(f, gateway, target, id)
		return 0
	}
	for _, user := range inv.users(id) {
		if !user.Equal(gateway) {
			f.publicInUse(target, gateway, id, user)
		}
	}
	if !id.IsType(typePrefix) {
		return 1
	}
	block, err := blockOf(i.doc)
	if err != nil {
		return 0
	}
	return len(addressesOf(block))
}

func subnetGateway(s *armnetwork.SubnetPropertiesFormat) string { return subID(s.NatGateway) }

func (p *Provider) deleteNATGateway(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	inv, err := p.inventory(ctx)
	if err != nil {
		return nil, err
	}
	if subnets := inv.subnetsOf(r.ID, subnetGateway); len(subnets) > 0 {
		return nil, fault.New(fault.Invalid, "InUseNatGatewayCannotBeDeleted",
			"Nat Gateway %s cannot be deleted because it is in use by the following resources: %s.", r.ID, joinIDs(subnets))
	}
	return &arm.Plan{Async: true}, nil
}

func joinIDs(ids []resource.ID) string {
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = id.String()
	}
	return strings.Join(texts, ", ")
}

func (p *Provider) viewNATGateway(ctx context.Context, d *arm.Document, _ resource.APIVersion) (any, error) {
	body, properties, err := edgeView(d)
	if err != nil {
		return nil, err
	}
	inv, err := p.inventory(ctx)
	if err != nil {
		return nil, err
	}
	if subnets := inv.subnetsOf(d.ID, subnetGateway); len(subnets) > 0 {
		properties["subnets"] = subResources(subnets...)
	}
	return body, nil
}
