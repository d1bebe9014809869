// SPDX-License-Identifier: Apache-2.0

package rbac

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Decide answers a request. It is the hot path: nothing is allocated on the way
// to a yes when action and scope are in lower case already.
func (t *Table) Decide(r Request) Decision {
	scope, ok := normal(r.Scope)
	if !ok {
		return Decision{Reason: "The scope isn't one: it must be a resource id of plain segments."}
	}
	action := strings.ToLower(r.Action)
	t.mu.RLock()
	defer t.mu.RUnlock()
	if e := t.granting(&r, r.ID, action, scope); e != nil {
		return t.allowed(e, "")
	}
	for _, group := range r.Groups {
		if e := t.granting(&r, group, action, scope); e != nil {
			return t.allowed(e, group)
		}
	}
	return Decision{Reason: t.why(&r, action, scope)}
}

// granting is a principal's assignment that grants the action on the scope.
func (t *Table) granting(r *Request, principal, action, scope string) *entry {
	held := t.holdings[strings.ToLower(principal)]
	if len(held) == 0 || principal == "" {
		return nil
	}
	for at := range t.lineage(scope) {
		for _, e := range held[at] {
			if t.grants(e, r, action) == yes {
				return e
			}
		}
	}
	return nil
}

// grants tells whether an assignment that is in scope grants the action.
func (t *Table) grants(e *entry, r *Request, action string) truth {
	role := t.roles[e.role]
	if role == nil || e.broken || e.expired(r.Now) || !role.covers(action, r.Data) {
		return no
	}
	if e.condition == nil {
		return yes
	}
	held := e.condition.root.eval(&evaluation{request: r, action: action})
	if held == unknown && r.Open {
		return yes
	}
	return held
}

func (t *Table) allowed(e *entry, through string) Decision {
	role := t.roles[e.role].Definition
	reason := fmt.Sprintf("Role '%s' on '%s'", role.Name, e.Scope)
	if through != "" {
		reason += " through group '" + through + "'"
	}
	return Decision{Allowed: true, Assignment: e.Assignment, Role: role, Through: through, Reason: reason + "."}
}

// why says what kept the subject's assignments on or above the scope from granting the action.
func (t *Table) why(r *Request, action, scope string) string {
	var lacking, unmet, ended []string
	note := func(list *[]string, e *entry, name string) {
		text := fmt.Sprintf("'%s' on '%s'", name, e.Scope)
		if !slices.Contains(*list, text) {
			*list = append(*list, text)
		}
	}
	for _, principal := range append([]string{r.ID}, r.Groups...) {
		held := t.holdings[strings.ToLower(principal)]
		for at := range t.lineage(scope) {
			for _, e := range held[at] {
				role := t.roles[e.role]
				switch {
				case role == nil:
				case !role.covers(action, r.Data):
					note(&lacking, e, role.Name)
				case e.expired(r.Now):
					note(&ended, e, role.Name)
				default:
					note(&unmet, e, role.Name)
				}
			}
		}
	}
	switch {
	case len(unmet) > 0:
		return "The condition isn't met of the assignment of " + strings.Join(unmet, ", ") + "."
	case len(ended) > 0:
		return "It has ended: the assignment of " + strings.Join(ended, ", ") + "."
	case len(lacking) > 0:
		return "The action isn't in the roles assigned: " + strings.Join(lacking, ", ") + "."
	}
	return "No role is assigned on the scope or above it."
}

// Related tells whether a subject has an assignment on a scope, above or below it.
func (t *Table) Related(s Subject, scope string, now time.Time) bool {
	return t.holds(s, scope, now, func(at, mine string) bool { return t.within(at, mine) || t.within(mine, at) })
}

// Below tells whether a subject has an assignment on a scope or below it.
func (t *Table) Below(s Subject, scope string, now time.Time) bool {
	return t.holds(s, scope, now, func(at, mine string) bool { return t.within(mine, at) })
}

func (t *Table) holds(s Subject, scope string, now time.Time, fits func(scope, mine string) bool) bool {
	at, ok := normal(scope)
	if !ok {
		return false
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, principal := range append([]string{s.ID}, s.Groups...) {
		for mine, list := range t.holdings[strings.ToLower(principal)] {
			living := func(e *entry) bool { return !e.broken && !e.expired(now) && t.roles[e.role] != nil }
			if fits(at, mine) && slices.ContainsFunc(list, living) {
				return true
			}
		}
	}
	return false
}

// Grant is an assignment that lets its principal do what was asked for.
type Grant struct {
	Assignment *Assignment
	Role       *Definition
}

// WhoCan lists the assignments that grant an action on a scope, from the near
// scopes to the far ones. One with a condition is listed: it may be met.
func (t *Table) WhoCan(action string, data bool, scope string, now time.Time) []Grant {
	at, ok := normal(scope)
	if !ok {
		return nil
	}
	r := Request{Data: data, Now: now, Open: true}
	lower := strings.ToLower(action)
	t.mu.RLock()
	defer t.mu.RUnlock()
	var found []Grant
	for above := range t.lineage(at) {
		here := slices.Clone(t.scopes[above])
		slices.SortFunc(here, func(a, b *entry) int { return strings.Compare(a.key, b.key) })
		for _, e := range here {
			if t.grants(e, &r, lower) == yes {
				found = append(found, Grant{e.Assignment, t.roles[e.role].Definition})
			}
		}
	}
	return found
}

// Permissions lists what a subject's roles grant on a scope.
func (t *Table) Permissions(s Subject, scope string, now time.Time) []Permission {
	at, ok := normal(scope)
	if !ok {
		return nil
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	var found []Permission
	seen := map[string]bool{}
	for _, principal := range append([]string{s.ID}, s.Groups...) {
		held := t.holdings[strings.ToLower(principal)]
		for above := range t.lineage(at) {
			for _, e := range held[above] {
				if role := t.roles[e.role]; role != nil && !e.broken && !e.expired(now) && !seen[e.role] {
					seen[e.role] = true
					found = append(found, role.Permissions...)
				}
			}
		}
	}
	return found
}
