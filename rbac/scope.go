// SPDX-License-Identifier: Apache-2.0

package rbac

import (
	"iter"
	"slices"
	"strings"
)

// maxScope bounds a scope's length.
const maxScope = 4096

// normal gives a scope the form of the table's keys: lower case, a leading slash
// and none behind; the root is "". A scope that isn't plain segments is none:
// nobody may do anything there.
func normal(scope string) (string, bool) {
	if len(scope) > maxScope {
		return "", false
	}
	trimmed := strings.TrimSuffix(scope, "/")
	if trimmed == "" {
		return "", scope == "/" || scope == ""
	}
	if trimmed[0] != '/' {
		return "", false
	}
	lower := strings.ToLower(trimmed)
	for rest := lower[1:]; ; {
		segment, more, found := strings.Cut(rest, "/")
		if segment == "" || segment == "." || segment == ".." || strings.ContainsAny(segment, "%\\?#") || strings.ContainsFunc(segment, control) {
			return "", false
		}
		if !found {
			return lower, true
		}
		rest = more
	}
}

func control(r rune) bool { return r < 0x20 || r == 0x7f }

// NormalScope is a scope in lower case without a slash behind it, "/" for the
// root; ok is false of what can't be a scope.
func NormalScope(scope string) (string, bool) {
	s, ok := normal(scope)
	if s == "" {
		s = "/"
	}
	return s, ok
}

// Within tells whether scope is above, or something below it: whole segments, any case.
func Within(scope, above string) bool {
	s, ok := normal(scope)
	a, fine := normal(above)
	return ok && fine && beneath(s, a)
}

// beneath is Within of normal scopes.
func beneath(scope, above string) bool {
	return strings.HasPrefix(scope, above) && (len(scope) == len(above) || above == "" || scope[len(above)] == '/')
}

// lineage yields a normal scope and everything above it, from near to far: its
// leading segments, the management groups above its subscription, the root.
func (t *Table) lineage(scope string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for at := scope; at != ""; at = at[:strings.LastIndexByte(at, '/')] {
			if !yield(at) {
				return
			}
			parent, moved := t.parents[at]
			for steps := 0; moved && parent != "" && steps < maxParents; steps++ {
				if !yield(parent) {
					return
				}
				parent, moved = t.parents[parent]
			}
		}
		yield("")
	}
}

// maxParents bounds a chain of management groups; Azure has six levels and the root.
const maxParents = 16

// SetParents says which management group a subscription or management group
// stands in, by their ids: what is granted on the one above holds below.
func (t *Table) SetParents(parents map[string]string) {
	kept := make(map[string]string, len(parents))
	for child, parent := range parents {
		c, ok := normal(child)
		p, fine := normal(parent)
		if ok && fine && c != "" {
			kept[c] = p
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.parents = kept
}

// Lineage is a scope and everything above it, from near to far; "/" is last.
// It is nil of what can't be a scope.
func (t *Table) Lineage(scope string) []string {
	s, ok := normal(scope)
	if !ok {
		return nil
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	all := slices.Collect(t.lineage(s))
	all[len(all)-1] = "/"
	return all
}

// within tells whether a normal scope is another one or below it, through
// management groups too; mu is held.
func (t *Table) within(scope, above string) bool {
	if beneath(scope, above) {
		return true
	}
	for at := range t.lineage(scope) {
		if at == above {
			return true
		}
	}
	return false
}

// Covers tells whether what is granted on top holds on scope: it is the same,
// beneath it, or in a management group there.
func (t *Table) Covers(scope, top string) bool {
	s, ok := normal(scope)
	a, fine := normal(top)
	if !ok || !fine {
		return false
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.within(s, a)
}
