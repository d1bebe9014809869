// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
)

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
	must(t, addPair(root.nl, name, 0, firstLink, out))
	t.Cleanup(func() { must(t, errors.Join(removeLink(root.nl, name), root.close(), out.close())) })
	setUp(t, root.nl, name, "198.51.100.1/30")
	link := setUp(t, out.nl, firstLink, "198.51.100.2/30")
	must(t, carrying(root.nl, name))
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
	addTo(t, path, firstLink, texts...)
}

// addTo gives a link of a namespace further addresses.
func addTo(t *testing.T, path, name string, texts ...string) {
	t.Helper()
	s, err := openSpace(path)
	must(t, err)
	link, err := mustLink(s.nl, name)
	must(t, err)
	for _, text := range texts {
		must(t, s.nl.AddrReplace(link, &netlink.Addr{IPNet: toNet(prefix(text))}))
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

// snmp reads one of a namespace's own counters.
func snmp(t *testing.T, path, group, name string) uint64 {
	t.Helper()
	var text []byte
	visit(t, path, func() (err error) { text, err = os.ReadFile("/proc/thread-self/net/snmp"); return err })
	var names []string
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if words[0] != group {
			continue
		}
		if names == nil {
			names = words
			continue
		}
		value, err := strconv.ParseUint(words[slices.Index(names, name)], 10, 64)
		must(t, err)
		return value
	}
	t.Fatalf("no counter %s %s", group, name)
	return 0
}

// masqueradeAt makes a namespace translate what it forwards, as an appliance may.
func masqueradeAt(t *testing.T, path string) {
	t.Helper()
	visit(t, path, func() error {
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		table := conn.AddTable(&nftables.Table{Name: "appliance", Family: nftables.TableFamilyIPv4})
		chain := conn.AddChain(&nftables.Chain{Name: "post", Table: table, Type: nftables.ChainTypeNAT,
			Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource})
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{&expr.Masq{}}})
		return conn.Flush()
	})
}
