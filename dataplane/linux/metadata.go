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
// closed; senders tells whose a connection is by its remote address.
type Metadata interface {
	Serve(l net.Listener, senders dataplane.Senders) error
}

// metadataServer is what answers in one network.
type metadataServer struct {
	listener net.Listener
	links    *netlink.Handle // the router's
	instance string
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
	s := &metadataServer{links: n.nl, instance: p.Instance, ended: make(chan struct{})}
	s.vnet.Store(v)
	err := within(n.ns, func() (err error) {
		s.listener, err = net.Listen("tcp4", at)
		return err
	})
	if err != nil {
		return fmt.Errorf("metadata server: %w", err)
	}
	go func() { // close waits for it
		defer close(s.ended)
		err := p.Metadata.Serve(s.listener, s)
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

// Sender is the network's, as it is applied now.
func (s *metadataServer) Sender(a netip.Addr) (dataplane.Sender, bool) {
	return s.vnet.Load().Sender(a.Unmap())
}

// MAC looks among the router's neighbours: it has just exchanged packets with the sender.
func (s *metadataServer) MAC(of dataplane.Sender) string {
	link, err := findLink(s.links, dataplane.NICLink(s.instance, of.NIC))
	if err != nil || link == nil {
		return "" // it goes away: the answer won't arrive
	}
	neighbours, err := s.links.NeighList(link.Attrs().Index, unix.AF_INET)
	if err != nil {
		return ""
	}
	for _, known := range neighbours {
		if toAddr(known.IP) == of.Address {
			return known.HardwareAddr.String()
		}
	}
	return ""
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
