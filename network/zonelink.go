// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/privatedns/armprivatedns"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/resource"
)

// putZoneLink lets a virtual network see a zone.
func (p *Provider) putZoneLink(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	f := findings(arm.Judge(r.Body, zoneLinkProperties()))
	if problem := arm.CheckName(r.ID.Name(), "name"); problem != nil {
		f = append(f, problem)
	}
	global(&f, r)
	model := new(armprivatedns.VirtualNetworkLink)
	if err := decode(r.Body, model); err != nil {
		return nil, firstOf(f.add(err), f.err())
	}
	model.Properties = orEmpty(model.Properties)
	props := model.Properties
	props.VirtualNetworkLinkState, props.ResolutionPolicy = nil, nil
	props.RegistrationEnabled = orDefault(props.RegistrationEnabled, false)
	network := ""
	if props.VirtualNetwork != nil {
		network = value(props.VirtualNetwork.ID)
	}
	vnet, ok := reference(&f, "properties.virtualNetwork", &network, typeVNet)
	if ok {
		if err := p.linkable(ctx, &f, r, vnet, *props.RegistrationEnabled); err != nil {
			return nil, err
		}
	}
	if len(f) > 0 {
		return nil, f.err()
	}
	held, err := p.named(ctx, vnet)
	if err != nil {
		return nil, err
	}
	r.Body["location"] = "global"
	model.Location, model.Tags = nil, nil
	return planned(r, model, held...)
}

// linkable checks a link against the network and the links that it has.
func (p *Provider) linkable(ctx context.Context, f *findings, r *arm.Request, vnet resource.ID, registering bool) error {
	const target = "properties.virtualNetwork"
	if d, err := p.referenced(ctx, f, r.ID, target, vnet); err != nil || d == nil {
		return err
	}
	inv, err := p.inventory(ctx)
	if err != nil {
		return err
	}
	for i, link := range all[armprivatedns.VirtualNetworkLink](inv, typeZoneLink) {
		if link.Properties == nil || link.Properties.VirtualNetwork == nil {
			continue
		}
		same := strings.EqualFold(value(link.Properties.VirtualNetwork.ID), vnet.String())
		zone := i.doc.ID.Parent()
		switch {
		case i.doc.ID.Equal(r.ID):
			if !same {
				f.bad("BadRequest", target, "The virtual network of link %s can't change: delete it and make it again.", r.ID)
			}
		case !same:
		case strings.EqualFold(zone.Name(), r.ID.Parent().Name()):
			*f = append(*f, fault.New(fault.Conflict, "Conflict", "The virtual network %s is linked to a zone named %s already, by %s.", vnet, zone.Name(), i.doc.ID).At(target))
		case registering && value(link.Properties.RegistrationEnabled):
			*f = append(*f, fault.New(fault.Conflict, "Conflict", "A virtual network can only be linked to 1 private DNS zone with auto-registration enabled; %s is linked to %s.", vnet, zone.Name()).At("properties.registrationEnabled"))
		}
	}
	return nil
}

// patchZoneLink changes what a request names, and leaves the rest.
func (p *Provider) patchZoneLink(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	if err := mergeOld(r, &armprivatedns.VirtualNetworkLink{}); err != nil {
		return nil, err
	}
	return p.putZoneLink(ctx, r)
}

// deleteZonePart removes a link, or a record set, from what the name servers have.
func (p *Provider) deleteZonePart(context.Context, *arm.Request) (*arm.Plan, error) {
	return &arm.Plan{Async: true}, nil
}

func viewZoneLink(_ context.Context, d *arm.Document, _ resource.APIVersion) (any, error) {
	body, properties, err := edgeView(d)
	if err != nil {
		return nil, err
	}
	delete(properties, "resourceGuid")
	body["etag"], body["location"] = d.Etag, "global"
	properties["virtualNetworkLinkState"] = "Completed"
	if d.ProvisioningState != resource.Succeeded {
		properties["virtualNetworkLinkState"] = "InProgress"
	}
	return body, nil
}

// mergeOld lays a PATCH's body over what there is.
func mergeOld(r *arm.Request, model any) error {
	if unknown := arm.UnknownFields(r.Body, model); len(unknown) > 0 {
		return fault.Join(unknown...)
	}
	arm.Spell(r.Body, model)
	var old map[string]any
	if err := decodeNumbers(r.Old.Body, &old); err != nil {
		return err
	}
	merged, _ := old["properties"].(map[string]any)
	if merged == nil {
		merged = map[string]any{}
	}
	given, _ := r.Body["properties"].(map[string]any)
	for name, v := range given {
		merged[name] = v
	}
	r.Body["properties"] = merged
	if _, given := r.Body["tags"]; !given && len(r.Old.Tags) > 0 {
		tags := map[string]any{}
		for k, v := range r.Old.Tags {
			tags[k] = v
		}
		r.Body["tags"] = tags
	}
	return nil
}
