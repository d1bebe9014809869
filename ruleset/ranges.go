// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"cmp"
	"net/netip"
	"slices"
)

// AllIPv4 and AllPorts are every address of IPv4 and every port.
var (
	AllIPv4  = Between(Addr(netip.AddrFrom4([4]byte{})), Addr(netip.AddrFrom4([4]byte{255, 255, 255, 255})))
	AllPorts = Between(Number(0), Number(65535))
)

// Addr is an address as a value.
func Addr(a netip.Addr) Value { return Value{Addr: a} }

// Name is a link's name as a value.
func Name(s string) Value { return Value{Name: s} }

// Number is a number as a value.
func Number[N ~uint8 | ~uint16 | ~uint32 | ~int](n N) Value { return Value{Number: uint32(n)} }

// Only is the range of one value.
func Only(v Value) Range { return Range{From: v} }

// Between is the range from a to b, both included.
func Between(a, b Value) Range {
	if a == b {
		return Only(a)
	}
	return Range{From: a, To: b}
}

// Ports is the range of ports from first to last; a zero last is first alone.
func Ports(first, last uint16) Range {
	return Between(Number(first), Number(max(first, last)))
}

// Prefix is the range of a prefix's addresses.
func Prefix(p netip.Prefix) Range {
	first := p.Masked().Addr()
	last := first.AsSlice()
	for i := p.Bits(); i < len(last)*8; i++ {
		last[i/8] |= 1 << (7 - i%8)
	}
	end, _ := netip.AddrFromSlice(last)
	return Between(Addr(first), Addr(end))
}

// Last is the range's end.
func (r Range) Last() Value {
	if r.To == (Value{}) {
		return r.From
	}
	return r.To
}

// Contains tells whether v is in the range.
func (r Range) Contains(v Value) bool {
	return sameKind(r.From, v) && r.From.compare(v) <= 0 && v.compare(r.Last()) <= 0
}

// Overlaps tells whether the ranges have a value in common.
func (r Range) Overlaps(other Range) bool {
	return sameKind(r.From, other.From) && r.From.compare(other.Last()) <= 0 && other.From.compare(r.Last()) <= 0
}

// sameKind tells whether values can be compared: IPv4 and IPv6 can't.
func sameKind(a, b Value) bool { return a.Addr.BitLen() == b.Addr.BitLen() }

func (v Value) compare(other Value) int {
	return cmp.Or(v.Addr.Compare(other.Addr), cmp.Compare(v.Name, other.Name), cmp.Compare(v.Number, other.Number))
}

// next is the value after v; there is none after the last one, nor for names.
func (v Value) next() (Value, bool) {
	switch {
	case v.Addr.IsValid():
		after := v.Addr.Next()
		return Value{Addr: after}, after.IsValid()
	case v.Name != "" || v.Number == 1<<32-1:
		return Value{}, false
	}
	return Value{Number: v.Number + 1}, true
}

func (v Value) previous() Value {
	if v.Addr.IsValid() {
		return Value{Addr: v.Addr.Prev()}
	}
	return Value{Number: v.Number - 1}
}

// Merge sorts ranges and joins those that overlap or touch.
func Merge(ranges []Range) []Range {
	sorted := slices.Clone(ranges)
	slices.SortFunc(sorted, func(a, b Range) int { return cmp.Or(a.From.compare(b.From), a.Last().compare(b.Last())) })
	var merged []Range
	for _, r := range sorted {
		if n := len(merged) - 1; n >= 0 && sameKind(merged[n].From, r.From) && joins(merged[n].Last(), r.From) {
			if merged[n].Last().compare(r.Last()) < 0 {
				merged[n] = Between(merged[n].From, r.Last())
			}
			continue
		}
		merged = append(merged, Between(r.From, r.Last()))
	}
	return merged
}

// joins tells whether a range that begins at from adds to one that ends at last.
func joins(last, from Value) bool {
	after, ok := last.next()
	return from.compare(last) <= 0 || ok && from.compare(after) == 0
}

// Without is what is left of ranges when others are taken away.
func Without(ranges, others []Range) []Range {
	left := Merge(ranges)
	for _, o := range Merge(others) {
		var rest []Range
		for _, r := range left {
			if !r.Overlaps(o) {
				rest = append(rest, r)
				continue
			}
			if r.From.compare(o.From) < 0 {
				rest = append(rest, Between(r.From, o.From.previous()))
			}
			if o.Last().compare(r.Last()) < 0 {
				after, _ := o.Last().next()
				rest = append(rest, Between(after, r.Last()))
			}
		}
		left = rest
	}
	return left
}

// Addresses are the merged ranges of prefixes.
func Addresses(prefixes []netip.Prefix) []Range {
	ranges := make([]Range, len(prefixes))
	for i, p := range prefixes {
		ranges[i] = Prefix(p)
	}
	return Merge(ranges)
}

// Prefixes are the elements of a set of addresses.
func Prefixes(prefixes ...netip.Prefix) [][]Range { return Elements(Addresses(prefixes)...) }

// Elements are keys of one field.
func Elements(ranges ...Range) [][]Range {
	keys := make([][]Range, len(ranges))
	for i, r := range ranges {
		keys[i] = []Range{r}
	}
	return keys
}

// Product is every key with one range of each field. No field has none.
func Product(fields ...[]Range) [][]Range {
	keys := [][]Range{nil}
	for _, ranges := range fields {
		var longer [][]Range
		for _, k := range keys {
			for _, r := range ranges {
				longer = append(longer, append(slices.Clip(k), r))
			}
		}
		keys = longer
	}
	return keys
}

// Cover is the shortest list of prefixes with exactly the addresses of a range.
func Cover(r Range) []netip.Prefix {
	var cover []netip.Prefix
	last := r.Last().Addr
	for at := r.From.Addr; at.IsValid() && at.Compare(last) <= 0; {
		var p netip.Prefix
		var end netip.Addr
		for bits := 0; bits <= at.BitLen(); bits++ {
			p = netip.PrefixFrom(at, bits)
			end = Prefix(p).Last().Addr
			if p.Masked().Addr() == at && end.Compare(last) <= 0 {
				break
			}
		}
		cover = append(cover, p)
		at = end.Next()
	}
	return cover
}
