// SPDX-License-Identifier: Apache-2.0

package network

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v7"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/privatedns/armprivatedns"
	"github.com/google/uuid"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// zoneGroupType are the zone groups of private endpoints: they keep a record of
// the endpoint's address in private zones.
func (p *Provider) zoneGroupType() arm.Type {
	return arm.Type{Name: "privateEndpoints/privateDnsZoneGroups", Versions: edgeVersions(), Queue: true,
		Model: func() any { return &armnetwork.PrivateDNSZoneGroup{} }, ReadOnly: arm.ReadOnlyPaths(zoneGroupProperties()),
		Put: p.putZoneGroup, Delete: p.deleteZoneGroup, View: p.viewZoneGroup}
}

// keptRecordTTL is Azure's TTL of records that endpoints keep.
const keptRecordTTL = 10

// recordState is the private state of a record set: who keeps it, if not a client.
type recordState struct {
	Keeper resource.ID `json:"keeper"`
}

func (p *Provider) putZoneGroup(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	f, model, err := readRequest[armnetwork.PrivateDNSZoneGroup](p, r, zoneGroupProperties())
	if err != nil {
		return nil, err
	}
	props := orEmpty(model.Properties)
	model.Properties = props
	props.PrivateDNSZoneConfigs = present(props.PrivateDNSZoneConfigs)
	if len(props.PrivateDNSZoneConfigs) == 0 {
		f.bad("InvalidPrivateDnsZoneConfigs", "properties.privateDnsZoneConfigs", "Private DNS zone group %s needs a zone.", r.ID)
	}
	siblings, _, err := arm.ListDocuments(ctx, p.Store, r.Parent.ID, typeZoneGroup)
	if err != nil {
		return nil, err
	}
	if len(siblings) > 0 && r.Old == nil {
		f.bad("PrivateEndpointHasPrivateDnsZoneGroup", "name", "Private endpoint %s has the private DNS zone group %s already; it can have one.", r.Parent.ID, siblings[0].Name)
	}
	changes := []store.Change{}
	kept := map[string]bool{}
	for i, config := range props.PrivateDNSZoneConfigs {
		target := fmt.Sprintf("properties.privateDnsZoneConfigs[%d].properties.privateDnsZoneId", i)
		config.Properties = orEmpty(config.Properties)
		config.Properties.RecordSets = nil
		zone, ok := reference(&f, target, config.Properties.PrivateDNSZoneID, typeZone)
		if !ok {
			continue
		}
		more, err := p.keepRecord(ctx, &f, r, target, zone)
		if err != nil {
			return nil, err
		}
		for _, change := range more {
			kept[change.Key] = true
		}
		changes = append(changes, more...)
	}
	if len(f) > 0 {
		return nil, f.err()
	}
	if r.Old != nil {
		dropped, err := p.dropRecords(ctx, r.Old)
		if err != nil {
			return nil, err
		}
		for _, change := range dropped {
			if !kept[change.Key] {
				changes = append(changes, change)
			}
		}
	}
	return planned(r, model, changes...)
}

// keepRecord writes the endpoint's A record into a zone, and holds on to the zone.
func (p *Provider) keepRecord(ctx context.Context, f *findings, r *arm.Request, target string, zone resource.ID) ([]store.Change, error) {
	changes, err := p.named(ctx, zone)
	if err != nil {
		return nil, err
	}
	d, err := p.referenced(ctx, f, r.ID, target, zone)
	if err != nil || d == nil {
		return nil, err
	}
	label, address, err := p.endpointRecord(ctx, r.Parent)
	if err != nil {
		return nil, err
	}
	id := d.ID.Child("A", label)
	record := &arm.Document{}
	if old, err := arm.GetDocument(ctx, p.Store, id); err == nil {
		var state recordState
		if len(old.State) > 0 {
			if err := json.Unmarshal(old.State, &state); err != nil {
				return nil, fmt.Errorf("state of %s: %w", id, err)
			}
		}
		if !state.Keeper.Equal(r.ID) {
			f.bad("PrivateDnsRecordExists", target, "The zone %s has the record set %s already.", zone, id)
			return nil, nil
		}
		record = old
	} else if !fault.Is(err, fault.NotFound) {
		return nil, err
	}
	change, err := p.keptRecord(r, record, id, address)
	return append(changes, change), err
}

