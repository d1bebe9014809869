// SPDX-License-Identifier: Apache-2.0

// Package controlplane turns a cluster's spec into its running etcd, API
// server, controller manager, scheduler and cloud-controller-manager, keeps the
// objects a cluster is born with (add-ons, bootstrap roles, approved kubelet
// certificates), and tells how the cluster is.
//
// It is mechanism: it knows no ARM, no store and no provider.
package controlplane

import (
	"net/netip"
	"time"
)

// Spec is what a control plane should be. It holds secrets: it is sealed at
// rest and never logged.
type Spec struct {
	ID      string `json:"id"`      // unique on this instance, [a-z0-9-]
	Version string `json:"version"` // Kubernetes, "1.36.3"
	Etcd    string `json:"etcd"`    // etcd's bundle version
	Stopped bool   `json:"stopped,omitempty"`
	// Attempt grows when somebody asks once more for what was refused.
	Attempt int64 `json:"attempt,omitempty"`

	// Namespace is the network namespace (dataplane.NIC.Namespace) it runs in;
	// Address is its address there.
	Namespace string     `json:"namespace"`
	Address   netip.Addr `json:"address"`
	// Endpoint is the public FQDN; Public its address.
	Endpoint string     `json:"endpoint"`
	Public   netip.Addr `json:"public,omitzero"`
	Names    []string   `json:"names,omitempty"` // further names in its certificate
	// Issuer is the service-account token issuer's URL; tokens of the former ones
	// stay good. KeysURL is where its public keys are, when others may rely on it.
	Issuer        string   `json:"issuer"`
	FormerIssuers []string `json:"formerIssuers,omitempty"`
	KeysURL       string   `json:"keysURL,omitempty"`

	ServiceCIDR   netip.Prefix   `json:"serviceCIDR"`
	PodCIDRs      []netip.Prefix `json:"podCIDRs,omitempty"`
	DNSServiceIP  netip.Addr     `json:"dnsServiceIP"`
	ClusterDomain string         `json:"clusterDomain"`

	Keys  Keys   `json:"keys"`
	Nodes []Node `json:"nodes,omitempty"`

	// Registry prefixes the images of the add-ons: "registry.…/bastide".
	Addons Addons `json:"addons"`

	// Cloud runs the cloud-controller-manager; nil: none runs.
	Cloud *Cloud `json:"cloud,omitempty"`
	// Directory lets the directory's principals in; nil: certificates and service accounts alone.
	Directory *Directory `json:"directory,omitempty"`
	// Policies installs what nodes' policy agents need: their role, and the CRD
	// of cluster-wide policies.
	Policies bool `json:"policies,omitempty"`
	// WorkloadIdentity gives pods that ask for it a token; nil: none is given.
	WorkloadIdentity *WorkloadIdentity `json:"workloadIdentity,omitempty"`
	// Autoscaler watches pods for the sake of pools' sizes; nil: none grows by itself.
	Autoscaler *Autoscaler `json:"autoscaler,omitempty"`
	// Reboots is there while a node needs a reboot, or has the lock.
	Reboots *Reboots `json:"reboots,omitempty"`
	// Backups are kept; nil: none is. Restore replaces the data, once.
	Backups *Backups `json:"backups,omitempty"`
	Restore *Restore `json:"restore,omitempty"`
}

// Cloud is how the cloud-controller-manager acts on the service's ARM, with the
// cluster's own identity.
type Cloud struct {
	Bundle   string `json:"bundle"`   // version of the bundle "cloud-controller-manager"
	Endpoint string `json:"endpoint"` // of Resource Manager, https
	Login    string `json:"login"`    // of the token service, https
	CA       []byte `json:"ca"`       // PEM, what signs for both

	Tenant       string `json:"tenant"`
	Subscription string `json:"subscription"`
	ClientID     string `json:"clientID"`
	Secret       string `json:"secret"`

	Location        string       `json:"location"`
	Group           string       `json:"group"` // the node resource group
	VNetGroup       string       `json:"vnetGroup"`
	VNet            string       `json:"vnet"`
	Subnet          string       `json:"subnet"`
	NSG             string       `json:"nsg"`
	RouteTable      string       `json:"routeTable,omitempty"`
	RouteTableGroup string       `json:"routeTableGroup,omitempty"`
	ScaleSet        string       `json:"scaleSet"`         // the first system pool's
	Routes          bool         `json:"routes,omitempty"` // it keeps the route table's routes (kubenet)
	ClusterCIDR     netip.Prefix `json:"clusterCIDR,omitzero"`
	BackendPoolType string       `json:"backendPoolType"` // nodeIPConfiguration or nodeIP
}

