// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Digest names the table's content.
func (t *Table) Digest() string {
	content, err := json.Marshal(t)
	if err != nil {
		panic("ruleset: a table is plain data: " + err.Error())
	}
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

// Text is the table for people and golden files, close to how nft writes it.
func (t *Table) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "table %s {\n", t.Name)
	for _, s := range t.Sets {
		fmt.Fprintf(&b, "  set %s {\n    type %s\n", s.Name, fieldsText(s.Fields))
		writeLines(&b, s.Elements, keyText)
		b.WriteString("  }\n")
	}
	for _, m := range t.Maps {
		fmt.Fprintf(&b, "  map %s {\n    type %s : %s\n", m.Name, fieldsText(m.Fields), m.Kind)
		writeLines(&b, m.Elements, func(e MapElement) string { return keyText(e.Key) + " : " + elementText(m.Kind, e) })
		b.WriteString("  }\n")
	}
	for _, c := range t.Chains {
		fmt.Fprintf(&b, "  chain %s {\n", c.Name)
		if c.Hook != "" {
			fmt.Fprintf(&b, "    type %s hook %s priority %d; policy %s\n", chainType(c), c.Hook, c.Priority, policy(c))
		}
		for _, r := range c.Rules {
			b.WriteString("    " + r.Text() + "\n")
		}
		b.WriteString("  }\n")
	}
	b.WriteString("}\n")
	return b.String()
}

// writeLines writes elements in the order of their text, which is the same
// whatever order a compiler made them in.
func writeLines[E any](b *strings.Builder, elements []E, text func(E) string) {
	lines := make([]string, len(elements))
	for i, e := range elements {
		lines[i] = "    " + text(e) + "\n"
	}
	slices.Sort(lines)
	for _, l := range lines {
		b.WriteString(l)
	}
}

func chainType(c Chain) string {
	if c.NAT {
		return "nat"
	}
	return "filter"
}

func policy(c Chain) Verb {
	if c.Drop {
		return Drop
	}
	return Accept
}

// Text is a rule in one line.
func (r Rule) Text() string {
	var words []string
	for _, m := range r.Matches {
		words = append(words, m.text())
	}
	if r.Count {
		words = append(words, "counter")
	}
	for _, a := range r.Actions {
		words = append(words, a.text())
	}
	if r.Origin != "" {
		words = append(words, fmt.Sprintf("comment %q", r.Origin))
	}
	return strings.Join(words, " ")
}

func (m Match) text() string {
	fields := fieldsText(m.Fields)
	if m.Not {
		fields += " !="
	}
	if m.Set != "" {
		return fields + " @" + m.Set
	}
	f := m.Fields[0]
	if len(m.Ranges) == 1 {
		return fields + " " + fieldRangeText(f, m.Ranges[0])
	}
	texts := make([]string, len(m.Ranges))
	for i, r := range m.Ranges {
		texts[i] = fieldRangeText(f, r)
	}
	return fields + " { " + strings.Join(texts, ", ") + " }"
}

func (a Action) text() string {
	var words []string
	word := func(format string, args ...any) { words = append(words, fmt.Sprintf(format, args...)) }
	word("%s", a.Verb)
	switch a.Verb {
	case Jump, Goto:
		word("%s", a.Chain)
	case Dispatch:
		word("%s @%s", fieldsText(a.Fields), a.Map)
	case SNAT, DNAT, SetMark:
		switch {
		case a.Map != "":
			word("%s @%s", fieldsText(a.Fields), a.Map)
		case a.Verb == SetMark:
			word("0x%x", a.Mark)
		default:
			word("%s", translationText(a.Address.String(), a.First, a.Last))
		}
	case Balance:
		word("%s of", fieldsText(a.Fields))
		for _, m := range a.Marks {
			word("0x%x", m)
		}
	case Timeout:
		word("%ds", a.Seconds)
	case Log:
		word("group %d", a.Group)
	}
	if a.Mask != 0 {
		word("mask 0x%x", a.Mask)
	}
	return strings.Join(words, " ")
}

func elementText(kind MapKind, e MapElement) string {
	switch kind {
	case ToMark:
		return fmt.Sprintf("0x%x", e.Mark)
	case ToAddress:
		return translationText(e.Address.String(), e.First, e.Last)
	}
	return e.Verdict.text()
}

func translationText(address string, first, last uint16) string {
	switch {
	case first == 0:
		return address
	case last == 0 || last == first:
		return fmt.Sprintf("%s:%d", address, first)
	}
	return fmt.Sprintf("%s:%d-%d", address, first, last)
}

func fieldsText(fields []Field) string {
	texts := make([]string, len(fields))
	for i, f := range fields {
		texts[i] = string(f)
	}
	return strings.Join(texts, " . ")
}

func keyText(key []Range) string {
	texts := make([]string, len(key))
	for i, r := range key {
		texts[i] = rangeText(r)
	}
	return strings.Join(texts, " . ")
}

// fieldRangeText writes states by their names, and marks as bits.
func fieldRangeText(f Field, r Range) string {
	names := map[uint32]string{New: "new", Established: "established", Invalid: "invalid"}
	switch {
	case f == State && r.Last() == r.From && names[r.From.Number] != "":
		return names[r.From.Number]
	case f == Type && r == Only(Number(Local)):
		return "local"
	case (f == Mark || f == ConnMark) && r.Last() == r.From:
		return fmt.Sprintf("0x%x", r.From.Number)
	}
	return rangeText(r)
}

// rangeText writes addresses as prefixes where they are one.
func rangeText(r Range) string {
	last := r.Last()
	if last == r.From {
		return valueText(r.From)
	}
	if sameKind(r.From, last) && r.From.Addr.IsValid() && r.From.compare(last) < 0 {
		if cover := Cover(r); len(cover) == 1 {
			return cover[0].String()
		}
	}
	return valueText(r.From) + "-" + valueText(last)
}

func valueText(v Value) string {
	switch {
	case v.Addr.IsValid():
		return v.Addr.String()
	case v.Name != "":
		return fmt.Sprintf("%q", v.Name)
	}
	return fmt.Sprint(v.Number)
}
