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

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"bastide.dev/netpolicy"
	"bastide.dev/ruleset"
	firewall "bastide.dev/ruleset/linux"
)

// Kernel is an agent.Kernel.
type Kernel struct {
	*firewall.Firewall
	old string // the table of who kept it before; "" when it is gone
}

// tables are the names that agents take in turns: while the next one's first
// table comes, what the last one left holds, too.
var tables = [2]string{netpolicy.TableName + "-0", netpolicy.TableName + "-1"}

// New adopts the table that is there. From now on the kernel takes no packet
// for a connection's part that didn't see it begin: else the answers of a
// connection that was cut would begin it anew, in the other direction.
func New() (*Kernel, error) {
	err := os.WriteFile("/proc/sys/net/netfilter/nf_conntrack_tcp_loose", []byte("0"), 0o644)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("strict connection tracking: %w", err)
	}
	have, err := present()
	if err != nil {
		return nil, err
	}
	k := &Kernel{}
	name := tables[0]
	switch {
	case have[tables[1]]: // -0, too, when its agent died before it had removed the older one
		k.old = tables[1]
	case have[tables[0]]:
		name, k.old = tables[1], tables[0]
	}
	if k.Firewall, err = firewall.New(nil, name); err != nil {
		return nil, err
	}
	return k, nil
}

func present() (map[string]bool, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	all, err := conn.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	have := map[string]bool{}
	for _, t := range all {
		have[t.Name] = true
	}
	return have, nil
}

// Put implements agent.Kernel.
func (k *Kernel) Put(table ruleset.Table) error {
	if err := k.Firewall.Put(table); err != nil || k.old == "" {
		return err
	}
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	conn.DelTable(&nftables.Table{Name: k.old, Family: nftables.TableFamilyINet})
	if err := conn.Flush(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the table of the agent before: %w", err)
	}
	k.old = ""
	return nil
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
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) { // what it missed is new, and looked at again
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
