// SPDX-License-Identifier: Apache-2.0

package network

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"
)

// advance is the address n after a; false when the family has none.
func advance(a netip.Addr, n uint64) (netip.Addr, bool) {
	if a.Is4() {
		v := uint64(binary.BigEndian.Uint32(a.AsSlice())) + n
		if n > 1<<32 || v >= 1<<32 {
			return netip.Addr{}, false
		}
		return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, uint32(v)))), true
	}
	raw := a.As16()
	low, carry := bits.Add64(binary.BigEndian.Uint64(raw[8:]), n, 0)
	high, over := bits.Add64(binary.BigEndian.Uint64(raw[:8]), 0, carry)
	binary.BigEndian.PutUint64(raw[8:], low)
	binary.BigEndian.PutUint64(raw[:8], high)
	return netip.AddrFrom16(raw), over == 0
}

// last is a prefix's last address; an invalid prefix has none.
func last(p netip.Prefix) netip.Addr {
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

// span is a run of addresses, both ends included.
type span struct{ first, last netip.Addr }

func spanOf(p netip.Prefix) span { return span{p.Masked().Addr(), last(p)} }

// gap finds the lowest n addresses of within that none of taken has.
func gap(within span, taken []span, n uint64) (span, bool) {
	slices.SortFunc(taken, func(a, b span) int { return a.first.Compare(b.first) })
	at := within.first
	for _, t := range taken {
		if t.last.Less(at) {
			continue
		}
		if end, ok := advance(at, n-1); ok && end.Less(t.first) {
			break
		}
		if at = t.last.Next(); !at.IsValid() {
			return span{}, false
		}
	}
	end, ok := advance(at, n-1)
	if !ok || within.last.Less(end) {
		return span{}, false
	}
	return span{at, end}, true
}

// prefixes writes a span as the fewest prefixes that hold exactly it.
func (s span) prefixes() []netip.Prefix {
	var all []netip.Prefix
	for at := s.first; at.IsValid() && !s.last.Less(at); {
		length := at.BitLen()
		for length > 0 {
			wider := netip.PrefixFrom(at, length-1)
			if wider.Masked().Addr() != at || s.last.Less(last(wider)) {
				break
			}
			length--
		}
		p := netip.PrefixFrom(at, length)
		all = append(all, p)
		at = last(p).Next()
	}
	return all
}
