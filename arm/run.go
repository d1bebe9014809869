// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"bastide.dev/fault"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// The rhythm of the background work.
const (
	sweepEvery    = 10 * time.Minute
	keepOperation = 24 * time.Hour
	retryAfter    = time.Second // after a store that couldn't be reached
)

// Run deletes the resource groups whose deletion was accepted, by this process
// or one before it, and sweeps old records. It returns when ctx ends and all
// it started has ended.
func (h *Handler) Run(ctx context.Context) error {
	var group sync.WaitGroup
	group.Go(func() { h.sweeps(ctx) })
	group.Go(func() { h.groupDeletions(ctx) })
	group.Wait()
	return nil
}

// groupDeletions carries out each operation that deletes a group.
func (h *Handler) groupDeletions(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	started := map[string]bool{}
	start := func(r store.Record) {
		op, err := decodeOperation(r)
		if err != nil {
			h.log.Error("operation", "error", err)
			return
		}
		if op.Done() || started[op.ID] || op.Method != http.MethodDelete || !op.Resource.IsType(resource.TypeGroup) {
			return
		}
		started[op.ID] = true
		running.Go(func() { h.persist(ctx, op) })
	}
	for ctx.Err() == nil {
		records, revision, err := h.store.List(ctx, OperationPrefix)
		if err != nil {
			h.log.Warn("list operations", "error", err)
			sleep(ctx, retryAfter)
			continue
		}
		for _, r := range records {
			start(r)
		}
		for e := range h.store.Watch(ctx, OperationPrefix, revision) {
			if e.Deleted {
				delete(started, strings.TrimPrefix(e.Key, OperationPrefix))
				continue
			}
			start(e.Record)
		}
	}
}

// persist deletes a group until that succeeded, failed for good, or ctx ends.
func (h *Handler) persist(ctx context.Context, op *Operation) {
	for ctx.Err() == nil {
		err := h.deleteMembers(ctx, op)
		if fault.Is(err, fault.Unavailable) || ctx.Err() != nil {
			sleep(ctx, retryAfter)
			continue
		}
		if err != nil {
			h.log.Warn("delete resource group", "group", op.Resource.String(), "error", err)
		}
		err = h.operations.Finish(ctx, op.ID, Ending{Fault: err})
		if err == nil {
			return
		}
		h.log.Warn("end deletion of resource group", "group", op.Resource.String(), "error", err)
		sleep(ctx, retryAfter)
	}
}

// deleteMembers deletes what is in a group, in rounds: what another resource
// holds on to goes in a later one. It gives up when a round achieves nothing.
func (h *Handler) deleteMembers(ctx context.Context, op *Operation) error {
	for {
		all, _, err := ListDocuments(ctx, h.store, op.Resource, "")
		if err != nil {
			return err
		}
		var members []*Document
		for _, d := range all {
			if !d.ID.IsChild() {
				members = append(members, d)
			}
		}
		if len(members) == 0 {
			return nil
		}
		failures := h.deleteRound(ctx, op, members)
		if len(failures) == len(members) {
			return fault.Join(blocked(op.Resource, failures)...)
		}
	}
}

// deleteRound deletes resources side by side, and returns what stood in the way of those that stayed.
func (h *Handler) deleteRound(ctx context.Context, op *Operation, members []*Document) []error {
	var mu sync.Mutex // guards failures
	var failures []error
	var group sync.WaitGroup
	for _, d := range members {
		group.Go(func() {
			if err := h.deleteMember(ctx, op, d); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failures = append(failures, err)
			}
		})
	}
	group.Wait()
	return failures
}

// deleteMember deletes one resource as the caller of the group's deletion, and waits for its end.
func (h *Handler) deleteMember(ctx context.Context, op *Operation, d *Document) error {
	row, err := h.table.row(d.ID.Type(), "")
	if err != nil {
		return err
	}
	out, err := h.do(ctx, &write{method: http.MethodDelete, id: d.ID, row: row, version: row.Versions[0], who: op.Caller,
		address: op.Address, correlation: op.Correlation, cascade: true})
	if err != nil || out.op == "" {
		return err
	}
	ended, err := h.operations.Wait(ctx, out.op)
	switch {
	case err != nil:
		return err
	case !ended.Done():
		return fault.New(fault.Unavailable, "", "The deletion of '%s' was left in between.", d.ID).Because(ctx.Err())
	case ended.Status != resource.Succeeded:
		return fault.New(fault.Conflict, ended.Error.Code, "%s", ended.Error.Message).At(d.ID.String())
	}
	return nil
}

// blocked says why a group can't be deleted; a store that couldn't be reached is passed on, so that it is tried again.
func blocked(group resource.ID, failures []error) []*fault.Error {
	problems := make([]*fault.Error, 0, len(failures))
	for _, err := range failures {
		if fault.Is(err, fault.Unavailable) || errors.Is(err, context.Canceled) {
			return []*fault.Error{fault.From(err)}
		}
		f := *fault.From(err)
		problems = append(problems, &f)
	}
	return []*fault.Error{{Kind: fault.Conflict, Code: "ResourceGroupDeletionBlocked",
		Message: fmt.Sprintf("Deletion of resource group '%s' failed as %d of its resources could not be deleted. Their problems stand in the details; delete the group again when they are solved.", group.Name(), len(failures)),
		Details: problems}}
}

// sweeps removes old operations and activity records now and then.
func (h *Handler) sweeps(ctx context.Context) {
	for ctx.Err() == nil {
		if err := h.sweep(ctx); err != nil && ctx.Err() == nil {
			h.log.Warn("sweep old records", "error", err)
		}
		sleep(ctx, sweepEvery)
	}
}

func (h *Handler) sweep(ctx context.Context) error {
	operations, _, err := h.store.List(ctx, OperationPrefix)
	if err != nil {
		return err
	}
	for _, r := range operations {
		op, err := decodeOperation(r)
		if err != nil || !op.Done() || h.now().Sub(op.End) < keepOperation {
			continue
		}
		if err := h.store.Delete(ctx, r.Key, r.Revision); err != nil && !fault.Is(err, fault.Precondition) {
			return err
		}
	}
	records, _, err := h.store.List(ctx, ActivityPrefix)
	if err != nil {
		return err
	}
	for i, r := range records {
		a, err := decodeActivity(r)
		if err == nil && h.now().Sub(a.Time) < h.config.Retention && len(records)-i <= maxActivity {
			continue
		}
		if err := h.store.Delete(ctx, r.Key, store.Any); err != nil {
			return err
		}
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
