// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"strings"
	"testing"
)

func TestFilter(t *testing.T) {
	field := func(name string) ([]string, bool) {
		switch name {
		case "name":
			return []string{"O'Brien (x)"}, true
		case "n":
			return []string{"5"}, true
		}
		return nil, false
	}
	for text, want := range map[string]bool{
		"":                                    true,
		"name eq 'o''brien (x)'":              true,
		"name ne 'o''brien (x)'":              false,
		"n ge 4 and n lt 6":                   true,
		"n gt 5 or n le 4":                    false,
		"not (n eq 5)":                        false,
		"not not n eq 5":                      true,
		"n eq 1 or n eq 5 and name eq 'x'":    false,
		"(n eq 1 or n eq 5) and n eq 5":       true,
		"SUBSTRINGOF('brien', name)":          true,
		"contains(name,'Brien') and n eq '5'": true,
		"startswith(name, 'x')":               false,
	} {
		f, err := parseFilter(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got, err := f.matches(field); err != nil || got != want {
			t.Errorf("%s = %v, %v; want %v", text, got, err, want)
		}
	}
	for _, bad := range []string{"name", "name eq", "eq 'x'", "name eq 'x", "name is 'x'", "(name eq 'x'", "name eq 'x')", "name eq 'x' and", "substringof(name,'x')",
		"startswith('x',name)", "contains(name 'x')", "'x' eq name", strings.Repeat("(", 1000) + "n eq 1" + strings.Repeat(")", 1000), strings.Repeat("not ", 100000) + "n eq 1"} {
		if _, err := parseFilter(bad); err == nil {
			t.Errorf("%.40q was taken", bad)
		}
	}
}

func FuzzFilter(f *testing.F) {
	for _, seed := range []string{"a eq 'b'", "substringof('x', name) and not (a ne 'c' or b eq 1)", "tagName eq 'a' and tagValue eq 'b'", "'", "''"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		parsed, err := parseFilter(text)
		if err != nil {
			return
		}
		if _, err := parsed.matches(func(string) ([]string, bool) { return []string{"v"}, true }); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	})
}

// models are of the shapes that the SDK's have.
type model struct {
	DNSPrefix *string
	Nested    *struct{ Count *int32 }
	List      []*struct{ VMSize *string }
	Map       map[string]*struct{ ID *string }
	Any       any
	Flag      *bool
	hidden    int //nolint:unused // not a property, though a field
}

func TestUnknownFields(t *testing.T) {
	for body, want := range map[string]string{
		`{"dnsPrefix":"x","nested":{"count":1},"list":[{"vmSize":"y"},null],"map":{"k":{"id":"z"}},"any":{"a":[1]},"flag":true}`: "",
		`{"DNSPREFIX":null,"nested":null}`:        "",
		`{"hidden":1}`:                            "hidden",
		`{"dnsprefx":"x","nested":{"cuont":1}}`:   "dnsprefx nested.cuont",
		`{"list":[{},{"size":1}]}`:                "list[1].size",
		`{"map":{"k":{"no":1}}}`:                  "map.k.no",
		`{"dnsPrefix":1,"flag":"true","list":{}}`: "dnsPrefix flag list",
		`{"nested":{"count":1.5}}`:                "nested.count",
		`{"nested":[]}`:                           "nested",
	} {
		object, err := decodeObject([]byte(body))
		if err != nil {
			t.Fatal(err)
		}
		var targets []string
		for _, p := range UnknownFields(object, &model{}) {
			targets = append(targets, p.Target)
		}
		if got := strings.Join(targets, " "); got != want {
			t.Errorf("%s: %q, want %q", body, got, want)
		}
	}
}
