// SPDX-License-Identifier: Apache-2.0

// Package why answers whether a packet gets from one end to another, and which
// rule decides: through pods' policies, Services, nodes, virtual networks and
// the edge. It is pure. It walks the very tables that the kernel gets, those of
// dataplane.Compile and netpolicy.Compile, with ruleset's Run; what a security
// group or a policy means is written nowhere a second time.
//
// cmd gathers a World from the store and the hosts, and serves the answers.
package why

import (
	"bytes"
	"encoding/json"
	"net/netip"

	"bastide.dev/ruleset"
)

// Question is who wants to reach whom.
type Question struct {
	From     string `json:"from"`
	To       string `json:"to"` // with or without ":port"
	Protocol string `json:"protocol,omitempty"`
	Port     uint16 `json:"port,omitempty"` // when To has none
}

// Reachable says whether all, some or none of what could answer is reached.
type Reachable string

// The answers.
const (
	Yes  Reachable = "yes"
	No   Reachable = "no"
	Some Reachable = "some"
)

// Answer is what becomes of the first packet of a connection, and of its answer.
type Answer struct {
	From      string    `json:"from"`
	To        string    `json:"to"`
	Protocol  string    `json:"protocol"`
	Port      uint16    `json:"port,omitempty"`
	Reachable Reachable `json:"reachable"`
	By        string    `json:"by"`             // one sentence
	Rule      string    `json:"rule,omitempty"` // the origin of what decided
	// Paths are the ways a connection can take: one per back end and endpoint.
	Paths []Path `json:"paths"`
	// Stale says that a host's kernel has something else than what is compiled
	// here: the answer is what will hold in a moment.
	Stale   bool     `json:"stale"`
	StaleAt []string `json:"staleAt,omitempty"`
	Notes   []string `json:"notes,omitempty"`

	// Sender is where a real packet would be sent from, and Target to where.
	Sender Sender `json:"sender"`
	Target Target `json:"target"`
	// Probe is what real packets did, when that was asked for.
	Probe *Probe `json:"probe,omitempty"`
	// Tables are the policies of the nodes on the way, as they were compiled: what
	// a node's agent has should be the same.
	Tables []NodeTable `json:"-"`
}

// NodeTable is a node's compiled network policies.
type NodeTable struct {
	Node, Machine string
	Table         *ruleset.Table
}

// Is compares with the table that the node's agent has.
func (t *NodeTable) Is(other *ruleset.Table) bool {
	mine, err := json.Marshal(t.Table)
	theirs, otherErr := json.Marshal(other)
	return err == nil && otherErr == nil && bytes.Equal(mine, theirs)
}

// StaleIn notes where the kernel has something else than what was walked through.
func (a *Answer) StaleIn(where string) {
	a.Stale, a.StaleAt = true, append(a.StaleAt, where)
}

// Sender is the place of From: one of a machine, a pod on it, or a namespace of
// the data plane. Outside is neither: the Internet beyond this machine.
type Sender struct {
	Machine   string `json:"machine,omitempty"`
	PodUID    string `json:"podUID,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Outside   bool   `json:"outside,omitempty"`
}

// Target is what the packet is sent to, names resolved.
type Target struct {
	Address  netip.Addr `json:"address"`
	Port     uint16     `json:"port,omitempty"`
	Protocol uint8      `json:"protocol"`
}

// Path is one way of a connection.
type Path struct {
	To        string `json:"to"` // what answers, or would: "pod default/web-1"
	Reachable bool   `json:"reachable"`
	By        string `json:"by"`
	Rule      string `json:"rule,omitempty"`
	// Listener says what is known of who listens there: "ready", "declared",
	// "unknown" (a probe would tell), "beyond" (it leaves this machine), "none".
	Listener Listener `json:"listener,omitempty"`
	Hops     []Hop    `json:"hops"`
}

// Listener is what is known of who listens at the end of a path.
type Listener string

// What can be known.
const (
	ListenerReady    Listener = "ready"    // an endpoint that Kubernetes finds ready, or a service of the platform
	ListenerDeclared Listener = "declared" // a running pod says that it has the port
	ListenerUnknown  Listener = "unknown"
	ListenerBeyond   Listener = "beyond" // the packet leaves this machine
	ListenerNone     Listener = "none"
)

// Hop is one thing that was found, or done to the packet.
type Hop struct {
	Where   string `json:"where"` // "pod default/web", "node aks-1", "vnet rg/vnet", "edge", "machine"
	What    string `json:"what"`
	Rule    string `json:"rule,omitempty"`
	Verdict string `json:"verdict,omitempty"` // "allow", "deny", "reset"; "": no decision
}

// Probe is what real packets did, beside what was expected of them.
type Probe struct {
	Sent     int      `json:"sent"`
	Agrees   bool     `json:"agrees"`
	Measured string   `json:"measured"` // "connected", "refused", "timeout", "unreachable"; of several, joined
	Expected string   `json:"expected"` // what Reachable makes likely
	Details  []string `json:"details,omitempty"`
	From     string   `json:"from,omitempty"` // address and port that the packets had
}
