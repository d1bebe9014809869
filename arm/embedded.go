// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	"bastide.dev/fault"
	"bastide.dev/resource"
)

// part is a write to a resource that stands in its parent's body: the parent's
// PUT with that one element replaced, added or removed.
type part struct {
	row    *row
	id     resource.ID
	method string // PUT or DELETE
	body   map[string]any

	index   int // of the element in the body that the hook gets; of a removed one -1
	existed bool
}

// writePart is the write to the parent that changes an embedded resource.
func (c *call) writePart(r *row, method string, body map[string]any) *write {
	w := c.write(r.parent, c.path.ID.Parent(), http.MethodPut, "", nil)
	w.part = &part{row: r, id: c.path.ID, method: method, body: body}
	return w
}

// compose makes the parent's body with the part in it. It says whether there was nothing to delete.
func (p *part) compose(w *write, r *Request) (absent bool, err error) {
	if r.Old == nil {
		if p.method == http.MethodDelete {
			return true, nil
		}
		return false, parentMissing(w.id)
	}
	if r.Body, err = bodyOf(r.Old); err != nil {
		return false, err
	}
	elements := Elements(r.Body, p.row.Embedded)
	p.id = p.row.canonical(p.id, r.Old.ID)
	p.index, p.existed = len(elements), false
	for i, element := range elements {
		if name, _ := element["name"].(string); strings.EqualFold(name, p.id.Name()) {
			p.id = p.row.canonical(r.Old.ID.Child("-", name), r.Old.ID)
			p.index, p.existed = i, true
		}
	}
	var old *Document
	if p.existed {
		old = r.Old // a part has its whole's etag
	}
	if err := checkMatch(w, old); err != nil {
		return false, err
	}
	if p.method == http.MethodDelete && !p.existed {
		return true, nil
	}
	p.put(r.Body, elements)
	return false, nil
}

// put puts the part's own body at its index, or takes the element out.
func (p *part) put(body map[string]any, elements []map[string]any) {
	list := make([]any, 0, len(elements)+1)
	for i, element := range elements {
		if i != p.index {
			list = append(list, element)
			continue
		}
		if p.method == http.MethodPut {
			list = append(list, p.element())
		}
	}
	switch {
	case p.method == http.MethodDelete:
		p.index = -1
	case !p.existed:
		list = append(list, p.element())
	}
	setList(body, p.row.Embedded, list)
}

func (p *part) element() map[string]any {
	element := deepCopy(p.body)
	p.row.dropReadOnly(element)
	Drop(element, "name")
	element["name"] = p.id.Name()
	if p.row.Model != nil {
		Spell(element, p.row.Model())
	}
	return element
}

// dropReadOnly drops what is read-only in an element of the row's type.
func (r *row) dropReadOnly(element map[string]any) {
	for _, path := range append(envelopeOnly(), r.ReadOnly...) {
		if path != "name" {
			Drop(element, path)
		}
	}
}

// place is where the part stands in the body that the hook gets, with a dot behind.
func (p *part) place() string { return fmt.Sprintf("%s[%d].", p.row.Embedded, p.index) }

// problems makes targets relative to the part that the client sent.
func (p *part) problems(err error) error {
	f := fault.From(err)
	if f == nil || p.index < 0 {
		return err
	}
	prefix := p.place()
	f.Target = strings.TrimPrefix(f.Target, prefix)
	for _, detail := range f.Details {
		detail.Target = strings.TrimPrefix(detail.Target, prefix)
	}
	return err
}

var elementName = regexp.MustCompile(`^\w([\w.-]{0,78}\w)?$`)

// CheckName judges a name as Microsoft.Network does, of resources and their parts.
func CheckName(name, target string) *fault.Error {
	if elementName.MatchString(name) {
		return nil
	}
	return fault.New(fault.Invalid, "InvalidResourceName", "Resource name '%s' is invalid. The name can be up to 80 characters long. "+
		"It must begin with a word character, and it must end with a word character or with '_'. The name may contain word characters or '.', '-', '_'.", name).At(target)
}

// prepareElements judges what all embedded resources in a parent's body have.
func (r *row) prepareElements(id resource.ID, body map[string]any) []*fault.Error {
	var problems []*fault.Error
	for _, child := range r.embedded {
		seen := map[string]bool{}
		for i, element := range Elements(body, child.Embedded) {
			child.dropReadOnly(element)
			target := fmt.Sprintf("%s[%d].name", child.Embedded, i)
			name, _ := element["name"].(string)
			key := strings.ToLower(name)
			switch {
			case seen[key]:
				problems = append(problems, fault.New(fault.Invalid, "DuplicateResourceName",
					"Resource %s has two child resources with the same name (%s).", id, name).At(target))
			default:
				problems = append(problems, CheckName(name, target))
			}
			seen[key] = true
		}
	}
	return problems
}

