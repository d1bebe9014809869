// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"net/netip"
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

	Identity string // SystemAssigned or None
	ClientID string // of the service principal when Identity is None
	Secret   string `json:"-"` // of the service principal; only ever in a request

	Admin string
	Keys  []string

	Plugin      string
	PodCIDR     netip.Prefix // not with azure
	ServiceCIDR netip.Prefix
	DNS         netip.Addr

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

// nodes is how many nodes all pools have together.
func (d *Desired) nodes() int {
	n := 0
	for _, p := range d.Pools {
		n += p.Count
	}
	return n
}
