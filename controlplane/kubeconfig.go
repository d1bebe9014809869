// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"fmt"
	"time"

	"sigs.k8s.io/yaml"

	"bastide.dev/pki"
)

// Groups and users that Kubernetes knows by name.
const (
	MastersGroup = "system:masters"
	NodesGroup   = "system:nodes"
	ProxyUser    = "system:kube-proxy"
)

// Credential asks for a kubeconfig with a client certificate.
type Credential struct {
	Cluster       string // names the cluster and the context
	User          string // names the user entry: "clusterUser_{group}_{cluster}"
	Server        string // https://…:443
	CA            pki.Pair
	Trust         []byte // PEM bundle the client trusts; empty: the CA's certificate
	CommonName    string
	Organizations []string
	Lifetime      time.Duration
}

// Kubeconfig issues the credential and puts it into a kubeconfig of the shape
// that AKS gives out.
func Kubeconfig(c Credential) ([]byte, error) {
	ca, err := pki.OpenCA(c.CA)
	if err != nil {
		return nil, fmt.Errorf("make kubeconfig of %s: %w", c.Cluster, err)
	}
	leaf, err := ca.Issue(pki.Request{CommonName: c.CommonName, Organizations: c.Organizations, Client: true, Lifetime: c.Lifetime})
	if err != nil {
		return nil, fmt.Errorf("make kubeconfig of %s: %w", c.Cluster, err)
	}
	trust := c.Trust
	if len(trust) == 0 { // the CA's own, without a chain
		trust = ca.Certificate()
	}
	return kubeconfig{
		Cluster: c.Cluster, User: c.User, Server: c.Server, trust: trust,
		user: map[string]any{"client-certificate-data": leaf.Certificate, "client-key-data": leaf.Key},
	}.encode()
}

// PluginKubeconfig is a kubeconfig of the same shape whose user gets their
// credential elsewhere: user is the entry's content. Nothing is issued.
func PluginKubeconfig(c Credential, user map[string]any) ([]byte, error) {
	return kubeconfig{Cluster: c.Cluster, User: c.User, Server: c.Server, trust: c.Trust, user: user}.encode()
}

// ProxyCertificate is kube-proxy's client certificate, for a node's files: it
// may do what kube-proxy does and not act as the node. A caller keeps it as long
// as pki finds it current, since each call makes another.
func ProxyCertificate(s *Spec, lifetime time.Duration) (pki.Pair, error) {
	ca, err := pki.OpenCA(pki.Pair(s.Keys.CA))
	if err != nil {
		return pki.Pair{}, fmt.Errorf("make certificate of %s: %w", ProxyUser, err)
	}
	return ca.Issue(pki.Request{CommonName: ProxyUser, Client: true, Lifetime: lifetime})
}

type kubeconfig struct {
	Cluster, User, Server string
	trust                 []byte
	trustFile             string // instead of trust
	user                  map[string]any
}

type named map[string]any

func (k kubeconfig) encode() ([]byte, error) {
	cluster := map[string]any{"server": k.Server}
	if k.trustFile != "" {
		cluster["certificate-authority"] = k.trustFile
	} else {
		cluster["certificate-authority-data"] = k.trust
	}
	out, err := yaml.Marshal(map[string]any{
		"apiVersion":      "v1",
		"kind":            "Config",
		"preferences":     map[string]any{},
		"clusters":        []named{{"name": k.Cluster, "cluster": cluster}},
		"contexts":        []named{{"name": k.Cluster, "context": map[string]any{"cluster": k.Cluster, "user": k.User}}},
		"current-context": k.Cluster,
		"users":           []named{{"name": k.User, "user": k.user}},
	})
	if err != nil {
		return nil, fmt.Errorf("encode kubeconfig of %s: %w", k.Cluster, err)
	}
	return out, nil
}
