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

// cut ends the connections that the cuts name. The rules that keep new ones
// away are there already, and the kernel takes no connection for known in its
// middle (nf_conntrack_tcp_loose), so what it forgot stays cut.
func cut(ns *os.File, cuts []dataplane.Cut) (uint, error) {
	if len(cuts) == 0 {
		return 0, nil
	}
	h, err := netlink.NewHandleAt(netns.NsHandle(ns.Fd()), unix.NETLINK_NETFILTER)
	if err != nil {
		return 0, fmt.Errorf("cut connections: %w", err)
	}
	defer h.Close()
	filters := make([]netlink.CustomConntrackFilter, len(cuts))
	for i, c := range cuts {
		filters[i] = newScissors(c)
	}
	ended, err := h.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, filters...)
	if err != nil {
		return ended, fmt.Errorf("cut connections: %w", err)
	}
	return ended, nil
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
