// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"bastide.dev/ruleset"
)

const (
	flagConcat     = 0x80 // NFT_SET_CONCAT
	attrKeyEnd     = 10   // NFTA_SET_ELEM_KEY_END
	descConcat     = 2    // NFTA_SET_DESC_CONCAT
	fieldLen       = 1    // NFTA_SET_FIELD_LEN
	magicVerdict   = 0xffffff00
	magicMark      = 19
	elementsAtOnce = 200 // an attribute has at most 64 KiB
)

// set is a set or map in the kernel's form.
type set struct {
	name     string
	sig      signature
	widths   []int // of a concatenation's fields
	elements []element
	ofSet    *ruleset.Set // what it was made from
	ofMap    *ruleset.Map
}

// signature is what a set can't change without being made anew.
type signature struct {
	interval, concat, isMap bool
	keyLen, dataLen         int
	keyMagic, dataMagic     uint32
	fields                  string
}

// element is one entry. A single field's interval is two: its first key, and
// the one after its last, which stops it. The kernel refuses one without the
// other inside of an older interval, so the two share a whole, and go together.
type element struct {
	key, end string // end is a concatenation's
	stop     bool
	whole    string
	value    string
	verdict  int32
	chain    string
}

func newSet(s *ruleset.Set, last *set) *set {
	out := &set{name: s.Name, ofSet: s}
	out.keys(s.Fields, s.Elements, last, func(int) element { return element{} })
	return out
}

func newMap(m *ruleset.Map, last *set) *set {
	out := &set{name: m.Name, ofMap: m, sig: signature{isMap: true, dataMagic: magicVerdict}}
	keys := make([][]ruleset.Range, len(m.Elements))
	for i := range m.Elements {
		keys[i] = m.Elements[i].Key
	}
	switch m.Kind {
	case ruleset.ToMark:
		out.sig.dataMagic, out.sig.dataLen = magicMark, 4
	case ruleset.ToAddress:
		r := resultOf(m)
		out.sig.dataMagic, out.sig.dataLen = kindOf(ruleset.Source, r.bytes).magic, r.bytes
		if r.ports {
			service := kindOf(ruleset.SourcePort, 0).magic
			out.sig.dataMagic = (out.sig.dataMagic<<6|service)<<6 | service
			out.sig.dataLen += 8
		}
	}
	out.keys(m.Fields, keys, last, func(i int) element { return data(m, &m.Elements[i]) })
	return out
}

// data is what an element leads to.
func data(m *ruleset.Map, e *ruleset.MapElement) element {
	switch m.Kind {
	case ruleset.ToMark:
		return element{value: string(native(e.Mark))}
	case ruleset.ToAddress:
		b := e.Address.AsSlice()
		if m.Ports {
			b = binary.BigEndian.AppendUint16(b, e.First)
			b = append(b, 0, 0)
			b = binary.BigEndian.AppendUint16(b, max(e.First, e.Last))
			b = append(b, 0, 0)
		}
		return element{value: string(b)}
	}
	v := verdict(e.Verdict.Verb, e.Verdict.Chain)
	return element{verdict: int32(v.Kind), chain: v.Chain}
}

// keys fills in keys. The kernel looks exact ones up in a hash table; a set
// that had intervals once keeps the other form, which can do both.
func (s *set) keys(fields []ruleset.Field, keys [][]ruleset.Range, last *set, data func(i int) element) {
	bytes := addressBytes(keys)
	s.sig.concat = len(fields) > 1
	for _, f := range fields {
		k := kindOf(f, bytes)
		s.widths = append(s.widths, k.width)
		s.sig.fields += string(rune('a' + k.width))
		s.sig.keyMagic = s.sig.keyMagic<<6 | k.magic
		if s.sig.concat {
			s.sig.keyLen += padded(k.width)
		} else {
			s.sig.keyLen = k.width
		}
	}
	var all []ranged
	for i, k := range keys {
		all = append(all, s.expand(fields, k, data(i))...)
	}
	s.sig.interval = last != nil && last.sig.interval && last.ofSet != nil == (s.ofSet != nil) ||
		slices.ContainsFunc(all, func(r ranged) bool { return r.from != r.to })
	for _, r := range all {
		s.add(r)
	}
	slices.SortFunc(s.elements, element.compare)
}

