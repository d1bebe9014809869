// SPDX-License-Identifier: Apache-2.0

package rbac

import (
	"slices"
	"strings"
)

// pattern is one action pattern, cut at its wildcards. Without any it is the action itself.
type pattern []string

// maxVariants bounds how many forms one pattern takes.
const maxVariants = 16

// compile cuts a pattern. As on Azure "a/*/b" is "a/b" too, so one text can be several patterns.
func compile(text string) []pattern {
	variants := []string{strings.ToLower(text)}
	for i := 0; i < len(variants) && len(variants) < maxVariants; i++ {
		for at := 0; ; {
			found := strings.Index(variants[i][at:], "/*/")
			if found < 0 {
				break
			}
			at += found
			short := variants[i][:at] + variants[i][at+2:]
			if !slices.Contains(variants, short) {
				variants = append(variants, short)
			}
			at++
		}
	}
	patterns := make([]pattern, len(variants))
	for i, v := range variants {
		patterns[i] = strings.Split(v, "*")
	}
	return patterns
}

// matches tells whether an action, in lower case, fits.
func (p pattern) matches(action string) bool {
	rest, found := strings.CutPrefix(action, p[0])
	if !found || len(p) == 1 {
		return found && rest == ""
	}
	for _, part := range p[1 : len(p)-1] {
		i := strings.Index(rest, part)
		if i < 0 {
			return false
		}
		rest = rest[i+len(part):]
	}
	return strings.HasSuffix(rest, p[len(p)-1])
}

// MatchAction tells whether an action fits a pattern of a role.
func MatchAction(text, action string) bool {
	return fits(compile(text), strings.ToLower(action))
}

func fits(patterns []pattern, action string) bool {
	for _, p := range patterns {
		if p.matches(action) {
			return true
		}
	}
	return false
}

// role is a definition ready for decisions.
type role struct {
	*Definition
	grants []grant
}

// grant is a Permission with its patterns cut.
type grant struct {
	control, data covering
}

// covering is what is granted less what isn't.
type covering struct {
	some, not []pattern
}

func newRole(d *Definition) *role {
	r := &role{Definition: d}
	all := func(texts []string) []pattern {
		var patterns []pattern
		for _, text := range texts {
			patterns = append(patterns, compile(text)...)
		}
		return patterns
	}
	for _, p := range d.Permissions {
		r.grants = append(r.grants, grant{
			control: covering{all(p.Actions), all(p.NotActions)},
			data:    covering{all(p.DataActions), all(p.NotDataActions)},
		})
	}
	return r
}

// covers tells whether the role grants an action, in lower case.
func (r *role) covers(action string, data bool) bool {
	for i := range r.grants {
		c := &r.grants[i].control
		if data {
			c = &r.grants[i].data
		}
		if fits(c.some, action) && !fits(c.not, action) {
			return true
		}
	}
	return false
}

// Covers tells whether a definition grants an action.
func (d *Definition) Covers(action string, data bool) bool {
	return newRole(d).covers(strings.ToLower(action), data)
}
