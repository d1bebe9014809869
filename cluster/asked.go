// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// deleteMachines takes the named nodes out of a pool: they are drained, and the
// count goes down with each.
func (p *Provider) deleteMachines(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	pool, err := p.poolAsked(ctx, r)
	if err != nil {
		return nil, err
	}
	names, err := machineNames(r.Body)
	if err != nil {
		return nil, err
	}
	if err := pool.give(names, p.Now().UTC()); err != nil {
		return nil, err
	}
	document := *pool.Document
	if err := edit(&document, "properties.count", pool.Pool.Count); err != nil {
		return nil, err
	}
	return &arm.Plan{Document: &document, Async: true, State: resource.Updating}, setState(&document, pool.poolState)
}

// machineNames reads the request's list, each name once.
func machineNames(body object) ([]string, error) {
	var names []string
	list, _ := get(body, "machineNames").([]any)
	for _, element := range list {
		name, ok := element.(string)
		if !ok || name == "" {
			return nil, fault.New(fault.Invalid, "InvalidParameter", "The list machineNames holds something that isn't a name.").At("machineNames")
		}
		names = append(names, name)
	}
	slices.Sort(names)
	if names = slices.Compact(names); len(names) == 0 {
		return nil, fault.New(fault.Invalid, "InvalidParameter", "The list machineNames is required and can't be empty.").At("machineNames")
	}
	return names, nil
}

// give asks for the named nodes of a pool to go, or for none of them.
func (pool *poolDoc) give(names []string, now time.Time) error {
	var wrong []*fault.Error
	for _, name := range names {
		n := pool.node(name)
		switch {
		case n == nil || n.Removed:
			wrong = append(wrong, fault.New(fault.Invalid, "MachineNotFound", "The agent pool %s has no machine %s.", pool.Name, name).At("machineNames"))
		case n.Surge || n.Work != nil && n.Work.Error == "":
			wrong = append(wrong, fault.New(fault.Conflict, "OperationNotAllowed", "Something is being done to machine %s already.", name).At("machineNames"))
		}
	}
	if err := fault.Join(wrong...); err != nil {
		return err
	}
	least := 0
	if pool.Pool.Mode == systemMode {
		least = 1
	}
	if pool.Pool.AutoScale {
		least = max(least, pool.Pool.Min)
	}
	if left := pool.Pool.Count - len(names); left < least {
		return fault.New(fault.Invalid, "InvalidParameter", "The agent pool %s would be left with %d nodes: it needs at least %d.", pool.Name, left, least).At("machineNames")
	}
	for _, name := range names {
		if pool.ask(name, work{Kind: removeNode, Reason: becauseAsked, Text: "deletion of the machine", Asked: now}) {
			pool.Pool.Count--
		}
	}
	return nil
}

// Actions of Azure on the machines of a node pool's scale set, by name.
func nodeActions() map[string]work {
	return map[string]work{
		"restart":  {Kind: rebootNode, Text: "restart"},
		"redeploy": {Kind: rebootNode, Text: "redeployment"}, // there is one machine to be on: it starts there anew, on its disk
		"reimage":  {Kind: reimageNode, Text: "reimaging"},
	}
}

// PlanAction plans what an action on a scale set asks of its machines, as the
// changes that belong into the transaction that accepts it. instances are
// numbers; none: all. As on Azure nothing is drained before: who wants that
// uses kubectl drain.
func (p *Provider) PlanAction(ctx context.Context, set resource.ID, action string, instances []string) ([]store.Change, error) {
	what, known := nodeActions()[action]
	if !known {
		return nil, fault.New(fault.Unsupported, "ActionNotSupported", "The action %s isn't offered on the machines of a node pool.", action).At(action)
	}
	w, pool, err := p.poolOfSet(ctx, set)
	if err != nil {
		return nil, err
	}
	switch {
	case w.state.Stopped:
		return nil, stoppedFault()
	case w.doc.Operation != "" || pool.Operation != "":
		return nil, fault.New(fault.Conflict, "OperationNotAllowed", "The cluster or its agent pool %s is being changed: wait for that to end.", pool.Name)
	}
	if len(instances) == 0 {
		for i := range pool.Nodes {
			if !pool.Nodes[i].goes() {
				instances = append(instances, strconv.FormatInt(pool.Nodes[i].Number, 10))
			}
		}
	}
	now := p.Now().UTC()
	for _, instance := range instances {
		n := pool.numbered(instance)
		if n == nil || n.goes() {
			return nil, fault.New(fault.Invalid, "InvalidParameter", "The scale set %s has no machine %s.", set.Name(), instance).At("instanceIds")
		}
		next := what
		next.Reason, next.Asked, next.NoDrain = becauseAsked, now, true
		if next.Kind == reimageNode {
			next.Parts, next.Version = n.Parts, n.Version
		}
		if !pool.ask(n.Name, next) {
			return nil, fault.New(fault.Conflict, "OperationNotAllowed", "Something is being done to machine %s already.", n.Name).At("instanceIds")
		}
		n.Repair = nil
	}
	return stateChange(nil, pool.Document, pool.poolState)
}

