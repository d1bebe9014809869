// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"net/netip"
	"time"
)

// FlowLine is one line of a network's flow log: a connection's first packet, and
// what a network security group decided on it. Ports are 0 where the protocol
// has none.
type FlowLine struct {
	Time            time.Time  `json:"time"`
	NSG             string     `json:"nsg"`       // its ARM id
	Rule            string     `json:"rule"`      // its name in the group
	Direction       string     `json:"direction"` // Inbound or Outbound
	Source          netip.Addr `json:"source"`
	Destination     netip.Addr `json:"destination"`
	SourcePort      uint16     `json:"sourcePort,omitempty"`
	DestinationPort uint16     `json:"destinationPort,omitempty"`
	Protocol        uint8      `json:"protocol"` // IANA's number
	Verdict         string     `json:"verdict"`  // Allow or Deny
}
