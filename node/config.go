// SPDX-License-Identifier: Apache-2.0

// Package node is PID 1 inside a machine: it sets the machine up, runs
// containerd, kubelet and kube-proxy, reaps orphans, and turns the machine's
// stop and reboot into a clean end of all three.
//
// It has no credential of the host and none of the service: all it gets is the
// Config that its machine's files hold.
package node

import (
	"net/netip"
	"time"
)

// ConfigPath is where a machine finds its Config, as JSON, mode 0600.
const ConfigPath = "/etc/bastide/node.json"

// Config is all a node is told.
type Config struct {
	Hostname          string     `json:"hostname"`
	Address           netip.Addr `json:"address"`
	KubernetesVersion string     `json:"kubernetesVersion"` // "1.36.3"

	// The API server as nodes reach it (its address in the VNet), and how to join.
	Server         string `json:"server"` // https://10.224.0.4:443
	CA             []byte `json:"ca"`     // PEM
	BootstrapToken string `json:"bootstrapToken"`
	// Proxy is kube-proxy's own client certificate (system:kube-proxy, signed by
	// the cluster's CA): it needs not, and so may not, act as the node.
	Proxy Credential `json:"proxy"`

	ClusterDomain string            `json:"clusterDomain"`
	ClusterDNS    netip.Addr        `json:"clusterDNS"`
	ServiceCIDR   netip.Prefix      `json:"serviceCIDR"`
	ClusterCIDR   []netip.Prefix    `json:"clusterCIDR"` // what kube-proxy must not masquerade between
	Network       PodNetwork        `json:"network"`
	MaxPods       int               `json:"maxPods"`
	Labels        map[string]string `json:"labels,omitempty"`
	Taints        []string          `json:"taints,omitempty"` // key=value:Effect
	ProviderID    string            `json:"providerID"`
	CPUs          int               `json:"cpus"`
	Memory        int64             `json:"memory"` // bytes; the machine's whole, before reservations

	// Registry is the instance's own OCI registry, and CA what signs for it.
	Registry       string   `json:"registry"`
	InstanceCA     []byte   `json:"instanceCA"`
	PauseImage     string   `json:"pauseImage"`
	AuthorizedKeys []string `json:"authorizedKeys,omitempty"`
	AdminUser      string   `json:"adminUser,omitempty"`

	// Role says what runs here: "" is a Kubernetes node; RoleVM is a plain
	// virtual machine, with SSH and kubectl, that needs none of the cluster's fields.
	Role Role `json:"role,omitempty"`
	// Policy switches network policies on; nil: none are enforced.
	Policy *Policy `json:"policy,omitempty"`
	// Mirror is where Debian's packages come from, "/debian" and "/debian-security"
	// below it; empty: where the image's sources say.
	Mirror string `json:"mirror,omitempty"`
	// Patch asks for Debian's security updates; nil: none were asked for yet.
	Patch *Patch `json:"patch,omitempty"`
	// Look is a token: a new one asks which updates there are (Status.Upgradable),
	// and installs none.
	Look string `json:"look,omitempty"`
	// Authority names the CA that signs nodes' certificates. When it changes,
	// kubelet puts its certificates aside, though they may be valid for long, and
	// asks for others with the bootstrap token.
	Authority string `json:"authority,omitempty"`
}

// Live is the config as far as a node that booted with boot can take it on
// without a reboot: who and where it is, and how big, stays.
func (c Config) Live(boot Config) Config {
	c.Hostname, c.Address, c.ProviderID, c.Role = boot.Hostname, boot.Address, boot.ProviderID, boot.Role
	c.CPUs, c.Memory, c.Network.Plugin = boot.CPUs, boot.Memory, boot.Network.Plugin
	return c
}

// Patch asks a node for Debian's updates, once per token.
type Patch struct {
	Token string `json:"token"`
	// Until is when no further package may be begun.
	Until time.Time `json:"until,omitzero"`
}

// Role is what a machine is for.
type Role string

// RoleVM is a plain virtual machine, such as a jump host.
const RoleVM Role = "vm"

// Policy is how a node's policy agent reaches the API server: with a client
// certificate of its own (PolicyUser), which may read pods, namespaces, nodes
// and policies, and nothing else.
type Policy struct {
	Credential Credential `json:"credential"`
}

// Credential is a client certificate and its private key, PEM.
type Credential struct {
	Certificate []byte `json:"certificate"`
	Key         []byte `json:"key"`
}

// PodNetwork is how pods of this node get addresses.
type PodNetwork struct {
	Plugin string         `json:"plugin"` // kubenet, azure, none
	Pods   []netip.Prefix `json:"pods"`   // the addresses this node hands out
	VNet   []netip.Prefix `json:"vnet"`   // not masqueraded when a pod talks to it
	MTU    int            `json:"mtu"`    // 0: that of the node's own interface
}
