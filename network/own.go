// SPDX-License-Identifier: Apache-2.0

package network

import (
	"bastide.dev/arm"
	"bastide.dev/resource"
)

// Terminal is a client on the instance's Internet, outside of every virtual
// network: Bastide's own resource, since Azure has the Internet itself.
type Terminal struct {
	Properties *TerminalProperties `json:"properties,omitempty"`
}

// TerminalProperties are a terminal's. All can be left out.
type TerminalProperties struct {
	Address   string `json:"address,omitempty"`   // one of the instance's public addresses; "": any
	Namespace string `json:"namespace,omitempty"` // read-only: the network namespace on Host
	Host      string `json:"host,omitempty"`      // read-only
}

// ownTypes are Bastide's own: terminals on the instance's Internet.
func (p *Provider) ownTypes() []arm.Type { return nil }

// terminalID is a terminal's ID in the data plane, and its namespace's name.
func terminalID(id resource.ID) string { return shortID("t", id.Key()) }
