// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
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
	AppID     string   `json:"appid,omitempty"` // v1
	AppIDACR  string   `json:"appidacr,omitempty"`
	AZP       string   `json:"azp,omitempty"` // v2
	AZPACR    string   `json:"azpacr,omitempty"`
	Groups    []string `json:"groups,omitempty"`
	HasGroups bool     `json:"hasgroups,omitempty"`
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
	// Credential is the secret that the token was bought with: when it ends, the token does.
	Credential string `json:"bst_cred,omitempty"`
}

// AppIDACR values: how the client proved itself.
const (
	ClientPublic = "0"
	ClientSecret = "1"
)

// Issuer of a token version, also the tenant's in discovery documents.
func (d *Directory) Issuer(tenantID string, version int) string {
	issuer := d.config.Endpoints.Authority + "/" + tenantID + "/"
	if version == 2 {
		issuer += "v2.0"
	}
	return issuer
}

// UserToken signs an access token for a user who signed in through a client.
func (d *Directory) UserToken(ctx context.Context, user User, client Application, resource Resource, address string) (string, error) {
	tenant, err := d.Tenant(ctx)
	if err != nil {
		return "", err
	}
	c := d.claims(tenant, resource, client.AppID, ClientPublic)
	c.OID, c.IDType, c.Scope, c.AMR, c.ACR = user.ID, "user", "user_impersonation", []string{"pwd"}, "1"
	c.Name, c.Address, c.Subject = user.DisplayName, address, subject(user.ID, client.AppID)
	if resource.Application.TokenVersion == 2 {
		c.Preferred = user.Name
	} else {
		c.UPN, c.Unique = user.Name, user.Name
	}
	d.addGroups(&c)
	return d.sign(ctx, c)
}

// PrincipalToken signs an access token for a service principal itself.
// credential is the id of the secret it showed, "" for a managed identity.
func (d *Directory) PrincipalToken(ctx context.Context, sp ServicePrincipal, resource Resource, credential string) (string, error) {
	tenant, err := d.Tenant(ctx)
	if err != nil {
		return "", err
	}
	c := d.claims(tenant, resource, sp.AppID, ClientSecret)
	c.OID, c.Subject, c.IDType, c.IDP, c.Credential = sp.ID, sp.ID, "app", c.Issuer, credential
	if sp.Type == ManagedIdentity {
		c.ManagedID = sp.ResourceID
	}
	d.addGroups(&c)
	return d.sign(ctx, c)
}

// IDToken tells a client who signed in.
func (d *Directory) IDToken(ctx context.Context, user User, clientID, nonce string, version int) (string, error) {
	tenant, err := d.Tenant(ctx)
	if err != nil {
		return "", err
	}
	now := d.stamp()
	return d.sign(ctx, Claims{Audience: clientID, Issuer: d.Issuer(tenant.ID, version), IssuedAt: now.Unix(), NotBefore: now.Unix(),
		Expires: now.Add(TokenLifetime).Unix(), AMR: []string{"pwd"}, Name: user.DisplayName, OID: user.ID, Subject: subject(user.ID, clientID),
		TenantID: tenant.ID, Unique: user.Name, UPN: user.Name, Preferred: user.Name, UTI: Random(22), Nonce: nonce, Version: fmt.Sprintf("%d.0", version)})
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

func (d *Directory) addGroups(c *Claims) {
	if c.Groups = d.GroupsOf(c.OID); len(c.Groups) > maxGroups {
		c.Groups, c.HasGroups = nil, true
	}
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
