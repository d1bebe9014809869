// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"log/slog"

	"bastide.dev/arm"
	"bastide.dev/authorization"
	"bastide.dev/pim"
	"bastide.dev/rbac"
)

func newPIM(s *service, log *slog.Logger) (*pim.Provider, error) {
	return pim.New(pim.Config{Store: s.store, Roles: pimRoles{s.roles}, Directory: pimDirectory{authorizationDirectory{s.directory}}, Log: log})
}

// pimRoles hands PIM what it needs of roles.
type pimRoles struct{ *authorization.Provider }

func (pimRoles) Grant(a *rbac.Assignment) (*arm.Document, error) {
	return authorization.NewAssignment(a)
}

// pimDirectory hands PIM what it needs of the directory.
type pimDirectory struct{ authorizationDirectory }

func (d pimDirectory) Principal(ctx context.Context, id string) (pim.Principal, error) {
	found, err := d.authorizationDirectory.Principal(ctx, id)
	return pim.Principal(found), err
}
