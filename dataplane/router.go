// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"net/netip"

	"bastide.dev/ruleset"
)

// Router is a VNet in its compiled form: what dataplane/linux makes so in the
// router's namespace, and what Trace walks through.
type Router struct {
	Table ruleset.Table `json:"table"`
	// Addresses are the router's own, on its loopback.
	Addresses []netip.Addr `json:"addresses"`
	// Routes of all routing tables; Selectors, by ascending priority, say which
	// table is asked. Table 0 is main, asked last.
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
	Origin string       `json:"origin,omitempty"` // "routeTables/aks-1-routetable/routes/node1", "system"
}

// Selector sends packets with Mark under Mask to a routing table; what that has
// no route for goes on to the next.
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
// router has one.
type RouterPeer struct {
	VNet string `json:"vnet"`
	Link string `json:"link"` // in this router
	Far  string `json:"far"`  // in the other
}

// Cut is the connections to a public address from other sources than Allowed.
type Cut struct {
	Destination netip.Addr     `json:"destination"`
	Port        uint16         `json:"port"`
	Allowed     []netip.Prefix `json:"allowed"`
}

// Health tells whether a probe finds a back end (a NIC's ID) healthy. A back
// end that wasn't probed yet is taken as unhealthy when another one is healthy.
type Health map[string]map[string]bool // probe → NIC → healthy
