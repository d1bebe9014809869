// SPDX-License-Identifier: Apache-2.0

// Package network is Microsoft.Network's part of a cluster: what its ranges may
// be, who gets which address, and the pure compiler from both to the data
// plane's configuration.
//
// All of it is pure: what is allocated is kept by the caller, which gives it
// back with the next question. It imports the data plane's types, but not how
// they become real. Only cmd may import it: providers don't import each other.
package network

import (
	"net/netip"

	"bastide.dev/dataplane"
	"bastide.dev/fault"
)

// The network plugins.
const (
	Kubenet = "kubenet" // pods have a range of their own, routed to their node
	Azure   = "azure"   // pods have addresses of the nodes' subnet
)

// Azure keeps a subnet's first four addresses (network, gateway, two for DNS)
// and its last.
const reservedFirst = 4

// podRangeBits is the length of a kubenet node's pod range.
const podRangeBits = 24

// Profile is a cluster's network. Lists hold one range for now; a second
// address family is another entry.
type Profile struct {
	Plugin       string           `json:"plugin"`
	VNet         []netip.Prefix   `json:"vnet"`
	Nodes        dataplane.Subnet `json:"nodes"`
	Server       dataplane.Subnet `json:"server"` // the API server's own, delegated one
	Pods         []netip.Prefix   `json:"pods,omitempty"`
	Services     []netip.Prefix   `json:"services"`
	DNSServiceIP netip.Addr       `json:"dnsServiceIP"`
}

// Default is what AKS makes for a cluster that says nothing but its plugin.
func Default(plugin string) Profile {
	p := Profile{
		Plugin:       plugin,
		VNet:         []netip.Prefix{netip.MustParsePrefix("10.224.0.0/12")},
		Nodes:        dataplane.Subnet{Name: "aks-subnet", Prefix: netip.MustParsePrefix("10.224.0.0/16")},
		Server:       dataplane.Subnet{Name: "aks-apiserver-subnet", Prefix: netip.MustParsePrefix("10.226.0.0/28")},
		Services:     []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")},
		DNSServiceIP: netip.MustParseAddr("10.0.0.10"),
	}
	if plugin == Kubenet {
		p.Pods = []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}
	}
	return p
}

// DefaultMaxPods is how many pods a node takes when a pool doesn't say.
func DefaultMaxPods(plugin string) int {
	if plugin == Azure {
		return 30
	}
	return 110
}

// ServerAddress is the API server's address in the virtual network.
func (p *Profile) ServerAddress() netip.Addr {
	a, _ := advance(p.Server.Prefix.Masked().Addr(), reservedFirst)
	return a
}

// ParsePrefix reads a range of a request; target is the property it stands in.
func ParsePrefix(target, text string) (netip.Prefix, *fault.Error) {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return p, invalid(target, "%q isn't a range in CIDR notation, such as 10.244.0.0/16.", text)
	}
	if p != p.Masked() {
		return p.Masked(), invalid(target, "%s isn't the first address of its range: write %s.", text, p.Masked())
	}
	return p, nil
}

// ParseAddr reads an address of a request.
func ParseAddr(target, text string) (netip.Addr, *fault.Error) {
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, invalid(target, "%q isn't an IP address.", text)
	}
	return a.Unmap(), nil
}

func invalid(target, format string, args ...any) *fault.Error {
	return fault.New(fault.Invalid, "InvalidParameter", format, args...).At(target)
}
