// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"bastide.dev/fault"
	"bastide.dev/resource"
)

// maxBody bounds a request's body; ARM's own limit is the same.
const maxBody = 4 << 20

// queueTime is how long a write waits for its turn, where types have a queue.
const queueTime = 30 * time.Second

// write is a change asked for, by a client or by the deletion of a resource group.
type write struct {
	method, action string // action of a POST
	id             resource.ID
	row            *row
	version        resource.APIVersion
	who            Principal
	query          url.Values
	address        string
	correlation    string
	body           map[string]any
	ifMatch        string
	ifNoneMatch    string
	cascade        bool  // comes from the group's own deletion
	part           *part // the write is one to a part of the resource's body
}

// outcome is what a write did.
type outcome struct {
	document *Document // as written; nil when deleted; a part's is its whole's
	op       string    // the operation that runs, "" when all is done
	created  bool
	absent   bool // DELETE of nothing
	answer   any
}

// readBody reads a request's body as one JSON object; required says that there must be one.
func (c *call) readBody(w http.ResponseWriter, required bool) (map[string]any, error) {
	raw, err := io.ReadAll(http.MaxBytesReader(w, c.request.Body, maxBody))
	if err != nil {
		var size *http.MaxBytesError
		if errors.As(err, &size) {
			return nil, fault.New(fault.TooLarge, "RequestContentTooLarge", "The request content is larger than the limit of %d bytes.", maxBody)
		}
		return nil, fault.New(fault.Invalid, "InvalidRequestContent", "The request content could not be read to its end.").Because(err)
	}
	if len(bytes.TrimSpace(raw)) == 0 && !required {
		return nil, nil
	}
	return decodeObject(raw)
}

func (c *call) write(r *row, id resource.ID, method, action string, body map[string]any) *write {
	return &write{method: method, action: action, id: id, row: r, version: c.version, who: c.who, query: c.query,
		address: c.address, correlation: c.correlation, body: body,
		ifMatch: c.request.Header.Get("If-Match"), ifNoneMatch: c.request.Header.Get("If-None-Match")}
}

// serveWrite serves PUT, PATCH and DELETE.
func (h *Handler) serveWrite(w http.ResponseWriter, c *call, r *row) error {
	method := c.request.Method
	if !r.stored() && (r.Embedded == "" || method == http.MethodPatch) {
		return notAllowed(c)
	}
	if err := h.authorize(c.request.Context(), c, actionName(c.path.ID, method, ""), c.path.ID); err != nil {
		return h.logged(c, c.path.ID, method, "", err)
	}
	var body map[string]any
	var err error
	if method != http.MethodDelete {
		if body, err = c.readBody(w, !r.NoBody); err != nil {
			return h.logged(c, c.path.ID, method, "", err)
		}
		if body == nil {
			body = map[string]any{}
		}
	}
	asked := c.write(r, c.path.ID, method, "", body)
	if r.Embedded != "" {
		asked = c.writePart(r, method, body)
	}
	out, err := h.do(c.request.Context(), asked)
	if err != nil {
		return h.logged(c, c.path.ID, method, "", err)
	}
	return h.respondWrite(w, c, r, out)
}

// serveAction serves POST {id}/{action}.
func (h *Handler) serveAction(w http.ResponseWriter, c *call, name string) error {
	r, err := h.table.find(c.path.ID.Type(), c.version)
	if err != nil {
		return err
	}
	action := ""
	for known := range r.Actions {
		if strings.EqualFold(known, name) {
			action = known
		}
	}
	if action == "" {
		return fault.New(fault.NotFound, "InvalidResourceType", "The action '%s' doesn't exist for the resource type '%s'.", name, r.full)
	}
	if err := h.authorize(c.request.Context(), c, actionName(c.path.ID, http.MethodPost, action), c.path.ID); err != nil {
		return h.logged(c, c.path.ID, http.MethodPost, action, err)
	}
	body, err := c.readBody(w, false)
	if err != nil {
		return h.logged(c, c.path.ID, http.MethodPost, action, err)
	}
	out, err := h.do(c.request.Context(), c.write(r, c.path.ID, http.MethodPost, action, body))
	if err != nil {
		return h.logged(c, c.path.ID, http.MethodPost, action, err)
	}
	return h.respondWrite(w, c, r, out)
}

// logged records a refused write in the activity log, and returns its error.
func (h *Handler) logged(c *call, id resource.ID, method, action string, err error) error {
	return h.loggedAs(c, h.activity(c.who, c.address, c.correlation, id, method, action), err)
}

// loggedAs writes a record of what was refused, and returns the error.
func (h *Handler) loggedAs(c *call, record *Activity, err error) error {
	change := record.ended(err).change()
	ctx, stop := context.WithTimeout(context.WithoutCancel(c.request.Context()), 5*time.Second)
	defer stop()
	if _, logErr := h.store.Txn(ctx, change); logErr != nil {
		return errors.Join(err, logErr)
	}
	return err
}

func (h *Handler) activity(who Principal, address, correlation string, id resource.ID, method, action string) *Activity {
	return &Activity{ID: uuid.NewString(), Time: h.now().UTC(), Resource: id, Action: actionName(id, method, action),
		Caller: who, Address: address, Correlation: correlation, Method: method}
}

