// SPDX-License-Identifier: Apache-2.0

package pull

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

const request = `{"kind":"CredentialProviderRequest","apiVersion":"credentialprovider.kubelet.k8s.io/v1","image":"%"}`

// node is a machine whose metadata address and registry answer as these say.
func node(t *testing.T, metadata, exchange http.HandlerFunc) *signer {
	t.Helper()
	here, there := httptest.NewServer(metadata), httptest.NewTLSServer(exchange)
	t.Cleanup(here.Close)
	t.Cleanup(there.Close)
	plain := &http.Client{CheckRedirect: noRedirects}
	secure := there.Client()
	secure.CheckRedirect = noRedirects
	return &signer{registry: "registry.test", metadata: here.URL, exchange: there.URL + "/oauth2/exchange", plain: plain, secure: secure}
}

func sells(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Metadata") != "true" || r.URL.Query().Get("resource") != audience {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	_, _ = io.WriteString(w, `{"access_token":"of the node"}`)
}

func exchanges(w http.ResponseWriter, r *http.Request) {
	if r.FormValue("grant_type") != "access_token" || r.FormValue("service") != "registry.test" || r.FormValue("access_token") != "of the node" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	_, _ = io.WriteString(w, `{"refresh_token":"of the registry"}`)
}

func (s *signer) asked(t *testing.T, image string) (response, error) {
	t.Helper()
	var out bytes.Buffer
	err := s.answer(t.Context(), strings.NewReader(strings.Replace(request, "%", image, 1)), &out)
	var answer response
	if err == nil {
		err = json.Unmarshal(out.Bytes(), &answer)
	} else if out.Len() > 0 {
		t.Errorf("an error with the output %s", &out)
	}
	return answer, err
}

func TestSignsIn(t *testing.T) {
	got, err := node(t, sells, exchanges).asked(t, "registry.test/app:1")
	if err != nil || got.Auth["registry.test"] != (credential{tokenUser, "of the registry"}) || len(got.Auth) != 1 {
		t.Errorf("%+v, %v", got, err)
	}
}

// No other registry gets the node's token, whatever it is called.
func TestOthersGetNothing(t *testing.T) {
	asked := false
	s := node(t, func(w http.ResponseWriter, r *http.Request) { asked = true; sells(w, r) }, exchanges)
	for _, image := range []string{"docker.io/app", "registry.test.evil/app", "evil/registry.test/app", "registry.test:5000/app", ""} {
		got, err := s.asked(t, image)
		if err != nil || len(got.Auth) > 0 || asked {
			t.Errorf("%s: %+v, %v", image, got, err)
		}
	}
}

func TestWithoutAnIdentity(t *testing.T) {
	for _, status := range []int{http.StatusBadRequest, http.StatusNotFound} {
		got, err := node(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }, exchanges).asked(t, "registry.test/app")
		if err != nil || len(got.Auth) > 0 || got.CacheDuration != "0s" {
			t.Errorf("%d: %+v, %v", status, got, err)
		}
	}
}

// What goes wrong is said without what was sent, and tokens follow no redirects.
func TestFailuresQuoteNothing(t *testing.T) {
	leaks := func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, r.FormValue("access_token"))
	}
	away := func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "https://evil.test/", http.StatusTemporaryRedirect)
	}
	text := func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "of the node") }
	for _, exchange := range []http.HandlerFunc{leaks, away, text, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{}") }} {
		got, err := node(t, sells, exchange).asked(t, "registry.test/app")
		if err == nil || strings.Contains(err.Error(), "of the node") {
			t.Errorf("%+v, %v", got, err)
		}
	}
}

func TestBadRequests(t *testing.T) {
	s := node(t, sells, exchanges)
	for _, bad := range []string{"", "{}", "[]", `{"kind":"CredentialProviderRequest","apiVersion":"v0","image":"registry.test/app"}`} {
		var out bytes.Buffer
		if err := s.answer(t.Context(), strings.NewReader(bad), &out); err == nil {
			t.Errorf("%q is answered: %s", bad, &out)
		}
	}
	if err := Run(t.Context(), []string{"registry.test"}, strings.NewReader(""), io.Discard); err == nil {
		t.Error("it runs without authorities")
	}
}
