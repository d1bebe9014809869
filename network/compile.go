// SPDX-License-Identifier: Apache-2.0

package network

import (
	"cmp"
	"net/netip"
	"slices"

	"bastide.dev/dataplane"
)

// serverPort is what the API server listens on, inside and outside.
const serverPort = 443

// Model is all of a cluster that its network depends on.
type Model struct {
	ID      string // the VNet's, and the namespace of the control plane
	Profile Profile
	Egress  netip.Addr
	Public  netip.Addr // the API server's public address; none: a private cluster
	Nodes   []Node
	Names   []dataplane.Name // further names of this network alone
}

// Node is a node that should have an interface.
type Node struct {
	Lease
	Machine  string // ID of the machine it runs in
	Hostname string
}

// Compile turns a cluster into its virtual network, purely. The order of the
// nodes doesn't matter: equal models give equal networks.
func Compile(m Model) dataplane.VNet {
	server := m.Profile.ServerAddress()
	v := dataplane.VNet{
		ID:       m.ID,
		Prefixes: slices.Clone(m.Profile.VNet),
		Subnets:  []dataplane.Subnet{m.Profile.Nodes, m.Profile.Server},
		NICs:     []dataplane.NIC{{ID: m.ID + "-apiserver", Namespace: m.ID, Address: server, Subnet: m.Profile.Server.Name}},
		Egress:   m.Egress,
		Names:    slices.Clone(m.Names),
	}
	if m.Public.IsValid() {
		v.Public = []dataplane.Public{{Address: m.Public, Port: serverPort, Target: server, TPort: serverPort}}
	}
	nodes := slices.Clone(m.Nodes)
	slices.SortFunc(nodes, func(a, b Node) int { return cmp.Or(a.Address.Compare(b.Address), cmp.Compare(a.ID, b.ID)) })
	for _, n := range nodes {
		v.NICs = append(v.NICs, dataplane.NIC{ID: n.ID, Machine: n.Machine, Address: n.Address, Subnet: m.Profile.Nodes.Name, Pods: slices.Clone(n.Pods)})
		if n.Hostname != "" {
			v.Names = append(v.Names, dataplane.Name{Name: n.Hostname, Addresses: []netip.Addr{n.Address}})
		}
	}
	return v
}
