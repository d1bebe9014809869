// SPDX-License-Identifier: Apache-2.0

package identity

import "context"

// Recheck is the principal of a token as it is now, for those who verified the
// token themselves and kept its claims: an Unauthorized fault when the principal
// is deleted or disabled, or what the token was bought with has ended.
func (d *Directory) Recheck(ctx context.Context, c Claims) (Principal, error) {
	if err := d.objects.load(ctx); err != nil {
		return Principal{}, err
	}
	return d.standing(ctx, c)
}

// AuthenticateClaims is AuthenticateFor, with what the token says.
func (d *Directory) AuthenticateClaims(ctx context.Context, bearer string, audiences ...string) (Principal, Claims, error) {
	p, err := d.AuthenticateFor(ctx, bearer, audiences...)
	if err != nil {
		return Principal{}, Claims{}, err
	}
	c, err := d.parse(ctx, bearer)
	return p, c, err
}
