// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/netip"

	"bastide.dev/ruleset"
)

// Router is a VNet in its compiled form: what dataplane/linux makes so in the
// router's namespace, and what Trace walks through.
//
// What it relies on beside itself, in the router's namespace:
//   - every link has rp_filter 0 and accept_local 0: the table checks sources,
//     and a floating back end answers from an address that isn't its own;
//   - net.netfilter.nf_conntrack_tcp_loose is 0, so that the middle of a
//     connection nobody knows is Invalid, and nf_conntrack_tcp_be_liberal 1: a
//     connection that passes twice, by an appliance, is seen twice;
//   - links to NICs have proxy_arp 1 and proxy_delay 0; the router answers for
//     what table 0 routes to another link (that's why internal front ends have
//     a route there, to the edge, which no packet takes);
//   - the edge and the peers get no proxied answers.
type Router struct {
	Table ruleset.Table `json:"table"`
	// Addresses are the router's own, on its loopback; the first is its
	// address towards the edge, and the source of its neighbour requests.
	Addresses []netip.Addr `json:"addresses"`
	// Routes of all routing tables; Selectors, by ascending priority, say which
	// table is asked. Table 0 is main, asked last, and first for packets
	// without a mark, which needn't look at the others.
	Routes    []RouterRoute `json:"routes"`
	Selectors []Selector    `json:"selectors,omitempty"`
	NICs      []RouterNIC   `json:"nics,omitempty"`
	Peers     []RouterPeer  `json:"peers,omitempty"`
	// Cuts are the connections to end whenever they are found.
	Cuts []Cut `json:"cuts,omitempty"`
}

// RouterRoute is a route; no Link is a black hole.
type RouterRoute struct {
	Table  uint32       `json:"table,omitempty"`
	Prefix netip.Prefix `json:"prefix"`
	Link   string       `json:"link,omitempty"`
	Via    netip.Addr   `json:"via,omitzero"`     // on Link, whatever its addresses are
	Source netip.Addr   `json:"source,omitzero"`  // preferred for the namespace's own packets
	Origin string       `json:"origin,omitempty"` // "routeTables/aks-1-routetable/routes/node1", "system"
}

// Selector sends packets with Mark under Mask to a routing table (0: main);
// what that has no route for goes on to the next. Priority counts from 1 and
// leaves room below for the kernel's own table of local addresses.
type Selector struct {
	Priority int    `json:"priority"`
	Mark     uint32 `json:"mark"`
	Mask     uint32 `json:"mask"`
	Table    uint32 `json:"table"`
}

// RouterNIC is the router's side of a NIC.
type RouterNIC struct {
	ID   string `json:"id"`
	Link string `json:"link"` // the router's end
}

// RouterPeer is the router's side of a peering: a pair of links, of which each
// router has one. Routes over it go by PeerGateway, an address that neither
// router has: both have the same ones, and so can't ask each other for them. A
// permanent neighbour entry on each end leads it to the other end.
type RouterPeer struct {
	VNet string `json:"vnet"`
	Link string `json:"link"` // in this router
	Far  string `json:"far"`  // in the other
}

// Cut is the connections to a public address from other sources than Allowed.
type Cut struct {
	Destination netip.Addr     `json:"destination"`
	Port        uint16         `json:"port"` // TCP, as the client sent it, before translation
	Allowed     []netip.Prefix `json:"allowed"`
}

// EdgeRouter is the edge in its compiled form, with its counterpart in the
// machine's own namespace. The edge tracks no connections: its table must not
// make it begin to.
type EdgeRouter struct {
	Table ruleset.Table `json:"table"` // in the edge
	Root  ruleset.Table `json:"root"`  // in the machine's own namespace
	// Addresses are the edge's own, on its loopback.
	Addresses []netip.Addr `json:"addresses"`
	// Routes are the edge's. FrontDoor is reached by RootLink with a permanent
	// neighbour entry: a machine with strict reverse-path filtering drops the question.
	Routes []RouterRoute `json:"routes"`
	// RootRoutes are the machine's, on RootEnd, which has the front door's address.
	RootRoutes []RouterRoute  `json:"rootRoutes"`
	RootEnd    string         `json:"rootEnd"`
	VNets      []EdgeVNet     `json:"vnets,omitempty"`
	Terminals  []EdgeTerminal `json:"terminals,omitempty"`
}

// EdgeVNet is the edge's side of a VNet; the router's is RouterLink.
type EdgeVNet struct {
	ID   string `json:"id"`
	Link string `json:"link"`
}

// EdgeTerminal is the edge's side of a terminal, whose own has the address, and
// the edge (EdgeAddress, on the link) as its gateway.
type EdgeTerminal struct {
	ID        string     `json:"id"`
	Namespace string     `json:"namespace"`
	Link      string     `json:"link"`
	Address   netip.Addr `json:"address"`
}

// The links that have one name in every router, for each stands alone there.
const (
	RouterLink = "edge" // in a router: to the edge
	RootLink   = "root" // in the edge: to the machine
)

// The edge's and the routers' addresses towards each other, the same in every
// instance and network.
var (
	EdgeAddress   = netip.AddrFrom4([4]byte{169, 254, 1, 1})
	RouterAddress = netip.AddrFrom4([4]byte{169, 254, 1, 2})
	PeerGateway   = netip.AddrFrom4([4]byte{169, 254, 1, 3})
)

// FlowLogGroup is the log group that the decisions of groups with Log go to.
const FlowLogGroup = 100

// NICLink names the router's end of a NIC.
func NICLink(instance, nic string) string { return LinkName("n", instance, "nic/"+nic) }

// PeerLink names the end that the router of vnet has of its pair to another.
func PeerLink(instance, vnet, other string) string {
	return LinkName("p", instance, "peer/"+vnet+"/"+other)
}

// TransitLink names the edge's end of the pair to a VNet's router.
func TransitLink(instance, vnet string) string { return LinkName("v", instance, "vnet/"+vnet) }

// TerminalLink names the edge's end of a terminal.
func TerminalLink(instance, id string) string { return LinkName("t", instance, "terminal/"+id) }

// RootEnd names the machine's end of the pair to the edge.
func RootEnd(instance string) string { return LinkName("bst", instance, "edge") }

// Health tells whether a probe finds a back end (a NIC's ID) healthy. A back
// end that wasn't probed yet is taken as unhealthy when another one is healthy.
type Health map[string]map[string]bool // probe → NIC → healthy

// Digest is of everything in the router: two with the same one are the same.
func (r *Router) Digest() string {
	text, err := json.Marshal(r)
	if err != nil {
		panic(err) // plain data always has a JSON form
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:16])
}
