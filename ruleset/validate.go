// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Limits of the kernel.
const (
	maxDepth  = 16  // of chains that jump to chains
	maxOrigin = 250 // bytes of a rule's comment
	maxName   = 128
	maxKey    = 64 // bytes of a set's key
)

// widths are the bytes that a field takes in a key, without addresses'.
var widths = map[Field]int{
	InLink: 16, OutLink: 16, Source: 0, Destination: 0, Protocol: 4, SourcePort: 4, DestinationPort: 4,
	ICMPType: 4, State: 4, Reply: 4, Translated: 4, Mark: 4, ConnMark: 4, Type: 4,
}

// limits are the least and greatest numbers of a field.
var limits = map[Field][2]uint32{
	Protocol: {0, 255}, SourcePort: {0, 65535}, DestinationPort: {0, 65535}, ICMPType: {0, 255},
	State: {New, Invalid}, Reply: {0, 1}, Translated: {0, 1}, Mark: {0, 1<<32 - 1}, ConnMark: {0, 1<<32 - 1},
	Type: {Local, Local},
}

// Validate checks what the kernel would refuse, or Run couldn't know. It
// returns all problems at once.
func (t *Table) Validate() error {
	v := &validation{table: t, chains: map[string]*Chain{}, sets: map[string]*Set{}, maps: map[string]*Map{}}
	if t.Name == "" {
		v.problem("a table needs a name")
	}
	v.names()
	for i := range t.Sets {
		s := &t.Sets[i]
		v.at = "set " + s.Name
		v.keys(s.Fields, s.Elements)
	}
	for i := range t.Maps {
		v.at = "map " + t.Maps[i].Name
		v.lookup(&t.Maps[i])
	}
	for i := range t.Chains {
		v.chain(&t.Chains[i])
	}
	v.reach()
	return errors.Join(v.problems...)
}

type validation struct {
	table    *Table
	chains   map[string]*Chain
	sets     map[string]*Set
	maps     map[string]*Map
	at       string
	problems []error
}

func (v *validation) problem(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if v.at != "" {
		text = v.at + ": " + text
	}
	v.problems = append(v.problems, errors.New("table "+v.table.Name+": "+text))
}

func (v *validation) names() {
	t := v.table
	for i := range t.Sets {
		v.name("set", t.Sets[i].Name, v.sets[t.Sets[i].Name] != nil)
		v.sets[t.Sets[i].Name] = &t.Sets[i]
	}
	for i := range t.Maps {
		name := t.Maps[i].Name
		v.name("map", name, v.maps[name] != nil || v.sets[name] != nil)
		v.maps[name] = &t.Maps[i]
	}
	for i := range t.Chains {
		v.name("chain", t.Chains[i].Name, v.chains[t.Chains[i].Name] != nil)
		v.chains[t.Chains[i].Name] = &t.Chains[i]
	}
}

// name checks a name; those with a leading underscore are ruleset/linux's own.
func (v *validation) name(kind, name string, taken bool) {
	switch {
	case name == "" || len(name) > maxName || strings.HasPrefix(name, "_") || strings.ContainsAny(name, " \t\n\x00\""):
		v.problem("%q can't be a %s's name", name, kind)
	case taken:
		v.problem("the name %s of a %s is taken", name, kind)
	}
}

// keys checks fields and the keys of a set or map.
func (v *validation) keys(fields []Field, keys [][]Range) {
	if !v.fields(fields) {
		return
	}
	bits := 0
	for i, k := range keys {
		if len(k) != len(fields) {
			v.problem("element %d has %d ranges for %d fields", i, len(k), len(fields))
			return
		}
		for j, r := range k {
			v.value(fields[j], r, &bits)
		}
	}
	size := 0
	for _, f := range fields {
		if size += widths[f]; f == Source || f == Destination {
			size += max(bits, 32) / 8
		}
	}
	if size > maxKey {
		v.problem("a key has %d bytes; the kernel's have up to %d", size, maxKey)
	}
	if a, b, found := overlap(keys); found {
		v.problem("elements %s and %s overlap", keyText(a), keyText(b))
	}
}

