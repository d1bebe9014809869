// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"bastide.dev/fault"
	"bastide.dev/store"
)

// Template ids of the directory's roles, Microsoft Entra's own.
const (
	GlobalAdministrator      = "62e90394-69f5-4237-9190-012177145e10"
	UserAdministrator        = "fe930be7-5e62-47db-91af-98c3a49a38b1"
	GroupsAdministrator      = "fdd7a751-b60b-444a-984c-02652fe8fa1c"
	ApplicationAdministrator = "9b895d92-2cd3-44c7-9d02-a6ac2d5ea5c3"
	CloudApplicationAdmin    = "158c047a-c907-4556-b7ef-446551a6b5f7"
	PrivilegedRoleAdmin      = "e8611ab8-c189-46e8-94e1-60213ab1f814"
	ConditionalAccessAdmin   = "b1be1c3e-b65d-4f19-8427-f6fa0d97feb9"
	SecurityAdministrator    = "194ae4cb-b126-40b2-bd5b-6091b380977d"
	SecurityReader           = "5d6b6bb7-de71-4623-b4af-96380a352509"
	GlobalReader             = "f2ef992c-3afb-46b9-b7cf-a126ee74c451"
	DirectoryReaders         = "88d8e3e3-8f55-4a1e-953a-9b9898b8876b"
)

// DirectoryRole is one of the directory's own roles, which are fixed.
type DirectoryRole struct {
	ID          string // its template's
	Name        string
	Description string
	Privileged  bool // its holders' credentials are theirs and the highest administrators'
}

// DirectoryRoles lists them all.
func DirectoryRoles() []DirectoryRole {
	return []DirectoryRole{
		{GlobalAdministrator, "Global Administrator", "Manages everything in the directory.", true},
		{UserAdministrator, "User Administrator", "Manages users and groups, and resets passwords of users without a role.", true},
		{GroupsAdministrator, "Groups Administrator", "Manages groups.", false},
		{ApplicationAdministrator, "Application Administrator", "Manages applications and service principals.", true},
		{CloudApplicationAdmin, "Cloud Application Administrator", "Manages applications and service principals.", true},
		{PrivilegedRoleAdmin, "Privileged Role Administrator", "Manages the assignment of the directory's roles.", true},
		{ConditionalAccessAdmin, "Conditional Access Administrator", "Manages conditional access.", true},
		{SecurityAdministrator, "Security Administrator", "Manages conditional access and reads the logs.", true},
		{SecurityReader, "Security Reader", "Reads conditional access and the logs.", true},
		{GlobalReader, "Global Reader", "Reads everything in the directory.", true},
		{DirectoryReaders, "Directory Readers", "Reads users, groups and applications.", false},
	}
}

// RolesOf lists the template ids of the directory roles that a principal has,
// itself or through a role-assignable group. It is the claim wids.
func (d *Directory) RolesOf(principalID string) []string {
	found := []string{}
	held := naming[RoleAssignment](d.objects, principalID, asHolder)
	for _, g := range naming[Group](d.objects, principalID, asMember) {
		if g.RoleAssignable { // groups in groups give no role
			held = append(held, naming[RoleAssignment](d.objects, g.ID, asHolder)...)
		}
	}
	for _, a := range held {
		found = append(found, a.Role)
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// HoldersOf lists the object ids that a directory role is assigned to itself.
func (d *Directory) HoldersOf(ctx context.Context, role string) ([]string, error) {
	all, err := d.RoleAssignments(ctx)
	found := []string{}
	for _, a := range all {
		if strings.EqualFold(a.Role, role) {
			found = append(found, a.PrincipalID)
		}
	}
	return found, err
}

// RoleAssignments lists all assignments of directory roles.
func (d *Directory) RoleAssignments(ctx context.Context) ([]RoleAssignment, error) {
	return sorted(ctx, d, roleHolders, func(a RoleAssignment) string { return a.ID })
}

// RoleAssignment finds an assignment by its id.
func (d *Directory) RoleAssignment(ctx context.Context, id string) (RoleAssignment, error) {
	return one[RoleAssignment](ctx, d, roleHolders, id)
}

// AssignRole gives a user, a service principal or a role-assignable group a directory role.
func (d *Directory) AssignRole(ctx context.Context, principalID, role string) (RoleAssignment, error) {
	principalID, role = strings.ToLower(principalID), strings.ToLower(role)
	known := func(r DirectoryRole) bool { return r.ID == role }
	if !slices.ContainsFunc(DirectoryRoles(), known) {
		return RoleAssignment{}, badValue("roleDefinitionId", "The directory role '%s' is not one of those that are there.", printable(role))
	}
	holder, err := d.Object(ctx, principalID)
	if err != nil {
		return RoleAssignment{}, err
	}
	switch h := holder.(type) {
	case *Group:
		if !h.RoleAssignable {
			return RoleAssignment{}, badValue("principalId", "The group '%s' is not assignable to a role: isAssignableToRole is false.", h.ID)
		}
	case *Application:
		return RoleAssignment{}, badValue("principalId", "The principal '%s' is an application: name its service principal.", h.ID)
	}
	a := roleOf(principalID, role, d.stamp())
	err = d.commit(ctx, activity{Name: "Add member to role", Category: CategoryRole, About: []string{principalID}},
		change{key: roleHolders + a.ID, after: a, revision: store.Absent})
	if fault.Is(err, fault.Precondition) {
		return a, fault.New(fault.Conflict, "Request_BadRequest", "A conflicting object with one or more of the specified property values is present in the directory.").At("principalId")
	}
	return a, err
}

// UnassignRole takes a directory role away; not the last Global Administrator's.
func (d *Directory) UnassignRole(ctx context.Context, id string) error {
	return d.retry(ctx, func() (activity, []change, error) {
		a, revision, err := get[RoleAssignment](ctx, d.objects, roleHolders+strings.ToLower(id))
		if err != nil {
			return activity{}, nil, err
		}
		checks, err := d.keepsAdministrator(ctx, a.ID)
		if err != nil {
			return activity{}, nil, err
		}
		return activity{Name: "Remove member from role", Category: CategoryRole, About: []string{a.PrincipalID}},
			append(checks, change{key: roleHolders + a.ID, before: *a, revision: revision}), nil
	})
}

// keepsAdministrator refuses the loss of the last Global Administrator: without
// these assignments there must be one more. The change it returns checks that the
// one which stays still does when the transaction is written.
func (d *Directory) keepsAdministrator(ctx context.Context, without ...string) ([]change, error) {
	all, err := d.RoleAssignments(ctx)
	if err != nil {
		return nil, err
	}
	concerned := false
	var stays []change
	for _, a := range all {
		switch {
		case a.Role != GlobalAdministrator:
		case slices.Contains(without, a.ID):
			concerned = true
		case len(stays) == 0:
			_, revision, err := get[RoleAssignment](ctx, d.objects, roleHolders+a.ID)
			if err != nil {
				return nil, err
			}
			stays = []change{{key: roleHolders + a.ID, revision: revision, check: true}}
		}
	}
	if !concerned {
		return nil, nil
	}
	if len(stays) == 0 {
		return nil, fault.New(fault.Forbidden, "Authorization_RequestDenied", "The last Global Administrator of the directory can't be removed.")
	}
	return stays, nil
}

func roleOf(principalID, role string, now time.Time) RoleAssignment {
	id := uuid.NewSHA1(uuid.NameSpaceOID, []byte(principalID+" "+role)).String()
	return RoleAssignment{ID: id, PrincipalID: principalID, Role: role, Created: now}
}
