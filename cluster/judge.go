// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"bastide.dev/fault"
)

// judge holds a body against the decisions: every property that is set and has
// no effect here is refused by name. Names are matched as ARM does, without case.
type judge struct {
	rows     map[string]Property
	problems []*fault.Error
}

// Judge returns the problems that body has with the properties of its type.
func Judge(body map[string]any, properties []Property) []*fault.Error {
	j := judge{rows: make(map[string]Property, len(properties))}
	for _, p := range properties {
		j.rows[strings.ToLower(p.Path)] = p
	}
	j.object(body, "", Property{})
	slices.SortFunc(j.problems, func(a, b *fault.Error) int { return strings.Compare(a.Target, b.Target) })
	return j.problems
}

// object judges the members of an object at path; above is the nearest row.
func (j *judge) object(members map[string]any, path string, above Property) {
	for name, value := range members {
		child := name
		if path != "" {
			child = path + "." + name
		}
		j.value(value, child, above)
	}
}

func (j *judge) value(value any, path string, above Property) {
	row, found := j.rows[strings.ToLower(pattern(path))]
	if !found {
		row = above
	}
	switch {
	case found && (row.Treatment == Effective || row.Treatment == Plain || row.Treatment == ReadOnly):
		return
	case found && row.Treatment == Fixed:
		if !empty(value) && !slices.ContainsFunc(row.Values, func(v any) bool { return same(value, v) }) {
			j.refuse(path, value, row)
		}
		return
	}
	switch v := value.(type) {
	case map[string]any:
		j.object(v, path, row)
	case []any:
		for i, element := range v {
			j.value(element, fmt.Sprintf("%s[%d]", path, i), row)
		}
	default:
		if !off(value) {
			j.refuse(path, value, row)
		}
	}
}

func (j *judge) refuse(path string, value any, row Property) {
	text, _ := json.Marshal(value)
	message := fmt.Sprintf("%s can't be %s here", path, text)
	if len(row.Values) > 0 {
		allowed, _ := json.Marshal(row.Values)
		message += fmt.Sprintf(": only %s is possible", strings.Trim(string(allowed), "[]"))
	}
	if row.Note != "" {
		message += ": " + row.Note
	}
	j.problems = append(j.problems, fault.New(fault.Unsupported, "PropertyNotSupported", "%s.", message).At(path))
}

// pattern turns list indices into "[]".
func pattern(path string) string {
	var b strings.Builder
	inside := false
	for _, r := range path {
		if !inside || r == ']' {
			b.WriteRune(r)
		}
		inside = r == '[' || (inside && r != ']')
	}
	return b.String()
}

// empty values say nothing: the default holds.
func empty(value any) bool { return value == nil || value == "" }

// off values ask for nothing: a feature that isn't there may be switched off.
func off(value any) bool { return empty(value) || value == false || same(value, 0) }

func same(value, fixed any) bool {
	switch v := value.(type) {
	case string:
		s, ok := fixed.(string)
		return ok && strings.EqualFold(v, s)
	case json.Number:
		f, err := v.Float64()
		return err == nil && same(f, fixed)
	case float64:
		n, ok := fixed.(int)
		return ok && v == float64(n)
	}
	return value == fixed
}
