// SPDX-License-Identifier: Apache-2.0

package controlplane

import "time"

// Leave asks for a node to be cordoned, left by load balancers, and drained.
// It is a level, not an order: as long as it stands the node stays so.
type Leave struct {
	// Drain evicts the pods; without it the node is cordoned only.
	Drain bool `json:"drain"`
	// Out takes the node out of load balancers, so that no new connection comes through it.
	Out bool `json:"out"`
	// Timeout is how long evictions are tried, from Since on.
	Timeout time.Duration `json:"timeout,omitempty"`
	Since   time.Time     `json:"since,omitzero"`
	// Force deletes the pods that a disruption budget still holds at the end of
	// Timeout; without it the drain fails then, and says what held it.
	Force bool `json:"force,omitempty"`
	// Reason is for people: "upgrade to 1.36.3". It stands in events and annotations.
	Reason string `json:"reason,omitempty"`
	// Quarantined labels the node as one that couldn't be drained for its upgrade.
	Quarantined bool `json:"quarantined,omitempty"`
	// Reboot marks the node with kured's annotations while it stands.
	Reboot bool `json:"reboot,omitempty"`
}

// Left is how far a node was left.
type Left struct {
	Since time.Time `json:"since,omitzero"` // of the Leave that is answered
	Phase LeftPhase `json:"phase"`
	Pods  int       `json:"pods"`            // still to be evicted
	Held  string    `json:"held,omitempty"`  // what holds the first of them: a budget, a finalizer
	Error string    `json:"error,omitempty"` // of LeaveFailed
}

// LeftPhase is where a drain stands.
type LeftPhase string

// The phases.
const (
	Leaving     LeftPhase = "Leaving"
	LeftNode    LeftPhase = "Left"   // no pod is left that had to go
	LeaveFailed LeftPhase = "Failed" // the timeout passed
)

// DeprecatedUse is a use of an API that a later release removes, as the API
// server counted it.
type DeprecatedUse struct {
	Group    string    `json:"group"`
	Version  string    `json:"version"`
	Resource string    `json:"resource"`
	Removed  string    `json:"removed"` // the release that doesn't have it, "1.32"
	Last     time.Time `json:"last"`    // when it was seen last
	Agents   []string  `json:"agents,omitempty"`
}
