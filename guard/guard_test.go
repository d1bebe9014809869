// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	authorization "k8s.io/api/authorization/v1"
)

func getPods(spec authorization.SubjectAccessReviewSpec, namespace string) authorization.SubjectAccessReviewSpec {
	spec.ResourceAttributes = &authorization.ResourceAttributes{Verb: "get", Resource: "pods", Namespace: namespace}
	return spec
}

func TestOnlyClustersAsk(t *testing.T) {
	w := newWorld(t)
	for name, c := range map[string]struct{ id, secret string }{
		"no secret":         {clusterID, ""},
		"a wrong secret":    {clusterID, "wrong"},
		"another's secret":  {clusterID, secretOf(otherID)},
		"unknown":           {"nobody", secretOf("nobody")},
		"without a secret":  {"no-secret", "x"},
		"an endless secret": {clusterID, strings.Repeat("x", 1<<16)},
	} {
		for _, hook := range []string{"authenticate", "authorize"} {
			answer := w.post(t, "/clusters/"+c.id+"/"+hook, c.secret, authorization.SubjectAccessReview{Spec: getPods(by(alice, kindUser, 1000), "a")})
			if answer.Code != http.StatusUnauthorized || strings.Contains(answer.Body.String(), "status") {
				t.Errorf("%s of %s: %d %s", hook, name, answer.Code, answer.Body)
			}
		}
	}
	long := by(alice, kindUser, 1000)
	long.User = strings.Repeat("x", maxReview)
	if answer := w.post(t, "/clusters/"+clusterID+"/authorize", secretOf(clusterID), authorization.SubjectAccessReview{Spec: long}); answer.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("a review without end: %d", answer.Code)
	}
	if answer := w.post(t, "/clusters/"+clusterID+"/authorize", secretOf(clusterID), []string{"x"}); answer.Code != http.StatusBadRequest {
		t.Errorf("no review: %d", answer.Code)
	}
}

func TestAuthenticate(t *testing.T) {
	w := newWorld(t)
	s := w.authenticated(t, clusterID, "token-of-alice")
	if !s.Authenticated || s.User.Username != "alice@example.test" || s.User.UID != alice || !slices.Equal(s.User.Groups, []string{groupA}) || s.User.Extra[ExtraIssued][0] != "1000" {
		t.Errorf("%+v", s)
	}
	if s := w.authenticated(t, clusterID, "forged"); s.Authenticated || s.User.Username != "" || s.Error == "" {
		t.Errorf("a forged token: %+v", s)
	}
	if s := w.authenticated(t, closedID, "token-of-alice"); s.Authenticated {
		t.Error("a cluster that isn't integrated takes a token")
	}
}

func TestRevocation(t *testing.T) {
	w := newWorld(t)
	live := getPods(by(alice, kindUser, 1000, groupA), "a")
	if s := w.ask(t, kubernetes, live); s.Allowed || s.Denied {
		t.Fatalf("of a live token there is an opinion: %+v", s)
	}
	// Removed from the group, with a token that names it.
	p := w.principals[alice]
	p.Groups = []string{groupB}
	w.principals[alice] = p
	if s := w.ask(t, kubernetes, live); !s.Denied || s.Allowed {
		t.Errorf("a group that was left: %+v", s)
	}
	if s := w.ask(t, kubernetes, getPods(by(alice, kindUser, 1000), "a")); s.Denied {
		t.Errorf("a group that was joined since: %+v", s)
	}
	w.validFrom[alice] = time.Unix(2000, 0)
	if s := w.ask(t, clusterID, getPods(by(alice, kindUser, 1999), "a")); !s.Denied {
		t.Errorf("a token from before the revocation: %+v", s)
	}
	delete(w.principals, alice)
	if s := w.ask(t, clusterID, getPods(by(alice, kindUser, 3000), "a")); !s.Denied {
		t.Errorf("a deleted principal: %+v", s)
	}
	if s := w.ask(t, closedID, getPods(by(robot, kindApp, 3000), "a")); !s.Denied {
		t.Errorf("a cluster that isn't integrated: %+v", s)
	}
	w.broken = errors.New("the directory is away")
	answer := w.post(t, "/clusters/"+clusterID+"/authorize", secretOf(clusterID), authorization.SubjectAccessReview{Spec: getPods(by(robot, kindApp, 1), "a")})
	if answer.Code != http.StatusServiceUnavailable || strings.Contains(answer.Body.String(), "away") {
		t.Errorf("without a directory: %d %s", answer.Code, answer.Body)
	}
}

