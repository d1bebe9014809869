// SPDX-License-Identifier: Apache-2.0

package login_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"bastide.dev/identity"
)

// claimsOf reads a token that the test got from the service itself.
func claimsOf(t *testing.T, token any) identity.Claims {
	t.Helper()
	text, _ := token.(string)
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		t.Fatalf("no token: %v", token)
	}
	data, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var c identity.Claims
	if err := json.Unmarshal(data, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

// registered makes an application with a service principal and a secret.
func (w *world) registered(t *testing.T, app identity.Application) (identity.Application, identity.ServicePrincipal, string) {
	t.Helper()
	made, err := w.directory.AddApplication(t.Context(), app)
	if err != nil {
		t.Fatal(err)
	}
	sp, err := w.directory.AddServicePrincipal(t.Context(), identity.ServicePrincipal{AppID: made.AppID})
	if err != nil {
		t.Fatal(err)
	}
	_, secret, err := w.directory.NewSecret(t.Context(), made.ID, "test", time.Now().Add(24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return made, sp, secret
}

const (
	readScope  = "11111111-1111-1111-1111-111111111111"
	adminScope = "22222222-2222-2222-2222-222222222222"
	opsRole    = "33333333-3333-3333-3333-333333333333"
)

// api is an application that others call.
func (w *world) api(t *testing.T) (identity.Application, identity.ServicePrincipal, string) {
	t.Helper()
	return w.registered(t, identity.Application{DisplayName: "orders", IdentifierURIs: []string{"api://orders.bastide.test"}, GroupClaims: "SecurityGroup",
		Scopes: []identity.Scope{
			{ID: readScope, Value: "Orders.Read", Type: "User", Enabled: true, UserConsentDisplayName: "Read your orders", AdminConsentDisplayName: "Read orders", AdminConsentDescription: "Reads orders."},
			{ID: adminScope, Value: "Orders.All", Type: "Admin", Enabled: true, AdminConsentDisplayName: "All orders", AdminConsentDescription: "Reads all orders."}},
		AppRoles: []identity.AppRole{{ID: opsRole, Value: "Ops", DisplayName: "Operators", Description: "Operators", Enabled: true, Members: []string{"User", "Application"}}}})
}

func (w *world) webPath(app identity.Application, pairs ...string) string {
	return w.authorizePath(append([]string{"client_id", app.AppID, "redirect_uri", app.WebRedirectURIs[0], "code_challenge", "", "code_challenge_method", "",
		"scope", "api://orders.bastide.test/Orders.Read openid offline_access"}, pairs...)...)
}

func (w *world) web(t *testing.T) (identity.Application, string) {
	t.Helper()
	app, _, secret := w.registered(t, identity.Application{DisplayName: "shop", WebRedirectURIs: []string{"https://shop.example/done"}})
	return app, secret
}

func TestWebApplicationNeedsSecretAndConsent(t *testing.T) {
	w := start(t)
	_, apiSP, _ := w.api(t)
	app, secret := w.web(t)
	user, err := w.directory.CreateUser(t.Context(), "ann", "Ann", "a password of ann")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.directory.AssignAppRole(t.Context(), user.ID, apiSP.ID, opsRole); err != nil {
		t.Fatal(err)
	}
	b := w.browser(t)
	b.get(w.webPath(app))
	b.send("password", "username", user.Name, "password", "a password of ann")
	if b.at.location != nil || !strings.Contains(b.at.text, "Read your orders") || !strings.Contains(b.at.text, "shop") {
		t.Fatalf("consent is asked for: %d %v %s", b.at.status, b.at.location, b.at.text)
	}
	page := b.at
	if b.send("decline"); b.at.location == nil || b.at.location.Query().Get("error") != "access_denied" {
		t.Fatalf("declined: %v", b.at.location)
	}
	b.at = page
	b.origin = "https://evil.test"
	if b.send("consent"); b.at.location != nil {
		t.Fatal("a foreign page consented")
	}
	b.origin = w.url
	b.get(w.webPath(app))
	if b.send("consent"); b.at.location == nil || b.at.location.Host != "shop.example" || b.at.location.Query().Get("code") == "" {
		t.Fatalf("%d %v", b.at.status, b.at.location)
	}
	code := b.at.location.Query().Get("code")
	form := []string{"client_id", app.AppID, "redirect_uri", "https://shop.example/done", "code_verifier", ""}
	if status, answer := w.redeem(t, code, form...); status != 401 || answer["error"] != "invalid_client" {
		t.Errorf("without its secret: %d %v", status, answer)
	}
	if status, answer := w.redeem(t, code, append(form, "client_secret", secret, "code_verifier", verifier)...); status != 400 {
		t.Errorf("a verifier without a challenge: %d %v", status, answer)
	}
	status, answer := w.redeem(t, code, append(form, "client_secret", secret)...)
	if status != 200 {
		t.Fatalf("%d %v", status, answer)
	}
	c := claimsOf(t, answer["access_token"])
	if c.Scope != "Orders.Read" || !slices.Equal(c.Roles, []string{"Ops"}) || c.AppIDACR != "1" || c.OID != user.ID || c.Audience != "api://orders.bastide.test" {
		t.Errorf("%+v", c)
	}
	if id := claimsOf(t, answer["id_token"]); id.Audience != app.AppID || id.SessionID == "" || id.AuthTime == 0 {
		t.Errorf("id token %+v", id)
	}
	refresh := url.Values{"grant_type": {"refresh_token"}, "client_id": {app.AppID}, "refresh_token": {answer["refresh_token"].(string)}, "scope": {"api://orders.bastide.test/Orders.Read"}}
	if status, answer := w.post(t, "/common/oauth2/v2.0/token", refresh); status != 401 {
		t.Errorf("a confidential client's refresh token without the secret: %d %v", status, answer)
	}
	refresh.Set("client_secret", secret)
	if status, answer := w.post(t, "/common/oauth2/v2.0/token", refresh); status != 200 {
		t.Errorf("%d %v", status, answer)
	}
	if status, answer := w.post(t, "/common/oauth2/v2.0/token", with(refresh, "scope", "https://management.azure.com/user_impersonation")); status != 400 || answer["suberror"] != "consent_required" {
		t.Errorf("a resource without consent: %d %v", status, answer)
	}
	if b.get(w.webPath(app)); b.at.location == nil {
		t.Errorf("consent is asked for once: %d %s", b.at.status, b.at.text)
	}
	if b.get(w.webPath(app, "prompt", "consent")); b.at.location != nil {
		t.Error("prompt=consent asks again")
	}
	if b.get(w.webPath(app, "scope", "api://orders.bastide.test/Orders.All")); !strings.Contains(b.at.text, "Only an administrator") || strings.Contains(b.at.text, `value="consent"`) {
		t.Errorf("an administrator's permission: %d %s", b.at.status, b.at.text)
	}
	if b.send("consent"); b.at.location == nil || b.at.location.Query().Get("error") != "access_denied" {
		t.Errorf("posted all the same: %d %v", b.at.status, b.at.location)
	}
	if b.get(w.webPath(app, "scope", "api://orders.bastide.test/Orders.None")); b.at.location.Query().Get("error") != "invalid_scope" {
		t.Errorf("%v", b.at.location)
	}
}

func TestAdministratorConsentsForEverybody(t *testing.T) {
	w := start(t)
	w.api(t)
	app, _ := w.web(t)
	if _, err := w.directory.CreateUser(t.Context(), "ann", "Ann", "a password of ann"); err != nil {
		t.Fatal(err)
	}
	path := w.webPath(app, "scope", "api://orders.bastide.test/Orders.All")
	admin := w.browser(t)
	admin.get(path)
	admin.password(w.first.Password)
	if admin.send("consent", "everybody", "yes"); admin.at.location == nil || admin.at.location.Query().Get("code") == "" {
		t.Fatalf("%d %s", admin.at.status, admin.at.text)
	}
	ann := w.browser(t)
	ann.get(path)
	if ann.send("password", "username", "ann@bastide.test", "password", "a password of ann"); ann.at.location == nil || ann.at.location.Query().Get("code") == "" {
		t.Errorf("%d %s", ann.at.status, ann.at.text)
	}
}

func TestResourceThatDemandsAssignment(t *testing.T) {
	w := start(t)
	_, sp, _ := w.api(t)
	if err := w.directory.UpdateServicePrincipal(t.Context(), sp.ID, func(sp *identity.ServicePrincipal) { sp.AssignmentRequired = true }); err != nil {
		t.Fatal(err)
	}
	form := with(w.secretForm(), "scope", "api://orders.bastide.test/.default")
	if status, answer := w.post(t, "/common/oauth2/v2.0/token", form); status != 400 || answer["error_codes"].([]any)[0] != 50105.0 {
		t.Errorf("%d %v", status, answer)
	}
	if _, err := w.directory.AssignAppRole(t.Context(), w.first.PrincipalID, sp.ID, opsRole); err != nil {
		t.Fatal(err)
	}
	status, answer := w.post(t, "/common/oauth2/v2.0/token", form)
	if status != 200 || !slices.Equal(claimsOf(t, answer["access_token"]).Roles, []string{"Ops"}) {
		t.Errorf("%d %v", status, answer)
	}
}

func TestSinglePageApplication(t *testing.T) {
	w := start(t)
	app, _, _ := w.registered(t, identity.Application{DisplayName: "page", SPARedirectURIs: []string{"https://page.example/back"}})
	pairs := []string{"client_id", app.AppID, "redirect_uri", "https://page.example/back", "scope", "openid profile", "response_mode", "fragment"}
	b := w.browser(t)
	if b.get(w.authorizePath(append(pairs, "code_challenge", "", "code_challenge_method", "")...)); b.at.location == nil || !strings.Contains(b.at.location.Fragment, "error=invalid_request") {
		t.Errorf("without a challenge: %d %v", b.at.status, b.at.location)
	}
	b.get(w.authorizePath(pairs...))
	b.password(w.first.Password)
	if b.send("consent"); b.at.location == nil {
		t.Fatalf("%d %s", b.at.status, b.at.text)
	}
	values, err := url.ParseQuery(b.at.location.Fragment)
	if err != nil || b.at.location.RawQuery != "" {
		t.Fatal(b.at.location, err)
	}
	redeem := func(origin string) (int, map[string]any, string) {
		form := url.Values{"grant_type": {"authorization_code"}, "client_id": {app.AppID}, "code": {values.Get("code")}, "redirect_uri": {"https://page.example/back"}, "code_verifier": {verifier}}
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.url+"/common/oauth2/v2.0/token", strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		request.Header.Set("Origin", origin)
		answer, err := w.client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		allowed := answer.Header.Get("Access-Control-Allow-Origin")
		status, body := decode(t, answer)
		return status, body, allowed
	}
	if status, answer, allowed := redeem("https://evil.test"); status != 400 || allowed != "" {
		t.Errorf("another page: %d %v %q", status, answer, allowed)
	}
	if status, answer, allowed := redeem("https://page.example"); status != 200 || allowed != "https://page.example" {
		t.Errorf("%d %v %q", status, answer, allowed)
	}
}

func TestOnBehalfOf(t *testing.T) {
	w := start(t)
	api, apiSP, secret := w.api(t)
	user, err := w.directory.CreateUser(t.Context(), "ann", "Ann", "a password of ann")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.directory.Consent(t.Context(), "", identity.AppCLI, api.AppID, []string{"Orders.Read"}); err != nil {
		t.Fatal(err)
	}
	_, answer := w.post(t, "/common/oauth2/v2.0/token", with(w.userForm(), "username", user.Name, "password", "a password of ann", "scope", "api://orders.bastide.test/Orders.Read"))
	incoming, ok := answer["access_token"].(string)
	if !ok {
		t.Fatal(answer)
	}
	ask := func(pairs ...string) (int, map[string]any) {
		return w.post(t, "/common/oauth2/v2.0/token", with(url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "client_id": {api.AppID}, "client_secret": {secret},
			"requested_token_use": {"on_behalf_of"}, "assertion": {incoming}, "scope": {"https://management.azure.com/user_impersonation"}}, pairs...))
	}
	if status, answer := ask(); status != 400 || answer["suberror"] != "consent_required" {
		t.Errorf("without consent: %d %v", status, answer)
	}
	if err := w.directory.Consent(t.Context(), user.ID, api.AppID, identity.AppResourceManager, []string{"user_impersonation"}); err != nil {
		t.Fatal(err)
	}
	status, answer := ask()
	if status != 200 {
		t.Fatalf("%d %v", status, answer)
	}
	if c := claimsOf(t, answer["access_token"]); c.OID != user.ID || c.AppID != api.AppID || c.Scope != "user_impersonation" || !slices.Contains(c.AMR, "pwd") {
		t.Errorf("%+v", c)
	}
	outgoing := answer["access_token"].(string)
	_, own := w.post(t, "/common/oauth2/v2.0/token", w.secretForm())
	for name, pairs := range map[string][]string{
		"a token for another resource":      {"assertion", outgoing},
		"an application's token":            {"assertion", own["access_token"].(string)},
		"a forged one":                      {"assertion", incoming[:len(incoming)-4] + "AAAA"},
		"another client's":                  {"client_id", w.first.ClientID, "client_secret", w.first.Secret},
		"a wider scope than consented to":   {"scope", "https://graph.microsoft.com/Directory.Read.All"},
		"not said that it is on behalf":     {"requested_token_use", ""},
		"a public client":                   {"client_id", identity.AppCLI, "client_secret", ""},
		"an application without its secret": {"client_secret", ""},
	} {
		if status, answer := ask(pairs...); status == 200 || answer["access_token"] != nil {
			t.Errorf("%s: %d %v", name, status, answer)
		}
	}
	if err := w.directory.UpdateServicePrincipal(t.Context(), apiSP.ID, func(sp *identity.ServicePrincipal) { sp.Disabled = true }); err != nil {
		t.Fatal(err)
	}
	if status, _ := ask(); status == 200 {
		t.Error("a disabled service acts on")
	}
}

func TestLogout(t *testing.T) {
	w := start(t)
	app, _ := w.web(t)
	b := w.browser(t)
	b.get(w.authorizePath())
	b.password(w.first.Password)
	base := "/" + w.first.Tenant.ID + "/oauth2/v2.0/logout?"
	for _, evil := range []string{"https://evil.test/", "javascript:alert(1)", "https://shop.example.evil.test/done", "//evil.test"} {
		if b.get(base + url.Values{"client_id": {app.AppID}, "post_logout_redirect_uri": {evil}}.Encode()); b.at.location != nil || b.at.status != 400 {
			t.Errorf("%s: %d %v", evil, b.at.status, b.at.location)
		}
	}
	b.get(base + url.Values{"client_id": {app.AppID}, "post_logout_redirect_uri": {"https://shop.example/done"}, "state": {"x"}}.Encode())
	if b.at.location != nil || !b.signedIn() {
		t.Fatal("a link signs nobody out")
	}
	if b.send("logout"); b.at.location == nil || b.at.location.String() != "https://shop.example/done?state=x" || b.signedIn() {
		t.Errorf("%d %v", b.at.status, b.at.location)
	}
	if b.get(w.authorizePath("prompt", "none")); b.at.location.Query().Get("error") != "login_required" {
		t.Errorf("%v", b.at.location)
	}
}
