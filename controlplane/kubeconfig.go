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
	// MasterClient is the common name in the certificates that AKS gives out for
	// a cluster with local accounts.
	MasterClient = "masterclient"
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
	if len(trust) == 0 {
		trust = ca.Certificate()
	}
	return kubeconfig{
		Cluster: c.Cluster, User: c.User, Server: c.Server, trust: trust,
		user: map[string]any{"client-certificate-data": leaf.Certificate, "client-key-data": leaf.Key},
	}.encode()
}

// AdminKubeconfig is what listClusterAdminCredential gives: a certificate for
// system:masters, for the public endpoint.
func AdminKubeconfig(s *Spec, group, cluster string, lifetime time.Duration) ([]byte, error) {
	return s.masterKubeconfig("clusterAdmin_"+group+"_"+cluster, cluster, lifetime)
}

// UserKubeconfig is what listClusterUserCredential gives for a cluster with
// local accounts and no directory integration: the same rights, as in AKS.
func UserKubeconfig(s *Spec, group, cluster string, lifetime time.Duration) ([]byte, error) {
	return s.masterKubeconfig("clusterUser_"+group+"_"+cluster, cluster, lifetime)
}

func (s *Spec) masterKubeconfig(user, cluster string, lifetime time.Duration) ([]byte, error) {
	return Kubeconfig(Credential{Cluster: cluster, User: user, Server: "https://" + s.Endpoint + ":443", CA: pki.Pair(s.Keys.CA),
		CommonName: MasterClient, Organizations: []string{MastersGroup}, Lifetime: lifetime})
}

// ProxyKubeconfig is kube-proxy's way to the API server, for a node's files.
func ProxyKubeconfig(s *Spec, lifetime time.Duration) ([]byte, error) {
	return Kubeconfig(Credential{Cluster: s.ID, User: ProxyUser, Server: "https://" + s.Address.String() + ":443", CA: pki.Pair(s.Keys.CA),
		CommonName: ProxyUser, Lifetime: lifetime})
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
