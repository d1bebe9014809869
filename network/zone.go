// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"encoding/base64"
	"regexp"
	"slices"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/privatedns/armprivatedns"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/resource"
)

// Azure's limits of a private zone.
const (
	maxRecordSets        = 25000
	maxLinks             = 1000
	maxRegistrationLinks = 100
	maxRecords           = 20 // of a set
)

// zoneTypes are private DNS zones, their links and record sets.
func (p *Provider) zoneTypes() []arm.Type {
	types := []arm.Type{
		{Name: "privateDnsZones", Versions: zoneVersions(), Queue: true,
			Model: func() any { return &armprivatedns.PrivateZone{} }, ReadOnly: arm.ReadOnlyPaths(zoneProperties()),
			Put: p.putZone, Delete: p.deleteZone, View: p.viewZone},
		{Name: "privateDnsZones/virtualNetworkLinks", Versions: zoneVersions(), Queue: true,
			Model: func() any { return &armprivatedns.VirtualNetworkLink{} }, ReadOnly: arm.ReadOnlyPaths(zoneLinkProperties()),
			Links: zoneLinkLinks(), Put: p.putZoneLink, Patch: p.patchZoneLink, Delete: p.deleteZonePart, View: viewZoneLink},
		{Name: "privateDnsZones/ALL", Versions: zoneVersions(), List: p.listRecordSets},
		{Name: "privateDnsZones/SOA", Versions: zoneVersions(), Get: p.getStartOfAuthority, List: p.listStartOfAuthority},
	}
	return append(types, p.recordSetTypes()...)
}

// zoneVersions are those of private DNS, which has its own; 2019-07-01 is what
// cloud-provider-azure sends to clouds that aren't Azure.
func zoneVersions() []resource.APIVersion {
	return []resource.APIVersion{"2024-06-01", "2020-06-01", "2020-01-01", "2019-07-01", "2018-09-01"}
}

var zoneLabel = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$`)

func (p *Provider) putZone(_ context.Context, r *arm.Request) (*arm.Plan, error) {
	f := findings(arm.Judge(r.Body, zoneProperties()))
	labels := strings.Split(strings.ToLower(r.ID.Name()), ".")
	if len(labels) < 2 || len(labels) > 34 || len(r.ID.Name()) > 253 || !allMatch(labels, zoneLabel) {
		f.bad("BadRequest", "name", "The zone name '%s' is invalid: it must have 2 to 34 labels of letters, digits, '_' and '-'.", r.ID.Name())
	}
	global(&f, r)
	if len(f) > 0 {
		return nil, f.err()
	}
	// A zone without links is seen by no one: its own write changes nothing but records.
	plan, err := planned(r, armprivatedns.PrivateZone{Properties: &armprivatedns.PrivateZoneProperties{}})
	return notAsync(plan), err
}

func allMatch(labels []string, form *regexp.Regexp) bool {
	return !slices.ContainsFunc(labels, func(label string) bool { return !form.MatchString(label) })
}

// global refuses any other location than the one that private zones and links have.
func global(f *findings, r *arm.Request) {
	location, _ := r.Body["location"].(string)
	if location = resource.NormalizeLocation(location); location != "" && location != "global" {
		f.bad("LocationNotAvailableForResourceType", "location", "The provided location '%s' is not available for resource type '%s'. The location that is available: global.", location, r.ID.Type())
	}
}

// deleteZone refuses while there are links, unless all of the resource group goes.
func (p *Provider) deleteZone(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	links, _, err := arm.ListDocuments(ctx, p.Store, r.ID, typeZoneLink)
	if err != nil {
		return nil, err
	}
	cascade := r.Group != nil && r.Group.ProvisioningState == resource.Deleting
	if len(links) > 0 && !cascade {
		return nil, fault.New(fault.Conflict, "CannotDeleteResource",
			"Can not delete resource before nested resources are deleted. Nested resources of %s: %s.", r.ID, links[0].ID)
	}
	return &arm.Plan{Async: len(links) > 0}, nil
}

func (p *Provider) viewZone(ctx context.Context, d *arm.Document, _ resource.APIVersion) (any, error) {
	body, properties, err := edgeView(d)
	if err != nil {
		return nil, err
	}
	parts, _, err := arm.ListDocuments(ctx, p.Store, d.ID, "")
	if err != nil {
		return nil, err
	}
	links, registering, sets := 0, 0, 1 // the start of authority
	for _, part := range parts {
		if !part.ID.IsType(typeZoneLink) {
			sets++
			continue
		}
		links++
		if link, err := readBody[armprivatedns.VirtualNetworkLink](part); err == nil && value(link.Properties.RegistrationEnabled) {
			registering++
		}
	}
	delete(properties, "resourceGuid")
	body["etag"] = d.Etag
	properties["internalId"] = base64.StdEncoding.EncodeToString([]byte("ImmutableZoneIdentity;" + guidOf(d) + ";0"))
	properties["maxNumberOfRecordSets"], properties["numberOfRecordSets"] = maxRecordSets, sets
	properties["maxNumberOfVirtualNetworkLinks"], properties["numberOfVirtualNetworkLinks"] = maxLinks, links
	properties["maxNumberOfVirtualNetworkLinksWithRegistration"], properties["numberOfVirtualNetworkLinksWithRegistration"] = maxRegistrationLinks, registering
	return body, nil
}
