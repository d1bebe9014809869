// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"

	rs "bastide.dev/ruleset"
)

// tableWriter collects a table's parts. Those that are named by their content
// may be written again and again, and are there once.
type tableWriter struct {
	name   string
	base   []*rs.Chain // in order
	chains map[string]*rs.Chain
	sets   map[string]rs.Set
	maps   map[string]rs.Map
}

func newTable(name string) *tableWriter {
	return &tableWriter{name: name, chains: map[string]*rs.Chain{}, sets: map[string]rs.Set{}, maps: map[string]rs.Map{}}
}

// hooked makes a chain that the kernel calls.
func (t *tableWriter) hooked(c rs.Chain) *rs.Chain {
	t.base = append(t.base, &c)
	return &c
}

// chain makes a chain that others jump to.
func (t *tableWriter) chain(name string) *rs.Chain {
	c := &rs.Chain{Name: name}
	t.chains[name] = c
	return c
}

// has tells whether there is such a chain already.
func (t *tableWriter) has(name string) bool { return t.chains[name] != nil }

func (t *tableWriter) set(name string, fields []rs.Field, elements [][]rs.Range) string {
	slices.SortFunc(elements, compareKeys)
	t.sets[name] = rs.Set{Name: name, Fields: fields, Elements: slices.CompactFunc(elements, func(a, b []rs.Range) bool { return compareKeys(a, b) == 0 })}
	return name
}

// mapping makes a map; without elements there is none, and it says so.
func (t *tableWriter) mapping(m rs.Map) bool {
	if len(m.Elements) == 0 {
		return false
	}
	slices.SortStableFunc(m.Elements, func(a, b rs.MapElement) int { return compareKeys(a.Key, b.Key) })
	m.Elements = slices.CompactFunc(m.Elements, func(a, b rs.MapElement) bool { return compareKeys(a.Key, b.Key) == 0 })
	t.maps[m.Name] = m
	return true
}

// among matches a field with ranges: in the rule itself when there is one,
// else by a set that all who mean the same addresses share.
func (t *tableWriter) among(field rs.Field, ranges []rs.Range) rs.Match {
	if len(ranges) == 1 {
		return rs.Match{Fields: []rs.Field{field}, Ranges: ranges}
	}
	elements := rs.Elements(ranges...)
	// The field's family or kind is part of the set's type, its side isn't.
	kind := field
	if field == rs.Destination {
		kind = rs.Source
	}
	if field == rs.DestinationPort {
		kind = rs.SourcePort
	}
	return rs.Match{Fields: fields(field), Set: t.set(contentName("set", kind, string(appendRanges(nil, ranges))), []rs.Field{kind}, elements)}
}

// from matches sources, to destinations.
func (t *tableWriter) from(prefixes ...netip.Prefix) rs.Match {
	return t.among(rs.Source, rs.Addresses(prefixes))
}

func (t *tableWriter) to(prefixes ...netip.Prefix) rs.Match {
	return t.among(rs.Destination, rs.Addresses(prefixes))
}

func (t *tableWriter) finish() rs.Table {
	table := rs.Table{Name: t.name}
	for _, name := range sortedKeys(t.sets) {
		table.Sets = append(table.Sets, t.sets[name])
	}
	for _, name := range sortedKeys(t.maps) {
		table.Maps = append(table.Maps, t.maps[name])
	}
	for _, c := range t.base {
		table.Chains = append(table.Chains, *c)
	}
	for _, name := range sortedKeys(t.chains) {
		table.Chains = append(table.Chains, *t.chains[name])
	}
	return table
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// rule is a rule with one action, counted when it refuses.
func rule(origin string, act rs.Action, matches ...rs.Match) rs.Rule {
	return rs.Rule{Origin: origin, Count: act.Verb == rs.Drop || act.Verb == rs.Reject, Matches: matches, Actions: []rs.Action{act}}
}

var (
	accept = rs.Action{Verb: rs.Accept}
	drop   = rs.Action{Verb: rs.Drop}
	back   = rs.Action{Verb: rs.Return}
	reject = rs.Action{Verb: rs.Reject}
)

func jump(chain string) rs.Action     { return rs.Action{Verb: rs.Jump, Chain: chain} }
func goTo(chain string) rs.Action     { return rs.Action{Verb: rs.Goto, Chain: chain} }
func mark(value uint32) rs.Action     { return rs.Action{Verb: rs.SetMark, Mark: value} }
func fields(f ...rs.Field) []rs.Field { return f }

func dispatch(name string, f ...rs.Field) rs.Action {
	return rs.Action{Verb: rs.Dispatch, Map: name, Fields: f}
}

// is matches a field with numbers.
func is(field rs.Field, numbers ...uint32) rs.Match {
	m := rs.Match{Fields: fields(field)}
	for _, n := range numbers {
		m.Ranges = append(m.Ranges, number(n, n))
	}
	return m
}

func not(m rs.Match) rs.Match {
	m.Not = true
	return m
}

// between matches a field with a range of numbers.
func between(field rs.Field, first, last uint32) rs.Match {
	return rs.Match{Fields: fields(field), Ranges: []rs.Range{number(first, last)}}
}

// via matches a field with links.
func via(field rs.Field, links ...string) rs.Match {
	m := rs.Match{Fields: fields(field)}
	for _, l := range links {
		m.Ranges = append(m.Ranges, link(l))
	}
	return m
}

// in matches fields with a named set.
func in(set string, f ...rs.Field) rs.Match { return rs.Match{Fields: f, Set: set} }

func link(name string) rs.Range { return rs.Only(rs.Name(name)) }

func number(first, last uint32) rs.Range {
	return rs.Between(rs.Value{Number: first}, rs.Value{Number: last})
}

func address(a netip.Addr) rs.Range { return rs.Only(rs.Addr(a)) }

func compareValues(a, b rs.Value) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), a.Addr.Compare(b.Addr), cmp.Compare(a.Number, b.Number))
}

func compareKeys(a, b []rs.Range) int {
	return slices.CompareFunc(a, b, func(x, y rs.Range) int {
		return cmp.Or(compareValues(x.From, y.From), compareValues(x.To, y.To))
	})
}

// appendRanges appends ranges as text, for names.
func appendRanges(to []byte, ranges []rs.Range) []byte {
	for _, r := range ranges {
		for _, v := range []rs.Value{r.From, r.Last()} {
			to = append(v.Addr.AppendTo(to), v.Name...)
			to = append(strconv.AppendUint(append(to, '#'), uint64(v.Number), 10), ' ')
		}
	}
	return to
}

func ports(p Ports) rs.Range { return number(uint32(p.First), uint32(p.Last)) }