func (v *validation) fields(fields []Field) bool {
	if len(fields) == 0 {
		v.problem("fields are missing")
		return false
	}
	for _, f := range fields {
		if _, ok := widths[f]; !ok {
			v.problem("field %q is unknown", f)
			return false
		}
	}
	return true
}

// value checks one range of a field; bits is the family of the addresses so far.
func (v *validation) value(f Field, r Range, bits *int) {
	last := r.Last()
	limit, number := limits[f]
	switch {
	case f == Source || f == Destination:
		if !r.From.Addr.IsValid() || r.From != Addr(r.From.Addr) || last != Addr(last.Addr) || last.Addr.Is4In6() || r.From.Addr.Is4In6() {
			v.problem("%s compares with addresses, not with %s", f, rangeText(r))
		} else if !sameKind(r.From, last) || *bits != 0 && *bits != r.From.Addr.BitLen() {
			v.problem("%s mixes IPv4 and IPv6", rangeText(r))
		}
		*bits = r.From.Addr.BitLen()
	case !number:
		if r.From != Name(r.From.Name) || last != r.From || len(r.From.Name) > 15 {
			v.problem("%s compares with a link's name, not with %s", f, rangeText(r))
		}
	case r.From != Number(r.From.Number) || last != Number(last.Number):
		v.problem("%s compares with numbers, not with %s", f, rangeText(r))
	case r.From.Number < limit[0] || last.Number > limit[1]:
		v.problem("%s is outside of %d-%d of %s", rangeText(r), limit[0], limit[1], f)
	}
	if last.compare(r.From) < 0 {
		v.problem("range %s ends before it begins", rangeText(r))
	}
}

// overlap finds two keys that a packet could meet both. It sweeps over the
// field with the most different values, so that thousands of keys stay cheap.
func overlap(keys [][]Range) (a, b []Range, found bool) {
	if len(keys) < 2 {
		return nil, nil, false
	}
	best, most := 0, 0
	for f := range keys[0] {
		distinct := map[Value]struct{}{}
		for _, k := range keys {
			distinct[k[f].From] = struct{}{}
		}
		if len(distinct) > most {
			best, most = f, len(distinct)
		}
	}
	sorted := slices.Clone(keys)
	slices.SortStableFunc(sorted, func(x, y []Range) int { return x[best].From.compare(y[best].From) })
	var open [][]Range
	for _, k := range sorted {
		open = slices.DeleteFunc(open, func(o []Range) bool { return o[best].Last().compare(k[best].From) < 0 })
		for _, o := range open {
			if meets(o, k) {
				return o, k, true
			}
		}
		open = append(open, k)
	}
	return nil, nil, false
}

func meets(a, b []Range) bool {
	for i := range a {
		if !a[i].Overlaps(b[i]) {
			return false
		}
	}
	return true
}

func (v *validation) lookup(m *Map) {
	keys := make([][]Range, len(m.Elements))
	bits := 0
	for i, e := range m.Elements {
		keys[i] = e.Key
		switch m.Kind {
		case ToVerdict:
			v.elementVerdict(e.Verdict)
		case ToAddress:
			if !e.Address.IsValid() || bits != 0 && bits != e.Address.BitLen() {
				v.problem("element %d needs an address, of one family with the others", i)
			}
			bits = e.Address.BitLen()
			v.ports(e.First, e.Last)
			if m.Ports != (e.First != 0) {
				v.problem("element %d: either all or no elements have ports", i)
			}
		}
	}
	if !slices.Contains([]MapKind{ToVerdict, ToMark, ToAddress}, m.Kind) {
		v.problem("kind %q is unknown", m.Kind)
	}
	v.keys(m.Fields, keys)
}

func (v *validation) elementVerdict(a Action) {
	switch a.Verb {
	case Accept, Drop, Return:
	case Jump, Goto:
		v.target(a.Chain)
	default:
		v.problem("an element's verdict can't be %q", a.Verb)
	}
}

// target checks the chain of a jump.
func (v *validation) target(name string) {
	if c := v.chains[name]; c == nil {
		v.problem("chain %q isn't there", name)
	} else if c.Hook != "" {
		v.problem("chain %s is the kernel's to call: nothing jumps to it", name)
	}
}

func (v *validation) ports(first, last uint16) {
	if last != 0 && last < first {
		v.problem("ports %d-%d end before they begin", first, last)
	}
}
