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
	// Terminals are clients on the instance's Internet, with a public address each.
	Terminals []Terminal `json:"terminals,omitempty"`
}

// Terminal is a namespace on the instance's Internet: a client outside of every
// virtual network. Its resolver knows the edge's names.
type Terminal struct {
	ID        string     `json:"id"`
	Namespace string     `json:"namespace"`
	Address   netip.Addr `json:"address"` // one of the pools'
}

// Name is a DNS name and its addresses. A leading "*." matches one or more labels.
type Name struct {
	Name      string       `json:"name"`
	Addresses []netip.Addr `json:"addresses"`
	// TTL is how many seconds an answer may be kept; 0: a few. A name may stand
	// several times, with addresses of another TTL each.
	TTL uint32 `json:"ttl,omitempty"`
}

// VNet is a virtual network: one router in a network namespace of its own.
type VNet struct {
	ID       string         `json:"id"` // short, unique on this instance, [a-z0-9-]
	Prefixes []netip.Prefix `json:"prefixes"`
	Subnets  []Subnet       `json:"subnets"`
	NICs     []NIC          `json:"nics,omitempty"`
	// Routes are the system's own beside those to interfaces: an overlay's pod ranges.
	Routes []Route `json:"routes,omitempty"`
	// RouteTables are the user's; a subnet names the one it has.
	RouteTables []RouteTable `json:"routeTables,omitempty"`
	NSGs        []NSG        `json:"nsgs,omitempty"`
	Balancers   []Balancer   `json:"balancers,omitempty"` // a load-balancing rule each
	Probes      []Probe      `json:"probes,omitempty"`
	Public      []Public     `json:"public,omitempty"`
	Peers       []Peer       `json:"peers,omitempty"`
	// Names are answered inside this network only, before the edge's.
	Names []Name `json:"names,omitempty"`
}

// Subnet is a range of a VNet; its first address is the router's.
type Subnet struct {
	Name       string       `json:"name"`
	Prefix     netip.Prefix `json:"prefix"`
	NSG        string       `json:"nsg,omitempty"`        // ID of a network security group
	RouteTable string       `json:"routeTable,omitempty"` // ID of a route table
}

// NIC is a routed interface: a veth pair between the router and a namespace.
type NIC struct {
	ID string `json:"id"` // unique on this instance
	// Exactly one of the two says where the interface lives: a namespace that
	// the data plane makes, or a machine's own, found by the machine's ID.
	Namespace string `json:"namespace,omitempty"`
	Machine   string `json:"machine,omitempty"`
	// Link is the interface's name there; "" is eth0. A namespace may have
	// several interfaces, also in different networks: it answers from the
	// address that it was asked at, through the interface that has it.
	Link    string     `json:"link,omitempty"`
	Address netip.Addr `json:"address"`
	Subnet  string     `json:"subnet"`
	// Pods are further addresses behind this interface: an azure node's part of
	// its subnet, or an overlay's range. (kubenet's come by route table, and
	// need Forwarding.)
	Pods []netip.Prefix `json:"pods,omitempty"`
	// Forwarding lets it send and get packets of other addresses than its own.
	Forwarding bool   `json:"forwarding,omitempty"`
	NSG        string `json:"nsg,omitempty"`
	// Platform marks an API server's interface: its packets to the network pass
	// without regard to security groups, and so does what others send to it as
	// far as its own side is concerned (the senders' groups hold).
	Platform bool `json:"platform,omitempty"`
	// NoMetadata closes the metadata address to what the machine merely forwards.
	NoMetadata bool `json:"noMetadata,omitempty"`
	// Egress is how its packets (and those of Pods) leave to the Internet; none: they don't.
	Egress []Egress `json:"egress,omitempty"`
}

// Egress is a public source address, with the ports that are the interface's
// own; zero ports: any. Of several, each connection takes one.
type Egress struct {
	Origin  string     `json:"origin"` // what gives it: "loadBalancers/kubernetes/outboundRules/aksOutboundRule"
	Address netip.Addr `json:"address"`
	First   uint16     `json:"first,omitempty"`
	Last    uint16     `json:"last,omitempty"`
	Idle    uint32     `json:"idle,omitempty"`  // seconds; 0: the kernel's own
	Reset   bool       `json:"reset,omitempty"` // what comes after is answered with a TCP reset, on both sides
}

// Route sends a prefix to the interface that has the address Via.
type Route struct {
	Prefix netip.Prefix `json:"prefix"`
	Via    netip.Addr   `json:"via"`
}

// Hop is where a user's route leads.
type Hop string

// The next hops, as Azure names them.
const (
	HopAppliance Hop = "VirtualAppliance" // to the interface with address Via
	HopLocal     Hop = "VnetLocal"
	HopInternet  Hop = "Internet"
	HopNone      Hop = "None"
)

// RouteTable is a user's: in the subnets that name it, a route of the user's
// goes before a system route to the same prefix; the longest prefix wins.
type RouteTable struct {
	ID     string      `json:"id"`
	Routes []UserRoute `json:"routes,omitempty"`
}

