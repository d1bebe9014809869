// SPDX-License-Identifier: Apache-2.0

// Package linux is the kernel's side of a node's policy agent: the table in
// nftables, and the connections that it is about. It works in the network
// namespace that it runs in; cmd/bastide-netpolicy hands it to netpolicy/agent.
package linux

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"bastide.dev/netpolicy"
	"bastide.dev/ruleset"
	firewall "bastide.dev/ruleset/linux"
)

// Kernel is an agent.Kernel.
type Kernel struct {
	*firewall.Firewall
}

// New adopts the table that is there. From now on the kernel takes no packet
// for a connection's part that didn't see it begin: else the answers of a
// connection that was cut would begin it anew, in the other direction.
func New() (*Kernel, error) {
	err := os.WriteFile("/proc/sys/net/netfilter/nf_conntrack_tcp_loose", []byte("0"), 0o644)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("strict connection tracking: %w", err)
	}
	f, err := firewall.New(nil, netpolicy.TableName)
	if err != nil {
		return nil, err
	}
	return &Kernel{f}, nil
}

// Cut implements agent.Kernel.
func (k *Kernel) Cut(refused func(hook ruleset.Hook, first ruleset.Packet) bool) (int, error) {
	own, err := ownAddresses()
	if err != nil {
		return 0, err
	}
	total := uint(0)
	for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		n, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, cutter{own, refused})
		total += n
		if err != nil {
			return int(total), fmt.Errorf("look through connections: %w", err)
		}
	}
	return int(total), nil
}

func ownAddresses() (map[netip.Addr]bool, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	own := map[netip.Addr]bool{}
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			own[p.Addr()] = true
		}
	}
	return own, nil
}

// cutter picks the connections to end.
type cutter struct {
	own     map[netip.Addr]bool
	refused func(hook ruleset.Hook, first ruleset.Packet) bool
}

// MatchConntrackFlow looks at a connection as the filter's hooks saw its first
// packet: the destination translated already, the source not yet. So who
// answers is the destination. The node's own connections met no hook of ours.
func (c cutter) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	from, ok := netip.AddrFromSlice(f.Forward.SrcIP)
	to, ok2 := netip.AddrFromSlice(f.Reverse.SrcIP)
	from, to = from.Unmap(), to.Unmap()
	if !ok || !ok2 || c.own[from] {
		return false
	}
	p := ruleset.Packet{Source: from, Destination: to, Protocol: f.Forward.Protocol}
	if ruleset.HasPorts(p.Protocol) {
		p.SourcePort, p.DestPort = f.Forward.SrcPort, f.Reverse.SrcPort
	}
	if c.own[to] {
		p.Local = true
		return c.refused(ruleset.Input, p)
	}
	return c.refused(ruleset.Forward, p)
}
