// SPDX-License-Identifier: Apache-2.0

package oidc

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"bastide.dev/fault"
	"bastide.dev/pki"
	"bastide.dev/store"
	"bastide.dev/store/memory"
)

const (
	base    = "https://oidc.test.internal"
	tenant  = "11111111-1111-1111-1111-111111111111"
	cluster = "22222222-2222-2222-2222-222222222222"
)

// published is a service with one issuer, and its signing key.
func published(t *testing.T) (*Service, *memory.Store, Document, []byte) {
	t.Helper()
	private, err := pki.NewSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	public, err := pki.PublicPEM(private)
	if err != nil {
		t.Fatal(err)
	}
	d, err := NewDocument(IssuerURL(base, tenant, cluster), public)
	if err != nil {
		t.Fatal(err)
	}
	value, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	documents := memory.New(10)
	if _, err := documents.Put(t.Context(), StoreKey(tenant, cluster), value, store.Absent); err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{Store: documents, URL: base, Tenant: tenant})
	if err != nil {
		t.Fatal(err)
	}
	return s, documents, d, private
}

func get(s *Service, method, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w
}

// TestDiscovery follows the way that a relying party goes: issuer, document, keys.
func TestDiscovery(t *testing.T) {
	s, _, d, _ := published(t)
	issuer := IssuerURL(base, tenant, cluster)
	path := func(url string) string { return strings.TrimPrefix(url, base) }
	w := get(s, http.MethodGet, path(strings.TrimSuffix(issuer, "/"))+"/.well-known/openid-configuration")
	var discovery struct {
		Issuer string `json:"issuer"`
		Keys   string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &discovery); err != nil || discovery.Issuer != issuer {
		t.Fatalf("%d %s: %v", w.Code, w.Body, err)
	}
	if w.Header().Get("Cache-Control") == "" || w.Header().Get("ETag") == "" {
		t.Errorf("it can't be cached: %v", w.Header())
	}
	w = get(s, http.MethodGet, path(discovery.Keys))
	var keys jose.JSONWebKeySet
	if err := json.Unmarshal(w.Body.Bytes(), &keys); err != nil || len(keys.Keys) != 1 {
		t.Fatalf("%d %s: %v", w.Code, w.Body, err)
	}
	if key := keys.Keys[0]; key.KeyID != d.IDs()[0] || !key.IsPublic() || key.Use != "sig" {
		t.Errorf("key %+v", key)
	}
	again := httptest.NewRequest(http.MethodGet, path(discovery.Keys), nil)
	again.Header.Set("If-None-Match", w.Header().Get("ETag"))
	unchanged := httptest.NewRecorder()
	if s.ServeHTTP(unchanged, again); unchanged.Code != http.StatusNotModified {
		t.Errorf("unchanged keys: %d", unchanged.Code)
	}
}

// TestPrivateHalfStays: nothing of the private key is in what is stored.
func TestPrivateHalfStays(t *testing.T) {
	_, documents, _, _ := published(t)
	record, err := documents.Get(t.Context(), StoreKey(tenant, cluster))
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{`"d"`, `"p"`, `"q"`, "PRIVATE"} {
		if strings.Contains(string(record.Value), part) {
			t.Errorf("the document has %s", part)
		}
	}
	private, err := pki.NewSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewDocument("x", private); err == nil {
		t.Error("a private key was taken for a public one")
	}
}

func TestOtherPaths(t *testing.T) {
	s, _, _, _ := published(t)
	good := "/" + tenant + "/" + cluster
	for path, want := range map[string]int{
		good + keysPath: 200,
		"/" + tenant + "/33333333-3333-3333-3333-333333333333" + keysPath: 404,
		"/" + cluster + "/" + cluster + keysPath:                          404,
		"/" + tenant + "/../" + tenant + "/" + cluster + keysPath:         404,
		"/" + tenant + "/..%2f..%2fsecrets" + keysPath:                    404,
		good + "/":      404,
		good + "/other": 404,
		"/":             404,
	} {
		if w := get(s, http.MethodGet, path); w.Code != want {
			t.Errorf("%s: %d, want %d", path, w.Code, want)
		}
	}
	if w := get(s, http.MethodPost, good+keysPath); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", w.Code)
	}
}

func TestKeySet(t *testing.T) {
	s, documents, d, _ := published(t)
	keys, ours, err := s.KeySet(t.Context(), d.Issuer)
	if err != nil || !ours || len(keys.Keys) != 1 {
		t.Fatalf("%d keys, ours %t, %v", len(keys.Keys), ours, err)
	}
	if _, ours, err := s.KeySet(t.Context(), "https://elsewhere.example/"); ours || err != nil {
		t.Errorf("elsewhere: ours %t, %v", ours, err)
	}
	if _, ours, _ := s.KeySet(t.Context(), base+".example/"+tenant+"/"+cluster+"/"); ours {
		t.Error("a longer host name counts as ours")
	}
	// Another spelling of the same issuer isn't the issuer.
	for _, other := range []string{strings.TrimSuffix(d.Issuer, "/"), d.Issuer + "/", base + "/" + tenant + "/x/"} {
		if _, ours, err := s.KeySet(t.Context(), other); !ours || !fault.Is(err, fault.NotFound) {
			t.Errorf("%s: ours %t, %v", other, ours, err)
		}
	}
	if err := documents.Delete(t.Context(), StoreKey(tenant, cluster), store.Any); err != nil {
		t.Fatal(err)
	}
	if _, ours, err := s.KeySet(t.Context(), d.Issuer); !ours || !fault.Is(err, fault.NotFound) {
		t.Errorf("gone: ours %t, %v", ours, err)
	}
}

// TestOverlap: while keys rotate both are published, the one that signs first.
func TestOverlap(t *testing.T) {
	var publics [][]byte
	for range 2 {
		private, err := pki.NewSigningKey()
		if err != nil {
			t.Fatal(err)
		}
		public, err := pki.PublicPEM(private)
		if err != nil {
			t.Fatal(err)
		}
		publics = append(publics, public)
	}
	d, err := NewDocument("https://x/", publics...)
	if err != nil {
		t.Fatal(err)
	}
	if ids := d.IDs(); len(ids) != 2 || ids[0] == ids[1] || slices.Contains(ids, "") {
		t.Errorf("ids %v", ids)
	}
}
