// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"crypto/sha256"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"bastide.dev/fault"
)

// maxToken bounds what is parsed; skew is what clocks may differ by.
const (
	maxToken = 16 << 10
	skew     = time.Minute
)

// PrincipalKind is what acts.
type PrincipalKind string

// The kinds of principals.
const (
	UserKind             PrincipalKind = "User"
	ServicePrincipalKind PrincipalKind = "ServicePrincipal"
	ManagedIdentityKind  PrincipalKind = "ManagedIdentity"
)

// Principal is who a request comes from.
type Principal struct {
	Kind     PrincipalKind
	ID       string // object id
	TenantID string
	AppID    string   // the client that was used; a service principal's own
	Name     string   // user principal name, or app id
	Groups   []string // object ids, also of groups that hold the groups
	TokenID  string
	Expires  time.Time
	Methods  []string  // how a user signed in, as amr names it: who asks for MFA looks here
	AuthTime time.Time // when
}

// verified is a token whose signature and claims were found right; whether its
// principal still stands is asked each time.
type verified struct {
	claims Claims
}

// Authenticate tells who sent a bearer token meant for Resource Manager.
func (d *Directory) Authenticate(ctx context.Context, bearer string) (Principal, error) {
	return d.AuthenticateFor(ctx, bearer, append(d.armAudiences(), AppResourceManager)...)
}

// AuthenticateFor tells who sent a bearer token meant for one of the audiences.
// Every refusal is an Unauthorized fault with ARM's code.
func (d *Directory) AuthenticateFor(ctx context.Context, bearer string, audiences ...string) (Principal, error) {
	if bearer == "" {
		return Principal{}, fault.New(fault.Unauthorized, "AuthenticationFailed", "Authentication failed. The 'Authorization' header is missing.")
	}
	if len(bearer) > maxToken {
		return Principal{}, badToken("The access token is too long.")
	}
	sum := sha256.Sum256([]byte(bearer))
	v, cached := d.verified.Get(sum)
	if !cached {
		claims, err := d.parse(ctx, bearer)
		if err != nil {
			return Principal{}, err
		}
		v = verified{claims: claims}
	}
	if err := d.checkClaims(ctx, v.claims, audiences); err != nil {
		d.verified.Remove(sum)
		return Principal{}, err
	}
	if !cached {
		d.verified.Add(sum, v)
	}
	return d.standing(ctx, v.claims)
}

// parse checks form and signature: one algorithm, a key of ours, no key or
// address of one in the token itself.
func (d *Directory) parse(ctx context.Context, bearer string) (Claims, error) {
	token, err := jwt.ParseSigned(bearer, []jose.SignatureAlgorithm{Algorithm})
	if err != nil || len(token.Headers) != 1 {
		return Claims{}, badToken("The access token is invalid.").Because(err)
	}
	header := token.Headers[0]
	if header.JSONWebKey != nil || header.KeyID == "" {
		return Claims{}, badToken("The access token is invalid.")
	}
	for _, name := range []jose.HeaderKey{"jku", "x5u", "x5c", "crit", "b64"} {
		if _, found := header.ExtraHeaders[name]; found {
			return Claims{}, badToken("The access token has a header that isn't accepted: %s.", name)
		}
	}
	key, err := d.keys.public(ctx, header.KeyID)
	if err != nil {
		return Claims{}, err
	}
	if key == nil {
		return Claims{}, badToken("The access token was signed by an unknown key.")
	}
	var claims Claims
	if err := token.Claims(key, &claims); err != nil {
		return Claims{}, badToken("The access token's signature is invalid.").Because(err)
	}
	return claims, nil
}

// HintedClient is the client that an id token was made for, ours and however old; "" for
// anything else. It says who asks for a sign-out, and proves nothing more.
func (d *Directory) HintedClient(ctx context.Context, idToken string) string {
	if idToken == "" || len(idToken) > maxToken {
		return ""
	}
	claims, err := d.parse(ctx, idToken)
	if err != nil || claims.IDType != "" {
		return ""
	}
	return claims.Audience
}

func (d *Directory) checkClaims(ctx context.Context, c Claims, audiences []string) error {
	tenant, err := d.Tenant(ctx)
	if err != nil {
		return err
	}
	now := d.now()
	switch {
	case c.TenantID != tenant.ID || c.Issuer != d.Issuer(tenant.ID, 1) && c.Issuer != d.Issuer(tenant.ID, 2):
		return fault.New(fault.Unauthorized, "InvalidAuthenticationTokenTenant", "The access token is from the wrong issuer. It must match the tenant '%s' associated with this subscription.", tenant.ID)
	case c.IDType != "user" && c.IDType != "app": // an id token is for its client alone
		return badToken("The token is not an access token.")
	case !now.Before(time.Unix(c.Expires, 0)):
		return fault.New(fault.Unauthorized, "ExpiredAuthenticationToken", "The access token expiry UTC time '%s' is earlier than current UTC time '%s'.",
			time.Unix(c.Expires, 0).UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	case now.Add(skew).Before(time.Unix(c.NotBefore, 0)) || now.Add(skew).Before(time.Unix(c.IssuedAt, 0)):
		return badToken("The access token is not valid yet.")
	}
	for _, a := range audiences {
		if strings.EqualFold(strings.TrimRight(c.Audience, "/"), strings.TrimRight(a, "/")) {
			return nil
		}
	}
	return fault.New(fault.Unauthorized, "InvalidAuthenticationTokenAudience", "The access token has been obtained for wrong audience or resource '%s'. It should exactly match with one of the allowed audiences '%s'.",
		c.Audience, strings.Join(audiences, "','"))
}

// standing checks what may have changed since the token was signed: the
// principal is there and enabled, and what it signed in with still counts.
func (d *Directory) standing(ctx context.Context, c Claims) (Principal, error) {
	p := Principal{ID: c.OID, TenantID: c.TenantID, TokenID: c.UTI, Groups: d.GroupsOf(c.OID), Expires: time.Unix(c.Expires, 0), AppID: c.AppID + c.AZP, Methods: c.AMR, AuthTime: time.Unix(c.AuthTime, 0)}
	issued := time.Unix(c.IssuedAt, 0)
	gone := badToken("The principal of the access token is deleted or disabled, or its credentials have changed.")
	if c.IDType == "user" {
		user, _, err := get[User](ctx, d.objects, users+c.OID)
		if err != nil && !fault.Is(err, fault.NotFound) {
			return Principal{}, err
		}
		if err != nil || user.Disabled || issued.Before(user.ValidFrom) {
			return Principal{}, gone
		}
		p.Kind, p.Name = UserKind, user.Name
		return p, nil
	}
	sp, _, err := get[ServicePrincipal](ctx, d.objects, principals+c.OID)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return Principal{}, err
	}
	if err != nil || sp.Disabled || issued.Before(sp.ValidFrom) {
		return Principal{}, gone
	}
	if c.Credential != "" {
		if !d.credentialStands(ctx, *sp, c.Credential) {
			return Principal{}, gone
		}
	}
	p.Kind, p.Name = ServicePrincipalKind, sp.AppID
	if sp.Type == ManagedIdentity {
		p.Kind = ManagedIdentityKind
	}
	return p, nil
}

func badToken(format string, args ...any) *fault.Error {
	return fault.New(fault.Unauthorized, "InvalidAuthenticationToken", format, args...)
}
