// SPDX-License-Identifier: Apache-2.0

package graph_test

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"bastide.dev/identity"
	"bastide.dev/identity/graph"
	"bastide.dev/store/memory"
)

type world struct {
	directory *identity.Directory
	service   *graph.Service
	first     identity.Bootstrapped
	token     string // the owner's
}

func start(t *testing.T) world {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	d, err := identity.New(identity.Config{Store: memory.New(0), Log: quiet, Endpoints: identity.Endpoints{
		Authority: "https://login.test", ResourceManager: "https://management.test", Graph: "https://graph.test"}})
	if err != nil {
		t.Fatal(err)
	}
	w := world{directory: d}
	if w.first, err = d.Bootstrap(t.Context(), identity.BootstrapOptions{Domain: "test"}); err != nil {
		t.Fatal(err)
	}
	if w.service, err = graph.New(graph.Config{Directory: d, Log: quiet}); err != nil {
		t.Fatal(err)
	}
	sp, err := d.ServicePrincipal(t.Context(), w.first.ClientID)
	if err != nil {
		t.Fatal(err)
	}
	w.token = w.tokenOf(t, sp, "https://graph.test")
	return w
}

func (w world) tokenOf(t *testing.T, sp identity.ServicePrincipal, resource string) string {
	t.Helper()
	r, err := w.directory.Resource(t.Context(), resource)
	if err != nil {
		t.Fatal(err)
	}
	token, err := w.directory.PrincipalToken(t.Context(), sp, r, "")
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func (w world) ask(t *testing.T, method, target, token, body string) (int, map[string]any) {
	t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+token)
	r.RemoteAddr = "198.51.100.7:4711"
	answer := httptest.NewRecorder()
	w.service.ServeHTTP(answer, r)
	var value map[string]any
	if answer.Code == http.StatusNoContent {
		return answer.Code, nil
	}
	if err := json.Unmarshal(answer.Body.Bytes(), &value); err != nil {
		t.Fatalf("%v in %s", err, answer.Body)
	}
	return answer.Code, value
}

func TestFilters(t *testing.T) {
	w := start(t)
	for _, name := range []string{"o'hara", "olga", "bob"} {
		if _, err := w.directory.CreateUser(t.Context(), name, strings.ToUpper(name), "long enough"); err != nil {
			t.Fatal(err)
		}
	}
	for filter, want := range map[string]int{
		"": 4, "displayName eq 'BOB'": 1, "startswith(displayName,'o')": 2, "displayName eq 'O''HARA'": 1, "accountEnabled eq true": 4,
		"startswith(userPrincipalName,'o') and displayName eq 'olga'": 1, "accountEnabled eq false": 0,
		"displayName ne 'olga'": 3, "displayName eq 'bob' or displayName eq 'olga'": 2, "not(displayName eq 'bob')": 3, "jobTitle eq null": 4,
		"displayName in ('bob','OLGA','x')": 2, "endswith(userPrincipalName,'@test') and (displayName eq 'bob' or startswith(displayName,'o')) and not displayName eq 'olga'": 2,
		"createdDateTime ge 2020-01-01T00:00:00Z": 4, "createdDateTime lt 2020-01-01T00:00:00Z": 0, "otherMails/any()": 0, "not(otherMails/any(m:m eq 'x'))": 4,
		"displayName eq 'bob' or displayName eq 'olga' and accountEnabled eq false": 1,
	} {
		status, answer := w.ask(t, http.MethodGet, "/v1.0/users?"+url.Values{"$filter": {filter}}.Encode(), w.token, "")
		found, _ := answer["value"].([]any)
		if status != 200 || len(found) != want {
			t.Errorf("%q: %d, %d users, want %d", filter, status, len(found), want)
		}
	}
	for _, filter := range []string{"displayName eq 'x' and ", "displayName eq 'x", "shoeSize eq '1'", "not(a eq 'b')", "x/any(a:b eq 'c')", "displayName like 'x'",
		"displayName/any(a:a eq 'c')", "displayName eq", "eq 'x'", "(displayName eq 'x'", "displayName eq 'x')", "displayName in ()", "startswith(displayName)",
		strings.Repeat("(", 40) + "id eq 'x'" + strings.Repeat(")", 40), strings.Repeat("not ", 40) + "id eq 'x'", strings.Repeat("id eq 'x' or ", 300) + "id eq 'x'"} {
		if status, answer := w.ask(t, http.MethodGet, "/v1.0/users?"+url.Values{"$filter": {filter}}.Encode(), w.token, ""); status != 400 || answer["error"] == nil {
			t.Errorf("%q: %d %v", filter, status, answer)
		}
	}
	status, answer := w.ask(t, http.MethodGet, "/v1.0/servicePrincipals?"+url.Values{"$filter": {"servicePrincipalNames/any(c:c eq '" + w.first.ClientID + "')"}, "$select": {"id,appId"}}.Encode(), w.token, "")
	found, _ := answer["value"].([]any)
	if status != 200 || len(found) != 1 || found[0].(map[string]any)["id"] != w.first.PrincipalID || found[0].(map[string]any)["displayName"] != nil {
		t.Errorf("%d %v", status, answer)
	}
	if status, answer := w.ask(t, http.MethodGet, "/v1.0/users?$apply=id", w.token, ""); status != 400 || !strings.Contains(answer["error"].(map[string]any)["message"].(string), "$apply") {
		t.Errorf("%d %v", status, answer)
	}
}

