// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"net"
	"net/netip"
	"net/url"
	"testing"

	"bastide.dev/controlplane"
)

func TestJudge(t *testing.T) {
	spec := &controlplane.Spec{Nodes: []controlplane.Node{
		{Name: "n1", Address: netip.MustParseAddr("10.0.0.1")},
		{Name: "gone", Address: netip.MustParseAddr("10.0.0.2"), Removed: true}}}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	type edit func(*request, *x509.CertificateRequest)
	serving := func(r *request, c *x509.CertificateRequest) {
		*r = request{signer: servingSigner, user: "system:node:n1", groups: []string{"system:nodes"}, usages: []string{"digital signature", "server auth"}}
		c.Subject = pkix.Name{CommonName: "system:node:n1", Organization: []string{"system:nodes"}}
		c.DNSNames, c.IPAddresses = []string{"n1"}, []net.IP{net.IPv4(10, 0, 0, 1)}
	}
	client := func(r *request, c *x509.CertificateRequest) {
		*r = request{signer: clientSigner, user: "system:bootstrap:abcdef", groups: []string{bootstrappers}, usages: []string{"digital signature", "key encipherment", "client auth"}}
		c.Subject = pkix.Name{CommonName: "system:node:n1", Organization: []string{"system:nodes"}}
	}
	name := func(n string) edit {
		return func(_ *request, c *x509.CertificateRequest) { c.Subject.CommonName = n }
	}
	const approve, deny, wait = "approve", "deny", "wait"
	for _, c := range []struct {
		why   string
		edits []edit
		want  string
	}{
		{"its own", []edit{serving}, approve},
		{"address only", []edit{serving, func(_ *request, c *x509.CertificateRequest) { c.DNSNames = nil }}, approve},
		{"no names", []edit{serving, func(_ *request, c *x509.CertificateRequest) { c.DNSNames, c.IPAddresses = nil, nil }}, deny},
		{"another's address", []edit{serving, func(_ *request, c *x509.CertificateRequest) {
			c.IPAddresses = append(c.IPAddresses, net.IPv4(10, 0, 0, 9))
		}}, deny},
		{"another's name", []edit{serving, func(_ *request, c *x509.CertificateRequest) { c.DNSNames = append(c.DNSNames, "kubernetes") }}, deny},
		{"a URI", []edit{serving, func(_ *request, c *x509.CertificateRequest) {
			c.URIs = []*url.URL{{Scheme: "spiffe", Host: "x"}}
		}}, deny},
		{"asked by another", []edit{serving, func(r *request, _ *x509.CertificateRequest) { r.user = "system:node:n2" }}, deny},
		{"asked by no node", []edit{serving, func(r *request, _ *x509.CertificateRequest) { r.groups = []string{"system:masters"} }}, deny},
		{"client too", []edit{serving, func(r *request, _ *x509.CertificateRequest) { r.usages = append(r.usages, "client auth") }}, deny},
		{"not expected", []edit{serving, name("system:node:n9"), func(r *request, _ *x509.CertificateRequest) { r.user = "system:node:n9" }}, deny},
		{"being removed", []edit{serving, name("system:node:gone"), func(r *request, _ *x509.CertificateRequest) { r.user = "system:node:gone" }}, deny},
		{"no node", []edit{serving, name("kubernetes")}, deny},
		{"other organization", []edit{serving, func(_ *request, c *x509.CertificateRequest) {
			c.Subject.Organization = []string{"system:nodes", "system:masters"}
		}}, deny},
		{"joins", []edit{client}, approve},
		{"joins later", []edit{client, name("system:node:n9")}, wait},
		{"joins while removed", []edit{client, name("system:node:gone")}, deny},
		{"joins as master", []edit{client, func(_ *request, c *x509.CertificateRequest) { c.Subject.Organization = []string{"system:masters"} }}, deny},
		{"joins as no node", []edit{client, name("admin")}, deny},
		{"joins to serve", []edit{client, func(r *request, _ *x509.CertificateRequest) { r.usages = []string{"digital signature", "server auth"} }}, deny},
		{"joins with names", []edit{client, func(_ *request, c *x509.CertificateRequest) { c.DNSNames = []string{"n1"} }}, deny},
		{"renews", []edit{client, func(r *request, _ *x509.CertificateRequest) {
			r.user, r.groups = "system:node:n1", []string{"system:nodes"}
		}}, wait},
	} {
		var r request
		var template x509.CertificateRequest
		for _, e := range c.edits {
			e(&r, &template)
		}
		der, err := x509.CreateCertificateRequest(rand.Reader, &template, key)
		if err != nil {
			t.Fatal(err)
		}
		r.pem = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
		if got := word(judge(r, spec)); got != c.want {
			t.Errorf("%s: %s, want %s", c.why, got, c.want)
		}
		broken := append([]byte(nil), der...)
		broken[len(broken)-1] ^= 1
		r.pem = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: broken})
		if got := word(judge(r, spec)); got != deny {
			t.Errorf("%s, with a wrong signature: %s", c.why, got)
		}
	}
	if got := word(judge(request{signer: servingSigner, pem: []byte("nonsense")}, spec)); got != deny {
		t.Errorf("nonsense: %s", got)
	}
}

func word(v verdict) string {
	switch {
	case v.approve && !v.deny:
		return "approve"
	case v.deny && !v.approve:
		return "deny"
	case !v.approve && !v.deny:
		return "wait"
	}
	return "both"
}
