// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"bastide.dev/fault"
)

// object is a directory object in Graph's words.
type object map[string]any

const (
	pageDefault = 100
	pageMost    = 999
	maxOptions  = 16 << 10
)

// options are OData's of a request.
type options struct {
	filter  matcher
	order   []ordering
	search  []term
	fields  []string
	expand  []string
	top     int
	skip    int
	counted bool
}

type ordering struct {
	path []string
	down bool
}

// term is one of $search: a word in a property.
type term struct{ property, word string }

// parseOptions reads a request's options; any other parameter is refused by name.
func parseOptions(values url.Values) (options, error) {
	var o options
	var problems []*fault.Error
	note := func(err error) {
		if err != nil {
			problems = append(problems, fault.From(err))
		}
	}
	for name, value := range values {
		text := value[0]
		var err error
		switch {
		case len(value) > 1 || len(text) > maxOptions:
			err = badQuery("The query parameter '%s' is there twice, or too long.", clip(name))
		case name == "$filter":
			o.filter, err = parseFilter(text)
		case name == "$select":
			o.fields, err = names(text)
		case name == "$expand":
			o.expand, err = expansions(text)
		case name == "$orderby":
			o.order, err = parseOrder(text)
		case name == "$search":
			o.search, err = parseSearch(text)
		case name == "$count":
			if o.counted, err = strconv.ParseBool(text); err != nil {
				err = badQuery("$count is true or false.")
			}
		case name == "$top":
			if o.top, err = strconv.Atoi(text); err != nil || o.top < 1 || o.top > pageMost {
				err = badQuery("Invalid page size specified: '%s'. Must be between 1 and %d inclusive.", clip(text), pageMost)
			}
		case name == "$skiptoken":
			o.skip, err = parseSkip(text)
		default:
			err = badQuery("The query parameter '%s' is not implemented.", clip(name))
		}
		note(err)
	}
	return o, fault.Join(problems...)
}

func names(text string) ([]string, error) {
	var found []string
	for name := range strings.SplitSeq(text, ",") {
		if name = strings.TrimSpace(name); name != "" {
			found = append(found, name)
		}
	}
	return found, nil
}

// expansions are navigation properties to show with an object; options inside of
// them, such as members($select=id), show less only and are left aside.
func expansions(text string) ([]string, error) {
	var found []string
	depth, start := 0, 0
	for i := 0; i <= len(text); i++ {
		switch {
		case i == len(text) || text[i] == ',' && depth == 0:
			name, inner, nested := strings.Cut(strings.TrimSpace(text[start:i]), "(")
			if nested && (!strings.HasPrefix(inner, "$select=") || !strings.HasSuffix(inner, ")")) {
				return nil, badQuery("$expand takes no options but $select.")
			}
			if !slices.Contains([]string{"members", "owners", "memberOf", "transitiveMembers", "transitiveMemberOf"}, name) {
				return nil, badQuery("Could not find a property named '%s' to expand.", clip(name))
			}
			found, start = append(found, name), i+1
		case text[i] == '(':
			depth++
		case text[i] == ')':
			depth--
		}
	}
	return found, nil
}

func parseOrder(text string) ([]ordering, error) {
	var found []ordering
	for part := range strings.SplitSeq(text, ",") {
		words := strings.Fields(part)
		if len(words) < 1 || len(words) > 2 || len(words) == 2 && words[1] != "asc" && words[1] != "desc" || len(found) > 5 {
			return nil, badQuery("The $orderby '%s' is malformed.", clip(text))
		}
		found = append(found, ordering{strings.Split(words[0], "/"), len(words) == 2 && words[1] == "desc"})
	}
	return found, nil
}

// parseSearch reads "displayName:word" AND "mail:word".
func parseSearch(text string) ([]term, error) {
	var found []term
	for rest := strings.TrimSpace(text); rest != ""; {
		quoted, after, closed := strings.Cut(strings.TrimPrefix(rest, `"`), `"`)
		property, word, named := strings.Cut(quoted, ":")
		if !strings.HasPrefix(rest, `"`) || !closed || !named || word == "" || len(found) > 10 {
			return nil, badQuery(`The $search %s is malformed: it is "property:word", several joined by AND.`, clip(text))
		}
		found = append(found, term{property, strings.ToLower(word)})
		if rest = strings.TrimSpace(after); rest == "" {
			break
		}
		next, joined := strings.CutPrefix(rest, "AND ")
		if rest = strings.TrimSpace(next); !joined || rest == "" {
			return nil, badQuery("The $search %s is malformed: its parts are joined by AND.", clip(text))
		}
	}
	return found, nil
}

func skipToken(n int) string {
	return base64.RawURLEncoding.EncodeToString([]byte("skip:" + strconv.Itoa(n)))
}

func parseSkip(token string) (int, error) {
	data, err := base64.RawURLEncoding.DecodeString(token)
	count, found := strings.CutPrefix(string(data), "skip:")
	n, numberErr := strconv.Atoi(count)
	if err != nil || !found || numberErr != nil || n < 0 {
		return 0, badQuery("The $skiptoken is not one of this service.")
	}
	return n, nil
}

