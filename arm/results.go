// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"bastide.dev/fault"
	"bastide.dev/resource"
)

// respondWrite answers a write: finally when its operation ends in a moment,
// else with the addresses at which its end can be learnt.
func (h *Handler) respondWrite(w http.ResponseWriter, c *call, r *row, out *outcome) error {
	if out.absent {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	if out.op == "" {
		return h.respondDone(w, c, r, out, nil)
	}
	ctx, stop := context.WithTimeout(c.request.Context(), h.config.Wait)
	defer stop()
	op, err := h.operations.Wait(ctx, out.op)
	if err != nil {
		return err
	}
	if op.Status != resource.Succeeded { // a failure, too, is told by the operation: clients look for it there
		return h.respondRunning(w, c, r, out, op)
	}
	if op.Method != http.MethodDelete {
		if out.document, err = GetDocument(c.request.Context(), h.store, op.Resource); err != nil {
			return err
		}
	}
	return h.respondDone(w, c, r, out, op)
}

// respondDone is the final answer.
func (h *Handler) respondDone(w http.ResponseWriter, c *call, r *row, out *outcome, op *Operation) error {
	switch c.request.Method {
	case http.MethodDelete:
		// The SDKs' clients of resources take 202 and 204 for a deletion, those of
		// resource groups 200 and 202.
		if c.path.ID.Equal(c.path.ID.GroupID()) {
			w.WriteHeader(http.StatusOK)
		} else {
			w.WriteHeader(http.StatusNoContent)
		}
		return nil
	case http.MethodPost:
		answer := out.answer
		if op != nil && len(op.Output) > 0 {
			answer = op.Output
		}
		if answer == nil {
			w.WriteHeader(http.StatusNoContent)
			return nil
		}
		return respond(w, http.StatusOK, answer)
	}
	code := http.StatusOK
	if out.created && c.request.Method != http.MethodPatch {
		code = http.StatusCreated
	}
	if r.PutStatus != 0 && c.request.Method == http.MethodPut {
		code = r.PutStatus
	}
	return h.respondDocument(w, c, r, out.document, code)
}

// respondRunning answers that the operation goes on.
func (h *Handler) respondRunning(w http.ResponseWriter, c *call, r *row, out *outcome, op *Operation) error {
	h.setOperation(w, op, c.request.Method)
	switch c.request.Method {
	case http.MethodDelete, http.MethodPost:
		w.WriteHeader(http.StatusAccepted)
		return nil
	}
	code := http.StatusOK
	if out.created {
		code = http.StatusCreated
	}
	return h.respondDocument(w, c, r, out.document, code)
}

// setOperation sets the headers that lead to an operation.
func (h *Handler) setOperation(w http.ResponseWriter, op *Operation, method string) {
	header := w.Header()
	header.Set("Azure-AsyncOperation", h.operationURL(op, "operations"))
	if method == http.MethodDelete || method == http.MethodPost {
		header.Set("Location", h.operationURL(op, "operationresults"))
	}
	header.Set("Retry-After", "1")
}

func (h *Handler) operationURL(op *Operation, kind string) string {
	location := op.Location
	if location == "" {
		location = "global"
	}
	return h.config.Endpoints.base() + op.Resource.SubscriptionID().String() + "/providers/" + op.Resource.Namespace() +
		"/locations/" + location + "/" + kind + "/" + op.ID + "?api-version=" + string(op.Version)
}

// awaited reads the operation that a path names, waiting for its end a while.
func (h *Handler) awaited(c *call) (*Operation, error) {
	if c.request.Method != http.MethodGet {
		return nil, notAllowed(c)
	}
	ctx, stop := context.WithTimeout(c.request.Context(), h.config.LongPoll)
	defer stop()
	op, err := h.operations.Get(ctx, c.path.ID.Name())
	if err != nil {
		return nil, err
	}
	if !strings.EqualFold(op.Resource.Subscription(), c.path.ID.Subscription()) {
		return nil, fault.New(fault.NotFound, "OperationNotFound", "The operation '%s' could not be found.", c.path.ID.Name())
	}
	if err := h.authorize(ctx, c, actionName(op.Resource, http.MethodGet, ""), op.Resource); err != nil {
		return nil, err
	}
	if op.Done() {
		return op, nil
	}
	return h.operations.Wait(ctx, op.ID)
}

// statusBody is the answer of Azure-AsyncOperation.
type statusBody struct {
	ID         string          `json:"id"`
	Name       string          `json:"name"`
	Status     resource.State  `json:"status"`
	Start      time.Time       `json:"startTime"`
	End        time.Time       `json:"endTime,omitzero"`
	Error      *WireError      `json:"error,omitempty"`
	Properties json.RawMessage `json:"properties,omitempty"`
}

// serveStatus serves Azure-AsyncOperation.
func (h *Handler) serveStatus(w http.ResponseWriter, c *call) error {
	op, err := h.awaited(c)
	if err != nil {
		return err
	}
	if !op.Done() {
		w.Header().Set("Retry-After", "1")
	}
	return respond(w, http.StatusOK, statusBody{ID: c.path.ID.String(), Name: op.ID, Status: op.Status, Start: op.Start,
		End: op.End, Error: op.Error, Properties: op.Output})
}

// serveResult serves Location: the operation's final answer, when there is one.
func (h *Handler) serveResult(w http.ResponseWriter, c *call) error {
	op, err := h.awaited(c)
	if err != nil {
		return err
	}
	_, method := op.asked()
	switch {
	case !op.Done():
		h.setOperation(w, op, method)
		w.Header().Set("Location", h.operationURL(op, "operationresults"))
		w.WriteHeader(http.StatusAccepted)
		return nil
	case op.Status != resource.Succeeded:
		w.Header().Set("x-ms-error-code", op.Error.Code)
		return respond(w, http.StatusConflict, map[string]*WireError{"error": op.Error})
	case len(op.Output) > 0:
		return respond(w, http.StatusOK, op.Output)
	case op.Method == http.MethodDelete && op.Resource.IsType(resource.TypeGroup):
		w.WriteHeader(http.StatusOK)
		return nil
	case method == http.MethodDelete || method == http.MethodPost:
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	return h.respondResource(w, c, op)
}

func (h *Handler) respondResource(w http.ResponseWriter, c *call, op *Operation) error {
	id, _ := op.asked()
	row, err := h.table.row(id.Type(), c.version)
	if err != nil {
		return err
	}
	d, err := GetDocument(c.request.Context(), h.store, op.Resource)
	if fault.Is(err, fault.NotFound) {
		return missing(id)
	}
	if err != nil {
		return err
	}
	if op.Part != nil {
		return h.respondElement(w, c, row, id, d, http.StatusOK)
	}
	return h.respondDocument(w, c, row, d, http.StatusOK)
}
