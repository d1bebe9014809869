// SPDX-License-Identifier: Apache-2.0

package pki

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
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

func withChain(p Pair, chain []byte) Pair {
	return Pair{Certificate: append(bytes.Clone(p.Certificate), chain...), Key: p.Key}
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
		"new root":                       {withChain(leaf, chain), third, true},
		"root before":                    {withChain(leaf, chain), second, true},
		"root before that":               {withChain(leaf, chain), first, true},
		"a stranger of the first's name": {withChain(leaf, chain), stranger, false},
		"old root without the chain":     {leaf, second, false},
		"first root, half the chain":     {withChain(leaf, cross(t, second, third)), first, false},
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
		if handshake(t, withChain(leaf, chain), next.Pool()) == nil {
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

func TestSuccession(t *testing.T) {
	first := newRoot(t, "ca")
	authorities := []*CA{first}
	for _, name := range []string{"ca-2", "ca-3"} {
		pair, err := authorities[len(authorities)-1].Succeed(name, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		next, err := OpenCA(pair)
		if err != nil {
			t.Fatal(err)
		}
		authorities = append(authorities, next)
		if got := First(pair.Certificate); !bytes.Equal(got, next.Certificate()) || Name(pair.Certificate) != name {
			t.Errorf("%s's own certificate isn't the first", name)
		}
	}
	r := Request{CommonName: "api", IPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, Server: true, Lifetime: 40 * time.Minute}
	last := authorities[2]
	leaf, err := last.Issue(r)
	if err != nil {
		t.Fatal(err)
	}
	for i, ca := range authorities {
		if err := handshake(t, leaf, ca.Pool()); err != nil {
			t.Errorf("who trusts authority %d: %v", i, err)
		}
	}
	bare := Pair{Certificate: First(leaf.Certificate), Key: leaf.Key}
	if !last.Current(leaf, r, time.Now()) || last.Current(bare, r, time.Now()) {
		t.Error("a leaf is current with its chain only")
	}
	if Name(nil) != "" || !Ends(nil).IsZero() || Ends(leaf.Certificate).IsZero() {
		t.Error("Name or Ends is wrong")
	}
}

func TestChainIsBounded(t *testing.T) {
	pair, err := NewRoot("ca", time.Hour)
	for i := 0; i < 8 && err == nil; i++ {
		var ca *CA
		if ca, err = OpenCA(pair); err == nil {
			pair, err = ca.Succeed(fmt.Sprintf("ca-%d", i+2), time.Hour)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	if certs, err := Certificates(pair.Certificate); err != nil || len(certs) != 1+maxChain {
		t.Errorf("%d certificates, %v", len(certs), err)
	}
}
