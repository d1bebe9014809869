// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"
)

// TokenLifetime of access and id tokens.
const TokenLifetime = time.Hour

// maxGroups is how many groups a token names; with more it says only that there are some.
const maxGroups = 200

// Claims of an access token in the forms of Entra ID's versions 1 and 2.
type Claims struct {
	Audience  string   `json:"aud"`
	Issuer    string   `json:"iss"`
	IssuedAt  int64    `json:"iat"`
	NotBefore int64    `json:"nbf"`
	Expires   int64    `json:"exp"`
	ACR       string   `json:"acr,omitempty"`
	AMR       []string `json:"amr,omitempty"`
	AuthTime  int64    `json:"auth_time,omitempty"` // when a person last proved themselves
	AppID     string   `json:"appid,omitempty"`     // v1
	AppIDACR  string   `json:"appidacr,omitempty"`
	AZP       string   `json:"azp,omitempty"` // v2
	AZPACR    string   `json:"azpacr,omitempty"`
	Groups    []string `json:"groups,omitempty"`
	HasGroups bool     `json:"hasgroups,omitempty"`
	Roles     []string `json:"roles,omitempty"` // app roles of the audience
	WIDs      []string `json:"wids,omitempty"`  // template ids of directory roles
	IDP       string   `json:"idp,omitempty"`
	IDType    string   `json:"idtyp,omitempty"`
	Address   string   `json:"ipaddr,omitempty"`
	Name      string   `json:"name,omitempty"`
	OID       string   `json:"oid"`
	Scope     string   `json:"scp,omitempty"`
	Subject   string   `json:"sub"`
	TenantID  string   `json:"tid"`
	Unique    string   `json:"unique_name,omitempty"`
	UPN       string   `json:"upn,omitempty"`
	Preferred string   `json:"preferred_username,omitempty"`
	UTI       string   `json:"uti"`
	Version   string   `json:"ver"`
	ManagedID string   `json:"xms_mirid,omitempty"`
	Nonce     string   `json:"nonce,omitempty"` // id tokens
	SessionID string   `json:"sid,omitempty"`   // id tokens
	// With too many groups, ClaimNames says which of ClaimSources knows them.
	ClaimNames   map[string]string      `json:"_claim_names,omitempty"`
	ClaimSources map[string]ClaimSource `json:"_claim_sources,omitempty"`
	// Credential is the secret, certificate or federated credential that the
	// token was bought with: when it ends, the token does.
	Credential string `json:"bst_cred,omitempty"`
}

// ClaimSource is where a claim can be asked for.
type ClaimSource struct {
	Endpoint string `json:"endpoint"`
}

// AppIDACR values: how the client proved itself.
const (
	ClientPublic      = "0"
	ClientSecret      = "1"
	ClientCertificate = "2" // or an assertion of another issuer
)

// Issuer of a token version, also the tenant's in discovery documents.
func (d *Directory) Issuer(tenantID string, version int) string {
	issuer := d.config.Endpoints.Authority + "/" + tenantID + "/"
	if version == 2 {
		issuer += "v2.0"
	}
	return issuer
}

// UserGrant is what a token of a person says.
type UserGrant struct {
	User      User
	Client    Application
	ClientACR string // how the client proved itself
	Resource  Resource
	Scopes    []string
	Methods   []string  // how the user did
	AuthTime  time.Time // and when
	Address   string
}

// UserToken signs an access token for a user who signed in through a client.
func (d *Directory) UserToken(ctx context.Context, g UserGrant) (string, error) {
	tenant, err := d.Tenant(ctx)
	if err != nil {
		return "", err
	}
	c := d.claims(tenant, g.Resource, g.Client.AppID, g.ClientACR)
	c.OID, c.IDType, c.Scope, c.AMR, c.ACR = g.User.ID, "user", strings.Join(g.Scopes, " "), g.Methods, "1"
	c.Name, c.Address, c.Subject, c.AuthTime = g.User.DisplayName, g.Address, subject(g.User.ID, g.Client.AppID), g.AuthTime.Unix()
	if g.Resource.Application.TokenVersion == 2 {
		c.Preferred = g.User.Name
	} else {
		c.UPN, c.Unique = g.User.Name, g.User.Name
	}
	if err := d.addMemberships(ctx, &c, g.Resource, "users"); err != nil {
		return "", err
	}
	return d.sign(ctx, c)
}

