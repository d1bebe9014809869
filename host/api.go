// SPDX-License-Identifier: Apache-2.0

// Package host is the per-machine daemon: it pulls its spec from serve over
// mutual TLS, makes it so with the data plane, the control-plane supervisor and
// the machine provider, and reports what is.
//
// This file is the contract between serve and host. A spec is a set of units,
// each replaced as a whole; a status answers each unit.
package host

import (
	"encoding/json"
	"net/netip"

	"bastide.dev/controlplane"
	"bastide.dev/dataplane"
	"bastide.dev/machine"
)

// Kind is a kind of unit.
type Kind string

// The kinds of units.
const (
	EdgeUnit         Kind = "edge"         // dataplane.Edge; one, named "edge"
	VNetUnit         Kind = "vnet"         // dataplane.VNet
	ControlPlaneUnit Kind = "controlplane" // controlplane.Spec
	MachineUnit      Kind = "machine"      // machine.Spec
	MetadataUnit     Kind = "metadata"     // metadata.Machine; named after its machine
	QueryUnit        Kind = "query"        // Query; it is answered once, and removed by who asked
)

// Query asks a host for what only it can know: what the kernel has, what a
// packet really does. Exactly one question is set.
type Query struct {
	Counters *CountersQuery `json:"counters,omitempty"`
	Probe    *ProbeQuery    `json:"probe,omitempty"`
	Objects  *ObjectsQuery  `json:"objects,omitempty"`
	// Policies asks for the compiled network policies that a node's kernel has.
	Policies *PoliciesQuery `json:"policies,omitempty"`
}

// CountersQuery asks for the counters of a VNet's rules. Answer: []ruleset.Counter.
type CountersQuery struct {
	VNet string `json:"vnet"`
}

// ProbeQuery sends real packets: a TCP connection, a UDP datagram or an echo
// request. Answer: ProbeAnswer.
type ProbeQuery struct {
	// From is where: one of a machine (its own namespace), a pod on it, or a
	// namespace of the data plane (a terminal's, an API server's).
	Machine   string     `json:"machine,omitempty"`
	PodUID    string     `json:"podUID,omitempty"` // on Machine
	Namespace string     `json:"namespace,omitempty"`
	Protocol  uint8      `json:"protocol"` // 6, 17, 1
	Address   netip.Addr `json:"address"`
	Port      uint16     `json:"port,omitempty"`
	Timeout   int        `json:"timeoutMillis"`
}

// ProbeAnswer is what became of a probe's packets.
type ProbeAnswer struct {
	// Result is "connected", "refused" (a reset or ICMP error: something
	// answered), "timeout", or "unreachable" (no route; refused on the way).
	Result string `json:"result"`
	Detail string `json:"detail,omitempty"`
	Micros int64  `json:"micros"`
	Source string `json:"source,omitempty"` // address and port that the probe had
}

// ObjectsQuery lists a cluster's objects through its control plane's own agent,
// which reaches private clusters too. Answer: Objects.
type ObjectsQuery struct {
	ControlPlane string `json:"controlPlane"` // its ID
}

// Objects are what decides about packets inside a cluster, as Kubernetes' JSON.
type Objects struct {
	Pods            json.RawMessage `json:"pods"` // *List, as the API server gives it
	Namespaces      json.RawMessage `json:"namespaces"`
	Services        json.RawMessage `json:"services"`
	EndpointSlices  json.RawMessage `json:"endpointSlices"`
	Nodes           json.RawMessage `json:"nodes"`
	NetworkPolicies json.RawMessage `json:"networkPolicies"`
	// ClusterPolicies are those of policy.networking.k8s.io; null without its CRD.
	ClusterPolicies json.RawMessage `json:"clusterPolicies,omitempty"`
}

// PoliciesQuery asks a machine's policy agent for its table. Answer: ruleset.Table.
type PoliciesQuery struct {
	Machine string `json:"machine"`
}

// Unit is one piece of a host's spec.
type Unit struct {
	Kind       Kind            `json:"kind"`
	Name       string          `json:"name"`
	Generation int64           `json:"generation"` // the store's revision of it
	Spec       json.RawMessage `json:"spec,omitempty"`
	Deleted    bool            `json:"deleted,omitempty"`
	// Synced marks the end of the first full listing in a stream; it has no unit.
	Synced bool `json:"synced,omitempty"`
}

// Report is what a host says of one unit. Gone answers a deletion: nothing of
// the unit is left on the host.
type Report struct {
	Kind       Kind   `json:"kind"`
	Name       string `json:"name"`
	Generation int64  `json:"generation"` // the unit's generation this answers
	Applied    bool   `json:"applied"`
	Gone       bool   `json:"gone,omitempty"`
	Error      string `json:"error,omitempty"`

	ControlPlane *controlplane.Status  `json:"controlPlane,omitempty"`
	Machine      *machine.Status       `json:"machine,omitempty"`
	VNet         *dataplane.VNetStatus `json:"vnet,omitempty"`
	Answer       json.RawMessage       `json:"answer,omitempty"` // of a Query
}

// Paths of the API that serve offers to hosts. {host} is the common name of the
// host's certificate; another host's path is refused.
const (
	UnitsPath   = "/hosts/{host}/units"   // GET: stream of Units, one JSON a line; full listing, Synced, then changes
	ReportsPath = "/hosts/{host}/reports" // POST: array of Reports
)

// Tombstone as a unit's value asks the host to remove the unit. The host
// answers with a Report that says Gone; whoever put the tombstone then deletes
// the unit's and the report's documents. (A plain deletion would be missed by a
// host that was away.)
var Tombstone = []byte("null")

// UnitKey is where serve keeps a unit of a host: its spec, as JSON, or Tombstone.
func UnitKey(host string, kind Kind, name string) string {
	return "hosts/" + host + "/units/" + string(kind) + "/" + name
}

// ReportKey is where serve keeps a host's answer to a unit.
func ReportKey(host string, kind Kind, name string) string {
	return "hosts/" + host + "/reports/" + string(kind) + "/" + name
}
