// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/resource"
)

// canceling is the state of what an abort ends, in AKS's words.
const canceling resource.State = "Canceling"

// abortCluster stops the upgrade that runs on a cluster.
func (p *Provider) abortCluster(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	if r.Old == nil {
		return nil, notFound(r.ID)
	}
	w, err := p.load(ctx, r.Old)
	if err != nil {
		return nil, err
	}
	return w.abort(r, w.doc, func(pool *poolDoc) bool { return pool.Operation == w.doc.Operation })
}

// abortPool stops the upgrade that runs on an agent pool alone.
func (p *Provider) abortPool(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	if r.Parent == nil || r.Old == nil {
		return nil, notFound(r.ID)
	}
	w, err := p.load(ctx, r.Parent)
	if err != nil {
		return nil, err
	}
	if r.Old.Operation != "" && r.Old.Operation == w.doc.Operation {
		return nil, fault.New(fault.Conflict, "OperationNotAllowed",
			"The operation on agent pool %s is one of the whole cluster: abort that one (az aks operation-abort).", r.Old.Name)
	}
	return w.abort(r, r.Old, func(pool *poolDoc) bool { return pool.ID.Equal(r.ID) })
}

// abort marks the pools of a running upgrade: no node is taken any more, those
// that are being left are given back, those that are being made anew are finished.
// The upgrade's own operation ends Canceled then, and after it the request's.
func (w *whole) abort(r *arm.Request, d *arm.Document, under func(*poolDoc) bool) (*arm.Plan, error) {
	if d.Operation == "" {
		return nil, fault.New(fault.Conflict, "OperationNotAllowed", "No operation is in progress on '%s' that could be aborted.", d.Name)
	}
	plan := &arm.Plan{Async: true, State: canceling}
	for _, pool := range w.pools {
		if !under(pool) || !upgrades(pool.Document) && !upgrades(d) || pool.halted() {
			continue
		}
		pool.Roll = &rolling{Operation: pool.Operation, Progress: pool.progress(r.Old.SystemData.LastModifiedAt), Halt: &halt{
			Code: "OperationAborted", Message: fmt.Sprintf("The upgrade of agent pool %s was aborted.", pool.Name), Canceled: true}}
		if plan.Document == nil && len(plan.Children) == 0 {
			pool.Roll.Halt.Abort = r.Operation
		}
		document := *pool.Document
		if err := setState(&document, pool.poolState); err != nil {
			return nil, err
		}
		if document.ID.Equal(r.ID) {
			plan.Document = &document
		} else {
			plan.Children = append(plan.Children, &document)
		}
	}
	if plan.Document == nil && len(plan.Children) == 0 {
		return nil, fault.New(fault.Conflict, "OperationNotAllowed",
			"The operation on '%s' (%s) can't be aborted: only upgrades of nodes can.", d.Name, d.ProvisioningState)
	}
	if plan.Document == nil {
		document := *d
		plan.Document = &document
	}
	return plan, nil
}

// endAbort ends an abort when what it aborts has ended.
func (r *runner) endAbort(ctx context.Context, pool *poolDoc, changed *bool) error {
	if !pool.halted() || pool.Roll.Halt.Abort == "" || pool.Operation != "" && pool.Operation == pool.Roll.Operation {
		return nil
	}
	if err := r.ops.Finish(ctx, pool.Roll.Halt.Abort, arm.Ending{}); err != nil && !fault.Is(err, fault.NotFound) {
		return fmt.Errorf("end abort: %w", err)
	}
	pool.Roll.Halt.Abort, *changed = "", true
	return nil
}

// rolls tells how the works under an operation stand: why they stopped, if they
// did, and whether any of them still goes on.
func (w *whole) rolls(operation string) (stopped *fault.Error, going bool) {
	for _, pool := range w.pools {
		if pool.Operation != operation && w.doc.Operation != operation {
			continue
		}
		going = going || w.engines[pool.Name].busy
		if stopped == nil && pool.halted() && pool.Roll.Operation == operation {
			stopped = pool.Roll.Halt.fault()
		}
	}
	return stopped, going
}

// worked are the machines whose troubles the works on their nodes deal with.
func (w *whole) worked() map[string]bool {
	machines := map[string]bool{}
	for _, pool := range w.pools {
		for i := range pool.Nodes {
			if n := &pool.Nodes[i]; n.Work != nil || n.Surge {
				machines[n.Machine] = true
			}
		}
	}
	return machines
}

// resting tells whether works stopped under an operation that has ended: what is
// left to do is nobody's who asks for something else now.
func (pool *poolDoc) resting() bool {
	return pool.halted() && (pool.Operation == "" || pool.Operation != pool.Roll.Operation)
}
