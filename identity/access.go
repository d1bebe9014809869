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

// Assign gives a principal a built-in role on a scope and all below it; a second
// time changes nothing. The assignment goes with the principal.
func (d *Directory) Assign(ctx context.Context, principalID, roleID, scope string) error {
	roleID = strings.ToLower(roleID)
	if _, known := builtin(roleID); !known {
		return fault.New(fault.Unsupported, "RoleDefinitionDoesNotExist", "The role definition '%s' is not one of those that are evaluated: Owner, Contributor, Reader, Network Contributor, Managed Identity Operator.", printable(roleID))
	}
	if err := d.objects.load(ctx); err != nil {
		return err
	}
	for _, a := range d.assignmentsOf(principalID) {
		if a.Role == roleID && strings.EqualFold(a.Scope, scope) {
			return nil
		}
	}
	// The same assignment has the same id, so that of two writers one wins.
	id := uuid.NewSHA1(uuid.Nil, []byte(strings.ToLower(principalID+" "+roleID+" "+scope)))
	a := Assignment{ID: id.String(), PrincipalID: principalID, Role: roleID, Scope: scope, Created: d.stamp()}
	if err := d.objects.put(ctx, assignments+a.ID, a, store.Absent); !fault.Is(err, fault.Precondition) {
		return err
	}
	return nil
}

// Unassign takes all roles from a principal.
func (d *Directory) Unassign(ctx context.Context, principalID string) error {
	if err := d.objects.load(ctx); err != nil {
		return err
	}
	for _, a := range d.assignmentsOf(principalID) {
		if err := d.objects.delete(ctx, assignments+a.ID); err != nil {
			return err
		}
	}
	return nil
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
			if r, known := builtin(a.Role); known && within(scope, a.Scope) && r.grants(action) || implied(action) && within(a.Scope, scope) {
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
