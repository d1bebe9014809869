// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"bastide.dev/fault"
)

// query applies OData's $filter, $select and $top; any other parameter is refused by name.
func query(values url.Values, found []object) ([]object, error) {
	for name := range values {
		if !slices.Contains([]string{"$filter", "$select", "$top"}, name) {
			return nil, badQuery("The query parameter '%s' is not implemented.", name)
		}
	}
	matches, names, err := parseFilter(values.Get("$filter"))
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if len(found) > 0 && !has(found[0], name) {
			return nil, badQuery("Could not find a property named '%s' to filter by.", name)
		}
	}
	found = slices.DeleteFunc(found, func(o object) bool {
		return slices.ContainsFunc(matches, func(match func(object) bool) bool { return !match(o) })
	})
	if top := values.Get("$top"); top != "" {
		n, err := strconv.Atoi(top)
		if err != nil || n < 1 || n > 999 {
			return nil, badQuery("$top must be a number from 1 to 999.")
		}
		found = found[:min(n, len(found))]
	}
	if fields := values.Get("$select"); fields != "" {
		for i, o := range found {
			found[i] = pick(o, strings.Split(fields, ","))
		}
	}
	return found, nil
}

func pick(o object, fields []string) object {
	kept := maps.Clone(o)
	maps.DeleteFunc(kept, func(name string, _ any) bool {
		return name != "@odata.type" && !slices.ContainsFunc(fields, func(f string) bool { return strings.EqualFold(strings.TrimSpace(f), name) })
	})
	return kept
}

// The clauses of a filter that are understood; they are joined by "and". A quote
// inside a text is doubled.
var (
	equalForm  = regexp.MustCompile(`^(?i:(\w+)\s+eq\s+(?:'((?:[^']|'')*)'|(true|false)))`)
	startsForm = regexp.MustCompile(`^(?i:startswith\(\s*(\w+)\s*,\s*'((?:[^']|'')*)'\s*\))`)
	anyForm    = regexp.MustCompile(`^(?i:(\w+)/any\(\s*(\w+)\s*:\s*(\w+)\s+eq\s+'((?:[^']|'')*)'\s*\))`)
	andForm    = regexp.MustCompile(`^(?i:\s+and\s+)`)
)

// parseFilter reads a filter into the conditions that must all hold, and the
// properties they look at.
func parseFilter(filter string) (matches []func(object) bool, names []string, err error) {
	rest := strings.TrimSpace(filter)
	for rest != "" {
		match, name, length := parseClause(rest)
		if match == nil {
			return nil, nil, badQuery("The $filter '%s' is not implemented: clauses 'a eq 'b'', 'startswith(a,'b')' and 'a/any(x:x eq 'b')' are, joined by 'and'.", filter)
		}
		matches, names = append(matches, match), append(names, name)
		if rest = rest[length:]; rest == "" {
			break
		}
		and := andForm.FindString(rest)
		if and == "" || rest == and {
			return nil, nil, badQuery("The $filter '%s' is malformed.", filter)
		}
		rest = rest[len(and):]
	}
	return matches, names, nil
}

// parseClause reads one clause: its condition, its property, its length; nil when it is none.
func parseClause(text string) (func(object) bool, string, int) {
	if m := equalForm.FindStringSubmatch(text); m != nil {
		want := strings.ReplaceAll(m[2], "''", "'")
		if m[3] != "" {
			return func(o object) bool {
				b, ok := field(o, m[1]).(bool)
				return ok && b == strings.EqualFold(m[3], "true")
			}, m[1], len(m[0])
		}
		return func(o object) bool {
			v, ok := field(o, m[1]).(string)
			return ok && strings.EqualFold(v, want)
		}, m[1], len(m[0])
	}
	if m := startsForm.FindStringSubmatch(text); m != nil {
		want := strings.ToLower(strings.ReplaceAll(m[2], "''", "'"))
		return func(o object) bool {
			v, ok := field(o, m[1]).(string)
			return ok && strings.HasPrefix(strings.ToLower(v), want)
		}, m[1], len(m[0])
	}
	if m := anyForm.FindStringSubmatch(text); m != nil && m[2] == m[3] {
		want := strings.ReplaceAll(m[4], "''", "'")
		return func(o object) bool {
			all, ok := field(o, m[1]).([]string)
			return ok && slices.ContainsFunc(all, func(v string) bool { return strings.EqualFold(v, want) })
		}, m[1], len(m[0])
	}
	return nil, "", 0
}

func has(o object, name string) bool {
	for key := range o {
		if strings.EqualFold(key, name) {
			return true
		}
	}
	return false
}

func field(o object, name string) any {
	for key, value := range o {
		if strings.EqualFold(key, name) {
			return value
		}
	}
	return nil
}

func badQuery(format string, args ...any) *fault.Error {
	return fault.New(fault.Invalid, "Request_UnsupportedQuery", format, args...)
}
