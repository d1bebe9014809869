// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"bastide.dev/client"
)

// A session keeps its connection and shows its certificate; Do has a connection
// for each request. Neither trusts anybody but whom it was told to.
func TestSession(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, "%s %d %s", r.Header.Get("Authorization"), len(r.TLS.PeerCertificates), r.RemoteAddr)
	}))
	at := netip.MustParseAddrPort(server.Listener.Addr().String())
	i := client.Instance{Name: "t", Domain: "client.test", Location: "eastus", Address: at.Addr(), Port: at.Port(), CAFile: filepath.Join(t.TempDir(), "ca.pem")}
	pair, ca := certificate(t, i.Hosts())
	_, other := certificate(t, i.Hosts())
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequestClientCert}
	server.StartTLS()
	t.Cleanup(server.Close)
	if err := os.WriteFile(i.CAFile, other, 0o600); err != nil {
		t.Fatal(err)
	}
	ask := client.Exchange{Method: "GET", Address: i.ResourceManager() + "/", Bearer: "b"}
	if _, err := i.Do(t.Context(), ask); err == nil {
		t.Error("a server that nobody vouches for is believed")
	}
	s, err := i.Session(ca, &pair)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	said := map[string]int{}
	for range 3 {
		answer, err := s.Do(t.Context(), ask)
		if err != nil || answer.Status != 200 {
			t.Fatalf("%d, %v", answer.Status, err)
		}
		said[string(answer.Body)]++
	}
	if len(said) != 1 {
		t.Errorf("not one connection: %v", said)
	}
	for text := range said {
		if text[:11] != "Bearer b 1 " {
			t.Errorf("the server saw %q", text)
		}
	}
	ask.Roots = ca
	alone := map[string]int{}
	for range 3 {
		answer, err := i.Do(t.Context(), ask)
		if err != nil {
			t.Fatal(err)
		}
		alone[string(answer.Body)]++
	}
	if len(alone) != 3 {
		t.Errorf("not a connection each: %v", alone)
	}
	if _, err := i.Session([]byte("nothing"), nil); err == nil {
		t.Error("roots without a certificate are taken")
	}
}
