// SPDX-License-Identifier: Apache-2.0

package rbac

import (
	"fmt"
	"slices"
	"strings"
)

type tokenKind int

const (
	tokenEnd       tokenKind = iota
	tokenSign                // ( ) { } , ! && ||
	tokenWord                // operators, numbers, GUIDs, true and false
	tokenString              // 'text'
	tokenAttribute           // @Source[name], as Attribute makes it
)

type token struct {
	kind tokenKind
	text string
	at   int
}

// lex cuts a condition into tokens.
func lex(text string) ([]token, error) {
	var tokens []token
	for at := 0; at < len(text); {
		c := text[at]
		switch {
		case strings.IndexByte(" \t\r\n", c) >= 0:
			at++
			continue
		case strings.HasPrefix(text[at:], "&&"), strings.HasPrefix(text[at:], "||"):
			tokens = append(tokens, token{tokenSign, text[at : at+2], at})
			at += 2
			continue
		case strings.IndexByte("(){},!", c) >= 0:
			tokens = append(tokens, token{tokenSign, text[at : at+1], at})
			at++
			continue
		}
		take := lexWord
		switch c {
		case '\'':
			take = lexString
		case '@':
			take = lexAttribute
		}
		t, length, err := take(text[at:])
		if err != nil {
			return nil, fmt.Errorf("at character %d: %w", at+1, err)
		}
		t.at = at
		tokens, at = append(tokens, t), at+length
	}
	return tokens, nil
}

func lexWord(text string) (token, int, error) {
	end := strings.IndexFunc(text, func(r rune) bool {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		return !letter && !strings.ContainsRune("_.:-", r)
	})
	if end < 0 {
		end = len(text)
	}
	if end == 0 {
		r := []rune(text)[0]
		return token{}, 0, fmt.Errorf("'%c' isn't understood", r)
	}
	return token{kind: tokenWord, text: text[:end]}, end, nil
}

// lexString takes text in single quotes; a quote or backslash in it stands behind a backslash.
func lexString(text string) (token, int, error) {
	var b strings.Builder
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '\'':
			return token{kind: tokenString, text: b.String()}, i + 1, nil
		case '\\':
			if i++; i == len(text) {
				return token{}, 0, fmt.Errorf("the text isn't closed by a quote")
			}
		}
		b.WriteByte(text[i])
	}
	return token{}, 0, fmt.Errorf("the text isn't closed by a quote")
}

// lexAttribute takes @Source[name].
func lexAttribute(text string) (token, int, error) {
	source, rest, found := strings.Cut(text[1:], "[")
	sources := []string{OfRequest, OfResource, OfPrincipal, OfEnvironment}
	if !found || !slices.ContainsFunc(sources, func(s string) bool { return strings.EqualFold(s, source) }) {
		return token{}, 0, fmt.Errorf("an attribute begins with @Request[, @Resource[, @Principal[ or @Environment[")
	}
	name, _, found := strings.Cut(rest, "]")
	if !found || name == "" || strings.ContainsAny(name, "[]@'\n") {
		return token{}, 0, fmt.Errorf("an attribute's name ends with ']'")
	}
	return token{kind: tokenAttribute, text: Attribute(source, name)}, len(source) + len(name) + 3, nil
}
