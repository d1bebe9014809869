// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"bastide.dev/fault"
	"bastide.dev/identity/signin"
)

// property is one of a kind of object T: how it is shown, and how it is written.
type property[T any] struct {
	name  string
	read  func(*T) any
	write func(*T, json.RawMessage) error // nil: it can't be
}

// kind is a kind of directory object, of which everything else follows: what
// answers show, what filters look at, what bodies may say.
type kind[T any] struct {
	name  string // as in #microsoft.graph.NAME
	title string // as messages name it
	set   string // the collection
	list  []property[T]
	index map[string]int
}

func newKind[T any](name, title, set string, list []property[T]) *kind[T] {
	k := &kind[T]{name: name, title: title, set: set, list: list, index: map[string]int{}}
	for i, p := range list {
		k.index[strings.ToLower(p.name)] = i
	}
	return k
}

// item is an object in an answer: its properties are read when they are asked for.
type item interface {
	get(name string) (any, bool)
	object() object
}

type entity[T any] struct {
	kind  *kind[T]
	value *T
}

func (e entity[T]) get(name string) (any, bool) {
	i, known := e.kind.index[strings.ToLower(name)]
	if !known {
		return nil, false
	}
	return e.kind.list[i].read(e.value), true
}

func (e entity[T]) object() object {
	o := object{"@odata.type": "#microsoft.graph." + e.kind.name}
	for _, p := range e.kind.list {
		o[p.name] = p.read(e.value)
	}
	return o
}

func (o object) get(name string) (any, bool) {
	if value, known := o[name]; known {
		return value, true
	}
	for key, value := range o {
		if strings.EqualFold(key, name) {
			return value, true
		}
	}
	return nil, false
}

func (o object) object() object { return o }

// apply writes a body's properties into a value; all that is wrong is said at
// once. A property that isn't there is refused by name unless it says nothing:
// null, false, or empty. aside are those that somebody else reads.
func (k *kind[T]) apply(value *T, body map[string]json.RawMessage, aside ...string) error {
	var problems []*fault.Error
	names := make([]string, 0, len(body))
	for name := range body {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		i, known := k.index[strings.ToLower(name)]
		switch {
		case slices.Contains(aside, name), strings.HasSuffix(name, "@odata.type"), name == "@odata.context", name == "@odata.id":
		case known && k.list[i].write != nil:
			if err := k.list[i].write(value, body[name]); err != nil {
				problems = append(problems, located(err, k.list[i].name))
			}
		case empty(body[name]):
		case known:
			shown, err := json.Marshal(k.list[i].read(value))
			if err != nil || !sameJSON(shown, body[name]) { // what is as it is said needs no write
				problems = append(problems, badProperty(name, "Property '%s' is read-only and cannot be set.", k.list[i].name))
			}
		default:
			problems = append(problems, badProperty(name, "Property '%s' of resource '%s' is not implemented by Bastide's directory.", clip(name), k.title))
		}
	}
	return fault.Join(problems...)
}

func located(err error, name string) *fault.Error {
	var f *fault.Error
	if errors.As(err, &f) {
		return f
	}
	return badProperty(name, "Invalid value specified for property '%s': %s", name, reason(err)).Because(err)
}

// reason is what a reader of JSON has against a value, in words for who sent it.
func reason(err error) string {
	var kindError *json.UnmarshalTypeError
	if errors.As(err, &kindError) {
		return "a " + kindError.Value + " isn't expected there."
	}
	var text textError
	if errors.As(err, &text) {
		return string(text)
	}
	return "it isn't well formed."
}

// textError is a complaint in words for who sent a value.
type textError string

func (t textError) Error() string { return string(t) }

func badProperty(name, format string, args ...any) *fault.Error {
	return fault.New(fault.Invalid, "Request_BadRequest", format, args...).At(name)
}

// empty says whether a value says nothing: null, false, "", or made of such alone.
func empty(raw json.RawMessage) bool {
	var v any
	if json.Unmarshal(raw, &v) != nil {
		return false
	}
	return signin.Blank(v)
}

func sameJSON(a, b []byte) bool {
	var x, y any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return false
	}
	p, errP := json.Marshal(x)
	q, errQ := json.Marshal(y)
	return errP == nil && errQ == nil && bytes.Equal(p, q)
}

