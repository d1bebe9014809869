// SPDX-License-Identifier: Apache-2.0

package controlplane

import "bastide.dev/reboots"

// Reboots is what the reboot coordinator asks of a cluster: only as long as it
// is there, settings, lock and what blocks reboots are looked at.
type Reboots struct {
	Waiting []string `json:"waiting,omitempty"` // nodes that need a reboot
	Claims  []string `json:"claims,omitempty"`  // nodes that want the lock, or have it
}

// RebootsStatus answers Reboots.
type RebootsStatus struct {
	Settings reboots.Settings `json:"settings"`
	// Problems is what is wrong with the settings: nothing reboots until it isn't.
	Problems []string       `json:"problems,omitempty"`
	Locked   reboots.Locked `json:"locked"`
	// Nodes are those of Waiting that were looked at.
	Nodes []RebootNode `json:"nodes,omitempty"`
}

// RebootNode says what stands against a node's reboot: pods and alerts.
type RebootNode struct {
	Name    string   `json:"name"`
	Blocked []string `json:"blocked,omitempty"`
}
