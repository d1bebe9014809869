// SPDX-License-Identifier: Apache-2.0

package login_test

import (
	"crypto/sha256"
	"encoding/base64"
	"net/url"
	"strings"
	"testing"

	"bastide.dev/identity"
)

const verifier = "a-code-verifier-that-is-long-enough-for-the-rfc-7636"

func challenge() string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func (w *world) authorizePath(pairs ...string) string {
	q := with(url.Values{"client_id": {identity.AppCLI}, "response_type": {"code"}, "redirect_uri": {"http://localhost:8400/here"}, "state": {"s&t"},
		"scope": {w.url + "/.default offline_access openid"}, "code_challenge": {challenge()}, "code_challenge_method": {"S256"}}, pairs...)
	return "/" + w.first.Tenant.ID + "/oauth2/v2.0/authorize?" + q.Encode()
}

// code signs in through the page and returns the code that the application gets.
func (w *world) code(t *testing.T) string {
	t.Helper()
	b := w.browser(t)
	b.get(w.authorizePath())
	to := b.password(w.first.Password).location
	if to == nil || to.Host != "localhost:8400" || to.Query().Get("state") != "s&t" {
		t.Fatalf("%d %v", b.at.status, to)
	}
	return to.Query().Get("code")
}

func (w *world) redeem(t *testing.T, code string, pairs ...string) (int, map[string]any) {
	t.Helper()
	return w.post(t, "/"+w.first.Tenant.ID+"/oauth2/v2.0/token", with(url.Values{"grant_type": {"authorization_code"}, "client_id": {identity.AppCLI},
		"code": {code}, "redirect_uri": {"http://localhost:8400/here"}, "code_verifier": {verifier}}, pairs...))
}

func TestAuthorizationCode(t *testing.T) {
	w := start(t)
	code := w.code(t)
	for name, pairs := range map[string][]string{
		"wrong verifier": {"code_verifier", verifier + "x"},
		"no verifier":    {"code_verifier", ""},
		"other redirect": {"redirect_uri", "http://localhost:8400/there"},
		"other client":   {"client_id", identity.AppPowerShell},
		"changed code":   {"code", code + "x"},
	} {
		if status, answer := w.redeem(t, code, pairs...); status != 400 || answer["error"] != "invalid_grant" {
			t.Errorf("%s: %d %v", name, status, answer)
		}
	}
	status, answer := w.redeem(t, code)
	if status != 200 {
		t.Fatalf("%d %v", status, answer)
	}
	refresh := url.Values{"grant_type": {"refresh_token"}, "client_id": {identity.AppCLI}, "refresh_token": {answer["refresh_token"].(string)}}
	if status, answer := w.redeem(t, code); status != 400 || answer["error"] != "invalid_grant" {
		t.Errorf("replayed: %d %v", status, answer)
	}
	if status, answer := w.post(t, "/common/oauth2/v2.0/token", refresh); status != 400 {
		t.Errorf("the tokens of a replayed code must have ended: %d %v", status, answer)
	}
}

func TestAuthorizeSendsNothingElsewhere(t *testing.T) {
	w := start(t)
	for name, uri := range map[string]string{
		"foreign":        "https://evil.test/",
		"like localhost": "http://localhost.evil.test/",
		"user part":      "http://localhost@evil.test/",
		"script":         "javascript:alert(1)",
		"https loopback": "https://localhost/",
		"fragment":       "http://localhost/#x",
		"none":           "",
	} {
		answer, err := w.client.Get(w.url + w.authorizePath("redirect_uri", uri))
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		if answer.StatusCode != 400 || answer.Header.Get("Location") != "" {
			t.Errorf("%s: %d to %q", name, answer.StatusCode, answer.Header.Get("Location"))
		}
	}
	for name, pairs := range map[string][]string{
		"plain challenge": {"code_challenge_method", "plain"},
		"no challenge":    {"code_challenge", ""},
		"implicit":        {"response_type", "token"},
		"odd mode":        {"response_mode", "web_message"},
		"silent":          {"prompt", "none"},
	} {
		answer, err := w.client.Get(w.url + w.authorizePath(pairs...))
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		if to := answer.Header.Get("Location"); answer.StatusCode != 302 || !strings.HasPrefix(to, "http://localhost:8400/here?") || !strings.Contains(to, "error=") {
			t.Errorf("%s: %d to %q", name, answer.StatusCode, to)
		}
	}
}
