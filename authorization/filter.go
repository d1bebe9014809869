// SPDX-License-Identifier: Apache-2.0

package authorization

import (
	"context"
	"net/url"
	"regexp"
	"strings"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/rbac"
)

// query is a $filter of this namespace's lists: terms, joined by "and".
type query struct {
	atScope    bool   // not below the scope
	atAndBelow bool   // not above the scope
	principal  string // "principalId eq 'GUID'": whose own assignments
	assigned   string // "assignedTo('GUID')": and those of his groups
	roleName   string // "roleName eq 'NAME'"
	roleType   string // "type eq 'CustomRole'"
}

var (
	equalsTerm   = regexp.MustCompile(`(?i)^(\w+)\s+eq\s+'((?:[^']|'')*)'$`)
	functionTerm = regexp.MustCompile(`(?i)^(\w+)\(\s*(?:'([^']*)')?\s*\)$`)
	joint        = regexp.MustCompile(`(?i)\s+and\s+`)
)

// maxFilter bounds a filter's length.
const maxFilter = 2048

func filterOf(values url.Values) string {
	for name, value := range values {
		if strings.EqualFold(name, "$filter") && len(value) > 0 {
			return strings.TrimSpace(value[0])
		}
	}
	return ""
}

// parseQuery reads a $filter; known says which terms the list has.
func parseQuery(values url.Values, known ...string) (query, error) {
	text, q := filterOf(values), query{}
	if text == "" {
		return q, nil
	}
	wrong := fault.New(fault.Invalid, "InvalidFilterInQueryString", "Invalid $filter '%s' specified in the query string. Possible are, joined by 'and': %s.",
		printable(text), strings.Join(known, ", ")).At("$filter")
	if len(text) > maxFilter {
		return q, wrong
	}
	has := func(term string) bool {
		for _, k := range known {
			if strings.HasPrefix(strings.ToLower(k), strings.ToLower(term)) {
				return true
			}
		}
		return false
	}
	for _, term := range joint.Split(text, -1) {
		if m := equalsTerm.FindStringSubmatch(term); m != nil && has(m[1]+" eq") {
			value := strings.ReplaceAll(m[2], "''", "'")
			switch strings.ToLower(m[1]) {
			case "principalid":
				q.principal = value
			case "rolename":
				q.roleName = value
			case "type":
				q.roleType = value
			}
			continue
		}
		m := functionTerm.FindStringSubmatch(term)
		if m == nil || !has(m[1]+"(") {
			return q, wrong
		}
		switch strings.ToLower(m[1]) {
		case "atscope":
			q.atScope = true
		case "atscopeandbelow":
			q.atAndBelow = true
		case "assignedto":
			if q.assigned = m[2]; q.assigned == "" {
				return q, wrong
			}
		}
	}
	return q, nil
}

// listAssignments lists what is assigned on a scope, above and below it.
func (p *Provider) listAssignments(ctx context.Context, r *arm.Request) (any, error) {
	if err := p.feed.load(ctx); err != nil {
		return nil, err
	}
	q, err := parseQuery(r.Query, "principalId eq 'GUID'", "assignedTo('GUID')", "atScope()")
	if err != nil {
		return nil, err
	}
	principals := map[string]bool{}
	if q.assigned != "" {
		principals[strings.ToLower(q.assigned)] = true
		for _, group := range p.config.Directory.Groups(ctx, strings.ToLower(q.assigned)) {
			principals[strings.ToLower(group)] = true
		}
	}
	above := map[string]bool{}
	for _, scope := range p.table.Lineage(r.ID.String()) {
		above[scope] = true
	}
	values := []any{}
	now := p.now()
	for _, a := range p.table.Assignments(func(a *rbac.Assignment) bool {
		scope, ok := rbac.NormalScope(a.Scope)
		below := ok && !q.atScope && p.below(scope, r.ID.String())
		return (above[scope] || below) && (q.principal == "" || strings.EqualFold(a.PrincipalID, q.principal)) &&
			(q.assigned == "" || principals[strings.ToLower(a.PrincipalID)]) && (a.Expires.IsZero() || now.Before(a.Expires))
	}) {
		values = append(values, showAssignment(a))
	}
	return map[string]any{"value": values}, nil
}

// below tells whether a scope is another or stands beneath it, through management groups too.
func (p *Provider) below(scope, top string) bool { return p.table.Covers(scope, top) }
