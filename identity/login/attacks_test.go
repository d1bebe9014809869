// SPDX-License-Identifier: Apache-2.0

package login_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"bastide.dev/identity"
)

// forged rewrites a token's header and claims and keeps or replaces its signature.
func forged(t *testing.T, token string, header, claims map[string]any, signature string) string {
	t.Helper()
	parts := strings.Split(token, ".")
	for i, change := range []map[string]any{header, claims} {
		data, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil {
			t.Fatal(err)
		}
		var values map[string]any
		if err := json.Unmarshal(data, &values); err != nil {
			t.Fatal(err)
		}
		for name, value := range change {
			values[name] = value
		}
		if data, err = json.Marshal(values); err != nil {
			t.Fatal(err)
		}
		parts[i] = base64.RawURLEncoding.EncodeToString(data)
	}
	if signature != "keep" {
		parts[2] = signature
	}
	return strings.Join(parts, ".")
}

func TestForgedTokensBuyNothing(t *testing.T) {
	w, other := start(t), start(t)
	api, _, secret := w.api(t)
	if err := w.directory.Consent(t.Context(), "", identity.AppCLI, api.AppID, []string{"Orders.Read"}); err != nil {
		t.Fatal(err)
	}
	if err := w.directory.Consent(t.Context(), "", api.AppID, identity.AppResourceManager, []string{"user_impersonation"}); err != nil {
		t.Fatal(err)
	}
	_, answer := w.post(t, "/common/oauth2/v2.0/token", with(w.userForm(), "scope", "api://orders.bastide.test/Orders.Read openid"))
	good := answer["access_token"].(string)
	_, foreign := other.post(t, "/common/oauth2/v2.0/token", other.userForm())
	exchange := func(assertion string) int {
		status, _ := w.post(t, "/common/oauth2/v2.0/token", url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "client_id": {api.AppID},
			"client_secret": {secret}, "requested_token_use": {"on_behalf_of"}, "assertion": {assertion}, "scope": {"https://management.azure.com/.default"}})
		return status
	}
	if status := exchange(good); status != 200 {
		t.Fatalf("the true one: %d", status)
	}
	for name, token := range map[string]string{
		"alg none":              forged(t, good, map[string]any{"alg": "none"}, nil, ""),
		"alg none, signed":      forged(t, good, map[string]any{"alg": "None"}, nil, "keep"),
		"alg HS256":             forged(t, good, map[string]any{"alg": "HS256"}, nil, "keep"),
		"alg ES256":             forged(t, good, map[string]any{"alg": "ES256"}, nil, "keep"),
		"alg PS256":             forged(t, good, map[string]any{"alg": "PS256"}, nil, "keep"),
		"jku":                   forged(t, good, map[string]any{"jku": "https://evil.test/keys"}, nil, "keep"),
		"x5u":                   forged(t, good, map[string]any{"x5u": "https://evil.test/c"}, nil, "keep"),
		"kid a path":            forged(t, good, map[string]any{"kid": "../../secrets/identity/keys/00000001"}, nil, "keep"),
		"kid empty":             forged(t, good, map[string]any{"kid": ""}, nil, "keep"),
		"other user":            forged(t, good, nil, map[string]any{"oid": "44444444-4444-4444-4444-444444444444"}, "keep"),
		"longer":                forged(t, good, nil, map[string]any{"exp": time.Now().Add(1000 * time.Hour).Unix()}, "keep"),
		"another instance's":    foreign["access_token"].(string),
		"an id token":           answer["id_token"].(string),
		"signature of another":  strings.Join(append(strings.Split(good, ".")[:2], strings.Split(answer["id_token"].(string), ".")[2]), "."),
		"twice signed (a JSON)": `{"payload":"e30","signatures":[]}`,
		"encrypted form":        "a.b.c.d.e",
	} {
		if status := exchange(token); status == 200 {
			t.Errorf("%s was accepted", name)
		}
	}
	w.pass(2 * time.Hour)
	if status := exchange(good); status == 200 {
		t.Error("expired, and accepted")
	}
	w.pass(-5 * time.Hour)
	if status := exchange(good); status == 200 {
		t.Error("from the future, and accepted")
	}
}

func TestCodesAreBoundAndUsedOnce(t *testing.T) {
	w := start(t)
	app, secret := w.web(t)
	w.api(t)
	if err := w.directory.Consent(t.Context(), "", app.AppID, identity.AppGraph, []string{"openid", "offline_access"}); err != nil {
		t.Fatal(err)
	}
	b := w.browser(t)
	b.get(w.webPath(app, "scope", "openid offline_access"))
	if b.password(w.first.Password); b.at.location == nil {
		t.Fatalf("%d %s", b.at.status, b.at.text)
	}
	code := b.at.location.Query().Get("code")
	evil, _, evilSecret := w.registered(t, identity.Application{DisplayName: "evil", WebRedirectURIs: []string{"https://shop.example/done"}})
	if status, _ := w.redeem(t, code, "client_id", evil.AppID, "client_secret", evilSecret, "redirect_uri", "https://shop.example/done", "code_verifier", ""); status == 200 {
		t.Error("another application redeemed it")
	}
	w.pass(6 * time.Minute)
	if status, _ := w.redeem(t, code, "client_id", app.AppID, "client_secret", secret, "redirect_uri", "https://shop.example/done", "code_verifier", ""); status == 200 {
		t.Error("redeemed too late")
	}
	again := w.code(t)
	results := make(chan int, 8)
	for range cap(results) {
		go func() {
			answer, err := w.client.PostForm(w.url+"/common/oauth2/v2.0/token", url.Values{"grant_type": {"authorization_code"}, "client_id": {identity.AppCLI},
				"code": {again}, "redirect_uri": {"http://localhost:8400/here"}, "code_verifier": {verifier}})
			if err != nil {
				results <- 0
				return
			}
			_ = answer.Body.Close()
			results <- answer.StatusCode
		}()
	}
	successes := 0
	for range cap(results) {
		if <-results == http.StatusOK {
			successes++
		}
	}
	if successes > 1 {
		t.Errorf("one code at the same moment bought tokens %d times", successes)
	}
}