// do carries a write out, again when documents changed in between, and of types
// with a queue when what was under way has ended.
func (h *Handler) do(ctx context.Context, w *write) (*outcome, error) {
	queue, stop := context.WithTimeout(ctx, queueTime)
	defer stop()
	for attempt := 0; attempt < writeAttempts || (w.row.Queue && queue.Err() == nil); attempt++ {
		out, err := h.attempt(ctx, w)
		var running *runningError
		switch {
		case w.row.Queue && queue.Err() == nil && errors.As(err, &running):
			if _, err := h.operations.Wait(queue, running.operation); err != nil && !fault.Is(err, fault.NotFound) {
				return nil, err
			}
		case !fault.Is(err, fault.Precondition) || isClients(err):
			return out, err
		}
		if err := pause(ctx, attempt); err != nil {
			return nil, err
		}
	}
	return nil, busy(w.id)
}

// isClients tells a failed If-Match from a lost race in the store.
func isClients(err error) bool { return fault.From(err).Code == codePrecondition }

// pause waits a little longer after each lost race, so that writers of one document get past each other.
func pause(ctx context.Context, attempt int) error {
	timer := time.NewTimer(time.Duration(min(attempt, 10)) * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// attempt reads what there is, asks the provider, and writes in one transaction.
func (h *Handler) attempt(ctx context.Context, w *write) (*outcome, error) {
	r, err := h.prepare(ctx, w)
	if w.part != nil && w.part.method == http.MethodDelete && fault.Is(err, fault.NotFound) {
		return &outcome{absent: true}, nil
	}
	if err != nil {
		return nil, err
	}
	if w.part != nil {
		if absent, err := w.part.compose(w, r); err != nil || absent {
			return &outcome{absent: absent}, err
		}
	}
	if w.method == http.MethodDelete {
		if r.Old == nil {
			return &outcome{absent: true}, nil
		}
		if op, err := h.runningDelete(ctx, r.Old); err != nil || op != "" {
			return &outcome{document: r.Old, op: op}, err
		}
	}
	if w.method != http.MethodPost {
		if err := h.checkIdle(ctx, w, r); err != nil {
			return nil, err
		}
	}
	if err := h.linked(ctx, w, r); err != nil {
		return nil, err
	}
	plan, err := h.plan(ctx, w, r)
	if err != nil {
		return nil, err
	}
	if w.method == http.MethodPost && plan.Document == nil && !plan.Async && len(plan.Changes) == 0 {
		record := h.activity(w.who, w.address, w.correlation, r.ID, w.method, w.action).ended(nil)
		_, err := h.store.Txn(ctx, record.change())
		return &outcome{document: r.Old, answer: plan.Answer}, err
	}
	if w.method == http.MethodPost && !w.beside() {
		if err := h.checkIdle(ctx, w, r); err != nil {
			return nil, err
		}
	}
	return h.commit(ctx, w, r, plan)
}

// beside tells whether the write is an action that runs beside an operation.
func (w *write) beside() bool {
	return w.method == http.MethodPost && slices.Contains(w.row.Beside, w.action)
}

// plan asks the type's hook.
func (h *Handler) plan(ctx context.Context, w *write, r *Request) (*Plan, error) {
	var hook Hook
	switch w.method {
	case http.MethodPut:
		hook = w.row.Put
	case http.MethodPatch:
		hook = w.row.Patch
		if hook == nil {
			hook = patchTags
		}
	case http.MethodDelete:
		hook = w.row.Delete
		if hook == nil {
			return &Plan{}, nil
		}
	case http.MethodPost:
		hook = w.row.Actions[w.action]
	}
	var unknown []*fault.Error
	switch {
	case w.part != nil && w.part.method == http.MethodPut && w.part.row.Model != nil:
		unknown = UnknownFields(w.part.element(), w.part.row.Model()) // the rest was judged when it came
	case w.part == nil && w.method == http.MethodPut && w.row.Model != nil:
		unknown = UnknownFields(r.Body, w.row.Model())
		Spell(r.Body, w.row.Model())
	}
	plan, err := hook(ctx, r)
	if w.part != nil {
		err = w.part.problems(err)
	}
	if len(unknown) == 0 || (err != nil && !invalid(err)) {
		return plan, err
	}
	return nil, fault.Join(append(unknown, flatten(err)...)...)
}

func invalid(err error) bool { return fault.Is(err, fault.Invalid) || fault.Is(err, fault.Unsupported) }

// flatten lists a fault's details, or itself when it has none.
func flatten(err error) []*fault.Error {
	f := fault.From(err)
	if f == nil || len(f.Details) == 0 {
		return []*fault.Error{f}
	}
	return f.Details
}

// patchTags is PATCH as most types have it.
func patchTags(_ context.Context, r *Request) (*Plan, error) {
	for name := range r.Body {
		if !strings.EqualFold(name, "tags") {
			return nil, fault.New(fault.Unsupported, "PropertyChangeNotAllowed", "PATCH changes tags only: use PUT to change '%s'.", name).At(name)
		}
	}
	d := *r.Old
	if _, tags, ok := child(r.Body, "tags"); ok {
		d.Tags = tagsOf(tags)
	}
	return &Plan{Document: &d}, nil
}
