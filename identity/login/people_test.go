// SPDX-License-Identifier: Apache-2.0

package login_test

import (
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"bastide.dev/fault"
	"bastide.dev/identity"
)

var shownSecret = regexp.MustCompile(`<code id="secret">([A-Z2-7]+)</code>`)

func needMFA(identity.SignIn) identity.Verdict { return identity.Verdict{NeedsMFA: true} }

func (w *world) otp(t *testing.T, secret string) string {
	t.Helper()
	code, err := totp.GenerateCode(secret, w.now())
	if err != nil {
		t.Fatal(err)
	}
	return code
}

// enrolled signs in at a page that demands a second factor, and registers one.
func (b *browser) enrolled(path string) string {
	b.t.Helper()
	b.get(path)
	b.password(b.w.first.Password)
	b.send("begin:confirm")
	found := shownSecret.FindStringSubmatch(b.at.text)
	if found == nil {
		b.t.Fatalf("no secret is shown: %d %s", b.at.status, b.at.text)
	}
	b.send("confirm", "code", b.w.otp(b.t, found[1]))
	return found[1]
}

func TestSecondFactorIsDemandedRegisteredAndUsed(t *testing.T) {
	w := start(t)
	w.policy(needMFA)
	path := "/" + w.first.Tenant.ID + "/oauth2/v2.0/token"
	if status, answer := w.post(t, path, w.userForm()); status != 400 || answer["error_codes"].([]any)[0] != 50079.0 || answer["suberror"] != "basic_action" {
		t.Errorf("password alone, nothing registered: %d %v", status, answer)
	}
	b := w.browser(t)
	secret := b.enrolled(w.authorizePath())
	if b.at.location == nil || b.at.location.Query().Get("code") == "" {
		t.Fatalf("registered: %d %s", b.at.status, b.at.text)
	}
	status, answer := w.redeem(t, b.at.location.Query().Get("code"))
	if status != 200 {
		t.Fatalf("%d %v", status, answer)
	}
	if p, err := w.directory.Authenticate(t.Context(), answer["access_token"].(string)); err != nil || !slices.Contains(p.Methods, "mfa") || !slices.Contains(p.Methods, "otp") {
		t.Errorf("amr %v %v", p.Methods, err)
	}
	refresh := url.Values{"grant_type": {"refresh_token"}, "client_id": {identity.AppCLI}, "refresh_token": {answer["refresh_token"].(string)}}
	if status, answer := w.post(t, path, refresh); status != 200 {
		t.Errorf("what grew out of two factors: %d %v", status, answer)
	}
	if status, answer := w.post(t, path, w.userForm()); status != 400 || answer["error_codes"].([]any)[0] != 50076.0 {
		t.Errorf("password alone: %d %v", status, answer)
	}

	other := w.browser(t)
	other.get(w.authorizePath())
	if other.password(w.first.Password); other.at.location != nil || !strings.Contains(other.at.text, "authenticator app") {
		t.Fatalf("password alone: %d %v", other.at.status, other.at.location)
	}
	if other.send("otp", "code", w.otp(t, secret)); other.at.location != nil {
		t.Error("a code is good for one time only, also the one of the registration")
	}
	w.pass(-90 * time.Second)
	if other.send("otp", "code", w.otp(t, secret)); other.at.location != nil {
		t.Error("a code older than one that was used")
	}
	w.pass(150 * time.Second)
	if other.send("otp", "code", w.otp(t, secret)); other.at.location == nil {
		t.Errorf("the next code: %d %s", other.at.status, other.at.text)
	}
}

// Whoever knows the password alone must not add a second factor of their own.
func TestStolenPasswordCannotTouchFactors(t *testing.T) {
	w := start(t)
	w.policy(needMFA)
	w.browser(t).enrolled(w.authorizePath())
	w.policy(nil)
	thief := w.browser(t)
	thief.get(w.authorizePath())
	if thief.password(w.first.Password); thief.at.location == nil {
		t.Fatalf("%d", thief.at.status)
	}
	thief.get("/security")
	for _, step := range []string{"begin:confirm", "begin:register", "remove", "confirm", "register", "end"} {
		if thief.send(step, "id", "x", "code", "123456"); strings.Contains(thief.at.text, `id="secret"`) || strings.Contains(thief.at.text, "data-options") || strings.Contains(thief.at.text, "Removed") {
			t.Errorf("%s: %d %s", step, thief.at.status, thief.at.text)
		}
		thief.get("/security")
	}
	user, err := w.directory.User(t.Context(), w.first.Administrator)
	if err != nil {
		t.Fatal(err)
	}
	if f, err := w.directory.Factors(t.Context(), user.ID); err != nil || f.TOTP == nil || f.Pending != nil {
		t.Errorf("%+v %v", f, err)
	}
}