// Keys are the cluster's own secrets, PEM or raw. Leaf certificates are issued
// from them on the host, by package pki, and renewed there.
type Keys struct {
	CA              KeyPair `json:"ca"`             // serving and client certificates
	LocalCA         KeyPair `json:"local,omitzero"` // certificates of local accounts; empty: there are none
	FrontProxyCA    KeyPair `json:"frontProxy"`     // aggregation layer
	EtcdCA          KeyPair `json:"etcd"`
	ServiceAccounts []byte  `json:"serviceAccounts"` // PEM private key, signs tokens
	// Former are the authorities before, which are believed as long as something
	// that they signed is in use.
	Former Trusted `json:"former,omitzero"`
	// RetiredServiceAccounts are public keys, PEM, whose tokens are good still.
	RetiredServiceAccounts [][]byte `json:"retiredServiceAccounts,omitempty"`

	SecretsEncryption  []byte `json:"secretsEncryption"`  // 32 bytes
	BootstrapTokenID   string `json:"bootstrapTokenID"`   // 6 characters
	BootstrapTokenCode string `json:"bootstrapTokenCode"` // 16 characters
}

// KeyPair is a certificate and its private key, PEM.
type KeyPair struct {
	Certificate []byte `json:"certificate"`
	Key         []byte `json:"key"`
}

// Node is a node the control plane expects: only these get serving certificates.
type Node struct {
	Name    string         `json:"name"`
	Address netip.Addr     `json:"address"`
	Pods    []netip.Prefix `json:"pods,omitempty"` // becomes spec.podCIDRs when kubenet
	// Removed asks for the Node object to be deleted (its machine goes away).
	Removed bool `json:"removed,omitempty"`
	// Labels are kept on the Node, where its kubelet sets them only once.
	Labels map[string]string `json:"labels,omitempty"`
	// Leave asks for the node to be left by its pods; nil: it takes pods again,
	// if it was us who kept them away.
	Leave *Leave `json:"leave,omitempty"`
	// Pool is the agent pool that it is of; Note is the newest thing to tell of it.
	Pool string `json:"pool,omitempty"`
	Note *Note  `json:"note,omitempty"`
}

// Addons are the workloads every cluster is born with.
type Addons struct {
	CoreDNS       string `json:"coreDNS"`       // image reference
	MetricsServer string `json:"metricsServer"` // image reference
}

// Status is what the control plane of ID is.
type Status struct {
	ID      string       `json:"id"`
	Phase   Phase        `json:"phase"`
	Version string       `json:"version,omitempty"` // of the running API server
	Nodes   []NodeStatus `json:"nodes,omitempty"`
	CoreDNS bool         `json:"coreDNS"` // Deployment Available
	Metrics bool         `json:"metrics"`
	// Issuer and SigningKeys are what the running API server says of its tokens:
	// who issues them, and the ids of the keys that it accepts. WorkloadIdentity
	// tells that pods are given theirs.
	Issuer           string   `json:"issuer,omitempty"`
	SigningKeys      []string `json:"signingKeys,omitempty"`
	WorkloadIdentity bool     `json:"workloadIdentity,omitempty"`
	// Refused says why the control plane isn't as its spec asks although one
	// serves: what was asked for didn't become ready, and the former goes on.
	Refused    string          `json:"refused,omitempty"`
	Deprecated []DeprecatedUse `json:"deprecated,omitempty"`
	// Reboots answers the spec's.
	Reboots *RebootsStatus `json:"reboots,omitempty"`
	Scaling *Scaling       `json:"scaling,omitempty"` // with an Autoscaler
	Backups []Backup       `json:"backups,omitempty"`
	// Restore is the spec's, or the last one that was.
	Restore *RestoreStatus `json:"restore,omitempty"`
	// Authorities tells whose certificates count; Certificates which are in use.
	Authorities  *Authorities  `json:"authorities,omitempty"`
	Certificates []Certificate `json:"certificates,omitempty"`
	Error        string        `json:"error,omitempty"`
	Processes    []Process     `json:"processes,omitempty"`
}

// Phase is where a control plane stands.
type Phase string

// The phases.
const (
	Starting Phase = "Starting"
	Ready    Phase = "Ready" // /readyz ok
	Stopped  Phase = "Stopped"
	Failed   Phase = "Failed" // Error says why; it is retried all the same
)

// NodeStatus is a Node object, as far as a pool cares.
type NodeStatus struct {
	Name    string `json:"name"`
	Ready   bool   `json:"ready"`
	Version string `json:"version"` // kubelet's
	Reason  string `json:"reason,omitempty"`
	// Boot is the id of the node's boot; NotReadySince is when it stopped being ready.
	Boot          string    `json:"boot,omitempty"`
	NotReadySince time.Time `json:"notReadySince,omitzero"`
	Cordoned      bool      `json:"cordoned,omitempty"`
	// Left answers Leave; zero when nothing was asked.
	Left Left `json:"left,omitzero"`
}

// Process is one running component.
type Process struct {
	Name     string    `json:"name"`
	PID      int       `json:"pid"`
	Started  time.Time `json:"started"`
	Restarts int       `json:"restarts"`
}
