// SPDX-License-Identifier: Apache-2.0

package login

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"bastide.dev/fault"
	"bastide.dev/identity"
	"bastide.dev/store"
)

const (
	assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
	maxAssertion  = 16 << 10
	// An assertion is for now. Clients make it for ten minutes; some keep it for an hour.
	maxAssertionLife = 65 * time.Minute
	assertionSkew    = 5 * time.Minute
)

// assertionClaims is what an assertion of RFC 7523 says.
type assertionClaims struct {
	Issuer    string           `json:"iss"`
	Subject   string           `json:"sub"`
	Audience  jwt.Audience     `json:"aud"`
	ID        string           `json:"jti"`
	Expires   *jwt.NumericDate `json:"exp"`
	NotBefore *jwt.NumericDate `json:"nbf"`
}

// usedAssertion remembers one, and where it came from.
type usedAssertion struct {
	Address string    `json:"address"`
	Expires time.Time `json:"expires"`
}

func badAssertion(number int, format string, args ...any) oauthError {
	e := refuse("invalid_client", number, format, args...)
	e.status = http.StatusUnauthorized
	return e
}

// parseAssertion reads an assertion without believing it.
func parseAssertion(assertion string) (*jwt.JSONWebToken, assertionClaims, error) {
	var claims assertionClaims
	bad := badAssertion(50027, "JWT token is invalid or malformed.")
	if len(assertion) > maxAssertion {
		return nil, claims, bad
	}
	token, err := jwt.ParseSigned(assertion, []jose.SignatureAlgorithm{jose.RS256, jose.PS256, jose.RS384, jose.RS512, jose.PS384, jose.PS512, jose.ES256, jose.ES384})
	if err != nil || len(token.Headers) != 1 || token.UnsafeClaimsWithoutVerification(&claims) != nil {
		return nil, claims, bad
	}
	return token, claims, nil
}

// assertionSubject is who an assertion says that it is about; checked later.
func assertionSubject(assertion string) string {
	_, claims, err := parseAssertion(assertion)
	if err != nil {
		return ""
	}
	return claims.Subject
}

// checkAssertion lets a client prove itself by a signature: its own, made with
// the key of a registered certificate, or that of an issuer which it trusts.
func (s *Service) checkAssertion(c *call, clientID, assertion string) (identity.ServicePrincipal, string, identity.Flow, error) {
	none := identity.ServicePrincipal{}
	if kind := c.PostForm.Get("client_assertion_type"); kind != assertionType {
		return none, "", identity.FlowAssertion, refuse("invalid_request", 900144, "'client_assertion_type' must be '%s'.", assertionType)
	}
	token, claims, err := parseAssertion(assertion)
	if err != nil {
		return none, "", identity.FlowAssertion, err
	}
	if !strings.EqualFold(claims.Issuer, clientID) {
		if s.federation == nil {
			return none, "", identity.FlowFederated, badAssertion(700211, "No matching federated identity record found for presented assertion issuer '%s'.", printable(claims.Issuer))
		}
		sp, credential, err := s.federation.CheckFederated(c.Context(), clientID, assertion)
		if err == nil && sp.Disabled {
			err = disabledClient(sp)
		}
		return sp, credential, identity.FlowFederated, asClientError(err)
	}
	sp, credential, err := s.checkOwnAssertion(c, clientID, token, claims)
	return sp, credential, identity.FlowAssertion, err
}

func disabledClient(sp identity.ServicePrincipal) error {
	return refuse("unauthorized_client", 7000112, "Application '%s' is disabled.", sp.AppID)
}

// asClientError makes a refusal of an assertion the client's fault on the wire.
func asClientError(err error) error {
	if e := asOAuth(err); e != nil && e.code == "invalid_grant" {
		return badAssertion(e.number, "%s", e.message)
	}
	return err
}

func (s *Service) checkOwnAssertion(c *call, clientID string, token *jwt.JSONWebToken, claims assertionClaims) (identity.ServicePrincipal, string, error) {
	none := identity.ServicePrincipal{}
	sp, err := s.directory.ServicePrincipal(c.Context(), clientID)
	if fault.Is(err, fault.NotFound) || err == nil && !strings.EqualFold(sp.AppID, clientID) {
		return none, "", refuse("unauthorized_client", 700016, "Application with identifier '%s' was not found in the directory.", printable(clientID))
	}
	if err != nil {
		return none, "", err
	}
	certificate, err := s.verifyAssertion(c.Context(), sp, token)
	if err != nil {
		return sp, "", err
	}
	if err := s.checkAssertionClaims(c, clientID, claims); err != nil {
		return sp, "", err
	}
	now := s.now()
	if now.Before(certificate.Starts) || !now.Before(certificate.Expires) {
		return sp, "", badAssertion(700027, "The certificate with identifier used to sign the client assertion is expired on application. Expiry: %s.", certificate.Expires.UTC().Format(time.RFC3339))
	}
	if sp.Disabled {
		return sp, "", disabledClient(sp)
	}
	return sp, certificate.ID, s.useAssertion(c, clientID, claims)
}

