// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"net/url"
	"testing"

	"bastide.dev/fault"
)

// FuzzFilter feeds what people type: it is understood or refused, and never shows more than there is.
func FuzzFilter(f *testing.F) {
	for _, seed := range []string{"a eq 'b'", "a eq 'b''c' and startswith(d,'e')", "x/any(y:y eq 'z')", "a eq 'b' and", "((", "a eq true"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, filter string) {
		found, err := query(url.Values{"$filter": {filter}}, []object{{"id": "1", "a": "b", "x": []string{"z"}}})
		if err != nil && !fault.Is(err, fault.Invalid) || len(found) > 1 {
			t.Errorf("%q: %v %v", filter, found, err)
		}
	})
}
