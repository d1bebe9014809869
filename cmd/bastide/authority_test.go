// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/x509"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"testing"
	"time"

	"bastide.dev/fault"
	"bastide.dev/instance"
	"bastide.dev/pki"
)

func newTestKeyring(t *testing.T) keyring {
	t.Helper()
	in := &instance.Instance{}
	in.Name, in.Domain, in.StateDir, in.PublicPool = "t", "t.test", t.TempDir(), netip.MustParsePrefix("192.88.99.0/27")
	return newKeyring(in)
}

func ensured(t *testing.T) keyring {
	t.Helper()
	k := newTestKeyring(t)
	if err := k.ensure(); err != nil {
		t.Fatal(err)
	}
	return k
}

func (k keyring) mustAuthority(t *testing.T, name string) authority {
	t.Helper()
	a, err := k.authority(name)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (k keyring) read(t *testing.T, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(k.path(file))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// leafBelieved verifies a leaf as it stands on disk by a bundle.
func (k keyring) leafBelieved(t *testing.T, name string, bundle []byte) error {
	t.Helper()
	certs, err := pki.Certificates(k.read(t, name+".pem"))
	if err != nil {
		t.Fatal(err)
	}
	pool, between := x509.NewCertPool(), x509.NewCertPool()
	pool.AppendCertsFromPEM(bundle)
	for _, c := range certs[1:] {
		between.AddCert(c)
	}
	_, err = certs[0].Verify(x509.VerifyOptions{Roots: pool, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	return err
}

func TestEnsureChangesNothingTwice(t *testing.T) {
	k := ensured(t)
	before := map[string][]byte{}
	for _, f := range []string{"ca.json", "ca.crt", "etcd-ca.json", "serve.pem", "host.pem", "etcd.pem", "etcd-serve.pem", "etcd-root.pem", "seal.key"} {
		before[f] = k.read(t, f)
		info, err := os.Stat(k.path(f))
		if err != nil {
			t.Fatal(err)
		}
		if open := f == "ca.crt"; (info.Mode().Perm()&0o077 != 0) != open {
			t.Errorf("%s has mode %v", f, info.Mode())
		}
	}
	if err := k.ensure(); err != nil {
		t.Fatal(err)
	}
	for f, data := range before {
		if !bytes.Equal(data, k.read(t, f)) {
			t.Errorf("%s is another", f)
		}
	}
}

// TestRotationGoesOn kills a rotation after each of its writes: the next goes on
// with it, and draws nothing twice.
func TestRotationGoesOn(t *testing.T) {
	for name, until := range map[string]func(t *testing.T, k keyring){
		"nothing done": func(*testing.T, keyring) {},
		"one authority replaced": func(t *testing.T, k keyring) {
			next, err := k.mustAuthority(t, "ca").successor(k.subject("ca"), 2)
			if err == nil {
				err = k.keep("ca", next)
			}
			if err != nil {
				t.Fatal(err)
			}
		},
		"all replaced, nobody told": func(t *testing.T, k keyring) {
			for _, name := range authorities {
				next, err := k.mustAuthority(t, name).successor(k.subject(name), 2)
				if err == nil {
					err = k.keep(name, next)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
		},
		"the store's former one gone": func(t *testing.T, k keyring) {
			if err := k.succeed(); err != nil {
				t.Fatal(err)
			}
			a := k.mustAuthority(t, "etcd-ca")
			a.Former = nil
			if err := k.keep("etcd-ca", a); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			k := ensured(t)
			old := map[string][]byte{"ca": k.read(t, "ca.crt"), "etcd-ca": k.read(t, "etcd-ca.crt")}
			until(t, k)
			begun := k.mustAuthority(t, "ca")
			if err := k.succeed(); err != nil {
				t.Fatal(err)
			}
			for _, name := range authorities {
				if a := k.mustAuthority(t, name); a.Generation != 2 || bytes.Contains(a.Current.Certificate[:len(old[name])/2], old[name][:len(old[name])/2]) {
					t.Errorf("%s is of generation %d", name, a.Generation)
				}
			}
			if begun.Generation == 2 && !bytes.Equal(begun.Current.Key, k.mustAuthority(t, "ca").Current.Key) {
				t.Error("an authority was drawn twice")
			}
			if goesOn, err := k.rotating(); err != nil || !goesOn {
				t.Errorf("rotating: %v, %v", goesOn, err)
			}
			for _, l := range k.leaves() {
				if err := errors.Join(k.leafBelieved(t, l.name, old[l.ca]), k.leafBelieved(t, l.name, pki.First(k.read(t, l.ca+".crt")))); err != nil {
					t.Errorf("%s: %v", l.name, err)
				}
			}
			if !bytes.Contains(k.read(t, "ca.crt"), bytes.TrimSpace(old["ca"])) {
				t.Error("the old authority isn't believed any more, too early")
			}
			if err := k.distrust(); err != nil {
				t.Fatal(err)
			}
			for _, name := range authorities {
				if bundle := k.read(t, name+".crt"); !bytes.Equal(bundle, pki.First(k.mustAuthority(t, name).Current.Certificate)) {
					t.Errorf("%s is believed beside others:\n%s", name, bundle)
				}
			}
			if goesOn, err := k.rotating(); err != nil || goesOn {
				t.Errorf("rotating: %v, %v", goesOn, err)
			}
		})
	}
}

// formerRelease writes an authority as a former release did.
func (k keyring) formerRelease(t *testing.T, name string, pair pki.Pair, err error) {
	t.Helper()
	if err == nil {
		err = errors.Join(os.MkdirAll(k.dir, 0o711), os.WriteFile(k.path(name+".crt"), pair.Certificate, 0o600), os.WriteFile(k.path(name+".key"), pair.Key, 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestAuthoritiesOfAFormerRelease(t *testing.T) {
	k := newTestKeyring(t)
	pair, err := pki.NewRoot("Bastide t", time.Hour)
	k.formerRelease(t, "ca", pair, err)
	if err := k.ensure(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(k.read(t, "ca.crt"), pair.Certificate) || k.leafBelieved(t, "serve", pair.Certificate) != nil {
		t.Error("it was replaced")
	}
	if _, err := os.Stat(k.path("ca.key")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its key is kept twice: %v", err)
	}
	if err := k.succeed(); err != nil {
		t.Error(err)
	}
}

func TestAuthoritiesThatMayNotVouch(t *testing.T) {
	for _, limited := range authorities {
		k := newTestKeyring(t)
		pair, err := pki.NewCA("Bastide t", time.Hour)
		k.formerRelease(t, limited, pair, err)
		if err := k.ensure(); err != nil {
			t.Fatal(err)
		}
		before := [2]authority{k.mustAuthority(t, "ca"), k.mustAuthority(t, "etcd-ca")}
		if err := k.succeed(); !fault.Is(err, fault.Unsupported) {
			t.Errorf("%s: %v", limited, err)
		}
		for i, name := range authorities {
			if a := k.mustAuthority(t, name); a.Generation != 1 || !bytes.Equal(a.Current.Key, before[i].Current.Key) || a.Former != nil {
				t.Errorf("%s was replaced, though %s can't be", name, limited)
			}
		}
	}
}

func TestUnreadableAuthorityIsNeverReplaced(t *testing.T) {
	for file, data := range map[string]string{"ca.json": "{", "etcd-ca.json": `{"generation":1}`} {
		k := ensured(t)
		if err := os.WriteFile(k.path(file), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(k.ensure()); err == nil {
			t.Errorf("%s: it is made anew, and everybody would be cut off", file)
		}
	}
	k := newTestKeyring(t)
	pair, err := pki.NewRoot("Bastide t", time.Hour)
	k.formerRelease(t, "ca", pair, err)
	if err := os.Remove(k.path("ca.key")); err != nil {
		t.Fatal(err)
	}
	if k.ensure() == nil {
		t.Error("an authority without its key is made anew")
	}
}
