// SPDX-License-Identifier: Apache-2.0

package pki

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/netip"
	"testing"
	"time"
)

func newRoot(t *testing.T, name string) *CA {
	t.Helper()
	pair, err := NewRoot(name, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := OpenCA(pair)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func cross(t *testing.T, by, successor *CA) []byte {
	t.Helper()
	c, err := by.CrossSign(successor.Certificate())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// handshake is a real one between a server with the pair and a client with the roots.
func handshake(t *testing.T, server Pair, roots *x509.CertPool) error {
	t.Helper()
	certificate, err := server.TLS()
	if err != nil {
		t.Fatal(err)
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS13})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		if conn, err := listener.Accept(); err == nil {
			_ = conn.(*tls.Conn).Handshake() // the client's error is what counts
			_ = conn.Close()
		}
	}()
	conn, err := tls.Dial("tcp", listener.Addr().String(), &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13})
	if err == nil {
		_ = conn.Close()
	}
	<-done
	return err
}

func TestCrossSignedSuccessor(t *testing.T) {
	first, second, third, stranger := newRoot(t, "ca"), newRoot(t, "ca-2"), newRoot(t, "ca-3"), newRoot(t, "ca")
	chain := append(cross(t, second, third), cross(t, first, second)...)
	leaf, err := third.Issue(Request{CommonName: "api", IPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, Server: true, Lifetime: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		pair  Pair
		trust *CA
		ok    bool
	}{
		"new root":                       {leaf.WithChain(chain), third, true},
		"root before":                    {leaf.WithChain(chain), second, true},
		"root before that":               {leaf.WithChain(chain), first, true},
		"a stranger of the first's name": {leaf.WithChain(chain), stranger, false},
		"old root without the chain":     {leaf, second, false},
		"first root, half the chain":     {leaf.WithChain(cross(t, second, third)), first, false},
	} {
		if err := handshake(t, c.pair, c.trust.Pool()); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What the old authority signs isn't believed by those who know the new one
// alone, whatever chain it comes with.
func TestCrossSigningGivesTheOldNoPower(t *testing.T) {
	old, next := newRoot(t, "ca"), newRoot(t, "ca-2")
	leaf, err := old.Issue(Request{CommonName: "api", IPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, Server: true, Lifetime: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	for _, chain := range [][]byte{nil, cross(t, old, next), cross(t, next, newRoot(t, "ca-3")), old.Certificate()} {
		if handshake(t, leaf.WithChain(chain), next.Pool()) == nil {
			t.Error("a certificate of the old authority was believed")
		}
	}
}

func TestCrossSignRefuses(t *testing.T) {
	root := newRoot(t, "ca")
	limited, _ := newCA(t, "limited")
	if _, err := limited.CrossSign(root.Certificate()); !errors.Is(err, ErrNoSuccessor) {
		t.Errorf("an authority for leaves alone vouched: %v", err)
	}
	leaf, err := root.Issue(Request{CommonName: "leaf", Server: true, Lifetime: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	for name, certificate := range map[string][]byte{
		"a leaf": leaf.Certificate, "nothing": nil, "its own name": newRoot(t, "ca").Certificate(), "a cross certificate": cross(t, newRoot(t, "x"), newRoot(t, "ca-2")),
	} {
		if _, err := root.CrossSign(certificate); err == nil {
			t.Errorf("%s was vouched for", name)
		}
	}
}

func TestChain(t *testing.T) {
	old, next := newRoot(t, "ca"), newRoot(t, "ca-2")
	c := cross(t, old, next)
	leaf, err := next.Issue(Request{CommonName: "x", Client: true, Lifetime: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	whole := leaf.WithChain(c)
	if !HasChain(whole.Certificate, c) || HasChain(whole.Certificate, nil) || HasChain(leaf.Certificate, c) || !HasChain(leaf.Certificate, nil) || HasChain(nil, nil) {
		t.Error("HasChain is wrong")
	}
	if bytes.Contains(leaf.Certificate, c) {
		t.Error("the pair itself was changed")
	}
	if got := Ends(whole.Certificate); got.IsZero() || time.Until(got) > time.Minute {
		t.Errorf("ends %v", got)
	}
	if Name(c) != "ca-2" || Name(nil) != "" || !Ends(nil).IsZero() {
		t.Error("Name or Ends is wrong")
	}
}
