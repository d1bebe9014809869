// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/identity"
	"bastide.dev/managedidentity"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// identityDirectory lets managed identities have their principals in the directory.
type identityDirectory struct{ directory *identity.Directory }

func (d identityDirectory) PlanIdentity(ctx context.Context, name, resourceID string) (managedidentity.Principal, []store.Change, error) {
	id, client, changes, err := d.directory.PlanManagedIdentity(ctx, name, resourceID)
	return managedidentity.Principal{ID: id, ClientID: client}, changes, err
}

func (d identityDirectory) PlanDeletion(ctx context.Context, principalID string) ([]store.Change, error) {
	return d.directory.PlanDeletion(ctx, principalID)
}

func (d identityDirectory) PlanCredentials(ctx context.Context, principalID string, edit func([]managedidentity.Credential) ([]managedidentity.Credential, error)) (store.Change, error) {
	return d.directory.PlanFederated(ctx, principalID, func(have []identity.FederatedCredential) ([]identity.FederatedCredential, error) {
		credentials := make([]managedidentity.Credential, 0, len(have))
		for _, c := range have {
			credentials = append(credentials, managedidentity.Credential{ID: c.ID, Name: c.Name, Issuer: c.Issuer, Subject: c.Subject, Audiences: c.Audiences})
		}
		credentials, err := edit(credentials)
		if err != nil {
			return nil, err
		}
		next := make([]identity.FederatedCredential, 0, len(credentials))
		for _, c := range credentials {
			next = append(next, identity.FederatedCredential{ID: c.ID, Name: c.Name, Issuer: c.Issuer, Subject: c.Subject, Audiences: c.Audiences})
		}
		return next, nil
	})
}

func (d identityDirectory) Identity(ctx context.Context, resourceID string) (managedidentity.Principal, error) {
	sp, err := d.directory.ManagedIdentity(ctx, resourceID)
	return managedidentity.Principal{ID: sp.ID, ClientID: sp.AppID}, err
}

func newIdentities(s *service) (*managedidentity.Provider, error) {
	return managedidentity.New(managedidentity.Config{Store: s.store, Directory: identityDirectory{s.directory}, Tenant: s.in.Tenant, Location: s.in.Location})
}

// resourceGone tells the directory that a managed identity has outlived its resource.
func resourceGone(s store.Store) func(context.Context, string) (bool, error) {
	return func(ctx context.Context, text string) (bool, error) {
		id, err := resource.ParseID(text)
		if err != nil {
			return false, err
		}
		_, err = arm.GetDocument(ctx, s, id)
		if fault.Is(err, fault.NotFound) {
			return true, nil
		}
		return false, err
	}
}
