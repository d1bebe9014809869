// SPDX-License-Identifier: Apache-2.0

// Package ruleset is packet filtering as data: tables of chains, rules, sets
// and maps, as the kernel's nftables has them. What compiles to it (dataplane,
// netpolicy) is pure; ruleset/linux makes it real in a network namespace, and
// Run evaluates a packet against the very same tables, which is how `bastide
// why` knows what the kernel will do.
package ruleset

import "net/netip"

// Table is all rules of one owner in one network namespace. Names are unique
// in it; the order of chains with the same hook and priority is that of Chains.
type Table struct {
	Name   string  `json:"name"`
	Sets   []Set   `json:"sets,omitempty"`
	Maps   []Map   `json:"maps,omitempty"`
	Chains []Chain `json:"chains,omitempty"`
}

// Field is a part of a packet, or of what the kernel knows of it.
type Field string

// The fields. Addresses are IPv4 or IPv6; a match on one implies its family. A
// field that a packet doesn't have matches nothing, in no set, map or range, and
// neither with Not: ports of ICMP, what conntrack knows of an invalid packet.
const (
	InLink          Field = "iifname"
	OutLink         Field = "oifname"
	Source          Field = "saddr"
	Destination     Field = "daddr"
	Protocol        Field = "l4proto" // a number: TCP, UDP, …
	SourcePort      Field = "sport"   // TCP, UDP, SCTP
	DestinationPort Field = "dport"
	ICMPType        Field = "icmptype" // implies ICMP
	State           Field = "ctstate"  // Established (and related), New, Invalid
	Reply           Field = "ctdir"    // 1: the packet goes against its connection's first one
	Translated      Field = "ctdnat"   // 1: the connection's destination was translated
	Mark            Field = "mark"
	ConnMark        Field = "ctmark"
	Type            Field = "addrtype" // Local: the destination is an address of this namespace
)

// Values of State, Protocol and Type.
const (
	New         = 1 // of State
	Established = 2 // and related
	Invalid     = 3
	ICMP        = 1 // of Protocol
	TCP         = 6
	UDP         = 17
	ESP         = 50
	AH          = 51
	SCTP        = 132
	Local       = 1 // of Type
)

// Value is what a field is compared with: an address, a link's name, or a number.
type Value struct {
	Addr   netip.Addr `json:"addr,omitzero"`
	Name   string     `json:"name,omitempty"`
	Number uint32     `json:"number,omitempty"`
}

// Range is all values from From to To, both included; a zero To is From alone.
type Range struct {
	From Value `json:"from"`
	To   Value `json:"to,omitzero"`
}

// Set is a named set of keys, a Range for each of its fields. Keys of one set
// don't overlap: who compiles merges them. All its addresses are of one family;
// an empty set is one of IPv4.
type Set struct {
	Name     string    `json:"name"`
	Fields   []Field   `json:"fields"`
	Elements [][]Range `json:"elements,omitempty"`
}

// MapKind is what a map leads to.
type MapKind string

// The kinds of maps.
const (
	ToVerdict MapKind = "verdict" // an element's Verdict: one of Accept, Drop, Return, Jump, Goto
	ToMark    MapKind = "mark"
	ToAddress MapKind = "address" // an element's Address and, unless 0, port range
)

// Map leads from keys to verdicts or values. Keys don't overlap.
type Map struct {
	Name     string       `json:"name"`
	Kind     MapKind      `json:"kind"`
	Fields   []Field      `json:"fields"`
	Ports    bool         `json:"ports,omitempty"` // of ToAddress: elements carry ports
	Elements []MapElement `json:"elements,omitempty"`
}

// MapElement is one entry of a map.
type MapElement struct {
	Key     []Range    `json:"key"`
	Verdict Action     `json:"verdict,omitzero"`
	Mark    uint32     `json:"mark,omitempty"`
	Address netip.Addr `json:"address,omitzero"`
	First   uint16     `json:"first,omitempty"` // ports
	Last    uint16     `json:"last,omitempty"`
}

// Hook is where the kernel calls a chain; "" is a chain that others jump to.
type Hook string

// The hooks.
const (
	Prerouting  Hook = "prerouting"
	Input       Hook = "input"
	Forward     Hook = "forward"
	Output      Hook = "output"
	Postrouting Hook = "postrouting"
)

// Priorities of base chains, the kernel's own numbers.
const (
	Raw            = -300 // before connection tracking
	Mangle         = -150
	DestinationNAT = -100
	Filter         = 0
	SourceNAT      = 100
	AfterNAT       = 150 // addresses are those that leave
)

