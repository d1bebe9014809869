// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"net/netip"

	"bastide.dev/cluster"
	"bastide.dev/compute"
	"bastide.dev/network"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// clusterNetwork hands clusters what they need of Microsoft.Network: the two
// providers name the same things in types of their own, since neither imports
// the other.
type clusterNetwork struct{ *network.Provider }

func (n clusterNetwork) Subnet(ctx context.Context, id resource.ID) (cluster.Subnet, error) {
	s, err := n.Provider.Subnet(ctx, id)
	return cluster.Subnet(s), err
}

func (n clusterNetwork) Allocate(ctx context.Context, subnet resource.ID, wants []cluster.Want) ([]cluster.Grant, []store.Change, error) {
	converted := make([]network.Want, len(wants))
	for i, w := range wants {
		converted[i] = network.Want(w)
	}
	grants, changes, err := n.Provider.Allocate(ctx, subnet, converted)
	found := make([]cluster.Grant, len(grants))
	for i, g := range grants {
		found[i] = cluster.Grant(g)
	}
	return found, changes, err
}

func (n clusterNetwork) PublicAddress(ctx context.Context, owner resource.ID) (netip.Addr, []store.Change, error) {
	addresses, changes, err := n.PublicAddresses(ctx, owner, 1)
	if err != nil {
		return netip.Addr{}, nil, err
	}
	return addresses[0], changes, nil
}

func (n clusterNetwork) Serve(ctx context.Context, id resource.ID, s *cluster.Server) ([]store.Change, error) {
	var server *network.Server
	if s != nil {
		server = &network.Server{Cluster: id, Namespace: s.Namespace, Subnet: s.Subnet, Address: s.Address, Public: s.Public, Port: s.Port,
			Private: s.Private, Restricted: s.Restricted, Allowed: s.Allowed, FQDN: s.FQDN, PrivateFQDN: s.PrivateFQDN}
	}
	return n.Provider.Serve(ctx, id, server)
}

// computeNetwork hands virtual machines what they need of Microsoft.Network.
type computeNetwork struct{ *network.Provider }

func (n computeNetwork) Interface(ctx context.Context, id resource.ID) (compute.Interface, error) {
	nic, err := n.Provider.Interface(ctx, id)
	return compute.Interface(nic), err
}

func (n computeNetwork) Waiting(ctx context.Context, nic resource.ID) (string, error) {
	subnet, err := n.SubnetOf(ctx, nic)
	if err != nil || subnet.IsRoot() {
		return "the network interface isn't there", err
	}
	return n.Provider.Waiting(ctx, subnet.Parent())
}
