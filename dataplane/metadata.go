// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"net/netip"
	"slices"

	rs "bastide.dev/ruleset"
)

// MetadataAddress is where machines ask who they are, and for tokens.
var MetadataAddress = netip.AddrFrom4([4]byte{169, 254, 169, 254})

// MetadataPort is the one port that answers there.
const MetadataPort = 80

// MachineTable names the table that the data plane has inside a machine's own
// network namespace, where it keeps what the machine forwards in bounds.
const MachineTable = "bastide-platform"

// Sender is the machine that sends from an address of a network, as the
// network's source checks know it.
type Sender struct {
	Machine string
	NIC     string // its ID
	Address netip.Addr
	Subnet  netip.Prefix
	Public  netip.Addr // invalid: none
}

// Senders tells whose an address of a network is, from the same configuration
// that the network's source checks are made of. It is safe for concurrent use.
type Senders interface {
	Sender(a netip.Addr) (Sender, bool)
	// MAC is the hardware address that the router knows a sender by; "" when it doesn't.
	MAC(s Sender) string
}

// Sender finds the machine whose interface has an address, itself or for its
// pods. Interfaces that no machine has (API servers') are nobody's.
func (v *VNet) Sender(a netip.Addr) (Sender, bool) {
	for i := range v.NICs {
		n := &v.NICs[i]
		if n.Machine == "" || n.Address != a && !slices.ContainsFunc(n.Pods, func(p netip.Prefix) bool { return p.Contains(a) }) {
			continue
		}
		s := Sender{Machine: n.Machine, NIC: n.ID, Address: n.Address}
		if subnet, ok := v.Subnet(n.Subnet); ok {
			s.Subnet = subnet.Prefix
		}
		for j := range v.Public {
			if p := &v.Public[j]; p.oneToOne() && p.Target == n.Address {
				s.Public = p.Address
			}
		}
		return s, true
	}
	return Sender{}, false
}

// metadata lets machines reach the metadata address: from their own interfaces
// with their own addresses, and nobody else. Security groups aren't asked, as
// on Azure.
func (k *compiler) metadata() rs.Rule {
	return rule("platform/metadata", accept, k.table.to(single(MetadataAddress)), is(rs.Protocol, rs.TCP),
		is(rs.DestinationPort, MetadataPort), in(ownSet, rs.InLink, rs.Source))
}

// CompileMachine makes the table for a machine's own namespace. With NoMetadata
// what the machine forwards, its pods' packets, doesn't reach the metadata
// address, on no connection, whatever a translation before made of it; what the
// machine itself sends does, and so do its host-network pods.
func (n *NIC) CompileMachine() rs.Table {
	t := newTable(MachineTable)
	if n.NoMetadata {
		forward := t.hooked(rs.Chain{Name: "forward", Hook: rs.Forward, Priority: rs.Mangle})
		forward.Rules = []rs.Rule{rule("platform/podLinkLocalAccess", reject, t.to(single(MetadataAddress)))}
	}
	return t.finish()
}
