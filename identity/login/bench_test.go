// SPDX-License-Identifier: Apache-2.0

package login_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// BenchmarkClientCredentials is the service's own part of a token: no network.
// Tokens are signed with RS256, which is most of it.
func BenchmarkClientCredentials(b *testing.B) {
	w := start(b)
	path, body := "/"+w.first.Tenant.ID+"/oauth2/v2.0/token", w.secretForm().Encode()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			request := httptest.NewRequestWithContext(b.Context(), http.MethodPost, w.url+path, strings.NewReader(body))
			request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			answer := httptest.NewRecorder()
			w.tokens.ServeHTTP(answer, request)
			if answer.Code != http.StatusOK {
				b.Errorf("%d %s", answer.Code, answer.Body)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
}

// BenchmarkRefresh is a refresh: a token of a person, and a rotation in the store.
func BenchmarkRefresh(b *testing.B) {
	w := start(b)
	_, answer := w.post(b, "/common/oauth2/v2.0/token", w.userForm())
	refresh, _ := answer["refresh_token"].(string)
	for b.Loop() {
		_, answer := w.post(b, "/common/oauth2/v2.0/token", with(w.userForm(), "grant_type", "refresh_token", "refresh_token", refresh))
		next, ok := answer["refresh_token"].(string)
		if !ok {
			b.Fatal(answer)
		}
		refresh = next
	}
}