// UserRoute is one route of a RouteTable.
type UserRoute struct {
	Name   string       `json:"name"`
	Prefix netip.Prefix `json:"prefix"`
	Hop    Hop          `json:"hop"`
	Via    netip.Addr   `json:"via,omitzero"`
}

// NSG is a network security group; its tags and application groups are resolved.
type NSG struct {
	ID string `json:"id"` // "resourceGroup/name", for people and counters
	// Rules include the default ones. The first by Priority that matches decides.
	Rules []NSGRule `json:"rules"`
	Log   bool      `json:"log,omitempty"` // its decisions go to the flow log
}

// NSGRule is one rule. An empty list of addresses or ports means any.
type NSGRule struct {
	Name     string `json:"name"`
	Priority int    `json:"priority"`
	Inbound  bool   `json:"inbound,omitempty"`
	Allow    bool   `json:"allow,omitempty"`
	Protocol uint8  `json:"protocol,omitempty"` // an IP protocol's number; 0: any
	// None says that the rule matches nothing now: a tag or group without members.
	None             bool           `json:"none,omitempty"`
	Sources          []netip.Prefix `json:"sources,omitempty"`
	Destinations     []netip.Prefix `json:"destinations,omitempty"`
	SourcePorts      []Ports        `json:"sourcePorts,omitempty"`
	DestinationPorts []Ports        `json:"destinationPorts,omitempty"`
}

// Ports is a range of ports, both ends included.
type Ports struct {
	First uint16 `json:"first"`
	Last  uint16 `json:"last"`
}

// Affinity is what connections share to get the same back end.
type Affinity string

// The affinities, as Azure names them.
const (
	ByConnection     Affinity = "Default"
	BySource         Affinity = "SourceIP"
	BySourceProtocol Affinity = "SourceIPProtocol"
)

// Balancer is one load-balancing rule, or one inbound NAT rule (which has one
// back end): a front end's address and ports, and who answers there.
type Balancer struct {
	Origin   string     `json:"origin"`             // "loadBalancers/kubernetes/loadBalancingRules/a1b2-TCP-80"
	Address  netip.Addr `json:"address"`            // public, or one of a subnet
	Protocol uint8      `json:"protocol,omitempty"` // 0: any, on all ports
	Ports    Ports      `json:"ports,omitzero"`
	// Floating leaves the destination as it is (direct server return); else it
	// becomes the back end's address and BackendPort.
	Floating    bool     `json:"floating,omitempty"`
	BackendPort uint16   `json:"backendPort,omitempty"`
	Affinity    Affinity `json:"affinity,omitempty"`
	Backends    []string `json:"backends,omitempty"` // IDs of NICs
	Probe       string   `json:"probe,omitempty"`    // ID of a Probe; "": always healthy
	Idle        uint32   `json:"idle,omitempty"`     // seconds of silence that a connection survives
	Reset       bool     `json:"reset,omitempty"`    // what comes after is answered with a TCP reset
}

// Probe asks back ends whether they are healthy, from WireServer.
type Probe struct {
	ID       string `json:"id"`
	Protocol string `json:"protocol"` // "Tcp", "Http", "Https"
	Port     uint16 `json:"port"`
	Path     string `json:"path,omitempty"`
	Interval int    `json:"interval"` // seconds
	Failures int    `json:"failures"` // in a row that make a back end unhealthy; one success heals
}

// Public is a public address for one target in the VNet: an API server's port,
// or (Port 0) an interface's own address, with all ports and protocols.
type Public struct {
	Origin  string     `json:"origin,omitempty"`
	Address netip.Addr `json:"address"`
	Port    uint16     `json:"port,omitempty"`
	Target  netip.Addr `json:"target"`
	TPort   uint16     `json:"targetPort,omitempty"`
	// Idle is how many seconds of silence a connection by an interface's own
	// address survives; 0: the kernel's own.
	Idle uint32 `json:"idle,omitempty"`
	// Allowed are the only sources, when Restricted. Connections of others are
	// cut when the list changes.
	Restricted bool           `json:"restricted,omitempty"`
	Allowed    []netip.Prefix `json:"allowed,omitempty"`
}

// Peer is another VNet that this one reaches. Both name each other, or nothing passes.
type Peer struct {
	VNet     string         `json:"vnet"` // its ID
	Origin   string         `json:"origin"`
	Prefixes []netip.Prefix `json:"prefixes"` // the other's
	// Access lets its interfaces send here; Forwarded also lets in what the
	// other network merely forwards.
	Access    bool `json:"access,omitempty"`
	Forwarded bool `json:"forwarded,omitempty"`
}

// VNetStatus is what the kernel has of a VNet.
type VNetStatus struct {
	ID   string   `json:"id"`
	NICs []string `json:"nics"` // the interfaces that stand, by ID
	// Unhealthy are the back ends that a probe finds so: "probe ID" → NIC IDs.
	Unhealthy map[string][]string `json:"unhealthy,omitempty"`
	// Digest is of the router's compiled form (Router.Digest) that the kernel has.
	Digest string `json:"digest,omitempty"`
}