func TestCodesCannotBeGuessed(t *testing.T) {
	w := start(t)
	w.policy(needMFA)
	secret := w.browser(t).enrolled(w.authorizePath())
	w.pass(time.Minute)
	b := w.browser(t)
	b.get(w.authorizePath())
	b.password(w.first.Password)
	for range 10 {
		b.send("otp", "code", "000000")
	}
	if b.send("otp", "code", w.otp(t, secret)); b.at.location != nil || !strings.Contains(b.at.text, "Too many wrong codes") {
		t.Errorf("the eleventh: %d %v", b.at.status, b.at.location)
	}
	w.pass(2 * time.Minute)
	if b.send("otp", "code", w.otp(t, secret)); b.at.location == nil {
		t.Errorf("after the wait: %d %s", b.at.status, b.at.text)
	}
}

func TestPasswordHasToBeChanged(t *testing.T) {
	w := start(t)
	user, err := w.directory.User(t.Context(), w.first.Administrator)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.directory.UpdateUser(t.Context(), user.ID, func(u *identity.User) { u.MustChange = true }); err != nil {
		t.Fatal(err)
	}
	if status, answer := w.post(t, "/common/oauth2/v2.0/token", w.userForm()); status != 400 || answer["error_codes"].([]any)[0] != 50055.0 {
		t.Errorf("%d %v", status, answer)
	}
	b := w.browser(t)
	b.get(w.authorizePath())
	if b.password(w.first.Password); b.at.location != nil || !strings.Contains(b.at.text, "has to be changed") {
		t.Fatalf("%d %v", b.at.status, b.at.location)
	}
	if b.send("account"); b.at.location != nil {
		t.Fatal("another step leads past the change")
	}
	for name, fields := range map[string][]string{
		"the same":  {"password", w.first.Password, "new", w.first.Password, "again", w.first.Password},
		"different": {"password", w.first.Password, "new", "one new password", "again", "another new one"},
		"not known": {"password", "guess", "new", "a new password", "again", "a new password"},
		"short":     {"password", w.first.Password, "new", "short", "again", "short"},
	} {
		if b.send("change", fields...); b.at.location != nil || b.at.status != 400 {
			t.Errorf("%s: %d %v", name, b.at.status, b.at.location)
		}
	}
	if b.send("change", "password", w.first.Password, "new", "a new password", "again", "a new password"); b.at.location == nil {
		t.Fatalf("%d %s", b.at.status, b.at.text)
	}
	if status, answer := w.redeem(t, b.at.location.Query().Get("code")); status != 200 {
		t.Errorf("%d %v", status, answer)
	}
	if status, _ := w.post(t, "/common/oauth2/v2.0/token", with(w.userForm(), "password", "a new password")); status != 200 {
		t.Errorf("%d", status)
	}
}

func TestSessionsSpareThePassword(t *testing.T) {
	w := start(t)
	b := w.browser(t)
	b.get(w.authorizePath())
	b.password(w.first.Password)
	silent := func(pairs ...string) string {
		b.get(w.authorizePath(append([]string{"prompt", "none"}, pairs...)...))
		if b.at.location == nil {
			t.Fatalf("%d %s", b.at.status, b.at.text)
		}
		return b.at.location.Query().Get("error")
	}
	if e := silent(); e != "" {
		t.Errorf("a session: %s", e)
	}
	w.pass(2 * time.Minute)
	if e := silent("max_age", "60"); e != "login_required" {
		t.Errorf("an old session: %q", e)
	}
	if e := silent("claims", `{"id_token":{"amr":{"essential":true,"values":["mfa"]}}}`); e != "interaction_required" {
		t.Errorf("a second factor: %q", e)
	}
	if e := silent("claims", `{"id_token":{"acrs":{"essential":true,"value":"c1"}}}`); e != "invalid_request" {
		t.Errorf("a claim that can't be: %q", e)
	}
	fresh := w.authorizePath("prompt", "login")
	for range 2 { // the same address a second time asks a second time
		if b.get(fresh); b.at.location != nil {
			t.Fatal("prompt=login asked for nothing")
		}
		if b.send("account"); b.at.location != nil {
			t.Fatal("prompt=login is answered by a password only")
		}
		if b.password(w.first.Password); b.at.location == nil {
			t.Fatalf("%d %s", b.at.status, b.at.text)
		}
	}
	if b.get(w.authorizePath("prompt", "select_account")); b.at.location != nil || !strings.Contains(b.at.text, "Continue as "+w.first.Administrator) {
		t.Fatalf("%d %s", b.at.status, b.at.text)
	}
	if b.send("account"); b.at.location == nil {
		t.Errorf("%d %s", b.at.status, b.at.text)
	}
	w.pass(9 * time.Hour)
	if e := silent(); e != "login_required" {
		t.Errorf("after its life: %q", e)
	}
}

