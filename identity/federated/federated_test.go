// SPDX-License-Identifier: Apache-2.0

package federated

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"bastide.dev/fault"
	"bastide.dev/identity"
)

const (
	clusterIssuer = "https://oidc.test.internal/t/c/"
	subject       = "system:serviceaccount:shop:Cart"
	audience      = "api://AzureADTokenExchange"
	appID         = "aaaaaaaa-0000-0000-0000-000000000001"
	managedID     = "aaaaaaaa-0000-0000-0000-000000000002"
	otherID       = "aaaaaaaa-0000-0000-0000-000000000003"
)

// world is a directory of three principals and one cluster's issuer.
type world struct {
	principals map[string]identity.ServicePrincipal
	apps       map[string]identity.Application
	keys       map[string]jose.JSONWebKeySet // of own issuers
}

func (w *world) ServicePrincipal(_ context.Context, id string) (identity.ServicePrincipal, error) {
	if sp, ok := w.principals[strings.ToLower(id)]; ok {
		return sp, nil
	}
	return identity.ServicePrincipal{}, fault.New(fault.NotFound, "", "none")
}

func (w *world) Application(_ context.Context, id string) (identity.Application, error) {
	if app, ok := w.apps[strings.ToLower(id)]; ok {
		return app, nil
	}
	return identity.Application{}, fault.New(fault.NotFound, "", "none")
}

func (w *world) KeySet(_ context.Context, issuer string) (jose.JSONWebKeySet, bool, error) {
	if !strings.HasPrefix(issuer, "https://oidc.test.internal/") {
		return jose.JSONWebKeySet{}, false, nil
	}
	keys, ok := w.keys[issuer]
	if !ok {
		return keys, true, fault.New(fault.NotFound, "", "none")
	}
	return keys, true, nil
}

func newWorld(keys ...jose.JSONWebKey) *world {
	trusted := []identity.FederatedCredential{
		{ID: "other", Issuer: clusterIssuer, Subject: "system:serviceaccount:shop:other", Audiences: []string{audience}},
		{ID: "cart", Issuer: clusterIssuer, Subject: subject, Audiences: []string{audience}},
	}
	return &world{
		principals: map[string]identity.ServicePrincipal{
			appID:     {ID: "sp-app", AppID: appID, Type: identity.ApplicationPrincipal},
			managedID: {ID: "sp-mi", AppID: managedID, Type: identity.ManagedIdentity, Federated: trusted},
			otherID:   {ID: "sp-other", AppID: otherID, Type: identity.ApplicationPrincipal, Federated: trusted}, // not where an application's stand
		},
		apps: map[string]identity.Application{appID: {AppID: appID, Federated: trusted}, otherID: {AppID: otherID}},
		keys: map[string]jose.JSONWebKeySet{clusterIssuer: {Keys: keys}},
	}
}

func rsaKey(t testing.TB, bits int) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func public(id string, key crypto.Signer) jose.JSONWebKey {
	return jose.JSONWebKey{Key: key.Public(), KeyID: id, Use: "sig"}
}

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func claims(changes map[string]any) map[string]any {
	all := map[string]any{"iss": clusterIssuer, "sub": subject, "aud": []string{audience},
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(time.Hour).Unix()}
	maps.Copy(all, changes)
	maps.DeleteFunc(all, func(_ string, v any) bool { return v == nil })
	return all
}

