// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"context"
	"net/http"
	"slices"

	"github.com/google/uuid"

	"bastide.dev/fault"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// Beginning is an operation that the service starts by itself, such as an
// upgrade in its maintenance window.
type Beginning struct {
	// Document is the resource as it shall be, at the revision it was read at, and
	// Children those of its parts that change along.
	Document *Document
	Children []*Document
	Changes  []store.Change // further ones of the transaction
	State    resource.State // shown while it runs; "" is Updating
	Version  resource.APIVersion
	// Why stands in the activity log.
	Why string
}

// Service is who acts when nobody asked: the service itself.
func Service() Principal { return Principal{Kind: "Service", Name: "Bastide", AppID: "Bastide"} }

// Begin writes documents, an operation on them and its activity record in one
// transaction, as a client's PUT does, and returns the operation's id. Where
// another operation runs on the resource or a part of it, it is a
// fault.Conflict; where a document changed since it was read, a
// fault.Precondition: whoever began first has won, and the other looks again.
func (o *Operations) Begin(ctx context.Context, b Beginning) (string, error) {
	if err := o.idle(ctx, b.Document); err != nil {
		return "", err
	}
	now := o.now().UTC()
	op := &Operation{ID: uuid.NewString(), Resource: b.Document.ID, Method: http.MethodPut, Status: InProgress, Start: now,
		Location: b.Document.Location, Version: b.Version, Caller: Service(), Correlation: uuid.NewString()}
	changes := slices.Clone(b.Changes)
	for _, d := range append([]*Document{b.Document}, b.Children...) {
		d.Operation, d.ProvisioningState = op.ID, orState(b.State, http.MethodPut)
		d.SystemData.LastModifiedBy, d.SystemData.LastModifiedByType, d.SystemData.LastModifiedAt = Service().label(), Service().kindLabel(), now
		d.Etag = uuid.NewString()
		d.Generation++
		change, err := PutDocument(d)
		if err != nil {
			return "", err
		}
		changes = append(changes, change)
	}
	started, err := putOperation(op, store.Absent)
	if err != nil {
		return "", err
	}
	record := activityOf(op)
	record.SubStatus = b.Why
	if _, err := o.store.Txn(ctx, append(changes, started, record.change())...); err != nil {
		return "", err
	}
	return op.ID, nil
}

// idle refuses a second operation on a resource or its parts. A part's that is
// written in between writes the resource, too, so that the transaction fails.
func (o *Operations) idle(ctx context.Context, d *Document) error {
	if d.Operation != "" {
		return inProgress(d)
	}
	if d.ProvisioningState == resource.Deleting {
		return fault.New(fault.Conflict, "OperationNotAllowed", "The resource '%s' is being deleted.", d.ID)
	}
	below, _, err := ListDocuments(ctx, o.store, d.ID, "")
	for _, part := range below {
		if part.Operation != "" {
			return inProgress(part)
		}
	}
	return err
}
