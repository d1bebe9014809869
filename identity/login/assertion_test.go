// SPDX-License-Identifier: Apache-2.0

package login_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" // x5t is a SHA-1 thumbprint by definition
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"math/big"
	"net/url"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/google/uuid"

	"bastide.dev/identity"
)

const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// certificate gives the first principal's application one, and returns it with its key.
func (w *world) certificate(t *testing.T, ends time.Time) (*x509.Certificate, *rsa.PrivateKey) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: ends}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	sum1, sum256 := sha1.Sum(der), sha256.Sum256(der)
	sp, err := w.directory.ServicePrincipal(t.Context(), w.first.PrincipalID)
	if err != nil {
		t.Fatal(err)
	}
	entry := identity.Certificate{ID: uuid.NewString(), SHA1: sum1[:], SHA256: sum256[:], DER: der, Starts: parsed.NotBefore, Expires: parsed.NotAfter}
	if err := w.directory.UpdateServicePrincipal(t.Context(), sp.ID, func(sp *identity.ServicePrincipal) { sp.Certificates = append(sp.Certificates, entry) }); err != nil {
		t.Fatal(err)
	}
	return parsed, key
}

type signed struct {
	key       any
	algorithm jose.SignatureAlgorithm
	headers   map[jose.HeaderKey]any
	claims    map[string]any
}

