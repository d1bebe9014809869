// SPDX-License-Identifier: Apache-2.0

package identity_test

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"bastide.dev/fault"
	"bastide.dev/identity"
	"bastide.dev/store/memory"
)

func TestTokenIsCheckedFully(t *testing.T) {
	w := newWorld(t)
	token := w.ownerToken(t, "https://management.test/")
	p, err := w.Authenticate(t.Context(), token)
	if err != nil || p.Kind != identity.ServicePrincipalKind || p.AppID != w.first.ClientID {
		t.Fatalf("%+v %v", p, err)
	}

	for name, c := range map[string]struct{ token, code string }{
		"none":            {"", "AuthenticationFailed"},
		"garbage":         {"x.y.z", "InvalidAuthenticationToken"},
		"long":            {strings.Repeat("a", 1<<20), "InvalidAuthenticationToken"},
		"other audience":  {w.ownerToken(t, "https://graph.test"), "InvalidAuthenticationTokenAudience"},
		"cut signature":   {token[:len(token)-6], "InvalidAuthenticationToken"},
		"alg none":        {reheader(t, token, func(h map[string]any) { h["alg"] = "none" }), "InvalidAuthenticationToken"},
		"alg HS256":       {reheader(t, token, func(h map[string]any) { h["alg"] = "HS256" }), "InvalidAuthenticationToken"},
		"kid path":        {reheader(t, token, func(h map[string]any) { h["kid"] = "../../etc/passwd" }), "InvalidAuthenticationToken"},
		"tenant":          {w.resign(t, token, func(c *identity.Claims) { c.TenantID = "11111111-1111-1111-1111-111111111111" }), "InvalidAuthenticationTokenTenant"},
		"issuer":          {w.resign(t, token, func(c *identity.Claims) { c.Issuer = "https://evil.test/" }), "InvalidAuthenticationTokenTenant"},
		"not yet":         {w.resign(t, token, func(c *identity.Claims) { c.NotBefore = w.clock.Now().Add(2 * time.Minute).Unix() }), "InvalidAuthenticationToken"},
		"id token":        {w.resign(t, token, func(c *identity.Claims) { c.IDType = "" }), "InvalidAuthenticationToken"},
		"unknown subject": {w.resign(t, token, func(c *identity.Claims) { c.OID = "22222222-2222-2222-2222-222222222222" }), "InvalidAuthenticationToken"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := w.Authenticate(t.Context(), c.token)
			wantCode(t, err, c.code)
		})
	}
	w.clock.add(time.Hour)
	_, err = w.Authenticate(t.Context(), token)
	wantCode(t, err, "ExpiredAuthenticationToken")
}

// reheader changes a token's header and leaves its signature.
func reheader(t *testing.T, token string, change func(map[string]any)) string {
	t.Helper()
	parts := strings.Split(token, ".")
	raw, err := base64.RawURLEncoding.DecodeString(parts[0])
	if err != nil {
		t.Fatal(err)
	}
	header := map[string]any{}
	if err := json.Unmarshal(raw, &header); err != nil {
		t.Fatal(err)
	}
	change(header)
	raw, err = json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	parts[0] = base64.RawURLEncoding.EncodeToString(raw)
	return strings.Join(parts, ".")
}

// resign changes a token's claims and signs it with the instance's own key.
func (w world) resign(t *testing.T, token string, change func(*identity.Claims)) string {
	t.Helper()
	var claims identity.Claims
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{identity.Algorithm})
	if err != nil {
		t.Fatal(err)
	}
	if err := parsed.UnsafeClaimsWithoutVerification(&claims); err != nil {
		t.Fatal(err)
	}
	change(&claims)
	return sign(t, w.signingKey(t), parsed.Headers[0].KeyID, claims, nil)
}

func sign(t *testing.T, key any, kid string, claims identity.Claims, headers map[jose.HeaderKey]any) string {
	t.Helper()
	options := (&jose.SignerOptions{ExtraHeaders: headers}).WithHeader("kid", kid)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: key}, options)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func TestForeignKeysAreRefused(t *testing.T) {
	w := newWorld(t)
	token := w.ownerToken(t, "https://management.test")
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{identity.Algorithm})
	if err != nil {
		t.Fatal(err)
	}
	var claims identity.Claims
	if err := parsed.UnsafeClaimsWithoutVerification(&claims); err != nil {
		t.Fatal(err)
	}
	kid := parsed.Headers[0].KeyID
	mine, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	jwk := jose.JSONWebKey{Key: &mine.PublicKey, KeyID: kid}
	for name, forged := range map[string]string{
		"our kid":          sign(t, mine, kid, claims, nil),
		"another kid":      sign(t, mine, "mine", claims, nil),
		"jwk":              sign(t, mine, kid, claims, map[jose.HeaderKey]any{"jwk": jwk}),
		"jku":              sign(t, mine, kid, claims, map[jose.HeaderKey]any{"jku": "https://evil.test/keys"}),
		"good key and jku": sign(t, w.signingKey(t), kid, claims, map[jose.HeaderKey]any{"jku": "https://evil.test/keys"}),
		"good key and jwk": sign(t, w.signingKey(t), kid, claims, map[jose.HeaderKey]any{"jwk": jwk}),
	} {
		_, err := w.Authenticate(t.Context(), forged)
		if err == nil {
			t.Errorf("%s: accepted", name)
			continue
		}
		wantCode(t, err, "InvalidAuthenticationToken")
	}
	if _, err := w.Authenticate(t.Context(), sign(t, w.signingKey(t), kid, claims, nil)); err != nil {
		t.Errorf("control: %v", err)
	}
}

// FuzzAuthenticate feeds what isn't ours: nothing is accepted, nothing panics.
func FuzzAuthenticate(f *testing.F) {
	f.Add("a.b.c")
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Add("eyJhbGciOiJSUzI1NiIsImtpZCI6IngifQ.e30.AAAA")
	f.Add(`{"payload":"e30","signatures":[]}`)
	d, err := identity.New(identity.Config{Store: memory.New(0), Endpoints: endpoints, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		f.Fatal(err)
	}
	if _, err := d.Bootstrap(f.Context(), identity.BootstrapOptions{Domain: "test"}); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, token string) {
		if _, err := d.Authenticate(t.Context(), token); !fault.Is(err, fault.Unauthorized) {
			t.Errorf("%q: %v", token, err)
		}
	})
}