// PrincipalToken signs an access token for a service principal itself.
// credential is the id of the secret, certificate or federated credential it
// showed, "" for none.
func (d *Directory) PrincipalToken(ctx context.Context, sp ServicePrincipal, resource Resource, credential string) (string, error) {
	tenant, err := d.Tenant(ctx)
	if err != nil {
		return "", err
	}
	acr := ClientSecret
	if _, isSecret := d.secret(ctx, sp, func(s Secret) bool { return s.ID == credential }); credential != "" && !isSecret {
		acr = ClientCertificate
	}
	c := d.claims(tenant, resource, sp.AppID, acr)
	c.OID, c.Subject, c.IDType, c.IDP, c.Credential = sp.ID, sp.ID, "app", c.Issuer, credential
	if sp.Type == ManagedIdentity {
		c.ManagedID = sp.ResourceID
	}
	if err := d.addMemberships(ctx, &c, resource, "servicePrincipals"); err != nil {
		return "", err
	}
	return d.sign(ctx, c)
}

// IDToken tells a client who signed in. session names the sign-in, "" none.
func (d *Directory) IDToken(ctx context.Context, g UserGrant, nonce, session string, version int) (string, error) {
	tenant, err := d.Tenant(ctx)
	if err != nil {
		return "", err
	}
	now := d.stamp()
	return d.sign(ctx, Claims{Audience: g.Client.AppID, Issuer: d.Issuer(tenant.ID, version), IssuedAt: now.Unix(), NotBefore: now.Unix(),
		Expires: now.Add(TokenLifetime).Unix(), AMR: g.Methods, AuthTime: g.AuthTime.Unix(), Name: g.User.DisplayName, OID: g.User.ID,
		Subject: subject(g.User.ID, g.Client.AppID), TenantID: tenant.ID, Unique: g.User.Name, UPN: g.User.Name, Preferred: g.User.Name,
		UTI: Random(22), Nonce: nonce, SessionID: session, Version: fmt.Sprintf("%d.0", version)})
}

func (d *Directory) claims(tenant Tenant, r Resource, clientID, acr string) Claims {
	now := d.stamp()
	c := Claims{Audience: r.Audience, IssuedAt: now.Unix(), NotBefore: now.Unix(), Expires: now.Add(TokenLifetime).Unix(),
		TenantID: tenant.ID, UTI: Random(22), Version: "1.0", Issuer: d.Issuer(tenant.ID, 1)}
	if r.Application.TokenVersion == 2 {
		c.Version, c.Issuer, c.Audience, c.AZP, c.AZPACR = "2.0", d.Issuer(tenant.ID, 2), r.Application.AppID, clientID, acr
		return c
	}
	c.AppID, c.AppIDACR = clientID, acr
	return c
}

// addMemberships says which groups and roles the principal has, as far as the
// resource wants to know: one of the tenant's own has to ask for groups.
func (d *Directory) addMemberships(ctx context.Context, c *Claims, r Resource, kind string) error {
	own := r.Application.ID != ""
	if !own || r.Application.GroupClaims == "SecurityGroup" || r.Application.GroupClaims == "All" {
		if c.Groups = d.GroupsOf(c.OID); len(c.Groups) > maxGroups {
			c.Groups, c.HasGroups = nil, true
			c.ClaimNames = map[string]string{"groups": "src1"}
			c.ClaimSources = map[string]ClaimSource{"src1": {d.config.Endpoints.Graph + "/v1.0/" + kind + "/" + c.OID + "/getMemberObjects"}}
		}
	}
	if !own {
		c.WIDs = d.RolesOf(c.OID)
	}
	var err error
	if len(r.Application.AppRoles) > 0 {
		c.Roles, err = d.AppRolesOf(ctx, c.OID, r.Application.AppID)
	}
	return err
}

func (d *Directory) sign(ctx context.Context, c Claims) (string, error) {
	key, err := d.keys.current(ctx)
	if err != nil {
		return "", err
	}
	token, err := jwt.Signed(key.signer).Claims(c).Serialize()
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	return token, nil
}

// subject is a user's name towards one client, so that two clients can't compare theirs.
func subject(userID, clientID string) string {
	sum := sha256.Sum256([]byte("subject\x00" + userID + "\x00" + clientID))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
