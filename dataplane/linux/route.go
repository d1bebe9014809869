// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// routeProtocol marks the routes that are ours; no routing daemon has this number.
const routeProtocol = 177

// route is one route of a namespace. Its fields are all that tells it from
// another one: routes are compared as values.
type route struct {
	table     int // 0 is the main one
	dst       netip.Prefix
	via       netip.Addr // on the link, whatever the link's own addresses are
	link      int
	src       netip.Addr
	blackhole bool
}

// slot is what there can be one route for.
type slot struct {
	table int
	dst   netip.Prefix
}

func (r route) slot() slot { return slot{r.table, r.dst} }

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

func singles(addresses []netip.Addr) []netip.Prefix {
	prefixes := make([]netip.Prefix, len(addresses))
	for i, a := range addresses {
		prefixes[i] = single(a)
	}
	return prefixes
}

func toNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func toAddr(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

func toPrefix(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(toAddr(n.IP), ones)
}

func (r route) kernel() *netlink.Route {
	k := &netlink.Route{Dst: toNet(r.dst), Protocol: routeProtocol, Table: kernelTable(r.table), Family: unix.AF_INET, LinkIndex: r.link}
	switch {
	case r.blackhole:
		k.Type, k.LinkIndex = unix.RTN_BLACKHOLE, 0
	case r.via.IsValid():
		k.Gw, k.Flags = r.via.AsSlice(), int(netlink.FLAG_ONLINK)
	default:
		k.Scope = netlink.SCOPE_LINK
	}
	if r.src.IsValid() {
		k.Src = r.src.AsSlice()
	}
	return k
}

// kernelTable is the kernel's number of a table; ours has 0 for the main one.
func kernelTable(table int) int {
	if table == 0 {
		return unix.RT_TABLE_MAIN
	}
	return table
}

func ourTable(table int) int {
	if table == unix.RT_TABLE_MAIN {
		return 0
	}
	return table
}

func fromKernel(k *netlink.Route) route {
	r := route{table: ourTable(k.Table), dst: toPrefix(k.Dst), link: k.LinkIndex, blackhole: k.Type == unix.RTN_BLACKHOLE}
	if k.Gw != nil {
		r.via = toAddr(k.Gw)
	}
	if k.Src != nil {
		r.src = toAddr(k.Src)
	}
	if r.blackhole {
		r.link = 0
	}
	return r
}

// syncRoutes makes the routes of ours, in all tables, exactly those wanted;
// with a link, only those of this link are looked at.
func syncRoutes(h *netlink.Handle, want []route, link int) error {
	filter := &netlink.Route{Protocol: routeProtocol, Table: unix.RT_TABLE_UNSPEC, LinkIndex: link}
	mask := netlink.RT_FILTER_PROTOCOL | netlink.RT_FILTER_TABLE
	if link != 0 {
		mask |= netlink.RT_FILTER_OIF
	}
	listed, err := h.RouteListFiltered(unix.AF_INET, filter, mask)
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	have := make(map[route]bool, len(listed))
	for i := range listed {
		have[fromKernel(&listed[i])] = true
	}
	wanted := make(map[slot]bool, len(want))
	for _, r := range want {
		wanted[r.slot()] = true
		if have[r] {
			delete(have, r)
			continue
		}
		if err := h.RouteReplace(r.kernel()); err != nil {
			return fmt.Errorf("route %s: %w", r.dst, err)
		}
	}
	for r := range have {
		if wanted[r.slot()] {
			continue // replaced above
		}
		if err := h.RouteDel(r.kernel()); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("remove route %s: %w", r.dst, err)
		}
	}
	return nil
}

// dedupe keeps the last route of each slot: a pool of one address is the
// address's own route.
func dedupe(routes []route) []route {
	at := map[slot]int{}
	var kept []route
	for _, r := range routes {
		if i, seen := at[r.slot()]; seen {
			kept[i] = r
			continue
		}
		at[r.slot()] = len(kept)
		kept = append(kept, r)
	}
	return kept
}

// selector is one of our routing rules: which packets ask which table.
type selector struct {
	priority   int
	mark, mask uint32
	from       netip.Prefix // in place of a mark
	table      int
}

func (s selector) kernel() *netlink.Rule {
	k := netlink.NewRule()
	k.Family, k.Protocol, k.Priority, k.Table = unix.AF_INET, routeProtocol, s.priority, kernelTable(s.table)
	if s.from.IsValid() {
		k.Src = toNet(s.from)
	} else {
		k.Mark, k.Mask = s.mark, &s.mask
	}
	return k
}

func fromRule(k *netlink.Rule) selector {
	s := selector{priority: k.Priority, table: ourTable(k.Table)}
	if k.Src != nil {
		s.from = toPrefix(k.Src)
	} else if s.mark = k.Mark; k.Mask != nil {
		s.mask = *k.Mask
	}
	return s
}

// ourRules lists the routing rules that are ours.
func ourRules(h *netlink.Handle) (map[selector]bool, error) {
	listed, err := h.RuleList(unix.AF_INET)
	if err != nil {
		return nil, fmt.Errorf("list routing rules: %w", err)
	}
	have := map[selector]bool{}
	for i := range listed {
		if listed[i].Protocol == routeProtocol {
			have[fromRule(&listed[i])] = true
		}
	}
	return have, nil
}

// syncSelectors makes our routing rules exactly those wanted.
func syncSelectors(h *netlink.Handle, want []selector) error {
	have, err := ourRules(h)
	if err != nil {
		return err
	}
	for _, s := range want {
		if have[s] {
			delete(have, s)
			continue
		}
		if err := h.RuleAdd(s.kernel()); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("routing rule %d: %w", s.priority, err)
		}
	}
	for s := range have {
		if err := removeSelector(h, s); err != nil {
			return err
		}
	}
	return nil
}

func removeSelector(h *netlink.Handle, s selector) error {
	if err := h.RuleDel(s.kernel()); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove routing rule %d: %w", s.priority, err)
	}
	return nil
}

// syncAddresses makes a link's IPv4 addresses exactly those wanted; addresses
// of loopback stay.
func syncAddresses(h *netlink.Handle, link netlink.Link, want []netip.Prefix) error {
	listed, err := h.AddrList(link, unix.AF_INET)
	if err != nil {
		return fmt.Errorf("list addresses of %s: %w", link.Attrs().Name, err)
	}
	have := map[netip.Prefix]bool{}
	for _, a := range listed {
		if p := toPrefix(a.IPNet); !p.Addr().IsLoopback() {
			have[p] = true
		}
	}
	for _, p := range want {
		if have[p] {
			delete(have, p)
			continue
		}
		if err := h.AddrAdd(link, &netlink.Addr{IPNet: toNet(p)}); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("address %s on %s: %w", p, link.Attrs().Name, err)
		}
	}
	for p := range have {
		if err := h.AddrDel(link, &netlink.Addr{IPNet: toNet(p)}); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("remove address %s of %s: %w", p, link.Attrs().Name, err)
		}
	}
	return nil
}
