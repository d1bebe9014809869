// SPDX-License-Identifier: Apache-2.0

// Package dataplane says what the network of one Linux machine should be: an
// edge, and a router per virtual network with its interfaces, routes, names and
// public addresses. It is plain data, compiled by providers and made real by
// dataplane/linux; it knows neither.
package dataplane

import "net/netip"

// WireServer is the address every Azure virtual network answers on for DNS,
// and from which health probes come.
var WireServer = netip.MustParseAddr("168.63.129.16")

// Config is the whole desired state of a machine's network.
type Config struct {
	Edge  Edge   `json:"edge"`
	VNets []VNet `json:"vnets,omitempty"`
}

// Edge owns the public addresses and the way to the machine's uplink.
type Edge struct {
	Pools []netip.Prefix `json:"pools"` // the instance's public addresses
	// FrontDoor is the address in Pools that belongs to the machine itself:
	// serve listens on it, and virtual networks reach its FrontDoorPort.
	FrontDoor netip.Addr `json:"frontDoor"`
	// Names are the instance's public names, answered in every virtual network
	// and written to the machine's hosts file.
	Names []Name `json:"names,omitempty"`
}

// Name is a DNS name and its addresses. A leading "*." matches one or more labels.
type Name struct {
	Name      string       `json:"name"`
	Addresses []netip.Addr `json:"addresses"`
}

// VNet is a virtual network: one router in a network namespace of its own.
type VNet struct {
	ID       string         `json:"id"` // short, unique on this instance, [a-z0-9-]
	Prefixes []netip.Prefix `json:"prefixes"`
	Subnets  []Subnet       `json:"subnets"`
	NICs     []NIC          `json:"nics,omitempty"`
	Routes   []Route        `json:"routes,omitempty"`
	// Egress is the public source address of what leaves the network.
	Egress netip.Addr `json:"egress,omitzero"`
	Public []Public   `json:"public,omitempty"`
	// Names are answered inside this network only, before the edge's.
	Names []Name `json:"names,omitempty"`
}

// Subnet is a range of a VNet; its first address is the router's.
type Subnet struct {
	Name   string       `json:"name"`
	Prefix netip.Prefix `json:"prefix"`
}

// NIC is a routed interface: a veth pair between the router and a namespace.
type NIC struct {
	ID string `json:"id"` // unique on this instance
	// Exactly one of the two says where the interface lives: a namespace that
	// the data plane makes, or a machine's own, found by the machine's ID.
	Namespace string     `json:"namespace,omitempty"`
	Machine   string     `json:"machine,omitempty"`
	Address   netip.Addr `json:"address"`
	Subnet    string     `json:"subnet"`
	// Pods are further addresses behind this interface: a kubenet node's pod
	// range, or an azure node's block of its subnet.
	Pods []netip.Prefix `json:"pods,omitempty"`
}

// Route sends a prefix to the interface that has the address Via.
type Route struct {
	Prefix netip.Prefix `json:"prefix"`
	Via    netip.Addr   `json:"via"`
}

// Public forwards a public address's TCP port to an address in the VNet. The
// client's address stays as it is.
type Public struct {
	Address netip.Addr `json:"address"`
	Port    uint16     `json:"port"`
	Target  netip.Addr `json:"target"`
	TPort   uint16     `json:"targetPort"`
}

// VNetStatus is what the kernel has of a VNet.
type VNetStatus struct {
	ID   string   `json:"id"`
	NICs []string `json:"nics"` // the interfaces that stand, by ID
}
