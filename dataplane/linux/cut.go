// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"fmt"
	"net/netip"
	"os"
	"reflect"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"bastide.dev/dataplane"
)

// scissors match the connections that a cut ends.
type scissors struct {
	dataplane.Cut
	allowed map[netip.Addr]bool // the single addresses among Allowed
	ranges  []netip.Prefix
}

func newScissors(c dataplane.Cut) *scissors {
	s := &scissors{Cut: c, allowed: map[netip.Addr]bool{}}
	for _, p := range c.Allowed {
		if p.IsSingleIP() {
			s.allowed[p.Addr()] = true
		} else {
			s.ranges = append(s.ranges, p)
		}
	}
	return s
}

// MatchConntrackFlow is called for every connection of the namespace.
func (s *scissors) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	if s.Port != 0 && flow.Forward.DstPort != s.Port || toAddr(flow.Forward.DstIP) != s.Destination {
		return false
	}
	source := toAddr(flow.Forward.SrcIP)
	if s.allowed[source] {
		return false
	}
	for _, p := range s.ranges {
		if p.Contains(source) {
			return false
		}
	}
	return true
}

// endings are what ends the connections that the cuts name.
func endings(cuts []dataplane.Cut) []netlink.CustomConntrackFilter {
	filters := make([]netlink.CustomConntrackFilter, len(cuts))
	for i, c := range cuts {
		filters[i] = newScissors(c)
	}
	return filters
}

// cut ends the connections that a filter matches. The rules that keep new ones
// away are there already, and the kernel takes no connection for known in its
// middle (nf_conntrack_tcp_loose), so what it forgot stays cut.
func cut(ns *os.File, filters []netlink.CustomConntrackFilter) (uint, error) {
	if len(filters) == 0 {
		return 0, nil
	}
	h, err := netlink.NewHandleAt(netns.NsHandle(ns.Fd()), unix.NETLINK_NETFILTER)
	if err != nil {
		return 0, fmt.Errorf("cut connections: %w", err)
	}
	defer h.Close()
	ended, err := h.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, filters...)
	if err != nil {
		return ended, fmt.Errorf("cut connections: %w", err)
	}
	return ended, nil
}

// strays match connections that were translated to or from a public address
// that the network doesn't have any more: they lead nowhere, and as long as
// someone sends, the kernel would go on translating.
type strays struct {
	pools []netip.Prefix
	own   map[netip.Addr]bool
}

// MatchConntrackFlow is called for every connection of the namespace.
func (s *strays) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	to, from := toAddr(flow.Forward.DstIP), toAddr(flow.Reverse.DstIP)
	return from != toAddr(flow.Forward.SrcIP) && s.lost(from) || to != toAddr(flow.Reverse.SrcIP) && s.lost(to)
}

func (s *strays) lost(a netip.Addr) bool {
	if s.own[a] {
		return false
	}
	for _, p := range s.pools {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// newCuts are those of now that weren't there before, or were another.
func newCuts(before, now []dataplane.Cut) []dataplane.Cut {
	type place struct {
		destination netip.Addr
		port        uint16
	}
	known := map[place]dataplane.Cut{}
	for _, c := range before {
		known[place{c.Destination, c.Port}] = c
	}
	var changed []dataplane.Cut
	for _, c := range now {
		if old, same := known[place{c.Destination, c.Port}]; !same || !reflect.DeepEqual(old, c) {
			changed = append(changed, c)
		}
	}
	return changed
}
