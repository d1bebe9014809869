// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"cmp"
	"fmt"
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
