// SPDX-License-Identifier: Apache-2.0

package graph_test

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"bastide.dev/identity"
	"bastide.dev/identity/graph"
)

// When a credential was used is shown by its id, to who may read the logs.
func TestCredentialUses(t *testing.T) {
	const path = "/beta/reports/appCredentialSignInActivities"
	w, signIns, _ := withSignIns(t)
	at := time.Now().UTC().Truncate(time.Second)
	for _, credential := range []string{"key-1", ""} {
		signIns.Record(identity.SignIn{Time: at, Flow: identity.FlowSecret, Kind: identity.ServicePrincipalKind, Principal: w.first.PrincipalID,
			Name: w.first.ClientID, ClientID: w.first.ClientID, Credential: credential}, identity.Verdict{}, nil)
	}
	status, answer := w.ask(t, http.MethodGet, path, w.token, "")
	found, _ := answer["value"].([]any)
	if status != http.StatusOK || len(found) != 2 {
		t.Fatalf("%d %v", status, answer)
	}
	named := 0
	for _, value := range found {
		use := value.(map[string]any)
		if use["servicePrincipalObjectId"] != w.first.PrincipalID || use["signInActivity"].(map[string]any)["lastSignInDateTime"] != at.Format(time.RFC3339) {
			t.Errorf("%v", use)
		}
		if use["keyId"] == "key-1" {
			named++
		} else if _, has := use["keyId"]; has {
			t.Errorf("a use without a credential has the id %v", use["keyId"])
		}
	}
	if named != 1 {
		t.Errorf("%v", found)
	}
	user, err := w.directory.CreateUser(t.Context(), "bob", "Bob", "a long password")
	if err != nil {
		t.Fatal(err)
	}
	w.token = w.personToken(t, user)
	if status, _ := w.ask(t, http.MethodGet, path, w.token, ""); status != http.StatusForbidden {
		t.Errorf("anybody reads it: %d", status)
	}
}

// A managed identity that has outlived its resource may be deleted, and no other.
func TestManagedIdentitiesGoWithTheirResources(t *testing.T) {
	w, signIns, _ := withSignIns(t)
	var err error
	w.service, err = graph.New(graph.Config{Directory: w.directory, SignIns: signIns, Log: slog.New(slog.DiscardHandler),
		Gone: func(_ context.Context, id string) (bool, error) { return strings.HasSuffix(id, "/gone"), nil }})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{"gone": http.StatusNoContent, "there": http.StatusForbidden} {
		id, _, err := w.directory.CreateManagedIdentity(t.Context(), name, "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/"+name)
		if err != nil {
			t.Fatal(err)
		}
		if status, answer := w.ask(t, http.MethodDelete, "/v1.0/servicePrincipals/"+id, w.token, ""); status != want {
			t.Errorf("%s: %d %v", name, status, answer)
		}
	}
}
