// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"crypto/x509"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"bastide.dev/dataplane"
)

// FuzzRequest: no path or query makes it panic, or answer a machine without identities a token.
func FuzzRequest(f *testing.F) {
	for _, seed := range []string{"/metadata/instance/compute?api-version=2021-02-01", "/metadata/instance/network/interface/0?api-version=2021-02-01&format=text",
		"/metadata/identity/oauth2/token?api-version=2018-02-01&resource=x&client_id=%zz"} {
		f.Add(seed)
	}
	s, err := New(Config{Roots: x509.NewCertPool(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		f.Fatal(err)
	}
	if err := s.Put(Machine{ID: "m1", TenantID: tenant, TokenURL: "https://login.test/"}); err != nil {
		f.Fatal(err)
	}
	h := &handler{Service: s, senders: senders{}}
	f.Fuzz(func(t *testing.T, target string) {
		r := httptest.NewRequest(http.MethodGet, "http://169.254.169.254/", nil)
		path, query, _ := strings.Cut(target, "?")
		r.URL.Path, r.URL.RawQuery = path, query
		recorder := httptest.NewRecorder()
		if p := h.route(recorder, r, s.box("m1"), dataplane.Sender{Machine: "m1"}); p == nil && recorder.Code != http.StatusOK {
			t.Errorf("%q: %d", target, recorder.Code)
		}
		if strings.Contains(recorder.Body.String(), "access_token") {
			t.Errorf("%q: %s", target, recorder.Body)
		}
	})
}

// BenchmarkKeptToken is a token that is kept, through the whole handler.
func BenchmarkKeptToken(b *testing.B) {
	s, err := New(Config{Roots: x509.NewCertPool(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	if err := s.Put(Machine{ID: "m1", TenantID: tenant, TokenURL: "https://login.test/", Identities: []Identity{user("a")}}); err != nil {
		b.Fatal(err)
	}
	box := s.box("m1")
	box.limiter.SetLimit(1e9)
	box.keep(tokenKey{"c-a", arm}, &token{access: strings.Repeat("x", 1500), from: time.Now(), expires: time.Now().Add(time.Hour)}, time.Now())
	h := &handler{Service: s, senders: senders{}}
	r := httptest.NewRequest(http.MethodGet, "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource="+arm, nil)
	r.RemoteAddr = "10.224.0.4:4000"
	r.Header.Set("Metadata", "true")
	for b.Loop() {
		recorder := httptest.NewRecorder()
		if h.ServeHTTP(recorder, r); recorder.Code != http.StatusOK {
			b.Fatal(recorder.Body)
		}
	}
}
