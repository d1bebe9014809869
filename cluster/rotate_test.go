// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"bastide.dev/controlplane"
	"bastide.dev/fault"
	"bastide.dev/node"
	"bastide.dev/pki"
	"bastide.dev/resource"
)

const rotateCerts = testCluster + "/rotateClusterCertificates"

// configs are what the nodes have now, by name.
func (w *world) configs() map[string]node.Config {
	w.t.Helper()
	all := map[string]node.Config{}
	for _, m := range w.host.Machines {
		var c node.Config
		if err := json.Unmarshal(m.Files[0].Data, &c); err != nil {
			w.t.Fatal(err)
		}
		all[m.Hostname] = c
	}
	return all
}

// verify tells whether who trusts roots believes the certificate and its chain.
func verify(certificate, roots []byte, usage x509.ExtKeyUsage) error {
	chain, err := pki.Certificates(certificate)
	if err != nil {
		return err
	}
	pool, err := pki.Pool(roots)
	if err != nil {
		return err
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err = chain[0].Verify(x509.VerifyOptions{Roots: pool, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{usage}})
	return err
}

func issue(t *testing.T, pair controlplane.KeyPair, r pki.Request) []byte {
	t.Helper()
	ca, err := pki.OpenCA(pki.Pair(pair))
	if err != nil {
		t.Fatal(err)
	}
	r.Lifetime = time.Hour
	leaf, err := ca.Issue(r)
	if err != nil {
		t.Fatal(err)
	}
	return leaf.Certificate
}

// meets checks that everyone believes everyone, whoever has turned already: the
// nodes the API server, as a server and as a client, and it the nodes' clients.
func (w *world) meets() {
	w.t.Helper()
	plane := w.plane()
	server := issue(w.t, plane.Keys.CA, pki.Request{CommonName: "api", Server: true})
	client := issue(w.t, plane.Keys.CA, pki.Request{CommonName: "api", Client: true})
	for name, c := range w.configs() {
		if err := errors.Join(verify(server, c.CA, x509.ExtKeyUsageServerAuth), verify(client, c.CA, x509.ExtKeyUsageClientAuth)); err != nil {
			w.t.Errorf("%s doesn't believe the API server: %v", name, err)
		}
		if err := verify(c.Proxy.Certificate, plane.Keys.Trust().CA, x509.ExtKeyUsageClientAuth); err != nil {
			w.t.Errorf("the API server doesn't believe kube-proxy of %s: %v", name, err)
		}
	}
}

func TestRotateCertificates(t *testing.T) {
	w := newWorld(t)
	w.must("PUT", testCluster, azBody(3), resource.Succeeded)
	before, configs := w.plane(), w.configs()
	oldAdmin := issue(t, before.Keys.LocalCA, pki.Request{CommonName: masterClient, Client: true})
	w.must("POST", rotateCerts, "", resource.Succeeded)
	after := w.plane()
	w.meets()

	for name, pair := range map[string][2]controlplane.KeyPair{"CA": {before.Keys.CA, after.Keys.CA}, "local": {before.Keys.LocalCA, after.Keys.LocalCA},
		"front proxy": {before.Keys.FrontProxyCA, after.Keys.FrontProxyCA}, "etcd": {before.Keys.EtcdCA, after.Keys.EtcdCA}} {
		if bytes.Equal(pair[0].Key, pair[1].Key) || pki.Name(pair[0].Certificate) == pki.Name(pair[1].Certificate) {
			t.Errorf("%s is the old one", name)
		}
	}
	if !after.Keys.Former.IsZero() {
		t.Error("a former authority is still believed")
	}
	trust := after.Keys.Trust()
	if verify(oldAdmin, append(trust.CA, trust.LocalCA...), x509.ExtKeyUsageClientAuth) == nil {
		t.Error("an admin certificate of before is believed")
	}
	for name, c := range w.configs() {
		if verify(configs[name].Proxy.Certificate, trust.CA, x509.ExtKeyUsageClientAuth) == nil {
			t.Errorf("the old credential of %s is believed", name)
		}
		if verify(issue(t, before.Keys.CA, pki.Request{CommonName: "fake", Server: true}), c.CA, x509.ExtKeyUsageServerAuth) == nil {
			t.Errorf("%s believes a server of the old authority", name)
		}
		if c.Authority != pki.Name(after.Keys.CA.Certificate) {
			t.Errorf("%s has its certificates of %q", name, c.Authority)
		}
	}
	// Who learned the root long ago believes the API server still.
	if err := verify(issue(t, after.Keys.CA, pki.Request{CommonName: "api", Server: true}), before.Keys.CA.Certificate, x509.ExtKeyUsageServerAuth); err != nil {
		t.Error(err)
	}
	w.noPrivateKey(before.Keys.CA.Key, before.Keys.LocalCA.Key, before.Keys.FrontProxyCA.Key, before.Keys.EtcdCA.Key)

	// A second time, and with a node that is made afterwards.
	w.must("POST", rotateCerts, "", resource.Succeeded)
	w.must("PUT", testCluster, azBody(4), resource.Succeeded)
	w.meets()
	if err := verify(issue(t, w.plane().Keys.CA, pki.Request{CommonName: "api", Server: true}), before.Keys.CA.Certificate, x509.ExtKeyUsageServerAuth); err != nil {
		t.Errorf("after two rotations: %v", err)
	}
}

// noPrivateKey checks that keys are nowhere any more.
func (w *world) noPrivateKey(keys ...[]byte) {
	w.t.Helper()
	records, _, err := w.memory.List(w.t.Context(), "")
	if err != nil {
		w.t.Fatal(err)
	}
	for _, r := range records {
		for _, key := range keys {
			encoded, err := json.Marshal(key)
			if err != nil {
				w.t.Fatal(err)
			}
			if bytes.Contains(r.Value, bytes.Trim(encoded, `"`)) {
				w.t.Errorf("an old authority's key is in %s", r.Key)
			}
		}
	}
}

// Nodes turn one after another, none before the control plane has, and all is
// believed at each step.
func TestNodesTurnOneByOne(t *testing.T) {
	w := newWorld(t)
	w.must("PUT", testCluster, azBody(3), resource.Succeeded)
	if _, _, err := w.do(t.Context(), "POST", rotateCerts, ""); err != nil {
		t.Fatal(err)
	}
	w.host.Told = func(s *controlplane.Status) { s.Authorities.Running = "" } // it starts still
	w.settle()
	turned := func() (n int) {
		for _, c := range w.configs() {
			if c.Authority != "" {
				n++
			}
		}
		return n
	}
	w.meets()
	if turned() != 0 {
		t.Error("a node turned before the control plane")
	}
	for shown := range 3 {
		shows := map[string]bool{}
		for _, k := range w.host.Planes {
			for _, n := range k.Nodes[:shown] {
				shows[n.Name] = true
			}
		}
		w.host.Told = func(s *controlplane.Status) {
			for i, k := range s.Authorities.Kubelets {
				if !shows[k.Node] {
					s.Authorities.Kubelets[i].Authority = "cluster-ca"
				}
			}
		}
		w.settle()
		w.meets()
		if got := turned(); got != shown+1 {
			t.Errorf("%d nodes have turned when %d show it", got, shown)
		}
		if w.plane().Keys.Former.IsZero() {
			t.Error("the former authority isn't believed while nodes have its certificates")
		}
	}
	w.host.Told = func(s *controlplane.Status) { s.Authorities.Clients = append(s.Authorities.Clients, "cluster-ca") }
	w.settle()
	if w.document(t.Context(), resource.MustParseID(testCluster)).ProvisioningState == resource.Succeeded {
		t.Error("it succeeded while the old authority was believed")
	}
	w.host.Told = nil
	w.settle()
	if w.document(t.Context(), resource.MustParseID(testCluster)).ProvisioningState != resource.Succeeded {
		t.Error("it didn't succeed")
	}
}

// A node that is down doesn't hold the others up, and finds the new when it is back.
func TestRotationLeavesADeadNode(t *testing.T) {
	w := newWorld(t)
	w.must("PUT", testCluster, azBody(2), resource.Succeeded)
	away := time.Now().Add(-awayAfter / 2) // it may come back in a moment
	w.host.Told = func(s *controlplane.Status) {
		s.Nodes[0].Ready, s.Nodes[0].NotReadySince = false, away
		for i, k := range s.Authorities.Kubelets {
			if k.Node == s.Nodes[0].Name {
				s.Authorities.Kubelets[i].Authority = "cluster-ca"
			}
		}
	}
	if _, _, err := w.do(t.Context(), "POST", rotateCerts, ""); err != nil {
		t.Fatal(err)
	}
	w.settle()
	if w.plane().Keys.Former.IsZero() {
		t.Error("a node that starts anew wasn't waited for")
	}
	away = time.Now().Add(-2 * awayAfter)
	w.settle()
	if !w.plane().Keys.Former.IsZero() {
		t.Error("the old authority is believed for a dead node's sake")
	}
	w.meets()
}

func TestRotationRefused(t *testing.T) {
	w := newWorld(t)
	w.must("PUT", testCluster, azBody(1), resource.Succeeded)
	keys, err := w.p.keys(t.Context(), w.state().UID)
	if err != nil {
		t.Fatal(err)
	}
	limited, err := pki.NewCA("cluster-ca", caLifetime) // as they were made once
	if err != nil {
		t.Fatal(err)
	}
	keys.CA = controlplane.KeyPair(limited)
	if err := keys.turn(); !fault.Is(err, fault.Unsupported) || strings.Contains(err.Error(), "PRIVATE") {
		t.Errorf("%v", err)
	}
	w.must("POST", testCluster+"/stop", "", resource.Succeeded)
	if _, _, err := w.do(t.Context(), "POST", rotateCerts, ""); err == nil {
		t.Error("certificates of a stopped cluster were rotated")
	}
}

// TestCertificateRotationKilledAtEveryWrite: whatever write serve dies before,
// everyone believes everyone, and the rotation ends.
func TestCertificateRotationKilledAtEveryWrite(t *testing.T) {
	for n := 1; ; n++ {
		w := newWorld(t)
		w.must("PUT", testCluster, azBody(2), resource.Succeeded)
		before := w.plane()
		w.host.Told = func(*controlplane.Status) { w.meets() }
		k := &killer{Store: w.memory, left: n}
		w.restart(k)
		died := w.survive(k, "POST", rotateCerts, "")
		w.host.Told = nil
		w.meets()
		after := w.plane()
		if !after.Keys.Former.IsZero() || bytes.Equal(before.Keys.CA.Certificate, after.Keys.CA.Certificate) {
			t.Errorf("killed at write %d: the rotation isn't over", n)
		}
		if !died {
			if n < 5 {
				t.Fatal(errors.New("nothing was killed"))
			}
			return
		}
	}
}

// What nodes share is renewed long before it ends, and reaches them.
func TestSharedCredentialsAreRenewed(t *testing.T) {
	w := newWorld(t)
	w.must("PUT", testCluster, azBody(1), resource.Succeeded)
	var name string
	var first node.Config
	for name, first = range w.configs() {
	}
	if life := time.Until(pki.Ends(first.Proxy.Certificate)); life > credentialLife {
		t.Errorf("it lasts %s", life)
	}
	keys, err := w.p.keys(t.Context(), w.state().UID)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := pki.OpenCA(pki.Pair(keys.CA))
	if err != nil {
		t.Fatal(err)
	}
	if keys.Proxy, err = ca.Issue(pki.Request{CommonName: controlplane.ProxyUser, Client: true, Lifetime: time.Minute}); err != nil {
		t.Fatal(err)
	}
	old := keys.Proxy
	change, err := keys.change(w.state().UID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.memory.Txn(t.Context(), change); err != nil {
		t.Fatal(err)
	}
	w.settle()
	if got := w.configs()[name].Proxy.Certificate; bytes.Equal(got, old.Certificate) || pki.Due(got, time.Now()) {
		t.Error("a certificate that ends soon wasn't renewed")
	}
	if got := w.configs()[name]; got.Authority != first.Authority || !bytes.Equal(got.CA, first.CA) {
		t.Error("more than the certificate changed")
	}
}