// Chain is a list of rules.
type Chain struct {
	Name     string `json:"name"`
	Hook     Hook   `json:"hook,omitempty"`
	NAT      bool   `json:"nat,omitempty"` // asked for a connection's first packet only
	Priority int    `json:"priority,omitempty"`
	Drop     bool   `json:"drop,omitempty"` // what no rule decided is dropped, else accepted
	Rules    []Rule `json:"rules,omitempty"`
}

// Rule does its actions on packets that meet all of its matches. What ends a
// rule (a verdict, Jump, Dispatch, NAT) is its last action.
type Rule struct {
	// Origin names what the rule comes from: "nsg/web-nsg/AllowHTTPS". It is kept
	// in the kernel as the rule's comment, and counters are read by it.
	Origin  string   `json:"origin,omitempty"`
	Count   bool     `json:"count,omitempty"`
	Matches []Match  `json:"matches,omitempty"`
	Actions []Action `json:"actions"`
}

// Match compares fields with a named set, or one field with ranges.
type Match struct {
	Fields []Field `json:"fields"`
	Not    bool    `json:"not,omitempty"`
	Set    string  `json:"set,omitempty"`
	Ranges []Range `json:"ranges,omitempty"` // without Set; a few at most, else make a set
}

// Verb is what an action does.
type Verb string

// The verbs. Accept, Drop, Return, Goto and Reject end the rule; Accept ends the
// hook's chain, as in nftables: later base chains still see the packet.
const (
	Accept Verb = "accept"
	Drop   Verb = "drop"
	Return Verb = "return"
	Jump   Verb = "jump"   // to Chain
	Goto   Verb = "goto"   // to Chain
	Reject Verb = "reject" // TCP: reset; else ICMP administratively prohibited
	// Dispatch looks Fields up in the verdict map Map; a miss goes on with the next rule.
	Dispatch Verb = "vmap"
	// SNAT and DNAT translate to Address (and First to Last, unless 0), or to
	// what the address map Map has for Fields; a miss goes on.
	SNAT Verb = "snat"
	DNAT Verb = "dnat"
	Masq Verb = "masquerade"
	// SetMark sets the packet's mark to Mark, or to what the mark map Map has for Fields.
	SetMark Verb = "setmark"
	// Balance sets the packet's mark to one of Marks, by a hash of Fields, which
	// the packet must have; addresses are IPv4.
	Balance Verb = "balance"
	// SaveMark copies the packet's mark to its connection, LoadMark the other way.
	SaveMark Verb = "savemark"
	LoadMark Verb = "loadmark"
	// Timeout gives the connection's established TCP state a life of Seconds. Its
	// rule must match New: the kernel drops packets when it is set any later.
	Timeout Verb = "timeout"
	// Log sends the packet to the log group Group, with the rule's origin (its
	// first 127 bytes, the kernel's limit) as prefix.
	Log Verb = "log"
)

// Action is one thing a rule does.
type Action struct {
	Verb    Verb       `json:"verb"`
	Chain   string     `json:"chain,omitempty"`
	Map     string     `json:"map,omitempty"`
	Fields  []Field    `json:"fields,omitempty"`
	Address netip.Addr `json:"address,omitzero"`
	First   uint16     `json:"first,omitempty"`
	Last    uint16     `json:"last,omitempty"`
	Mark    uint32     `json:"mark,omitempty"`
	Mask    uint32     `json:"mask,omitempty"` // of SetMark, Balance, SaveMark, LoadMark: bits that change; 0: all
	Marks   []uint32   `json:"marks,omitempty"`
	Seconds uint32     `json:"seconds,omitempty"`
	Group   uint16     `json:"group,omitempty"`
}

// Packet is what Run evaluates. Chains change its marks and addresses.
type Packet struct {
	InLink, OutLink      string
	Source, Destination  netip.Addr
	Protocol             uint8
	SourcePort, DestPort uint16
	ICMPType             uint8
	State                uint32 // New, Established, Invalid
	Reply, Translated    bool
	Mark, ConnMark       uint32
	Local                bool // the destination is an address of the namespace
}

// Step is a rule that decided or changed something, for an explanation.
type Step struct {
	Chain   string `json:"chain"`
	Origin  string `json:"origin,omitempty"`
	Verdict Verb   `json:"verdict"`
}

// Counter is what the kernel counted for all rules of an origin.
type Counter struct {
	Origin  string `json:"origin"`
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}
