// SPDX-License-Identifier: Apache-2.0

package authorization

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/google/uuid"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/rbac"
	"bastide.dev/resource"
)

// The bounds of a custom role.
const (
	maxRoleName        = 512
	maxRoleDescription = 2048
	maxRoleScopes      = 2000
	maxRoleActions     = 2048
	maxCustomRoles     = 5000
)

func (p *Provider) definitionType() arm.Type {
	return arm.Type{
		Name: "roleDefinitions", Scope: arm.OnAny, Versions: versions(), Untracked: true, PutStatus: 201,
		Model:    func() any { return &definitionModel{} },
		ReadOnly: []string{"properties.createdOn", "properties.createdBy", "properties.updatedOn", "properties.updatedBy"},
		Home: func(id resource.ID) resource.ID {
			return resource.ID{}.Resource(Namespace, "roleDefinitions", strings.ToLower(id.Name()))
		},
		Put: p.putDefinition, Patch: noPatch, Delete: p.deleteDefinition, View: p.viewDefinition, Audit: auditDefinition,
		Get: p.getDefinition, List: p.listDefinitions,
	}
}

// definitionModel is the wire form: the SDK's has no assignable conditions either,
// but other names than what clients send.
type definitionModel struct {
	ID         *string `json:"id"`
	Name       *string `json:"name"`
	Type       *string `json:"type"`
	Properties *struct {
		RoleName         *string   `json:"roleName"`
		Type             *string   `json:"type"`
		RoleType         *string   `json:"roleType"`
		Description      *string   `json:"description"`
		AssignableScopes []*string `json:"assignableScopes"`
		Permissions      []*struct {
			Actions          []*string `json:"actions"`
			NotActions       []*string `json:"notActions"`
			DataActions      []*string `json:"dataActions"`
			NotDataActions   []*string `json:"notDataActions"`
			Condition        *string   `json:"condition"`
			ConditionVersion *string   `json:"conditionVersion"`
		} `json:"permissions"`
	} `json:"properties"`
}

func (p *Provider) putDefinition(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	if err := p.feed.load(ctx); err != nil {
		return nil, err
	}
	if d := p.table.Definition(r.ID.Name()); d != nil && !d.Custom {
		return nil, readOnlyRole(d)
	}
	properties, err := p.definitionOf(r)
	if err != nil {
		return nil, err
	}
	if err := p.mayEverywhere(ctx, r, TypeDefinition+"/write", properties.AssignableScopes); err != nil {
		return nil, err
	}
	d := &arm.Document{}
	if r.Old != nil {
		old, err := readDefinition(r.Old)
		if err != nil {
			return nil, err
		}
		// Who writes a role must have a say wherever it is already.
		if err := p.mayEverywhere(ctx, r, TypeDefinition+"/write", old.AssignableScopes); err != nil {
			return nil, err
		}
		*d = *r.Old
	}
	d.ID, d.Name, d.Type = r.ID, r.ID.Name(), TypeDefinition
	if d.Body, err = json.Marshal(definitionBody{*properties}); err != nil {
		return nil, fmt.Errorf("authorization: %s: %w", d.ID, err)
	}
	return &arm.Plan{Document: d}, nil
}

func readOnlyRole(d *rbac.Definition) error {
	return fault.New(fault.Forbidden, "RoleDefinitionIsBuiltIn", "The role definition '%s' (%s) is built in: it can't be changed or deleted.", d.Name, d.ID)
}

