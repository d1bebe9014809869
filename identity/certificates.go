// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"slices"
)

// ClientCertificates are those whose keys sign a principal's assertions: its own
// and its application's.
func (d *Directory) ClientCertificates(ctx context.Context, sp ServicePrincipal) []Certificate {
	all := slices.Clone(sp.Certificates)
	if app, err := d.Application(ctx, sp.AppID); err == nil {
		all = append(all, app.Certificates...)
	}
	return all
}

// credentialStands says whether what a token was bought with still counts: a
// secret, a certificate, or the trust in another issuer.
func (d *Directory) credentialStands(ctx context.Context, sp ServicePrincipal, id string) bool {
	if s, found := d.secret(ctx, sp, func(s Secret) bool { return s.ID == id }); found {
		return d.now().Before(s.Expires)
	}
	for _, c := range d.ClientCertificates(ctx, sp) {
		if c.ID == id {
			return d.now().Before(c.Expires)
		}
	}
	trusted := slices.Clone(sp.Federated)
	if app, err := d.Application(ctx, sp.AppID); err == nil {
		trusted = append(trusted, app.Federated...)
	}
	return slices.ContainsFunc(trusted, func(f FederatedCredential) bool { return f.ID == id })
}
