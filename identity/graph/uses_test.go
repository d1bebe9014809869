// SPDX-License-Identifier: Apache-2.0

package graph_test

import (
	"net/http"
	"testing"
	"time"

	"bastide.dev/identity"
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
