// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"bastide.dev/fault"
	"bastide.dev/resource"
)

// readAction is the action that reading resources of a type is.
func readAction(typ string) string {
	if strings.EqualFold(typ, resource.TypeGroup) {
		typ = "Microsoft.Resources/subscriptions/resourceGroups"
	}
	return typ + "/read"
}

// related tells whether one who is refused a list has a role somewhere on its
// ground, so that he gets what he may read of it.
func (h *Handler) related(ctx context.Context, c *call, scope resource.ID, refused error) bool {
	relater, ok := h.config.Authorizer.(Relater)
	if !ok || !fault.Is(refused, fault.Forbidden) {
		return false
	}
	has, err := relater.Related(ctx, c.who, scope)
	return err == nil && has
}

// readable are the documents that the caller may read.
func (h *Handler) readable(ctx context.Context, c *call, documents []*Document) ([]*Document, error) {
	var kept []*Document
	for _, d := range documents {
		switch may, err := h.mayRead(ctx, c, d.ID); {
		case err != nil:
			return nil, err
		case may:
			kept = append(kept, d)
		}
	}
	return kept, nil
}

func (h *Handler) readableElements(c *call, r *row, parent *Document, elements []map[string]any) ([]map[string]any, error) {
	var kept []map[string]any
	for _, element := range elements {
		name, _ := element["name"].(string)
		switch may, err := h.mayRead(c.request.Context(), c, r.canonical(parent.ID.Child("-", name), parent.ID)); {
		case err != nil:
			return nil, err
		case may:
			kept = append(kept, element)
		}
	}
	return kept, nil
}

func (h *Handler) mayRead(ctx context.Context, c *call, id resource.ID) (bool, error) {
	err := h.authorize(ctx, c, readAction(id.Type()), id)
	if fault.Is(err, fault.Forbidden) {
		return false, nil
	}
	return err == nil, err
}

// linked refuses a body that names others' resources which the caller has no say over.
func (h *Handler) linked(ctx context.Context, w *write, r *Request) error {
	if r.Body == nil || w.cascade || w.method != http.MethodPut && w.method != http.MethodPatch {
		return nil
	}
	var problems []*fault.Error
	for _, link := range w.row.Links {
		for at, id := range follow(r.Body, link.Path, "") {
			if w.part != nil && !strings.HasPrefix(strings.ToLower(at), strings.ToLower(w.part.place())) {
				continue // what stands in other parts isn't this write's
			}
			parsed, err := resource.ParseID(id)
			if err != nil || parsed.IsRoot() {
				continue // what isn't an id the type's own hook refuses
			}
			err = h.config.Authorizer.Authorize(ctx, w.who, link.Action, parsed)
			if fault.Is(err, fault.Forbidden) {
				problems = append(problems, fault.New(fault.Forbidden, "LinkedAuthorizationFailed",
					"The client '%s' with object id '%s' has permission to perform action '%s' on scope '%s'; however, it does not have permission to perform action '%s' on the linked scope '%s' or the linked scope is invalid.",
					w.who.label(), w.who.ID, actionName(r.ID, w.method, ""), r.ID, link.Action, parsed).At(at))
				continue
			}
			if err != nil {
				return err
			}
		}
	}
	return fault.Join(problems...)
}

// follow finds the texts at a link's path in a body, by the places where they
// stand. Names are matched as ARM does, without case.
func follow(value any, path, at string) map[string]string {
	found := map[string]string{}
	gather := func(value any, path, at string) {
		for k, v := range follow(value, path, at) {
			found[k] = v
		}
	}
	if path == "" {
		if text, ok := value.(string); ok && text != "" {
			found[at] = text
		}
		return found
	}
	name, rest, _ := strings.Cut(path, ".")
	bare := strings.TrimSuffix(strings.TrimSuffix(name, "[]"), "{}")
	object, _ := value.(map[string]any)
	key, member, ok := child(object, bare)
	if !ok {
		return found
	}
	place := join(at, key)
	switch {
	case strings.HasSuffix(name, "{}"):
		members, _ := member.(map[string]any)
		for id := range members {
			found[place+"."+id] = id
		}
	case strings.HasSuffix(name, "[]"):
		list, _ := member.([]any)
		for i, element := range list {
			gather(element, rest, fmt.Sprintf("%s[%d]", place, i))
		}
	default:
		gather(member, rest, place)
	}
	return found
}

// serveCollectionAction serves POST {scope}/providers/{namespace}/{type}.
func (h *Handler) serveCollectionAction(w http.ResponseWriter, c *call, r *row) error {
	ctx, scope := c.request.Context(), c.path.ID
	if _, err := h.table.find(r.full, c.version); err != nil {
		return err
	}
	at := scope.Resource(r.namespace, r.Name, "-")
	if err := checkScope(r, scope); err != nil {
		return err
	}
	record := h.activity(c.who, c.address, c.correlation, at, http.MethodPost, "")
	record.Action, record.Resource = r.full+"/action", scope
	err := h.authorize(ctx, c, record.Action, scope)
	var body map[string]any
	if err == nil {
		body, err = c.readBody(w, false)
	}
	var plan *Plan
	if err == nil {
		plan, err = r.Actions[""](ctx, &Request{ID: scope, Version: c.version, Who: c.who, Query: c.query, Body: body})
	}
	if err != nil {
		return h.loggedAs(c, record, err)
	}
	changes := append(plan.Changes, record.ended(nil).change())
	revision, err := h.store.Txn(ctx, changes...)
	if err != nil {
		return err
	}
	h.config.Committed(changes, revision)
	if plan.Answer == nil {
		w.WriteHeader(http.StatusOK)
		return nil
	}
	return respond(w, http.StatusOK, plan.Answer)
}
