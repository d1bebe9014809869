// SPDX-License-Identifier: Apache-2.0

package authorization

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/rbac"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// maxDepth is how deep management groups stand within each other, the one above all not counted.
const maxDepth = 6

// treeMark changes with each move of a management group, so that of two moves
// that would make a circle together one has to look again.
const treeMark = "authorization-marks/tree"

// rootGroup is the management group that all others stand in.
func (p *Provider) rootGroup() resource.ID {
	return resource.ID{}.Resource(ManagementNamespace, "managementGroups", p.config.Tenant)
}

func managementVersions() []resource.APIVersion {
	return []resource.APIVersion{"2023-04-01", "2021-04-01", "2020-10-01", "2020-05-01", "2020-02-01", "2019-11-01", "2018-03-01-preview", "2018-01-01-preview"}
}

func (p *Provider) managementTypes() []arm.Type {
	return []arm.Type{
		{Name: "managementGroups", Scope: arm.InTenant, Versions: managementVersions(), Untracked: true, PutStatus: 200,
			ReadOnly: []string{"properties.tenantId", "properties.children", "properties.details.version", "properties.details.updatedTime",
				"properties.details.updatedBy", "properties.details.parent.name", "properties.details.parent.displayName"},
			Model: func() any { return &groupModel{} },
			Put:   p.putGroup, Patch: p.patchGroup, Delete: p.deleteGroup, View: p.viewGroup, Audit: auditGroup},
		{Name: "managementGroups/subscriptions", Versions: managementVersions(), PutStatus: 200, NoBody: true,
			Put: p.putMember, Patch: noPatch, Delete: p.deleteMember, View: p.viewMember},
	}
}

type groupModel struct {
	ID         *string `json:"id"`
	Name       *string `json:"name"`
	Type       *string `json:"type"`
	Properties *struct {
		DisplayName *string `json:"displayName"`
		Details     *struct {
			Parent *struct {
				ID *string `json:"id"`
			} `json:"parent"`
		} `json:"details"`
	} `json:"properties"`
	// PATCH has them outside of properties.
	DisplayName   *string `json:"displayName"`
	ParentGroupID *string `json:"parentGroupId"`
}

// groupBody is the stored form.
type groupBody struct {
	Properties groupProperties `json:"properties"`
}

type groupProperties struct {
	DisplayName string       `json:"displayName"`
	Details     groupDetails `json:"details"`
}

type groupDetails struct {
	Parent groupParent `json:"parent"`
}

type groupParent struct {
	ID string `json:"id,omitempty"`
}

func readGroup(d *arm.Document) (groupProperties, error) {
	var body groupBody
	if err := json.Unmarshal(d.Body, &body); err != nil {
		return groupProperties{}, fmt.Errorf("authorization: %s: %w", d.ID, err)
	}
	return body.Properties, nil
}

// parentOf is the id of the management group that one stands in, "" of the one above all.
func parentOf(d *arm.Document) (string, error) {
	g, err := readGroup(d)
	return g.Details.Parent.ID, err
}

var managementName = regexp.MustCompile(`^[\pL\pN_().-]{1,90}$`)

func (p *Provider) putGroup(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	var body groupBody
	if err := decodeBody(r.Body, &body); err != nil {
		return nil, err
	}
	asked := body.Properties
	var problems []*fault.Error
	if !managementName.MatchString(r.ID.Name()) || strings.HasSuffix(r.ID.Name(), ".") {
		problems = append(problems, fault.New(fault.Invalid, "InvalidManagementGroupId",
			"The management group's id '%s' isn't valid: letters, digits, '-', '_', '(', ')' and '.' are allowed, at most 90, and no '.' at the end.", r.ID.Name()).At("name"))
	}
	if len(asked.DisplayName) > 255 {
		problems = append(problems, fault.New(fault.Invalid, "InvalidDisplayName", "The display name is longer than 255 bytes.").At("properties.displayName"))
	}
	if err := fault.Join(problems...); err != nil {
		return nil, err
	}
	return p.place(ctx, r, asked)
}

func (p *Provider) patchGroup(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	asked, err := readGroup(r.Old)
	if err != nil {
		return nil, err
	}
	var problems []*fault.Error
	for name, value := range r.Body {
		text, ok := value.(string)
		switch {
		case strings.EqualFold(name, "displayName") && ok && len(text) <= 255:
			asked.DisplayName = text
		case strings.EqualFold(name, "parentGroupId") && ok:
			asked.Details.Parent.ID = text
		default:
			problems = append(problems, fault.New(fault.Invalid, "InvalidParameter", "PATCH of a management group takes displayName and parentGroupId, both of text.").At(name))
		}
	}
	if err := fault.Join(problems...); err != nil {
		return nil, err
	}
	return p.place(ctx, r, asked)
}

