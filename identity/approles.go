// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"slices"
	"strings"

	"github.com/google/uuid"

	"bastide.dev/fault"
	"bastide.dev/store"
)

// DefaultAppRole stands for access without any role.
const DefaultAppRole = "00000000-0000-0000-0000-000000000000"

// AppRolesOf lists the values of a resource's app roles that a principal has,
// itself or through a group; resource is an app id. It is the claim roles.
func (d *Directory) AppRolesOf(ctx context.Context, principalID, resource string) ([]string, error) {
	sp, err := d.ServicePrincipal(ctx, resource)
	if err != nil {
		return nil, ignoreMissing(err)
	}
	app, err := d.Application(ctx, sp.AppID)
	if err != nil {
		return nil, ignoreMissing(err)
	}
	found := []string{}
	for _, a := range d.appRolesHeld(principalID) {
		if a.ResourceID != sp.ID {
			continue
		}
		i := slices.IndexFunc(app.AppRoles, func(r AppRole) bool { return r.ID == a.AppRoleID })
		if i >= 0 && app.AppRoles[i].Enabled && app.AppRoles[i].Value != "" {
			found = append(found, app.AppRoles[i].Value)
		}
	}
	slices.Sort(found)
	return slices.Compact(found), nil
}

// MayUse says whether a principal gets tokens for a resource (an app id): all do
// unless the resource demands that one of its roles is assigned.
func (d *Directory) MayUse(ctx context.Context, principalID, resource string) (bool, error) {
	sp, err := d.ServicePrincipal(ctx, resource)
	if err != nil {
		return false, err
	}
	if !sp.AssignmentRequired || sp.ID == principalID {
		return true, nil
	}
	return slices.ContainsFunc(d.appRolesHeld(principalID), func(a *AppRoleAssignment) bool { return a.ResourceID == sp.ID }), nil
}

func (d *Directory) appRolesHeld(principalID string) []*AppRoleAssignment {
	var found []*AppRoleAssignment
	for _, id := range append(d.GroupsOf(principalID), principalID) {
		found = append(found, naming[AppRoleAssignment](d.objects, id, asHolder)...)
	}
	return found
}

// AppRoleAssignments lists what one principal has, or, of a resource's service
// principal, who has what: the object ids; one of the two is "".
func (d *Directory) AppRoleAssignments(ctx context.Context, principalID, resourceID string) ([]AppRoleAssignment, error) {
	if err := d.objects.load(ctx); err != nil {
		return nil, err
	}
	id, as := principalID, asHolder
	if principalID == "" {
		id, as = resourceID, asResource
	}
	return values(naming[AppRoleAssignment](d.objects, id, as), func(a AppRoleAssignment) string { return a.ID }), nil
}

// AssignAppRole gives a principal an app role of a resource (the object id of its service principal).
func (d *Directory) AssignAppRole(ctx context.Context, principalID, resourceID, appRoleID string) (AppRoleAssignment, error) {
	principalID, resourceID, appRoleID = strings.ToLower(principalID), strings.ToLower(resourceID), strings.ToLower(appRoleID)
	resource, err := d.ServicePrincipal(ctx, resourceID)
	if err != nil || resource.ID != resourceID {
		return AppRoleAssignment{}, cmpError(ignoreMissing(err), badValue("resourceId", "The resource '%s' is not a service principal of this directory.", printable(resourceID)))
	}
	holder, err := d.Object(ctx, principalID)
	if err != nil {
		return AppRoleAssignment{}, cmpError(ignoreMissing(err), badValue("principalId", "The principal '%s' is not in this directory.", printable(principalID)))
	}
	member := "User"
	switch holder.(type) {
	case *ServicePrincipal:
		member = "Application"
	case *Application:
		return AppRoleAssignment{}, badValue("principalId", "The principal '%s' is an application: name its service principal.", principalID)
	}
	if err := d.assignable(ctx, resource, appRoleID, member); err != nil {
		return AppRoleAssignment{}, err
	}
	a := AppRoleAssignment{PrincipalID: principalID, ResourceID: resourceID, AppRoleID: appRoleID, Created: d.stamp()}
	a.ID = uuid.NewSHA1(uuid.NameSpaceOID, []byte(principalID+" "+resourceID+" "+appRoleID)).String()
	err = d.commit(ctx, activity{Name: "Add app role assignment to " + strings.ToLower(member), Category: CategoryApplication, About: []string{resourceID, principalID}},
		change{key: appRoles + a.ID, after: a, revision: store.Absent})
	if fault.Is(err, fault.Precondition) {
		return a, badValue("appRoleId", "Permission being assigned already exists on the object.")
	}
	return a, err
}

func (d *Directory) assignable(ctx context.Context, resource ServicePrincipal, appRoleID, member string) error {
	app, err := d.Application(ctx, resource.AppID)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return err
	}
	if appRoleID == DefaultAppRole {
		return nil
	}
	i := slices.IndexFunc(app.AppRoles, func(r AppRole) bool { return r.ID == appRoleID })
	if i < 0 || !app.AppRoles[i].Enabled || !slices.Contains(app.AppRoles[i].Members, member) {
		return badValue("appRoleId", "Permission being assigned was not found on application '%s'.", resource.AppID)
	}
	return nil
}

// UnassignAppRole takes an app role away.
func (d *Directory) UnassignAppRole(ctx context.Context, id string) error {
	return d.retry(ctx, func() (activity, []change, error) {
		a, revision, err := get[AppRoleAssignment](ctx, d.objects, appRoles+strings.ToLower(id))
		if err != nil {
			return activity{}, nil, err
		}
		return activity{Name: "Remove app role assignment", Category: CategoryApplication, About: []string{a.ResourceID, a.PrincipalID}},
			[]change{{key: appRoles + a.ID, before: *a, revision: revision}}, nil
	})
}

// AppRoleAssignment finds one by its id.
func (d *Directory) AppRoleAssignment(ctx context.Context, id string) (AppRoleAssignment, error) {
	return one[AppRoleAssignment](ctx, d, appRoles, id)
}
