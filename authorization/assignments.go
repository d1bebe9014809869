// SPDX-License-Identifier: Apache-2.0

package authorization

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/authorization/armauthorization/v2"
	"github.com/google/uuid"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/rbac"
	"bastide.dev/resource"
	"bastide.dev/store"
)

const codeNoDefinition = "RoleDefinitionDoesNotExist"

func (p *Provider) assignmentType() arm.Type {
	return arm.Type{
		Name: "roleAssignments", Scope: arm.OnAny, Versions: versions(), Untracked: true,
		Model: func() any { return &armauthorization.RoleAssignment{} },
		ReadOnly: []string{"properties.scope", "properties.createdOn", "properties.createdBy", "properties.updatedOn", "properties.updatedBy",
			"properties.principalName", "properties.roleDefinitionName"},
		Put: p.putAssignment, Patch: noPatch, Delete: p.deleteAssignment, View: viewAssignment, Audit: auditAssignment, List: p.listAssignments,
	}
}

// noPatch: Azure has no PATCH of these types.
func noPatch(_ context.Context, r *arm.Request) (*arm.Plan, error) {
	return nil, fault.New(fault.NotAllowed, "MethodNotAllowed", "The method PATCH isn't possible on '%s': use PUT.", r.ID)
}

func (p *Provider) putAssignment(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	if err := p.feed.load(ctx); err != nil {
		return nil, err
	}
	wanted, err := p.assignmentOf(ctx, r)
	if err != nil {
		return nil, err
	}
	changes, err := p.scopeThere(ctx, r.ID.Parent())
	if err != nil {
		return nil, err
	}
	if err := p.mayTouch(ctx, r, wanted, actionAssign, rbac.OfRequest); err != nil {
		return nil, err
	}
	d := &arm.Document{}
	wanted.CreatedBy, wanted.UpdatedBy = r.Who.ID, r.Who.ID
	if r.Old != nil {
		old, err := readAssignment(r.Old)
		if err != nil {
			return nil, err
		}
		if !strings.EqualFold(old.PrincipalID, wanted.PrincipalID) || old.Role != wanted.Role {
			return nil, fault.New(fault.Invalid, "RoleAssignmentUpdateNotPermitted",
				"The principal, role and scope of a role assignment can't be changed: delete it and make another.").At("properties")
		}
		*d = *r.Old
		wanted.CreatedBy, wanted.Expires, wanted.Service = old.CreatedBy, old.Expires, old.Service
	} else {
		unique, err := p.unique(ctx, wanted)
		if err != nil {
			return nil, err
		}
		changes = append(changes, unique)
	}
	d.ID, d.Name, d.Type = r.ID, r.ID.Name(), TypeAssignment
	return &arm.Plan{Document: d, Changes: changes}, writeAssignment(d, wanted)
}

// assignmentOf judges a body, and reports all that is wrong with it.
func (p *Provider) assignmentOf(ctx context.Context, r *arm.Request) (*rbac.Assignment, error) {
	var body struct {
		Properties struct {
			assignmentProperties
			DelegatedManagedIdentityResourceID *string `json:"delegatedManagedIdentityResourceId"`
		} `json:"properties"`
	}
	if err := decodeBody(r.Body, &body); err != nil {
		return nil, err
	}
	asked := body.Properties.assignmentProperties
	var problems []*fault.Error
	bad := func(kind fault.Kind, code, target, format string, args ...any) {
		problems = append(problems, fault.New(kind, code, format, args...).At(target))
	}
	if uuid.Validate(r.ID.Name()) != nil || len(r.ID.Name()) != 36 {
		bad(fault.Invalid, "InvalidRoleAssignmentId", "name", "The role assignment's name '%s' isn't valid: it must be a GUID.", printable(r.ID.Name()))
	}
	if body.Properties.DelegatedManagedIdentityResourceID != nil {
		bad(fault.Unsupported, "PropertyNotSupported", "properties.delegatedManagedIdentityResourceId", "properties.delegatedManagedIdentityResourceId can't be set here: there is one tenant only.")
	}
	a := &rbac.Assignment{ID: r.ID.String(), Scope: r.ID.Parent().String(), PrincipalID: strings.ToLower(asked.PrincipalID), PrincipalType: asked.PrincipalType,
		Condition: asked.Condition, ConditionVersion: asked.ConditionVersion, Description: asked.Description}
	problems = append(problems, p.judgeRole(a, asked.RoleDefinitionID)...)
	found, err := p.judgePrincipal(ctx, a, r.Old != nil)
	if err != nil {
		return nil, err
	}
	problems = append(append(problems, found...), judgeCondition(a)...)
	if len(a.Description) > 1024 {
		bad(fault.Invalid, "InvalidRoleAssignmentDescription", "properties.description", "The description is longer than 1024 bytes.")
	}
	return a, fault.Join(problems...)
}

