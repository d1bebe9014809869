// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"bastide.dev/authorization"
	"bastide.dev/cluster"
	"bastide.dev/guard"
	"bastide.dev/identity"
	"bastide.dev/rbac"
)

func newGuard(s *service, log *slog.Logger) (*guard.Service, error) {
	return guard.New(guard.Config{Clusters: guardClusters{s.clusters}, Directory: guardDirectory{s.directory}, Roles: guardRoles{s.roles}, Log: log})
}

// guardClusters lets guard know the clusters that call it.
type guardClusters struct{ clusters *cluster.Provider }

func (g guardClusters) Cluster(ctx context.Context, id string) (guard.Cluster, error) {
	found, err := g.clusters.Guarded(ctx, id)
	if err != nil {
		return guard.Cluster{}, err
	}
	return guard.Cluster{ID: id, Resource: found.Resource, Secret: found.Secret, Directory: found.Directory, AzureRBAC: found.AzureRBAC}, nil
}

// guardDirectory lets guard ask the directory.
type guardDirectory struct{ directory *identity.Directory }

func (g guardDirectory) Authenticate(ctx context.Context, token string) (guard.Principal, error) {
	p, claims, err := g.directory.AuthenticateClaims(ctx, token, identity.AppKubernetes, "spn:"+identity.AppKubernetes)
	if err != nil {
		return guard.Principal{}, err
	}
	found := guardPrincipal(p)
	found.Token = guard.Token{Principal: p.ID, Tenant: claims.TenantID, App: p.AppID, Kind: claims.IDType, Issued: time.Unix(claims.IssuedAt, 0), Credential: claims.Credential}
	return found, nil
}

func (g guardDirectory) Standing(ctx context.Context, t guard.Token) (guard.Principal, error) {
	p, err := g.directory.Recheck(ctx, identity.Claims{OID: t.Principal, TenantID: t.Tenant, AppID: t.App, IDType: t.Kind, IssuedAt: t.Issued.Unix(), Credential: t.Credential})
	if err != nil {
		return guard.Principal{}, err
	}
	found := guardPrincipal(p)
	found.Token = t
	return found, nil
}

func guardPrincipal(p identity.Principal) guard.Principal {
	return guard.Principal{ID: p.ID, Name: p.Name, Groups: p.Groups}
}

// guardRoles lets guard ask what roles grant.
type guardRoles struct{ roles *authorization.Provider }

func (g guardRoles) Grants(ctx context.Context, q guard.Question) (bool, string, error) {
	r := rbac.Request{Subject: rbac.Subject{ID: q.Principal, Groups: q.Groups}, Action: q.Action, Data: true, Scope: q.Scope}
	for name, values := range q.Attributes {
		if r.Attributes == nil {
			r.Attributes = map[string][]string{}
		}
		r.Attributes[rbac.Attribute(rbac.OfRequest, name)] = values
	}
	d, err := g.roles.Decide(ctx, r)
	if err != nil || !d.Allowed {
		return false, "", err
	}
	return true, "Access allowed by Azure RBAC Role Assignment " + d.Assignment.ID[strings.LastIndexByte(d.Assignment.ID, '/')+1:] + " of Role " + d.Role.Name, nil
}