// choose applies filter, search and order.
func (o options) choose(all []item) ([]item, error) {
	var found []item
	for _, candidate := range all {
		ok, err := o.matches(candidate)
		if err != nil {
			return nil, err
		}
		if ok {
			found = append(found, candidate)
		}
	}
	if len(o.order) > 0 {
		if len(found) > 0 {
			for _, by := range o.order {
				if _, err := lookup(found[0], by.path); err != nil {
					return nil, err
				}
			}
		}
		slices.SortStableFunc(found, o.compare)
	}
	return found, nil
}

func (o options) matches(candidate item) (bool, error) {
	if o.filter != nil {
		if ok, err := o.filter(scope{root: candidate}); err != nil || !ok {
			return false, err
		}
	}
	for _, t := range o.search {
		value, err := lookup(candidate, []string{t.property})
		if err != nil {
			return false, err
		}
		content, _ := value.(string)
		if !strings.Contains(strings.ToLower(content), t.word) {
			return false, nil
		}
	}
	return true, nil
}

func (o options) compare(a, b item) int {
	for _, by := range o.order {
		x, _ := lookup(a, by.path) // found in the first, so in each
		y, _ := lookup(b, by.path)
		c := cmp.Compare(strings.ToLower(fmt.Sprint(x)), strings.ToLower(fmt.Sprint(y)))
		if by.down {
			c = -c
		}
		if c != 0 {
			return c
		}
	}
	return 0
}

// show is an item with the fields that were selected.
func (o options) show(i item) object {
	if len(o.fields) == 0 {
		return i.object()
	}
	kept := object{}
	for _, name := range append([]string{"@odata.type"}, o.fields...) {
		if value, known := i.get(name); known {
			kept[name] = value
		}
	}
	if _, typed := kept["@odata.type"]; !typed {
		if t := typeOf(i); t != "" {
			kept["@odata.type"] = t
		}
	}
	return kept
}

// pick is an object with some fields alone.
func pick(o object, fields []string) object {
	return options{fields: fields}.show(o)
}

// query applies OData's options to a short collection.
func query(values url.Values, found []object) ([]object, error) {
	o, err := parseOptions(values)
	if err != nil {
		return nil, err
	}
	items := make([]item, len(found))
	for i, f := range found {
		items[i] = f
	}
	if items, err = o.choose(items); err != nil {
		return nil, err
	}
	items = items[min(o.skip, len(items)):]
	if o.top > 0 {
		items = items[:min(o.top, len(items))]
	}
	chosen := []object{}
	for _, i := range items {
		chosen = append(chosen, o.show(i))
	}
	return chosen, nil
}

// collection answers with a page of items.
func (s *Service) collection(r *request, of string, all []item) (any, error) {
	values := r.URL.Query()
	o, err := parseOptions(values)
	if err != nil {
		return nil, err
	}
	found, err := o.choose(all)
	if err != nil {
		return nil, err
	}
	size := cmp.Or(o.top, pageDefault)
	from := min(o.skip, len(found))
	to := min(from+size, len(found))
	page := make([]object, 0, to-from)
	for _, i := range found[from:to] {
		shown := o.show(i)
		if err := s.expand(r, i, o.expand, shown); err != nil {
			return nil, err
		}
		page = append(page, shown)
	}
	answer := object{"@odata.context": s.context(of), "value": page}
	if o.counted {
		answer["@odata.count"] = len(found)
	}
	if to < len(found) {
		next := maps.Clone(values)
		next.Set("$skiptoken", skipToken(to))
		answer["@odata.nextLink"] = s.directory.Endpoints().Graph + r.URL.EscapedPath() + "?" + next.Encode()
	}
	return answer, nil
}

// count answers /$count.
func (s *Service) count(r *request, all []item) (any, error) {
	o, err := parseOptions(r.URL.Query())
	if err != nil {
		return nil, err
	}
	found, err := o.choose(all)
	return plain(strconv.Itoa(len(found))), err
}

// one answers with a single object.
func (s *Service) one(r *request, i item, of string) (any, error) {
	values := r.URL.Query()
	for name := range values {
		if name != "$select" && name != "$expand" {
			return nil, badQuery("A single object doesn't take %s.", clip(name))
		}
	}
	o, err := parseOptions(values)
	if err != nil {
		return nil, err
	}
	shown := o.show(i)
	shown["@odata.context"] = s.context(of + "/$entity")
	return shown, s.expand(r, i, o.expand, shown)
}

func (s *Service) context(of string) string {
	return s.directory.Endpoints().Graph + "/v1.0/$metadata#" + of
}

func convert[T any](found []T, form func(T) object) []object {
	objects := make([]object, len(found))
	for i, v := range found {
		objects[i] = form(v)
	}
	return objects
}

func badQuery(format string, args ...any) *fault.Error {
	return fault.New(fault.Invalid, "Request_UnsupportedQuery", format, args...)
}
