// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"crypto/sha256"
	"crypto/subtle"
	"time"
)

// Tenant is the one directory of an instance, and the subscription that trusts it.
type Tenant struct {
	ID             string    `json:"id"`
	DisplayName    string    `json:"displayName"`
	Domain         string    `json:"domain"` // what user names end in
	SubscriptionID string    `json:"subscriptionId"`
	Created        time.Time `json:"created"`
}

// User is a person.
type User struct {
	ID           string    `json:"id"`
	Name         string    `json:"userPrincipalName"`
	DisplayName  string    `json:"displayName"`
	Disabled     bool      `json:"disabled,omitempty"`
	PasswordHash string    `json:"passwordHash"` // argon2id
	ValidFrom    time.Time `json:"validFrom"`    // tokens and grants from before are refused
	Created      time.Time `json:"created"`
}

// Application is what asks for tokens (a client) or what tokens are for (a resource).
type Application struct {
	ID             string    `json:"id"`
	AppID          string    `json:"appId"`
	DisplayName    string    `json:"displayName"`
	IdentifierURIs []string  `json:"identifierUris,omitempty"`
	RedirectURIs   []string  `json:"redirectUris,omitempty"`
	Public         bool      `json:"public,omitempty"` // holds no secret: may use the flows with a person
	TokenVersion   int       `json:"tokenVersion,omitempty"`
	Secrets        []Secret  `json:"secrets,omitempty"`
	Created        time.Time `json:"created"`

	Certificates []Certificate         `json:"certificates,omitempty"`
	Federated    []FederatedCredential `json:"federated,omitempty"`
}

// PrincipalType is a kind of service principal, as Graph names it.
type PrincipalType string

// The kinds of service principals.
const (
	ApplicationPrincipal PrincipalType = "Application"
	ManagedIdentity      PrincipalType = "ManagedIdentity"
)

// ServicePrincipal is an application or a managed identity as an actor of the tenant.
type ServicePrincipal struct {
	ID          string        `json:"id"`
	AppID       string        `json:"appId"`
	DisplayName string        `json:"displayName"`
	Type        PrincipalType `json:"type"`
	ResourceID  string        `json:"resourceId,omitempty"` // a managed identity's ARM id
	Names       []string      `json:"names,omitempty"`
	Disabled    bool          `json:"disabled,omitempty"`
	Secrets     []Secret      `json:"secrets,omitempty"`
	Platform    []Secret      `json:"platform,omitempty"` // PlatformSecret's; no API shows or replaces them
	ValidFrom   time.Time     `json:"validFrom"`
	Created     time.Time     `json:"created"`

	Certificates []Certificate         `json:"certificates,omitempty"`
	Federated    []FederatedCredential `json:"federated,omitempty"` // a managed identity's; an application's are its own
}

// Group is a set of users, principals and groups.
type Group struct {
	ID          string    `json:"id"`
	DisplayName string    `json:"displayName"`
	Members     []string  `json:"members,omitempty"` // object ids
	Created     time.Time `json:"created"`
}

// Assignment gives a principal a role on a scope and all below it.
type Assignment struct {
	ID          string    `json:"id"`
	PrincipalID string    `json:"principalId"`
	Role        string    `json:"role"` // a role definition's GUID
	Scope       string    `json:"scope"`
	Created     time.Time `json:"created"`
}

// Secret is a generated client secret, of which only a salted hash is kept. It
// has over 200 random bits, so that a fast hash is as good as a slow one.
type Secret struct {
	ID      string    `json:"id"`
	Hint    string    `json:"hint"` // the first characters, as Graph shows them
	Salt    []byte    `json:"salt"`
	Hash    []byte    `json:"hash"`
	Expires time.Time `json:"expires"`
}

func (s Secret) matches(secret string) bool {
	return subtle.ConstantTimeCompare(s.Hash, saltedHash(s.Salt, secret)) == 1
}

func saltedHash(salt []byte, secret string) []byte {
	h := sha256.New()
	h.Write(salt)
	h.Write([]byte(secret))
	return h.Sum(nil)
}

// Where documents are kept. The prefix of the directory is watched as a whole.
const (
	prefix       = "identity/"
	tenantKey    = prefix + "tenant"
	users        = prefix + "users/"
	applications = prefix + "applications/"
	principals   = prefix + "principals/"
	groups       = prefix + "groups/"
	assignments  = prefix + "assignments/"

	// marks hold each managed identity under its resource's id: who writes the
	// mark first decides. They stand outside of the watched prefix.
	marks = "identity-marks/managed/"
)