// verifyAssertion finds the certificate by the thumbprint that the header names,
// and nowhere else: what the assertion brings along proves nothing.
func (s *Service) verifyAssertion(ctx context.Context, sp identity.ServicePrincipal, token *jwt.JSONWebToken) (identity.Certificate, error) {
	header := token.Headers[0]
	unknown := badAssertion(700027, "Client assertion failed signature validation: the certificate that it names is not registered for application '%s'.", sp.AppID)
	if !slices.Contains([]string{string(jose.RS256), string(jose.PS256)}, header.Algorithm) {
		return identity.Certificate{}, badAssertion(5002738, "The client assertion's algorithm '%s' is not accepted: use 'PS256' or 'RS256'.", printable(header.Algorithm))
	}
	sum1, sum256 := thumbprint(header, "x5t"), thumbprint(header, "x5t#S256")
	if sum1 == nil && sum256 == nil && header.KeyID != "" { // some send it as kid
		sum1 = decodeThumbprint(header.KeyID)
	}
	if sum1 == nil && sum256 == nil {
		return identity.Certificate{}, unknown
	}
	for _, certificate := range s.directory.ClientCertificates(ctx, sp) {
		if sum256 != nil && !same(sum256, certificate.SHA256) || sum1 != nil && !same(sum1, certificate.SHA1) {
			continue
		}
		parsed, err := x509.ParseCertificate(certificate.DER)
		if err != nil {
			continue // it was checked when it was registered
		}
		var signed map[string]any
		if token.Claims(parsed.PublicKey, &signed) != nil {
			return identity.Certificate{}, badAssertion(700027, "Client assertion failed signature validation.")
		}
		return certificate, nil
	}
	return identity.Certificate{}, unknown
}

// thumbprint reads one of the headers of RFC 7515, in whichever base64 it came.
func thumbprint(header jose.Header, name string) []byte {
	text, ok := header.ExtraHeaders[jose.HeaderKey(name)].(string)
	if !ok {
		return nil
	}
	return decodeThumbprint(text)
}

func decodeThumbprint(text string) []byte {
	text = strings.NewReplacer("+", "-", "/", "_", "=", "").Replace(text)
	sum, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(sum) != 20 && len(sum) != 32 {
		return nil
	}
	return sum
}

func (s *Service) checkAssertionClaims(c *call, clientID string, claims assertionClaims) error {
	authority := s.directory.Endpoints().Authority
	ours := func(audience string) bool {
		for _, segment := range []string{c.tenant.ID, c.tenant.Domain, "adfs", c.segment} {
			for _, rest := range []string{"/oauth2/token", "/oauth2/v2.0/token", "/", "", "/v2.0"} {
				if audience == authority+"/"+segment+rest {
					return true
				}
			}
		}
		return false
	}
	now := s.now()
	switch {
	case !strings.EqualFold(claims.Subject, clientID):
		return badAssertion(700021, "Client assertion application identifier doesn't match 'client_id' parameter.")
	case len(claims.Audience) != 1 || !ours(claims.Audience[0]):
		return badAssertion(700023, "Client assertion audience claim does not match Realm issuer.")
	case claims.Expires == nil || !now.Before(claims.Expires.Time()):
		return badAssertion(700024, "Client assertion is not within its valid time range: it has expired.")
	case claims.Expires.Time().Sub(now) > maxAssertionLife:
		return badAssertion(700024, "Client assertion is not within its valid time range: it is valid for too long.")
	case claims.NotBefore != nil && now.Add(assertionSkew).Before(claims.NotBefore.Time()):
		return badAssertion(700024, "Client assertion is not within its valid time range: it is not valid yet.")
	}
	return nil
}

// useAssertion remembers an assertion until it ends. Some clients send theirs
// several times within its life, as Entra ID lets them; from another address
// than the first one it is a stolen one.
func (s *Service) useAssertion(c *call, clientID string, claims assertionClaims) error {
	if claims.ID == "" || len(claims.ID) > 256 {
		return badAssertion(50027, "JWT token is invalid or malformed: 'jti' is required.")
	}
	key := assertions + keyOf(strings.ToLower(clientID)+"\x00"+claims.ID)
	used := usedAssertion{Address: c.address(), Expires: claims.Expires.Time()}
	err := s.put(c.Context(), key, used, store.Absent)
	if !fault.Is(err, fault.Precondition) {
		return err
	}
	var first usedAssertion
	if _, err := s.get(c.Context(), key, &first); err != nil {
		return err
	}
	if first.Address != used.Address {
		s.log.Warn("client assertion used from a second address", "client", clientID, "first", first.Address, "address", used.Address)
		return badAssertion(5002723, "The client assertion was used before, from another address.")
	}
	return nil
}

// keyOf is a name for a document that anything may have chosen.
func keyOf(text string) string { return base64.RawURLEncoding.EncodeToString(digest(text)) }
