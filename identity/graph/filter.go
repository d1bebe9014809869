// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"fmt"
	"reflect"
	"strings"
	"time"
)

// Bounds of a filter: whoever sends one decides neither our stack nor our time.
const (
	maxFilter  = 8 << 10
	maxDepth   = 32
	maxClauses = 200
)

// matcher judges one object; its error is a property that isn't there.
type matcher func(scope) (bool, error)

// scope is what names in a filter mean: properties of an object, and inside of
// any() the variable of one of its values.
type scope struct {
	root  item
	names map[string]any
}

// parser reads a filter by recursive descent: or, and, not, a clause.
type parser struct {
	tokens  []string
	depth   int
	clauses int
}

// parseFilter reads $filter; an empty one matches all.
func parseFilter(filter string) (matcher, error) {
	if len(filter) > maxFilter {
		return nil, badQuery("The $filter is longer than %d bytes.", maxFilter)
	}
	tokens, err := tokenize(filter)
	if err != nil {
		return nil, err
	}
	if len(tokens) == 0 {
		return nil, nil
	}
	p := &parser{tokens: tokens}
	match, err := p.or()
	if err != nil {
		return nil, err
	}
	if len(p.tokens) > 0 {
		return nil, p.bad()
	}
	return match, nil
}

// tokenize splits a filter: texts in quotes (a quote inside is doubled), names
// and literals, and single signs.
func tokenize(filter string) ([]string, error) {
	var tokens []string
	for i := 0; i < len(filter); {
		switch c := filter[i]; {
		case c == ' ' || c == '\t':
			i++
		case strings.IndexByte("(),:", c) >= 0 && !dated(filter, i):
			tokens = append(tokens, string(c))
			i++
		case c == '\'':
			end := i + 1
			for {
				next := strings.IndexByte(filter[end:], '\'')
				if next < 0 {
					return nil, badQuery("There is an unterminated string literal in the $filter.")
				}
				if end += next + 1; end >= len(filter) || filter[end] != '\'' {
					break
				}
				end++
			}
			tokens = append(tokens, filter[i:end])
			i = end
		default:
			end := i
			for end < len(filter) && (strings.IndexByte(" \t(),:'", filter[end]) < 0 || dated(filter, end)) {
				end++
			}
			tokens = append(tokens, filter[i:end])
			i = end
		}
	}
	return tokens, nil
}

// dated says whether the colon at i stands between digits, as in a time.
func dated(filter string, i int) bool {
	digit := func(at int) bool { return at >= 0 && at < len(filter) && filter[at] >= '0' && filter[at] <= '9' }
	return filter[i] == ':' && digit(i-1) && digit(i+1)
}

func (p *parser) bad() error {
	at := "its end"
	if len(p.tokens) > 0 {
		at = "'" + clip(p.tokens[0]) + "'"
	}
	return badQuery("Invalid filter clause: it isn't understood at %s. Comparisons (eq, ne, ge, gt, le, lt, in), startswith, endswith, contains, any() and all() are, with and, or, not and parentheses.", at)
}

func (p *parser) peek(words ...string) bool {
	if len(p.tokens) == 0 {
		return false
	}
	for _, w := range words {
		if strings.EqualFold(p.tokens[0], w) {
			return true
		}
	}
	return false
}

func (p *parser) take() string {
	if len(p.tokens) == 0 {
		return ""
	}
	token := p.tokens[0]
	p.tokens = p.tokens[1:]
	return token
}

func (p *parser) expect(sign string) error {
	if !p.peek(sign) {
		return p.bad()
	}
	p.take()
	return nil
}

func (p *parser) or() (matcher, error) {
	if p.depth++; p.depth > maxDepth {
		return nil, badQuery("The $filter is nested too deep.")
	}
	defer func() { p.depth-- }()
	left, err := p.and()
	for err == nil && p.peek("or") {
		p.take()
		var right matcher
		if right, err = p.and(); err != nil {
			return nil, err
		}
		first := left
		left = func(s scope) (bool, error) {
			a, err := first(s)
			if err != nil {
				return false, err
			}
			b, err := right(s)
			return a || b, err
		}
	}
	return left, err
}

