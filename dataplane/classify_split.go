// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"encoding/binary"
	"hash/crc32"
	"math/bits"
	"net/netip"
	"slices"

	rs "bastide.dev/ruleset"
)

// bitset is a set of terms by their place.
type bitset []uint64

func (b bitset) flip(i int)     { b[i/64] ^= 1 << (i % 64) }
func (b bitset) has(i int) bool { return b[i/64]&(1<<(i%64)) != 0 }

func (b bitset) key() string {
	var text []byte
	for _, w := range b {
		text = binary.NativeEndian.AppendUint64(text, w)
	}
	return string(text)
}

func (b bitset) count() int {
	n := 0
	for _, w := range b {
		n += bits.OnesCount64(w)
	}
	return n
}

// part is a span of a dimension in which the same terms can match.
type part struct {
	span   rs.Range
	set    bitset
	coarse bool // terms are in it that match in some of it
}

// split is a way to divide terms by a dimension.
type split struct {
	dim   int
	parts []part
	any   bitset // terms without a condition in this dimension, or of the other family
	total int    // of terms in all different parts
	worst int    // of terms in one part
}

// edge is where a term begins or ends to match.
type edge struct {
	at   rs.Value
	term int
}

// divide cuts a dimension where terms begin and end. Address dimensions are
// divided in the family of the first term that has one.
func divide(terms []term, dim int) *split {
	s := &split{dim: dim, any: make(bitset, (len(terms)+63)/64)}
	var edges []edge
	width := 0
	for i := range terms {
		ranges := terms[i].dims[dim]
		if len(ranges) > 0 && width == 0 {
			width = 1 + ranges[0].From.Addr.BitLen()
		}
		if len(ranges) == 0 || width != 1+ranges[0].From.Addr.BitLen() {
			s.any.flip(i)
			continue
		}
		for _, r := range ranges {
			edges = append(edges, edge{r.From, i})
			if after, ok := following(r.Last()); ok {
				edges = append(edges, edge{after, i})
			}
		}
	}
	if len(edges) == 0 {
		return nil
	}
	slices.SortFunc(edges, func(a, b edge) int { return compareValues(a.at, b.at) })
	s.sweep(edges)
	return s
}

// sweep walks along the dimension and notes which terms are on.
func (s *split) sweep(edges []edge) {
	on := slices.Clone(s.any)
	none := s.any
	for i := 0; i < len(edges); {
		at := edges[i].at
		for ; i < len(edges) && edges[i].at == at; i++ {
			on.flip(edges[i].term)
		}
		end := highest(at)
		if i < len(edges) {
			end = preceding(edges[i].at)
		}
		if n := len(s.parts); n > 0 && slices.Equal(s.parts[n-1].set, on) && joined(s.parts[n-1].span, at) {
			s.parts[n-1].span = rs.Between(s.parts[n-1].span.From, end)
		} else if !slices.Equal(on, none) {
			s.parts = append(s.parts, part{span: rs.Between(at, end), set: slices.Clone(on)})
		}
	}
}

// measure counts what the split would write.
func (s *split) measure() {
	seen := map[string]bool{}
	s.total, s.worst = s.any.count(), s.any.count()
	for _, p := range s.parts {
		n := p.set.count()
		s.worst = max(s.worst, n)
		if key := p.set.key(); !seen[key] {
			seen[key] = true
			s.total += n
		}
	}
}

// coarsen joins neighbours two by two.
func (s *split) coarsen() *split {
	half := &split{dim: s.dim, any: s.any}
	for i := 0; i < len(s.parts); i += 2 {
		p := s.parts[i]
		if i+1 < len(s.parts) {
			p = p.join(s.parts[i+1])
		}
		half.parts = append(half.parts, p)
	}
	half.measure()
	return half
}

// join is a part from where p begins to where the other ends.
func (p part) join(other part) part {
	p.span, p.set, p.coarse = rs.Between(p.span.From, other.span.Last()), slices.Clone(p.set), true
	for w := range p.set {
		p.set[w] |= other.set[w]
	}
	return p
}

// pack joins neighbours that make a short list together: a chain costs more
// than a few rules. Where parts may end depends on the value alone, so that a
// new rule doesn't move the ends of all that come after it. shared are the
// terms that no part has to write.
func (s *split) pack(shared int) {
	var packed []part
	for _, p := range s.parts {
		if n := len(packed); n > 0 && !ends(p.span.From) {
			if joined := packed[n-1].join(p); joined.set.count()-shared <= leaf {
				packed[n-1] = joined
				continue
			}
		}
		packed = append(packed, p)
	}
	s.parts = packed
}

// ends tells whether a packed part ends before a value: at every fourth or so.
func ends(v rs.Value) bool {
	n := v.Number
	if v.Addr.IsValid() {
		raw := v.Addr.As16()
		n = crc32.ChecksumIEEE(raw[:])
	}
	return n*2654435761>>30 == 0 // Knuth's multiplicative hash
}

// pick are the terms of a part. In a fine one they match all of it.
func (s *split) pick(terms []term, p part) []term {
	var some []term
	for i := range terms {
		if !p.set.has(i) {
			continue
		}
		t := terms[i]
		if !p.coarse && !s.any.has(i) {
			t.dims[s.dim] = nil
		}
		some = append(some, t)
	}
	return some
}

// rest are the terms for what is in no part.
func (s *split) rest(terms []term) []term { return s.pick(terms, part{set: s.any}) }

func following(v rs.Value) (rs.Value, bool) {
	if v.Addr.IsValid() {
		next := v.Addr.Next()
		return rs.Addr(next), next.IsValid()
	}
	return rs.Value{Number: v.Number + 1}, true
}

func preceding(v rs.Value) rs.Value {
	if v.Addr.IsValid() {
		return rs.Addr(v.Addr.Prev())
	}
	return rs.Value{Number: v.Number - 1}
}

// highest is the last value of v's kind.
func highest(v rs.Value) rs.Value {
	if v.Addr.IsValid() {
		return rs.Prefix(netip.PrefixFrom(v.Addr, 0)).Last()
	}
	return rs.Number(65535)
}

// joined tells whether a span ends just before at.
func joined(span rs.Range, at rs.Value) bool {
	after, ok := following(span.Last())
	return ok && after == at
}
