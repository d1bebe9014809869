// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"slices"
	"strings"

	"bastide.dev/fault"
)

// filter is a parsed $filter: the part of OData that ARM's lists know.
//
//	or         = and { "or" and }
//	and        = term { "and" term }
//	term       = "not" term | "(" or ")" | function | comparison
//	comparison = field ("eq"|"ne"|"gt"|"ge"|"lt"|"le") literal
//	function   = "substringof(" literal "," field ")" | ("contains"|"startswith") "(" field "," literal ")"
type filter struct {
	op           string // "", "or", "and", "not", a comparison or a function
	field, value string
	of           []*filter
}

// maxFilterDepth bounds nesting, so that no text exhausts the stack.
const maxFilterDepth = 32

func parseFilter(text string) (*filter, error) {
	if strings.TrimSpace(text) == "" {
		return &filter{}, nil
	}
	tokens, ok := filterTokens(text)
	p := &filterParser{tokens: tokens}
	if ok {
		f := p.or(0)
		if f != nil && len(p.tokens) == 0 {
			return f, nil
		}
	}
	return nil, fault.New(fault.Invalid, "InvalidFilterInQueryString", "Invalid $filter '%s' specified in the query string.", text).At("$filter")
}

// matches evaluates the filter; field gives a name's values.
func (f *filter) matches(field func(string) ([]string, bool)) (bool, error) {
	switch f.op {
	case "":
		return true, nil
	case "not":
		ok, err := f.of[0].matches(field)
		return !ok, err
	case "and", "or":
		for _, part := range f.of {
			ok, err := part.matches(field)
			if err != nil || ok == (f.op == "or") {
				return ok, err
			}
		}
		return f.op == "and", nil
	}
	values, known := field(f.field)
	if !known {
		return false, fault.New(fault.Invalid, "InvalidFilterInQueryString", "The field '%s' can't be filtered on.", f.field).At("$filter")
	}
	if f.op == "ne" {
		return !slices.ContainsFunc(values, func(v string) bool { return strings.EqualFold(v, f.value) }), nil
	}
	return slices.ContainsFunc(values, f.holds), nil
}

func (f *filter) holds(v string) bool {
	v, want := strings.ToLower(v), strings.ToLower(f.value)
	switch f.op {
	case "eq":
		return v == want
	case "gt":
		return v > want
	case "ge":
		return v >= want
	case "lt":
		return v < want
	case "le":
		return v <= want
	case "startswith":
		return strings.HasPrefix(v, want)
	}
	return strings.Contains(v, want) // substringof, contains
}

type filterParser struct{ tokens []string }

func (p *filterParser) next() string {
	if len(p.tokens) == 0 {
		return ""
	}
	token := p.tokens[0]
	p.tokens = p.tokens[1:]
	return token
}

func (p *filterParser) take(want string) bool {
	if len(p.tokens) > 0 && strings.EqualFold(p.tokens[0], want) {
		p.tokens = p.tokens[1:]
		return true
	}
	return false
}

func (p *filterParser) or(depth int) *filter  { return p.list("or", p.and, depth) }
func (p *filterParser) and(depth int) *filter { return pairTag(p.list("and", p.term, depth)) }

func (p *filterParser) list(op string, part func(int) *filter, depth int) *filter {
	if depth > maxFilterDepth {
		return nil
	}
	f := &filter{op: op}
	for {
		one := part(depth + 1)
		if one == nil {
			return nil
		}
		f.of = append(f.of, one)
		if !p.take(op) {
			break
		}
	}
	if len(f.of) == 1 {
		return f.of[0]
	}
	return f
}

func (p *filterParser) term(depth int) *filter {
	switch {
	case p.take("not"):
		if depth > maxFilterDepth {
			return nil
		}
		if inner := p.term(depth + 1); inner != nil {
			return &filter{op: "not", of: []*filter{inner}}
		}
		return nil
	case p.take("("):
		inner := p.or(depth)
		if inner == nil || !p.take(")") {
			return nil
		}
		return inner
	}
	first := p.next()
	switch op := strings.ToLower(first); op {
	case "substringof":
		return p.function(op, true)
	case "contains", "startswith":
		return p.function(op, false)
	}
	op := strings.ToLower(p.next())
	value, ok := literal(p.next())
	if !ok || !isName(first) || !slices.Contains([]string{"eq", "ne", "gt", "ge", "lt", "le"}, op) {
		return nil
	}
	return &filter{op: op, field: first, value: value}
}

// function parses the arguments; OData's substringof has the literal first.
func (p *filterParser) function(op string, literalFirst bool) *filter {
	if !p.take("(") {
		return nil
	}
	a, comma, b, end := p.next(), p.next(), p.next(), p.next()
	if literalFirst {
		a, b = b, a
	}
	value, ok := literal(b)
	if !ok || !isName(a) || comma != "," || end != ")" {
		return nil
	}
	return &filter{op: op, field: a, value: value}
}

// pairTag makes "tagName eq 'a' and tagValue eq 'b'" mean one tag, not two.
func pairTag(f *filter) *filter {
	if f == nil || f.op != "and" {
		return f
	}
	find := func(name string) int {
		return slices.IndexFunc(f.of, func(g *filter) bool { return g.op == "eq" && strings.EqualFold(g.field, name) })
	}
	name, value := find("tagName"), find("tagValue")
	if name < 0 || value < 0 {
		return f
	}
	f.of[name] = &filter{op: "eq", field: "tag:" + f.of[name].value, value: f.of[value].value}
	f.of = slices.Delete(f.of, value, value+1)
	return f
}

func isName(s string) bool {
	return s != "" && !strings.HasPrefix(s, "'") && !strings.ContainsAny(s, "(),")
}

// literal is a quoted string's text, or a bare word.
func literal(token string) (string, bool) {
	if strings.HasPrefix(token, "'") {
		return strings.ReplaceAll(token[1:len(token)-1], "''", "'"), true
	}
	return token, isName(token)
}

// filterTokens cuts the text into words, quoted strings (with their quotes) and "(", ")", ",".
func filterTokens(text string) ([]string, bool) {
	var tokens []string
	for text = strings.TrimSpace(text); text != ""; text = strings.TrimSpace(text) {
		n := 1
		switch text[0] {
		case '(', ')', ',':
		case '\'':
			if n = quotedEnd(text); n < 0 {
				return nil, false
			}
		default:
			if n = strings.IndexAny(text, " \t\r\n(),'"); n < 0 {
				n = len(text)
			}
			if n == 0 {
				return nil, false
			}
		}
		tokens = append(tokens, text[:n])
		text = text[n:]
	}
	return tokens, true
}

// quotedEnd is where the string that starts text ends; two quotes stand for one within.
func quotedEnd(text string) int {
	for i := 1; i < len(text); i++ {
		if text[i] != '\'' {
			continue
		}
		if i+1 < len(text) && text[i+1] == '\'' {
			i++
			continue
		}
		return i + 1
	}
	return -1
}
