// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"encoding/json"
	"log"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	authentication "k8s.io/api/authentication/v1"
	authorization "k8s.io/api/authorization/v1"

	"bastide.dev/controlplane"
	"bastide.dev/pki"
	"bastide.dev/supervise"
)

const (
	tenantID = "cccccccc-0000-0000-0000-000000000001"
	aliceID  = "dddddddd-0000-0000-0000-000000000001"
	robotID  = "dddddddd-0000-0000-0000-000000000002"
	groupID  = "eeeeeeee-0000-0000-0000-00000000000a"
	issuer   = "https://localhost:9443/" + tenantID + "/"
)

// directory is an issuer of tokens and the webhooks, inside of a control plane's
// namespace: the API server knows it as localhost.
type directory struct {
	t      *testing.T
	key    *rsa.PrivateKey
	server *http.Server

	mu      sync.Mutex // guards what follows
	asked   []authorization.SubjectAccessReviewSpec
	verdict func(authorization.SubjectAccessReviewSpec) authorization.SubjectAccessReviewStatus
}

func newDirectory(t *testing.T, r *rig, spec *controlplane.Spec) *directory {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	d := &directory{t: t, key: key, verdict: func(authorization.SubjectAccessReviewSpec) (none authorization.SubjectAccessReviewStatus) { return }}
	pair, err := pki.NewCA("instance", 24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	spec.Directory = &controlplane.Directory{Issuer: issuer, Tenant: tenantID, Audiences: []string{"kubernetes", "spn:kubernetes"}, CA: pair.Certificate,
		Guard: "https://localhost:9443/clusters/c", Secret: "the secret", Admins: []string{groupID}}
	ca, err := pki.OpenCA(pair)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := ca.Issue(pki.Request{CommonName: "localhost", DNS: []string{"localhost"}, IPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, Server: true, Lifetime: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := leaf.TLS()
	if err != nil {
		t.Fatal(err)
	}
	d.server = &http.Server{Handler: d.routes(), ReadHeaderTimeout: time.Second, ErrorLog: log.New(t.Output(), "directory ", 0),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}}
	var l net.Listener
	if err := supervise.InNetns(filepath.Join(r.dir, spec.Namespace), func() error {
		l, err = (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:9443")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- d.server.ServeTLS(l, "", "") }()
	t.Cleanup(func() {
		_ = d.server.Close() // the test is over
		<-served
	})
	return d
}

func (d *directory) routes() http.Handler {
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, body any) {
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(body); err != nil {
			d.t.Error(err)
		}
	}
	mux.HandleFunc("GET /"+tenantID+"/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]any{"issuer": issuer, "jwks_uri": "https://localhost:9443/keys"})
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: d.key.Public(), KeyID: "k1", Algorithm: "RS256", Use: "sig"}}})
	})
	mux.HandleFunc("POST /clusters/c/authenticate", func(w http.ResponseWriter, r *http.Request) {
		var review authentication.TokenReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil || r.Header.Get("Authorization") != "Bearer the secret" {
			d.t.Errorf("token review: %v, %q", err, r.Header.Get("Authorization"))
		}
		if strings.Contains(review.Spec.Token, ".") && d.claims(review.Spec.Token)["hasgroups"] == true {
			review.Status = authentication.TokenReviewStatus{Authenticated: true, User: authentication.UserInfo{Username: "many@test", UID: aliceID, Groups: []string{groupID},
				Extra: map[string]authentication.ExtraValue{controlplane.ExtraPrincipal: {aliceID}}}}
		}
		answer(w, review)
	})
	mux.HandleFunc("POST /clusters/c/authorize", func(w http.ResponseWriter, r *http.Request) {
		var review authorization.SubjectAccessReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil || r.Header.Get("Authorization") != "Bearer the secret" {
			d.t.Errorf("access review: %v, %q", err, r.Header.Get("Authorization"))
		}
		d.mu.Lock()
		d.asked = append(d.asked, review.Spec)
		review.Status = d.verdict(review.Spec)
		d.mu.Unlock()
		answer(w, review)
	})
	return mux
}

func (d *directory) claims(token string) map[string]any {
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		return nil
	}
	claims := map[string]any{}
	if parsed.Claims(d.key.Public(), &claims) != nil {
		return nil
	}
	return claims
}

