// SPDX-License-Identifier: Apache-2.0

package authorization

import (
	"context"

	"bastide.dev/fault"
	"bastide.dev/rbac"
)

// Definition finds a role definition by its GUID; fault.NotFound when there is none.
func (p *Provider) Definition(ctx context.Context, id string) (*rbac.Definition, error) {
	if err := p.feed.load(ctx); err != nil {
		return nil, err
	}
	if d := p.table.Definition(lastSegment(id)); d != nil {
		return d, nil
	}
	return nil, fault.New(fault.NotFound, codeNoDefinition, "The specified role definition with ID '%s' does not exist.", printable(id))
}

// Definitions are all role definitions, built-in and custom.
func (p *Provider) Definitions(ctx context.Context) ([]*rbac.Definition, error) {
	if err := p.feed.load(ctx); err != nil {
		return nil, err
	}
	return p.table.Definitions(), nil
}
