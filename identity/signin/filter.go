// SPDX-License-Identifier: Apache-2.0

package signin

import (
	"regexp"
	"strconv"
	"strings"
	"time"

	"bastide.dev/fault"
)

// Bounds of a filter.
const (
	maxFilter = 2048
	maxDepth  = 20
)

// Filter is an OData $filter over the log.
type Filter struct {
	Match func(*Entry) bool
	// Since is a time before which nothing can match, zero when there is none.
	Since time.Time
	// Types tells whether it says which kinds of sign-ins it wants.
	Types bool
}

// field is what can be filtered by: the value of an entry, a string, int64,
// bool, time.Time or []string.
func field(name string) func(*Entry) any {
	return map[string]func(*Entry) any{
		"id":                              func(e *Entry) any { return e.ID },
		"createdDateTime":                 func(e *Entry) any { return e.Time },
		"userPrincipalName":               func(e *Entry) any { return userOnly(e, e.Name) },
		"userId":                          func(e *Entry) any { return userOnly(e, e.Principal) },
		"servicePrincipalId":              func(e *Entry) any { return appOnly(e, e.Principal) },
		"servicePrincipalCredentialKeyId": func(e *Entry) any { return appOnly(e, e.Credential) },
		"appId":                           func(e *Entry) any { return e.ClientID },
		"resourceId":                      func(e *Entry) any { return e.ResourceID },
		"ipAddress":                       func(e *Entry) any { return e.Address },
		"userAgent":                       func(e *Entry) any { return e.UserAgent },
		"correlationId":                   func(e *Entry) any { return e.Correlation },
		"conditionalAccessStatus":         func(e *Entry) any { return e.AccessStatus },
		"clientAppUsed":                   func(e *Entry) any { return e.ClientApp() },
		"authenticationProtocol":          func(e *Entry) any { return e.Protocol() },
		"isInteractive":                   func(e *Entry) any { return e.EventType() == InteractiveUser },
		"status/errorCode":                func(e *Entry) any { return int64(e.Code) },
		"signInEventTypes":                func(e *Entry) any { return []string{e.EventType()} },
	}[name]
}

func userOnly(e *Entry, value string) string {
	if t := e.EventType(); t == ServicePrincipal || t == ManagedIdentity {
		return ""
	}
	return value
}

func appOnly(e *Entry, value string) string {
	if userOnly(e, "user") != "" {
		return ""
	}
	return value
}

// tokens of a filter: a string, a word, path, number or time, or one sign.
var tokens = regexp.MustCompile(`^(?:'(?:[^']|'')*'|[A-Za-z0-9_.:+/-]+|[(),])`)

// ParseFilter reads a filter; what isn't understood is refused.
func ParseFilter(text string) (Filter, error) {
	f := Filter{Match: func(*Entry) bool { return true }}
	if strings.TrimSpace(text) == "" {
		return f, nil
	}
	p := &parser{filter: &f}
	if err := p.split(text); err != nil {
		return f, err
	}
	match, err := p.any(0, true)
	if err != nil {
		return f, err
	}
	if len(p.rest) > 0 {
		return f, unclear("'%.50s' is unexpected", p.rest[0])
	}
	f.Match = match
	return f, nil
}

func unclear(format string, args ...any) *fault.Error {
	return fault.New(fault.Invalid, "BadRequest", "Invalid filter clause: "+format+".", args...).At("$filter")
}

type parser struct {
	rest   []string
	filter *Filter
}

func (p *parser) split(text string) error {
	if len(text) > maxFilter {
		return unclear("it is longer than %d characters", maxFilter)
	}
	for text = strings.TrimSpace(text); text != ""; text = strings.TrimSpace(text) {
		token := tokens.FindString(text)
		if token == "" {
			return unclear("'%.20s' isn't understood", text)
		}
		// "x/any(t:t" has a colon without a space around it.
		p.rest = append(p.rest, token)
		text = text[len(token):]
	}
	return nil
}

func (p *parser) next() string {
	if len(p.rest) == 0 {
		return ""
	}
	token := p.rest[0]
	p.rest = p.rest[1:]
	return token
}

func (p *parser) is(word string) bool { return len(p.rest) > 0 && strings.EqualFold(p.rest[0], word) }

func (p *parser) expect(sign string) error {
	if got := p.next(); got != sign {
		return unclear("'%s' is expected, not '%.50s'", sign, got)
	}
	return nil
}

// any reads clauses joined by "or"; certain tells that what they say holds for
// each match of the whole filter.
func (p *parser) any(depth int, certain bool) (func(*Entry) bool, error) {
	if depth > maxDepth {
		return nil, unclear("it is nested too deeply")
	}
	since := p.filter.Since
	left, err := p.all(depth, certain)
	if err != nil {
		return nil, err
	}
	for p.is("or") {
		p.next()
		p.filter.Since = since // what one alternative says isn't certain
		right, err := p.all(depth, false)
		if err != nil {
			return nil, err
		}
		before := left
		left = func(e *Entry) bool { return before(e) || right(e) }
	}
	return left, nil
}

func (p *parser) all(depth int, certain bool) (func(*Entry) bool, error) {
	left, err := p.clause(depth, certain)
	if err != nil {
		return nil, err
	}
	for p.is("and") {
		p.next()
		right, err := p.clause(depth, certain)
		if err != nil {
			return nil, err
		}
		before := left
		left = func(e *Entry) bool { return before(e) && right(e) }
	}
	return left, nil
}