// view is the answer's body for a document: embedded resources have ids, types, etags and states of their own.
func (r *row) view(ctx context.Context, d *Document, version resource.APIVersion) (any, error) {
	view, err := r.Type.view(ctx, d, version)
	body, ok := view.(map[string]any)
	if err != nil || !ok {
		return view, err
	}
	for _, child := range r.embedded {
		for _, element := range Elements(body, child.Embedded) {
			name, _ := element["name"].(string)
			element["id"] = child.canonical(d.ID.Child("-", name), d.ID).String()
			element["type"], element["etag"] = child.full, WeakEtag(d)
			properties, _ := element["properties"].(map[string]any)
			if properties == nil {
				properties = map[string]any{}
				element["properties"] = properties
			}
			if properties["provisioningState"] == nil {
				properties["provisioningState"] = d.ProvisioningState
			}
		}
	}
	return body, nil
}

// WeakEtag is a document's etag in the form that Microsoft.Network shows.
func WeakEtag(d *Document) string { return `W/"` + d.Etag + `"` }

// element is one embedded resource of the parent's view; nil when it isn't there.
func (h *Handler) element(ctx context.Context, r *row, id resource.ID, parent *Document, version resource.APIVersion) (map[string]any, error) {
	view, err := r.parent.view(ctx, parent, version)
	if err != nil {
		return nil, err
	}
	body, _ := view.(map[string]any)
	for _, element := range Elements(body, r.Embedded) {
		if name, _ := element["name"].(string); strings.EqualFold(name, id.Name()) {
			return element, nil
		}
	}
	return nil, missing(id)
}

// respondElement answers with an embedded resource.
func (h *Handler) respondElement(w http.ResponseWriter, c *call, r *row, id resource.ID, parent *Document, code int) error {
	element, err := h.element(c.request.Context(), r, id, parent, c.version)
	if err != nil {
		return err
	}
	w.Header().Set("ETag", WeakEtag(parent))
	return respond(w, code, element)
}

// serveElement serves GET and HEAD of an embedded resource.
func (h *Handler) serveElement(w http.ResponseWriter, c *call, r *row) error {
	around := &Request{}
	if _, err := h.surroundings(c.request.Context(), r, c.path.ID, around); err != nil {
		return err
	}
	if c.request.Method == http.MethodHead {
		if _, err := h.element(c.request.Context(), r, c.path.ID, around.Parent, c.version); err != nil {
			return err
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	if around.Parent.Operation != "" {
		w.Header().Set("Retry-After", "1")
	}
	return h.respondElement(w, c, r, c.path.ID, around.Parent, http.StatusOK)
}

// serveElements serves GET of a collection of embedded resources.
// With filtered it shows those that the caller may read.
func (h *Handler) serveElements(w http.ResponseWriter, c *call, r *row, filtered bool) error {
	parent, err := findDocument(c.request.Context(), h.store, c.path.ID)
	if err != nil {
		return err
	}
	if parent == nil {
		return missing(c.path.ID)
	}
	view, err := r.parent.view(c.request.Context(), parent, c.version)
	if err != nil {
		return err
	}
	body, _ := view.(map[string]any)
	elements := Elements(body, r.Embedded)
	if filtered {
		if elements, err = h.readableElements(c, r, parent, elements); err != nil {
			return err
		}
	}
	if elements == nil {
		elements = []map[string]any{}
	}
	return respond(w, http.StatusOK, map[string]any{"value": elements})
}

// bodyOf is what a client would PUT to get the document as it is.
func bodyOf(d *Document) (map[string]any, error) {
	body := map[string]any{}
	if len(d.Body) > 0 {
		var err error
		if body, err = decodeObject(d.Body); err != nil {
			return nil, fmt.Errorf("arm: body of %s: %w", d.ID, err)
		}
	}
	if d.Location != "" {
		body["location"] = d.Location
	}
	if len(d.Tags) > 0 {
		tags := make(map[string]any, len(d.Tags))
		for k, v := range d.Tags {
			tags[k] = v
		}
		body["tags"] = tags
	}
	return body, nil
}

// Elements are the objects of the list at a path such as "properties.subnets".
func Elements(body map[string]any, path string) []map[string]any {
	name, rest, more := strings.Cut(path, ".")
	_, value, _ := child(body, name)
	if more {
		object, _ := value.(map[string]any)
		return Elements(object, rest)
	}
	list, _ := value.([]any)
	elements := make([]map[string]any, 0, len(list))
	for _, v := range list {
		if element, ok := v.(map[string]any); ok {
			elements = append(elements, element)
		}
	}
	return elements
}

// setList replaces the list at a path.
func setList(body map[string]any, path string, list []any) {
	name, rest, more := strings.Cut(path, ".")
	key, value, ok := child(body, name)
	if !ok {
		key = name
	}
	if !more {
		body[key] = list
		return
	}
	object, _ := value.(map[string]any)
	if object == nil {
		object = map[string]any{}
		body[key] = object
	}
	setList(object, rest, list)
}
