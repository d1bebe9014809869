// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"bastide.dev/fault"
)

// Treatment is what becomes of a property in a request.
type Treatment string

// The treatments. A property that no row names is refused, like Refused.
const (
	Effective Treatment = "effective" // has its real effect
	Plain     Treatment = "plain"     // kept and given back; billing, descriptions
	ReadOnly  Treatment = "read-only" // ours to say; a client may send back what it read
	Fixed     Treatment = "fixed"     // only the values that say what is so anyway
	Refused   Treatment = "refused"   // by name, unless it is off or empty
)

// Property is the decision on one property, or on a whole object with all below
// it. Path is the JSON path; "[]" stands for the elements of a list.
type Property struct {
	Path      string
	Treatment Treatment
	Values    []any  // of Fixed
	Note      string // why, or what to do instead; part of the refusal
}

// Rows are decisions of one kind.
func Rows(treatment Treatment, paths ...string) []Property {
	rows := make([]Property, len(paths))
	for i, path := range paths {
		rows[i] = Property{Path: path, Treatment: treatment}
	}
	return rows
}

// Within puts rows below an object or the elements of a list, such as "properties.subnets[].".
func Within(prefix string, rows []Property) []Property {
	moved := slices.Clone(rows)
	for i := range moved {
		moved[i].Path = prefix + moved[i].Path
	}
	return moved
}

// ReadOnlyPaths are the paths of read-only rows, for Type.ReadOnly.
func ReadOnlyPaths(rows []Property) []string {
	var paths []string
	for _, row := range rows {
		if row.Treatment == ReadOnly {
			paths = append(paths, row.Path)
		}
	}
	return paths
}

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
	j.object(body, "", "", Property{})
	slices.SortFunc(j.problems, func(a, b *fault.Error) int { return strings.Compare(a.Target, b.Target) })
	return j.problems
}

// object judges the members of an object at path; pattern is the path as rows
// have it, in lower case, and above the nearest row.
func (j *judge) object(members map[string]any, path, pattern string, above Property) {
	for name, value := range members {
		if path == "" {
			j.value(value, name, strings.ToLower(name), above)
			continue
		}
		j.value(value, path+"."+name, pattern+"."+strings.ToLower(name), above)
	}
}

func (j *judge) value(value any, path, pattern string, above Property) {
	row, found := j.rows[pattern]
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
		j.object(v, path, pattern, row)
	case []any:
		for i, element := range v {
			j.value(element, path+"["+strconv.Itoa(i)+"]", pattern+"[]", row)
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
