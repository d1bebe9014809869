// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"bastide.dev/fault"
	"bastide.dev/store"
)

// CreateApplication registers a confidential client and its service principal,
// with a secret that is returned this once.
func (d *Directory) CreateApplication(ctx context.Context, displayName string, lifetime time.Duration) (ServicePrincipal, string, error) {
	plain, secret := newSecret(d.stamp().Add(lifetime))
	app, err := d.AddApplication(ctx, Application{DisplayName: displayName, Secrets: []Secret{secret}})
	if err != nil {
		return ServicePrincipal{}, "", err
	}
	sp, err := d.AddServicePrincipal(ctx, ServicePrincipal{AppID: app.AppID})
	return sp, plain, err
}

// AddApplication registers an application, as yet without a service principal.
// Its ids and time are made here.
func (d *Directory) AddApplication(ctx context.Context, a Application) (Application, error) {
	if err := d.objects.load(ctx); err != nil {
		return Application{}, err
	}
	a.ID, a.AppID, a.Created, a.Owners = uuid.NewString(), uuid.NewString(), d.stamp(), lowered(a.Owners)
	problems := append(d.checkApplication(a, nil), d.checkOwners(ctx, a.Owners)...)
	if err := fault.Join(problems...); err != nil {
		return Application{}, err
	}
	changes := append([]change{{key: applications + a.ID, after: a, revision: store.Absent}}, uriMarks(nil, a.IdentifierURIs, a.ID)...)
	err := d.commit(ctx, activity{Name: "Add application"}, changes...)
	if fault.Is(err, fault.Precondition) {
		return Application{}, uriTaken("")
	}
	return a, err
}

// EditApplication changes an application (its object id) through apply, whose
// error stops it, and judges the result.
func (d *Directory) EditApplication(ctx context.Context, id string, apply func(*Application) error) error {
	key := applications + strings.ToLower(id)
	return d.retry(ctx, func() (activity, []change, error) {
		current, revision, err := get[Application](ctx, d.objects, key)
		if err != nil {
			return activity{}, nil, err
		}
		next, err := clone(current)
		if err != nil {
			return activity{}, nil, err
		}
		if err := apply(next); err != nil {
			return activity{}, nil, err
		}
		if err := fault.Join(d.checkApplication(*next, current.IdentifierURIs)...); err != nil {
			return activity{}, nil, err
		}
		changes := []change{{key: key, before: *current, after: *next, revision: revision}}
		changes = append(changes, uriMarks(current.IdentifierURIs, next.IdentifierURIs, next.ID)...)
		// Its service principal shows the same name.
		if current.DisplayName != next.DisplayName {
			if sp, err := d.ServicePrincipal(ctx, next.AppID); err == nil && !sp.FirstParty {
				renamed := sp
				renamed.DisplayName = next.DisplayName
				changes = append(changes, change{key: principals + sp.ID, before: sp, after: renamed, revision: d.objects.revision(principals + sp.ID)})
			}
		}
		return activity{Name: "Update application"}, changes, nil
	})
}

func (o *objects) revision(key string) int64 {
	o.mu.RLock()
	defer o.mu.RUnlock()
	return o.revisions[key]
}

// uriMarks are the changes that keep each identifier URI one application's.
func uriMarks(before, after []string, id string) []change {
	var changes []change
	key := func(uri string) string { return names + "uris/" + strings.ToLower(uri) }
	for _, uri := range beyond(after, before) {
		changes = append(changes, change{key: key(uri), after: id, revision: store.Absent})
	}
	for _, uri := range beyond(before, after) {
		changes = append(changes, change{key: key(uri), revision: store.Any})
	}
	return changes
}

func uriTaken(uri string) *fault.Error {
	return badValue("identifierUris", "Another object with the same value for property identifierUris already exists: %s.", printable(uri))
}

// DeleteApplication removes an application and its service principal.
func (d *Directory) DeleteApplication(ctx context.Context, id string) error {
	id = strings.ToLower(id)
	app, err := one[Application](ctx, d, applications, id)
	if err != nil {
		return err
	}
	if sp, err := d.ServicePrincipal(ctx, app.AppID); err == nil && !sp.FirstParty {
		if err := d.DeletePrincipal(ctx, sp.ID); err != nil {
			return err
		}
	}
	return d.remove(ctx, activity{Name: "Delete application"}, id, func() ([]change, error) {
		a, revision, err := get[Application](ctx, d.objects, applications+id)
		if err != nil {
			return nil, err
		}
		changes := []change{{key: applications + id, before: *a, revision: revision}}
		return append(changes, uriMarks(a.IdentifierURIs, nil, id)...), nil
	})
}

// AddServicePrincipal makes an application an actor of the tenant; sp.AppID names it.
func (d *Directory) AddServicePrincipal(ctx context.Context, sp ServicePrincipal) (ServicePrincipal, error) {
	if _, err := d.ServicePrincipal(ctx, sp.AppID); err == nil && uuid.Validate(sp.AppID) == nil {
		return ServicePrincipal{}, principalExists(sp.AppID)
	}
	app, err := d.Application(ctx, sp.AppID)
	if err != nil {
		return ServicePrincipal{}, cmpError(ignoreMissing(err), fault.New(fault.Invalid, "NoBackingApplicationObject",
			"The appId '%s' of the service principal does not reference a valid application object.", printable(sp.AppID)).At("appId"))
	}
	sp.AppID, sp.DisplayName, sp.Type, sp.Owners = app.AppID, app.DisplayName, ApplicationPrincipal, lowered(sp.Owners)
	if err := fault.Join(append(checkTexts(sp), d.checkOwners(ctx, sp.Owners)...)...); err != nil {
		return ServicePrincipal{}, err
	}
	sp.ID, sp.ValidFrom, sp.Created = uuid.NewString(), d.stamp(), d.stamp()
	sp.Names = []string{sp.AppID}
	// The application is in the same transaction, so that one deleted at this moment gets none.
	err = d.commit(ctx, activity{Name: "Add service principal"},
		change{key: principals + sp.ID, after: sp, revision: store.Absent},
		change{key: names + "principals/" + sp.AppID, after: sp.ID, revision: store.Absent},
		change{key: applications + app.ID, revision: d.objects.revision(applications + app.ID), check: true})
	if fault.Is(err, fault.Precondition) {
		return ServicePrincipal{}, principalExists(sp.AppID)
	}
	return sp, err
}

