// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// ensure are the changes that give a cluster its documents in the node resource
// group, and take those away that it made and needs no more.
func (p *Provider) ensure(ctx context.Context, w *whole) ([]store.Change, error) {
	var changes []store.Change
	wanted := map[string]bool{}
	for _, d := range append(w.documents(), p.identityDocs(w)...) {
		wanted[d.id.Key()] = true
		change, err := p.ensureOne(ctx, d)
		if err != nil {
			return nil, err
		}
		if change != nil {
			changes = append(changes, *change)
		}
	}
	inside, _, err := arm.ListDocuments(ctx, p.Store, w.group(), "")
	if err != nil {
		return nil, fmt.Errorf("node resource group: %w", err)
	}
	w.inside = inside
	for _, d := range inside {
		if !wanted[d.ID.Key()] && w.made(d) && d.Operation == "" {
			changes = append(changes, store.Change{Key: arm.DocumentKey(d.ID), Revision: d.Revision})
		}
	}
	association, err := p.associate(ctx, w)
	return append(changes, association...), err
}

// made tells whether a document is one that the cluster itself makes and takes away.
func (w *whole) made(d *arm.Document) bool {
	switch strings.ToLower(d.Type) {
	case "microsoft.compute/virtualmachinescalesets":
		return strings.HasPrefix(d.Name, "aks-") && strings.HasSuffix(d.Name, "-"+w.digits()+"-vmss")
	case "microsoft.compute/virtualmachinescalesets/virtualmachines":
		return strings.HasSuffix(d.ID.Parent().Name(), "-"+w.digits()+"-vmss")
	case strings.ToLower(identityType):
		return d.ID.Equal(kubeletIdentityID(w.doc.ID, &w.state.Desired)) && d.SystemData.CreatedBy == Namespace
	case "microsoft.network/publicipaddresses":
		return d.Tags["aks-managed-type"] == "aks-slb-managed-outbound-ip"
	}
	return false
}

func (p *Provider) ensureOne(ctx context.Context, wanted azureDoc) (*store.Change, error) {
	stored, err := arm.GetDocument(ctx, p.Store, wanted.id)
	if fault.Is(err, fault.NotFound) {
		return p.newDocument(wanted)
	}
	if err != nil {
		return nil, err
	}
	before := stored.State
	if wanted.state != nil {
		if err := setState(stored, wanted.state); err != nil {
			return nil, err
		}
	}
	changed := !bytes.Equal(before, stored.State)
	if wanted.merge != nil {
		merged, err := p.mergeBody(stored, wanted.merge)
		if err != nil {
			return nil, err
		}
		changed = changed || merged
	}
	if !changed {
		return nil, nil
	}
	return p.touched(stored)
}

// mergeBody lets merge change a document's body and tells whether it did.
func (p *Provider) mergeBody(d *arm.Document, merge func(object) bool) (bool, error) {
	decoder := json.NewDecoder(bytes.NewReader(d.Body))
	decoder.UseNumber()
	body := object{}
	if err := decoder.Decode(&body); err != nil {
		return false, fmt.Errorf("body of %s: %w", d.ID, err)
	}
	if !merge(body) {
		return false, nil
	}
	return true, d.SetBody(body)
}

// touched is the change that writes a document anew.
func (p *Provider) touched(d *arm.Document) (*store.Change, error) {
	d.Etag = uuid.NewString()
	d.Generation++
	d.SystemData.LastModifiedAt = p.Now().UTC()
	change, err := arm.PutDocument(d)
	return &change, err
}

func (p *Provider) newDocument(wanted azureDoc) (*store.Change, error) {
	now := p.Now().UTC()
	d := &arm.Document{Envelope: resource.Envelope{
		ID: wanted.id, Type: wanted.id.Type(), Name: wanted.id.Name(), Location: wanted.location, Tags: wanted.tags,
		Etag: uuid.NewString(), ProvisioningState: resource.Succeeded, Generation: 1,
		SystemData: resource.SystemData{CreatedBy: Namespace, CreatedByType: "Application", CreatedAt: now, LastModifiedAt: now},
	}}
	if err := d.SetBody(wanted.body); err != nil {
		return nil, fmt.Errorf("body of %s: %w", wanted.id, err)
	}
	if wanted.state != nil {
		if err := setState(d, wanted.state); err != nil {
			return nil, err
		}
	}
	change, err := arm.PutDocument(d)
	return &change, err
}

// associate gives a subnet of the user's the cluster's route table, as AKS does
// with kubenet when the subnet has none.
func (p *Provider) associate(ctx context.Context, w *whole) ([]store.Change, error) {
	if w.state.Desired.Plugin != kubenet {
		return nil, nil
	}
	var changes []store.Change
	for _, pool := range w.pools {
		s, known := w.subnets[pool.Pool.Subnet.Key()]
		if !known || !s.RouteTable.IsRoot() || len(changes) > 0 {
			continue
		}
		change, err := p.setRouteTable(ctx, pool.Pool.Subnet, ref(w.ownRouteTable()))
		if err != nil {
			return nil, err
		}
		changes = append(changes, *change)
	}
	return changes, nil
}

// setRouteTable changes a subnet's route table in its network's document; nil takes it away.
func (p *Provider) setRouteTable(ctx context.Context, subnet resource.ID, table object) (*store.Change, error) {
	vnet, err := arm.GetDocument(ctx, p.Store, subnet.Parent())
	if err != nil {
		return nil, fmt.Errorf("network of %s: %w", subnet, err)
	}
	_, err = p.mergeBody(vnet, func(body object) bool {
		list, _ := get(body, "properties.subnets").([]any)
		element := find(list, subnet.Name())
		if element == nil {
			return false
		}
		if table == nil {
			arm.Drop(element, "properties.routeTable")
		} else {
			set(element, "properties.routeTable", table)
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	return p.touched(vnet)
}

// dissociate takes the cluster's route table from the subnets that it gave it to.
func (p *Provider) dissociate(ctx context.Context, w *whole) ([]store.Change, error) {
	for _, s := range w.subnets {
		if s.RouteTable.Equal(w.ownRouteTable()) && !s.ID.Equal(w.ownSubnet()) {
			change, err := p.setRouteTable(ctx, s.ID, nil)
			if err != nil {
				return nil, err
			}
			return []store.Change{*change}, nil // one at a time: they may share a document
		}
	}
	return nil, nil
}
