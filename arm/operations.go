// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"bastide.dev/fault"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// Operations reads and ends long-running operations. It keeps no state but the
// store's; any process may use its own.
type Operations struct {
	store store.Store
	now   func() time.Time
}

// NewOperations makes one over the store; now nil is time.Now.
func NewOperations(s store.Store, now func() time.Time) *Operations {
	if now == nil {
		now = time.Now
	}
	return &Operations{store: s, now: now}
}

// Get reads an operation; fault.NotFound when there is none of that id.
func (o *Operations) Get(ctx context.Context, id string) (*Operation, error) {
	op, _, err := o.get(ctx, id)
	return op, err
}

func (o *Operations) get(ctx context.Context, id string) (*Operation, int64, error) {
	r, err := o.store.Get(ctx, operationKey(id))
	if err != nil {
		if fault.Is(err, fault.NotFound) {
			err = fault.New(fault.NotFound, "OperationNotFound", "The operation '%s' could not be found.", id)
		}
		return nil, 0, err
	}
	op, err := decodeOperation(r)
	return op, r.Revision, err
}

// Wait returns the operation when it has ended, or as it is when ctx ends.
func (o *Operations) Wait(ctx context.Context, id string) (*Operation, error) {
	for {
		op, revision, err := o.get(context.WithoutCancel(ctx), id)
		if err != nil || op.Done() || ctx.Err() != nil {
			return op, err
		}
		o.awaitChange(ctx, id, revision)
	}
}

// awaitChange returns when the operation's document changed, the watch broke off, or ctx ended.
func (o *Operations) awaitChange(ctx context.Context, id string, revision int64) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	select {
	case <-o.store.Watch(ctx, operationKey(id), revision):
	case <-ctx.Done():
	}
}

// Finish ends an operation in one transaction with the state of its documents
// and the activity log. It may be called again and again: of an operation that
// has ended already (or was superseded by a DELETE) it changes nothing.
func (o *Operations) Finish(ctx context.Context, id string, end Ending, changes ...store.Change) error {
	for range writeAttempts {
		all, err := o.finishChanges(ctx, id, end)
		if err != nil || all == nil {
			return err
		}
		_, err = o.store.Txn(ctx, append(all, changes...)...)
		if !fault.Is(err, fault.Precondition) {
			return err
		}
	}
	return fmt.Errorf("arm: end operation %s: documents change too often", id)
}

// finishChanges are the changes that end operation id; nil when it has ended.
func (o *Operations) finishChanges(ctx context.Context, id string, end Ending) ([]store.Change, error) {
	op, revision, err := o.get(ctx, id)
	if err != nil || op.Done() {
		return nil, err
	}
	op.Status, op.End, op.Output = resource.Succeeded, o.now().UTC(), end.Output
	if end.Fault != nil {
		op.Status, op.Error = resource.Failed, NewWireError(end.Fault)
		if errors.Is(end.Fault, context.Canceled) {
			op.Status = resource.Canceled
		}
	}
	documents, err := o.tree(ctx, op.Resource)
	if err != nil {
		return nil, err
	}
	var all []store.Change
	if op.Method == "DELETE" && op.Status == resource.Succeeded {
		all, err = o.removeTree(ctx, documents, op.ID)
	} else {
		all, err = settleTree(documents, op, end.Edit)
	}
	if err != nil {
		return nil, err
	}
	ended, err := putOperation(op, revision)
	if err != nil {
		return nil, err
	}
	return append(all, ended, activityOf(op).change()), nil
}

// tree is the document of id and those beneath it.
func (o *Operations) tree(ctx context.Context, id resource.ID) ([]*Document, error) {
	own, err := findDocument(ctx, o.store, id)
	if err != nil {
		return nil, err
	}
	below, err := listBeneath(ctx, o.store, id)
	if err != nil || own == nil {
		return below, err
	}
	return append([]*Document{own}, below...), nil
}

// settleTree sets the end state on the documents that the operation runs on.
func settleTree(documents []*Document, op *Operation, edit func(*Document) error) ([]store.Change, error) {
	var all []store.Change
	for _, d := range documents {
		if d.Operation != op.ID {
			continue
		}
		d.Operation, d.ProvisioningState = "", op.Status
		if edit != nil && d.ID.Equal(op.Resource) {
			if err := edit(d); err != nil {
				return nil, err
			}
		}
		change, err := PutDocument(d)
		if err != nil {
			return nil, err
		}
		all = append(all, change)
	}
	return all, nil
}

// removeTree deletes documents, and cancels other operations that ran on them.
func (o *Operations) removeTree(ctx context.Context, documents []*Document, except string) ([]store.Change, error) {
	var all []store.Change
	var running []string
	for _, d := range documents {
		all = append(all, store.Change{Key: DocumentKey(d.ID), Revision: d.Revision})
		if d.Operation != "" && d.Operation != except && !slices.Contains(running, d.Operation) {
			running = append(running, d.Operation)
		}
	}
	canceled, err := o.cancel(ctx, running...)
	return append(all, canceled...), err
}

// cancel ends operations because a DELETE took their place.
func (o *Operations) cancel(ctx context.Context, ids ...string) ([]store.Change, error) {
	var all []store.Change
	for _, id := range ids {
		op, revision, err := o.get(ctx, id)
		if fault.Is(err, fault.NotFound) || (err == nil && op.Done()) {
			continue
		}
		if err != nil {
			return nil, err
		}
		op.Status, op.End = resource.Canceled, o.now().UTC()
		op.Error = &WireError{Code: "OperationPreempted", Message: "The operation was preempted by a DELETE of the resource."}
		change, err := putOperation(op, revision)
		if err != nil {
			return nil, err
		}
		all = append(all, change, activityOf(op).change())
	}
	return all, nil
}

func operationKey(id string) string { return OperationPrefix + strings.ToLower(id) }

func decodeOperation(r store.Record) (*Operation, error) {
	op := &Operation{}
	if err := json.Unmarshal(r.Value, op); err != nil {
		return nil, fmt.Errorf("arm: operation %s: %w", r.Key, err)
	}
	return op, nil
}

func putOperation(op *Operation, revision int64) (store.Change, error) {
	value, err := json.Marshal(op)
	if err != nil {
		return store.Change{}, fmt.Errorf("arm: operation %s: %w", op.ID, err)
	}
	return store.Change{Key: operationKey(op.ID), Value: value, Revision: revision}, nil
}
