// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"bastide.dev/pki"
)

func rootPair(t *testing.T, name string) KeyPair {
	t.Helper()
	pair, err := pki.NewRoot(name, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return KeyPair(pair)
}

// succeeded is the spec with a successor of its cluster CA.
func succeeded(t *testing.T, s Spec) Spec {
	t.Helper()
	s.Keys.CA = rootPair(t, "ca")
	s.Keys.Former = Trusted{CA: s.Keys.CA.Certificate}
	ca, err := pki.OpenCA(pki.Pair(s.Keys.CA))
	if err != nil {
		t.Fatal(err)
	}
	next, err := ca.Succeed("ca-2", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	s.Keys.CA = KeyPair(next)
	return s
}

func TestTrustWhileRotating(t *testing.T) {
	s := succeeded(t, sample(t))
	s.Keys.LocalCA = rootPair(t, "local")
	if got := s.Keys.ClientNames(); !slices.Contains(got, "ca") || !slices.Contains(got, "ca-2") || !slices.Contains(got, "local") {
		t.Errorf("clients of %v", got)
	}
	during := s.Keys.Digest()
	plan, err := Compile(s, Dirs{Config: "/c", Etcd: "/e", Audit: "/a"})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range plan.Files {
		names := AuthorityNames(f.Data)
		switch f.Program + "/" + f.Name {
		case APIServer + "/ca.crt", ControllerManager + "/ca.crt":
			if !slices.Equal(names, []string{"ca", "ca-2"}) {
				t.Errorf("%s/%s trusts %v", f.Program, f.Name, names)
			}
		case ControllerManager + "/signer.crt":
			if certs, err := pki.Certificates(f.Data); err != nil || len(certs) != 1 || certs[0].Subject.CommonName != "ca-2" {
				t.Errorf("the controller manager signs with %v, %v", names, err)
			}
		}
		if f.Program != ControllerManager && bytes.Contains(f.Data, s.Keys.CA.Key) {
			t.Errorf("%s has the authority's key", f.Program)
		}
	}
	s.Keys.Former = Trusted{}
	if names := AuthorityNames(s.Keys.Trust().CA); !slices.Equal(names, []string{"ca-2"}) || s.Keys.Digest() == during {
		t.Errorf("afterwards %v is trusted", names)
	}
}

func TestFormerIsValidated(t *testing.T) {
	s := sample(t)
	s.Keys.Former = Trusted{Etcd: []byte("no certificate")}
	if err := s.Validate(); err == nil || !strings.Contains(err.Error(), "keys.former.etcd") {
		t.Errorf("%v", err)
	}
}
