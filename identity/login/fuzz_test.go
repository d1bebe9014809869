// SPDX-License-Identifier: Apache-2.0

package login_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"bastide.dev/identity"
)

// FuzzAuthorize sends any query to the authorisation endpoint: an answer goes
// nowhere but to a registered redirect, and nobody who didn't sign in gets a code.
func FuzzAuthorize(f *testing.F) {
	w := start(f)
	for _, path := range []string{w.authorizePath(), w.authorizePath("redirect_uri", "http://localhost@evil.test"), w.authorizePath("claims", `{"id_token":{"amr":{"values":["mfa"]}}}`),
		w.authorizePath("prompt", "none", "max_age", "0"), w.authorizePath("response_mode", "form_post", "state", "\x00")} {
		_, query, _ := strings.Cut(path, "?")
		f.Add(query)
	}
	f.Fuzz(func(t *testing.T, query string) {
		request := httptest.NewRequestWithContext(t.Context(), http.MethodGet, w.url+"/common/oauth2/v2.0/authorize", nil)
		request.URL.RawQuery = query
		answer := httptest.NewRecorder()
		w.tokens.ServeHTTP(answer, request)
		if answer.Code >= 500 {
			t.Fatalf("%d %s", answer.Code, answer.Body)
		}
		to := answer.Header().Get("Location")
		if to == "" {
			return
		}
		u, err := url.Parse(to)
		if err != nil || u.Scheme != "http" || u.Hostname() != "localhost" && u.Hostname() != "127.0.0.1" || u.User != nil || u.Query().Get("code") != "" {
			t.Fatalf("sent to %q", to)
		}
	})
}

// FuzzAssertion sends anything as a client's assertion: it proves nothing.
func FuzzAssertion(f *testing.F) {
	w := start(f)
	for _, seed := range []string{"", "a.b.c", "eyJhbGciOiJub25lIn0.eyJpc3MiOiJ4In0.", `{"payload":"e30","signatures":[{"protected":"e30","signature":""}]}`,
		"eyJhbGciOiJSUzI1NiIsIng1dCI6IkFBQUEifQ.eyJpc3MiOiJ4Iiwic3ViIjoieCJ9.AAAA"} {
		f.Add(seed, w.first.ClientID)
	}
	f.Fuzz(func(t *testing.T, assertion, clientID string) {
		form := with(w.assertionForm(assertion), "client_id", clientID)
		request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, w.url+"/common/oauth2/v2.0/token", strings.NewReader(form.Encode()))
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		answer := httptest.NewRecorder()
		w.tokens.ServeHTTP(answer, request)
		if answer.Code == http.StatusOK || answer.Code >= 500 {
			t.Fatalf("%d %s", answer.Code, answer.Body)
		}
	})
}

// FuzzToken parses anything as an access token: only ours are.
func FuzzToken(f *testing.F) {
	w := start(f)
	_, answer := w.post(f, "/common/oauth2/v2.0/token", w.secretForm())
	good := answer["access_token"].(string)
	f.Add(good)
	f.Add(good[:len(good)-2] + "AA")
	f.Add("eyJhbGciOiJub25lIn0.eyJvaWQiOiJ4In0.")
	f.Fuzz(func(t *testing.T, token string) {
		p, err := w.directory.AuthenticateFor(t.Context(), token, w.url, identity.AppResourceManager)
		if err == nil && p.ID != w.first.PrincipalID {
			t.Fatalf("%+v", p)
		}
	})
}
