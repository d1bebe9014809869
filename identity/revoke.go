// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"strings"
)

// Revoke takes a role at a scope from a principal; what isn't there is no error.
func (d *Directory) Revoke(ctx context.Context, principalID, roleID, scope string) error {
	if err := d.objects.load(ctx); err != nil {
		return err
	}
	for _, a := range d.assignmentsOf(principalID) {
		if strings.EqualFold(a.Role, roleID) && strings.EqualFold(a.Scope, scope) {
			if err := d.objects.delete(ctx, assignments+a.ID); err != nil {
				return err
			}
		}
	}
	return nil
}