func (p *parser) and() (matcher, error) {
	left, err := p.unary()
	for err == nil && p.peek("and") {
		p.take()
		var right matcher
		if right, err = p.unary(); err != nil {
			return nil, err
		}
		first := left
		left = func(s scope) (bool, error) {
			a, err := first(s)
			if err != nil {
				return false, err
			}
			b, err := right(s)
			return a && b, err
		}
	}
	return left, err
}

func (p *parser) unary() (matcher, error) {
	if p.clauses++; p.clauses > maxClauses {
		return nil, badQuery("The $filter has more than %d clauses.", maxClauses)
	}
	if !p.peek("not") {
		return p.primary()
	}
	p.take()
	if p.depth++; p.depth > maxDepth {
		return nil, badQuery("The $filter is nested too deep.")
	}
	defer func() { p.depth-- }()
	inner, err := p.unary()
	if err != nil {
		return nil, err
	}
	return func(s scope) (bool, error) {
		ok, err := inner(s)
		return !ok, err
	}, nil
}

func (p *parser) primary() (matcher, error) {
	if p.peek("(") {
		p.take()
		inner, err := p.or()
		if err != nil {
			return nil, err
		}
		return inner, p.expect(")")
	}
	if p.peek("startswith", "endswith", "contains") {
		return p.function()
	}
	path := p.take()
	if path == "" || !nameLike(path) {
		p.tokens = append([]string{path}, p.tokens...)
		return nil, p.bad()
	}
	segments := strings.Split(path, "/")
	if last := segments[len(segments)-1]; p.peek("(") && len(segments) > 1 && (last == "any" || last == "all") {
		return p.lambda(segments[:len(segments)-1], last == "all")
	}
	return p.comparison(segments)
}

func nameLike(token string) bool {
	return !strings.ContainsAny(token, "(),:'\"") && token[0] != '-' && (token[0] < '0' || token[0] > '9')
}

func (p *parser) function() (matcher, error) {
	name := strings.ToLower(p.take())
	if err := p.expect("("); err != nil {
		return nil, err
	}
	path := strings.Split(p.take(), "/")
	if err := p.expect(","); err != nil {
		return nil, err
	}
	literal, err := p.literal()
	if err != nil {
		return nil, err
	}
	want, ok := literal.(string)
	if !ok {
		return nil, badQuery("%s compares with a text.", name)
	}
	if err := p.expect(")"); err != nil {
		return nil, err
	}
	test := map[string]func(string, string) bool{"startswith": strings.HasPrefix, "endswith": strings.HasSuffix, "contains": strings.Contains}[name]
	want = strings.ToLower(want)
	return func(s scope) (bool, error) {
		value, err := s.value(path)
		text, _ := value.(string)
		return err == nil && value != nil && test(strings.ToLower(text), want), err
	}, nil
}

// lambda reads any(x:…) and all(x:…) behind a collection; any() alone is: not empty.
func (p *parser) lambda(path []string, all bool) (matcher, error) {
	p.take()
	if p.peek(")") && !all {
		p.take()
		return func(s scope) (bool, error) {
			values, err := s.values(path)
			return len(values) > 0, err
		}, nil
	}
	variable := p.take()
	if variable == "" || !nameLike(variable) {
		return nil, p.bad()
	}
	if err := p.expect(":"); err != nil {
		return nil, err
	}
	inner, err := p.or()
	if err != nil {
		return nil, err
	}
	return func(s scope) (bool, error) {
		values, err := s.values(path)
		if err != nil {
			return false, err
		}
		for _, value := range values {
			ok, err := inner(s.with(variable, value))
			if err != nil || ok != all {
				return ok, err
			}
		}
		return all, nil
	}, p.expect(")")
}

func (p *parser) comparison(path []string) (matcher, error) {
	operator := strings.ToLower(p.take())
	if operator == "in" {
		return p.in(path)
	}
	if !strings.Contains(" eq ne gt ge lt le ", " "+operator+" ") || operator == "" {
		return nil, badQuery("Invalid filter clause: the operator '%s' is not implemented.", clip(operator))
	}
	want, err := p.literal()
	if err != nil {
		return nil, err
	}
	return func(s scope) (bool, error) {
		value, err := s.value(path)
		if err != nil {
			return false, err
		}
		switch operator {
		case "eq":
			return same(value, want), nil
		case "ne":
			return !same(value, want), nil
		}
		c, ok := ordered(value, want)
		switch operator {
		case "gt":
			return ok && c > 0, nil
		case "ge":
			return ok && c >= 0, nil
		case "lt":
			return ok && c < 0, nil
		}
		return ok && c <= 0, nil
	}, nil
}

