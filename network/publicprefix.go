// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v7"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/resource"
)

// publicPrefixType are runs of public addresses next to each other.
func (p *Provider) publicPrefixType() arm.Type {
	return arm.Type{Name: "publicIPPrefixes", Versions: edgeVersions(), Queue: true,
		Model: func() any { return &armnetwork.PublicIPPrefix{} }, ReadOnly: arm.ReadOnlyPaths(publicPrefixProperties()),
		Put: p.putPublicPrefix, Delete: p.deletePublicPrefix, View: p.viewPublicPrefix}
}

func (p *Provider) putPublicPrefix(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	f, model, err := readRequest[armnetwork.PublicIPPrefix](p, r, publicPrefixProperties())
	if err != nil {
		return nil, err
	}
	if model.Properties == nil {
		model.Properties = &armnetwork.PublicIPPrefixPropertiesFormat{}
	}
	props := model.Properties
	model.SKU = &armnetwork.PublicIPPrefixSKU{Name: ptr(armnetwork.PublicIPPrefixSKUNameStandard), Tier: ptr(armnetwork.PublicIPPrefixSKUTierRegional)}
	props.PublicIPAddressVersion, props.IPTags = ptr(armnetwork.IPVersionIPv4), []*armnetwork.IPTag{}
	var old armnetwork.PublicIPPrefix
	if r.Old != nil {
		was, err := readBody[armnetwork.PublicIPPrefix](r.Old)
		if err != nil {
			return nil, err
		}
		old = *was
		if props.PrefixLength == nil {
			props.PrefixLength = old.Properties.PrefixLength
		}
		if *props.PrefixLength != value(old.Properties.PrefixLength) {
			f.bad("PublicIPPrefixLengthCannotBeChanged", "properties.prefixLength", "The length of public IP prefix %s can't change from %d to %d.", r.ID, *old.Properties.PrefixLength, *props.PrefixLength)
		}
	}
	if props.PrefixLength == nil || *props.PrefixLength < 28 || *props.PrefixLength > 31 {
		f.bad("InvalidPublicIPPrefixLength", "properties.prefixLength", "The prefix length %d of public IP prefix %s isn't in the range from 28 to 31.", value(props.PrefixLength), r.ID)
	}
	if len(f) > 0 {
		return nil, f.err()
	}
	if r.Old != nil {
		props.IPPrefix = old.Properties.IPPrefix
		plan, err := planned(r, model)
		return notAsync(plan), err
	}
	block, changes, err := p.publicBlock(ctx, r.ID, int(*props.PrefixLength))
	if err != nil {
		return nil, err
	}
	props.IPPrefix = ptr(block.String())
	plan, err := planned(r, model, changes...)
	return notAsync(plan), err
}

// notAsync is a plan that changes nothing but records.
func notAsync(plan *arm.Plan) *arm.Plan {
	if plan != nil {
		plan.Async = false
	}
	return plan
}

// blockOf is the range of a public prefix's document.
func blockOf(d *arm.Document) (netip.Prefix, error) {
	model, err := readBody[armnetwork.PublicIPPrefix](d)
	if err != nil {
		return netip.Prefix{}, err
	}
	if model.Properties == nil {
		return netip.Prefix{}, fmt.Errorf("public prefix %s has no range", d.ID)
	}
	return netip.ParsePrefix(value(model.Properties.IPPrefix))
}

func (p *Provider) deletePublicPrefix(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	users, err := p.usersOf(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	if len(users) > 0 {
		return nil, fault.New(fault.Invalid, "PublicIpPrefixCannotBeDeleted",
			"PublicIpPrefix %s can not be deleted since it is still in use by resource %s.", r.ID, users[0])
	}
	block, err := blockOf(r.Old)
	if err != nil {
		return nil, err
	}
	return &arm.Plan{Changes: FreePublic(addressesOf(block)...)}, nil
}

func (p *Provider) viewPublicPrefix(ctx context.Context, d *arm.Document, _ resource.APIVersion) (any, error) {
	body, properties, err := edgeView(d)
	if err != nil {
		return nil, err
	}
	users, err := p.usersOf(ctx, d.ID)
	if err != nil {
		return nil, err
	}
	addresses := []resource.ID{}
	for _, user := range users {
		switch {
		case user.IsType(typePublicIP):
			addresses = append(addresses, user)
		case user.IsType(typeNATGateway):
			properties["natGateway"] = map[string]any{"id": user.String()}
		default:
			properties["loadBalancerFrontendIpConfiguration"] = map[string]any{"id": user.String()}
		}
	}
	if len(addresses) > 0 {
		properties["publicIPAddresses"] = subResources(addresses...)
	}
	return body, nil
}
