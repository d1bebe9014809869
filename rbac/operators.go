// SPDX-License-Identifier: Apache-2.0

package rbac

import (
	"cmp"
	"strconv"
	"strings"
	"time"
)

// operator finds a comparison by name. A "Not" in its name turns its base
// around; values that aren't of the operator's type fit neither way.
func operator(name string) (func(left, right string) bool, bool) {
	lower := strings.ToLower(name)
	switch {
	case strings.HasPrefix(lower, "string"):
		return stringOperator(lower[len("string"):])
	case lower == "guidequals":
		return typed(guid, func(a, b string) bool { return a == b }), true
	case lower == "guidnotequals":
		return typed(guid, func(a, b string) bool { return a != b }), true
	case lower == "boolequals":
		return typed(parseBool, func(a, b bool) bool { return a == b }), true
	case lower == "boolnotequals":
		return typed(parseBool, func(a, b bool) bool { return a != b }), true
	case strings.HasPrefix(lower, "numeric"):
		holds, ok := ordering(lower[len("numeric"):])
		return typed(number, func(a, b float64) bool { return holds(cmp.Compare(a, b)) }), ok
	case strings.HasPrefix(lower, "datetime"):
		holds, ok := ordering(lower[len("datetime"):])
		return typed(moment, func(a, b time.Time) bool { return holds(a.Compare(b)) }), ok
	}
	return nil, false
}

func stringOperator(name string) (func(left, right string) bool, bool) {
	base, fold := strings.CutSuffix(name, "ignorecase")
	base, not := strings.CutPrefix(base, "not")
	var holds func(l, r string) bool
	switch base {
	case "equals":
		holds = func(l, r string) bool { return l == r }
	case "startswith":
		holds = strings.HasPrefix
	case "like":
		holds = like
	default:
		return nil, false
	}
	return func(l, r string) bool {
		if fold {
			l, r = strings.ToLower(l), strings.ToLower(r)
		}
		return holds(l, r) != not
	}, true
}

// like matches text with a pattern of "*" for any text and "?" for any one character.
func like(text, pattern string) bool {
	t, p := []rune(text), []rune(pattern)
	ti, pi, star, mark := 0, 0, -1, 0
	for ti < len(t) {
		switch {
		case pi < len(p) && p[pi] == '*':
			star, mark = pi, ti
			pi++
		case pi < len(p) && (p[pi] == '?' || p[pi] == t[ti]):
			ti, pi = ti+1, pi+1
		case star >= 0:
			mark++
			ti, pi = mark, star+1
		default:
			return false
		}
	}
	for pi < len(p) && p[pi] == '*' {
		pi++
	}
	return pi == len(p)
}

func typed[T any](parse func(string) (T, bool), holds func(a, b T) bool) func(left, right string) bool {
	return func(left, right string) bool {
		a, ok := parse(left)
		b, fine := parse(right)
		return ok && fine && holds(a, b)
	}
}

func ordering(name string) (func(order int) bool, bool) {
	switch name {
	case "equals":
		return func(o int) bool { return o == 0 }, true
	case "notequals":
		return func(o int) bool { return o != 0 }, true
	case "greaterthan":
		return func(o int) bool { return o > 0 }, true
	case "greaterthanequals":
		return func(o int) bool { return o >= 0 }, true
	case "lessthan":
		return func(o int) bool { return o < 0 }, true
	case "lessthanequals":
		return func(o int) bool { return o <= 0 }, true
	}
	return nil, false
}

// guid takes a GUID, or a resource id that ends in one, such as a role definition's.
func guid(s string) (string, bool) {
	s = strings.ToLower(s[strings.LastIndexByte(s, '/')+1:])
	if len(s) != 36 {
		return "", false
	}
	for i := range len(s) {
		dash := i == 8 || i == 13 || i == 18 || i == 23
		hex := s[i] >= '0' && s[i] <= '9' || s[i] >= 'a' && s[i] <= 'f'
		if dash != (s[i] == '-') || !dash && !hex {
			return "", false
		}
	}
	return s, true
}

func parseBool(s string) (bool, bool) {
	switch strings.ToLower(s) {
	case "true":
		return true, true
	case "false":
		return false, true
	}
	return false, false
}

func number(s string) (float64, bool) {
	f, err := strconv.ParseFloat(s, 64)
	return f, err == nil && f == f //nolint:gocritic // NaN is no number
}

func moment(s string) (time.Time, bool) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}
