// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"

	"bastide.dev/ruleset"
)

// compiled is a table in the kernel's form, to be compared piece by piece with
// the one that the kernel has.
type compiled struct {
	source   ruleset.Table
	sets     []*set // what rules need beside the table's own comes last
	chains   []chain
	timeouts map[string]uint32 // objects, by name: seconds
	bytes    map[string]int    // of addresses in the keys of a set or map
	results  map[string]result // of address maps
	extra    map[string]*set   // all sets made for rules
}

// chain is a chain with its rules in the kernel's form.
type chain struct {
	ruleset.Chain
	rules []rule
}

// result is what an address map gives.
type result struct {
	bytes int
	ports bool
}

// compiler makes a compiled table, out of the last one where nothing changed.
type compiler struct {
	last *compiled // or empty
	out  *compiled
	errs []error
	// of the last one, what compiled rules depend on is the same
	reuse   bool
	bytes   map[string]int
	results map[string]result
}

func (c *compiler) fail(err error) { c.errs = append(c.errs, err) }

// compile makes the kernel's form of a valid table.
func compile(t ruleset.Table, last *compiled) (*compiled, error) {
	if last == nil {
		last = &compiled{}
	}
	out := &compiled{source: t, timeouts: map[string]uint32{}, bytes: map[string]int{}, results: map[string]result{}, extra: map[string]*set{}}
	c := &compiler{last: last, out: out, bytes: out.bytes, results: out.results}
	c.sets(t)
	c.reuse = maps.Equal(last.bytes, out.bytes) && maps.Equal(last.results, out.results)
	c.chains(t)
	return out, errors.Join(c.errs...)
}

func (c *compiler) sets(t ruleset.Table) {
	before := map[string]*set{}
	for _, s := range c.last.sets {
		before[s.name] = s
	}
	for i := range t.Sets {
		s := &t.Sets[i]
		c.bytes[s.Name] = addressBytes(s.Elements)
		if old := before[s.Name]; old != nil && old.isSet(s) {
			c.out.sets = append(c.out.sets, old)
			continue
		}
		c.out.sets = append(c.out.sets, newSet(s, before[s.Name]))
	}
	for i := range t.Maps {
		m := &t.Maps[i]
		c.bytes[m.Name] = 4
		if len(m.Elements) > 0 {
			c.bytes[m.Name] = addressBytes([][]ruleset.Range{m.Elements[0].Key})
		}
		if m.Kind == ruleset.ToAddress {
			c.results[m.Name] = resultOf(m)
		}
		if old := before[m.Name]; old != nil && old.isMap(m) {
			c.out.sets = append(c.out.sets, old)
			continue
		}
		c.out.sets = append(c.out.sets, newMap(m, before[m.Name]))
	}
}

// addressBytes is the length of the addresses in keys; without any it is IPv4's.
func addressBytes(keys [][]ruleset.Range) int {
	if len(keys) > 0 && slices.ContainsFunc(keys[0], func(r ruleset.Range) bool { return r.From.Addr.Is6() }) {
		return 16
	}
	return 4
}

func resultOf(m *ruleset.Map) result {
	r := result{bytes: 4, ports: m.Ports}
	if len(m.Elements) > 0 && m.Elements[0].Address.Is6() {
		r.bytes = 16
	}
	return r
}

func (c *compiler) chains(t ruleset.Table) {
	before := map[string]*chain{}
	for i := range c.last.chains {
		before[c.last.chains[i].Name] = &c.last.chains[i]
	}
	used := map[string]bool{}
	for _, source := range t.Chains {
		rules := c.rules(source.Rules, before[source.Name])
		c.out.chains = append(c.out.chains, chain{Chain: source, rules: rules})
		for _, r := range rules {
			for _, name := range r.uses {
				used[name] = true
			}
		}
	}
	if used[refusalChain] {
		c.out.chains = append(c.out.chains, chain{Chain: ruleset.Chain{Name: refusalChain}, rules: c.refusal()})
	}
	for _, name := range slices.Sorted(maps.Keys(used)) {
		if s := c.extraSet(name); s != nil {
			c.out.extra[name] = s
			c.out.sets = append(c.out.sets, s)
		}
		if seconds, ok := c.last.timeouts[name]; ok {
			c.out.timeouts[name] = seconds
		}
	}
}

// rules compiles rules, except those that the last table had in this chain
// before and after what changed.
func (c *compiler) rules(rules []ruleset.Rule, last *chain) []rule {
	out := make([]rule, len(rules))
	first, end := 0, len(rules)
	if c.reuse && last != nil {
		old := last.Rules
		for first < end && first < len(old) && equal(old[first], rules[first]) {
			out[first] = last.rules[first]
			first++
		}
		for shift := len(old) - len(rules); end > first && end+shift > first && equal(old[end+shift-1], rules[end-1]); end-- {
			out[end-1] = last.rules[end+shift-1]
		}
	}
	for i := first; i < end; i++ {
		out[i] = c.rule(&rules[i])
	}
	return out
}

func (c *compiler) extraSet(name string) *set {
	if s := c.out.extra[name]; s != nil {
		return s
	}
	return c.last.extra[name]
}

// extra makes a set that a rule needs. Its name is of its content, so that
// rules share it, and it never changes.
func (c *compiler) extra(prefix string, content any, make func(name string) *set) string {
	sum := sha256.Sum256(fmt.Append(nil, content))
	name := prefix + hex.EncodeToString(sum[:8])
	s := c.extraSet(name)
	if s == nil {
		s = make(name)
	}
	c.out.extra[name] = s
	return name
}

// ported is the set of protocols with ports.
func (c *compiler) ported() string {
	var ranges []ruleset.Range
	for _, p := range []uint32{ruleset.TCP, ruleset.UDP, ruleset.SCTP} {
		ranges = append(ranges, ruleset.Only(ruleset.Value{Number: p}))
	}
	return c.inline(ruleset.Protocol, ranges)
}

// inline is the set of a match with several ranges.
func (c *compiler) inline(f ruleset.Field, ranges []ruleset.Range) string {
	return c.extra("_r", []any{kindOf(f, addressBytes(ruleset.Elements(ranges...))), ranges}, func(name string) *set {
		return newSet(&ruleset.Set{Name: name, Fields: []ruleset.Field{f}, Elements: ruleset.Elements(ranges...)}, nil)
	})
}

// choice is the map from a Balance's hash to its marks.
func (c *compiler) choice(marks []uint32) string {
	return c.extra("_b", marks, func(name string) *set {
		s := &set{name: name, sig: signature{isMap: true, keyLen: 4, keyMagic: 4, dataMagic: 19, dataLen: 4}}
		for i, m := range marks {
			s.elements = append(s.elements, element{key: string(native(uint32(i))), value: string(native(m))})
		}
		return s
	})
}

// timeout is the object of a Timeout.
func (c *compiler) timeout(seconds uint32) string {
	name := fmt.Sprintf("_t%d", seconds)
	c.out.timeouts[name] = seconds
	return name
}