// ranged is an element with the first and last key that it is for.
type ranged struct {
	from, to string
	data     element
}

// expand makes an element of each combination of its fields' spans.
func (s *set) expand(fields []ruleset.Field, key []ruleset.Range, data element) []ranged {
	all := []ranged{{data: data}}
	for i, f := range fields {
		pad := ""
		if s.sig.concat {
			pad = strings.Repeat("\x00", padded(s.widths[i])-s.widths[i])
		}
		var longer []ranged
		for _, sp := range spans(f, key[i]) {
			for _, r := range all {
				longer = append(longer, ranged{r.from + sp.from + pad, r.to + sp.to + pad, data})
			}
		}
		all = longer
	}
	return all
}

func (s *set) add(r ranged) {
	e := r.data
	e.key = r.from
	if s.sig.interval && s.sig.concat {
		e.end = r.to
	}
	if !s.sig.interval || s.sig.concat {
		s.elements = append(s.elements, e)
		return
	}
	e.whole = fmt.Sprintf("%s-%s:%s,%d,%s", r.from, r.to, e.value, e.verdict, e.chain)
	s.elements = append(s.elements, e)
	if after, ok := successor(r.to); ok {
		s.elements = append(s.elements, element{key: after, stop: true, whole: e.whole})
	}
}

// successor is the key after; the last one has none, and needs none.
func successor(key string) (string, bool) {
	b := []byte(key)
	for i := len(b) - 1; i >= 0; i-- {
		if b[i]++; b[i] != 0 {
			return string(b), true
		}
	}
	return "", false
}

func (e element) compare(o element) int {
	stops := func(b bool) int {
		if b {
			return 0
		}
		return 1
	}
	return cmp.Or(strings.Compare(e.key, o.key), stops(e.stop)-stops(o.stop), strings.Compare(e.end, o.end))
}

// isSet tells whether the set was made from the same content.
func (s *set) isSet(t *ruleset.Set) bool {
	return s.ofSet != nil && slices.Equal(s.ofSet.Fields, t.Fields) &&
		slices.EqualFunc(s.ofSet.Elements, t.Elements, slices.Equal[[]ruleset.Range])
}

func (s *set) isMap(m *ruleset.Map) bool {
	return s.ofMap != nil && s.ofMap.Kind == m.Kind && s.ofMap.Ports == m.Ports && slices.Equal(s.ofMap.Fields, m.Fields) &&
		slices.EqualFunc(s.ofMap.Elements, m.Elements, func(a, b ruleset.MapElement) bool {
			return a.Mark == b.Mark && a.Address == b.Address && a.First == b.First && a.Last == b.Last &&
				a.Verdict.Verb == b.Verdict.Verb && a.Verdict.Chain == b.Verdict.Chain && slices.Equal(a.Key, b.Key)
		})
}

