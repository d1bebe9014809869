// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"

	"bastide.dev/arm"
	"bastide.dev/authorization"
	"bastide.dev/fault"
	"bastide.dev/identity"
	"bastide.dev/instance"
	"bastide.dev/pim"
	"bastide.dev/rbac"
	"bastide.dev/resource"
	"bastide.dev/store"
)

func newRoles(s *service, log *slog.Logger) (*authorization.Provider, error) {
	return authorization.New(authorization.Config{Store: s.store, Directory: authorizationDirectory{s.directory}, Tenant: s.in.Tenant,
		TenantName: "Bastide " + s.in.Name, Subscription: s.in.Subscription, Log: log})
}

// bootstrapRoles makes the first Owners of a new instance's subscription.
func bootstrapRoles(ctx context.Context, in *instance.Instance, s store.Store, directory *identity.Directory, first identity.Bootstrapped) error {
	o := authorization.BootstrapOptions{Tenant: in.Tenant, TenantName: "Bastide " + in.Name, Subscription: in.Subscription}
	if first.Administrator != "" {
		user, err := directory.User(ctx, first.Administrator)
		if err != nil {
			return fmt.Errorf("administrator: %w", err)
		}
		o.Owners = append(o.Owners, authorization.Principal{ID: user.ID, Kind: rbac.User})
	}
	if first.PrincipalID != "" {
		o.Owners = append(o.Owners, authorization.Principal{ID: first.PrincipalID, Kind: rbac.ServicePrincipal})
	}
	return authorization.Bootstrap(ctx, s, o)
}

// authorizationDirectory lets package authorization ask the directory.
type authorizationDirectory struct{ directory *identity.Directory }

func (d authorizationDirectory) Principal(ctx context.Context, id string) (authorization.Principal, error) {
	user, err := d.directory.User(ctx, id)
	if err == nil {
		return authorization.Principal{ID: user.ID, Kind: rbac.User, Name: user.Name}, nil
	}
	if !fault.Is(err, fault.NotFound) {
		return authorization.Principal{}, err
	}
	sp, err := d.directory.ServicePrincipal(ctx, id)
	if err == nil {
		return authorization.Principal{ID: sp.ID, Kind: rbac.ServicePrincipal, Name: sp.DisplayName}, nil
	}
	if !fault.Is(err, fault.NotFound) {
		return authorization.Principal{}, err
	}
	group, err := d.directory.Group(ctx, id)
	return authorization.Principal{ID: group.ID, Kind: rbac.Group, Name: group.DisplayName}, err
}

func (d authorizationDirectory) Groups(_ context.Context, id string) []string {
	return d.directory.GroupsOf(id)
}

func (d authorizationDirectory) Members(_ context.Context, group string) []string {
	return d.directory.MembersOf(group)
}

func (d authorizationDirectory) GlobalAdministrator(_ context.Context, id string) (bool, error) {
	return slices.Contains(d.directory.RolesOf(id), identity.GlobalAdministrator), nil
}

// armAccess lets the front door and providers ask what roles grant.
type armAccess struct{ roles *authorization.Provider }

// Authorize leaves to PIM what PIM judges by eligibility: who is eligible has no role yet.
func (a armAccess) Authorize(ctx context.Context, who arm.Principal, action string, scope resource.ID) error {
	if pim.SelfService(action, scope) {
		return nil
	}
	return a.roles.AuthorizeRequest(ctx, who, action, scope)
}

func (a armAccess) Related(ctx context.Context, who arm.Principal, scope resource.ID) (bool, error) {
	return a.roles.Related(ctx, who, scope)
}

// clusterDirectory hands clusters what they need of the directory and of roles.
type clusterDirectory struct {
	*identity.Directory
	roles *authorization.Provider
}

func (d clusterDirectory) PrincipalOf(ctx context.Context, clientID string) (string, error) {
	sp, err := d.ServicePrincipal(ctx, clientID)
	return sp.ID, err
}

func (d clusterDirectory) Assign(ctx context.Context, principalID, roleID, scope string) error {
	return d.roles.Assign(ctx, principalID, roleID, scope)
}

// DeletePrincipal removes an identity; what the service itself had assigned to it goes first.
func (d clusterDirectory) DeletePrincipal(ctx context.Context, principalID string) error {
	if err := d.roles.Unassign(ctx, principalID); err != nil {
		return err
	}
	return d.Directory.DeletePrincipal(ctx, principalID)
}