// token is a user's access token, with other claims than usual; nil takes one away.
func (d *directory) token(change map[string]any) string {
	d.t.Helper()
	now := time.Now()
	claims := map[string]any{"iss": issuer, "aud": "kubernetes", "iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(time.Hour).Unix(), "tid": tenantID, "oid": aliceID,
		"ver": "1.0", "idtyp": "user", "upn": "Alice@Example.Test", "appid": "80faf920", "groups": []string{groupID}}
	for name, value := range change {
		if claims[name] = value; value == nil {
			delete(claims, name)
		}
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: d.key, KeyID: "k1"}}, nil)
	if err != nil {
		d.t.Fatal(err)
	}
	token, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		d.t.Fatal(err)
	}
	return token
}

func (d *directory) decide(verdict authorization.SubjectAccessReviewStatus) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.verdict = func(authorization.SubjectAccessReviewSpec) authorization.SubjectAccessReviewStatus { return verdict }
}

func (d *directory) principals() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []string
	for _, spec := range d.asked {
		all = append(all, spec.User)
	}
	return all
}

func (r *rig) bearer(spec controlplane.Spec, token string) *user {
	u := r.as(spec, "")
	u.token = token
	return u
}

const whoAmI = "/apis/authentication.k8s.io/v1/selfsubjectreviews"

// who is the user that a token makes; nil when it makes none.
func (u *user) who() *authentication.UserInfo {
	u.t.Helper()
	code, body := u.do("POST", whoAmI, map[string]any{"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"})
	if code == http.StatusUnauthorized {
		return nil
	}
	var review authentication.SelfSubjectReview
	if err := json.Unmarshal(body, &review); err != nil || code != http.StatusCreated {
		u.t.Fatalf("%d %s %v", code, body, err)
	}
	return &review.Status.UserInfo
}

func TestDirectory(t *testing.T) {
	for _, version := range []string{"1.36.3", "1.35.4"} {
		t.Run(version, func(t *testing.T) { testDirectory(t, version) })
	}
}