// numbered finds a node by its number in the scale set.
func (pool *poolDoc) numbered(text string) *allotted {
	for i := range pool.Nodes {
		if strconv.FormatInt(pool.Nodes[i].Number, 10) == text {
			return &pool.Nodes[i]
		}
	}
	return nil
}

// poolOfSet finds the cluster and the pool that a scale set is of.
func (p *Provider) poolOfSet(ctx context.Context, set resource.ID) (*whole, *poolDoc, error) {
	group, err := arm.GetDocument(ctx, p.Store, resource.GroupID(set.Subscription(), set.Group()))
	if err != nil {
		return nil, nil, fmt.Errorf("group of %s: %w", set, err)
	}
	var body struct {
		ManagedBy string `json:"managedBy"`
	}
	if err := json.Unmarshal(group.Body, &body); err != nil {
		return nil, nil, fmt.Errorf("group of %s: %w", set, err)
	}
	id, err := resource.ParseID(body.ManagedBy)
	if err != nil {
		return nil, nil, notFound(set)
	}
	doc, err := arm.GetDocument(ctx, p.Store, id)
	if err != nil {
		return nil, nil, fmt.Errorf("cluster of %s: %w", set, err)
	}
	w, err := p.load(ctx, doc)
	if err != nil {
		return nil, nil, err
	}
	for _, pool := range w.pools {
		if strings.EqualFold(scaleSetName(pool.Pool.Name, w.digits()), set.Name()) && pool.ProvisioningState != resource.Deleting && doc.ProvisioningState != resource.Deleting {
			return w, pool, nil
		}
	}
	return nil, nil, notFound(set)
}

// concludeAsked ends the operations on scale sets and their machines whose works
// are done, or failed.
func (r *runner) concludeAsked(ctx context.Context, w *whole) error {
	for _, d := range w.inside {
		if d.Operation == "" {
			continue
		}
		waits, cause := w.asked(d)
		if waits && cause == nil {
			left, err := r.timeLeft(ctx, d.Operation, r.CreateDeadline)
			if err != nil {
				return err
			}
			if left > 0 {
				w.tended = sooner(w.tended, left)
				continue
			}
			cause = errors.New("it takes too long")
		}
		var failed *fault.Error
		if cause != nil {
			failed = fault.New(fault.Exhausted, "OperationFailed", "The action on %s failed: %s.", d.ID.Name(), cause.Error())
		}
		if err := r.finish(ctx, d.Operation, failed); err != nil {
			return err
		}
	}
	return nil
}

// asked tells whether works wait that an action on a document asked for, and
// why one of them failed.
func (w *whole) asked(d *arm.Document) (waits bool, cause error) {
	for _, pool := range w.pools {
		set := w.scaleSet(pool.Pool.Name)
		for i := range pool.Nodes {
			n := &pool.Nodes[i]
			mine := d.ID.Equal(set) || d.ID.Equal(w.instance(pool.Pool.Name, n.Number))
			if !mine || n.Removed || n.Work == nil || n.Work.Reason != becauseAsked {
				continue
			}
			if n.Work.Error != "" {
				return false, fmt.Errorf("node %s: %s", n.Name, n.Work.Error)
			}
			waits = true
		}
	}
	return waits, nil
}

// machines lists a pool's machines as AKS does; one of them by its name.
func (p *Provider) machines(ctx context.Context, r *arm.Request) (any, error) {
	if r.Parent == nil {
		return nil, notFound(r.ID.Parent())
	}
	cluster, err := arm.GetDocument(ctx, p.Store, r.Parent.ID.Parent())
	if err != nil {
		return nil, fmt.Errorf("cluster of %s: %w", r.Parent.ID, err)
	}
	w, err := p.load(ctx, cluster)
	if err != nil {
		return nil, err
	}
	list := []any{}
	for _, pool := range w.pools {
		for i := range pool.Nodes {
			if n := &pool.Nodes[i]; pool.ID.Equal(r.Parent.ID) && !n.Removed {
				list = append(list, w.machine(pool, n))
			}
		}
	}
	return object{"value": list}, nil
}

func (p *Provider) machine(ctx context.Context, r *arm.Request) (any, error) {
	all, err := p.machines(ctx, r)
	if err != nil {
		return nil, err
	}
	for _, element := range all.(object)["value"].([]any) {
		if m := element.(object); strings.EqualFold(fmt.Sprint(m["name"]), r.ID.Name()) {
			return m, nil
		}
	}
	return nil, notFound(r.ID)
}

func (w *whole) machine(pool *poolDoc, n *allotted) object {
	state := resource.Succeeded
	if n.Work != nil && n.Work.Error == "" {
		state = map[workKind]resource.State{removeNode: resource.Deleting}[n.Work.Kind]
		if state == "" {
			state = resource.Updating
		}
	}
	return object{"id": pool.ID.String() + "/machines/" + n.Name, "name": n.Name, "type": poolType + "/machines", "properties": object{
		"resourceId": w.instance(pool.Pool.Name, n.Number).String(), "provisioningState": string(state),
		"network": object{"ipAddresses": []any{object{"ip": n.Address.String(), "family": "IPv4"}}}}}
}
