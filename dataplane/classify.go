// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/bits"
	"net/netip"
	"slices"

	rs "bastide.dev/ruleset"
)

// Bounds of a classifier.
const (
	leaf   = 8   // rules that are asked one after another
	spread = 16  // how many times a rule may be written, on average
	spare  = 256 // and so many more, for small groups
	deep   = 8   // chains below a group's first; the kernel follows 16 in all
)

// classifier writes a list of terms, of which the first that matches decides,
// as chains in which a packet meets few of them: a map from ports or addresses
// leads to the chain of those terms that can match there. Chains have their
// content's name, so that a change touches those that differ, and equal ones
// are there once. What comes after the last term that a split is about (a
// group's default rules, mostly) isn't written into each part: all parts go on
// to one chain that has it.
type classifier struct {
	table  *tableWriter
	origin string
	budget int // terms that may still be written beyond the list itself
	depth  int
}

// node writes terms as the chain name; what none of them matches goes on to the
// chain then, or is dropped.
func (c *classifier) node(name string, terms []term, then string) {
	c.depth++
	defer func() { c.depth-- }()
	terms = reachable(terms)
	chain := c.table.chain(name)
	if len(terms) <= leaf || c.depth >= deep {
		c.list(chain, terms, then)
		return
	}
	if protocols := c.protocols(terms); protocols != nil {
		c.byProtocol(chain, terms, then, protocols)
		return
	}
	best := c.best(terms)
	if best == nil {
		c.list(chain, terms, then)
		return
	}
	c.budget -= best.total
	all := len(terms)
	terms, then = c.tail(name, terms, then, best.dim)
	best.pack(all - len(terms))
	m := rs.Map{Name: name + "-" + string(dimFields[best.dim]), Kind: rs.ToVerdict, Fields: fields(dimFields[best.dim])}
	for _, part := range best.parts {
		m.Elements = append(m.Elements, rs.MapElement{Key: []rs.Range{part.span}, Verdict: goTo(c.child(best.pick(terms, part), then))})
	}
	c.table.mapping(m)
	chain.Rules = []rs.Rule{
		{Actions: []rs.Action{dispatch(m.Name, m.Fields...)}},
		rule("", goTo(c.child(best.rest(terms), then))),
	}
}

// tail writes the terms after the last one with a condition in a dimension as a
// chain of their own, and returns the others and that chain.
func (c *classifier) tail(name string, terms []term, then string, dim int) ([]term, string) {
	n := len(terms)
	for n > 0 && terms[n-1].dims[dim] == nil {
		n--
	}
	if len(terms)-n < 2 {
		return terms, then // a jump costs as much
	}
	c.node(name+"-tail", terms[n:], then)
	return terms[:n], name + "-tail"
}

// child writes terms as a chain named by their content.
func (c *classifier) child(terms []term, then string) string {
	terms = reachable(terms)
	if len(terms) == 0 && then != "" {
		return then
	}
	var text []byte
	for i := range terms {
		text = terms[i].text(text)
	}
	name := contentName("rules", c.origin, string(text), then)
	if !c.table.has(name) {
		c.node(name, terms, then)
	}
	return name
}

// reachable leaves out what comes after a term that matches everything.
func reachable(terms []term) []term {
	for i := range terms {
		if terms[i].all() {
			return terms[:i+1]
		}
	}
	return terms
}

// text appends all that a term is.
func (t *term) text(to []byte) []byte {
	to = fmt.Appendf(to, "%s %t %t", t.origin, t.allow, t.log)
	for _, ranges := range t.dims {
		to = appendRanges(append(to, ';'), ranges)
	}
	return append(to, '\n')
}

func (t *term) all() bool {
	for _, d := range t.dims {
		if d != nil {
			return false
		}
	}
	return true
}

// list writes terms one after another. What none of them is about, and no chain
// after them, is dropped: a group's last default rule says so, too.
func (c *classifier) list(chain *rs.Chain, terms []term, then string) {
	for i := range terms {
		for _, dims := range terms[i].variants() {
			chain.Rules = append(chain.Rules, c.rule(&terms[i], dims))
		}
	}
	switch n := len(terms); {
	case n > 0 && terms[n-1].all():
	case then != "":
		chain.Rules = append(chain.Rules, rule("", goTo(then)))
	default:
		chain.Rules = append(chain.Rules, rule(c.origin, drop))
	}
}

