// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"

	authentication "k8s.io/api/authentication/v1"
	authorization "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bastide.dev/fault"
	"bastide.dev/rbac"
)

const (
	clusterID  = "aaaaaaaa-0000-0000-0000-000000000001"
	otherID    = "aaaaaaaa-0000-0000-0000-000000000002"
	closedID   = "aaaaaaaa-0000-0000-0000-000000000003" // not integrated
	kubernetes = "aaaaaaaa-0000-0000-0000-000000000004" // by Kubernetes' own roles alone
	resourceID = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ContainerService/managedClusters/c"

	tenant = "cccccccc-0000-0000-0000-000000000001"
	alice  = "dddddddd-0000-0000-0000-000000000001"
	robot  = "dddddddd-0000-0000-0000-000000000002"
	groupA = "eeeeeeee-0000-0000-0000-00000000000a"
	groupB = "eeeeeeee-0000-0000-0000-00000000000b"
)

// world is a directory, clusters and roles, in memory.
type world struct {
	*Service
	principals map[string]Principal
	validFrom  map[string]time.Time
	table      *rbac.Table
	broken     error
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{table: rbac.NewTable(), validFrom: map[string]time.Time{}, principals: map[string]Principal{
		alice: {ID: alice, Name: "Alice@Example.test", Groups: []string{groupA}}, robot: {ID: robot, Name: "robot"}}}
	for _, d := range rbac.Builtin() {
		w.table.Define(d)
	}
	s, err := New(Config{Clusters: w, Directory: w, Roles: w, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	w.Service = s
	return w
}

func secretOf(id string) string { return "secret-of-" + id }

func (w *world) Cluster(_ context.Context, id string) (Cluster, error) {
	c := Cluster{ID: id, Resource: resourceID, Secret: sha256.Sum256([]byte(secretOf(id))), Directory: true, AzureRBAC: true}
	switch id {
	case clusterID:
	case otherID:
		c.Resource += "2"
	case closedID:
		c.Directory = false
	case kubernetes:
		c.AzureRBAC = false
	case "no-secret":
		c.Secret = [32]byte{}
	default:
		return Cluster{}, fault.New(fault.NotFound, "", "no such cluster")
	}
	return c, nil
}

func (w *world) Authenticate(ctx context.Context, token string) (Principal, error) {
	if token != "token-of-alice" {
		return Principal{}, fault.New(fault.Unauthorized, "InvalidAuthenticationToken", "The access token is invalid.")
	}
	return w.Standing(ctx, Token{Principal: alice, Tenant: tenant, Kind: kindUser, Issued: time.Unix(1000, 0)})
}

func (w *world) Standing(_ context.Context, t Token) (Principal, error) {
	p, found := w.principals[t.Principal]
	if !found || t.Issued.Before(w.validFrom[t.Principal]) {
		return Principal{}, fault.New(fault.Unauthorized, "InvalidAuthenticationToken", "gone")
	}
	p.Token = t
	return p, w.broken
}

func (w *world) Grants(_ context.Context, q Question) (bool, string, error) {
	attributes := map[string][]string{}
	for name, values := range q.Attributes {
		attributes[rbac.Attribute(rbac.OfRequest, name)] = values
	}
	d := w.table.Decide(rbac.Request{Subject: rbac.Subject{ID: q.Principal, Groups: q.Groups}, Action: q.Action, Data: true, Scope: q.Scope, Attributes: attributes, Now: time.Now()})
	return d.Allowed, d.Reason, nil
}

func (w *world) assign(principal, role, scope string) {
	w.table.Put(&rbac.Assignment{ID: scope + "/providers/Microsoft.Authorization/roleAssignments/" + role + principal, Scope: scope, PrincipalID: principal, Role: role})
}

// post sends a review as an API server does.
func (w *world) post(t testing.TB, path, secret string, body any) *httptest.ResponseRecorder {
	t.Helper()
	data, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, bytes.NewReader(data))
	if secret != "" {
		r.Header.Set("Authorization", "Bearer "+secret)
	}
	answer := httptest.NewRecorder()
	w.ServeHTTP(answer, r)
	return answer
}

func (w *world) ask(t testing.TB, cluster string, spec authorization.SubjectAccessReviewSpec) authorization.SubjectAccessReviewStatus {
	t.Helper()
	answer := w.post(t, "/clusters/"+cluster+"/authorize", secretOf(cluster), authorization.SubjectAccessReview{
		TypeMeta: metav1.TypeMeta{Kind: "SubjectAccessReview", APIVersion: "authorization.k8s.io/v1"}, Spec: spec})
	var review authorization.SubjectAccessReview
	if err := json.Unmarshal(answer.Body.Bytes(), &review); err != nil || answer.Code != http.StatusOK || review.Kind != "SubjectAccessReview" {
		t.Fatalf("%d %s %v", answer.Code, answer.Body, err)
	}
	return review.Status
}

func (w *world) authenticated(t testing.TB, cluster, token string) authentication.TokenReviewStatus {
	t.Helper()
	answer := w.post(t, "/clusters/"+cluster+"/authenticate", secretOf(cluster), authentication.TokenReview{Spec: authentication.TokenReviewSpec{Token: token}})
	var review authentication.TokenReview
	if err := json.Unmarshal(answer.Body.Bytes(), &review); err != nil || answer.Code != http.StatusOK {
		t.Fatalf("%d %s %v", answer.Code, answer.Body, err)
	}
	return review.Status
}

// by is a request by a principal who holds a token.
func by(principal, kind string, issued int64, groups ...string) authorization.SubjectAccessReviewSpec {
	return authorization.SubjectAccessReviewSpec{User: principal, Groups: append(groups, "system:authenticated"), Extra: map[string]authorization.ExtraValue{
		ExtraPrincipal: {principal}, ExtraTenant: {tenant}, ExtraKind: {kind}, ExtraIssued: {strconv.FormatInt(issued, 10)}, ExtraApp: {"x"}}}
}