func (p *parser) clause(depth int, certain bool) (func(*Entry) bool, error) {
	switch word := p.next(); {
	case word == "(":
		inner, err := p.any(depth+1, certain)
		if err != nil {
			return nil, err
		}
		return inner, p.expect(")")
	case strings.EqualFold(word, "not"):
		if depth > maxDepth {
			return nil, unclear("it is nested too deeply")
		}
		inner, err := p.clause(depth+1, false)
		if err != nil {
			return nil, err
		}
		return func(e *Entry) bool { return !inner(e) }, nil
	case strings.EqualFold(word, "startswith"):
		return p.startsWith()
	case strings.HasSuffix(word, "/any"):
		return p.anyOf(strings.TrimSuffix(word, "/any"))
	default:
		return p.compare(word, certain)
	}
}

func (p *parser) startsWith() (func(*Entry) bool, error) {
	if err := p.expect("("); err != nil {
		return nil, err
	}
	get, err := known(p.next())
	if err != nil {
		return nil, err
	}
	if err := p.expect(","); err != nil {
		return nil, err
	}
	want, ok := text(p.next())
	if !ok {
		return nil, unclear("startswith needs a string")
	}
	want = strings.ToLower(want)
	return func(e *Entry) bool {
		have, ok := get(e).(string)
		return ok && strings.HasPrefix(strings.ToLower(have), want)
	}, p.expect(")")
}

// anyOf reads "(t:t eq 'x')", with or without spaces.
func (p *parser) anyOf(name string) (func(*Entry) bool, error) {
	get, err := known(name)
	if err != nil {
		return nil, err
	}
	if err := p.expect("("); err != nil {
		return nil, err
	}
	var lambda string
	for len(p.rest) > 0 && !p.is("eq") {
		lambda += p.next()
	}
	variable, used, ok := strings.Cut(lambda, ":")
	p.next()
	want, isText := text(p.next())
	if !ok || variable == "" || variable != used || !isText {
		return nil, unclear("any() takes (t: t eq 'x')")
	}
	p.filter.Types = p.filter.Types || name == "signInEventTypes"
	return func(e *Entry) bool {
		have, _ := get(e).([]string)
		for _, v := range have {
			if strings.EqualFold(v, want) {
				return true
			}
		}
		return false
	}, p.expect(")")
}

func known(name string) (func(*Entry) any, error) {
	get := field(name)
	if get == nil {
		return nil, unclear("there is no property '%.50s' to filter by", name)
	}
	return get, nil
}

func text(token string) (string, bool) {
	if len(token) < 2 || token[0] != '\'' || token[len(token)-1] != '\'' {
		return "", false
	}
	return strings.ReplaceAll(token[1:len(token)-1], "''", "'"), true
}

// compare reads "name op literal".
func (p *parser) compare(name string, certain bool) (func(*Entry) bool, error) {
	get, err := known(name)
	if err != nil {
		return nil, err
	}
	op, literal := strings.ToLower(p.next()), p.next()
	var holds func(order int) bool
	switch op {
	case "eq":
		holds = func(o int) bool { return o == 0 }
	case "ne":
		holds = func(o int) bool { return o != 0 }
	case "gt":
		holds = func(o int) bool { return o > 0 }
	case "ge":
		holds = func(o int) bool { return o >= 0 }
	case "lt":
		holds = func(o int) bool { return o < 0 }
	case "le":
		holds = func(o int) bool { return o <= 0 }
	default:
		return nil, unclear("'%.20s' is no operator", op)
	}
	order, at, err := ordering(name, get(&Entry{}), literal)
	if err != nil {
		return nil, err
	}
	if certain && (op == "ge" || op == "gt" || op == "eq") && at.After(p.filter.Since) {
		p.filter.Since = at
	}
	return func(e *Entry) bool { return holds(order(get(e))) }, nil
}

// ordering compares values of example's type with a literal: below, equal, above. at is the literal of a time.
func ordering(name string, example any, literal string) (order func(any) int, at time.Time, err error) {
	switch example.(type) {
	case string:
		want, ok := text(literal)
		if !ok {
			return nil, at, unclear("'%s' is compared with a string in quotes", name)
		}
		want = strings.ToLower(want)
		return func(v any) int { return strings.Compare(strings.ToLower(v.(string)), want) }, at, nil
	case int64:
		want, err := strconv.ParseInt(literal, 10, 64)
		if err != nil {
			return nil, at, unclear("'%s' is compared with a number", name)
		}
		return func(v any) int { return int(min(max(v.(int64)-want, -1), 1)) }, at, nil
	case bool:
		want, err := strconv.ParseBool(literal)
		if err != nil {
			return nil, at, unclear("'%s' is compared with true or false", name)
		}
		return func(v any) int {
			if v.(bool) == want {
				return 0
			}
			return 1
		}, at, nil
	case time.Time:
		if at, err = time.Parse(time.RFC3339, literal); err != nil {
			if at, err = time.Parse(time.DateOnly, literal); err != nil {
				return nil, at, unclear("'%s' is compared with a time such as 2026-08-01T12:00:00Z", name)
			}
		}
		return func(v any) int { return v.(time.Time).Compare(at) }, at, nil
	}
	return nil, at, unclear("'%s' takes any() only", name)
}