func (p *Provider) judgeRole(a *rbac.Assignment, id string) []*fault.Error {
	const target = "properties.roleDefinitionId"
	parsed, err := resource.ParseID(id)
	if err != nil || !parsed.IsType(TypeDefinition) || uuid.Validate(parsed.Name()) != nil {
		return []*fault.Error{fault.New(fault.Invalid, "InvalidRoleDefinitionId",
			"The role definition id '%s' isn't valid: it must have the form …/providers/Microsoft.Authorization/roleDefinitions/GUID.", printable(id)).At(target)}
	}
	a.Role = strings.ToLower(parsed.Name())
	d := p.table.Definition(a.Role)
	if d == nil {
		return []*fault.Error{fault.New(fault.NotFound, codeNoDefinition, "The specified role definition with ID '%s' does not exist.", a.Role).At(target)}
	}
	for _, scope := range d.AssignableScopes {
		for _, at := range p.table.Lineage(a.Scope) {
			if strings.EqualFold(at, strings.TrimSuffix(scope, "/")) || scope == "/" {
				return nil
			}
		}
	}
	return []*fault.Error{fault.New(fault.Invalid, "RoleAssignmentScopeNotAssignableToRoleDefinition",
		"The role assignment's scope '%s' isn't within the assignable scopes of the role definition '%s'.", a.Scope, d.Name).At(target)}
}

// judgePrincipal refuses principals that aren't there; of an assignment that
// exists the principal may have gone since.
func (p *Provider) judgePrincipal(ctx context.Context, a *rbac.Assignment, exists bool) ([]*fault.Error, error) {
	const target = "properties.principalId"
	if uuid.Validate(a.PrincipalID) != nil || len(a.PrincipalID) != 36 {
		return []*fault.Error{fault.New(fault.Invalid, "InvalidPrincipalId", "The principal id '%s' isn't valid: it must be a GUID, the object id of a user, group or service principal.", printable(a.PrincipalID)).At(target)}, nil
	}
	found, err := p.config.Directory.Principal(ctx, a.PrincipalID)
	switch {
	case fault.Is(err, fault.NotFound) || err == nil && !strings.EqualFold(found.ID, a.PrincipalID):
		if exists {
			return nil, nil
		}
		return []*fault.Error{fault.New(fault.Invalid, "PrincipalNotFound",
			"The principal '%s' doesn't exist in the directory '%s'.", a.PrincipalID, p.config.Tenant).At(target)}, nil
	case err != nil:
		return nil, fmt.Errorf("principal of role assignment: %w", err)
	case a.PrincipalType != "" && !strings.EqualFold(a.PrincipalType, found.Kind):
		return []*fault.Error{fault.New(fault.Invalid, "UnmatchedPrincipalType",
			"The principal '%s' is of type '%s', not '%s'.", a.PrincipalID, found.Kind, printable(a.PrincipalType)).At("properties.principalType")}, nil
	}
	a.PrincipalType = found.Kind
	return nil, nil
}

