// SPDX-License-Identifier: Apache-2.0

package pki

import (
	"crypto/x509"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

func newCA(t *testing.T, name string) (*CA, Pair) {
	t.Helper()
	pair, err := NewCA(name, 10*365*24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := OpenCA(pair)
	if err != nil {
		t.Fatal(err)
	}
	return ca, pair
}

func TestIssueAndVerify(t *testing.T) {
	ca, _ := newCA(t, "one")
	other, _ := newCA(t, "two")
	leaf, err := ca.Issue(Request{CommonName: "api", Organizations: []string{"ops"}, DNS: []string{"api.example"},
		IPs: []netip.Addr{netip.MustParseAddr("10.0.0.1")}, Server: true, Lifetime: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	cert, _, err := Parse(leaf)
	if err != nil {
		t.Fatal(err)
	}
	verify := func(pool *x509.CertPool, name string, usage x509.ExtKeyUsage) error {
		_, err := cert.Verify(x509.VerifyOptions{Roots: pool, DNSName: name, KeyUsages: []x509.ExtKeyUsage{usage}})
		return err
	}
	for _, c := range []struct {
		why   string
		pool  *x509.CertPool
		name  string
		usage x509.ExtKeyUsage
		ok    bool
	}{
		{"name", ca.Pool(), "api.example", x509.ExtKeyUsageServerAuth, true},
		{"address", ca.Pool(), "10.0.0.1", x509.ExtKeyUsageServerAuth, true},
		{"wrong name", ca.Pool(), "other.example", x509.ExtKeyUsageServerAuth, false},
		{"wrong use", ca.Pool(), "api.example", x509.ExtKeyUsageClientAuth, false},
		{"wrong authority", other.Pool(), "api.example", x509.ExtKeyUsageServerAuth, false},
	} {
		if err := verify(c.pool, c.name, c.usage); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.why, err)
		}
	}
	if !ca.IssuedBy(leaf.Certificate) || other.IssuedBy(leaf.Certificate) {
		t.Error("IssuedBy is wrong")
	}
}

func TestBundleTrustsOldAndNew(t *testing.T) {
	one, a := newCA(t, "one")
	two, b := newCA(t, "two")
	bundle, err := Bundle(b.Certificate, a.Certificate, nil, b.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	certs, err := Certificates(bundle)
	if err != nil || len(certs) != 2 {
		t.Fatalf("%d certificates, %v", len(certs), err)
	}
	pool, err := Pool(bundle)
	if err != nil {
		t.Fatal(err)
	}
	for _, ca := range []*CA{one, two} {
		leaf, err := ca.Issue(Request{CommonName: "x", Client: true, Lifetime: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		cert, _, err := Parse(leaf)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := cert.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
			t.Error(err)
		}
	}
}

func TestMismatchedPairIsRefused(t *testing.T) {
	_, a := newCA(t, "one")
	_, b := newCA(t, "two")
	if _, err := OpenCA(Pair{Certificate: a.Certificate, Key: b.Key}); err == nil {
		t.Error("a foreign key was taken")
	}
	ca, _ := newCA(t, "one")
	leaf, err := ca.Issue(Request{CommonName: "x", Client: true, Lifetime: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenCA(leaf); err == nil {
		t.Error("a leaf became an authority")
	}
}

func TestDueWithAThirdLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, _ := newCA(t, "one")
		leaf, err := ca.Issue(Request{CommonName: "x", Client: true, Lifetime: 90 * time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(59 * time.Hour)
		if Due(leaf.Certificate, time.Now()) {
			t.Error("due too early")
		}
		time.Sleep(2 * time.Hour)
		if !Due(leaf.Certificate, time.Now()) {
			t.Error("not due with a third left")
		}
		if !Due([]byte("nonsense"), time.Now()) {
			t.Error("what cannot be read must be due")
		}
	})
}

func TestLeafNeverOutlivesAuthority(t *testing.T) {
	pair, err := NewCA("short", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := OpenCA(pair)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := ca.Issue(Request{CommonName: "x", Server: true, Lifetime: 48 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	cert, _, err := Parse(leaf)
	if err != nil {
		t.Fatal(err)
	}
	if cert.NotAfter.After(ca.cert.NotAfter) {
		t.Errorf("leaf until %v, authority until %v", cert.NotAfter, ca.cert.NotAfter)
	}
}

func TestWriteFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key.pem")
	for _, content := range []string{"one", "two"} {
		if err := WriteFile(path, []byte(content), -1, -1); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != content {
			t.Fatalf("%q, %v", got, err)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info.Mode(), err)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Fatalf("%d files left, %v", len(entries), err)
	}
}

func TestCurrent(t *testing.T) {
	ca, _ := newCA(t, "one")
	other, _ := newCA(t, "one")
	r := Request{CommonName: "x", Organizations: []string{"o"}, DNS: []string{"a"}, IPs: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")},
		Server: true, Lifetime: time.Hour}
	leaf, err := ca.Issue(r)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	if !ca.Current(leaf, r, now) {
		t.Error("a fresh leaf is not current")
	}
	changed := r
	changed.DNS = []string{"a", "b"}
	if ca.Current(leaf, changed, now) || other.Current(leaf, r, now) || ca.Current(leaf, r, now.Add(50*time.Minute)) || ca.Current(Pair{}, r, now) {
		t.Error("a leaf with other names, of another authority, or nearly over is current")
	}
}
