// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"context"
	"slices"

	"bastide.dev/fault"
	"bastide.dev/identity"
)

// authority is what a caller may do, read from the directory at each request:
// what a token says of roles and permissions isn't asked.
type authority struct {
	user        bool     // else an application or managed identity
	id          string   // object id
	appID       string   // the client
	roles       []string // directory roles
	permissions []string // an application's own; or the scopes that the user's client has
	anything    bool     // the client may do whatever its user may: one of those that every tenant has
}

// area is a part of the directory.
type area int

// The areas.
const (
	userArea area = iota
	groupArea
	applicationArea // service principals, too
	roleArea
	grantArea
	auditArea
	policyArea
	tenantArea // what whoever is in the directory may know of it
)

func (s *Service) authority(ctx context.Context, who identity.Principal) (authority, error) {
	a := authority{user: who.Kind == identity.UserKind, id: who.ID, appID: who.AppID, roles: s.directory.RolesOf(who.ID)}
	var err error
	switch {
	case !a.user:
		a.permissions, err = s.directory.AppRolesOf(ctx, who.ID, identity.AppGraph)
	case s.directory.KnownApplication(who.AppID):
		a.anything = true
	default:
		a.permissions, err = s.directory.Consented(ctx, who.ID, who.AppID, identity.AppGraph)
		a.anything = slices.Contains(a.permissions, identity.DirectoryAccessAsUser)
	}
	return a, err
}

func (a authority) role(ids ...string) bool {
	return slices.ContainsFunc(ids, func(id string) bool { return slices.Contains(a.roles, id) })
}

func (a authority) has(names ...string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return slices.Contains(a.permissions, n) })
}

// either is the rule of the two: an application may by a role or by a permission
// of its own; a user may by right, and only through a client that may.
func (a authority) either(right bool, permissions ...string) bool {
	if a.user {
		return right && (a.anything || a.has(permissions...))
	}
	return right || a.has(permissions...)
}

// readers are the permissions that let an area be read.
func readers(of area) []string {
	switch of {
	case userArea:
		return []string{identity.UserReadAll, identity.UserReadWriteAll, identity.UserReadBasicAll, identity.DirectoryReadAll, identity.DirectoryReadWriteAll}
	case groupArea:
		return []string{identity.GroupReadAll, identity.GroupReadWriteAll, identity.GroupMemberReadWriteAll, identity.DirectoryReadAll, identity.DirectoryReadWriteAll}
	case applicationArea, grantArea:
		return []string{identity.ApplicationReadAll, identity.ApplicationReadWriteAll, identity.DirectoryReadAll, identity.DirectoryReadWriteAll,
			identity.AppRoleAssignmentsWrite, identity.GrantsWrite}
	case roleArea:
		return []string{identity.RoleManagementRead, identity.RoleManagementWrite, identity.DirectoryReadAll, identity.DirectoryReadWriteAll}
	case auditArea:
		return []string{identity.AuditLogReadAll}
	case policyArea:
		return []string{identity.PolicyReadAll, identity.PolicyWriteConditional}
	}
	return nil
}

// reads says whether all of an area may be read. Members of the directory may
// read it, but for the logs and conditional access; an application needs a
// permission, or a role.
func (a authority) reads(of area) bool {
	switch of {
	case auditArea, policyArea:
		right := a.role(identity.GlobalAdministrator, identity.GlobalReader, identity.SecurityAdministrator, identity.SecurityReader) ||
			of == policyArea && a.role(identity.ConditionalAccessAdmin)
		return a.either(right, readers(of)...)
	case tenantArea:
		return true
	}
	return a.either(a.user || len(a.roles) > 0, readers(of)...)
}

// writesPolicies says whether conditional access may be changed.
func (a authority) writesPolicies() bool {
	return a.either(a.role(identity.GlobalAdministrator, identity.ConditionalAccessAdmin, identity.SecurityAdministrator), identity.PolicyWriteConditional)
}

// highest may touch directory roles, and the groups that can hold them.
func (a authority) highest() bool {
	return a.either(a.role(identity.GlobalAdministrator, identity.PrivilegedRoleAdmin), identity.RoleManagementWrite)
}

// supreme may touch applications with a role, and give what is as good as one.
func (a authority) supreme() bool {
	return a.either(a.role(identity.GlobalAdministrator, identity.PrivilegedRoleAdmin))
}

func denied() error {
	return fault.New(fault.Forbidden, "Authorization_RequestDenied", "Insufficient privileges to complete the operation.")
}

func (r *request) mayRead(of area) error {
	if !r.may.reads(of) {
		return denied()
	}
	return nil
}

