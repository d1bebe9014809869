// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"time"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/oidc"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// tearDown removes a cluster, what hangs on others first: its machines and
// control plane, then what it has in networks, then its documents.
func (r *runner) tearDown(ctx context.Context, w *whole, h *hosted) (time.Duration, error) {
	var changes []store.Change
	for _, k := range h.sorted() {
		if !h.tombstoned(k) {
			changes = append(changes, h.bury(w.state.Host, k))
		}
	}
	if changes = append(changes, h.gone(w.state.Host, nil)...); len(changes) > 0 {
		return soon, r.write(ctx, w.doc, changes)
	}
	if len(h.units) > 0 {
		return r.overdue(ctx, w, h)
	}
	changes, err := r.leaveNetworks(ctx, w)
	if err != nil {
		return 0, err
	}
	if len(changes) > 0 {
		return soon, r.write(ctx, w.doc, changes)
	}
	for _, vnet := range r.networks(w) {
		waiting, err := r.Network.Waiting(ctx, vnet)
		if err != nil {
			return 0, err
		}
		if waiting != "" {
			return r.overdue(ctx, w, h)
		}
	}
	return 0, r.removed(ctx, w)
}

// networks are the virtual networks that a cluster was in.
func (r *runner) networks(w *whole) []resource.ID {
	ids := []resource.ID{w.vnetID()}
	if !w.state.ServerSubnet.IsRoot() && !w.state.ServerSubnet.Parent().Equal(w.vnetID()) {
		ids = append(ids, w.state.ServerSubnet.Parent())
	}
	return ids
}

// leaveNetworks are the changes that take a cluster out of the networks: its
// place in them, its documents, and those in its group.
func (r *runner) leaveNetworks(ctx context.Context, w *whole) ([]store.Change, error) {
	var err error
	if w.subnets, err = r.Provider.subnets(ctx, w.places()); err != nil {
		return nil, err
	}
	changes, err := r.dissociate(ctx, w)
	if err != nil || len(changes) > 0 {
		return changes, err
	}
	if changes, err = r.Network.Serve(ctx, w.doc.ID, nil); err != nil {
		return nil, err
	}
	for _, d := range w.zoneDocs() {
		if d.id.Under(w.group()) {
			continue
		}
		stored, err := arm.GetDocument(ctx, r.Store, d.id)
		if fault.Is(err, fault.NotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		changes = append(changes, store.Change{Key: arm.DocumentKey(d.id), Revision: stored.Revision})
	}
	inside, _, err := arm.ListDocuments(ctx, r.Store, w.group(), "")
	if err != nil {
		return nil, fmt.Errorf("node resource group: %w", err)
	}
	for _, d := range inside {
		if d.Operation != "" { // which changes the document: the next look removes it
			if err := r.finish(ctx, d.Operation, fault.New(fault.Conflict, "OperationNotAllowed", "The cluster is being deleted.")); err != nil {
				return nil, err
			}
		}
		changes = append(changes, store.Change{Key: arm.DocumentKey(d.ID), Revision: d.Revision})
	}
	return changes, nil
}

// removed forgets what is left of a cluster and ends its deletion.
func (r *runner) removed(ctx context.Context, w *whole) error {
	if err := r.dropIdentities(ctx, w); err != nil {
		return err
	}
	for _, pool := range w.pools {
		if err := r.endAbort(ctx, pool, new(bool)); err != nil {
			return err
		}
	}
	changes := []store.Change{
		{Key: keysKey(w.state.UID), Revision: store.Any},
		{Key: principalKey(w.state.UID), Revision: store.Any},
		{Key: accessKey(w.state.UID), Revision: store.Any},
		{Key: signersKey(w.state.UID), Revision: store.Any},
		{Key: oidc.StoreKey(r.Tenant, w.state.UID), Revision: store.Any},
		{Key: guardKey(w.state.UID), Revision: store.Any},
		{Key: patchesKey(w.state.UID), Revision: store.Any},
		{Key: backupKeyKey(w.state.UID), Revision: store.Any},
		{Key: restoreKeyKey(w.state.UID), Revision: store.Any},
		{Key: arm.DocumentKey(w.group()), Revision: store.Any},
	}
	if err := r.ops.Finish(ctx, w.doc.Operation, arm.Ending{}, changes...); err != nil {
		return fmt.Errorf("end deletion: %w", err)
	}
	return nil
}

// overdue ends a deletion that takes too long; its tombstones stay, and another
// DELETE goes on from there.
func (r *runner) overdue(ctx context.Context, w *whole, h *hosted) (time.Duration, error) {
	if w.doc.Operation == "" {
		return 0, nil
	}
	left, err := r.timeLeft(ctx, w.doc.Operation, r.DeleteDeadline)
	if err != nil || left > 0 {
		return left, err
	}
	cause := troubles(h, nil)
	if cause == nil {
		cause = fault.New(fault.Exhausted, "DeletionDeadlineExceeded",
			"The cluster wasn't removed within %s. Delete it again to go on.", r.DeleteDeadline)
	}
	return 0, r.finish(ctx, w.doc.Operation, cause)
}