func sign(t testing.TB, algorithm jose.SignatureAlgorithm, key any, id string, all map[string]any, extra ...func(*jose.SignerOptions)) string {
	t.Helper()
	options := (&jose.SignerOptions{}).WithType("JWT")
	if id != "" {
		options = options.WithHeader("kid", id)
	}
	for _, f := range extra {
		f(options)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: key}, options)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func checker(t testing.TB, w *world) *Checker {
	t.Helper()
	c, err := New(Config{Directory: w, Local: w, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func code(err error) string {
	if err == nil {
		return ""
	}
	return fault.From(err).Code
}

func TestAssertionStandsForPrincipal(t *testing.T) {
	key := rsaKey(t, 2048)
	c := checker(t, newWorld(public("k1", key)))
	good := sign(t, jose.RS256, key, "k1", claims(nil))
	for client, want := range map[string]string{appID: "sp-app", managedID: "sp-mi", strings.ToUpper(appID): "sp-app"} {
		for range 2 { // it may be shown again
			sp, credential, err := c.CheckFederated(t.Context(), client, good)
			if err != nil || sp.ID != want || credential != "cart" {
				t.Errorf("%s: %s by %s: %v", client, sp.ID, credential, err)
			}
		}
	}
}

// TestRefused: each row is one lie, and the code that names it.
func TestRefused(t *testing.T) {
	key, other := rsaKey(t, 2048), rsaKey(t, 2048)
	w := newWorld(public("k1", key))
	c := checker(t, w)
	for name, row := range map[string]struct {
		client  string
		changes map[string]any
		want    string
	}{
		"unknown client":            {client: "bbbbbbbb-0000-0000-0000-000000000000", want: identity.CodeUnknownClient},
		"object id for app id":      {client: "sp-app", want: identity.CodeUnknownClient},
		"no credential":             {client: otherID, want: CodeIssuer},
		"issuer":                    {changes: map[string]any{"iss": "https://oidc.test.internal/t/d/"}, want: CodeIssuer},
		"issuer without its slash":  {changes: map[string]any{"iss": strings.TrimSuffix(clusterIssuer, "/")}, want: CodeIssuer},
		"subject":                   {changes: map[string]any{"sub": "system:serviceaccount:shop:cash"}, want: CodeSubject},
		"subject in another case":   {changes: map[string]any{"sub": strings.ToLower(subject)}, want: CodeSubject},
		"subject in another claim":  {changes: map[string]any{"sub": "x", "Sub": subject, "SUB": subject}, want: CodeSubject},
		"audience":                  {changes: map[string]any{"aud": "api://other"}, want: CodeAudience},
		"audience in another case":  {changes: map[string]any{"aud": strings.ToLower(audience)}, want: CodeAudience},
		"nothing said":              {changes: map[string]any{"sub": nil}, want: CodeNoMatch},
		"no audience":               {changes: map[string]any{"aud": []string{}}, want: CodeNoMatch},
		"over":                      {changes: map[string]any{"exp": now.Add(-skew - time.Second).Unix()}, want: CodeTime},
		"without end":               {changes: map[string]any{"exp": nil}, want: CodeTime},
		"not yet":                   {changes: map[string]any{"nbf": now.Add(skew + time.Second).Unix()}, want: CodeTime},
		"issued in the future":      {changes: map[string]any{"iat": now.Add(skew + time.Second).Unix()}, want: CodeTime},
		"an end that is no date":    {changes: map[string]any{"exp": 1e300}, want: CodeUnreadable},
		"an end that is a text":     {changes: map[string]any{"exp": "9999999999"}, want: CodeUnreadable},
		"an issuer that is no text": {changes: map[string]any{"iss": []string{clusterIssuer}}, want: CodeUnreadable},
	} {
		client := row.client
		if client == "" {
			client = appID
		}
		sp, _, err := c.CheckFederated(t.Context(), client, sign(t, jose.RS256, key, "k1", claims(row.changes)))
		if code(err) != row.want || sp.ID != "" {
			t.Errorf("%s: %v for %q, want %s", name, err, sp.ID, row.want)
		}
	}
	for name, row := range map[string]struct{ assertion, want string }{
		"another's key":       {sign(t, jose.RS256, other, "k1", claims(nil)), CodeSignature},
		"unknown key":         {sign(t, jose.RS256, key, "k2", claims(nil)), CodeSignature},
		"no key id":           {sign(t, jose.RS256, key, "", claims(nil)), CodeUnreadable},
		"PS256":               {sign(t, jose.PS256, key, "k1", claims(nil)), CodeUnreadable},
		"RS512":               {sign(t, jose.RS512, key, "k1", claims(nil)), CodeUnreadable},
		"HS256 by public key": {sign(t, jose.HS256, key.N.Bytes(), "k1", claims(nil)), CodeUnreadable},
		"none":                {"eyJhbGciOiJub25lIn0.e30.", CodeUnreadable},
		"empty":               {"", CodeUnreadable},
		"long":                {strings.Repeat("a", maxAssertion+1), CodeUnreadable},
		"JSON serialization":  {`{"payload":"e30","signatures":[]}`, CodeUnreadable},
		"its own key": {sign(t, jose.RS256, other, "k1", claims(nil), func(o *jose.SignerOptions) {
			o.EmbedJWK = true
			o.WithHeader("jku", "https://evil.example/keys")
		}), CodeSignature},
	} {
		if _, _, err := c.CheckFederated(t.Context(), appID, row.assertion); code(err) != row.want {
			t.Errorf("%s: %v, want %s", name, err, row.want)
		}
	}
}

// TestKeyDecidesAlgorithm: a key is good for its own algorithm, of its own size.
func TestKeyDecidesAlgorithm(t *testing.T) {
	strong, weak := rsaKey(t, 2048), rsaKey(t, 1024)
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	encrypts := public("encrypts", strong)
	encrypts.Use = "enc"
	named := public("named", strong)
	named.Algorithm = "RS512"
	c := checker(t, newWorld(public("weak", weak), public("p256", p256), encrypts, named,
		jose.JSONWebKey{Key: []byte("0123456789abcdef0123456789abcdef"), KeyID: "shared"}))
	if _, _, err := c.CheckFederated(t.Context(), appID, sign(t, jose.ES256, p256, "p256", claims(nil))); err != nil {
		t.Errorf("ES256: %v", err)
	}
	for id, key := range map[string]any{"weak": weak, "encrypts": strong, "named": strong, "p256": strong, "shared": strong} {
		if _, _, err := c.CheckFederated(t.Context(), appID, sign(t, jose.RS256, key, id, claims(nil))); code(err) != CodeSignature {
			t.Errorf("%s: %v", id, err)
		}
	}
}

// TestClusterGone: with its issuer's document a cluster's tokens end, and a
// disabled principal's with it.
func TestClusterGone(t *testing.T) {
	key := rsaKey(t, 2048)
	w := newWorld(public("k1", key))
	c := checker(t, w)
	good := sign(t, jose.RS256, key, "k1", claims(nil))
	sp := w.principals[managedID]
	sp.Disabled = true
	w.principals[managedID] = sp
	if _, _, err := c.CheckFederated(t.Context(), managedID, good); code(err) != identity.CodeDisabled {
		t.Errorf("disabled: %v", err)
	}
	delete(w.keys, clusterIssuer)
	if _, _, err := c.CheckFederated(t.Context(), appID, good); code(err) != CodeSignature {
		t.Errorf("gone: %v", err)
	}
}

func FuzzCheckFederated(f *testing.F) {
	key := rsaKey(f, 2048)
	c := checker(f, newWorld(public("k1", key)))
	good := sign(f, jose.RS256, key, "k1", claims(nil))
	f.Add(good)
	f.Add(sign(f, jose.RS256, key, "k1", claims(map[string]any{"aud": audience, "exp": 1.5})))
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Fuzz(func(t *testing.T, assertion string) {
		_, _, err := c.CheckFederated(t.Context(), appID, assertion)
		if err == nil && strings.Split(assertion, ".")[1] != strings.Split(good, ".")[1] {
			t.Errorf("%q was taken", assertion)
		}
	})
}
