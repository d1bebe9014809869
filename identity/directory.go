// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"bastide.dev/fault"
	"bastide.dev/store"
)

// Tenant returns the instance's tenant.
func (d *Directory) Tenant(ctx context.Context) (Tenant, error) {
	t, _, err := get[Tenant](ctx, d.objects, tenantKey)
	if err != nil {
		return Tenant{}, fmt.Errorf("read tenant: %w", err)
	}
	return *t, nil
}

// User finds a user by object id or user principal name.
func (d *Directory) User(ctx context.Context, idOrName string) (User, error) {
	if err := d.objects.load(ctx); err != nil {
		return User{}, err
	}
	d.objects.mu.RLock()
	key, found := d.objects.userNames[strings.ToLower(idOrName)]
	d.objects.mu.RUnlock()
	if !found {
		if uuid.Validate(idOrName) != nil {
			return User{}, notFound(idOrName)
		}
		key = users + strings.ToLower(idOrName)
	}
	u, _, err := get[User](ctx, d.objects, key)
	if err != nil {
		return User{}, err
	}
	return *u, nil
}

// Application finds an application by its app id.
func (d *Directory) Application(ctx context.Context, appID string) (Application, error) {
	if err := d.objects.load(ctx); err != nil {
		return Application{}, err
	}
	for _, a := range d.known {
		if strings.EqualFold(a.AppID, appID) {
			return a, nil
		}
	}
	d.objects.mu.RLock()
	key, found := d.objects.appKeys[strings.ToLower(appID)]
	d.objects.mu.RUnlock()
	if !found {
		return Application{}, notFound(appID)
	}
	a, _, err := get[Application](ctx, d.objects, key)
	if err != nil {
		return Application{}, err
	}
	return *a, nil
}

// ServicePrincipal finds a service principal by object id or app id. Those of
// applications that every tenant has are found, too.
func (d *Directory) ServicePrincipal(ctx context.Context, id string) (ServicePrincipal, error) {
	if err := d.objects.load(ctx); err != nil {
		return ServicePrincipal{}, err
	}
	d.objects.mu.RLock()
	key, found := d.objects.spKeys[strings.ToLower(id)]
	d.objects.mu.RUnlock()
	if !found {
		if uuid.Validate(id) != nil {
			return ServicePrincipal{}, notFound(id)
		}
		if sp, err := d.firstPartyPrincipal(ctx, id); !fault.Is(err, fault.NotFound) {
			return sp, err
		}
		key = principals + strings.ToLower(id)
	}
	sp, _, err := get[ServicePrincipal](ctx, d.objects, key)
	if err != nil {
		return ServicePrincipal{}, err
	}
	return *sp, nil
}

// Group finds a group by object id.
func (d *Directory) Group(ctx context.Context, id string) (Group, error) {
	if uuid.Validate(id) != nil {
		return Group{}, notFound(id)
	}
	g, _, err := get[Group](ctx, d.objects, groups+strings.ToLower(id))
	if err != nil {
		return Group{}, err
	}
	return *g, nil
}

// Users lists all users, by name.
func (d *Directory) Users(ctx context.Context) ([]User, error) {
	return sorted(ctx, d, users, func(u User) string { return u.Name })
}

// ServicePrincipals lists all service principals, by name, and last those of
// applications that every tenant has.
func (d *Directory) ServicePrincipals(ctx context.Context) ([]ServicePrincipal, error) {
	tenant, err := d.Tenant(ctx)
	if err != nil {
		return nil, err
	}
	found, err := sorted(ctx, d, principals, func(p ServicePrincipal) string { return p.DisplayName + p.ID })
	return append(found, d.firstParty(tenant)...), err
}

// Applications lists the registered applications, by name.
func (d *Directory) Applications(ctx context.Context) ([]Application, error) {
	return sorted(ctx, d, applications, func(a Application) string { return a.DisplayName + a.ID })
}

// Groups lists all groups, by name.
func (d *Directory) Groups(ctx context.Context) ([]Group, error) {
	return sorted(ctx, d, groups, func(g Group) string { return g.DisplayName + g.ID })
}

func sorted[T any](ctx context.Context, d *Directory, under string, name func(T) string) ([]T, error) {
	if err := d.objects.load(ctx); err != nil {
		return nil, err
	}
	found := []T{}
	for _, v := range all[T](d.objects, under) {
		found = append(found, *v)
	}
	slices.SortFunc(found, func(a, b T) int { return strings.Compare(name(a), name(b)) })
	return found, nil
}

// CreateManagedIdentity adds the service principal of a resource. A repeated
// call for the same resource returns the same identity.
func (d *Directory) CreateManagedIdentity(ctx context.Context, name, resourceID string) (principalID, clientID string, err error) {
	tenant, err := d.Tenant(ctx)
	if err != nil {
		return "", "", err
	}
	if err := d.objects.load(ctx); err != nil {
		return "", "", err
	}
	for _, sp := range all[ServicePrincipal](d.objects, principals) {
		if sp.Type == ManagedIdentity && strings.EqualFold(sp.ResourceID, resourceID) {
			return sp.ID, sp.AppID, nil
		}
	}
	now := d.stamp()
	sp := ServicePrincipal{ID: uuid.NewString(), AppID: uuid.NewString(), DisplayName: name, Type: ManagedIdentity, ResourceID: resourceID, ValidFrom: now, Created: now}
	sp.Names = []string{sp.AppID, "https://identity." + tenant.Domain + "/" + sp.AppID}
	// A second replica that is asked at the same moment must not make a second one.
	marker := marks + strings.ToLower(resourceID)
	if sp, err = d.claim(ctx, marker, sp); err != nil {
		return "", "", err
	}
	err = d.objects.put(ctx, principals+sp.ID, sp, store.Any)
	return sp.ID, sp.AppID, err
}

func notFound(id string) error {
	return fault.New(fault.NotFound, "Request_ResourceNotFound", "Resource '%s' does not exist or one of its queried reference-property objects are not present.", id)
}

// stamp is now in whole seconds, the grain of a token's times.
func (d *Directory) stamp() time.Time { return d.now().UTC().Truncate(time.Second) }
