// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"

	"github.com/google/uuid"

	"bastide.dev/fault"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// commit writes a plan: documents, operation and activity record in one transaction.
func (h *Handler) commit(ctx context.Context, w *write, r *Request, plan *Plan) (*outcome, error) {
	if w.method == http.MethodDelete && !plan.Async {
		return h.remove(ctx, w, r, plan)
	}
	t := &transaction{h: h, w: w, r: r, plan: plan}
	if plan.Document == nil {
		if r.Old == nil {
			return nil, fmt.Errorf("arm: %s %s: the plan names no document", w.method, r.ID)
		}
		old := *r.Old // an operation on a document that stays as it is
		plan.Document = &old
	}
	for _, d := range append([]*Document{plan.Document}, plan.Children...) {
		t.document(d)
	}
	for _, d := range plan.Gone {
		t.add(store.Change{Key: DocumentKey(d.ID), Revision: d.Revision})
	}
	for _, change := range plan.Changes {
		t.add(change)
	}
	if err := t.supersede(ctx); err != nil {
		return nil, err
	}
	t.standing()
	t.record()
	if t.err != nil {
		return nil, t.err
	}
	revision, err := h.store.Txn(ctx, t.changes...)
	if err != nil {
		return nil, err
	}
	h.config.Committed(t.changes, revision)
	plan.Document.Revision = revision
	op := plan.Document.Operation
	if plan.Async {
		op = r.Operation
	}
	return &outcome{document: plan.Document, op: op, created: w.created(r), answer: plan.Answer}, nil
}

