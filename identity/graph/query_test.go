// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"net/url"
	"testing"

	"bastide.dev/fault"
)

// FuzzFilter feeds what people type: it is understood or refused, and never shows more than there is.
func FuzzFilter(f *testing.F) {
	for _, seed := range []string{"a eq 'b'", "a eq 'b''c' and startswith(d,'e')", "x/any(y:y eq 'z')", "a eq 'b' and", "((", "a eq true", "not (a ne null or x/any()) and a in ('b','c')", "x/all(y:y ge 'z')", "a gt 2020-01-01T00:00:00Z", "a eq '", "a/b/c eq 1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, filter string) {
		found, err := query(url.Values{"$filter": {filter}}, []object{{"id": "1", "a": "b", "x": []string{"z"}}})
		if err != nil && !fault.Is(err, fault.Invalid) || len(found) > 1 {
			t.Errorf("%q: %v %v", filter, found, err)
		}
	})
}

// FuzzCanonical: a path stays one, whatever is in it.
func FuzzCanonical(f *testing.F) {
	for _, seed := range []string{"/v1.0/users", "/beta/11111111-1111-4111-8111-111111111111/me", "/v1.0/applications(appId='x')/owners", "/", "//(", "/v1.0/a(')/b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, path string) {
		once := canonical(path)
		if len(once) == 0 || once[0] != '/' || len(once) > len(path)+2*len(path)+1 {
			t.Errorf("%q: %q", path, once)
		}
	})
}
