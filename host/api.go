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
)

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