// place puts a management group where it shall stand.
func (p *Provider) place(ctx context.Context, r *arm.Request, asked groupProperties) (*arm.Plan, error) {
	if err := p.feed.load(ctx); err != nil {
		return nil, err
	}
	d := &arm.Document{}
	before := ""
	if r.Old != nil {
		*d = *r.Old
		old, err := readGroup(r.Old)
		if err != nil {
			return nil, err
		}
		before = old.Details.Parent.ID
		if asked.Details.Parent.ID == "" {
			asked.Details.Parent.ID = before
		}
		if asked.DisplayName == "" {
			asked.DisplayName = old.DisplayName
		}
	}
	d.ID, d.Name, d.Type = r.ID, r.ID.Name(), TypeManagementGroup
	if asked.DisplayName == "" {
		asked.DisplayName = r.ID.Name()
	}
	var changes []store.Change
	if !r.ID.Equal(p.rootGroup()) {
		parent, moved, err := p.parentFor(ctx, r, asked.Details.Parent.ID, before)
		if err != nil {
			return nil, err
		}
		asked.Details.Parent.ID, changes = parent, moved
	} else if asked.Details.Parent.ID != "" {
		return nil, fault.New(fault.Invalid, "InvalidParent", "The management group above all others can't stand in another one.").At("properties.details.parent.id")
	}
	var err error
	if d.Body, err = json.Marshal(groupBody{asked}); err != nil {
		return nil, fmt.Errorf("authorization: %s: %w", d.ID, err)
	}
	return &arm.Plan{Document: d, Changes: changes}, nil
}

// parentFor judges the management group that another shall stand in.
func (p *Provider) parentFor(ctx context.Context, r *arm.Request, asked, before string) (string, []store.Change, error) {
	wrong := func(format string, args ...any) (string, []store.Change, error) {
		return "", nil, fault.New(fault.Invalid, "InvalidParent", format, args...).At("properties.details.parent.id")
	}
	parent := p.rootGroup()
	if asked != "" {
		id, err := resource.ParseID(asked)
		if err != nil || !id.IsType(TypeManagementGroup) {
			return wrong("The parent '%s' isn't the id of a management group.", printable(asked))
		}
		parent = id
	}
	if r.Old != nil && strings.EqualFold(parent.String(), before) {
		return parent.String(), nil, nil
	}
	tree := store.Change{Key: treeMark, Value: []byte(r.ID.String()), Revision: store.Absent}
	switch record, err := p.store.Get(ctx, treeMark); {
	case err == nil:
		tree.Revision = record.Revision
	case !fault.Is(err, fault.NotFound):
		return "", nil, err
	}
	depth := 0
	for at := parent; !at.Equal(p.rootGroup()); depth++ {
		if at.Equal(r.ID) {
			return wrong("The management group '%s' can't stand in itself, or in one that stands in it.", r.ID.Name())
		}
		d, err := arm.GetDocument(ctx, p.store, at)
		if fault.Is(err, fault.NotFound) {
			return wrong("The management group '%s' doesn't exist.", at.Name())
		}
		if err != nil {
			return "", nil, err
		}
		above, err := parentOf(d)
		if err != nil {
			return "", nil, err
		}
		if at, err = resource.ParseID(above); err != nil || depth > maxDepth {
			return wrong("Management groups can stand at most %d deep.", maxDepth)
		}
	}
	if depth+p.height(r.ID.String(), 0) > maxDepth {
		return wrong("Management groups can stand at most %d deep.", maxDepth)
	}
	// Whoever moves one must have a say where it goes: its new surroundings' roles hold on it.
	if err := p.mayEverywhere(ctx, r, TypeManagementGroup+"/write", []string{parent.String()}); err != nil {
		return "", nil, err
	}
	return parent.String(), []store.Change{tree}, nil
}

// height is how many levels of management groups a group makes, itself included.
func (p *Provider) height(id string, depth int) int {
	highest := 0
	if depth <= maxDepth {
		for _, child := range p.feed.childrenOf(id) {
			if !strings.HasPrefix(strings.ToLower(child), "/subscriptions/") {
				highest = max(highest, p.height(child, depth+1))
			}
		}
	}
	return highest + 1
}

