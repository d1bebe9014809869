// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"net/netip"
	"slices"

	"bastide.dev/autoscale"
	"bastide.dev/resource"
)

// Limits of AKS (its service quotas).
const (
	maxPools    = 100
	maxNodes    = 5000
	maxPerPool  = 1000
	maxPodsEver = 250
	minPods     = 10
)

// Defaults of AKS.
const (
	defaultAdmin    = "azureuser"
	defaultSize     = "Standard_D2s_v5"
	kubenet         = "kubenet"
	azureCNI        = "azure"
	kubenetPods     = 110
	azurePods       = 30
	overlayPods     = 250
	systemMode      = "System"
	userMode        = "User"
	byPrincipal     = "None"
	systemAssigned  = "SystemAssigned"
	managedClientID = "msi"
)

func defaultServiceCIDR() netip.Prefix { return netip.MustParsePrefix("10.0.0.0/16") }
func defaultPodCIDR() netip.Prefix     { return netip.MustParsePrefix("10.244.0.0/16") }

// Desired is what a client asked a cluster to be, parsed and complete: the
// typed form of a stored body.
type Desired struct {
	Location  string
	Version   Version
	DNSPrefix string
	NodeGroup string // name of the node resource group

	Identity string   // SystemAssigned, UserAssigned or None
	User     Assigned // whom the cluster acts as when Identity is UserAssigned
	Kubelet  Assigned // the user's, whom nodes act as; none: one that the cluster makes
	ClientID string   // of the service principal when Identity is None
	Secret   string   `json:"-"` // of the service principal; only ever in a request

	Admin string
	Keys  []string

	Plugin      string
	Overlay     bool         // azure's pods have an overlay's addresses
	PodCIDR     netip.Prefix // not with azure's pods in the subnet
	ServiceCIDR netip.Prefix
	DNS         netip.Addr
	Policy      string // azure or calico: network policies are enforced; "" not
	Outbound    Outbound
	Access      Access
	// NoPodMetadata closes the metadata address to pods.
	NoPodMetadata bool

	Issuer           bool // of tokens that others rely on
	WorkloadIdentity bool // pods are given tokens for the service

	Integration     Integration // with the directory
	NoLocalAccounts bool        // no client certificates are given out, and none count

	Override Override `json:"override,omitzero"`
	Channels Channels `json:"channels,omitzero"`

	AutoScaler autoscale.Profile `json:"autoScaler,omitzero"` // zero is AKS's default

	Pools []Pool `json:"-"` // they have documents of their own
}

// Pool is what an agent pool should be.
type Pool struct {
	Name    string
	Mode    string
	Version Version
	Size    string
	Count   int
	MaxPods int
	Labels  map[string]string
	Taints  []string
	// Subnet is one of the user's; zero: the cluster's own.
	Subnet resource.ID
	// AutoScale has Count follow what runs, between Min and Max.
	AutoScale bool `json:",omitempty"`
	Min, Max  int  `json:",omitempty"`
	// Image is the node image that the pool stays at; "" is the newest.
	Image string `json:",omitempty"`
	// Upgrade is how nodes are brought to another version or image.
	Upgrade Upgrade `json:"upgrade,omitzero"`
}

// Outbound is how nodes reach the Internet.
type Outbound struct {
	Type string // one of the outbound types below
	// Managed is how many public addresses the cluster makes for itself.
	Managed   int
	Addresses []resource.ID // the user's, instead
	Prefixes  []resource.ID // the user's, instead
	Ports     int           // of an address for each node; 0: by the number of nodes
	Idle      int           // minutes
	PoolType  string        // nodeIPConfiguration or nodeIP
}

// The outbound types.
const (
	byLoadBalancer   = "loadBalancer"
	byManagedNAT     = "managedNATGateway"
	byUserNAT        = "userAssignedNATGateway"
	byUserRoutes     = "userDefinedRouting"
	byNothing        = "none"
	poolOfInterfaces = "nodeIPConfiguration"
	poolOfAddresses  = "nodeIP"
)

// Access is who reaches the API server.
type Access struct {
	Restricted bool           // Ranges, and the cluster itself, are all that do
	Ranges     []netip.Prefix // of public clusters
	Private    bool           // no public listener: a private endpoint alone
	Zone       string         // private: "system", "none", or a zone's id
	PublicName bool           // private: the public name leads to the private address
	Subdomain  string         // private with a zone of the user's: the name's first label
}

// Values of Access.Zone.
const (
	systemZone = "system"
	noZone     = "none"
)

// podsInSubnet tells whether pods have addresses of their node's subnet.
func (d *Desired) podsInSubnet() bool { return d.Plugin == azureCNI && !d.Overlay }

// subnets are the user's that the pools name, each once.
func (d *Desired) subnets() []resource.ID {
	var all []resource.ID
	for _, p := range d.Pools {
		if !p.Subnet.IsRoot() && !slices.ContainsFunc(all, p.Subnet.Equal) {
			all = append(all, p.Subnet)
		}
	}
	return all
}

// pool finds a pool by name.
func (d *Desired) pool(name string) (Pool, bool) {
	for _, p := range d.Pools {
		if p.Name == name {
			return p, true
		}
	}
	return Pool{}, false
}

// nodes is how many nodes all pools have together, when those that scale by
// themselves are at their largest.
func (d *Desired) nodes() int {
	n := 0
	for _, p := range d.Pools {
		n += p.most()
	}
	return n
}