// definitionOf judges a body, and reports all that is wrong with it.
func (p *Provider) definitionOf(r *arm.Request) (*definitionProperties, error) {
	var body definitionBody
	if err := decodeBody(r.Body, &body); err != nil {
		return nil, err
	}
	asked := &body.Properties
	var problems []*fault.Error
	bad := func(code, target, format string, args ...any) {
		problems = append(problems, fault.New(fault.Invalid, code, format, args...).At(target))
	}
	if uuid.Validate(r.ID.Name()) != nil || len(r.ID.Name()) != 36 {
		bad("RoleDefinitionIdNotGuid", "name", "The role definition's id '%s' isn't valid: it must be a GUID.", printable(r.ID.Name()))
	}
	if asked.Type != "" && !strings.EqualFold(asked.Type, "CustomRole") {
		bad("InvalidRoleDefinitionType", "properties.type", "The type of a role definition that is written must be 'CustomRole'.")
	}
	if asked.RoleName == "" || len(asked.RoleName) > maxRoleName {
		bad("InvalidRoleDefinitionName", "properties.roleName", "The role's name must have 1 to %d bytes.", maxRoleName)
	}
	if len(asked.Description) > maxRoleDescription {
		bad("InvalidRoleDefinitionDescription", "properties.description", "The description is longer than %d bytes.", maxRoleDescription)
	}
	custom := 0
	for _, d := range p.table.Definitions() {
		if d.Custom {
			custom++
		}
		if strings.EqualFold(d.Name, asked.RoleName) && !strings.EqualFold(d.ID, r.ID.Name()) {
			problems = append(problems, fault.New(fault.Conflict, "RoleDefinitionWithSameNameExists", "A role definition with the name '%s' exists already.", printable(asked.RoleName)).At("properties.roleName"))
		}
	}
	if custom >= maxCustomRoles && r.Old == nil {
		bad("RoleDefinitionLimitExceeded", "", "There are %d custom roles: no more are possible.", custom)
	}
	problems = append(append(problems, judgePermissions(asked.Permissions, r.Body)...), p.judgeScopes(asked)...)
	asked.Type, asked.CreatedOn, asked.UpdatedOn = "CustomRole", nil, nil
	return asked, fault.Join(problems...)
}

// actionForm is what an action or a pattern of actions can be.
var actionForm = regexp.MustCompile(`^(\*|[A-Za-z0-9.*-]+(/[A-Za-z0-9_.*$-]+)*)$`)

func judgePermissions(all []permission, body map[string]any) []*fault.Error {
	var problems []*fault.Error
	if len(all) == 0 {
		problems = append(problems, fault.New(fault.Invalid, "MissingPermissions", "The role definition needs permissions.").At("properties.permissions"))
	}
	if properties, ok := body["properties"].(map[string]any); ok {
		list, _ := properties["permissions"].([]any)
		for i, one := range list {
			if object, _ := one.(map[string]any); object["condition"] != nil && object["condition"] != "" {
				problems = append(problems, fault.New(fault.Unsupported, "PropertyNotSupported",
					"properties.permissions[%d].condition can't be set here: a condition stands in the role assignment.", i).At(fmt.Sprintf("properties.permissions[%d].condition", i)))
			}
		}
	}
	for i, one := range all {
		for name, actions := range map[string][]string{"actions": one.Actions, "notActions": one.NotActions, "dataActions": one.DataActions, "notDataActions": one.NotDataActions} {
			at := fmt.Sprintf("properties.permissions[%d].%s", i, name)
			if len(actions) > maxRoleActions {
				problems = append(problems, fault.New(fault.Invalid, "InvalidActionOrNotAction", "There are more than %d %s.", maxRoleActions, name).At(at))
				continue
			}
			for _, action := range actions {
				if len(action) > 256 || strings.Count(action, "*") > 8 || !actionForm.MatchString(action) {
					problems = append(problems, fault.New(fault.Invalid, "InvalidActionOrNotAction", "'%s' isn't an action or a pattern of actions.", printable(action)).At(at))
				}
			}
		}
	}
	return problems
}

func (p *Provider) judgeScopes(asked *definitionProperties) []*fault.Error {
	const target = "properties.assignableScopes"
	var problems []*fault.Error
	bad := func(code, format string, args ...any) {
		problems = append(problems, fault.New(fault.Invalid, code, format, args...).At(target))
	}
	if len(asked.AssignableScopes) == 0 || len(asked.AssignableScopes) > maxRoleScopes {
		bad("InvalidAssignableScopes", "A role definition needs 1 to %d assignable scopes.", maxRoleScopes)
	}
	data := slices.ContainsFunc(asked.Permissions, func(one permission) bool { return len(one.DataActions) > 0 })
	for _, scope := range asked.AssignableScopes {
		id, err := resource.ParseID(scope)
		switch {
		case err != nil || id.IsRoot():
			bad("InvalidAssignableScope", "'%s' can't be an assignable scope: it must be a management group, a subscription or a resource group.", printable(scope))
		case id.Subscription() != "" && !strings.EqualFold(id.Subscription(), p.config.Subscription):
			bad("SubscriptionNotFound", "The subscription '%s' could not be found.", printable(id.Subscription()))
		case id.IsType(TypeManagementGroup) && data:
			bad("InvalidAssignableScope", "A role with dataActions can't be assignable on the management group '%s'.", id.Name())
		}
	}
	return problems
}

