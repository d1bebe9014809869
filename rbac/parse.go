// SPDX-License-Identifier: Apache-2.0

package rbac

import (
	"fmt"
	"slices"
	"strings"
)

// The bounds of a condition. Azure takes 8 KiB of text.
const (
	MaxCondition   = 8 << 10
	maxConditionIn = 64 // parentheses and negations within each other
)

// ParseCondition parses a condition. Its error says where the text isn't understood.
func ParseCondition(text string) (*Condition, error) {
	if len(text) > MaxCondition {
		return nil, fmt.Errorf("the condition is longer than %d bytes", MaxCondition)
	}
	tokens, err := lex(text)
	if err != nil {
		return nil, err
	}
	p := &parser{tokens: tokens, end: len(text)}
	root, err := p.either(0)
	if err != nil {
		return nil, err
	}
	if len(p.tokens) > 0 {
		return nil, p.unexpected("the end")
	}
	return &Condition{root: root, used: p.used}, nil
}

type parser struct {
	tokens []token
	end    int
	used   []string
}

func (p *parser) peek() token {
	if len(p.tokens) == 0 {
		return token{kind: tokenEnd, at: p.end}
	}
	return p.tokens[0]
}

func (p *parser) next() token {
	t := p.peek()
	if len(p.tokens) > 0 {
		p.tokens = p.tokens[1:]
	}
	return t
}

func (p *parser) unexpected(wanted string) error {
	t := p.peek()
	if t.kind == tokenEnd {
		return fmt.Errorf("the condition ends where %s is expected", wanted)
	}
	return fmt.Errorf("'%s' at character %d isn't understood: %s is expected", t.text, t.at+1, wanted)
}

func (p *parser) sign(s string) bool {
	if t := p.peek(); t.kind == tokenSign && t.text == s {
		p.next()
		return true
	}
	return false
}

func (p *parser) word(w string) bool {
	if t := p.peek(); t.kind == tokenWord && strings.EqualFold(t.text, w) {
		p.next()
		return true
	}
	return false
}

func (p *parser) either(depth int) (node, error) {
	left, err := p.both(depth)
	for err == nil && (p.sign("||") || p.word("OR")) {
		var right node
		right, err = p.both(depth)
		left = either{left, right}
	}
	return left, err
}

func (p *parser) both(depth int) (node, error) {
	left, err := p.single(depth)
	for err == nil && (p.sign("&&") || p.word("AND")) {
		var right node
		right, err = p.single(depth)
		left = both{left, right}
	}
	return left, err
}

func (p *parser) single(depth int) (node, error) {
	if depth > maxConditionIn {
		return nil, fmt.Errorf("the condition is nested deeper than %d", maxConditionIn)
	}
	switch {
	case p.sign("!") || p.word("NOT"):
		inner, err := p.single(depth + 1)
		return negated{inner}, err
	case p.sign("("):
		inner, err := p.either(depth + 1)
		if err == nil && !p.sign(")") {
			err = p.unexpected("')'")
		}
		return inner, err
	case p.word("ActionMatches"):
		names, err := p.set()
		n := acts{}
		for _, name := range names {
			n.patterns = append(n.patterns, compile(name)...)
		}
		return n, err
	case p.word("SubOperationMatches"):
		names, err := p.set()
		return suboper{names}, err
	case p.word("Exists"):
		key, err := p.attribute()
		return exists{key}, err
	case p.word("NotExists"):
		key, err := p.attribute()
		return negated{exists{key}}, err
	}
	return p.comparison()
}

func (p *parser) comparison() (node, error) {
	left, err := p.operand()
	if err != nil {
		return nil, err
	}
	name := p.peek()
	if name.kind != tokenWord {
		return nil, p.unexpected("an operator")
	}
	n := comparison{left: left}
	base := name.text
	if prefix, rest, found := strings.Cut(name.text, ":"); found {
		n.crossed, base = true, rest
		switch strings.ToLower(prefix) {
		case "foranyofanyvalues":
		case "forallofanyvalues":
			n.allLeft = true
		case "foranyofallvalues":
			n.allRight = true
		case "forallofallvalues":
			n.allLeft, n.allRight = true, true
		default:
			return nil, p.unexpected("ForAnyOfAnyValues, ForAllOfAnyValues, ForAnyOfAllValues or ForAllOfAllValues before the ':'")
		}
	}
	holds, known := operator(base)
	if !known {
		return nil, p.unexpected("an operator")
	}
	p.next()
	n.fits = holds
	n.right, err = p.operand()
	return n, err
}

func (p *parser) operand() (operand, error) {
	switch t := p.peek(); {
	case t.kind == tokenAttribute:
		key, err := p.attribute()
		return operand{key: key}, err
	case t.kind == tokenString || t.kind == tokenWord:
		p.next()
		return operand{literals: []string{t.text}}, nil
	case t.kind == tokenSign && t.text == "{":
		values, err := p.set()
		return operand{literals: values}, err
	}
	return operand{}, p.unexpected("an attribute or a value")
}

func (p *parser) attribute() (string, error) {
	t := p.peek()
	if t.kind != tokenAttribute {
		return "", p.unexpected("an attribute such as @Request[…]")
	}
	p.next()
	if !slices.Contains(p.used, t.text) {
		p.used = append(p.used, t.text)
	}
	return t.text, nil
}

// set parses {'a', 'b'}.
func (p *parser) set() ([]string, error) {
	if !p.sign("{") {
		return nil, p.unexpected("'{'")
	}
	var values []string
	for {
		t := p.peek()
		if t.kind != tokenString && t.kind != tokenWord {
			return nil, p.unexpected("a value")
		}
		values = append(values, p.next().text)
		if p.sign("}") {
			return values, nil
		}
		if !p.sign(",") {
			return nil, p.unexpected("',' or '}'")
		}
	}
}
