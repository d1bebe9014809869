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

// OwnerRole is the GUID of Azure's built-in role Owner, the only one evaluated today.
const OwnerRole = "8e3af657-a8ff-443c-a75c-2fe8c4b6b635"

// Assign gives a principal a role on a scope; a second time changes nothing.
func (d *Directory) Assign(ctx context.Context, principalID, role, scope string) error {
	if role != OwnerRole {
		return fault.New(fault.Unsupported, "RoleDefinitionDoesNotExist", "The role definition '%s' is not known: only Owner (%s) is.", printable(role), OwnerRole)
	}
	for _, a := range d.assignmentsOf(principalID) {
		if a.Role == role && strings.EqualFold(a.Scope, scope) {
			return nil
		}
	}
	a := Assignment{ID: uuid.NewString(), PrincipalID: principalID, Role: role, Scope: scope, Created: d.stamp()}
	return d.objects.put(ctx, assignments+a.ID, a, store.Absent)
}

// Owners lists the object ids that have Owner on a scope or above it.
func (d *Directory) Owners(ctx context.Context, scope string) ([]string, error) {
	if err := d.objects.load(ctx); err != nil {
		return nil, err
	}
	var found []string
	for _, a := range all[Assignment](d.objects, assignments) {
		if a.Role == OwnerRole && within(scope, a.Scope) && !slices.Contains(found, a.PrincipalID) {
			found = append(found, a.PrincipalID)
		}
	}
	slices.Sort(found)
	return found, nil
}

// Authorize is nil when the principal may do action on scope, and else a
// Forbidden fault with ARM's own code and wording. What no assignment grants is denied.
func (d *Directory) Authorize(ctx context.Context, p Principal, action, scope string) error {
	if err := d.objects.load(ctx); err != nil {
		return err
	}
	for _, id := range append([]string{p.ID}, d.GroupsOf(p.ID)...) {
		for _, a := range d.assignmentsOf(id) {
			if a.Role == OwnerRole && within(scope, a.Scope) {
				return nil
			}
		}
	}
	return fault.New(fault.Forbidden, "AuthorizationFailed",
		"The client '%s' with object id '%s' does not have authorization to perform action '%s' over scope '%s' or the scope is invalid. If access was recently granted, please refresh your credentials.",
		p.Name, p.ID, printable(action), scope)
}

func (d *Directory) assignmentsOf(id string) []*Assignment {
	d.objects.mu.RLock()
	defer d.objects.mu.RUnlock()
	found := make([]*Assignment, 0, len(d.objects.roles[id]))
	for _, a := range d.objects.roles[id] {
		found = append(found, a)
	}
	return found
}

// within tells whether scope is above or something below it: whole segments, any case.
func within(scope, above string) bool {
	scope, above = strings.ToLower(strings.TrimRight(scope, "/")), strings.ToLower(strings.TrimRight(above, "/"))
	return scope == above || strings.HasPrefix(scope, above+"/")
}