// mayEverywhere demands an action on each of the scopes.
func (p *Provider) mayEverywhere(ctx context.Context, r *arm.Request, action string, scopes []string) error {
	for _, scope := range scopes {
		err := p.authorize(ctx, r.Who.Name, rbac.Request{Subject: subjectOf(r.Who), Action: action, Scope: scope})
		if fault.Is(err, fault.Forbidden) {
			return fault.New(fault.Forbidden, "LinkedAuthorizationFailed",
				"The client '%s' with object id '%s' has permission to perform action '%s' on scope '%s'; however, it does not have permission to perform action '%s' on the linked scope '%s'.",
				r.Who.Name, r.Who.ID, action, r.ID, action, printable(scope))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *Provider) deleteDefinition(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	if err := p.feed.load(ctx); err != nil {
		return nil, err
	}
	old, err := readDefinition(r.Old)
	if err != nil {
		return nil, err
	}
	if err := p.mayEverywhere(ctx, r, TypeDefinition+"/delete", old.AssignableScopes); err != nil {
		return nil, err
	}
	used := p.table.Assignments(func(a *rbac.Assignment) bool { return a.Role == old.ID })
	if len(used) > 0 {
		return nil, fault.New(fault.Conflict, "RoleDefinitionHasAssignments", "There are %d role assignments of the role '%s'; '%s' is one of them.", len(used), old.Name, used[0].ID)
	}
	return &arm.Plan{}, nil
}

func (p *Provider) viewDefinition(ctx context.Context, d *arm.Document, _ resource.APIVersion) (any, error) {
	definition, err := readDefinition(d)
	if err != nil {
		return nil, err
	}
	return showDefinition(definition, resource.SubscriptionID(p.config.Subscription)), nil
}

// showDefinition is a definition on the wire, as it is seen from a scope.
func showDefinition(d *rbac.Definition, scope resource.ID) map[string]any {
	kind := "BuiltInRole"
	if d.Custom {
		kind = "CustomRole"
	}
	return map[string]any{"id": roleID(scope, d.ID), "name": d.ID, "type": TypeDefinition, "properties": definitionProperties{
		RoleName: d.Name, Type: kind, Description: d.Description, AssignableScopes: d.AssignableScopes, Permissions: showPermissions(d.Permissions)}}
}

func auditDefinition(d *arm.Document) any {
	definition, err := readDefinition(d)
	if err != nil {
		return nil
	}
	return showDefinition(definition, resource.ID{})["properties"]
}

// seen tells whether a definition shows at a scope: built-in ones everywhere,
// custom ones where they can be assigned, above and below.
func (p *Provider) seen(d *rbac.Definition, scope string) bool {
	return !d.Custom || slices.ContainsFunc(d.AssignableScopes, func(s string) bool { return p.table.Covers(scope, s) || p.table.Covers(s, scope) })
}

func (p *Provider) getDefinition(ctx context.Context, r *arm.Request) (any, error) {
	if err := p.feed.load(ctx); err != nil {
		return nil, err
	}
	d := p.table.Definition(r.ID.Name())
	if d == nil || !p.seen(d, r.ID.Parent().String()) || !p.mayRead(r, d) {
		return nil, fault.New(fault.NotFound, codeNoDefinition, "The specified role definition with ID '%s' does not exist.", printable(r.ID.Name()))
	}
	return showDefinition(d, r.ID.Parent()), nil
}

// mayRead: built-in roles are everybody's, custom ones those' who have a role where they can be assigned.
func (p *Provider) mayRead(r *arm.Request, d *rbac.Definition) bool {
	return !d.Custom || slices.ContainsFunc(d.AssignableScopes, func(s string) bool { return p.table.Related(subjectOf(r.Who), s, p.now()) })
}

func (p *Provider) listDefinitions(ctx context.Context, r *arm.Request) (any, error) {
	if err := p.feed.load(ctx); err != nil {
		return nil, err
	}
	q, err := parseQuery(r.Query, "roleName eq 'NAME'", "type eq 'CustomRole'", "atScopeAndBelow()", "atScope()")
	if err != nil {
		return nil, err
	}
	values := []any{}
	for _, d := range p.table.Definitions() {
		kind := map[bool]string{false: "BuiltInRole", true: "CustomRole"}[d.Custom]
		if (q.roleName == "" || strings.EqualFold(q.roleName, d.Name)) && (q.roleType == "" || strings.EqualFold(q.roleType, kind)) &&
			p.seen(d, r.ID.String()) && p.mayRead(r, d) {
			values = append(values, showDefinition(d, r.ID))
		}
	}
	return map[string]any{"value": values}, nil
}