func (p *Provider) keptRecord(r *arm.Request, record *arm.Document, id resource.ID, address string) (store.Change, error) {
	body, err := json.Marshal(armprivatedns.RecordSet{Properties: &armprivatedns.RecordSetProperties{
		TTL: ptr[int64](keptRecordTTL), ARecords: []*armprivatedns.ARecord{{IPv4Address: ptr(address)}}}})
	if err != nil {
		return store.Change{}, fmt.Errorf("record %s: %w", id, err)
	}
	state, err := json.Marshal(recordState{Keeper: r.ID})
	if err != nil {
		return store.Change{}, fmt.Errorf("record %s: %w", id, err)
	}
	now := p.Now().UTC()
	if record.Revision == 0 {
		record.SystemData = resource.SystemData{CreatedBy: Namespace, CreatedByType: "Application", CreatedAt: now}
	}
	record.SystemData.LastModifiedAt = now
	record.ID, record.Type, record.Name, record.Etag = id, id.Type(), id.Name(), uuid.NewString()
	record.ProvisioningState, record.Body, record.State = resource.Succeeded, body, state
	record.Generation++
	return arm.PutDocument(record)
}

// endpointRecord is the name and address of an endpoint's record.
func (p *Provider) endpointRecord(ctx context.Context, endpoint *arm.Document) (label, address string, err error) {
	model, err := readBody[armnetwork.PrivateEndpoint](endpoint)
	if err != nil {
		return "", "", err
	}
	a, ok := endpointAddress(model)
	if !ok || len(model.Properties.PrivateLinkServiceConnections) == 0 {
		return "", "", fmt.Errorf("private endpoint %s has no address", endpoint.ID)
	}
	cluster := parsedID(value(model.Properties.PrivateLinkServiceConnections[0].Properties.PrivateLinkServiceID))
	servers, err := p.servers(ctx)
	if err != nil {
		return "", "", err
	}
	label = strings.ToLower(cluster.Name())
	for _, s := range servers {
		if first, _, found := strings.Cut(cmp.Or(s.PrivateFQDN, s.FQDN), "."); found && s.Cluster.Equal(cluster) {
			label = first
		}
	}
	return label, a.String(), nil
}

// dropRecords takes away the records that a zone group keeps.
func (p *Provider) dropRecords(ctx context.Context, group *arm.Document) ([]store.Change, error) {
	records, err := p.keptRecords(ctx, group)
	if err != nil {
		return nil, err
	}
	changes := make([]store.Change, len(records))
	for i, d := range records {
		changes[i] = store.Change{Key: arm.DocumentKey(d.ID), Revision: d.Revision}
	}
	return changes, nil
}

func (p *Provider) keptRecords(ctx context.Context, group *arm.Document) ([]*arm.Document, error) {
	model, err := readBody[armnetwork.PrivateDNSZoneGroup](group)
	if err != nil || model.Properties == nil {
		return nil, err
	}
	var kept []*arm.Document
	for _, config := range present(model.Properties.PrivateDNSZoneConfigs) {
		zone := parsedID(value(orEmpty(config.Properties).PrivateDNSZoneID))
		if zone.IsRoot() {
			continue
		}
		records, _, err := arm.ListDocuments(ctx, p.Store, zone, typeZoneA)
		if err != nil {
			return nil, err
		}
		for _, d := range records {
			var state recordState
			if len(d.State) > 0 && json.Unmarshal(d.State, &state) == nil && state.Keeper.Equal(group.ID) {
				kept = append(kept, d)
			}
		}
	}
	return kept, nil
}

func (p *Provider) deleteZoneGroup(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	changes, err := p.dropRecords(ctx, r.Old)
	return &arm.Plan{Changes: changes, Async: true}, err
}

func (p *Provider) viewZoneGroup(ctx context.Context, d *arm.Document, _ resource.APIVersion) (any, error) {
	body, properties, err := edgeView(d)
	if err != nil {
		return nil, err
	}
	delete(properties, "resourceGuid")
	records, err := p.keptRecords(ctx, d)
	if err != nil {
		return nil, err
	}
	for _, config := range arm.Elements(body, "properties.privateDnsZoneConfigs") {
		props, _ := config["properties"].(map[string]any)
		zone, _ := props["privateDnsZoneId"].(string)
		sets := []any{}
		for _, record := range records {
			if strings.EqualFold(record.ID.Parent().String(), zone) {
				set, err := readBody[armprivatedns.RecordSet](record)
				if err != nil {
					return nil, err
				}
				sets = append(sets, map[string]any{"recordType": "A", "recordSetName": record.Name, "ttl": keptRecordTTL,
					"fqdn": record.Name + "." + record.ID.Parent().Name(), "provisioningState": "Succeeded",
					"ipAddresses": []any{value(set.Properties.ARecords[0].IPv4Address)}})
			}
		}
		if props != nil {
			props["recordSets"] = sets
		}
	}
	return body, nil
}
