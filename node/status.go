// SPDX-License-Identifier: Apache-2.0

package node

import "time"

// Status is what a node says of itself, in machine.GuestPath. Whoever reads it
// remembers that the machine's tenant may have written it.
type Status struct {
	Config string `json:"config"` // hex SHA-256 of the Config that is in effect
	// Services are those that run, with the config that they were started with.
	Ready bool         `json:"ready"` // all of them run
	Error string       `json:"error,omitempty"`
	Patch *PatchStatus `json:"patch,omitempty"`
	// RebootRequired is /var/run/reboot-required, with its list of packages.
	RebootRequired bool      `json:"rebootRequired,omitempty"`
	RebootPackages []string  `json:"rebootPackages,omitempty"`
	RebootSince    time.Time `json:"rebootSince,omitzero"`
}

// PatchStatus is what became of the newest Patch.
type PatchStatus struct {
	Token     string    `json:"token"`
	Begun     time.Time `json:"begun,omitzero"`
	Ended     time.Time `json:"ended,omitzero"` // zero as long as it runs
	Installed []Update  `json:"installed,omitempty"`
	Error     string    `json:"error,omitempty"`
}

// Update is one package that was brought up to date.
type Update struct {
	Package string `json:"package"`
	From    string `json:"from"`
	To      string `json:"to"`
}
