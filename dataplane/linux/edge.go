// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"crypto/sha256"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"bastide.dev/dataplane"
)

func anywhere() netip.Prefix { return netip.PrefixFrom(netip.IPv4Unspecified(), 0) }

// rootEnd is the machine's end of the pair to the edge.
func (p *Plane) rootEnd() string { return dataplane.RootEnd(p.Instance) }

// prepare brings the machine and the edge to where VNets can be attached.
func (p *Plane) prepare(c *dataplane.Config, e *dataplane.EdgeRouter) error {
	p.names.set(c.Edge.Names)
	var err error
	if p.mtu, err = UplinkMTU(); err != nil {
		return err
	}
	if now, err := readForwarding(); err != nil || now != "1" || p.edge == nil {
		if err := holdForwarding(p.SharedDir, p.Instance); err != nil {
			return err
		}
	}
	if p.edge != nil && !p.edge.current() {
		if err := p.edge.close(); err != nil {
			return err
		}
		p.edge = nil
	}
	if p.edge == nil {
		if p.edge, err = p.openRouter(p.routerPath(edgeName), edgeSettings()); err != nil {
			return fmt.Errorf("edge: %w", err)
		}
		for _, n := range p.vnets {
			n.settled = false // its way to an old edge ends without its hearing of it at once
		}
	}
	if err := loopbackUp(p.edge.nl, singles(e.Addresses)); err != nil {
		return fmt.Errorf("edge: %w", err)
	}
	if err := p.edge.fw.Put(e.Table); err != nil {
		return fmt.Errorf("edge: %w", err)
	}
	return p.joinMachine(&c.Edge, e)
}

// joinMachine connects the edge with the machine's own namespace, which gets
// the front door's address and a route to the pools.
func (p *Plane) joinMachine(c *dataplane.Edge, e *dataplane.EdgeRouter) error {
	if err := p.rootFW.Put(e.Root); err != nil {
		return fmt.Errorf("machine: %w", err)
	}
	p.warnStrangers()
	if err := p.connectRoot(); err != nil {
		return fmt.Errorf("machine: %w", err)
	}
	link, err := mustLink(p.root.nl, p.rootEnd())
	if err != nil {
		return fmt.Errorf("machine: %w", err)
	}
	if err := p.meetMachine(c.FrontDoor, link.Attrs().HardwareAddr); err != nil {
		return fmt.Errorf("edge: %w", err)
	}
	if err := ready(p.root.nl, link, p.mtu); err != nil {
		return fmt.Errorf("machine: %w", err)
	}
	if err := syncAddresses(p.root.nl, link, []netip.Prefix{single(c.FrontDoor)}); err != nil {
		return fmt.Errorf("machine: %w", err)
	}
	routes := kernelRoutes(e.RootRoutes, map[string]netlink.Link{p.rootEnd(): link})
	if err := syncRoutes(p.root.nl, routes, link.Attrs().Index); err != nil {
		return fmt.Errorf("machine: %w", err)
	}
	return nil
}

// rootMAC is the hardware address of the machine's end: a chosen one, because
// udev replaces random ones.
func (p *Plane) rootMAC() net.HardwareAddr {
	sum := sha256.Sum256([]byte(p.rootEnd()))
	return net.HardwareAddr{0x02, sum[0], sum[1], sum[2], sum[3], sum[4]}
}

// meetMachine tells the edge where the front door is. It can't ask: its
// link-local address isn't routed to this link in the machine's namespace, so
// that a machine with strict reverse-path filtering drops the question.
func (p *Plane) meetMachine(frontDoor netip.Addr, mac net.HardwareAddr) error {
	link, err := mustLink(p.edge.nl, dataplane.RootLink)
	if err != nil {
		return err
	}
	err = p.edge.nl.NeighSet(&netlink.Neigh{LinkIndex: link.Attrs().Index, Family: unix.AF_INET, State: netlink.NUD_PERMANENT,
		IP: frontDoor.AsSlice(), HardwareAddr: mac})
	if err != nil {
		return fmt.Errorf("neighbour %s: %w", frontDoor, err)
	}
	return nil
}

// connectRoot makes the pair between the edge and the machine, unless it stands.
func (p *Plane) connectRoot() error {
	inside, err := findLink(p.edge.nl, dataplane.RootLink)
	if err != nil {
		return err
	}
	if inside != nil {
		ours, err := leadsTo(p.edge.nl, inside, p.root.ns)
		if err != nil {
			return err
		}
		outside, err := findLink(p.root.nl, p.rootEnd())
		if err != nil {
			return err
		}
		if ours && outside != nil {
			return ready(p.edge.nl, inside, p.mtu)
		}
		if err := removeLink(p.edge.nl, dataplane.RootLink); err != nil {
			return err
		}
	}
	if err := addPairAs(p.edge.nl, dataplane.RootLink, p.mtu, p.rootEnd(), p.root, p.rootMAC()); err != nil {
		return err
	}
	return apply([]setting{{"ipv4/conf/" + p.rootEnd() + "/rp_filter", "1"}})
}

// warnStrangers says once that another firewall drops what is forwarded.
func (p *Plane) warnStrangers() {
	if p.warned {
		return
	}
	p.warned = true
	found, err := strangers()
	if err != nil {
		p.log.Warn("other firewalls of this machine can't be listed", "error", err)
	}
	for _, chain := range found {
		p.log.Warn("a firewall of this machine drops forwarded packets: clusters won't reach the outside until it lets them pass",
			"chain", chain, "interface", p.rootEnd())
	}
}

// finishEdge routes the public addresses to the networks and terminals that
// stand and own them, and everything else of the pools nowhere.
func (p *Plane) finishEdge(e *dataplane.EdgeRouter) error {
	if err := p.applyTerminals(e.Terminals); err != nil {
		return fmt.Errorf("edge: %w", err)
	}
	byName, err := links(p.edge.nl)
	if err != nil {
		return fmt.Errorf("edge: %w", err)
	}
	if err := syncRoutes(p.edge.nl, kernelRoutes(e.Routes, byName), 0); err != nil {
		return fmt.Errorf("edge: %w", err)
	}
	return nil
}
