// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode"

	"bastide.dev/fault"
)

// UnknownFields compares a decoded body with a wire model of the Azure SDK, and
// returns a problem for each property that the model doesn't have, and for each
// of the wrong JSON type. The SDK's structs have no JSON tags: what a property is
// called is learnt from what the struct itself writes. Case is forgiven, as ARM does.
func UnknownFields(body map[string]any, model any) []*fault.Error {
	c := &comparison{fields: map[reflect.Type]map[string]wireField{}}
	c.value(body, reflect.TypeOf(model), "")
	slices.SortFunc(c.problems, func(a, b *fault.Error) int { return strings.Compare(a.Target, b.Target) })
	return c.problems
}

func unknownProperty(path string) *fault.Error {
	return fault.New(fault.Invalid, "InvalidParameter", "The property '%s' isn't known. Check its spelling and place.", path).At(path)
}

type comparison struct {
	problems []*fault.Error
	fields   map[reflect.Type]map[string]wireField // of structs seen already: a list's elements are many
	spell    bool                                  // give members the model's spelling
}

// wireField is a field of a struct: what it is called on the wire ("": by any name) and its type.
type wireField struct {
	name string
	typ  reflect.Type
}

// Spell gives the properties of a body the wire model's own spelling, in place:
// the SDK's structs take no other, and what they don't take they would lose.
func Spell(body map[string]any, model any) {
	c := &comparison{fields: map[reflect.Type]map[string]wireField{}, spell: true}
	c.value(body, reflect.TypeOf(model), "")
}

func (c *comparison) value(v any, t reflect.Type, path string) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if v == nil || t.Kind() == reflect.Interface {
		return // null is "not set"; an interface takes anything
	}
	switch t.Kind() {
	case reflect.Struct:
		c.object(v, t, path)
	case reflect.Map:
		if object, ok := c.want(v, path, "an object").(map[string]any); ok {
			for name, member := range object {
				c.value(member, t.Elem(), join(path, name))
			}
		}
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			c.want(v, path, "a string") // bytes are base64
			return
		}
		if list, ok := c.want(v, path, "an array").([]any); ok {
			for i, element := range list {
				c.value(element, t.Elem(), fmt.Sprintf("%s[%d]", path, i))
			}
		}
	case reflect.String:
		c.want(v, path, "a string")
	case reflect.Bool:
		c.want(v, path, "true or false")
	case reflect.Int, reflect.Int32, reflect.Int64:
		if n, ok := c.want(v, path, "a number").(json.Number); ok {
			if _, err := n.Int64(); err != nil {
				c.wrong(path, "a whole number")
			}
		}
	case reflect.Float32, reflect.Float64:
		c.want(v, path, "a number")
	}
}

func (c *comparison) object(v any, t reflect.Type, path string) {
	if t == reflect.TypeFor[time.Time]() {
		c.want(v, path, "a string")
		return
	}
	object, ok := c.want(v, path, "an object").(map[string]any)
	if !ok {
		return
	}
	fields, seen := c.fields[t]
	if !seen {
		fields = wireFields(t)
		c.fields[t] = fields
	}
	for _, name := range slices.Collect(maps.Keys(object)) {
		member := object[name]
		field, known := fields[strings.ToLower(name)]
		if !known {
			c.problems = append(c.problems, unknownProperty(join(path, name)))
			continue
		}
		if c.spell && field.name != "" && field.name != name {
			delete(object, name)
			object[field.name] = member
		}
		c.value(member, field.typ, join(path, name))
	}
}

// wireFields are the types of a struct's fields by their names on the wire, in
// lower case: what the struct writes when all its fields are set. A field that
// writes nothing (an interface has no value to set) goes by its own name.
func wireFields(t reflect.Type) map[string]wireField {
	full := reflect.New(t)
	own := map[string]reflect.Type{} // by the field's name, letters and digits only
	for i := range t.NumField() {
		if field := t.Field(i); field.IsExported() {
			own[plainName(field.Name)] = field.Type
			setField(full.Elem().Field(i))
		}
	}
	var written map[string]json.RawMessage
	if raw, err := json.Marshal(full.Interface()); err == nil {
		_ = json.Unmarshal(raw, &written) // of what isn't an object there are no names
	}
	fields := make(map[string]wireField, len(own))
	for name := range written {
		if field, ok := own[plainName(name)]; ok {
			fields[strings.ToLower(name)] = wireField{name, field}
			delete(own, plainName(name))
		}
	}
	for name, field := range own {
		fields[name] = wireField{"", field}
	}
	return fields
}

// setField makes a field be written: a pointer to nothing, an empty list or map wouldn't be.
func setField(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
	}
}

func plainName(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return unicode.ToLower(r)
		}
		return -1
	}, s)
}

// want returns v, or nil after noting that it isn't of the JSON type.
func (c *comparison) want(v any, path, kind string) any {
	ok := false
	switch v.(type) {
	case map[string]any:
		ok = kind == "an object"
	case []any:
		ok = kind == "an array"
	case string:
		ok = kind == "a string"
	case bool:
		ok = kind == "true or false"
	case json.Number:
		ok = kind == "a number"
	}
	if !ok {
		c.wrong(path, kind)
		return nil
	}
	return v
}

func (c *comparison) wrong(path, kind string) {
	c.problems = append(c.problems, fault.New(fault.Invalid, "InvalidParameter", "The value of '%s' must be %s.", path, kind).At(path))
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