// remove deletes a document and what is beneath it at once.
func (h *Handler) remove(ctx context.Context, w *write, r *Request, plan *Plan) (*outcome, error) {
	tree, err := h.operations.tree(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	// What the hook saw is what goes: who named the resource in between has written it again.
	if len(tree) > 0 && tree[0].ID.Equal(r.ID) && tree[0].Revision != r.Old.Revision {
		return nil, fault.New(fault.Precondition, "Conflict", "The resource '%s' was changed in between.", r.ID)
	}
	changes, err := h.operations.removeTree(ctx, tree, "")
	if err != nil {
		return nil, err
	}
	t := &transaction{h: h, w: w, r: r, plan: plan, changes: changes}
	for _, change := range plan.Changes {
		t.add(change)
	}
	t.standing()
	t.record()
	if t.err != nil {
		return nil, t.err
	}
	revision, err := h.store.Txn(ctx, t.changes...)
	if err != nil {
		return nil, err
	}
	h.config.Committed(t.changes, revision)
	return &outcome{}, nil
}

// transaction gathers the changes of one write; the first error sticks.
type transaction struct {
	h       *Handler
	w       *write
	r       *Request
	plan    *Plan
	changes []store.Change
	err     error
}

// add adds a change, unless one of its key is there: the earlier one knows more.
func (t *transaction) add(change store.Change) {
	if !slices.ContainsFunc(t.changes, func(c store.Change) bool { return c.Key == change.Key }) {
		t.changes = append(t.changes, change)
	}
}

func (t *transaction) put(d *Document) {
	change, err := PutDocument(d)
	if err != nil && t.err == nil {
		t.err = err
	}
	t.add(change)
}

// document sets what the front door owns in a document, and writes it.
func (t *transaction) document(d *Document) {
	now := t.h.now().UTC()
	d.Type, d.Name = d.ID.Type(), d.ID.Name()
	state := t.plan.State
	if d.Revision == 0 {
		d.SystemData = resource.SystemData{CreatedBy: t.w.who.label(), CreatedByType: t.w.who.kindLabel(), CreatedAt: now}
		state = resource.Creating
	}
	d.SystemData.LastModifiedBy, d.SystemData.LastModifiedByType, d.SystemData.LastModifiedAt = t.w.who.label(), t.w.who.kindLabel(), now
	d.Etag = uuid.NewString()
	d.Generation++
	switch {
	case t.w.beside():
		if state != "" {
			d.ProvisioningState = state
		}
	case t.plan.Async:
		d.Operation, d.ProvisioningState = t.r.Operation, orState(state, t.w.method)
	case t.w.method == http.MethodPut:
		d.ProvisioningState = resource.Succeeded
	} // new tags don't heal what failed
	t.put(d)
}

// supersede lets a DELETE take the place of every operation on the resource and its parts.
func (t *transaction) supersede(ctx context.Context) error {
	if t.w.method != http.MethodDelete || t.r.ID.IsType(resource.TypeGroup) {
		return nil
	}
	tree, err := t.h.operations.tree(ctx, t.r.ID)
	if err != nil {
		return err
	}
	var running []string
	for _, d := range tree {
		if d.Operation != "" && !slices.Contains(running, d.Operation) {
			running = append(running, d.Operation)
		}
		d.Operation, d.ProvisioningState = t.r.Operation, resource.Deleting
		t.put(d)
	}
	canceled, err := t.h.operations.cancel(ctx, running...)
	for _, change := range canceled {
		t.add(change)
	}
	return err
}

// standing makes the write hang on what it stands on: the group must be as it
// was read, and the parent is written again as it is, so that of two writes in
// one tree that don't know of each other the later one has to look again.
func (t *transaction) standing() {
	if t.r.Group != nil && !t.w.cascade {
		t.add(store.Change{Key: DocumentKey(t.r.Group.ID), Revision: t.r.Group.Revision, Check: true})
	}
	if t.r.Parent != nil {
		t.put(t.r.Parent)
	}
}

// record adds the operation, if there is one, and the activity record.
func (t *transaction) record() {
	w := t.w
	id, method, part := t.r.ID, w.method, (*Part)(nil)
	if w.part != nil {
		id, method = w.part.id, w.part.method
		part = &Part{ID: id, Method: method}
	}
	if !t.plan.Async {
		record := t.h.activity(w.who, w.address, w.correlation, id, method, w.action).ended(nil)
		record.Before, record.After = w.row.audited(t.r.Old), w.row.audited(t.after())
		t.add(record.change())
		return
	}
	op := &Operation{ID: t.r.Operation, Resource: t.r.ID, Method: w.method, Action: w.action, Status: InProgress,
		Start: t.h.now().UTC(), Location: t.plan.Document.Location, Version: w.version, Caller: w.who,
		Address: w.address, Correlation: w.correlation, Created: w.created(t.r), Part: part}
	if op.Location == "" && t.r.Parent != nil {
		op.Location = t.r.Parent.Location
	}
	change, err := putOperation(op, store.Absent)
	if err != nil && t.err == nil {
		t.err = err
	}
	t.add(change)
	t.add(activityOf(op).change())
}

// after is the document as it is when all is written; nil of a deleted one.
func (t *transaction) after() *Document {
	if t.w.method == http.MethodDelete {
		return nil
	}
	return t.plan.Document
}

// audited is what the activity log keeps of a document.
func (r *row) audited(d *Document) json.RawMessage {
	if r.Audit == nil || d == nil {
		return nil
	}
	raw, err := json.Marshal(r.Audit(d))
	if err != nil {
		return nil
	}
	return raw
}

// created tells whether the write makes a new resource.
func (w *write) created(r *Request) bool {
	if w.part != nil {
		return !w.part.existed
	}
	return r.Old == nil
}

func orState(state resource.State, method string) resource.State {
	switch {
	case state != "":
		return state
	case method == http.MethodDelete:
		return resource.Deleting
	}
	return resource.Updating
}

// label is the principal's name as systemData shows it.
func (p Principal) label() string {
	if p.Kind == "User" && p.Name != "" {
		return p.Name
	}
	if p.AppID != "" {
		return p.AppID
	}
	return p.ID
}

// kindLabel is the principal's kind in systemData's own words.
func (p Principal) kindLabel() string {
	switch p.Kind {
	case "User", "ManagedIdentity":
		return p.Kind
	}
	return "Application"
}
