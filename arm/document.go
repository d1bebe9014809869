// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"bastide.dev/fault"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// The store's keys of the front door.
const (
	DocumentPrefix  = "resources/"  // + id.Key(): documents of resources
	OperationPrefix = "operations/" // + id: operations
	ActivityPrefix  = "activity/"   // + subscription/time-…: the activity log
)

// writeAttempts bounds how often a write is tried again when documents changed in between.
const writeAttempts = 32

// DocumentKey is where the document of id is stored.
func DocumentKey(id resource.ID) string { return DocumentPrefix + id.Key() }

// DecodeDocument reads a stored document.
func DecodeDocument(r store.Record) (*Document, error) {
	d := &Document{Revision: r.Revision}
	if err := json.Unmarshal(r.Value, &d.Envelope); err != nil {
		return nil, fmt.Errorf("arm: document %s: %w", r.Key, err)
	}
	return d, nil
}

// PutDocument is the change that writes d if it is still at the revision it was read at.
func PutDocument(d *Document) (store.Change, error) {
	value, err := json.Marshal(d.Envelope)
	if err != nil {
		return store.Change{}, fmt.Errorf("arm: document %s: %w", d.ID, err)
	}
	return store.Change{Key: DocumentKey(d.ID), Value: value, Revision: d.Revision}, nil
}

// GetDocument reads the document of id; fault.NotFound when there is none.
func GetDocument(ctx context.Context, s store.Store, id resource.ID) (*Document, error) {
	r, err := s.Get(ctx, DocumentKey(id))
	if err != nil {
		return nil, err
	}
	return DecodeDocument(r)
}

// findDocument is GetDocument with nil for none.
func findDocument(ctx context.Context, s store.Store, id resource.ID) (*Document, error) {
	d, err := GetDocument(ctx, s, id)
	if fault.Is(err, fault.NotFound) {
		return nil, nil
	}
	return d, err
}

// ListDocuments reads the documents beneath scope (not scope itself), and the
// store's revision. typ "" is all types; beneath a resource those of its parts,
// not extensions such as role assignments.
func ListDocuments(ctx context.Context, s store.Store, scope resource.ID, typ string) ([]*Document, int64, error) {
	prefix := DocumentPrefix
	if !scope.IsRoot() {
		prefix = DocumentKey(scope) + "/"
	}
	if typ != "" && strings.HasPrefix(strings.ToLower(typ), strings.ToLower(scope.Type())+"/") {
		prefix += strings.ToLower(typ[len(scope.Type())+1:]) + "/"
	}
	records, revision, err := s.List(ctx, prefix)
	if err != nil {
		return nil, 0, err
	}
	parts := typ == "" && !container(scope)
	found := make([]*Document, 0, len(records))
	for _, r := range records {
		if parts && strings.Contains(r.Key[len(prefix):], "providers/") {
			continue
		}
		d, err := DecodeDocument(r)
		if err != nil {
			return nil, 0, err
		}
		if typ == "" || d.ID.IsType(typ) {
			found = append(found, d)
		}
	}
	return found, revision, nil
}

// container tells whether resources stand in a scope that aren't parts of it.
func container(scope resource.ID) bool {
	return scope.IsRoot() || scope.IsType(resource.TypeSubscription) || scope.IsType(resource.TypeGroup)
}

// listBeneath reads all documents beneath a scope, extensions too.
func listBeneath(ctx context.Context, s store.Store, scope resource.ID) ([]*Document, error) {
	if container(scope) {
		found, _, err := ListDocuments(ctx, s, scope, "")
		return found, err
	}
	records, _, err := s.List(ctx, DocumentKey(scope)+"/")
	if err != nil {
		return nil, err
	}
	found := make([]*Document, len(records))
	for i, r := range records {
		if found[i], err = DecodeDocument(r); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// UpdateDocument changes a document with edit until no one else changed it in
// between. edit may be called several times; its error ends the update.
func UpdateDocument(ctx context.Context, s store.Store, id resource.ID, edit func(*Document) error) error {
	for range writeAttempts {
		d, err := GetDocument(ctx, s, id)
		if err != nil {
			return err
		}
		if err := edit(d); err != nil {
			return err
		}
		change, err := PutDocument(d)
		if err != nil {
			return err
		}
		if _, err = s.Txn(ctx, change); !fault.Is(err, fault.Precondition) {
			return err
		}
	}
	return busy(id)
}

func busy(id resource.ID) *fault.Error {
	return fault.New(fault.Conflict, "Conflict", "The resource '%s' is being changed by others too often. Try again.", id)
}
