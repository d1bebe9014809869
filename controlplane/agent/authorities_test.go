// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"slices"
	"testing"
	"time"

	"bastide.dev/pki"
)

func authority(t *testing.T, name string) (*pki.CA, pki.Pair) {
	t.Helper()
	pair, err := pki.NewRoot(name, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := pki.OpenCA(pair)
	if err != nil {
		t.Fatal(err)
	}
	return ca, pair
}

// shows is what a server with a certificate of ca, which asks for clients of
// others, shows to who trusts trust.
func shows(t *testing.T, ca *pki.CA, clients, trust *x509.CertPool) (shown, error) {
	t.Helper()
	leaf, err := ca.Issue(pki.Request{CommonName: "server", DNS: []string{"elsewhere"}, Server: true, Lifetime: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := leaf.TLS()
	if err != nil {
		t.Fatal(err)
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{certificate}, ClientCAs: clients, ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		if conn, err := listener.Accept(); err == nil {
			_ = conn.(*tls.Conn).Handshake() // what the client makes of it counts
			_ = conn.Close()
		}
	}()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	seen, err := meet(t.Context(), conn, trust)
	_ = conn.Close()
	<-done
	return seen, err
}

func TestMeetTellsWhoSigned(t *testing.T) {
	old, pair := authority(t, "ca")
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM(pair.Certificate)
	next, err := old.Succeed("ca-2", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	clients.AppendCertsFromPEM(pki.First(next.Certificate))
	successor, err := pki.OpenCA(next)
	if err != nil {
		t.Fatal(err)
	}
	// The chain is believed by who knows the old root alone.
	seen, err := shows(t, successor, clients, old.Pool())
	slices.Sort(seen.clients)
	if err != nil || seen.authority != "ca-2" || !slices.Equal(seen.clients, []string{"ca", "ca-2"}) || seen.ends.Before(time.Now()) {
		t.Errorf("%+v, %v", seen, err)
	}
}

// Whoever answers at a node's address may call their authority what they like.
func TestMeetBelievesNoName(t *testing.T) {
	ours, _ := authority(t, "ca-2")
	forged, _ := authority(t, "ca-2")
	if seen, err := shows(t, forged, nil, ours.Pool()); !errors.Is(err, errNotOurs) || seen.authority != "" {
		t.Errorf("%+v, %v", seen, err)
	}
}

func TestCommonNameOfForeignBytes(t *testing.T) {
	for _, raw := range [][]byte{nil, {0x30}, {0x30, 0x80, 0xff}, []byte("text")} {
		if got := commonName(raw); got != "" {
			t.Errorf("%x is called %q", raw, got)
		}
	}
}
