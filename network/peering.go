// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v7"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/resource"
)

// peer is another network that this one has, or shall have, a peering with.
type peer struct {
	name   string // of the peering
	target string
	id     resource.ID
	space  []netip.Prefix
}

// peerings judges every peering anew: what this network's ranges become may
// meet those of a peer that was there before.
func (c *vnetCheck) peerings(ctx context.Context) error {
	var peers []peer
	for i, s := range c.next.Properties.VirtualNetworkPeerings {
		target := fmt.Sprintf("%s[%d].properties.remoteVirtualNetwork.id", peeringList, i)
		id, ok := reference(c.f, target, ptr(subID(s.Properties.RemoteVirtualNetwork)), typeVNet)
		switch {
		case !ok:
			continue
		case id.Equal(c.id):
			c.f.bad("VnetCannotPeerWithItself", target, "Cannot create or update peering %s: virtual network %s can't be peered with itself.", value(s.Name), c.id)
			continue
		case slices.ContainsFunc(peers, func(p peer) bool { return p.id.Equal(id) }):
			c.f.bad("AnotherPeeringAlreadyReferencesRemoteVnet", target,
				"Peering %s cannot be created or updated because virtual network %s already has a peering to the remote virtual network %s.", value(s.Name), c.id.Name(), id)
			continue
		}
		d, err := c.remote(ctx, target, id)
		if err != nil {
			return err
		}
		if d == nil {
			continue
		}
		remote, err := readBody[armnetwork.VirtualNetwork](d)
		if err != nil {
			return err
		}
		found := peer{value(s.Name), target, id, addressSpace(remote)}
		c.overlaps(found, peers)
		peers = append(peers, found)
	}
	return nil
}

// remote reads the other network. One that was peered before may be gone.
func (c *vnetCheck) remote(ctx context.Context, target string, id resource.ID) (*arm.Document, error) {
	if peersWith(c.old, id) {
		d, err := arm.GetDocument(ctx, c.p.Store, id)
		if fault.Is(err, fault.NotFound) {
			return nil, nil
		}
		if err == nil && !slices.Equal(addressSpace(c.old), c.space) {
			c.held = append(c.held, d)
		}
		return d, err
	}
	d, err := c.p.referenced(ctx, c.f, c.id, target, id)
	if d != nil {
		c.held = append(c.held, d)
	}
	return d, err
}

func (c *vnetCheck) overlaps(p peer, others []peer) {
	if common := overlapping(c.space, p.space); len(common) > 0 {
		c.f.bad("VnetAddressSpacesOverlap", p.target,
			"Cannot create or update peering %s. Virtual networks %s and %s cannot be peered because their address spaces overlap. Overlapping address prefixes: %s.",
			p.name, c.id, p.id, strings.Join(common, ", "))
	}
	for _, other := range others {
		if common := overlapping(other.space, p.space); len(common) > 0 {
			c.f.bad("VnetAddressSpaceOverlapsWithAlreadyPeeredVnet", p.target,
				"Cannot create or update peering %s. Virtual network %s cannot be peered with %s because address space of the first virtual network overlaps with address space of third virtual network %s already peered with the second virtual network. Overlapping address prefixes: %s.",
				p.name, p.id, c.id, other.id, strings.Join(common, ", "))
		}
	}
}

// overlapping are the ranges of a that meet one of b, as text.
func overlapping(a, b []netip.Prefix) []string {
	var common []string
	for _, x := range a {
		if slices.ContainsFunc(b, x.Overlaps) {
			common = append(common, x.String())
		}
	}
	return common
}
