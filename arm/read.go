// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"context"
	"encoding/base64"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"bastide.dev/fault"
	"bastide.dev/resource"
)

// pageSize is how many a list shows before it goes on behind nextLink.
const pageSize = 500

// serveGet serves GET and HEAD of one resource.
func (h *Handler) serveGet(w http.ResponseWriter, c *call, r *row) error {
	ctx := c.request.Context()
	if err := h.authorize(ctx, c, actionName(c.path.ID, http.MethodGet, ""), c.path.ID); err != nil {
		return err
	}
	switch {
	case r.Embedded != "":
		return h.serveElement(w, c, r)
	case !r.stored() || r.Get != nil:
		return h.serveComputed(w, c, r, r.Get, c.path.ID)
	}
	d, err := findDocument(ctx, h.store, c.path.ID)
	if err != nil {
		return err
	}
	if d == nil {
		if _, err := h.surroundings(ctx, r, c.path.ID, &Request{}); err != nil {
			return err
		}
		return missing(c.path.ID)
	}
	if c.request.Method == http.MethodHead {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	if d.Operation != "" {
		w.Header().Set("Retry-After", "1")
	}
	return h.respondDocument(w, c, r, d, http.StatusOK)
}

func (h *Handler) respondDocument(w http.ResponseWriter, c *call, r *row, d *Document, code int) error {
	if r.Embedded != "" {
		return h.respondElement(w, c, r, c.path.ID, d, code)
	}
	body, err := h.view(c, r, d)
	if err != nil {
		return err
	}
	if d.Etag != "" {
		w.Header().Set("ETag", `"`+d.Etag+`"`)
	}
	return respond(w, code, body)
}

func (h *Handler) view(c *call, r *row, d *Document) (any, error) {
	return r.view(c.request.Context(), d, c.version)
}

// serveComputed answers for a type without documents.
func (h *Handler) serveComputed(w http.ResponseWriter, c *call, r *row, compute func(context.Context, *Request) (any, error), id resource.ID) error {
	if compute == nil {
		return notAllowed(c)
	}
	request := &Request{ID: id, Version: c.version, Who: c.who, Query: c.query}
	child := id
	if len(c.path.Rest) > 0 { // a collection: what stands around is that of its members
		child = id.Child(c.path.Rest[len(c.path.Rest)-1], "-")
	}
	if _, err := h.surroundings(c.request.Context(), r, child, request); err != nil {
		return err
	}
	answer, err := compute(c.request.Context(), request)
	if err != nil {
		return err
	}
	return respond(w, http.StatusOK, answer)
}

// serveList serves GET of a collection: of a parent's children, or of a type at a scope.
func (h *Handler) serveList(w http.ResponseWriter, c *call, r *row) error {
	ctx := c.request.Context()
	scope := c.path.ID
	refused := h.authorize(ctx, c, readAction(r.full), scope)
	computed := r.List != nil || !r.stored() && r.Embedded == ""
	if refused != nil && (computed || !h.related(ctx, c, scope, refused)) {
		return refused
	}
	switch {
	case r.Embedded != "":
		return h.serveElements(w, c, r, refused != nil)
	case computed:
		return h.serveComputed(w, c, r, r.List, scope)
	}
	if err := h.checkExists(ctx, scope); err != nil {
		return err
	}
	documents, _, err := ListDocuments(ctx, h.store, scope, r.full)
	if err == nil && refused != nil {
		documents, err = h.readable(ctx, c, documents)
	}
	if err != nil {
		return err
	}
	return h.respondPage(w, c, documents, func(d *Document) (any, error) { return h.view(c, r, d) })
}

// checkExists refuses a list beneath what isn't there.
func (h *Handler) checkExists(ctx context.Context, scope resource.ID) error {
	row := h.table.rows[strings.ToLower(scope.Type())]
	if row == nil || !row.stored() {
		return nil
	}
	d, err := findDocument(ctx, h.store, scope)
	if err != nil || d != nil {
		return err
	}
	return missing(scope)
}

// respondPage filters, cuts to a page and shows documents.
func (h *Handler) respondPage(w http.ResponseWriter, c *call, documents []*Document, show func(*Document) (any, error)) error {
	filter, err := parseFilter(c.param("$filter"))
	if err != nil {
		return err
	}
	size, after, err := c.page()
	if err != nil {
		return err
	}
	values := []any{}
	answer := map[string]any{}
	last := ""
	for _, d := range documents {
		key := d.ID.Key()
		if key <= after && after != "" {
			continue
		}
		ok, err := filter.matches(d.field)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if len(values) == size {
			answer["nextLink"] = h.nextLink(c, last)
			break
		}
		value, err := show(d)
		if err != nil {
			return err
		}
		values, last = append(values, value), key
	}
	answer["value"] = values
	return respond(w, http.StatusOK, answer)
}

// page reads $top and $skiptoken.
func (c *call) page() (size int, after string, err error) {
	size = pageSize
	if top := c.param("$top"); top != "" {
		n, err := strconv.Atoi(top)
		if err != nil || n < 1 {
			return 0, "", fault.New(fault.Invalid, "InvalidQueryParameterValue", "The value '%s' of $top must be a positive number.", top).At("$top")
		}
		size = min(n, pageSize)
	}
	token := c.param("$skiptoken")
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		return 0, "", fault.New(fault.Invalid, "InvalidSkipToken", "The value of $skiptoken is none that this service made.").At("$skiptoken")
	}
	return size, string(raw), nil
}

