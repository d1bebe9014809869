// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"

	"bastide.dev/fault"
)

// decodeObject parses a body that must be one JSON object; numbers stay as they were written.
func decodeObject(raw []byte) (map[string]any, error) {
	invalid := func(cause error) error {
		return fault.New(fault.Invalid, "InvalidRequestContent",
			"The request content was invalid and could not be deserialized: it must be one JSON object.").Because(cause)
	}
	var object map[string]any
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	if err := decoder.Decode(&object); err != nil {
		return nil, invalid(err)
	}
	if _, err := decoder.Token(); err != io.EOF || object == nil {
		return nil, invalid(err)
	}
	return object, nil
}

// child finds a member by name: exactly, else as ARM does, without regard to case.
func child(object map[string]any, name string) (string, any, bool) {
	if v, ok := object[name]; ok {
		return name, v, true
	}
	for k, v := range object {
		if strings.EqualFold(k, name) {
			return k, v, true
		}
	}
	return "", nil, false
}

// Drop removes a property, such as "properties.fqdn" or "properties.pools[].state", from a body.
func Drop(body map[string]any, path string) {
	name, rest, more := strings.Cut(path, ".")
	name, list := strings.CutSuffix(name, "[]")
	key, value, ok := child(body, name)
	switch {
	case !ok:
	case !more:
		delete(body, key)
	case list:
		elements, _ := value.([]any)
		for _, element := range elements {
			if object, ok := element.(map[string]any); ok {
				Drop(object, rest)
			}
		}
	default:
		if object, ok := value.(map[string]any); ok {
			Drop(object, rest)
		}
	}
}

// envelopeOnly are read-only in every type.
func envelopeOnly() []string {
	return []string{"id", "name", "type", "etag", "systemData", "properties.provisioningState"}
}

func tagsOf(v any) map[string]string {
	object, _ := v.(map[string]any)
	if len(object) == 0 {
		return nil
	}
	tags := make(map[string]string, len(object))
	for k, v := range object {
		if s, ok := v.(string); ok {
			tags[k] = s
		}
	}
	return tags
}