func judgeCondition(a *rbac.Assignment) []*fault.Error {
	if a.Condition == "" {
		a.ConditionVersion = ""
		return nil
	}
	if a.ConditionVersion != "2.0" {
		return []*fault.Error{fault.New(fault.Invalid, "InvalidConditionVersion", "The condition version '%s' isn't supported: it must be '2.0'.", printable(a.ConditionVersion)).At("properties.conditionVersion")}
	}
	parsed, err := rbac.ParseCondition(a.Condition)
	if err != nil {
		return []*fault.Error{fault.New(fault.Invalid, "InvalidRoleAssignmentCondition", "The condition isn't valid: %s.", printable(err.Error())).At("properties.condition")}
	}
	var problems []*fault.Error
	for _, name := range parsed.Unsupported() {
		problems = append(problems, fault.New(fault.Unsupported, "UnsupportedConditionAttribute",
			"The condition names the attribute %s, which no request to this service has.", printable(name)).At("properties.condition"))
	}
	return problems
}

// mayTouch judges what the front door left open: whether the caller may write or
// delete this very assignment. Its role and principal are attributes for the
// conditions on the caller's own.
func (p *Provider) mayTouch(ctx context.Context, r *arm.Request, a *rbac.Assignment, action, source string) error {
	return p.authorize(ctx, r.Who.Name, rbac.Request{Subject: subjectOf(r.Who), Action: action, Scope: r.ID.String(), Attributes: map[string][]string{
		rbac.Attribute(source, rbac.AssignedRole):      {a.Role},
		rbac.Attribute(source, rbac.AssignedPrincipal): {a.PrincipalID},
		rbac.Attribute(source, rbac.AssignedType):      {a.PrincipalType},
	}})
}

// scopeThere demands that the scope, or the resource that it is a part of, exists
// and still does when the assignment is written. The front door has judged the
// group, and parents of types that it knows.
func (p *Provider) scopeThere(ctx context.Context, scope resource.ID) ([]store.Change, error) {
	for at := scope; !at.IsRoot(); at = at.Parent() {
		if at.IsType(resource.TypeSubscription) || at.IsType(resource.TypeGroup) {
			break
		}
		d, err := arm.GetDocument(ctx, p.store, at)
		if fault.Is(err, fault.NotFound) {
			if at.IsChild() {
				continue // a part without a document of its own, such as a cluster's namespace
			}
			return nil, fault.New(fault.NotFound, "ResourceNotFound", "The resource '%s' was not found: there is nothing to assign a role on.", at)
		}
		if err != nil {
			return nil, err
		}
		return []store.Change{{Key: arm.DocumentKey(at), Revision: d.Revision, Check: true}}, nil
	}
	return nil, nil
}

// uniquePrefix holds, for each principal, role and scope, the assignment of the three.
const uniquePrefix = "authorization-marks/unique/"

// unique is the change that keeps two assignments of the same from being made side by side.
func (p *Provider) unique(ctx context.Context, a *rbac.Assignment) (store.Change, error) {
	for _, held := range p.table.Of(a.PrincipalID) {
		if held.Role == a.Role && strings.EqualFold(held.Scope, a.Scope) {
			return store.Change{}, alreadyAssigned(held.ID)
		}
	}
	key := uniquePrefix + uuid.NewSHA1(uuid.Nil, []byte(strings.ToLower(a.PrincipalID+" "+a.Role+" "+a.Scope))).String()
	change := store.Change{Key: key, Value: []byte(a.ID), Revision: store.Absent}
	record, err := p.store.Get(ctx, key)
	if fault.Is(err, fault.NotFound) {
		return change, nil
	}
	if err != nil {
		return change, err
	}
	change.Revision = record.Revision
	id, err := resource.ParseID(string(record.Value))
	if err != nil {
		return change, nil //nolint:nilerr // a mark that can't be read holds nothing up
	}
	if _, err := arm.GetDocument(ctx, p.store, id); err == nil {
		return change, alreadyAssigned(id.String())
	} else if !fault.Is(err, fault.NotFound) {
		return change, err
	}
	return change, nil
}

func alreadyAssigned(id string) error {
	return fault.New(fault.Conflict, "RoleAssignmentExists", "The role assignment already exists. Its id is '%s'.", id)
}