func TestPrincipalsThatAreNone(t *testing.T) {
	w := newWorld(t)
	w.assign(alice, "b1ff04bb-8a4e-4dc4-8eb5-8693973ce19b", resourceID)
	for name, change := range map[string]func(map[string]authorization.ExtraValue){
		"no principal": func(e map[string]authorization.ExtraValue) { delete(e, ExtraPrincipal) },
		"two principals": func(e map[string]authorization.ExtraValue) {
			e[ExtraPrincipal] = authorization.ExtraValue{alice, robot}
		},
		"a name":       func(e map[string]authorization.ExtraValue) { e[ExtraPrincipal] = authorization.ExtraValue{"alice"} },
		"no time":      func(e map[string]authorization.ExtraValue) { delete(e, ExtraIssued) },
		"a wrong time": func(e map[string]authorization.ExtraValue) { e[ExtraIssued] = authorization.ExtraValue{"soon"} },
		"an id token":  func(e map[string]authorization.ExtraValue) { e[ExtraKind] = authorization.ExtraValue{"id"} },
		"no tenant":    func(e map[string]authorization.ExtraValue) { delete(e, ExtraTenant) },
		"two secrets":  func(e map[string]authorization.ExtraValue) { e[ExtraCredential] = authorization.ExtraValue{"a", "b"} },
	} {
		spec := getPods(by(alice, kindUser, 1000), "a")
		change(spec.Extra)
		if s := w.ask(t, clusterID, spec); s.Allowed || !s.Denied {
			t.Errorf("%s: %+v", name, s)
		}
	}
	if s := w.ask(t, clusterID, getPods(by(alice, kindUser, 1000), "a")); !s.Allowed {
		t.Errorf("herself: %+v", s)
	}
}

func TestScopes(t *testing.T) {
	const reader = "7f6c6a51-bcf8-42ba-9220-52d62157d7db"
	w := newWorld(t)
	w.assign(groupA, reader, resourceID+"/namespaces/team-a")
	w.assign(robot, reader, resourceID)
	a, r := by(alice, kindUser, 1000, groupA), by(robot, kindApp, 1000)
	for _, c := range []struct {
		who       authorization.SubjectAccessReviewSpec
		cluster   string
		namespace string
		want      bool
	}{
		{a, clusterID, "team-a", true}, {a, clusterID, "team-ab", false}, {a, clusterID, "team-b", false}, {a, clusterID, "", false},
		{a, clusterID, "team-a/x", false}, {a, clusterID, "../team-a", false}, {a, clusterID, "TEAM-A", false}, {a, otherID, "team-a", false}, {a, kubernetes, "team-a", false},
		{r, clusterID, "", true}, {r, clusterID, "team-b", true}, {r, otherID, "", false},
	} {
		if s := w.ask(t, c.cluster, getPods(c.who, c.namespace)); s.Allowed != c.want || s.Denied {
			t.Errorf("%s in %q of %s: %+v, want allowed %t", c.who.User, c.namespace, c.cluster, s, c.want)
		}
	}
}

// BenchmarkAuthorize is a decision of the webhook among 10,000 assignments,
// without the way there.
func BenchmarkAuthorize(b *testing.B) {
	w := newWorld(b)
	for i := range 10000 {
		w.assign(fmt.Sprintf("dddddddd-0000-0000-0001-%012d", i%100), "7f6c6a51-bcf8-42ba-9220-52d62157d7db", fmt.Sprintf("%s/namespaces/n%d", resourceID, i))
	}
	w.assign(groupA, "7f6c6a51-bcf8-42ba-9220-52d62157d7db", resourceID+"/namespaces/team-a")
	review := authorization.SubjectAccessReview{Spec: getPods(by(alice, kindUser, 1000, groupA), "team-a")}
	b.ReportAllocs()
	for b.Loop() {
		if answer := w.post(b, "/clusters/"+clusterID+"/authorize", secretOf(clusterID), review); answer.Code != http.StatusOK {
			b.Fatal(answer.Code)
		}
	}
}