func TestRedirectsAreExact(t *testing.T) {
	w := start(t)
	app, _ := w.web(t)
	b := w.browser(t)
	for _, uri := range []string{"https://shop.example/done/", "https://shop.example/done?x=1", "https://shop.example/Done", "https://shop.example:8443/done",
		"http://shop.example/done", "https://shop.example/done/../evil", "https://shop.example@evil.test/done", "https://evil.test/https://shop.example/done", "//shop.example/done",
		"https://shop.example/done#", "https://shop.example/done\n", "http://localhost/", "https://SHOP.example/done"} {
		if b.get(w.webPath(app, "redirect_uri", uri)); b.at.location != nil || b.at.status != 400 {
			t.Errorf("%q: %d %v", uri, b.at.status, b.at.location)
		}
	}
	doubled := w.webPath(app) + "&redirect_uri=" + url.QueryEscape("https://evil.test/")
	if b.get(doubled); b.at.location != nil || b.at.status != 400 {
		t.Errorf("two redirects: %d %v", b.at.status, b.at.location)
	}
}

func TestFormsOfStrangersDoNothing(t *testing.T) {
	w := start(t)
	victim, thief := w.browser(t), w.browser(t)
	path := w.authorizePath()
	thief.get(path)
	thiefPage := thief.at
	victim.get(path)
	victim.at = thiefPage // a form with the thief's own token, sent by the victim's browser
	if victim.password(w.first.Password); victim.at.location != nil || victim.signedIn() {
		t.Error("the victim was signed in by a foreign form")
	}
	bare := w.browser(t) // no cookie of ours at all
	bare.at = thiefPage
	if bare.password(w.first.Password); bare.at.location != nil || bare.signedIn() {
		t.Error("a form without its cookie was taken")
	}
}

func TestDeviceCodesAreNotGuessed(t *testing.T) {
	w := start(t)
	_, begun := w.post(t, "/common/oauth2/v2.0/devicecode", url.Values{"client_id": {identity.AppCLI}})
	b := w.browser(t)
	for range 40 {
		b.get("/device")
		b.send("code", "user_code", "BBBBBBBBB")
	}
	if !strings.Contains(b.at.text, "Too many requests") {
		t.Errorf("%d %s", b.at.status, b.at.text)
	}
	b.get("/device")
	if b.send("code", "user_code", begun["user_code"].(string)); strings.Contains(b.at.text, "Sign in with") {
		t.Error("the right one, after all those guesses, is taken")
	}
	w.pass(5 * time.Minute)
	b.get("/device")
	b.send("code", "user_code", begun["user_code"].(string))
	b.password(w.first.Password)
	if b.send("decline"); b.at.status != 200 {
		t.Errorf("%d", b.at.status)
	}
	poll := url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "client_id": {identity.AppCLI}, "device_code": {begun["device_code"].(string)}}
	if status, answer := w.post(t, "/common/oauth2/v2.0/token", poll); status != 400 || answer["error"] != "authorization_declined" {
		t.Errorf("%d %v", status, answer)
	}
}

func TestPasswordsAreTriedSlowly(t *testing.T) {
	w := start(t)
	refused := 0
	for range 60 {
		if status, _ := w.post(t, "/common/oauth2/v2.0/token", w.userForm()); status == http.StatusTooManyRequests {
			refused++
		}
	}
	if refused == 0 {
		t.Error("sixty right passwords in a row, from one address, and none too many")
	}
	w.pass(time.Minute)
	if status, answer := w.post(t, "/common/oauth2/v2.0/token", w.userForm()); status != 200 {
		t.Errorf("a minute later: %d %v", status, answer)
	}
}

func TestSweepForgetsWhatHasEnded(t *testing.T) {
	w := start(t)
	w.code(t)
	_, _ = w.post(t, "/common/oauth2/v2.0/devicecode", url.Values{"client_id": {identity.AppCLI}})
	before, _, err := w.store.List(t.Context(), "signin/")
	if err != nil || len(before) < 3 {
		t.Fatalf("%d documents, %v", len(before), err)
	}
	for _, record := range before {
		if strings.Contains(string(record.Value), w.first.Password) {
			t.Errorf("%s holds the password", record.Key)
		}
	}
	w.pass(24 * time.Hour)
	if err := w.tokens.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after, _, err := w.store.List(t.Context(), "signin/"); err != nil || len(after) != 0 {
		t.Errorf("%d documents are left, %v", len(after), err)
	}
}