// header makes the set, empty.
func (s *set) header(table string, id uint32) message {
	var flags uint32
	if s.sig.interval {
		flags |= unix.NFT_SET_INTERVAL
	}
	if s.sig.isMap {
		flags |= unix.NFT_SET_MAP
	}
	if s.sig.concat {
		flags |= flagConcat
	}
	body := [][]byte{text(unix.NFTA_SET_TABLE, table), text(unix.NFTA_SET_NAME, s.name), number(unix.NFTA_SET_FLAGS, flags),
		number(unix.NFTA_SET_KEY_TYPE, s.sig.keyMagic), number(unix.NFTA_SET_KEY_LEN, uint32(s.sig.keyLen)), number(unix.NFTA_SET_ID, id)}
	if s.sig.isMap {
		body = append(body, number(unix.NFTA_SET_DATA_TYPE, s.sig.dataMagic))
		if s.sig.dataMagic != magicVerdict {
			body = append(body, number(unix.NFTA_SET_DATA_LEN, uint32(s.sig.dataLen)))
		}
	}
	if s.sig.concat {
		var fields []byte
		for _, w := range s.widths {
			fields = append(fields, nest(unix.NFTA_LIST_ELEM, number(fieldLen, uint32(w)))...)
		}
		body = append(body, nest(unix.NFTA_SET_DESC, nest(descConcat, fields)))
	}
	return message{kind: unix.NFT_MSG_NEWSET, flags: unix.NLM_F_CREATE, what: "add set " + s.name, body: body}
}

// change adds or deletes elements, many at once.
func (s *set) change(table string, kind uint16, elements []element) []message {
	var messages []message
	what, flags := "add elements of ", uint16(unix.NLM_F_CREATE)
	if kind == unix.NFT_MSG_DELSETELEM {
		what, flags = "delete elements of ", 0
	}
	for part := range slices.Chunk(elements, elementsAtOnce) {
		var list []byte
		for _, e := range part {
			list = append(list, nest(unix.NFTA_LIST_ELEM, s.encode(e, kind == unix.NFT_MSG_NEWSETELEM))...)
		}
		messages = append(messages, message{kind: kind, flags: flags, what: what + s.name, body: [][]byte{
			text(unix.NFTA_SET_ELEM_LIST_TABLE, table), text(unix.NFTA_SET_ELEM_LIST_SET, s.name),
			nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS, list),
		}})
	}
	return messages
}

func (s *set) encode(e element, withData bool) []byte {
	b := nest(unix.NFTA_SET_ELEM_KEY, attr(unix.NFTA_DATA_VALUE, []byte(e.key)))
	if e.end != "" {
		b = append(b, nest(attrKeyEnd, attr(unix.NFTA_DATA_VALUE, []byte(e.end)))...)
	}
	if e.stop {
		return append(b, number(unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END)...)
	}
	switch {
	case !withData || !s.sig.isMap:
		return b
	case s.sig.dataMagic == magicVerdict:
		v := number(unix.NFTA_VERDICT_CODE, uint32(e.verdict))
		if e.chain != "" {
			v = append(v, text(unix.NFTA_VERDICT_CHAIN, e.chain)...)
		}
		return append(b, nest(unix.NFTA_SET_ELEM_DATA, nest(unix.NFTA_DATA_VERDICT, v))...)
	}
	return append(b, nest(unix.NFTA_SET_ELEM_DATA, attr(unix.NFTA_DATA_VALUE, []byte(e.value)))...)
}

// decode is an element as the kernel tells it.
func decode(b attributes) element {
	e := element{key: string(attributes(b.find(unix.NFTA_SET_ELEM_KEY)).find(unix.NFTA_DATA_VALUE)),
		end: string(attributes(b.find(attrKeyEnd)).find(unix.NFTA_DATA_VALUE))}
	if flags := b.find(unix.NFTA_SET_ELEM_FLAGS); len(flags) == 4 {
		e.stop = binary.BigEndian.Uint32(flags)&unix.NFT_SET_ELEM_INTERVAL_END != 0
	}
	result := attributes(b.find(unix.NFTA_SET_ELEM_DATA))
	e.value = string(result.find(unix.NFTA_DATA_VALUE))
	if v := attributes(result.find(unix.NFTA_DATA_VERDICT)); len(v) > 0 {
		if code := v.find(unix.NFTA_VERDICT_CODE); len(code) == 4 {
			e.verdict = int32(binary.BigEndian.Uint32(code))
		}
		e.chain = v.name(unix.NFTA_VERDICT_CHAIN)
	}
	return e
}
