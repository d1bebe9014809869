// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"errors"
	"net"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

var addrNone netip.Addr

func dataplanePrefixes(texts ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, text := range texts {
		all = append(all, prefix(text))
	}
	return all
}

// newOutside makes a namespace beyond the machine, linked to it like a
// neighbour on its uplink: 198.51.100.2, the machine is 198.51.100.1.
func newOutside(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "outside")
	must(t, createNetns(path))
	t.Cleanup(func() { must(t, removeNetns(path)) })
	out, err := openSpace(path)
	must(t, err)
	root, err := openSpace(rootNS)
	must(t, err)
	const name = "dptest-outside"
	must(t, addPair(root.nl, name, 0, nicLink, out))
	t.Cleanup(func() { must(t, errors.Join(removeLink(root.nl, name), root.close(), out.close())) })
	setUp(t, root.nl, name, "198.51.100.1/30")
	link := setUp(t, out.nl, nicLink, "198.51.100.2/30")
	must(t, out.nl.RouteAdd(&netlink.Route{Gw: net.IPv4(198, 51, 100, 1), LinkIndex: link}))
	return path
}

func setUp(t *testing.T, h *netlink.Handle, name, address string) int {
	t.Helper()
	link, err := mustLink(h, name)
	must(t, err)
	must(t, syncAddresses(h, link, []netip.Prefix{prefix(address)}))
	must(t, ready(h, link, 0))
	return link.Attrs().Index
}

// addAddresses gives eth0 of a namespace further addresses.
func addAddresses(t *testing.T, path string, texts ...string) {
	t.Helper()
	s, err := openSpace(path)
	must(t, err)
	link, err := mustLink(s.nl, nicLink)
	must(t, err)
	for _, text := range texts {
		must(t, s.nl.AddrAdd(link, &netlink.Addr{IPNet: toNet(prefix(text))}))
	}
	must(t, s.close())
}

// arrived tells whether a packet from source, sent in one namespace, comes to
// a socket in another.
func arrived(t *testing.T, sender, source, receiver, at string) bool {
	t.Helper()
	var packets net.PacketConn
	visit(t, receiver, func() (err error) { packets, err = net.ListenPacket("udp4", at); return err })
	defer func() { must(t, packets.Close()) }()
	visit(t, sender, func() error {
		conn, err := (&net.Dialer{LocalAddr: &net.UDPAddr{IP: addr(source).AsSlice()}}).Dial("udp4", at)
		if err != nil {
			return err
		}
		_, err = conn.Write([]byte("?"))
		return errors.Join(err, conn.Close())
	})
	must(t, packets.SetReadDeadline(time.Now().Add(nothing)))
	_, from, err := packets.ReadFrom(make([]byte, 10))
	return err == nil && host(from) == source
}
