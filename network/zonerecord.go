// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/privatedns/armprivatedns"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/resource"
)

// recordSetTypes are the record sets that name servers here can answer: addresses
// and names for them. The others are refused by name.
func (p *Provider) recordSetTypes() []arm.Type {
	types := []arm.Type{}
	for name, put := range map[string]arm.Hook{"A": p.putRecordSet, "CNAME": p.putRecordSet,
		"AAAA": refuseRecordSet, "MX": refuseRecordSet, "PTR": refuseRecordSet, "SRV": refuseRecordSet, "TXT": refuseRecordSet} {
		patch := func(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
			if err := mergeOld(r, &armprivatedns.RecordSet{}); err != nil {
				return nil, err
			}
			return put(ctx, r)
		}
		types = append(types, arm.Type{Name: "privateDnsZones/" + name, Versions: zoneVersions(), Queue: true,
			Model: func() any { return &armprivatedns.RecordSet{} }, ReadOnly: arm.ReadOnlyPaths(recordSetProperties("")),
			Put: put, Patch: patch, Delete: p.deleteRecordSet, View: viewRecordSet})
	}
	return types
}

func refuseRecordSet(_ context.Context, r *arm.Request) (*arm.Plan, error) {
	typ := recordType(r.ID)
	return nil, fault.New(fault.Unsupported, "RecordTypeNotSupported", "Record sets of type %s can't be made here: name servers of virtual networks answer A and CNAME records.", typ).At("recordType")
}

// recordType is "A" of a record set's id.
func recordType(id resource.ID) string {
	typ := id.Type()
	return strings.ToUpper(typ[strings.LastIndex(typ, "/")+1:])
}

func (p *Provider) putRecordSet(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	property := "aRecords"
	if recordType(r.ID) == "CNAME" {
		property = "cnameRecord"
	}
	f := findings(arm.Judge(r.Body, recordSetProperties(property)))
	model := new(armprivatedns.RecordSet)
	if err := decode(r.Body, model); err != nil {
		return nil, firstOf(f.add(err), f.err())
	}
	model.Properties = orEmpty(model.Properties)
	props := model.Properties
	props.Fqdn, props.IsAutoRegistered = nil, nil
	props.TTL = orDefault(props.TTL, 3600)
	if *props.TTL < 1 || *props.TTL > 2147483647 {
		f.bad("BadRequest", "properties.ttl", "The TTL %d of record set %s isn't in the range from 1 to 2147483647.", *props.TTL, r.ID.Name())
	}
	checkRecordName(&f, r.ID)
	if err := p.kept(r); err != nil {
		return nil, err
	}
	siblings, _, err := arm.ListDocuments(ctx, p.Store, r.Parent.ID, "")
	if err != nil {
		return nil, err
	}
	linked, sets := false, 0
	for _, d := range siblings {
		linked = linked || d.ID.IsType(typeZoneLink)
		if d.ID.IsType(typeZoneLink) {
			continue
		}
		sets++
		if strings.EqualFold(d.Name, r.ID.Name()) && !d.ID.Equal(r.ID) {
			f.bad("CnameRecordConflict", "name", "The record set %s could not be created because %s has the same name: a CNAME record set stands alone.", r.ID, d.ID)
		}
	}
	if sets >= maxRecordSets && r.Old == nil {
		f.bad("TooManyRecordSets", "name", "Zone %s has %d record sets; more aren't possible.", r.Parent.ID, sets)
	}
	if property == "aRecords" {
		checkAddresses(&f, props.ARecords)
	} else if err := p.checkAlias(ctx, &f, r.ID, orEmpty(props.CnameRecord)); err != nil {
		return nil, err
	}
	if len(f) > 0 {
		return nil, f.err()
	}
	plan, err := planned(r, model)
	if plan != nil {
		plan.Async = plan.Async && linked
	}
	return plan, err
}

// kept refuses to change a record that a private endpoint's zone group keeps.
func (p *Provider) kept(r *arm.Request) error {
	if r.Old == nil || len(r.Old.State) == 0 {
		return nil
	}
	return fault.New(fault.Conflict, "RecordSetKeptByPrivateEndpoint",
		"The record set %s is kept by a private endpoint's zone group: delete that to change it.", r.ID)
}

func checkRecordName(f *findings, id resource.ID) {
	name := strings.ToLower(id.Name())
	if name == "@" {
		if recordType(id) == "CNAME" {
			f.bad("BadRequest", "name", "A CNAME record set can't stand at a zone's apex.")
		}
		return
	}
	labels := strings.Split(name, ".")
	if labels[0] == "*" {
		labels = labels[1:]
	}
	if len(name)+1+len(id.Parent().Name()) > 253 || !allMatch(labels, zoneLabel) {
		f.bad("BadRequest", "name", "The record set name '%s' is invalid.", id.Name())
	}
}

