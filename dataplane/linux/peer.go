// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"bastide.dev/dataplane"
)

// applyPeers makes the pairs between routers whose networks both name each
// other, and removes what is left of those that don't any more.
func (p *Plane) applyPeers(passes []*pass) error {
	byID := map[string]*pass{}
	for _, one := range passes {
		if one.safe {
			byID[one.v.ID] = one
		}
	}
	wanted := map[string]bool{}
	var failed []error
	for _, one := range passes {
		if !one.safe {
			continue
		}
		for _, peer := range one.n.compiled.Peers {
			other := byID[peer.VNet]
			if other == nil || !other.names(one.v.ID) {
				continue
			}
			wanted[peer.Link] = true
			if peer.Link > peer.Far || !one.busy && !other.busy {
				continue // the other end makes it, or it stands
			}
			if err := p.joinPeers(one, other, peer); err != nil {
				failed = append(failed, fmt.Errorf("peering of %s and %s: %w", one.v.ID, other.v.ID, err))
			}
		}
	}
	for _, one := range passes {
		if one.safe && one.linked {
			failed = append(failed, one.n.removePeers(wanted))
		}
	}
	return errors.Join(failed...)
}

// names tells whether the network has a peering with another one.
func (p *pass) names(vnet string) bool {
	return slices.ContainsFunc(p.n.compiled.Peers, func(r dataplane.RouterPeer) bool { return r.VNet == vnet })
}

// joinPeers makes one pair. Its ends can't ask for each other's address, which
// is the same on both: they are told.
func (p *Plane) joinPeers(one, other *pass, peer dataplane.RouterPeer) error {
	near, fresh, err := join(one.n.space, peer.Link, other.n.space, peer.Far, p.mtu)
	if err != nil {
		return err
	}
	if fresh {
		one.busy, other.busy = true, true // their routes went with the old pair
		one.linked, other.linked = true, true
	}
	far, err := mustLink(other.n.nl, peer.Far)
	if err != nil {
		return err
	}
	return errors.Join(meet(one.n.nl, near, far.Attrs().HardwareAddr), meet(other.n.nl, far, near.Attrs().HardwareAddr))
}

// meet tells a router who the gateway is at the other end of a link.
func meet(h *netlink.Handle, link netlink.Link, far net.HardwareAddr) error {
	err := h.NeighSet(&netlink.Neigh{LinkIndex: link.Attrs().Index, Family: unix.AF_INET, State: netlink.NUD_PERMANENT,
		IP: dataplane.PeerGateway.AsSlice(), HardwareAddr: far})
	if err != nil {
		return fmt.Errorf("neighbour on %s: %w", link.Attrs().Name, err)
	}
	return nil
}

// removePeers deletes the router's ends of peerings that aren't wanted.
func (n *vnet) removePeers(wanted map[string]bool) error {
	byName, err := links(n.nl)
	if err != nil {
		return err
	}
	var failed []error
	for name, link := range byName {
		if strings.HasPrefix(name, peerPrefix) && link.Type() == "veth" && !wanted[name] {
			failed = append(failed, removeLink(n.nl, name))
		}
	}
	return errors.Join(failed...)
}
