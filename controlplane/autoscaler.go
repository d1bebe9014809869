// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"time"

	"bastide.dev/autoscale"
)

// Autoscaler has pools grow and shrink with what runs in the cluster.
type Autoscaler struct {
	Profile autoscale.Profile `json:"profile"`
	Pools   []autoscale.Pool  `json:"pools"`
	// Going are nodes that no pool counts any more, though they are there: on
	// their way out, or there for the length of an upgrade.
	Going []string `json:"going,omitempty"`
}

// Scaling is what the autoscaler wishes. It is a level: a wish stands until it
// is fulfilled or has become pointless.
type Scaling struct {
	// Pools are those that should have another count.
	Pools []PoolWish `json:"pools,omitempty"`
	// Remove are nodes that should go, and lower their pool's count by one.
	Remove []string `json:"remove,omitempty"`
	// Unschedulable is how many pods have no place.
	Unschedulable int    `json:"unschedulable,omitempty"`
	Unwell        string `json:"unwell,omitempty"` // why nothing is wished
}

// PoolWish is another count for a pool, good only as long as it has From.
type PoolWish struct {
	Pool string `json:"pool"`
	From int    `json:"from"`
	Want int    `json:"want"`
}

// Note is something that is told of a node as an event, once.
type Note struct {
	Reason  string    `json:"reason"`
	Message string    `json:"message"`
	Warning bool      `json:"warning,omitempty"`
	At      time.Time `json:"at"`
}
