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
	Profile

	MustChange  bool      `json:"mustChange,omitempty"` // the password, at the next sign-in
	PasswordSet time.Time `json:"passwordSet,omitzero"`
}

// Profile is what a directory says of a person and never looks at itself, under
// Microsoft Graph's names.
type Profile struct {
	GivenName         string   `json:"givenName,omitempty"`
	Surname           string   `json:"surname,omitempty"`
	Mail              string   `json:"mail,omitempty"`
	MailNickname      string   `json:"mailNickname,omitempty"`
	OtherMails        []string `json:"otherMails,omitempty"`
	JobTitle          string   `json:"jobTitle,omitempty"`
	Department        string   `json:"department,omitempty"`
	CompanyName       string   `json:"companyName,omitempty"`
	OfficeLocation    string   `json:"officeLocation,omitempty"`
	BusinessPhones    []string `json:"businessPhones,omitempty"`
	MobilePhone       string   `json:"mobilePhone,omitempty"`
	FaxNumber         string   `json:"faxNumber,omitempty"`
	StreetAddress     string   `json:"streetAddress,omitempty"`
	City              string   `json:"city,omitempty"`
	State             string   `json:"state,omitempty"`
	PostalCode        string   `json:"postalCode,omitempty"`
	Country           string   `json:"country,omitempty"`
	UsageLocation     string   `json:"usageLocation,omitempty"`
	PreferredLanguage string   `json:"preferredLanguage,omitempty"`
	EmployeeID        string   `json:"employeeId,omitempty"`
	EmployeeType      string   `json:"employeeType,omitempty"`
	PasswordPolicies  string   `json:"passwordPolicies,omitempty"`
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

	WebRedirectURIs []string         `json:"webRedirectUris,omitempty"` // of a confidential client; RedirectURIs are a public one's
	SPARedirectURIs []string         `json:"spaRedirectUris,omitempty"` // of a client in a browser: public, and with PKCE always
	Scopes          []Scope          `json:"scopes,omitempty"`          // what users can consent to when it is a resource
	AppRoles        []AppRole        `json:"appRoles,omitempty"`        // what can be assigned to users and applications when it is a resource
	Required        []RequiredAccess `json:"requiredResourceAccess,omitempty"`
	PreAuthorized   []PreAuthorized  `json:"preAuthorized,omitempty"`
	GroupClaims     string           `json:"groupMembershipClaims,omitempty"` // "", None, SecurityGroup, All: whether its tokens name groups
	Owners          []string         `json:"owners,omitempty"`                // object ids
	Tags            []string         `json:"tags,omitempty"`
	Notes           string           `json:"notes,omitempty"`
	Description     string           `json:"description,omitempty"`
	HomePage        string           `json:"homePageUrl,omitempty"`
	LogoutURL       string           `json:"logoutUrl,omitempty"`
}

// Scope is a permission that a user gives to a client, Graph's oauth2PermissionScope.
type Scope struct {
	ID                      string `json:"id"`
	Value                   string `json:"value"`
	Type                    string `json:"type"` // User, or Admin: an administrator has to consent
	Enabled                 bool   `json:"isEnabled"`
	AdminConsentDescription string `json:"adminConsentDescription"`
	AdminConsentDisplayName string `json:"adminConsentDisplayName"`
	UserConsentDescription  string `json:"userConsentDescription"`
	UserConsentDisplayName  string `json:"userConsentDisplayName"`
}

// AppRole is a role that an application defines for its own callers.
type AppRole struct {
	ID          string   `json:"id"`
	Value       string   `json:"value"`
	DisplayName string   `json:"displayName"`
	Description string   `json:"description"`
	Enabled     bool     `json:"isEnabled"`
	Members     []string `json:"allowedMemberTypes"` // User, Application
}

// RequiredAccess is what a client says it will ask of a resource.
type RequiredAccess struct {
	ResourceAppID string           `json:"resourceAppId"`
	Access        []ResourceAccess `json:"resourceAccess"`
}

// ResourceAccess is one permission: a Scope's or an AppRole's id.
type ResourceAccess struct {
	ID   string `json:"id"`
	Type string `json:"type"` // Scope, Role
}

// PreAuthorized is a client that needs no consent for some scopes of a resource.
type PreAuthorized struct {
	AppID    string   `json:"appId"`
	ScopeIDs []string `json:"delegatedPermissionIds"`
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

	AssignmentRequired bool     `json:"appRoleAssignmentRequired,omitempty"` // only who has one of its app roles gets tokens for it
	Owners             []string `json:"owners,omitempty"`
	Tags               []string `json:"tags,omitempty"`
	Notes              string   `json:"notes,omitempty"`
	Description        string   `json:"description,omitempty"`
	FirstParty         bool     `json:"-"` // of an application that every tenant has: stored nowhere
}

// Group is a set of users, principals and groups.
type Group struct {
	ID          string    `json:"id"`
	DisplayName string    `json:"displayName"`
	Members     []string  `json:"members,omitempty"` // object ids
	Created     time.Time `json:"created"`

	Description    string   `json:"description,omitempty"`
	MailNickname   string   `json:"mailNickname,omitempty"`
	RoleAssignable bool     `json:"isAssignableToRole,omitempty"` // can hold directory roles; never changes
	Owners         []string `json:"owners,omitempty"`
}

// RoleAssignment gives a directory role to a principal, on the whole directory.
type RoleAssignment struct {
	ID          string    `json:"id"`
	PrincipalID string    `json:"principalId"`
	Role        string    `json:"roleDefinitionId"` // a template id
	Created     time.Time `json:"created"`
}

// AppRoleAssignment gives a resource's app role to a principal.
type AppRoleAssignment struct {
	ID          string    `json:"id"`
	PrincipalID string    `json:"principalId"`
	ResourceID  string    `json:"resourceId"` // object id of the resource's service principal
	AppRoleID   string    `json:"appRoleId"`
	Created     time.Time `json:"created"`
}

// Grant is a consent: a client may use a resource with a user's rights.
type Grant struct {
	ID          string   `json:"id"`
	ClientID    string   `json:"clientId"`              // object id of the client's service principal
	PrincipalID string   `json:"principalId,omitempty"` // the user; "" stands for every user
	ResourceID  string   `json:"resourceId"`            // object id of the resource's service principal
	Scopes      []string `json:"scopes"`
}

// Secret is a generated client secret, of which only a salted hash is kept. It
// has over 200 random bits, so that a fast hash is as good as a slow one.
type Secret struct {
	ID      string    `json:"id"`
	Hint    string    `json:"hint"` // the first characters, as Graph shows them
	Salt    []byte    `json:"salt"`
	Hash    []byte    `json:"hash"`
	Expires time.Time `json:"expires"`
	Starts  time.Time `json:"starts,omitzero"` // shown only: a secret is good from the moment it is made
	Name    string    `json:"displayName,omitempty"`
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
	roleHolders  = prefix + "directoryroles/"
	appRoles     = prefix + "approles/"
	grants       = prefix + "grants/"

	// formerAssignments were role assignments of Azure's resources, which package
	// authorization takes over from an older instance.
	formerAssignments = prefix + "assignments/"

	// marks hold each managed identity under its resource's id: who writes the
	// mark first decides. They stand outside of the watched prefix.
	marks = "identity-marks/managed/"
)
