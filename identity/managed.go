// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"bastide.dev/fault"
	"bastide.dev/store"
)

// A user-assigned identity is a resource and a principal. So that no kill can
// leave one without the other, the functions here return what the directory
// needs as changes, for the transaction that writes the resource.

// PlanManagedIdentity draws the principal of a resource that is being made. One
// that the directory has for it already is taken again, without a change.
func (d *Directory) PlanManagedIdentity(ctx context.Context, name, resourceID string) (principalID, clientID string, changes []store.Change, err error) {
	tenant, err := d.Tenant(ctx)
	if err != nil {
		return "", "", nil, err
	}
	marker := marks + strings.ToLower(resourceID)
	sp, marked, err := d.marked(ctx, marker)
	if err != nil {
		return "", "", nil, err
	}
	if marked {
		_, err := d.config.Store.Get(ctx, principals+sp.ID)
		if err == nil {
			return sp.ID, sp.AppID, nil, nil
		}
		if !fault.Is(err, fault.NotFound) {
			return "", "", nil, fmt.Errorf("read principal of %s: %w", resourceID, err)
		}
	} else {
		now := d.stamp()
		sp = ServicePrincipal{ID: uuid.NewString(), AppID: uuid.NewString(), DisplayName: name, Type: ManagedIdentity,
			ResourceID: resourceID, ValidFrom: now, Created: now}
		sp.Names = []string{sp.AppID, "https://identity." + tenant.Domain + "/" + sp.AppID}
	}
	value, err := json.Marshal(sp)
	if err != nil {
		return "", "", nil, fmt.Errorf("encode principal of %s: %w", resourceID, err)
	}
	changes = []store.Change{{Key: principals + sp.ID, Value: value, Revision: store.Absent}}
	if !marked {
		changes = append(changes, store.Change{Key: marker, Value: value, Revision: store.Absent})
	}
	return sp.ID, sp.AppID, changes, nil
}

// marked reads the mark of a resource's identity; false when there is none.
func (d *Directory) marked(ctx context.Context, marker string) (ServicePrincipal, bool, error) {
	var sp ServicePrincipal
	record, err := d.config.Store.Get(ctx, marker)
	if fault.Is(err, fault.NotFound) {
		return sp, false, nil
	}
	if err != nil {
		return sp, false, fmt.Errorf("read %s: %w", marker, err)
	}
	if err := json.Unmarshal(record.Value, &sp); err != nil {
		return sp, false, fmt.Errorf("decode %s: %w", marker, err)
	}
	return sp, true, nil
}

// PlanDeletion are the changes that end a managed identity: no token of it is
// good any more once they are written. What isn't there needs none.
func (d *Directory) PlanDeletion(ctx context.Context, principalID string) ([]store.Change, error) {
	sp, record, err := d.managed(ctx, principalID)
	if fault.Is(err, fault.NotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	// Its memberships, directory roles and app roles end with it.
	references, err := d.ReferenceChanges(ctx, sp.ID)
	if err != nil {
		return nil, err
	}
	return append([]store.Change{
		{Key: record.Key, Revision: record.Revision},
		{Key: marks + strings.ToLower(sp.ResourceID), Revision: store.Any},
		{Key: platformSecrets + sp.ID, Revision: store.Any},
	}, references...), nil
}

// PlanFederated is the change of the credentials of other issuers that a managed
// identity takes. edit gets them as they are; its error is returned.
func (d *Directory) PlanFederated(ctx context.Context, principalID string, edit func([]FederatedCredential) ([]FederatedCredential, error)) (store.Change, error) {
	sp, record, err := d.managed(ctx, principalID)
	if err != nil {
		return store.Change{}, err
	}
	if sp.Federated, err = edit(sp.Federated); err != nil {
		return store.Change{}, err
	}
	value, err := json.Marshal(sp)
	if err != nil {
		return store.Change{}, fmt.Errorf("encode principal %s: %w", principalID, err)
	}
	return store.Change{Key: record.Key, Value: value, Revision: record.Revision}, nil
}

// managed reads a managed identity from the store, with the revision to change it at.
func (d *Directory) managed(ctx context.Context, principalID string) (ServicePrincipal, store.Record, error) {
	var sp ServicePrincipal
	if uuid.Validate(principalID) != nil {
		return sp, store.Record{}, notFound(principalID)
	}
	record, err := d.config.Store.Get(ctx, principals+strings.ToLower(principalID))
	if err != nil {
		return sp, record, fmt.Errorf("read principal %s: %w", principalID, err)
	}
	if err := json.Unmarshal(record.Value, &sp); err != nil {
		return sp, record, fmt.Errorf("decode principal %s: %w", principalID, err)
	}
	if sp.Type != ManagedIdentity {
		return sp, record, notFound(principalID)
	}
	return sp, record, nil
}

// SecretEnd is when a client's secret expires; fault.NotFound when the client or
// that secret of it is gone. It is for secrets that the service keeps: a wrong
// one counts as no failed sign-in.
func (d *Directory) SecretEnd(ctx context.Context, appID, secret string) (time.Time, error) {
	sp, err := d.ServicePrincipal(ctx, appID)
	if err != nil {
		return time.Time{}, err
	}
	found, matched := d.secret(ctx, sp, func(s Secret) bool { return s.matches(secret) })
	if !matched || sp.Disabled {
		return time.Time{}, notFound(appID)
	}
	return found.Expires, nil
}

// ManagedIdentity finds the identity of a resource by the resource's id.
func (d *Directory) ManagedIdentity(ctx context.Context, resourceID string) (ServicePrincipal, error) {
	sp, marked, err := d.marked(ctx, marks+strings.ToLower(resourceID))
	if err != nil {
		return sp, err
	}
	if !marked {
		return sp, notFound(resourceID)
	}
	return d.ServicePrincipal(ctx, sp.ID)
}
