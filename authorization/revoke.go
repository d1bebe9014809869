// SPDX-License-Identifier: Apache-2.0

package authorization

import (
	"context"
	"fmt"
	"strings"

	"bastide.dev/arm"
	"bastide.dev/store"
)

// Revoke takes back one role that Assign gave to a principal on a scope; what
// isn't there, or somebody else assigned, is left as it is.
func (p *Provider) Revoke(ctx context.Context, principalID, role, scope string) error {
	if err := p.feed.load(ctx); err != nil {
		return err
	}
	for _, a := range p.table.Of(principalID) {
		if a.Service != ownService || a.Role != lastSegment(role) || !strings.EqualFold(a.Scope, scope) {
			continue
		}
		id, err := AssignmentID(a.Scope, lastSegment(a.ID))
		if err != nil {
			return fmt.Errorf("authorization: scope: %w", err)
		}
		if err := p.write(ctx, store.Change{Key: arm.DocumentKey(id), Revision: store.Any}); err != nil {
			return err
		}
	}
	return nil
}
