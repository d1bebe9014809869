// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"bastide.dev/dataplane"
	kernel "bastide.dev/ruleset/linux"
)

// Metadata answers at the metadata address of a network until its listener is
// closed. sender tells whose a connection is by its remote address, from the
// same configuration that the network's source checks are made of; it is safe
// for concurrent use.
type Metadata interface {
	Serve(l net.Listener, sender func(netip.Addr) (dataplane.Sender, bool)) error
}

// metadataServer is what answers in one network.
type metadataServer struct {
	listener net.Listener
	vnet     atomic.Pointer[dataplane.VNet]
	ended    chan struct{}
}

// serveMetadata starts the network's metadata server, or gives it what changed.
// One that ended by itself is started anew.
func (p *Plane) serveMetadata(v *dataplane.VNet, n *vnet) error {
	if p.Metadata == nil {
		return nil
	}
	if n.metadata != nil {
		n.metadata.vnet.Store(v)
		select {
		case <-n.metadata.ended:
		default:
			return nil
		}
		n.metadata = nil
	}
	at := net.JoinHostPort(dataplane.MetadataAddress.String(), strconv.Itoa(dataplane.MetadataPort))
	s := &metadataServer{ended: make(chan struct{})}
	s.vnet.Store(v)
	err := within(n.ns, func() (err error) {
		s.listener, err = net.Listen("tcp4", at)
		return err
	})
	if err != nil {
		return fmt.Errorf("metadata server: %w", err)
	}
	links := n.nl
	go func() { // close waits for it
		defer close(s.ended)
		err := p.Metadata.Serve(s.listener, func(a netip.Addr) (dataplane.Sender, bool) { return s.sender(links, p.Instance, a) })
		if err != nil && !errors.Is(err, net.ErrClosed) {
			p.log.Error("a metadata server ended", "vnet", v.ID, "error", err)
		}
	}()
	n.metadata = s
	return nil
}

func (s *metadataServer) close() error {
	err := s.listener.Close()
	<-s.ended
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// sender is the network's, with the hardware address that the router knows: it
// has just exchanged packets with it.
func (s *metadataServer) sender(h *netlink.Handle, instance string, a netip.Addr) (dataplane.Sender, bool) {
	found, ok := s.vnet.Load().Sender(a.Unmap())
	if !ok {
		return found, false
	}
	link, err := findLink(h, dataplane.NICLink(instance, found.NIC))
	if err != nil || link == nil {
		return found, true // it goes away: the answer won't arrive
	}
	neighbours, err := h.NeighList(link.Attrs().Index, unix.AF_INET)
	if err != nil {
		return found, true
	}
	for _, known := range neighbours {
		if toAddr(known.IP) == found.Address {
			found.MAC = known.HardwareAddr.String()
		}
	}
	return found, true
}

// bound keeps what a machine forwards in the bounds that its interface has, in
// the machine's own namespace. It does nothing where that is so already.
func (p *Plane) bound(c *nic, n *vnet, ns *os.File) error {
	at := n.places[c.ID]
	if c.Machine == "" || at.bounded == boundsOf(c) {
		return nil
	}
	fw, err := kernel.New(ns, dataplane.MachineTable)
	if err != nil {
		return err
	}
	if c.NoMetadata {
		err = fw.Put(c.CompileMachine())
	} else {
		err = fw.Remove()
	}
	if err = errors.Join(err, fw.Close()); err == nil {
		at.bounded = boundsOf(c)
	}
	return err
}

// bounds are those that a machine's namespace was seen with.
type bounds uint8

const (
	unknownBounds bounds = iota
	noBounds
	noMetadata
)

func boundsOf(c *nic) bounds {
	if c.NoMetadata {
		return noMetadata
	}
	return noBounds
}
