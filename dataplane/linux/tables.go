// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"net/netip"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"bastide.dev/dataplane"
)

// The names of links that stand alone in their namespace.
const (
	edgeLink = "edge" // in a router: to the edge
	rootLink = "root" // in the edge: to the machine
	nicLink  = "eth0" // in a NIC's namespace
	loopback = "lo"
)

// unrouted are the ranges that mean nothing outside a virtual network. As on
// Azure, what is sent there without a network that has it, goes nowhere: not
// to another network, not to the machine's own surroundings.
func unrouted() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"),
		netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("168.63.129.16/32"), netip.MustParsePrefix("169.254.0.0/16"),
		netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("224.0.0.0/3"),
	}
}

// table is the compiled form of one of our nftables tables: what differs
// between two of the same kind, and how to write it.
type table interface {
	write(*writer)
}

// rootTable is ours in the machine's own namespace.
type rootTable struct {
	Link      string
	Pools     []netip.Prefix
	FrontDoor netip.Addr
}

func (t rootTable) write(w *writer) {
	private := w.set("unrouted", unrouted())
	input := w.filter("input", nftables.ChainHookInput, nftables.ChainPolicyAccept)
	w.rule(input, iif(t.Link), known(), accept())
	w.rule(input, iif(t.Link), to(single(t.FrontDoor)), dport(unix.IPPROTO_TCP, dataplane.FrontDoorPort), accept())
	w.rule(input, iif(t.Link), to(single(t.FrontDoor)), ping(), accept())
	w.rule(input, iif(t.Link), drop())

	post := w.nat("postrouting", nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	// A private client's address could be one of a virtual network's too.
	w.rule(post, oif(t.Link), fromSet(private), masquerade())
	for _, pool := range t.Pools {
		w.rule(post, notOif(t.Link), notOif(loopback), from(pool), masquerade())
	}
}

// edgeTable is the edge's: no connection tracking, so that it costs little.
type edgeTable struct{}

func (edgeTable) write(w *writer) {
	private := w.set("unrouted", unrouted())
	w.filter("input", nftables.ChainHookInput, nftables.ChainPolicyDrop)
	forward := w.filter("forward", nftables.ChainHookForward, nftables.ChainPolicyAccept)
	w.rule(forward, toSet(private), drop())
	w.rule(forward, fromSet(private), drop())
	w.rule(forward, spoofed(), drop())
}

// vnetTable is a router's.
type vnetTable struct {
	Egress netip.Addr
	Public []dataplane.Public
}

func (t vnetTable) write(w *writer) {
	t.filter(w)
	pre := w.nat("prerouting", nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest)
	post := w.nat("postrouting", nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	for _, p := range t.Public {
		w.rule(pre, to(single(p.Address)), dport(unix.IPPROTO_TCP, p.Port), dnat(p.Target, p.TPort))
		// A target that calls its own public address would see itself as the
		// client, and drop that.
		w.rule(post, from(single(p.Target)), to(single(p.Target)), dnatted(), snat(p.Address))
	}
	if t.Egress.IsValid() {
		w.rule(post, oif(edgeLink), ipv4(), snat(t.Egress))
	}
}

func (t vnetTable) filter(w *writer) {
	input := w.filter("input", nftables.ChainHookInput, nftables.ChainPolicyDrop)
	w.rule(input, known(), accept())
	w.rule(input, iif(edgeLink), drop())
	w.rule(input, to(single(dataplane.WireServer)), dport(unix.IPPROTO_UDP, dnsPort), accept())
	w.rule(input, to(single(dataplane.WireServer)), dport(unix.IPPROTO_TCP, dnsPort), accept())
	w.rule(input, ping(), accept())

	forward := w.filter("forward", nftables.ChainHookForward, nftables.ChainPolicyAccept)
	w.rule(forward, known(), accept())
	w.rule(forward, invalid(), drop())
	w.rule(forward, iif(edgeLink), dnatted(), accept())
	w.rule(forward, iif(edgeLink), drop())
	if !t.Egress.IsValid() {
		w.rule(forward, oif(edgeLink), drop())
	}
}
