// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// addPair makes a veth pair: one end, up, in the handle's namespace, the other
// in peerSpace. What stands in the way in peerSpace is left from before.
func addPair(h *netlink.Handle, name string, mtu int, peer string, peerSpace *space) error {
	return addPairAs(h, name, mtu, peer, peerSpace, nil)
}

// addPairAs is addPair with a chosen hardware address for the peer.
func addPairAs(h *netlink.Handle, name string, mtu int, peer string, peerSpace *space, mac net.HardwareAddr) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.Flags = name, mtu, net.FlagUp
	pair := &netlink.Veth{LinkAttrs: attrs, PeerName: peer, PeerNamespace: netlink.NsFd(peerSpace.ns.Fd()), PeerHardwareAddr: mac}
	err := h.LinkAdd(pair)
	if errors.Is(err, unix.EEXIST) {
		if err := removeLink(peerSpace.nl, peer); err != nil {
			return err
		}
		err = h.LinkAdd(pair)
	}
	if err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	return nil
}

// join makes the pair between two namespaces, unless it stands, and returns
// the near end. It tells whether it made it anew.
func join(near *space, name string, far *space, farName string, mtu int) (netlink.Link, bool, error) {
	link, err := findLink(near.nl, name)
	if err != nil {
		return nil, false, err
	}
	if link != nil {
		stands, err := leadsTo(near.nl, link, far.ns)
		if err != nil {
			return nil, false, err
		}
		if stands {
			return link, false, errors.Join(ready(near.nl, link, mtu), farReady(far, farName, mtu))
		}
		if err := removeLink(near.nl, name); err != nil {
			return nil, false, err
		}
	}
	if err := addPair(near.nl, name, mtu, farName, far); err != nil {
		return nil, false, err
	}
	if err := farReady(far, farName, mtu); err != nil {
		return nil, false, err
	}
	if err := carrying(near.nl, name); err != nil {
		return nil, false, err
	}
	link, err = mustLink(near.nl, name)
	return link, true, err
}

func farReady(far *space, name string, mtu int) error {
	link, err := mustLink(far.nl, name)
	if err != nil {
		return err
	}
	return ready(far.nl, link, mtu)
}

// removeLink deletes a link, if it is there, and with it the other end.
func removeLink(h *netlink.Handle, name string) error {
	link, err := findLink(h, name)
	if err != nil || link == nil {
		return err
	}
	if err := h.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove link %s: %w", name, err)
	}
	return nil
}

// findLink is nil when there is no such link.
func findLink(h *netlink.Handle, name string) (netlink.Link, error) {
	link, err := h.LinkByName(name)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("link %s: %w", name, err)
	}
	return link, nil
}

// mustLink is a link that has to be there.
func mustLink(h *netlink.Handle, name string) (netlink.Link, error) {
	link, err := findLink(h, name)
	if err == nil && link == nil {
		err = fmt.Errorf("link %s is gone", name)
	}
	return link, err
}

// links lists a namespace's links by name.
func links(h *netlink.Handle) (map[string]netlink.Link, error) {
	listed, err := h.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	byName := make(map[string]netlink.Link, len(listed))
	for _, l := range listed {
		byName[l.Attrs().Name] = l
	}
	return byName, nil
}

// ready brings a link up with its MTU, if it isn't so.
func ready(h *netlink.Handle, link netlink.Link, mtu int) error {
	attrs := link.Attrs()
	if mtu != 0 && attrs.MTU != mtu {
		if err := h.LinkSetMTU(link, mtu); err != nil {
			return fmt.Errorf("mtu of %s: %w", attrs.Name, err)
		}
	}
	if attrs.Flags&net.FlagUp == 0 {
		if err := h.LinkSetUp(link); err != nil {
			return fmt.Errorf("link %s up: %w", attrs.Name, err)
		}
	}
	return nil
}

// carrying waits until links that were just made carry packets. The end that is
// brought up first starts a moment after the second one, and until then drops
// what it should send: a neighbour's answer, which is asked for again only
// after a second.
func carrying(h *netlink.Handle, names ...string) error {
	const patience, step = 100 * time.Millisecond, 200 * time.Microsecond
	begun := time.Now()
	for _, name := range names {
		for {
			link, err := mustLink(h, name)
			if err != nil {
				return err
			}
			if link.Attrs().OperState == netlink.OperUp || time.Since(begun) > patience {
				break
			}
			time.Sleep(step)
		}
	}
	return nil
}

// leadsTo tells whether a link's other end is in the namespace ns. The kernel
// numbers neighbour namespaces; the number is the namespace's own, unlike an
// inode, which a later namespace may get again.
func leadsTo(h *netlink.Handle, link netlink.Link, ns *os.File) (bool, error) {
	id, err := h.GetNetNsIdByFd(int(ns.Fd()))
	if err != nil {
		return false, fmt.Errorf("number of namespace %s: %w", ns.Name(), err)
	}
	return id >= 0 && link.Attrs().NetNsID == id, nil
}

// defaultMTU is that of Ethernet, for a machine without an uplink.
const defaultMTU = 1500

// UplinkMTU is the MTU of the link that the machine's default route uses:
// every interface of the data plane has it, so that no packet must be cut.
func UplinkMTU() (int, error) {
	routes, err := netlink.RouteListFiltered(unix.AF_INET, &netlink.Route{Table: unix.RT_TABLE_MAIN, Dst: nil}, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_DST)
	if err != nil {
		return 0, fmt.Errorf("default route: %w", err)
	}
	for _, r := range routes {
		if r.LinkIndex == 0 {
			continue
		}
		link, err := netlink.LinkByIndex(r.LinkIndex)
		if err != nil {
			return 0, fmt.Errorf("uplink: %w", err)
		}
		return link.Attrs().MTU, nil
	}
	return defaultMTU, nil
}
