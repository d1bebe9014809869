// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"time"

	"bastide.dev/pki"
)

// Trusted are PEM certificates of authorities.
type Trusted struct {
	CA         []byte `json:"ca,omitempty"`
	LocalCA    []byte `json:"local,omitempty"`
	FrontProxy []byte `json:"frontProxy,omitempty"`
	Etcd       []byte `json:"etcd,omitempty"`
}

// IsZero tells whether nothing is trusted.
func (t Trusted) IsZero() bool {
	return len(t.CA)+len(t.LocalCA)+len(t.FrontProxy)+len(t.Etcd) == 0
}

// own are the authorities' certificates without the chains that lead to them.
func (k *Keys) own() Trusted {
	return Trusted{CA: pki.First(k.CA.Certificate), LocalCA: pki.First(k.LocalCA.Certificate),
		FrontProxy: pki.First(k.FrontProxyCA.Certificate), Etcd: pki.First(k.EtcdCA.Certificate)}
}

// Trust is what is believed: the authorities, and as long as they are rotated
// those before them.
func (k *Keys) Trust() Trusted {
	t := k.own()
	t.CA = slices.Concat(t.CA, k.Former.CA)
	t.LocalCA = slices.Concat(t.LocalCA, k.Former.LocalCA)
	t.FrontProxy = slices.Concat(t.FrontProxy, k.Former.FrontProxy)
	t.Etcd = slices.Concat(t.Etcd, k.Former.Etcd)
	return t
}

// Digest tells one set of authorities from another. It holds no secret.
func (k *Keys) Digest() string {
	t := k.Trust()
	sum := sha256.New()
	for _, part := range [][]byte{t.CA, t.LocalCA, t.FrontProxy, t.Etcd, k.CA.Certificate} {
		digest := sha256.Sum256(part)
		sum.Write(digest[:])
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// ClientNames are the names of the authorities whose clients the API server
// lets in or passes on, sorted.
func (k *Keys) ClientNames() []string {
	t := k.Trust()
	return AuthorityNames(t.CA, t.LocalCA, t.FrontProxy)
}

// AuthorityNames are the common names in PEM bundles, sorted, each once. What
// can't be read has none.
func AuthorityNames(bundles ...[]byte) []string {
	var names []string
	for _, bundle := range bundles {
		if len(bytes.TrimSpace(bundle)) == 0 {
			continue
		}
		certs, err := pki.Certificates(bundle)
		if err != nil {
			continue
		}
		for _, c := range certs {
			names = append(names, c.Subject.CommonName)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (k *Keys) validateFormer(need func(ok bool, target string)) {
	for name, bundle := range map[string][]byte{"ca": k.Former.CA, "local": k.Former.LocalCA, "frontProxy": k.Former.FrontProxy, "etcd": k.Former.Etcd} {
		if len(bundle) == 0 {
			continue
		}
		_, err := pki.Certificates(bundle)
		need(err == nil, "keys.former."+name)
	}
}

// Authorities tells which authorities count in a running control plane.
type Authorities struct {
	// Running is Keys.Digest of what all programs run with; "" as long as one of
	// them has something else.
	Running string `json:"running,omitempty"`
	// Server is the name of the authority that signed the certificate that the API
	// server shows, and Clients are those whose certificates it asks for: seen by a
	// handshake, and in what it publishes for extension API servers.
	Server  string   `json:"server,omitempty"`
	Clients []string `json:"clients,omitempty"`
	// Kubelets is the same for what nodes show, by their names.
	Kubelets []KubeletAuthority `json:"kubelets,omitempty"`
}

// KubeletAuthority is who signed what a kubelet shows.
type KubeletAuthority struct {
	Node      string    `json:"node"`
	Authority string    `json:"authority"`
	Ends      time.Time `json:"ends"`
}

// Kubelet is who signed what a node's kubelet shows; "" when it isn't known.
func (a *Authorities) Kubelet(node string) string {
	if a == nil {
		return ""
	}
	for _, k := range a.Kubelets {
		if k.Node == node {
			return k.Authority
		}
	}
	return ""
}

// Certificate is a certificate in use, and when it ends.
type Certificate struct {
	Name string    `json:"name"` // "kube-apiserver/server", "authority/cluster-ca", "kubelet/NODE"
	Ends time.Time `json:"notAfter"`
}

// AuthorityCertificates are those of the keys' own authorities.
func (k *Keys) AuthorityCertificates() []Certificate {
	var all []Certificate
	for _, pair := range []KeyPair{k.CA, k.LocalCA, k.FrontProxyCA, k.EtcdCA} {
		if len(pair.Certificate) > 0 {
			all = append(all, Certificate{"authority/" + pki.Name(pair.Certificate), pki.Ends(pair.Certificate)})
		}
	}
	return all
}