func TestWhoMayRead(t *testing.T) {
	w := start(t)
	sp, _, err := w.directory.CreateApplication(t.Context(), "stranger", 1<<40)
	if err != nil {
		t.Fatal(err)
	}
	if status, _ := w.ask(t, http.MethodGet, "/v1.0/users", w.tokenOf(t, sp, "https://graph.test"), ""); status != 403 {
		t.Errorf("an application without a role: %d", status)
	}
	if status, _ := w.ask(t, http.MethodGet, "/v1.0/users", w.tokenOf(t, sp, "https://management.test"), ""); status != 401 {
		t.Errorf("a token for another resource: %d", status)
	}
	if status, _ := w.ask(t, http.MethodGet, "/v1.0/users", "", ""); status != 401 {
		t.Errorf("no token: %d", status)
	}
	if status, answer := w.ask(t, http.MethodGet, "/v1.0/me", w.token, ""); status != 400 {
		t.Errorf("/me of an application: %d %v", status, answer)
	}
	if status, answer := w.ask(t, http.MethodPost, "/v1.0/teams", w.token, "{}"); status != 501 {
		t.Errorf("what isn't there: %d %v", status, answer)
	}
}

func TestGetByIDs(t *testing.T) {
	w := start(t)
	user, err := w.directory.User(t.Context(), w.first.Administrator)
	if err != nil {
		t.Fatal(err)
	}
	body := `{"ids":["` + user.ID + `","` + w.first.PrincipalID + `","nothing"],"types":["user"]}`
	status, answer := w.ask(t, http.MethodPost, "/v1.0/directoryObjects/getByIds", w.token, body)
	found, _ := answer["value"].([]any)
	if status != 200 || len(found) != 1 || found[0].(map[string]any)["@odata.type"] != "#microsoft.graph.user" {
		t.Errorf("%d %v", status, answer)
	}
	if status, _ := w.ask(t, http.MethodPost, "/v1.0/directoryObjects/getByIds", w.token, "{"); status != 400 {
		t.Errorf("malformed body: %d", status)
	}
	group, err := w.directory.CreateGroup(t.Context(), "team", user.ID)
	if err != nil {
		t.Fatal(err)
	}
	status, answer = w.ask(t, http.MethodPost, "/v1.0/users/"+user.Name+"/getMemberGroups", w.token, `{"securityEnabledOnly":false}`)
	if found, _ := answer["value"].([]any); status != 200 || len(found) != 1 || found[0] != group.ID {
		t.Errorf("%d %v", status, answer)
	}
}
