// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"time"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// tearDown removes a cluster: machines and control plane first, then the
// network they are on, at last, in the transaction that ends the operation, all
// that was allotted.
func (r *runner) tearDown(ctx context.Context, w *whole, h *hosted) (time.Duration, error) {
	unnamed, err := r.named(ctx, w.state.FQDN, false)
	if err != nil {
		return 0, err
	}
	var changes []store.Change
	busy := false
	for _, k := range h.sorted() {
		if k.kind == vnetKind {
			continue
		}
		busy = true
		if !h.tombstoned(k) {
			changes = append(changes, h.bury(w.state.Host, k))
		}
	}
	network := unitKey{vnetKind, w.state.ID}
	if _, there := h.units[network]; there && !busy && !h.tombstoned(network) {
		changes = append(changes, h.bury(w.state.Host, network))
	}
	if changes = append(changes, h.gone(w.state.Host, nil)...); len(changes) > 0 {
		return soon, r.write(ctx, w.doc, changes)
	}
	if len(h.units) > 0 || !unnamed {
		return r.overdue(ctx, w, h)
	}
	return 0, r.removed(ctx, w)
}

// removed ends a deletion of which nothing is left to do on the host.
func (r *runner) removed(ctx context.Context, w *whole) error {
	if err := r.dropIdentities(ctx, w); err != nil {
		return err
	}
	s := &w.state
	changes := []store.Change{
		{Key: keysKey(s.UID), Revision: store.Any},
		{Key: publicKey(s.Public), Revision: store.Any},
		{Key: publicKey(s.Egress), Revision: store.Any},
	}
	group := resource.GroupID(w.doc.ID.Subscription(), s.Desired.NodeGroup)
	inside, _, err := arm.ListDocuments(ctx, r.Store, group, "")
	if err != nil {
		return fmt.Errorf("node resource group: %w", err)
	}
	for _, d := range inside {
		changes = append(changes, store.Change{Key: arm.DocumentKey(d.ID), Revision: store.Any})
	}
	changes = append(changes, store.Change{Key: arm.DocumentKey(group), Revision: store.Any})
	if err := r.ops.Finish(ctx, w.doc.Operation, arm.Ending{}, changes...); err != nil {
		return fmt.Errorf("end deletion: %w", err)
	}
	return nil
}

// dropIdentities removes what identities made, also when a kill kept it from
// being written down: asked again, the directory names the one it made.
func (r *runner) dropIdentities(ctx context.Context, w *whole) error {
	s := &w.state
	if s.Desired.Identity != systemAssigned {
		return nil
	}
	if s.KubeletPrincipal == "" {
		if _, err := r.identities(ctx, w); err != nil {
			return err
		}
	}
	for _, id := range []string{s.PrincipalID, s.KubeletPrincipal} {
		if err := r.Directory.DeletePrincipal(ctx, id); err != nil {
			return fmt.Errorf("delete identity: %w", err)
		}
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
	cause := troubles(h)
	if cause == nil {
		cause = fault.New(fault.Exhausted, "DeletionDeadlineExceeded",
			"The cluster wasn't removed within %s. Delete it again to go on.", r.DeleteDeadline)
	}
	return 0, r.finish(ctx, w.doc.Operation, cause)
}
