// SPDX-License-Identifier: Apache-2.0

package network

import (
	"encoding/binary"
	"math"
	"math/bits"
	"net/netip"
	"slices"
)

// span is a run of addresses of one family, both ends included.
type span struct{ first, last netip.Addr }

func spanOf(p netip.Prefix) span { return span{p.Masked().Addr(), lastOf(p)} }

func single(a netip.Addr) span { return span{a, a} }

func (s span) contains(a netip.Addr) bool {
	return s.first.BitLen() == a.BitLen() && !a.Less(s.first) && !s.last.Less(a)
}

// size is how many addresses a span has, up to what a uint64 holds.
func (s span) size() uint64 {
	if !s.first.IsValid() || s.last.Less(s.first) {
		return 0
	}
	a, b := s.first.As16(), s.last.As16()
	low, borrow := bits.Sub64(binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint64(a[8:]), 0)
	high, _ := bits.Sub64(binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(a[:8]), borrow)
	if high > 0 || low == math.MaxUint64 {
		return math.MaxUint64
	}
	return low + 1
}

// advance is the address n after a; false when the family has none.
func advance(a netip.Addr, n uint64) (netip.Addr, bool) {
	if a.Is4() {
		raw := a.As4()
		v := uint64(binary.BigEndian.Uint32(raw[:])) + n
		if n > math.MaxUint32 || v > math.MaxUint32 {
			return netip.Addr{}, false
		}
		binary.BigEndian.PutUint32(raw[:], uint32(v))
		return netip.AddrFrom4(raw), true
	}
	raw := a.As16()
	low, carry := bits.Add64(binary.BigEndian.Uint64(raw[8:]), n, 0)
	high, over := bits.Add64(binary.BigEndian.Uint64(raw[:8]), 0, carry)
	binary.BigEndian.PutUint64(raw[8:], low)
	binary.BigEndian.PutUint64(raw[:8], high)
	return netip.AddrFrom16(raw), over == 0
}

// lastOf is a prefix's last address; an invalid prefix has none.
func lastOf(p netip.Prefix) netip.Addr {
	if !p.IsValid() {
		return netip.Addr{}
	}
	raw := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(raw)*8; i++ {
		raw[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(raw)
	return a
}

// without is what is left of whole when taken is cut out, in order.
func without(whole []span, taken []span) []span {
	taken = slices.Clone(taken)
	slices.SortFunc(taken, func(a, b span) int { return a.first.Compare(b.first) })
	var left []span
	for _, w := range whole {
		at := w.first
		for _, t := range taken {
			if t.first.BitLen() != at.BitLen() || t.last.Less(at) {
				continue
			}
			if w.last.Less(t.first) {
				break
			}
			if at.Less(t.first) {
				left = append(left, span{at, t.first.Prev()})
			}
			if at = t.last.Next(); !at.IsValid() || w.last.Less(at) {
				at = netip.Addr{}
				break
			}
		}
		if at.IsValid() {
			left = append(left, span{at, w.last})
		}
	}
	return left
}

// prefixes writes a span as the fewest prefixes that hold exactly it.
func (s span) prefixes() []netip.Prefix {
	var all []netip.Prefix
	for at := s.first; at.IsValid() && !s.last.Less(at); {
		length := at.BitLen()
		for length > 0 {
			wider := netip.PrefixFrom(at, length-1)
			if wider.Masked().Addr() != at || s.last.Less(lastOf(wider)) {
				break
			}
			length--
		}
		p := netip.PrefixFrom(at, length)
		all = append(all, p)
		at = lastOf(p).Next()
	}
	return all
}

// merged are prefixes in order, without those that others hold and with
// neighbours as one.
func merged(all []netip.Prefix) []netip.Prefix {
	spans := make([]span, 0, len(all))
	for _, p := range all {
		if p.IsValid() {
			spans = append(spans, spanOf(p))
		}
	}
	slices.SortFunc(spans, func(a, b span) int { return a.first.Compare(b.first) })
	var joined []span
	for _, s := range spans {
		if n := len(joined) - 1; n >= 0 && joined[n].first.BitLen() == s.first.BitLen() {
			if next := joined[n].last.Next(); !next.IsValid() || !next.Less(s.first) {
				if joined[n].last.Less(s.last) {
					joined[n].last = s.last
				}
				continue
			}
		}
		joined = append(joined, s)
	}
	var out []netip.Prefix
	for _, s := range joined {
		out = append(out, s.prefixes()...)
	}
	return out
}