func (p *Provider) deleteAssignment(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	a, err := readAssignment(r.Old)
	if err != nil {
		return nil, err
	}
	if r.Cascade {
		return &arm.Plan{}, nil // its scope goes, and with it all on it
	}
	if err := p.mayTouch(ctx, r, a, actionRevoke, rbac.OfResource); err != nil {
		return nil, err
	}
	changes, err := p.keepOwner(ctx, r, a)
	return &arm.Plan{Changes: changes}, err
}

// ownersMark changes with each Owner of a subscription that is taken away, so
// that of two who take the last two one has to look again.
const ownersMark = "authorization-marks/owners/"

// keepOwner refuses to take away the last Owner of a subscription.
func (p *Provider) keepOwner(ctx context.Context, r *arm.Request, a *rbac.Assignment) ([]store.Change, error) {
	scope := r.ID.Parent()
	if !scope.IsType(resource.TypeSubscription) || a.Role != rbac.OwnerRole || !owns(a) {
		return nil, nil
	}
	change := store.Change{Key: ownersMark + strings.ToLower(scope.Subscription()), Value: []byte(r.ID.String()), Revision: store.Absent}
	switch record, err := p.store.Get(ctx, change.Key); {
	case err == nil:
		change.Revision = record.Revision
	case !fault.Is(err, fault.NotFound):
		return nil, err
	}
	records, _, err := p.store.List(ctx, strings.TrimSuffix(arm.DocumentKey(scope.Resource(Namespace, "roleAssignments", "-")), "-"))
	if err != nil {
		return nil, err
	}
	for _, record := range records {
		d, err := arm.DecodeDocument(record)
		if err != nil {
			return nil, err
		}
		other, err := readAssignment(d)
		if err != nil || d.ID.Equal(r.ID) || other.Role != rbac.OwnerRole || !owns(other) {
			continue
		}
		if _, err := p.config.Directory.Principal(ctx, other.PrincipalID); err == nil {
			return []store.Change{change}, nil
		}
	}
	return nil, fault.New(fault.Conflict, "LastOwnerRoleAssignmentCannotBeDeleted",
		"This is the last Owner of the subscription '%s': assign the role to another one first.", scope.Subscription())
}

// owns tells whether an assignment of Owner is without end and condition.
func owns(a *rbac.Assignment) bool { return a.Expires.IsZero() && a.Condition == "" }

func viewAssignment(_ context.Context, d *arm.Document, _ resource.APIVersion) (any, error) {
	a, err := readAssignment(d)
	if err != nil {
		return nil, err
	}
	return showAssignment(a), nil
}

// showAssignment is an assignment on the wire.
func showAssignment(a *rbac.Assignment) map[string]any {
	scope, _ := resource.ParseID(a.Scope)
	text := func(s string) any {
		if s == "" {
			return nil
		}
		return s
	}
	return map[string]any{"id": a.ID, "name": a.ID[strings.LastIndexByte(a.ID, '/')+1:], "type": TypeAssignment, "properties": map[string]any{
		"roleDefinitionId": roleID(scope, a.Role), "principalId": a.PrincipalID, "principalType": a.PrincipalType, "scope": a.Scope,
		"condition": text(a.Condition), "conditionVersion": text(a.ConditionVersion), "description": text(a.Description),
		"createdOn": a.Created, "updatedOn": a.Updated, "createdBy": a.CreatedBy, "updatedBy": a.UpdatedBy,
		"delegatedManagedIdentityResourceId": nil}}
}

// auditAssignment is what the activity log keeps of an assignment before and after a write.
func auditAssignment(d *arm.Document) any {
	a, err := readAssignment(d)
	if err != nil {
		return nil
	}
	return showAssignment(a)["properties"]
}

// decodeBody reads a body's known part; that the types fit the front door has judged by the model.
func decodeBody(body map[string]any, into any) error {
	raw, err := json.Marshal(body)
	if err == nil {
		err = json.Unmarshal(raw, into)
	}
	if err != nil {
		return fault.New(fault.Invalid, "InvalidRequestContent", "The request content isn't of the expected form.").Because(err)
	}
	return nil
}
