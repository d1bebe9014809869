// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"slices"
	"strings"

	"github.com/google/uuid"

	"bastide.dev/fault"
	"bastide.dev/identity"
)

// roleID is a directory role's object id, which isn't its template's.
func roleID(tenant, template string) string {
	return uuid.NewSHA1(uuid.NameSpaceOID, []byte(tenant+" role "+template)).String()
}

func roleObject(tenant string, role identity.DirectoryRole) object {
	return object{"@odata.type": "#microsoft.graph.directoryRole", "id": roleID(tenant, role.ID), "displayName": role.Name, "description": role.Description,
		"roleTemplateId": role.ID, "deletedDateTime": nil}
}

func templateObject(role identity.DirectoryRole) object {
	return object{"@odata.type": "#microsoft.graph.directoryRoleTemplate", "id": role.ID, "displayName": role.Name, "description": role.Description, "deletedDateTime": nil}
}

func definitionObject(role identity.DirectoryRole) object {
	return object{"@odata.type": "#microsoft.graph.unifiedRoleDefinition", "id": role.ID, "templateId": role.ID, "displayName": role.Name, "description": role.Description,
		"isBuiltIn": true, "isEnabled": true, "isPrivileged": role.Privileged, "resourceScopes": []string{"/"}, "rolePermissions": []object{}, "version": "1"}
}

func assignmentObject(a identity.RoleAssignment) object {
	return object{"id": a.ID, "principalId": a.PrincipalID, "roleDefinitionId": a.Role, "directoryScopeId": "/", "appScopeId": nil, "resourceScope": "/"}
}

// rolesHeld are the directory roles of an object; through says whether also those through a group.
func (s *Service) rolesHeld(id string, through bool) []item {
	tenant, _ := s.directory.TenantID()
	found := []item{}
	for _, role := range identity.DirectoryRoles() {
		held := slices.Contains(s.directory.RolesOf(id), role.ID)
		if held && !through {
			held = s.directory.HoldsRole(id, role.ID)
		}
		if held {
			found = append(found, roleObject(tenant, role))
		}
	}
	return found
}

// fixedList answers a collection that hangs on the directory's roles.
func (s *Service) roleList(of string, form func(string, identity.DirectoryRole) object) answerer {
	return func(r *request) (any, error) {
		if err := r.mayRead(roleArea); err != nil {
			return nil, err
		}
		var found []item
		for _, role := range identity.DirectoryRoles() {
			found = append(found, form(r.who.TenantID, role))
		}
		return s.collection(r, of, found)
	}
}

// roleOf finds a role by its object id, its template's id, or (roleTemplateId='ID').
func (s *Service) roleOf(r *request) (identity.DirectoryRole, error) {
	if err := r.mayRead(roleArea); err != nil {
		return identity.DirectoryRole{}, err
	}
	id := r.PathValue("id")
	if template := keyed(id, "roleTemplateId"); template != "" {
		id = template
	}
	for _, role := range identity.DirectoryRoles() {
		if strings.EqualFold(role.ID, id) || strings.EqualFold(roleID(r.who.TenantID, role.ID), id) {
			return role, nil
		}
	}
	return identity.DirectoryRole{}, missing(r.PathValue("id"))
}

func (s *Service) roleOne(of string, form func(string, identity.DirectoryRole) object) answerer {
	return func(r *request) (any, error) {
		role, err := s.roleOf(r)
		if err != nil {
			return nil, err
		}
		return s.one(r, form(r.who.TenantID, role), of)
	}
}

// activateRole is refused: every role is active from the beginning.
func (s *Service) activateRole(r *request) (any, error) {
	if err := allow(r.may.highest()); err != nil {
		return nil, err
	}
	return nil, fault.New(fault.Conflict, "Request_BadRequest", "A conflicting object with one or more of the specified property values is present in the directory: every role is active.")
}

func (s *Service) roleMembers(r *request) (any, error) {
	role, err := s.roleOf(r)
	if err != nil {
		return nil, err
	}
	ids, err := s.directory.HoldersOf(r.Context(), role.ID)
	if err != nil {
		return nil, err
	}
	found, err := cast(r, s.find(r, ids))
	if err != nil {
		return nil, err
	}
	return s.collection(r, "directoryObjects", found)
}

func (s *Service) roleMember(r *request) (any, error) {
	role, err := s.roleOf(r)
	if err != nil {
		return nil, err
	}
	id := strings.ToLower(r.PathValue("other"))
	if !s.directory.HoldsRole(id, role.ID) {
		return nil, missing(id)
	}
	return object{"@odata.context": s.context("$ref"), "@odata.id": s.directory.Endpoints().Graph + "/v1.0/directoryObjects/" + id, "id": id}, nil
}

func (s *Service) addRoleMember(r *request) (any, error) {
	if err := allow(r.may.highest()); err != nil {
		return nil, err
	}
	role, err := s.roleOf(r)
	if err != nil {
		return nil, err
	}
	id, err := s.reference(r)
	if err != nil {
		return nil, err
	}
	if _, err = s.directory.AssignRole(r.Context(), id, role.ID); fault.Is(err, fault.Conflict) {
		return nil, badProperty("members", "One or more added object references already exist for the following modified properties: 'members'.")
	}
	return nil, err
}

func (s *Service) removeRoleMember(r *request) (any, error) {
	if err := allow(r.may.highest()); err != nil {
		return nil, err
	}
	role, err := s.roleOf(r)
	if err != nil {
		return nil, err
	}
	all, err := s.directory.RoleAssignments(r.Context())
	if err != nil {
		return nil, err
	}
	for _, a := range all {
		if a.Role == role.ID && strings.EqualFold(a.PrincipalID, r.PathValue("other")) {
			return nil, s.directory.UnassignRole(r.Context(), a.ID)
		}
	}
	return nil, missing(r.PathValue("other"))
}

func (s *Service) roleAssignments(r *request) (any, error) {
	if err := r.mayRead(roleArea); err != nil {
		return nil, err
	}
	all, err := s.directory.RoleAssignments(r.Context())
	if err != nil {
		return nil, err
	}
	var found []item
	for _, a := range all {
		found = append(found, assignmentObject(a))
	}
	return s.collection(r, "roleManagement/directory/roleAssignments", found)
}

func (s *Service) roleAssignment(r *request) (any, error) {
	if err := r.mayRead(roleArea); err != nil {
		return nil, err
	}
	a, err := s.directory.RoleAssignment(r.Context(), r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	return s.one(r, assignmentObject(a), "roleManagement/directory/roleAssignments")
}

func (s *Service) assignRole(r *request) (any, error) {
	if err := allow(r.may.highest()); err != nil {
		return nil, err
	}
	var body struct {
		PrincipalID string `json:"principalId"`
		Role        string `json:"roleDefinitionId"`
		Scope       string `json:"directoryScopeId"`
	}
	if err := readInto(r, &body, "principalId", "roleDefinitionId", "directoryScopeId"); err != nil {
		return nil, err
	}
	if body.Scope != "/" {
		return nil, badProperty("directoryScopeId", "The directoryScopeId '%s' is not implemented: a directory role is held on the whole directory, '/'.", clip(body.Scope))
	}
	a, err := s.directory.AssignRole(r.Context(), body.PrincipalID, body.Role)
	return created{assignmentObject(a)}, err
}

func (s *Service) unassignRole(r *request) (any, error) {
	if err := allow(r.may.highest()); err != nil {
		return nil, err
	}
	return nil, s.directory.UnassignRole(r.Context(), r.PathValue("id"))
}
