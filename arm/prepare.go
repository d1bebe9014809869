// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"

	"bastide.dev/fault"
	"bastide.dev/resource"
)

const codePrecondition = "PreconditionFailed"

// prepare reads what a write stands on, and refuses what no provider need see.
func (h *Handler) prepare(ctx context.Context, w *write) (*Request, error) {
	r := &Request{Version: w.version, Who: w.who, Query: w.query, Operation: uuid.NewString(), Cascade: w.cascade}
	parent, err := h.surroundings(ctx, w.row, w.id, r)
	if err != nil {
		if w.method == http.MethodDelete && fault.Is(err, fault.NotFound) {
			return r, nil // what it stood in is gone, and so is it
		}
		return nil, err
	}
	r.ID = w.row.canonical(w.id, parent)
	if w.row.Home != nil {
		r.ID = w.row.Home(r.ID)
	}
	if w.row.stored() {
		if r.Old, err = findDocument(ctx, h.store, r.ID); err != nil {
			return nil, err
		}
	}
	if r.Old != nil {
		r.ID = r.Old.ID // the case it was created in
	}
	if r.Old == nil && w.row.stored() && (w.method == http.MethodPatch && !w.row.Implicit || w.method == http.MethodPost) {
		return nil, missing(r.ID)
	}
	if w.part == nil {
		if err := checkMatch(w, r.Old); err != nil {
			return nil, err
		}
	}
	if err := h.checkGroup(w, r); err != nil {
		return nil, err
	}
	return r, h.prepareBody(w, r)
}

// surroundings reads the group and the parent into r, and returns the parent's id in its own case.
func (h *Handler) surroundings(ctx context.Context, row *row, id resource.ID, r *Request) (resource.ID, error) {
	var err error
	scope := id.Parent()
	if id.Group() != "" && !id.IsType(resource.TypeGroup) {
		if r.Group, err = findDocument(ctx, h.store, id.GroupID()); err != nil {
			return scope, err
		}
		if r.Group == nil {
			return scope, fault.New(fault.NotFound, "ResourceGroupNotFound", "Resource group '%s' could not be found.", id.Group())
		}
	}
	if scope.IsType(resource.TypeGroup) && r.Group != nil {
		return r.Group.ID, nil
	}
	if parentRow := h.table.rows[strings.ToLower(scope.Type())]; parentRow == nil || !parentRow.stored() {
		return scope, nil
	}
	parent, err := findDocument(ctx, h.store, scope)
	if err != nil {
		return scope, err
	}
	if parent == nil {
		return scope, parentMissing(scope)
	}
	if row.child() {
		r.Parent = parent
	}
	return parent.ID, nil
}

// checkMatch holds If-Match and If-None-Match against the document.
func checkMatch(w *write, old *Document) error {
	match, none := bareEtag(w.ifMatch), bareEtag(w.ifNoneMatch)
	switch {
	case match == "" && none == "":
		return nil
	case match == "*" && old == nil,
		match != "" && match != "*" && (old == nil || old.Etag != match),
		none == "*" && old != nil,
		none != "" && none != "*" && old != nil && old.Etag == none:
		return fault.New(fault.Precondition, codePrecondition,
			"The condition of the request's If-Match or If-None-Match header isn't met: the resource was changed, or doesn't exist, or exists already.")
	}
	return nil
}

func bareEtag(s string) string { return strings.Trim(strings.TrimPrefix(s, "W/"), `"`) }

// checkGroup refuses writes into a group that is being deleted.
func (h *Handler) checkGroup(w *write, r *Request) error {
	if r.Group == nil || r.Group.ProvisioningState != resource.Deleting || w.cascade || w.method == http.MethodDelete {
		return nil
	}
	return fault.New(fault.Conflict, "ResourceGroupBeingDeleted",
		"The resource group '%s' is in deprovisioning state and cannot perform this operation.", r.Group.Name)
}

// prepareBody drops what is read-only and judges what all types have.
func (h *Handler) prepareBody(w *write, r *Request) error {
	if w.body == nil {
		return nil
	}
	r.Body = deepCopy(w.body)
	for _, path := range append(envelopeOnly(), w.row.ReadOnly...) {
		Drop(r.Body, path)
	}
	for _, name := range []string{"location", "tags", "properties"} { // one spelling for all behind
		if key, value, ok := child(r.Body, name); ok && key != name {
			delete(r.Body, key)
			r.Body[name] = value
		}
	}
	if w.method == http.MethodPost {
		return nil
	}
	problems := append(checkTags(r.Body["tags"]), w.row.prepareElements(r.ID, r.Body)...)
	if w.method == http.MethodPut && (w.row.tracked() || r.ID.IsType(resource.TypeGroup)) {
		problems = append(problems, checkLocation(r)...)
	}
	return fault.Join(problems...)
}

