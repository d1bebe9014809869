// SPDX-License-Identifier: Apache-2.0

package graph_test

import (
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"bastide.dev/fault"
	"bastide.dev/identity"
	"bastide.dev/identity/graph"
	"bastide.dev/identity/signin"
	"bastide.dev/store/memory"
)

const (
	policiesPath  = "/v1.0/identity/conditionalAccess/policies"
	locationsPath = "/v1.0/identity/conditionalAccess/namedLocations"
	signInsPath   = "/v1.0/auditLogs/signIns"
)

// withSignIns is a world with conditional access, and its administrator.
func withSignIns(t *testing.T) (w world, signIns *signin.Service, admin identity.User) {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	kept := memory.New(0)
	d, err := identity.New(identity.Config{Store: kept, Log: quiet, Endpoints: identity.Endpoints{
		Authority: "https://login.test", ResourceManager: "https://management.test", Graph: "https://graph.test"}})
	if err != nil {
		t.Fatal(err)
	}
	w = world{directory: d}
	if w.first, err = d.Bootstrap(t.Context(), identity.BootstrapOptions{Domain: "test"}); err != nil {
		t.Fatal(err)
	}
	if signIns, err = signin.New(signin.Config{Store: kept, Directory: d, Log: quiet}); err != nil {
		t.Fatal(err)
	}
	if w.service, err = graph.New(graph.Config{Directory: d, SignIns: signIns, Log: quiet}); err != nil {
		t.Fatal(err)
	}
	if admin, err = d.User(t.Context(), w.first.Administrator); err != nil {
		t.Fatal(err)
	}
	if _, err := d.AssignRole(t.Context(), admin.ID, identity.GlobalAdministrator); err != nil && !fault.Is(err, fault.Conflict) {
		t.Fatal(err)
	}
	w.token = w.personToken(t, admin)
	return w, signIns, admin
}