func (p *parser) in(path []string) (matcher, error) {
	if err := p.expect("("); err != nil {
		return nil, err
	}
	var wanted []any
	for {
		want, err := p.literal()
		if err != nil {
			return nil, err
		}
		wanted = append(wanted, want)
		if p.peek(")") {
			p.take()
			break
		}
		if err := p.expect(","); err != nil {
			return nil, err
		}
	}
	return func(s scope) (bool, error) {
		value, err := s.value(path)
		if err != nil {
			return false, err
		}
		for _, want := range wanted {
			if same(value, want) {
				return true, nil
			}
		}
		return false, nil
	}, nil
}

// literal reads a text, true, false, null, or a bare word: a GUID, a time, a number.
func (p *parser) literal() (any, error) {
	token := p.take()
	switch {
	case token == "" || strings.Contains("(),:", token):
		p.tokens = append([]string{token}, p.tokens...)
		return nil, p.bad()
	case token[0] == '\'':
		return strings.ReplaceAll(token[1:len(token)-1], "''", "'"), nil
	case strings.EqualFold(token, "true"):
		return true, nil
	case strings.EqualFold(token, "false"):
		return false, nil
	case strings.EqualFold(token, "null"):
		return nil, nil
	}
	return token, nil
}

// same compares any case, as the directory's names are.
func same(value, want any) bool {
	if value == nil || want == nil {
		return value == nil && want == nil
	}
	if b, ok := value.(bool); ok {
		w, isBool := want.(bool)
		return isBool && b == w
	}
	if c, ok := ordered(value, want); ok {
		return c == 0
	}
	return strings.EqualFold(fmt.Sprint(value), fmt.Sprint(want))
}

// ordered compares times as times, and all else as text.
func ordered(value, want any) (int, bool) {
	a, okA := value.(string)
	b, okB := want.(string)
	if !okA || !okB {
		return 0, false
	}
	x, errX := time.Parse(time.RFC3339, a)
	y, errY := time.Parse(time.RFC3339, b)
	if errX == nil && errY == nil {
		return x.Compare(y), true
	}
	return strings.Compare(strings.ToLower(a), strings.ToLower(b)), true
}

func (s scope) with(name string, value any) scope {
	next := scope{root: s.root, names: map[string]any{name: value}}
	for known, v := range s.names {
		if known != name {
			next.names[known] = v
		}
	}
	return next
}

func (s scope) value(path []string) (any, error) {
	if v, bound := s.names[path[0]]; bound {
		return inside(v, path[1:])
	}
	return lookup(s.root, path)
}

func (s scope) values(path []string) ([]any, error) {
	value, err := s.value(path)
	if err != nil || value == nil {
		return nil, err
	}
	list := reflect.ValueOf(value)
	if list.Kind() != reflect.Slice {
		return nil, badQuery("The property '%s' is not a collection.", clip(strings.Join(path, "/")))
	}
	found := make([]any, list.Len())
	for i := range found {
		found[i] = list.Index(i).Interface()
	}
	return found, nil
}

// lookup reads a property of an object; one that isn't there is said by name.
func lookup(i item, path []string) (any, error) {
	value, known := i.get(path[0])
	if !known {
		return nil, badQuery("Could not find a property named '%s'.", clip(path[0]))
	}
	return inside(value, path[1:])
}

func inside(value any, path []string) (any, error) {
	for _, name := range path {
		switch v := value.(type) {
		case nil:
			return nil, nil
		case object:
			next, known := v.get(name)
			if !known {
				return nil, badQuery("Could not find a property named '%s'.", clip(name))
			}
			value = next
		default:
			return nil, badQuery("The property before '%s' is not an object.", clip(name))
		}
	}
	if t, ok := value.(time.Time); ok {
		return t.UTC().Format(time.RFC3339), nil
	}
	return value, nil
}
