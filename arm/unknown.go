// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"bastide.dev/fault"
)

// UnknownFields compares a decoded body with a wire model of the Azure SDK, and
// returns a problem for each property that the model doesn't have, and for each
// of the wrong JSON type. The SDK's structs have no JSON tags: a property is
// named as its field, without regard to case.
func UnknownFields(body map[string]any, model any) []*fault.Error {
	c := &comparison{}
	c.value(body, reflect.TypeOf(model), "")
	slices.SortFunc(c.problems, func(a, b *fault.Error) int { return strings.Compare(a.Target, b.Target) })
	return c.problems
}

func unknownProperty(path string) *fault.Error {
	return fault.New(fault.Invalid, "InvalidParameter", "The property '%s' isn't known. Check its spelling and place.", path).At(path)
}

type comparison struct{ problems []*fault.Error }

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
	for name, member := range object {
		field, known := t.FieldByNameFunc(func(field string) bool { return strings.EqualFold(field, name) })
		if !known || !field.IsExported() {
			c.problems = append(c.problems, unknownProperty(join(path, name)))
			continue
		}
		c.value(member, field.Type, join(path, name))
	}
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