func checkAddresses(f *findings, records []*armprivatedns.ARecord) {
	const target = "properties.aRecords"
	if len(records) == 0 || len(records) > maxRecords {
		f.bad("BadRequest", target, "A record set has 1 to %d records; this one has %d.", maxRecords, len(records))
	}
	seen := map[netip.Addr]bool{}
	for i, r := range records {
		at := fmt.Sprintf("%s[%d].ipv4Address", target, i)
		a, err := netip.ParseAddr(value(orEmpty(r).IPv4Address))
		switch {
		case err != nil || !a.Is4():
			f.bad("BadRequest", at, "The IPv4 address '%s' is invalid.", value(orEmpty(r).IPv4Address))
		case seen[a]:
			f.bad("BadRequest", at, "The record %s stands twice in the record set.", a)
		}
		seen[a] = true
	}
}

// checkAlias: a name that leads to one of a private zone can be answered; any other can't.
func (p *Provider) checkAlias(ctx context.Context, f *findings, id resource.ID, record *armprivatedns.CnameRecord) error {
	const target = "properties.cnameRecord.cname"
	name := strings.ToLower(strings.TrimSuffix(value(record.Cname), "."))
	if name == "" || len(name) > 253 || !allMatch(strings.Split(name, "."), zoneLabel) {
		f.bad("BadRequest", target, "The canonical name '%s' is invalid.", value(record.Cname))
		return nil
	}
	own := strings.ToLower(id.Name() + "." + id.Parent().Name())
	if name == own {
		f.bad("BadRequest", target, "The record %s leads to itself.", own)
		return nil
	}
	inv, err := p.inventory(ctx)
	if err != nil {
		return err
	}
	known := false
	for i := range all[armprivatedns.PrivateZone](inv, typeZone) {
		known = known || ofDomain(name, i.doc.Name)
	}
	if !known {
		*f = append(*f, fault.New(fault.Unsupported, "PropertyNotSupported",
			"%s can't be %q here: only names of private zones can be answered.", target, name).At(target))
	}
	return nil
}

// ofDomain tells whether a name is a domain's own or stands beneath it.
func ofDomain(name, domain string) bool {
	domain = strings.ToLower(domain)
	return name == domain || strings.HasSuffix(name, "."+domain)
}

func (p *Provider) deleteRecordSet(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	if err := p.kept(r); err != nil {
		return nil, err
	}
	links, _, err := arm.ListDocuments(ctx, p.Store, r.Parent.ID, typeZoneLink)
	return &arm.Plan{Async: len(links) > 0}, err
}

func viewRecordSet(_ context.Context, d *arm.Document, _ resource.APIVersion) (any, error) {
	body, properties, err := edgeView(d)
	if err != nil {
		return nil, err
	}
	body["etag"] = d.Etag
	delete(properties, "provisioningState")
	delete(properties, "resourceGuid")
	properties["fqdn"] = recordFQDN(d.ID)
	properties["isAutoRegistered"] = false
	return body, nil
}

// recordFQDN is a record set's whole name, with the root's dot.
func recordFQDN(id resource.ID) string {
	if id.Name() == "@" {
		return id.Parent().Name() + "."
	}
	return id.Name() + "." + id.Parent().Name() + "."
}

// listRecordSets shows a zone's record sets of all types.
func (p *Provider) listRecordSets(ctx context.Context, r *arm.Request) (any, error) {
	authority, err := p.startOfAuthority(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	sets := []any{authority}
	parts, _, err := arm.ListDocuments(ctx, p.Store, r.ID, "")
	if err != nil {
		return nil, err
	}
	suffix := ""
	for name, values := range r.Query {
		if strings.EqualFold(name, "$recordsetnamesuffix") {
			suffix = strings.ToLower(values[0])
		}
	}
	for _, d := range parts {
		if d.ID.IsType(typeZoneLink) || !strings.HasSuffix(strings.ToLower(d.Name), suffix) {
			continue
		}
		view, err := viewRecordSet(ctx, d, r.Version)
		if err != nil {
			return nil, err
		}
		sets = append(sets, view)
	}
	return map[string]any{"value": sets}, nil
}

// startOfAuthority is what every zone has; no one can change it.
func (p *Provider) startOfAuthority(ctx context.Context, zone resource.ID) (any, error) {
	d, err := arm.GetDocument(ctx, p.Store, zone)
	if err != nil {
		return nil, err
	}
	id := d.ID.Child("SOA", "@")
	return map[string]any{"id": id.String(), "name": "@", "type": id.Type(), "etag": d.Etag, "properties": map[string]any{
		"fqdn": recordFQDN(id), "ttl": 3600, "isAutoRegistered": false, "soaRecord": map[string]any{
			"email": "hostmaster." + p.Domain, "host": "dns." + p.Domain, "serialNumber": 1,
			"refreshTime": 3600, "retryTime": 300, "expireTime": 2419200, "minimumTtl": 10}}}, nil
}

func (p *Provider) getStartOfAuthority(ctx context.Context, r *arm.Request) (any, error) {
	if r.ID.Name() != "@" {
		return nil, fault.New(fault.NotFound, "NotFound", "The record set %s was not found.", r.ID)
	}
	return p.startOfAuthority(ctx, r.ID.Parent())
}

func (p *Provider) listStartOfAuthority(ctx context.Context, r *arm.Request) (any, error) {
	authority, err := p.startOfAuthority(ctx, r.ID)
	return map[string]any{"value": []any{authority}}, err
}
