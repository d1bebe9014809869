// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	"bastide.dev/identity"
	"bastide.dev/rbac"
	"bastide.dev/registry"
)

// MayRead is nil when the subject still stands and has a role such as AcrPull.
func (r registryIdentity) MayRead(ctx context.Context, who registry.Subject) error {
	p := identity.Principal{ID: who.ID, Kind: identity.PrincipalKind(who.Kind), Name: who.Name}
	if err := r.directory.Standing(ctx, p); err != nil {
		return err
	}
	return r.roles.Authorize(ctx, rbac.Subject{ID: who.ID, Groups: r.directory.GroupsOf(who.ID)}, who.Name, "Microsoft.ContainerRegistry/registries/pull/read", r.scope)
}