// assertion is a good one, until change spoils it.
func (w *world) assertion(t *testing.T, certificate *x509.Certificate, key crypto.Signer, change func(*signed)) string {
	t.Helper()
	sum := sha256.Sum256(certificate.Raw)
	s := signed{key: key, algorithm: jose.PS256, headers: map[jose.HeaderKey]any{"x5t#S256": base64.RawURLEncoding.EncodeToString(sum[:])},
		claims: map[string]any{"iss": w.first.ClientID, "sub": w.first.ClientID, "aud": w.url + "/" + w.first.Tenant.ID + "/oauth2/v2.0/token",
			"jti": uuid.NewString(), "exp": w.now().Add(10 * time.Minute).Unix(), "nbf": w.now().Unix()}}
	if change != nil {
		change(&s)
	}
	options := (&jose.SignerOptions{}).WithType("JWT")
	for name, value := range s.headers {
		options = options.WithHeader(name, value)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: s.algorithm, Key: s.key}, options)
	if err != nil {
		t.Fatal(err)
	}
	text, err := jwt.Signed(signer).Claims(s.claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func (w *world) assertionForm(assertion string) url.Values {
	return url.Values{"grant_type": {"client_credentials"}, "client_id": {w.first.ClientID}, "client_assertion_type": {assertionType}, "client_assertion": {assertion}, "scope": {w.url + "/.default"}}
}

func TestCertificateAssertion(t *testing.T) {
	w := start(t)
	certificate, key := w.certificate(t, time.Now().Add(time.Hour))
	path := "/" + w.first.Tenant.ID + "/oauth2/v2.0/token"
	sum := sha1.Sum(certificate.Raw)
	for name, change := range map[string]func(*signed){
		"PS256":     nil,
		"RS256":     func(s *signed) { s.algorithm = jose.RS256 },
		"v1":        func(s *signed) { s.claims["aud"] = w.url + "/" + w.first.Tenant.ID + "/oauth2/token" },
		"thumb one": func(s *signed) { s.headers = map[jose.HeaderKey]any{"x5t": base64.StdEncoding.EncodeToString(sum[:])} },
	} {
		assertion := w.assertion(t, certificate, key, change)
		status, answer := w.post(t, path, w.assertionForm(assertion))
		if status != 200 {
			t.Errorf("%s: %d %v", name, status, answer)
			continue
		}
		if c := claimsOf(t, answer["access_token"]); c.AppIDACR != "2" || c.OID != w.first.PrincipalID {
			t.Errorf("%s: %+v", name, c)
		}
		if _, err := w.directory.Authenticate(t.Context(), answer["access_token"].(string)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		form := w.assertionForm(assertion)
		form.Del("client_id") // the assertion says it
		if status, answer := w.post(t, path, form); status != 200 {
			t.Errorf("%s without client_id, again from the same address: %d %v", name, status, answer)
		}
	}
	for _, a := range w.attempts() {
		if a.err != nil || a.Flow != identity.FlowAssertion || a.Principal != w.first.PrincipalID || a.Credential == "" {
			t.Errorf("recorded %+v", a)
		}
	}
}

func TestSpoiledAssertions(t *testing.T) {
	w := start(t)
	certificate, key := w.certificate(t, time.Now().Add(time.Hour))
	expired, old := w.certificate(t, time.Now().Add(-time.Minute))
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	set := func(name string, value any) func(*signed) { return func(s *signed) { s.claims[name] = value } }
	path := "/" + w.first.Tenant.ID + "/oauth2/v2.0/token"
	for name, assertion := range map[string]string{
		"another's key":      w.assertion(t, certificate, other, nil),
		"key in the header":  w.assertion(t, certificate, other, func(s *signed) { s.headers["jwk"] = jose.JSONWebKey{Key: other.Public()} }),
		"chain in header":    w.assertion(t, certificate, other, func(s *signed) { s.headers["x5c"] = []string{base64.StdEncoding.EncodeToString(certificate.Raw)} }),
		"thumbprint missing": w.assertion(t, certificate, key, func(s *signed) { s.headers = nil }),
		"thumbprint unknown": w.assertion(t, certificate, key, func(s *signed) { s.headers["x5t#S256"] = base64.RawURLEncoding.EncodeToString(make([]byte, 32)) }),
		"kid as path":        w.assertion(t, certificate, key, func(s *signed) { s.headers = map[jose.HeaderKey]any{"kid": "../../../dev/null"} }),
		"HS256": w.assertion(t, certificate, key, func(s *signed) {
			s.algorithm, s.key = jose.HS256, x509.MarshalPKCS1PublicKey(certificate.PublicKey.(*rsa.PublicKey))
		}),
		"RS512":           w.assertion(t, certificate, key, func(s *signed) { s.algorithm = jose.RS512 }),
		"other audience":  w.assertion(t, certificate, key, set("aud", "https://login.microsoftonline.com/"+w.first.Tenant.ID+"/oauth2/v2.0/token")),
		"other tenant":    w.assertion(t, certificate, key, set("aud", w.url+"/"+uuid.NewString()+"/oauth2/v2.0/token")),
		"two audiences":   w.assertion(t, certificate, key, set("aud", []string{w.url + "/" + w.first.Tenant.ID, "https://evil.test"})),
		"other subject":   w.assertion(t, certificate, key, set("sub", identity.AppCLI)),
		"other issuer":    w.assertion(t, certificate, key, set("iss", identity.AppCLI)),
		"expired":         w.assertion(t, certificate, key, set("exp", w.now().Add(-time.Second).Unix())),
		"without end":     w.assertion(t, certificate, key, func(s *signed) { delete(s.claims, "exp") }),
		"for years":       w.assertion(t, certificate, key, set("exp", w.now().Add(1000*time.Hour).Unix())),
		"not yet":         w.assertion(t, certificate, key, set("nbf", w.now().Add(time.Hour).Unix())),
		"without id":      w.assertion(t, certificate, key, func(s *signed) { delete(s.claims, "jti") }),
		"old certificate": w.assertion(t, expired, old, nil),
		"none":            "eyJhbGciOiJub25lIn0.eyJpc3MiOiJ4In0.",
		"rubbish":         "x.y.z",
	} {
		if status, answer := w.post(t, path, w.assertionForm(assertion)); status == 200 || answer["error"] != "invalid_client" {
			t.Errorf("%s: %d %v", name, status, answer)
		}
	}
	form := w.assertionForm(w.assertion(t, certificate, key, nil))
	form.Set("client_id", identity.AppCLI)
	if status, answer := w.post(t, path, form); status == 200 {
		t.Errorf("with another client's id: %v", answer)
	}
	form = w.assertionForm(w.assertion(t, certificate, key, nil))
	form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:saml2-bearer")
	if status, answer := w.post(t, path, form); status == 200 {
		t.Errorf("of another type: %v", answer)
	}
}

func TestTokenEndsWithItsCertificate(t *testing.T) {
	w := start(t)
	certificate, key := w.certificate(t, time.Now().Add(time.Hour))
	_, answer := w.post(t, "/common/oauth2/v2.0/token", w.assertionForm(w.assertion(t, certificate, key, nil)))
	token := answer["access_token"].(string)
	if err := w.directory.UpdateServicePrincipal(t.Context(), w.first.PrincipalID, func(sp *identity.ServicePrincipal) { sp.Certificates = nil }); err != nil {
		t.Fatal(err)
	}
	if _, err := w.directory.Authenticate(t.Context(), token); err == nil {
		t.Error("the token outlives the certificate that it was bought with")
	}
}

func TestFederatedAssertion(t *testing.T) {
	w := start(t)
	certificate, key := w.certificate(t, time.Now().Add(time.Hour))
	foreign := w.assertion(t, certificate, key, func(s *signed) {
		s.claims["iss"], s.claims["sub"] = "https://issuer.example", "system:serviceaccount:a:b"
	})
	if status, answer := w.post(t, "/common/oauth2/v2.0/token", w.assertionForm(foreign)); status != 401 || answer["error"] != "invalid_client" || answer["error_codes"].([]any)[0] != 700211.0 {
		t.Errorf("not trusted: %d %v", status, answer)
	}
	w.federated = foreign
	status, answer := w.post(t, "/common/oauth2/v2.0/token", w.assertionForm(foreign))
	if status != 200 || claimsOf(t, answer["access_token"]).AppIDACR != "2" {
		t.Errorf("%d %v", status, answer)
	}
	if all := w.attempts(); len(all) != 2 || all[1].Flow != identity.FlowFederated || all[1].Credential != "federated-1" || all[0].err == nil {
		t.Errorf("recorded %+v", all)
	}
}
