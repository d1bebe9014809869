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

// route is one route of a namespace's main table.
type route struct {
	dst       netip.Prefix
	via       netip.Addr // on the link, whatever the link's own addresses are
	link      int
	src       netip.Addr
	blackhole bool
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

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
	k := &netlink.Route{Dst: toNet(r.dst), Protocol: routeProtocol, Table: unix.RT_TABLE_MAIN, Family: unix.AF_INET, LinkIndex: r.link}
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

func fromKernel(k *netlink.Route) route {
	r := route{dst: toPrefix(k.Dst), link: k.LinkIndex, blackhole: k.Type == unix.RTN_BLACKHOLE}
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

// syncRoutes makes the routes of ours exactly those wanted; with a link, only
// those of this link are looked at.
func syncRoutes(h *netlink.Handle, want []route, link int) error {
	filter, mask := &netlink.Route{Protocol: routeProtocol, Table: unix.RT_TABLE_MAIN, LinkIndex: link}, netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE
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
	wanted := make(map[netip.Prefix]bool, len(want))
	for _, r := range want {
		wanted[r.dst] = true
		if have[r] {
			delete(have, r)
			continue
		}
		if err := h.RouteReplace(r.kernel()); err != nil {
			return fmt.Errorf("route %s: %w", r.dst, err)
		}
	}
	for r := range have {
		if wanted[r.dst] {
			continue // replaced above
		}
		if err := h.RouteDel(r.kernel()); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("remove route %s: %w", r.dst, err)
		}
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
