// SPDX-License-Identifier: Apache-2.0

// Package managedidentity is Microsoft.ManagedIdentity: user-assigned identities,
// the credentials of other issuers that they take, and how a resource's own,
// system-assigned identity is shown.
//
// An identity is a document here and a principal in the directory. Both are
// written in one transaction, so that no kill leaves one without the other; what
// the directory has to change it says itself. The body of a document holds
// principalId and clientId, where clusters and machines read them. Only cmd and
// testcloud import it.
package managedidentity

import (
	"context"
	"fmt"

	"bastide.dev/arm"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// Namespace is the provider's.
const Namespace = "Microsoft.ManagedIdentity"

// Type is the full name of user-assigned identities.
const Type = Namespace + "/userAssignedIdentities"

// Principal is an identity in the directory.
type Principal struct {
	ID       string // object id
	ClientID string
}

// Credential lets tokens of another issuer stand for an identity.
type Credential struct {
	ID, Name, Issuer, Subject string
	Audiences                 []string
}

// Directory is where principals are. Its changes belong into the transaction
// that writes the resource, and are conditional: one that lost a race is planned
// again. It is safe for concurrent use.
type Directory interface {
	// PlanIdentity draws the principal of a new resource, or finds the one that it has.
	PlanIdentity(ctx context.Context, name, resourceID string) (Principal, []store.Change, error)
	// PlanDeletion ends a principal; what isn't there needs no change.
	PlanDeletion(ctx context.Context, principalID string) ([]store.Change, error)
	// PlanCredentials changes a principal's credentials by edit, whose error is returned.
	PlanCredentials(ctx context.Context, principalID string, edit func([]Credential) ([]Credential, error)) (store.Change, error)
	// Identity is the principal of a resource; fault.NotFound when it has none.
	Identity(ctx context.Context, resourceID string) (Principal, error)
}

// Config is what a Provider needs; all is required.
type Config struct {
	Store     store.Store
	Directory Directory
	Tenant    string
	Location  string
}

// Provider is the resource provider. It keeps nothing but its config.
type Provider struct{ Config }

// New checks the config.
func New(config Config) (*Provider, error) {
	if config.Store == nil || config.Directory == nil || config.Tenant == "" || config.Location == "" {
		return nil, fmt.Errorf("managedidentity: a dependency is missing in the config")
	}
	return &Provider{config}, nil
}

// ARM returns the provider's rows.
func (p *Provider) ARM() arm.Provider {
	return arm.Provider{Namespace: Namespace, Types: []arm.Type{
		{
			Name: "userAssignedIdentities", Versions: versions(), Model: identityModel, ReadOnly: arm.ReadOnlyPaths(identityProperties()),
			Put: p.putIdentity, Delete: p.deleteIdentity,
		},
		{
			Name: "userAssignedIdentities/federatedIdentityCredentials", Versions: credentialVersions(), Model: credentialModel, Queue: true,
			Put: p.putCredential, Delete: p.deleteCredential,
		},
		{Name: "identities", Scope: arm.OnAny, Versions: versions(), Get: p.systemAssigned},
	}}
}

// versions are the API versions of identities, Azure's own.
func versions() []resource.APIVersion {
	return append(credentialVersions(), "2021-09-30-preview", "2018-11-30", "2015-08-31-preview")
}

// credentialVersions are those that have federated credentials.
func credentialVersions() []resource.APIVersion {
	return []resource.APIVersion{"2025-01-31-preview", "2024-11-30", "2023-07-31-preview", "2023-01-31", "2022-01-31-preview"}
}