func TestSessionEndsWithItsUser(t *testing.T) {
	w := start(t)
	user, err := w.directory.User(t.Context(), w.first.Administrator)
	if err != nil {
		t.Fatal(err)
	}
	for name, end := range map[string]func() error{
		"sessions ended": func() error { return w.directory.EndSessions(t.Context(), user.ID) },
		"disabled": func() error {
			return w.directory.UpdateUser(t.Context(), user.ID, func(u *identity.User) { u.Disabled = true })
		},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if err := w.directory.UpdateUser(t.Context(), user.ID, func(u *identity.User) { u.Disabled = false }); err != nil {
					t.Error(err)
				}
			}()
			b := w.browser(t)
			b.get(w.authorizePath())
			if b.password(w.first.Password); b.at.location == nil {
				t.Fatalf("%d %s", b.at.status, b.at.text)
			}
			code := b.at.location.Query().Get("code")
			w.pass(2 * time.Second)
			if err := end(); err != nil {
				t.Fatal(err)
			}
			if b.get(w.authorizePath("prompt", "none")); b.at.location.Query().Get("error") != "login_required" {
				t.Errorf("%v", b.at.location)
			}
			if status, answer := w.redeem(t, code); status != 400 {
				t.Errorf("a code from before: %d %v", status, answer)
			}
		})
	}
}

func TestSessionIsNewWithEachSignIn(t *testing.T) {
	w := start(t)
	w.policy(needMFA)
	b := w.browser(t)
	at, _ := url.Parse(w.url)
	session := func() string {
		for _, c := range b.client.Jar.Cookies(at) {
			if c.Name == "__Host-bastide-session" {
				return c.Value
			}
		}
		return ""
	}
	planted := &http.Cookie{Name: "__Host-bastide-session", Value: strings.Repeat("a", 22) + "." + strings.Repeat("b", 43), Path: "/", Secure: true}
	b.client.Jar.SetCookies(at, []*http.Cookie{planted})
	b.get(w.authorizePath())
	b.password(w.first.Password)
	first := session()
	if first == planted.Value || first == "" {
		t.Fatal("the planted session became the user's")
	}
	b.send("begin:confirm")
	b.send("confirm", "code", w.otp(t, shownSecret.FindStringSubmatch(b.at.text)[1]))
	if second := session(); second == first || second == "" {
		t.Error("the session is the one from before the second factor")
	}
	b.client.Jar.SetCookies(at, []*http.Cookie{{Name: "__Host-bastide-session", Value: first, Path: "/", Secure: true}})
	if b.get(w.authorizePath()); b.at.location != nil {
		t.Error("the session from before the second factor is still good")
	}
}

func TestPoliciesOfTheGateHold(t *testing.T) {
	w := start(t)
	path := "/" + w.first.Tenant.ID + "/oauth2/v2.0/token"
	_, answer := w.post(t, path, w.userForm())
	refresh := url.Values{"grant_type": {"refresh_token"}, "client_id": {identity.AppCLI}, "refresh_token": {answer["refresh_token"].(string)}}
	code := w.code(t)
	w.attempts()
	w.policy(func(identity.SignIn) identity.Verdict {
		return identity.Verdict{Denied: fault.New(fault.Forbidden, "AADSTS53003", "Access has been blocked by Conditional Access policies.")}
	})
	refused := func(name string, status int, answer map[string]any) {
		t.Helper()
		if status != 400 || answer["error"] != "invalid_grant" || answer["error_codes"].([]any)[0] != 53003.0 || answer["access_token"] != nil {
			t.Errorf("%s: %d %v", name, status, answer)
		}
	}
	status, answer := w.post(t, path, w.userForm())
	refused("password", status, answer)
	status, answer = w.post(t, path, w.secretForm())
	refused("secret", status, answer)
	status, answer = w.post(t, path, refresh)
	refused("refresh", status, answer)
	status, answer = w.redeem(t, code)
	refused("code", status, answer)
	b := w.browser(t)
	b.get(w.authorizePath())
	if b.password(w.first.Password); b.at.location != nil || !strings.Contains(b.at.text, "get there from here") {
		t.Errorf("page: %d %v", b.at.status, b.at.location)
	}
	var flows []identity.Flow
	for _, a := range w.attempts() {
		if a.err == nil || fault.From(a.err).Code != "AADSTS53003" || !a.Address.IsLoopback() || a.Principal == "" || a.ResourceID == "" {
			t.Errorf("recorded %+v", a)
		}
		flows = append(flows, a.Flow)
	}
	want := []identity.Flow{identity.FlowPassword, identity.FlowSecret, identity.FlowRefresh, identity.FlowCode, identity.FlowCode}
	if !slices.Equal(flows, want) {
		t.Errorf("recorded %v, want %v", flows, want)
	}
	w.policy(nil)
	if status, answer := w.post(t, path, refresh); status != 200 {
		t.Errorf("a refusal must not cost the refresh token: %d %v", status, answer)
	}
	for _, a := range w.attempts() {
		if a.Origin != identity.FlowPassword || a.Flow != identity.FlowRefresh || a.err != nil || a.Authenticated.IsZero() {
			t.Errorf("refresh recorded as %+v", a)
		}
	}
	_, _ = w.post(t, path, with(w.userForm(), "username", "nobody<script>@bastide.test"))
	if all := w.attempts(); len(all) != 1 || all[0].Name != "nobody<script>@bastide.test" || fault.From(all[0].err).Code != "AADSTS50126" {
		t.Errorf("unknown name: %+v", all)
	}
}
