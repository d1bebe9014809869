// SPDX-License-Identifier: Apache-2.0

package rbac

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// Table holds all definitions and assignments, indexed for decisions. It is safe
// for concurrent use. What is put in belongs to it, and is never changed.
type Table struct {
	mu       sync.RWMutex // guards all below
	roles    map[string]*role
	entries  map[string]*entry              // by the assignment's id
	holdings map[string]map[string][]*entry // principal → scope → its assignments there
	scopes   map[string][]*entry
	parents  map[string]string // of subscriptions and management groups
}

// entry is an assignment ready for decisions.
type entry struct {
	*Assignment
	key       string
	principal string
	scope     string
	role      string
	condition *Condition // nil: none
	broken    bool       // its condition can't be read: it grants nothing
}

// NewTable makes a table of the built-in definitions and no assignments.
func NewTable() *Table {
	t := &Table{roles: map[string]*role{}}
	t.clear()
	for _, d := range Builtin() {
		t.roles[d.ID] = newRole(d)
	}
	return t
}

func (t *Table) clear() {
	t.entries, t.holdings, t.scopes = map[string]*entry{}, map[string]map[string][]*entry{}, map[string][]*entry{}
}

// Define adds or replaces a custom definition; built-in ones stay as they are.
func (t *Table) Define(d *Definition) {
	made := newRole(d)
	t.mu.Lock()
	defer t.mu.Unlock()
	key := strings.ToLower(d.ID)
	if old := t.roles[key]; old == nil || old.Custom {
		t.roles[key] = made
	}
}

// Undefine takes a custom definition away: assignments of it grant nothing.
func (t *Table) Undefine(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	key := strings.ToLower(id)
	if old := t.roles[key]; old != nil && old.Custom {
		delete(t.roles, key)
	}
}

// Put adds or replaces an assignment by its ID.
func (t *Table) Put(a *Assignment) {
	e := newEntry(a)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.remove(e.key)
	t.entries[e.key] = e
	held := t.holdings[e.principal]
	if held == nil {
		held = map[string][]*entry{}
		t.holdings[e.principal] = held
	}
	held[e.scope] = append(held[e.scope], e)
	t.scopes[e.scope] = append(t.scopes[e.scope], e)
}

func newEntry(a *Assignment) *entry {
	e := &entry{Assignment: a, key: strings.ToLower(a.ID), principal: strings.ToLower(a.PrincipalID), role: strings.ToLower(a.Role)}
	scope, ok := normal(a.Scope)
	e.scope, e.broken = scope, !ok
	if a.Condition != "" {
		condition, err := ParseCondition(a.Condition)
		e.condition, e.broken = condition, e.broken || err != nil
	}
	return e
}

// Remove takes an assignment away.
func (t *Table) Remove(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.remove(strings.ToLower(id))
}

func (t *Table) remove(key string) {
	e := t.entries[key]
	if e == nil {
		return
	}
	delete(t.entries, key)
	without := func(list []*entry) []*entry {
		return slices.DeleteFunc(slices.Clone(list), func(o *entry) bool { return o == e })
	}
	held := t.holdings[e.principal]
	if held[e.scope] = without(held[e.scope]); len(held[e.scope]) == 0 {
		delete(held, e.scope)
	}
	if len(held) == 0 {
		delete(t.holdings, e.principal)
	}
	if t.scopes[e.scope] = without(t.scopes[e.scope]); len(t.scopes[e.scope]) == 0 {
		delete(t.scopes, e.scope)
	}
}

// Definition finds a definition by its GUID; nil when there is none.
func (t *Table) Definition(id string) *Definition {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if r := t.roles[strings.ToLower(id)]; r != nil {
		return r.Definition
	}
	return nil
}

// Definitions lists all definitions by name.
func (t *Table) Definitions() []*Definition {
	t.mu.RLock()
	defer t.mu.RUnlock()
	found := make([]*Definition, 0, len(t.roles))
	for r := range maps.Values(t.roles) {
		found = append(found, r.Definition)
	}
	slices.SortFunc(found, func(a, b *Definition) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	return found
}

// Assignment finds an assignment by its id; nil when there is none.
func (t *Table) Assignment(id string) *Assignment {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if e := t.entries[strings.ToLower(id)]; e != nil {
		return e.Assignment
	}
	return nil
}

// Assignments lists those that keep wants, by id; nil keeps all. keep may ask
// the table: it is called when nothing is locked.
func (t *Table) Assignments(keep func(*Assignment) bool) []*Assignment {
	found := t.all()
	if keep != nil {
		found = slices.DeleteFunc(found, func(a *Assignment) bool { return !keep(a) })
	}
	slices.SortFunc(found, func(a, b *Assignment) int { return strings.Compare(a.ID, b.ID) })
	return found
}

func (t *Table) all() []*Assignment {
	t.mu.RLock()
	defer t.mu.RUnlock()
	found := make([]*Assignment, 0, len(t.entries))
	for e := range maps.Values(t.entries) {
		found = append(found, e.Assignment)
	}
	return found
}

// Of lists a principal's own assignments.
func (t *Table) Of(principalID string) []*Assignment {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var found []*Assignment
	for _, list := range t.holdings[strings.ToLower(principalID)] {
		for _, e := range list {
			found = append(found, e.Assignment)
		}
	}
	return found
}

func (e *entry) expired(now time.Time) bool { return !e.Expires.IsZero() && !now.Before(e.Expires) }