// allow turns a judgement into an answer.
func allow(ok bool) error {
	if !ok {
		return denied()
	}
	return nil
}

// privileged says whether whoever controls an object gets a directory role, or a
// permission that is as good as one: the object's own, or that of something it owns.
func (s *Service) privileged(ctx context.Context, id string) (bool, error) {
	held, err := s.elevated(ctx, id)
	if held || err != nil {
		return held, err
	}
	for _, owned := range s.directory.OwnedBy(id) {
		switch v := owned.(type) {
		case *identity.Group:
			held = v.RoleAssignable
		case *identity.ServicePrincipal:
			held, err = s.elevated(ctx, v.ID)
		case *identity.Application:
			held, err = s.elevatedApp(ctx, v.AppID)
		}
		if held || err != nil {
			return held, err
		}
	}
	return false, nil
}

// elevated says whether an object itself has a directory role or such a permission.
func (s *Service) elevated(ctx context.Context, id string) (bool, error) {
	if len(s.directory.RolesOf(id)) > 0 {
		return true, nil
	}
	permissions, err := s.directory.AppRolesOf(ctx, id, identity.AppGraph)
	return slices.ContainsFunc(permissions, func(p string) bool {
		return slices.Contains([]string{identity.RoleManagementWrite, identity.AppRoleAssignmentsWrite, identity.ApplicationReadWriteAll,
			identity.DirectoryReadWriteAll, identity.GrantsWrite, identity.PolicyWriteConditional, identity.UserReadWriteAll, identity.GroupReadWriteAll}, p)
	}), err
}

func (s *Service) elevatedApp(ctx context.Context, appID string) (bool, error) {
	sp, err := s.directory.ServicePrincipal(ctx, appID)
	if fault.Is(err, fault.NotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return s.elevated(ctx, sp.ID)
}

// mayWriteUser judges a change of a user. Whoever has a role, or owns what has
// one, is touched by the highest administrators alone.
func (s *Service) mayWriteUser(r *request, id string, password bool) error {
	permissions := []string{identity.UserReadWriteAll, identity.DirectoryReadWriteAll}
	if password && !r.may.user {
		permissions = nil // an application resets passwords by a role only
	}
	if !r.may.either(r.may.role(identity.GlobalAdministrator, identity.UserAdministrator, identity.PrivilegedRoleAdmin), permissions...) {
		return denied()
	}
	if id == "" || r.may.role(identity.GlobalAdministrator) {
		return nil
	}
	high, err := s.privileged(r.Context(), id)
	if err != nil {
		return err
	}
	own := r.may.role(identity.UserAdministrator) || !r.may.role(identity.PrivilegedRoleAdmin)
	return allow(!high && own || high && r.may.role(identity.PrivilegedRoleAdmin))
}

// mayWriteGroup judges a change of a group, or of its members alone.
func (s *Service) mayWriteGroup(r *request, g *identity.Group, members bool) error {
	if g != nil && g.RoleAssignable {
		return allow(r.may.highest())
	}
	permissions := []string{identity.GroupReadWriteAll, identity.DirectoryReadWriteAll}
	if members {
		permissions = append(permissions, identity.GroupMemberReadWriteAll)
	}
	right := r.may.role(identity.GlobalAdministrator, identity.GroupsAdministrator, identity.UserAdministrator)
	if r.may.user && g != nil && slices.Contains(g.Owners, r.may.id) {
		right = true
	}
	return allow(r.may.either(right, permissions...))
}

// mayWriteApplication judges a change of an application or a service principal,
// of which owners are those of the object itself.
func (s *Service) mayWriteApplication(r *request, appID string, owners []string) error {
	owned := slices.Contains(owners, r.may.id)
	administers := r.may.role(identity.GlobalAdministrator, identity.ApplicationAdministrator, identity.CloudApplicationAdmin)
	writers := []string{identity.ApplicationReadWriteAll, identity.DirectoryReadWriteAll}
	if owned {
		if r.may.user {
			return allow(r.may.either(true, writers...))
		}
		if r.may.has(identity.ApplicationReadWriteOwned) {
			return nil
		}
	}
	if appID == "" && !r.may.user && r.may.has(identity.ApplicationReadWriteOwned) {
		return nil // a new one is its own
	}
	if !r.may.either(administers, writers...) && !r.may.supreme() {
		return denied()
	}
	if appID == "" || r.may.supreme() {
		return nil
	}
	high, err := s.elevatedApp(r.Context(), appID)
	if err != nil {
		return err
	}
	return allow(!high)
}