func checkLocation(r *Request) []*fault.Error {
	given, isText := r.Body["location"].(string)
	switch {
	case r.Body["location"] == nil || given == "" && isText:
		return []*fault.Error{fault.New(fault.Invalid, "LocationRequired", "The location property is required for this definition.").At("location")}
	case !isText:
		return []*fault.Error{fault.New(fault.Invalid, "InvalidRequestContent", "The location must be a string.").At("location")}
	}
	location := resource.NormalizeLocation(given)
	if _, known := resource.FindLocation(location); !known && location != "global" {
		return []*fault.Error{fault.New(fault.Invalid, "LocationNotAvailableForResourceType",
			"The provided location '%s' is not available for resource type '%s'. List the locations with 'az account list-locations'.", given, r.ID.Type()).At("location")}
	}
	r.Body["location"] = location
	if r.Old != nil && r.Old.Location != "" && r.Old.Location != location {
		code := "InvalidResourceLocation"
		if r.ID.IsType(resource.TypeGroup) {
			code = "InvalidResourceGroupLocation"
		}
		return []*fault.Error{fault.New(fault.Conflict, code,
			"The resource '%s' already exists in location '%s'. It cannot be created in location '%s': choose another name, or the location it is in.",
			r.ID.Name(), r.Old.Location, location).At("location")}
	}
	return nil
}

// checkTags holds tags against ARM's limits.
func checkTags(v any) []*fault.Error {
	if v == nil {
		return nil
	}
	object, ok := v.(map[string]any)
	if !ok {
		return []*fault.Error{fault.New(fault.Invalid, "InvalidTags", "The tags must be an object of strings.").At("tags")}
	}
	var problems []*fault.Error
	if len(object) > 50 {
		problems = append(problems, fault.New(fault.Invalid, "TagsCountExceedsLimit", "There are %d tags; at most 50 are possible.", len(object)).At("tags"))
	}
	for name, value := range object {
		text, ok := value.(string)
		switch {
		case !ok:
			problems = append(problems, fault.New(fault.Invalid, "InvalidTagValue", "The value of the tag '%s' must be a string.", name).At("tags."+name))
		case name == "" || len(name) > 512 || strings.ContainsAny(name, `<>%&\?/`):
			problems = append(problems, fault.New(fault.Invalid, "InvalidTagNameCharacters",
				"The tag name '%s' must have 1 to 512 characters and none of <, >, %%, &, \\, ?, /.", name).At("tags."+name))
		case len(text) > 256:
			problems = append(problems, fault.New(fault.Invalid, "InvalidTagValueLength", "The value of the tag '%s' is longer than 256 characters.", name).At("tags."+name))
		}
	}
	return problems
}

// checkIdle refuses a second write while an operation runs on the resource, its parent or its parts.
func (h *Handler) checkIdle(ctx context.Context, w *write, r *Request) error {
	if r.Parent != nil && r.Parent.Operation != "" {
		return inProgress(r.Parent)
	}
	if r.Old == nil || w.method == http.MethodDelete {
		return nil // a DELETE takes the place of what runs
	}
	if r.Old.Operation != "" {
		return inProgress(r.Old)
	}
	if r.ID.IsType(resource.TypeGroup) {
		return nil // what is in a group has a life of its own
	}
	below, _, err := ListDocuments(ctx, h.store, r.ID, "")
	for _, d := range below {
		if d.Operation != "" {
			return inProgress(d)
		}
	}
	return err
}

// runningError is the refusal of a write while an operation runs.
type runningError struct {
	refusal   *fault.Error
	operation string
}

func (e *runningError) Error() string { return e.refusal.Error() }
func (e *runningError) Unwrap() error { return e.refusal }

func inProgress(d *Document) error {
	return &runningError{operation: d.Operation, refusal: fault.New(fault.Conflict, "OperationNotAllowed",
		"Operation is not allowed: Another operation (%s - %s) on '%s' is in progress, please wait for it to finish before starting a new operation.",
		d.ProvisioningState, d.SystemData.LastModifiedAt.Format(time.RFC1123), d.ID)}
}

// runningDelete is the operation that deletes d already, "" when none does.
func (h *Handler) runningDelete(ctx context.Context, d *Document) (string, error) {
	if d.Operation == "" {
		return "", nil
	}
	op, err := h.operations.Get(ctx, d.Operation)
	if fault.Is(err, fault.NotFound) {
		return "", nil
	}
	if err != nil || op.Method != http.MethodDelete || !op.Resource.Equal(d.ID) {
		return "", err
	}
	return op.ID, nil
}

func parentMissing(parent resource.ID) error {
	return fault.New(fault.NotFound, "ParentResourceNotFound",
		"Can not perform requested operation on nested resource. Parent resource '%s' not found.", parent.Name())
}

func missing(id resource.ID) error {
	if id.IsType(resource.TypeGroup) {
		return fault.New(fault.NotFound, "ResourceGroupNotFound", "Resource group '%s' could not be found.", id.Name())
	}
	where := ""
	if id.Group() != "" {
		where = fmt.Sprintf(" under resource group '%s'", id.Group())
	}
	return fault.New(fault.NotFound, "ResourceNotFound", "The Resource '%s'%s was not found.", shortName(id), where)
}

// shortName is "Microsoft.ContainerService/managedClusters/c1/agentPools/np1".
func shortName(id resource.ID) string {
	_, after, found := strings.Cut(id.String(), "/providers/")
	if !found {
		return id.Name()
	}
	return after
}

// deepCopy keeps a hook's edits from a second attempt.
func deepCopy(body map[string]any) map[string]any {
	copied := maps.Clone(body)
	for k, v := range copied {
		copied[k] = copyValue(v)
	}
	return copied
}

func copyValue(v any) any {
	switch v := v.(type) {
	case map[string]any:
		return deepCopy(v)
	case []any:
		copied := make([]any, len(v))
		for i := range v {
			copied[i] = copyValue(v[i])
		}
		return copied
	}
	return v
}