// rule is a term's, for one of its variants.
func (c *classifier) rule(t *term, dims [dimensions][]rs.Range) rs.Rule {
	r := rs.Rule{Origin: t.origin, Count: true}
	for dim, ranges := range dims {
		if ranges != nil {
			r.Matches = append(r.Matches, c.table.among(dimFields[dim], ranges))
		}
	}
	if t.log {
		r.Actions = append(r.Actions, rs.Action{Verb: rs.Log, Group: FlowLogGroup})
	}
	verdict := drop
	if t.allow {
		verdict = back
	}
	r.Actions = append(r.Actions, verdict)
	return r
}

// variants are a term with one range in each dimension, when that makes few: a
// set of two or three costs the kernel more than as many rules.
func (t *term) variants() [][dimensions][]rs.Range {
	const few = 3
	n := 1
	for _, ranges := range t.dims {
		n *= max(1, len(ranges))
		if n > few {
			return [][dimensions][]rs.Range{t.dims}
		}
	}
	all := [][dimensions][]rs.Range{t.dims}
	for dim, ranges := range t.dims {
		var more [][dimensions][]rs.Range
		for _, v := range all {
			for i := range ranges {
				v[dim] = ranges[i : i+1]
				more = append(more, v)
			}
		}
		if len(ranges) > 1 {
			all = more
		}
	}
	return all
}

// protocols are those to split by, nil when that is done or of no use.
func (c *classifier) protocols(terms []term) []uint32 {
	seen := map[uint32]bool{}
	for i := range terms {
		for _, r := range terms[i].dims[protocolDim] {
			for n := r.From.Number; n <= r.Last().Number; n++ {
				seen[n] = true
			}
		}
	}
	var all []uint32
	for n := range seen {
		all = append(all, n)
	}
	slices.Sort(all)
	return all
}

// byProtocol writes a chain for each protocol, named by it: they change when
// rules do, and the map that leads to them doesn't.
func (c *classifier) byProtocol(chain *rs.Chain, terms []term, then string, protocols []uint32) {
	terms, then = c.tail(chain.Name, terms, then, protocolDim)
	m := rs.Map{Name: chain.Name + "-" + string(rs.Protocol), Kind: rs.ToVerdict, Fields: fields(rs.Protocol)}
	split := func(of func(*term) bool) []term {
		var some []term
		for _, t := range terms {
			if of(&t) {
				t.dims[protocolDim] = nil
				some = append(some, t)
			}
		}
		return some
	}
	for _, p := range protocols {
		some := split(func(t *term) bool {
			d := t.dims[protocolDim]
			return d == nil || slices.ContainsFunc(d, func(r rs.Range) bool { return r.Contains(rs.Number(p)) })
		})
		name := fmt.Sprintf("%s-%d", chain.Name, p)
		c.node(name, some, then)
		m.Elements = append(m.Elements, rs.MapElement{Key: []rs.Range{number(p, p)}, Verdict: goTo(name)})
	}
	c.table.mapping(m)
	name := chain.Name + "-other"
	c.node(name, split(func(t *term) bool { return t.dims[protocolDim] == nil }), then)
	chain.Rules = []rs.Rule{{Actions: []rs.Action{dispatch(m.Name, m.Fields...)}}, rule("", goTo(name))}
}

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

// best is the split with the smallest largest part, nil when none is worth it.
func (c *classifier) best(terms []term) *split {
	var best *split
	for dim := destinationPortDim; dim < dimensions; dim++ {
		s := divide(terms, dim)
		if s == nil {
			continue
		}
		s.measure()
		for s.total > c.budget/2 && len(s.parts) > 2 {
			s = s.coarsen()
		}
		useful := s.total <= c.budget/2 && s.worst*4 <= len(terms)*3
		if useful && (best == nil || cmp.Or(cmp.Compare(s.worst, best.worst), cmp.Compare(s.total, best.total)) < 0) {
			best = s
		}
	}
	return best
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