func (w world) personToken(t *testing.T, user identity.User) string {
	t.Helper()
	r, err := w.directory.Resource(t.Context(), "https://graph.test")
	if err != nil {
		t.Fatal(err)
	}
	app, err := w.directory.Application(t.Context(), identity.AppCLI)
	if err != nil {
		t.Fatal(err)
	}
	token, err := w.directory.UserToken(t.Context(), identity.UserGrant{User: user, Client: app, Resource: r, Methods: []string{"pwd"}})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func judge(t *testing.T, s *signin.Service, user identity.User, address string) identity.Verdict {
	t.Helper()
	v, err := s.Judge(t.Context(), identity.SignIn{Time: time.Now(), Flow: identity.FlowCode, Kind: identity.UserKind, Principal: user.ID, Name: user.Name, ClientID: identity.AppCLI,
		ResourceID: identity.AppGraph, Address: netip.MustParseAddr(address), Methods: []string{identity.MethodPassword}})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestConditionalAccess(t *testing.T) {
	w, signIns, admin := withSignIns(t)
	status, office := w.ask(t, http.MethodPost, locationsPath, w.token, `{"@odata.type":"#microsoft.graph.ipNamedLocation","displayName":"office","isTrusted":true,"ipRanges":[{"@odata.type":"#microsoft.graph.iPv4CidrRange","cidrAddress":"10.1.0.0/16"}]}`)
	if status != 201 || office["isTrusted"] != true {
		t.Fatalf("%d %v", status, office)
	}
	status, made := w.ask(t, http.MethodPost, policiesPath, w.token, `{"displayName":"Office only","state":"enabled","conditions":{"users":{"includeUsers":["All"]},"applications":{"includeApplications":["All"]},
		"locations":{"includeLocations":["All"],"excludeLocations":["`+office["id"].(string)+`"]}},"grantControls":{"operator":"OR","builtInControls":["block"]}}`)
	if status != 201 || made["@bastide.warning"] != nil {
		t.Fatalf("%d %v", status, made)
	}
	id := made["id"].(string)
	if v := judge(t, signIns, admin, "10.2.0.1"); v.Denied == nil || v.Denied.Code != "AADSTS53003" {
		t.Errorf("outside: %+v", v)
	}
	if v := judge(t, signIns, admin, "10.1.0.1"); v.Denied != nil {
		t.Errorf("at the office: %+v", v)
	}
	if status, list := w.ask(t, http.MethodGet, policiesPath+"?$filter="+url.QueryEscape("displayName eq 'Office only'"), w.token, ""); status != 200 || len(list["value"].([]any)) != 1 {
		t.Errorf("%d %v", status, list)
	}
	status, patched := w.ask(t, http.MethodPatch, policiesPath+"/"+id, w.token, `{"conditions":{"locations":null}}`)
	if status != 200 || !strings.Contains(patched["@bastide.warning"].(string), "bastide conditional-access off "+id) {
		t.Errorf("who locks everybody out isn't told: %d %v", status, patched)
	}
	if status := w.code(t, http.MethodPatch, policiesPath+"/"+id, `{"state":"enabledForReportingButNotEnforced"}`); status != 204 {
		t.Errorf("%d", status)
	}
	if v := judge(t, signIns, admin, "10.2.0.1"); v.Denied != nil || v.Policies[0].Result != "reportOnlyFailure" {
		t.Errorf("report-only: %+v", v)
	}
	for path, want := range map[string]int{policiesPath + "/" + id: 204, locationsPath + "/" + office["id"].(string): 400} {
		if got := w.code(t, http.MethodDelete, path, ""); got != want {
			t.Errorf("DELETE %s: %d, want %d", path, got, want)
		}
	}
	if status, _ := w.ask(t, http.MethodGet, policiesPath+"/"+id, w.token, ""); status != 404 {
		t.Errorf("deleted: %d", status)
	}
	if status, a := w.ask(t, http.MethodGet, "/v1.0/policies/authenticationStrengthPolicies/"+signin.StrengthPasskey, w.token, ""); status != 200 || a["displayName"] != "Phishing-resistant MFA" {
		t.Errorf("%d %v", status, a)
	}
	status, refused := w.ask(t, http.MethodPost, policiesPath, w.token, `{"displayName":"x","state":"enabled","conditions":{"users":{"includeUsers":["All"]},"applications":{"includeApplications":["All"]},"userRiskLevels":["high"]},"grantControls":{"operator":"OR","builtInControls":["compliantDevice"]}}`)
	if status != 400 || !strings.Contains(refused["error"].(map[string]any)["message"].(string), "userRiskLevels") {
		t.Errorf("%d %v", status, refused)
	}
	for _, wrong := range []string{"", "[]", "null", `{"displayName":"x"} {}`, "{"} {
		if status, _ := w.ask(t, http.MethodPost, policiesPath, w.token, wrong); status != 400 {
			t.Errorf("%q: %d", wrong, status)
		}
	}
	entries, err := w.directory.AuditLog(t.Context())
	if err != nil || entries[0].Activity != "Delete conditional access policy" || entries[0].By.ID != admin.ID || entries[0].By.Address == "" {
		t.Errorf("%+v %v", entries[0], err)
	}
}

// TestWhoMayRuleOnSignIns holds the right of each endpoint against those who have none.
func TestWhoMayRuleOnSignIns(t *testing.T) {
	w, _, _ := withSignIns(t)
	user, err := w.directory.CreateUser(t.Context(), "mallory", "Mallory", "a long password")
	if err != nil {
		t.Fatal(err)
	}
	sp, _, err := w.directory.CreateApplication(t.Context(), "stranger", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	body := `{"displayName":"x","state":"enabled","conditions":{"users":{"includeUsers":["All"]},"applications":{"includeApplications":["All"]}},"grantControls":{"operator":"OR","builtInControls":["block"]}}`
	for who, token := range map[string]string{"a user": w.personToken(t, user), "an application": w.tokenOf(t, sp, "https://graph.test")} {
		for _, path := range []string{policiesPath, locationsPath, signInsPath, signInsPath + "/x", policiesPath + "/x"} {
			if status, _ := w.ask(t, http.MethodGet, path, token, ""); status != 403 {
				t.Errorf("%s reads %s: %d", who, path, status)
			}
		}
		if status, _ := w.ask(t, http.MethodPost, policiesPath, token, body); status != 403 {
			t.Errorf("%s writes a policy: %d", who, status)
		}
	}
	for _, token := range []string{"", "nonsense", w.tokenOf(t, sp, "https://management.test")} {
		if status, _ := w.ask(t, http.MethodGet, policiesPath, token, ""); status != 401 {
			t.Errorf("token %.10q: %d", token, status)
		}
	}
	if _, err := w.directory.AssignRole(t.Context(), user.ID, identity.SecurityReader); err != nil {
		t.Fatal(err)
	}
	token := w.personToken(t, user)
	if status, _ := w.ask(t, http.MethodGet, signInsPath, token, ""); status != 200 {
		t.Errorf("a Security Reader reads: %d", status)
	}
	if status, _ := w.ask(t, http.MethodPost, policiesPath, token, body); status != 403 {
		t.Errorf("a Security Reader writes: %d", status)
	}
}

func TestSignIns(t *testing.T) {
	w, signIns, admin := withSignIns(t)
	begin := time.Date(2026, 8, 1, 0, 0, 0, 0, time.UTC)
	for i := range 25 {
		var err error
		if i%5 == 0 {
			err = errors.New("invalid_grant: AADSTS50126: Invalid user name or password.")
		}
		signIns.Record(identity.SignIn{Time: begin.Add(time.Duration(i/2) * time.Minute), Flow: identity.FlowDevice, Kind: identity.UserKind, Principal: admin.ID, Name: admin.Name, ClientID: identity.AppCLI,
			ResourceID: identity.AppGraph, Address: netip.MustParseAddr("10.1.2.3")}, identity.Verdict{}, err)
	}
	signIns.Record(identity.SignIn{Time: begin, Flow: identity.FlowSecret, Kind: identity.ServicePrincipalKind, Principal: w.first.PrincipalID, Name: w.first.ClientID, ClientID: w.first.ClientID, Credential: "key"}, identity.Verdict{}, nil)
	seen := map[any]bool{}
	next, pages := signInsPath+"?$top=7&$count=true", 0
	for next != "" {
		status, page := w.ask(t, http.MethodGet, strings.TrimPrefix(next, "https://graph.test"), w.token, "")
		if status != 200 || page["@odata.count"] != 25.0 {
			t.Fatalf("%d %v", status, page)
		}
		for _, v := range page["value"].([]any) {
			id := v.(map[string]any)["id"]
			if seen[id] {
				t.Errorf("%v is on two pages", id)
			}
			seen[id] = true
		}
		next, _ = page["@odata.nextLink"].(string)
		if pages++; pages > 10 {
			t.Fatal("no end")
		}
	}
	if len(seen) != 25 || pages != 4 {
		t.Errorf("%d entries on %d pages", len(seen), pages)
	}
	for filter, want := range map[string]int{"status/errorCode ne 0": 5, "signInEventTypes/any(t: t eq 'servicePrincipal')": 1, "createdDateTime ge 2026-08-01T00:10:00Z": 5,
		"userPrincipalName eq '" + admin.Name + "' and status/errorCode eq 50126": 5, "ipAddress eq '10.9.9.9'": 0} {
		status, page := w.ask(t, http.MethodGet, signInsPath+"?$filter="+url.QueryEscape(filter), w.token, "")
		found, _ := page["value"].([]any)
		if status != 200 || len(found) != want {
			t.Errorf("%s: %d, %d entries, want %d", filter, status, len(found), want)
		}
		if want == 1 {
			o := found[0].(map[string]any)
			if o["servicePrincipalCredentialKeyId"] != "key" || o["userId"] != "" || o["servicePrincipalName"] == nil {
				t.Errorf("%v", o)
			}
			if status, again := w.ask(t, http.MethodGet, signInsPath+"/"+o["id"].(string), w.token, ""); status != 200 || again["id"] != o["id"] {
				t.Errorf("%d %v", status, again)
			}
		}
	}
	for _, wrong := range []string{"$filter=shoeSize+eq+1", "$top=0", "$top=x", "$skiptoken=x", "$orderby=id", "$search=x", "$top=1&$top=2"} {
		if status, _ := w.ask(t, http.MethodGet, signInsPath+"?"+wrong, w.token, ""); status != 400 {
			t.Errorf("%s: %d", wrong, status)
		}
	}
}

// code is the status of an answer that has no body.
func (w world) code(t *testing.T, method, target, body string) int {
	t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+w.token)
	answer := httptest.NewRecorder()
	w.service.ServeHTTP(answer, r)
	return answer.Code
}