func principalExists(appID string) error {
	return fault.New(fault.Conflict, "Request_MultipleObjectsWithSameKeyValue", "The service principal cannot be created, updated, or restored because the service principal name %s is already in use.", printable(appID)).At("appId")
}

// UpdateServicePrincipal changes a service principal through change.
func (d *Directory) UpdateServicePrincipal(ctx context.Context, id string, change func(*ServicePrincipal)) error {
	return update(ctx, d, principals+strings.ToLower(id), change)
}

// EditServicePrincipal changes a service principal through apply, whose error
// stops it, and judges the result.
func (d *Directory) EditServicePrincipal(ctx context.Context, id string, apply func(*ServicePrincipal) error) error {
	return edit(ctx, d, principals+strings.ToLower(id), activity{Name: "Update service principal"}, func(sp *ServicePrincipal) ([]string, error) {
		disabled := sp.Disabled
		if err := apply(sp); err != nil {
			return nil, err
		}
		if sp.Disabled && !disabled {
			if err := d.staysAdministered(ctx, sp.ID); err != nil {
				return nil, err
			}
		}
		return nil, fault.Join(append(checkTexts(*sp), checkCredentials(sp.Secrets, sp.Certificates)...)...)
	})
}

// DeletePrincipal removes a service principal with all that the directory gave
// it, a managed identity's with its mark, and its secret of the service's own.
func (d *Directory) DeletePrincipal(ctx context.Context, id string) error {
	sp, err := d.ServicePrincipal(ctx, id)
	if err != nil {
		return ignoreMissing(err)
	}
	err = d.remove(ctx, activity{Name: "Delete service principal"}, sp.ID, func() ([]change, error) {
		sp, revision, err := get[ServicePrincipal](ctx, d.objects, principals+sp.ID)
		if err != nil {
			return nil, err
		}
		changes := []change{{key: principals + sp.ID, before: *sp, revision: revision},
			{key: platformSecrets + sp.ID, revision: store.Any},
			{key: names + "principals/" + sp.AppID, revision: store.Any}}
		if sp.Type == ManagedIdentity {
			changes = append(changes, change{key: marks + strings.ToLower(sp.ResourceID), revision: store.Any})
		}
		return changes, nil
	})
	return ignoreMissing(err)
}

// NewSecret makes a client secret for an application or a service principal (its
// object id). Its text is returned this once.
func (d *Directory) NewSecret(ctx context.Context, objectID, name string, expires time.Time) (Secret, string, error) {
	now := d.stamp()
	if !expires.After(now) || expires.After(now.Add(maxSecretLife)) {
		return Secret{}, "", badValue("endDateTime", "The end of a secret's life is in the future, and at most 10 years away.")
	}
	plain, secret := newSecret(expires.UTC())
	secret.Starts, secret.Name = now, name
	return secret, plain, d.editSecrets(ctx, objectID, "Add secret", func(have []Secret) ([]Secret, error) {
		return append(have, secret), nil
	})
}

// RemoveSecret ends a client secret, by its id, and the tokens bought with it.
func (d *Directory) RemoveSecret(ctx context.Context, objectID, keyID string) error {
	return d.editSecrets(ctx, objectID, "Remove secret", func(have []Secret) ([]Secret, error) {
		i := slices.IndexFunc(have, func(s Secret) bool { return strings.EqualFold(s.ID, keyID) })
		if i < 0 {
			return nil, badValue("keyId", "No password credential found with keyId '%s'.", printable(keyID))
		}
		return slices.Delete(have, i, i+1), nil
	})
}

func (d *Directory) editSecrets(ctx context.Context, objectID, name string, apply func([]Secret) ([]Secret, error)) error {
	v, err := d.Object(ctx, objectID)
	if err != nil {
		return err
	}
	a := activity{Name: name}
	switch v := v.(type) {
	case *Application:
		return edit(ctx, d, applications+v.ID, a, func(p *Application) ([]string, error) {
			if p.Secrets, err = apply(p.Secrets); err != nil {
				return nil, err
			}
			return nil, fault.Join(checkCredentials(p.Secrets, p.Certificates)...)
		})
	case *ServicePrincipal:
		return edit(ctx, d, principals+v.ID, a, func(p *ServicePrincipal) ([]string, error) {
			if p.Secrets, err = apply(p.Secrets); err != nil {
				return nil, err
			}
			return nil, fault.Join(checkCredentials(p.Secrets, p.Certificates)...)
		})
	}
	return notFound(printable(objectID))
}

// ApplicationObject finds an application by its object id.
func (d *Directory) ApplicationObject(ctx context.Context, id string) (Application, error) {
	return one[Application](ctx, d, applications, id)
}
