// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"slices"
	"strings"

	"github.com/google/uuid"

	"bastide.dev/fault"
	"bastide.dev/store"
)

// Consented lists the scopes of a resource that a client may use in a user's
// name: what the user agreed to, and what was agreed to for everybody. client
// and resource are app ids. What was taken back is gone at once.
func (d *Directory) Consented(ctx context.Context, userID, client, resource string) ([]string, error) {
	clientSP, err := d.ServicePrincipal(ctx, client)
	if err != nil {
		return nil, ignoreMissing(err)
	}
	resourceSP, err := d.ServicePrincipal(ctx, resource)
	if err != nil {
		return nil, ignoreMissing(err)
	}
	var found []string
	for _, g := range naming[Grant](d.objects, clientSP.ID, asClient) {
		if g.ResourceID == resourceSP.ID && (g.PrincipalID == "" || g.PrincipalID == userID) {
			found = append(found, g.Scopes...)
		}
	}
	slices.Sort(found)
	return slices.Compact(found), nil
}

// Consent records that a user lets a client use scopes of a resource in the
// user's name, beside what was agreed to before; userID "" stands for every
// user. client and resource are app ids.
func (d *Directory) Consent(ctx context.Context, userID, client, resource string, scopes []string) error {
	clientSP, err := d.ServicePrincipal(ctx, client)
	if err != nil {
		return err
	}
	resourceSP, err := d.ServicePrincipal(ctx, resource)
	if err != nil {
		return err
	}
	_, err = d.PutGrant(ctx, Grant{ClientID: clientSP.ID, PrincipalID: userID, ResourceID: resourceSP.ID, Scopes: scopes}, true)
	return err
}

// PutGrant writes a consent, of which there is one for a client, a user and a
// resource; merge keeps the scopes it had.
func (d *Directory) PutGrant(ctx context.Context, g Grant, merge bool) (Grant, error) {
	if err := d.checkGrant(ctx, &g); err != nil {
		return Grant{}, err
	}
	g.ID = uuid.NewSHA1(uuid.NameSpaceOID, []byte(g.ClientID+" "+g.PrincipalID+" "+g.ResourceID)).String()
	wanted := g.Scopes
	return g, d.retry(ctx, func() (activity, []change, error) {
		g.Scopes = wanted
		old, revision, err := get[Grant](ctx, d.objects, grants+g.ID)
		if ignoreMissing(err) != nil {
			return activity{}, nil, err
		}
		var before any
		if err != nil {
			revision = store.Absent
		} else if before = *old; merge {
			g.Scopes = append(slices.Clone(old.Scopes), wanted...)
		}
		slices.Sort(g.Scopes)
		if g.Scopes = slices.Compact(g.Scopes); err == nil && slices.Equal(g.Scopes, old.Scopes) {
			return activity{}, nil, nil
		}
		return activity{Name: "Add delegated permission grant", Category: CategoryApplication, About: []string{g.ClientID, g.ResourceID, g.PrincipalID}},
			[]change{{key: grants + g.ID, before: before, after: g, revision: revision}}, nil
	})
}

// checkGrant demands that all that a consent names is there; known scopes only.
func (d *Directory) checkGrant(ctx context.Context, g *Grant) error {
	client, err := d.ServicePrincipal(ctx, g.ClientID)
	if err != nil || client.ID != g.ClientID {
		return cmpError(ignoreMissing(err), badValue("clientId", "The client '%s' is not a service principal of this directory.", printable(g.ClientID)))
	}
	resource, err := d.ServicePrincipal(ctx, g.ResourceID)
	if err != nil || resource.ID != g.ResourceID {
		return cmpError(ignoreMissing(err), badValue("resourceId", "The resource '%s' is not a service principal of this directory.", printable(g.ResourceID)))
	}
	if g.PrincipalID != "" {
		if u, err := d.User(ctx, g.PrincipalID); err != nil || u.ID != g.PrincipalID {
			return cmpError(ignoreMissing(err), badValue("principalId", "The principal '%s' is not a user of this directory.", printable(g.PrincipalID)))
		}
	}
	app, err := d.Application(ctx, resource.AppID)
	if err != nil {
		return err
	}
	var problems []*fault.Error
	for _, scope := range g.Scopes {
		known := func(s Scope) bool { return s.Enabled && s.Value == scope }
		if !slices.ContainsFunc(app.Scopes, known) && !slices.Contains(protocolScopes, scope) {
			problems = append(problems, badValue("scope", "The resource '%s' has no scope '%s'.", resource.DisplayName, printable(scope)))
		}
	}
	return fault.Join(problems...)
}

// protocolScopes are OpenID Connect's own, which every resource's consent may hold.
var protocolScopes = []string{"openid", "profile", "email", "offline_access"}

// Grants lists all consents, or those of one client (its object id).
func (d *Directory) Grants(ctx context.Context, clientID string) ([]Grant, error) {
	if clientID == "" {
		return sorted(ctx, d, grants, func(g Grant) string { return g.ID })
	}
	if err := d.objects.load(ctx); err != nil {
		return nil, err
	}
	return values(naming[Grant](d.objects, clientID, asClient), func(g Grant) string { return g.ID }), nil
}

// Grant finds a consent by its id.
func (d *Directory) Grant(ctx context.Context, id string) (Grant, error) {
	return one[Grant](ctx, d, grants, id)
}

// DeleteGrant takes a consent back.
func (d *Directory) DeleteGrant(ctx context.Context, id string) error {
	return d.retry(ctx, func() (activity, []change, error) {
		g, revision, err := get[Grant](ctx, d.objects, grants+strings.ToLower(id))
		if err != nil {
			return activity{}, nil, err
		}
		return activity{Name: "Remove delegated permission grant", Category: CategoryApplication, About: []string{g.ClientID, g.ResourceID, g.PrincipalID}},
			[]change{{key: grants + g.ID, before: *g, revision: revision}}, nil
	})
}
