// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/resource"
)

// planPools are the documents of the pools that a cluster's body makes or changes.
func (p *Provider) planPools(r *arm.Request, w *whole, d *Desired) ([]*arm.Document, error) {
	var documents []*arm.Document
	for _, pool := range d.Pools {
		was := w.pool(pool.Name)
		if was != nil && reflect.DeepEqual(was.Pool, pool) && was.ProvisioningState == resource.Succeeded {
			continue
		}
		if was != nil && was.ProvisioningState == resource.Deleting {
			return nil, fault.New(fault.Conflict, "OperationNotAllowed", "The agent pool %s is being deleted.", pool.Name)
		}
		properties, err := clone(profile(r.Body, pool.Name))
		if err != nil {
			return nil, err
		}
		document, err := p.poolDocument(r.ID.Child("agentPools", pool.Name), was, properties, pool)
		if err != nil {
			return nil, err
		}
		documents = append(documents, document)
	}
	return documents, nil
}

// profile is a pool's object in a cluster's body.
func profile(body object, name string) object {
	list, _ := get(body, "properties.agentPoolProfiles").([]any)
	for _, element := range list {
		if o, ok := element.(object); ok && get(o, "name") == name {
			return o
		}
	}
	return object{}
}

// poolDocument is the document of a pool with these properties; was may be nil.
// Its nodes' parts are chosen when it is new, and with each version: the newest
// node image comes along.
func (p *Provider) poolDocument(id resource.ID, was *poolDoc, properties object, pool Pool) (*arm.Document, error) {
	document, state := &arm.Document{}, poolState{}
	if was != nil {
		*document, state = *was.Document, was.poolState
	}
	if was == nil || was.Pool.Version != pool.Version || was.Pool.Image != pool.Image {
		parts, err := p.parts(pool)
		if err != nil {
			return nil, err
		}
		state.Target = parts
	}
	state.Pool = pool
	fillPool(properties, pool)
	document.ID, document.Name, document.Type = id, id.Name(), poolType
	if err := document.SetBody(object{"properties": properties}); err != nil {
		return nil, fmt.Errorf("body of %s: %w", id, err)
	}
	return document, setState(document, state)
}

// putPool creates or replaces one pool of a cluster.
func (p *Provider) putPool(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	if r.Parent == nil {
		return nil, notFound(r.ID.Parent())
	}
	w, err := p.load(ctx, r.Parent)
	if err != nil {
		return nil, err
	}
	if r.Parent.ProvisioningState == resource.Deleting {
		return nil, fault.New(fault.Conflict, "OperationNotAllowed", "The cluster is being deleted.")
	}
	d := w.desired()
	versions, err := p.versions()
	if err != nil {
		return nil, err
	}
	ps := parser{versions: versions, hasImage: p.Catalogue.HasImage, location: p.Location, domain: p.Domain, problems: Judge(r.Body, PoolProperties())}
	// Names keep their case in ids; a pool's must be lower case, and so is found again.
	pool := ps.agentPool(r.Body, r.ID.Name(), d)
	if ps.subnets, err = p.subnets(ctx, append(d.subnets(), pool.Subnet)); err != nil {
		return nil, err
	}
	if len(ps.problems) == 0 || ps.problems[len(ps.problems)-1].Code != "InvalidRequestContent" {
		ps.validateChange(d, pool)
	}
	if err := fault.Join(ps.problems...); err != nil {
		return nil, err
	}
	was := w.pool(pool.Name)
	async := was == nil || was.ProvisioningState != resource.Succeeded || !reflect.DeepEqual(was.Pool, pool)
	if w.state.Stopped && async {
		return nil, stoppedFault()
	}
	body, err := clone(r.Body)
	if err != nil {
		return nil, err
	}
	properties, _ := get(body, "properties").(object)
	if properties == nil {
		properties = object{}
	}
	document, err := p.poolDocument(r.ID, was, properties, pool)
	return &arm.Plan{Document: document, Async: async, State: upgrading(was, pool)}, err
}

// validateChange checks one pool as it would be among the others.
func (p *parser) validateChange(d *Desired, pool Pool) {
	p.validatePool(d, pool, "properties.", d)
	next := *d
	next.Pools = nil
	for _, other := range d.Pools {
		if other.Name != pool.Name {
			next.Pools = append(next.Pools, other)
		}
	}
	next.Pools = append(next.Pools, pool)
	target := "properties.count"
	if !hasSystem(next.Pools) {
		target = "properties.mode"
	}
	p.validateTogether(&next, d, target)
}

// deletePool lets the reconciler remove a pool's nodes.
func (p *Provider) deletePool(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	if r.Parent == nil || r.Old == nil {
		return &arm.Plan{Async: true}, nil
	}
	w, err := p.load(ctx, r.Parent)
	if err != nil {
		return nil, err
	}
	if w.state.Stopped && r.Parent.ProvisioningState != resource.Deleting {
		return nil, stoppedFault()
	}
	var left []Pool
	for _, pool := range w.desired().Pools {
		if !strings.EqualFold(pool.Name, r.ID.Name()) {
			left = append(left, pool)
		}
	}
	if !hasSystem(left) && r.Parent.ProvisioningState != resource.Deleting {
		return nil, fault.New(fault.Invalid, "OperationNotAllowed",
			"The agent pool %s can't be deleted: there has to be at least one agent pool of mode System. Add another first, or delete the cluster.", r.ID.Name()).At("properties.mode")
	}
	pool := &poolDoc{Document: r.Old}
	if err := json.Unmarshal(r.Old.State, &pool.poolState); err != nil {
		return nil, fmt.Errorf("pool %s: state: %w", r.ID, err)
	}
	pool.Force = strings.EqualFold(r.Query.Get("ignore-pod-disruption-budget"), "true")
	return &arm.Plan{Document: r.Old, Async: true}, setState(r.Old, pool.poolState)
}

// poolAsked is the pool that an action is asked of, of a cluster that runs.
func (p *Provider) poolAsked(ctx context.Context, r *arm.Request) (*poolDoc, error) {
	if r.Parent == nil || r.Old == nil {
		return nil, notFound(r.ID)
	}
	w, err := p.load(ctx, r.Parent)
	if err != nil {
		return nil, err
	}
	if w.state.Stopped {
		return nil, stoppedFault()
	}
	for _, pool := range w.pools {
		if pool.ID.Equal(r.ID) && pool.ProvisioningState != resource.Deleting {
			return pool, nil
		}
	}
	return nil, notFound(r.ID)
}

func hasSystem(pools []Pool) bool {
	for _, pool := range pools {
		if pool.Mode == systemMode {
			return true
		}
	}
	return false
}