func (p *Provider) deleteGroup(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	if r.ID.Equal(p.rootGroup()) {
		return nil, fault.New(fault.Forbidden, "RootManagementGroupCannotBeDeleted", "The management group above all others can't be deleted.")
	}
	if err := p.feed.load(ctx); err != nil {
		return nil, err
	}
	if children := p.feed.childrenOf(r.ID.String()); len(children) > 0 {
		return nil, fault.New(fault.Conflict, "ManagementGroupHasChildren", "The management group '%s' isn't empty: move '%s' out of it first.", r.ID.Name(), children[0])
	}
	tree := store.Change{Key: treeMark, Value: []byte(r.ID.String()), Revision: store.Absent}
	switch record, err := p.store.Get(ctx, treeMark); {
	case err == nil:
		tree.Revision = record.Revision
	case !fault.Is(err, fault.NotFound):
		return nil, err
	}
	return &arm.Plan{Changes: []store.Change{tree}}, nil
}

func (p *Provider) viewGroup(ctx context.Context, d *arm.Document, _ resource.APIVersion) (any, error) {
	if err := p.feed.load(ctx); err != nil {
		return nil, err
	}
	g, err := readGroup(d)
	if err != nil {
		return nil, err
	}
	details := map[string]any{"version": d.Generation, "updatedTime": d.SystemData.LastModifiedAt, "updatedBy": d.SystemData.LastModifiedBy}
	if g.Details.Parent.ID != "" {
		details["parent"] = map[string]any{"id": g.Details.Parent.ID, "name": lastOf(g.Details.Parent.ID), "displayName": p.groupName(ctx, g.Details.Parent.ID)}
	}
	children := []any{}
	for _, child := range p.feed.childrenOf(d.ID.String()) {
		typ := TypeManagementGroup
		if strings.HasPrefix(strings.ToLower(child), "/subscriptions/") {
			typ = "/subscriptions"
		}
		children = append(children, map[string]any{"type": typ, "id": child, "name": lastOf(child), "displayName": p.groupName(ctx, child)})
	}
	return map[string]any{"id": d.ID.String(), "name": d.Name, "type": TypeManagementGroup, "properties": map[string]any{
		"tenantId": p.config.Tenant, "displayName": g.DisplayName, "details": details, "children": children}}, nil
}

func lastOf(id string) string { return id[strings.LastIndexByte(id, '/')+1:] }

// groupName is what a management group is called; anything else by its id.
func (p *Provider) groupName(ctx context.Context, id string) string {
	if parsed, err := resource.ParseID(id); err == nil {
		if d, err := arm.GetDocument(ctx, p.store, parsed); err == nil {
			if g, err := readGroup(d); err == nil && g.DisplayName != "" {
				return g.DisplayName
			}
		}
	}
	return lastOf(id)
}

func auditGroup(d *arm.Document) any {
	g, err := readGroup(d)
	if err != nil {
		return nil
	}
	return g
}

// putMember moves a subscription into a management group.
func (p *Provider) putMember(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	if !strings.EqualFold(r.ID.Name(), p.config.Subscription) {
		return nil, fault.New(fault.NotFound, "SubscriptionNotFound", "The subscription '%s' could not be found.", r.ID.Name())
	}
	// Azure asks for a say over the subscription, too: its owners' access changes.
	subscription := resource.SubscriptionID(r.ID.Name()).String()
	err := p.authorize(ctx, r.Who.Name, rbac.Request{Subject: subjectOf(r.Who), Action: actionAssign, Scope: subscription})
	if err != nil {
		return nil, err
	}
	d := &arm.Document{}
	if r.Old != nil {
		*d = *r.Old
	}
	d.ID, d.Name, d.Type = r.ID, r.ID.Name(), typeMember
	others, _, err := arm.ListDocuments(ctx, p.store, resource.ID{}, typeMember)
	if err != nil {
		return nil, err
	}
	plan := &arm.Plan{Document: d}
	for _, other := range others {
		if !other.ID.Equal(r.ID) && strings.EqualFold(other.Name, r.ID.Name()) {
			plan.Gone = append(plan.Gone, other)
		}
	}
	return plan, nil
}

// deleteMember takes a subscription out: it then stands in the one above all.
func (p *Provider) deleteMember(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	subscription := resource.SubscriptionID(r.ID.Name()).String()
	return &arm.Plan{}, p.authorize(ctx, r.Who.Name, rbac.Request{Subject: subjectOf(r.Who), Action: actionAssign, Scope: subscription})
}

func (p *Provider) viewMember(_ context.Context, d *arm.Document, _ resource.APIVersion) (any, error) {
	return map[string]any{"id": d.ID.String(), "name": d.Name, "type": typeMember, "properties": map[string]any{"tenant": p.config.Tenant,
		"displayName": d.Name, "state": "Active", "parent": map[string]any{"id": d.ID.Parent().String()}}}, nil
}
