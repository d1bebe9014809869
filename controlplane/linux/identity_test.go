// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"bastide.dev/controlplane"
	"bastide.dev/pki"
)

const exchange = "api://AzureADTokenExchange"

// tokenOf asks for a service account's token, for the API server itself or another audience.
func tokenOf(u *user, audiences ...string) string {
	u.t.Helper()
	spec := object{"expirationSeconds": 3600}
	if len(audiences) > 0 {
		spec["audiences"] = audiences
	}
	var answer struct{ Status struct{ Token string } }
	raw := u.must("POST", "/api/v1/namespaces/default/serviceaccounts/shop/token",
		object{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec})
	if err := json.Unmarshal(raw, &answer); err != nil {
		u.t.Fatal(err)
	}
	return answer.Status.Token
}

// read is a token's issuer and the id of its key.
func read(t *testing.T, token string) (issuer, key string) {
	t.Helper()
	signed, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		t.Fatal(err)
	}
	var claims struct {
		Issuer string `json:"iss"`
	}
	if err := json.Unmarshal(signed.UnsafePayloadWithoutVerification(), &claims); err != nil {
		t.Fatal(err)
	}
	return claims.Issuer, signed.Signatures[0].Header.KeyID
}

// accepted tells whether the API server knows whose a token is.
func (r *rig) accepted(spec controlplane.Spec, token string) bool {
	r.t.Helper()
	nobody := r.as(spec, "")
	nobody.token = token
	code, body := nobody.do("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", object{"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"})
	if code == http.StatusUnauthorized {
		return false
	}
	if code != http.StatusCreated || !strings.Contains(string(body), "system:serviceaccount:default:shop") {
		r.t.Fatalf("%d %s", code, body)
	}
	return true
}

// signs waits until the API server issues and accepts as its spec says.
func (r *rig) signs(spec controlplane.Spec) {
	r.t.Helper()
	ids, err := spec.SigningKeyIDs()
	if err != nil {
		r.t.Fatal(err)
	}
	r.apply(spec)
	r.until(spec.ID, "issuing as it should", func(s controlplane.Status) bool {
		return ready(s) && s.Issuer == spec.Issuer && slices.Equal(s.SigningKeys, ids) && s.WorkloadIdentity == (spec.WorkloadIdentity != nil)
	})
}

// TestTokensOutliveIssuerAndKey goes the way of a cluster whose issuer is
// enabled, whose keys rotate twice, and whose workload identity goes on and off.
func TestTokensOutliveIssuerAndKey(t *testing.T) {
	r := newRig(t)
	spec := r.spec("issuer")
	r.apply(spec)
	r.until(spec.ID, "ready", ready)
	admin := r.admin(spec)
	const client = "22222222-2222-2222-2222-222222222222"
	admin.must("POST", "/api/v1/namespaces/default/serviceaccounts", object{"metadata": object{"name": "shop", "annotations": object{"azure.workload.identity/client-id": client}}})
	before := tokenOf(admin)

	former := spec.Issuer
	spec.Issuer, spec.FormerIssuers, spec.KeysURL = "https://oidc.test/t/c/", []string{former}, "https://oidc.test/t/c/openid/v1/jwks"
	spec.WorkloadIdentity = &controlplane.WorkloadIdentity{Tenant: "t", Authority: "https://login.test/", CA: spec.Keys.CA.Certificate}
	r.signs(spec)
	if !r.accepted(spec, before) {
		t.Error("a token of the former issuer isn't accepted")
	}
	first := tokenOf(admin)
	if issuer, _ := read(t, first); issuer != spec.Issuer || !r.accepted(spec, first) {
		t.Errorf("issued by %s", issuer)
	}
	if r.accepted(spec, tokenOf(admin, exchange)) {
		t.Error("a token for another audience is accepted")
	}
	identified(t, admin, client)

	old, err := pki.PublicPEM(spec.Keys.ServiceAccounts)
	if err != nil {
		t.Fatal(err)
	}
	if spec.Keys.ServiceAccounts, err = pki.NewSigningKey(); err != nil {
		t.Fatal(err)
	}
	spec.Keys.RetiredServiceAccounts = [][]byte{old}
	r.signs(spec)
	second := tokenOf(admin)
	_, one := read(t, first)
	if _, two := read(t, second); one == two || !slices.Contains(r.Status(spec.ID).SigningKeys, two) {
		t.Errorf("signed by %s, before by %s", two, one)
	}
	for name, token := range map[string]string{"of the former issuer": before, "of the former key": first, "of today": second} {
		if !r.accepted(spec, token) {
			t.Errorf("a token %s isn't accepted", name)
		}
	}
	spec.Keys.RetiredServiceAccounts, spec.WorkloadIdentity = nil, nil
	r.signs(spec)
	if r.accepted(spec, first) || !r.accepted(spec, second) {
		t.Error("the end of a key isn't the end of its tokens alone")
	}
	if got := create(t, admin, "off", object{"azure.workload.identity/use": "true"}, nil); strings.Contains(got, "AZURE_") {
		t.Errorf("given an identity although it is off: %s", got)
	}
}

// create makes a pod and returns it, or why not.
func create(t *testing.T, u *user, name string, labels, annotations object) string {
	t.Helper()
	code, body := u.do("POST", "/api/v1/namespaces/default/pods", object{"metadata": object{"name": name, "labels": labels, "annotations": annotations},
		"spec": object{"serviceAccountName": "shop", "containers": []any{object{"name": "c", "image": "i"}}}})
	if code != http.StatusCreated && code != http.StatusBadRequest && code != http.StatusForbidden {
		t.Fatalf("pod %s: %d %s", name, code, body)
	}
	return string(body)
}

func identified(t *testing.T, admin *user, client string) {
	t.Helper()
	asks := object{"azure.workload.identity/use": "true"}
	got := create(t, admin, "asks", asks, nil)
	for _, want := range []string{`"AZURE_CLIENT_ID","value":"` + client, `"AZURE_AUTHORITY_HOST","value":"https://login.test/"`, `"audience":"` + exchange + `"`,
		`"mountPath":"/var/run/secrets/azure/tokens"`, `metadata.annotations['bastide.dev/instance-ca']`} {
		if !strings.Contains(strings.ReplaceAll(got, " ", ""), want) {
			t.Errorf("the pod lacks %s: %s", want, got)
		}
	}
	if got := create(t, admin, "asks-not", nil, nil); strings.Contains(got, "AZURE_") {
		t.Errorf("given an identity unasked: %s", got)
	}
	if got := create(t, admin, "wrong", asks, object{"azure.workload.identity/service-account-token-expiration": "60"}); !strings.Contains(got, "3600 to 86400") {
		t.Errorf("not refused: %s", got)
	}
}