func testDirectory(t *testing.T, version string) {
	r := newRig(t)
	spec := r.spec("d-directory")
	spec.Version = version
	r.apply(spec)
	r.until(spec.ID, "ready", ready)
	before := pid(r.Status(spec.ID), controlplane.APIServer)

	// A running cluster is integrated: its API server is started anew, and the
	// cluster isn't ready before that one is.
	d := newDirectory(t, r, &spec)
	r.apply(spec)
	r.until(spec.ID, "ready", ready)
	if now := pid(r.Status(spec.ID), controlplane.APIServer); now == before || now == 0 {
		t.Errorf("ready with the API server of before: %d", now)
	}
	alice := r.bearer(spec, d.token(nil))
	eventually(t, "a token makes a user", func() bool { return alice.who() != nil })
	tokens(t, r, spec, d)
	decisions(t, r, spec, d, alice)

	// Local accounts have an authority of their own, which can go.
	local, err := pki.NewCA("local", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	spec.Keys.LocalCA = controlplane.KeyPair(local)
	r.apply(spec)
	r.until(spec.ID, "ready", ready)
	of := spec
	of.Keys.CA = spec.Keys.LocalCA
	admin := r.as(of, "masterclient", controlplane.MastersGroup)
	admin.http.Transport.(*http.Transport).TLSClientConfig.RootCAs = r.as(spec, "").http.Transport.(*http.Transport).TLSClientConfig.RootCAs
	if info := admin.who(); info == nil || info.Username != "masterclient" {
		t.Fatalf("a local account: %+v", info)
	}
	spec.Keys.LocalCA = controlplane.KeyPair{}
	r.apply(spec)
	r.until(spec.ID, "ready", ready)
	if info := admin.who(); info != nil {
		t.Errorf("a disabled local account: %+v", info)
	}
	if r.admin(spec).who() == nil {
		t.Error("the control plane's own certificates went, too")
	}
}

// tokens are those that count and those that don't.
func tokens(t *testing.T, r *rig, spec controlplane.Spec, d *directory) {
	t.Helper()
	info := r.bearer(spec, d.token(nil)).who()
	if info == nil || info.Username != "alice@example.test" || info.UID != aliceID || !slices.Contains(info.Groups, groupID) ||
		info.Extra[controlplane.ExtraPrincipal][0] != aliceID || len(info.Extra[controlplane.ExtraIssued]) != 1 || len(info.Extra[controlplane.ExtraCredential]) != 0 {
		t.Errorf("alice is %+v", info)
	}
	info = r.bearer(spec, d.token(map[string]any{"oid": robotID, "idtyp": "app", "upn": nil, "groups": nil, "bst_cred": "secret-1", "aud": "spn:kubernetes"})).who()
	if info == nil || info.Username != robotID || info.Extra[controlplane.ExtraCredential][0] != "secret-1" {
		t.Errorf("a service principal is %+v", info)
	}
	if info = r.bearer(spec, d.token(map[string]any{"groups": nil, "hasgroups": true})).who(); info == nil || info.Username != "many@test" {
		t.Errorf("a token that leaves groups out is %+v", info)
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	other := &directory{t: t, key: key}
	for name, token := range map[string]string{
		"forged":           other.token(nil),
		"another tenant's": d.token(map[string]any{"tid": robotID}),
		"another issuer's": d.token(map[string]any{"iss": "https://localhost:9443/" + robotID + "/"}),
		"another audience": d.token(map[string]any{"aud": "https://management.test"}),
		"expired":          d.token(map[string]any{"exp": time.Now().Add(-time.Minute).Unix()}),
		"not yet valid":    d.token(map[string]any{"nbf": time.Now().Add(time.Hour).Unix()}),
		"an id token":      d.token(map[string]any{"idtyp": nil}),
		"version 2":        d.token(map[string]any{"ver": "2.0"}),
		"system:admin":     d.token(map[string]any{"upn": "system:admin@x"}),
		"no user's name":   d.token(map[string]any{"upn": "system:masters"}),
		"a group by name":  d.token(map[string]any{"groups": []string{"system:masters"}}),
		"no principal":     d.token(map[string]any{"oid": "alice"}),
		"no time":          d.token(map[string]any{"iat": nil}),
	} {
		if info := r.bearer(spec, token).who(); info != nil {
			t.Errorf("%s: the token makes %+v", name, info)
		}
	}
}

// decisions are the webhook's, and Kubernetes' own where it has none.
func decisions(t *testing.T, r *rig, spec controlplane.Spec, d *directory, alice *user) {
	t.Helper()
	const secrets = "/api/v1/namespaces/kube-system/secrets"
	eventually(t, "the group of administrators is bound", func() bool { code, _ := alice.do("GET", secrets, nil); return code == http.StatusOK })
	d.decide(authorization.SubjectAccessReviewStatus{Denied: true, Reason: "gone"})
	if code, body := alice.do("GET", secrets, nil); code != http.StatusForbidden || !bytes.Contains(body, []byte("gone")) {
		t.Errorf("denied: %d %s", code, body)
	}
	robot := r.bearer(spec, d.token(map[string]any{"oid": robotID, "idtyp": "app", "upn": nil, "groups": nil}))
	d.decide(authorization.SubjectAccessReviewStatus{})
	if code, _ := robot.do("GET", secrets, nil); code != http.StatusForbidden {
		t.Errorf("without a role: %d", code)
	}
	d.decide(authorization.SubjectAccessReviewStatus{Allowed: true})
	if code, body := robot.do("GET", secrets, nil); code != http.StatusOK {
		t.Errorf("allowed: %d %s", code, body)
	}
	for _, name := range d.principals() {
		if name != "alice@example.test" && name != robotID && name != "many@test" {
			t.Errorf("the webhook was asked of %s", name)
		}
	}
	// Other groups than before are bound at once, without a new API server.
	d.decide(authorization.SubjectAccessReviewStatus{})
	before := pid(r.Status(spec.ID), controlplane.APIServer)
	changed := *spec.Directory
	changed.Admins = nil
	other := spec
	other.Directory = &changed
	r.apply(other)
	eventually(t, "the group isn't bound any more", func() bool { code, _ := alice.do("GET", secrets, nil); return code == http.StatusForbidden })
	r.apply(spec)
	eventually(t, "the group is bound again", func() bool { code, _ := alice.do("GET", secrets, nil); return code == http.StatusOK })
	if pid(r.Status(spec.ID), controlplane.APIServer) != before {
		t.Error("another group took another API server")
	}
	// The cluster goes on without the service.
	if err := d.server.Close(); err != nil {
		t.Fatal(err)
	}
	if code, body := alice.do("GET", secrets, nil); code != http.StatusOK {
		t.Errorf("without the webhook: %d %s", code, body)
	}
}
