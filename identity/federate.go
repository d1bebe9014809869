// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"slices"
	"strings"

	"github.com/google/uuid"

	"bastide.dev/fault"
)

// PutFederated adds or replaces, by its name, another issuer's credential on an
// application (its object id); fresh refuses to replace one. What a managed
// identity trusts is its resource's to say: PlanFederated.
func (d *Directory) PutFederated(ctx context.Context, appObjectID string, f FederatedCredential, fresh bool) (FederatedCredential, error) {
	err := d.EditApplication(ctx, appObjectID, func(a *Application) error {
		i := slices.IndexFunc(a.Federated, func(o FederatedCredential) bool { return strings.EqualFold(o.Name, f.Name) })
		switch {
		case i >= 0 && fresh:
			return fault.New(fault.Conflict, "Request_MultipleObjectsWithSameKeyValue", "FederatedIdentityCredential with name %s already exists.", printable(f.Name)).At("name")
		case i >= 0:
			f.ID = a.Federated[i].ID
			a.Federated[i] = f
		default:
			f.ID = uuid.NewString()
			a.Federated = append(a.Federated, f)
		}
		return nil
	})
	return f, err
}

// DeleteFederated ends the trust in another issuer, by the credential's id or name.
func (d *Directory) DeleteFederated(ctx context.Context, appObjectID, idOrName string) error {
	return d.EditApplication(ctx, appObjectID, func(a *Application) error {
		i := slices.IndexFunc(a.Federated, func(f FederatedCredential) bool { return f.ID == idOrName || strings.EqualFold(f.Name, idOrName) })
		if i < 0 {
			return notFound(printable(idOrName))
		}
		a.Federated = slices.Delete(a.Federated, i, i+1)
		return nil
	})
}
