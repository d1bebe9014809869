// SPDX-License-Identifier: Apache-2.0

package authorization

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"bastide.dev/arm"
	"bastide.dev/rbac"
	"bastide.dev/resource"
)

// assignmentBody is the stored form of a role assignment.
type assignmentBody struct {
	Properties assignmentProperties `json:"properties"`
}

type assignmentProperties struct {
	RoleDefinitionID string `json:"roleDefinitionId"`
	PrincipalID      string `json:"principalId"`
	PrincipalType    string `json:"principalType"`
	Condition        string `json:"condition,omitempty"`
	ConditionVersion string `json:"conditionVersion,omitempty"`
	Description      string `json:"description,omitempty"`
}

// assignmentState is what only the service knows of it.
type assignmentState struct {
	CreatedBy string    `json:"createdBy,omitempty"` // object ids
	UpdatedBy string    `json:"updatedBy,omitempty"`
	Expires   time.Time `json:"expires,omitzero"`
	Service   string    `json:"service,omitempty"`
}

// AssignmentID is the id of the role assignment called name on a scope; "/" is the root.
func AssignmentID(scope, name string) (resource.ID, error) {
	at, err := resource.ParseID(scope)
	if err != nil {
		return resource.ID{}, err
	}
	return at.Resource(Namespace, "roleAssignments", name), nil
}

// NewAssignment makes the document of an assignment whose ID and scope are set
// (see AssignmentID); whoever writes it in a transaction of his own grants it.
func NewAssignment(a *rbac.Assignment) (*arm.Document, error) {
	id, err := resource.ParseID(a.ID)
	if err != nil {
		return nil, err
	}
	if !id.IsType(TypeAssignment) || uuid.Validate(id.Name()) != nil {
		return nil, fmt.Errorf("authorization: %s isn't the id of a role assignment", id)
	}
	d := &arm.Document{}
	d.ID, d.Name, d.Type = id, id.Name(), TypeAssignment
	d.ProvisioningState, d.Etag, d.Generation = resource.Succeeded, uuid.NewString(), 1
	d.SystemData = resource.SystemData{CreatedBy: "Bastide", CreatedByType: "Application", CreatedAt: a.Created,
		LastModifiedBy: "Bastide", LastModifiedByType: "Application", LastModifiedAt: a.Created}
	return d, writeAssignment(d, a)
}

// writeAssignment puts an assignment into its document.
func writeAssignment(d *arm.Document, a *rbac.Assignment) error {
	body, err := json.Marshal(assignmentBody{assignmentProperties{RoleDefinitionID: roleID(d.ID.Parent(), a.Role),
		PrincipalID: strings.ToLower(a.PrincipalID), PrincipalType: a.PrincipalType, Condition: a.Condition,
		ConditionVersion: a.ConditionVersion, Description: a.Description}})
	if err != nil {
		return fmt.Errorf("authorization: %s: %w", d.ID, err)
	}
	state, err := json.Marshal(assignmentState{CreatedBy: a.CreatedBy, UpdatedBy: a.UpdatedBy, Expires: a.Expires, Service: a.Service})
	if err != nil {
		return fmt.Errorf("authorization: %s: %w", d.ID, err)
	}
	d.Body, d.State = body, state
	return nil
}

// readAssignment is the assignment of a document.
func readAssignment(d *arm.Document) (*rbac.Assignment, error) {
	var body assignmentBody
	if err := json.Unmarshal(d.Body, &body); err != nil {
		return nil, fmt.Errorf("authorization: %s: %w", d.ID, err)
	}
	var state assignmentState
	if len(d.State) > 0 {
		if err := json.Unmarshal(d.State, &state); err != nil {
			return nil, fmt.Errorf("authorization: state of %s: %w", d.ID, err)
		}
	}
	p := body.Properties
	return &rbac.Assignment{ID: d.ID.String(), Scope: d.ID.Parent().String(), PrincipalID: p.PrincipalID, PrincipalType: p.PrincipalType,
		Role: lastSegment(p.RoleDefinitionID), Condition: p.Condition, ConditionVersion: p.ConditionVersion, Description: p.Description,
		Expires: state.Expires, Service: state.Service, Created: d.SystemData.CreatedAt, CreatedBy: state.CreatedBy,
		Updated: d.SystemData.LastModifiedAt, UpdatedBy: state.UpdatedBy}, nil
}

// roleID is a definition's id as it is seen from a scope.
func roleID(scope resource.ID, role string) string {
	return scope.SubscriptionID().Resource(Namespace, "roleDefinitions", role).String()
}

// definitionBody is the stored form of a custom role definition.
type definitionBody struct {
	Properties definitionProperties `json:"properties"`
}

type definitionProperties struct {
	RoleName         string       `json:"roleName"`
	Type             string       `json:"type"`
	Description      string       `json:"description"`
	AssignableScopes []string     `json:"assignableScopes"`
	Permissions      []permission `json:"permissions"`
	CreatedOn        *time.Time   `json:"createdOn,omitempty"`
	UpdatedOn        *time.Time   `json:"updatedOn,omitempty"`
}

// permission is rbac.Permission on the wire.
type permission struct {
	Actions        []string `json:"actions"`
	NotActions     []string `json:"notActions"`
	DataActions    []string `json:"dataActions"`
	NotDataActions []string `json:"notDataActions"`
}

func showPermissions(all []rbac.Permission) []permission {
	list := func(texts []string) []string { return append([]string{}, texts...) }
	shown := make([]permission, len(all))
	for i, p := range all {
		shown[i] = permission{list(p.Actions), list(p.NotActions), list(p.DataActions), list(p.NotDataActions)}
	}
	return shown
}

func readDefinition(d *arm.Document) (*rbac.Definition, error) {
	var body definitionBody
	if err := json.Unmarshal(d.Body, &body); err != nil {
		return nil, fmt.Errorf("authorization: %s: %w", d.ID, err)
	}
	p := body.Properties
	made := &rbac.Definition{ID: strings.ToLower(d.ID.Name()), Name: p.RoleName, Description: p.Description, Custom: true, AssignableScopes: p.AssignableScopes}
	for _, one := range p.Permissions {
		made.Permissions = append(made.Permissions, rbac.Permission(one))
	}
	return made, nil
}