// readBody reads a body of one JSON object.
func readBody(r *request) (map[string]json.RawMessage, error) {
	body := map[string]json.RawMessage{}
	decoder := json.NewDecoder(r.Body)
	if err := decoder.Decode(&body); err != nil {
		if errors.Is(err, io.EOF) { // some actions have none
			return body, nil
		}
		return nil, fault.New(fault.Invalid, "BadRequest", "Unable to read JSON request payload. Please ensure Content-Type header is set and payload is of valid JSON format, of at most %d bytes.", maxBody).Because(err)
	}
	if decoder.More() || body == nil {
		return nil, fault.New(fault.Invalid, "BadRequest", "The request payload is not one JSON object.")
	}
	return body, nil
}

// readInto reads a body into a struct; what the struct doesn't name is refused
// unless it says nothing.
func readInto(r *request, into any, known ...string) error {
	body, err := readBody(r)
	if err != nil {
		return err
	}
	return decode(body, into, known...)
}

func decode(body map[string]json.RawMessage, into any, known ...string) error {
	for name, value := range body {
		if !slices.Contains(known, name) && !strings.HasPrefix(name, "@odata.") && !empty(value) {
			return badProperty(name, "Property '%s' is not implemented by Bastide's directory.", clip(name))
		}
	}
	data, err := json.Marshal(body)
	if err != nil {
		return badProperty("", "The request payload is malformed.").Because(err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		return badProperty("", "The request payload is malformed: %s", reason(err)).Because(err)
	}
	return nil
}

func clip(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
	return s[:min(len(s), 100)]
}

// The usual shapes of properties.

func shown[T any](name string, read func(*T) any) property[T] {
	return property[T]{name: name, read: read}
}

// fixed is a property that is always the same.
func fixed[T any](name string, value any) property[T] {
	return property[T]{name: name, read: func(*T) any { return value }}
}

// only is a property that takes but one value besides null.
func only[T any](name string, value any, why string) property[T] {
	p := fixed[T](name, value)
	p.write = func(_ *T, raw json.RawMessage) error {
		want, err := json.Marshal(value)
		if err != nil {
			return err
		}
		if string(raw) == "null" || sameJSON(raw, want) {
			return nil
		}
		return badProperty(name, "Property '%s': %s", name, why)
	}
	return p
}

// text is a string, null when it is empty.
func text[T any](name string, at func(*T) *string) property[T] {
	return property[T]{name: name,
		read: func(v *T) any { return orNull(*at(v)) },
		write: func(v *T, raw json.RawMessage) error {
			*at(v) = ""
			return json.Unmarshal(raw, at(v)) // null leaves it empty
		}}
}

func texts[T any](name string, at func(*T) *[]string) property[T] {
	return property[T]{name: name,
		read: func(v *T) any { return nonNil(*at(v)) },
		write: func(v *T, raw json.RawMessage) error {
			var next []string
			if err := json.Unmarshal(raw, &next); err != nil {
				return err
			}
			*at(v) = next
			return nil
		}}
}

// flag is a boolean, kept as its opposite when inverse.
func flag[T any](name string, at func(*T) *bool, inverse bool) property[T] {
	return property[T]{name: name,
		read: func(v *T) any { return *at(v) != inverse },
		write: func(v *T, raw json.RawMessage) error {
			var next *bool
			if err := json.Unmarshal(raw, &next); err != nil {
				return err
			}
			*at(v) = next != nil && *next != inverse // null is what it is without
			return nil
		}}
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func moment(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UTC().Format(time.RFC3339)
}

func nonNil(values []string) []string {
	if values == nil {
		return []string{}
	}
	return values
}

// bound reads NAME@odata.bind: references to objects.
func (s *Service) bound(body map[string]json.RawMessage, name string) ([]string, error) {
	raw, named := body[name+"@odata.bind"]
	if !named {
		return nil, nil
	}
	var references []string
	if err := json.Unmarshal(raw, &references); err != nil {
		return nil, badProperty(name+"@odata.bind", "The property '%s@odata.bind' is a list of references.", name).Because(err)
	}
	ids := []string{}
	for _, reference := range references {
		id, err := s.referred(reference)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// referred is the object id in a reference such as
// https://graph.microsoft.com/v1.0/directoryObjects/ID. Its host doesn't matter:
// nobody goes there.
func (s *Service) referred(reference string) (string, error) {
	rest := reference
	if _, after, absolute := strings.Cut(reference, "://"); absolute {
		_, rest, _ = strings.Cut(after, "/")
	}
	segments := strings.Split(strings.Trim(canonical("/"+rest), "/"), "/")
	id := segments[len(segments)-1]
	if uuid.Validate(id) != nil {
		return "", badProperty("@odata.id", "The reference '%s' does not end in an object id.", clip(reference))
	}
	return strings.ToLower(id), nil
}