func (h *Handler) nextLink(c *call, last string) string {
	query := url.Values{}
	for key, values := range c.query {
		if !strings.EqualFold(key, "$skiptoken") {
			query[key] = values
		}
	}
	query.Set("$skiptoken", base64.RawURLEncoding.EncodeToString([]byte(last)))
	return h.config.Endpoints.base() + c.request.URL.EscapedPath() + "?" + query.Encode()
}

// serveResources lists resources of all types.
func (h *Handler) serveResources(w http.ResponseWriter, c *call) error {
	if c.request.Method != http.MethodGet {
		return notAllowed(c)
	}
	ctx := c.request.Context()
	refused := h.authorize(ctx, c, "Microsoft.Resources/subscriptions/resources/read", c.path.ID)
	if refused != nil && !h.related(ctx, c, c.path.ID, refused) {
		return refused
	}
	if err := h.checkExists(ctx, c.path.ID); err != nil {
		return err
	}
	all, _, err := ListDocuments(ctx, h.store, c.path.ID, "")
	if err != nil {
		return err
	}
	var tracked []*Document
	for _, d := range all {
		if row := h.table.rows[strings.ToLower(d.ID.Type())]; row != nil && row.tracked() && !d.ID.IsType(resource.TypeGroup) {
			tracked = append(tracked, d)
		}
	}
	if refused != nil {
		if tracked, err = h.readable(ctx, c, tracked); err != nil {
			return err
		}
	}
	expand := strings.ToLower(c.param("$expand"))
	return h.respondPage(w, c, tracked, func(d *Document) (any, error) { return generic(d, expand), nil })
}

// generic is a resource as lists of all types show it.
func generic(d *Document, expand string) map[string]any {
	item := map[string]any{"id": d.ID, "name": d.Name, "type": d.Type, "location": d.Location}
	if len(d.Tags) > 0 {
		item["tags"] = d.Tags
	}
	if strings.Contains(expand, "provisioningstate") {
		item["provisioningState"] = d.ProvisioningState
	}
	if strings.Contains(expand, "createdtime") {
		item["createdTime"] = d.SystemData.CreatedAt
	}
	if strings.Contains(expand, "changedtime") {
		item["changedTime"] = d.SystemData.LastModifiedAt
	}
	return item
}

// field is what a $filter can ask of a document; a tag's is "tag:name".
func (d *Document) field(name string) ([]string, bool) {
	if tag, ok := strings.CutPrefix(name, "tag:"); ok {
		for have, value := range d.Tags {
			if strings.EqualFold(have, tag) {
				return []string{value}, true
			}
		}
		return nil, true
	}
	switch strings.ToLower(name) {
	case "resourcetype":
		return []string{d.Type}, true
	case "name":
		return []string{d.Name}, true
	case "resourcegroup":
		return []string{d.ID.Group()}, true
	case "location":
		return []string{d.Location}, true
	case "id", "resourceid":
		return []string{d.ID.String()}, true
	case "tagname":
		var names []string
		for tag := range d.Tags {
			names = append(names, tag)
		}
		return names, true
	case "tagvalue":
		var values []string
		for _, value := range d.Tags {
			values = append(values, value)
		}
		return values, true
	}
	return nil, false
}
