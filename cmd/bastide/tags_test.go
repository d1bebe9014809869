// SPDX-License-Identifier: Apache-2.0

package main

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

func TestReadTags(t *testing.T) {
	azure := `{"changeNumber": 361, "cloud": "Public", "values": [
		{"name": "Storage.WestEurope", "id": "Storage.WestEurope", "properties": {"region": "westeurope", "addressPrefixes": ["20.38.108.0/23", "2603:1020:206:1::/64"]}},
		{"name": "Six", "properties": {"addressPrefixes": ["2603:1020::/32", "::1"]}}]}`
	simple := `{"Office": ["198.51.100.0/24", "2001:db8::/32"], "Lab": ["203.0.113.7"]}`
	for name, c := range map[string]struct {
		text  string
		names []string
		want  map[string][]string
		ipv6  int
		err   string
	}{
		"Azure's":  {azure, nil, map[string][]string{"Storage.WestEurope": {"20.38.108.0/23"}, "Six": {}}, 3, ""},
		"one":      {azure, []string{"storage.westeurope"}, map[string][]string{"Storage.WestEurope": {"20.38.108.0/23"}}, 1, ""},
		"simple":   {simple, nil, map[string][]string{"Office": {"198.51.100.0/24"}, "Lab": {"203.0.113.7"}}, 1, ""},
		"missing":  {simple, []string{"Home"}, nil, 0, "no service tag Home"},
		"neither":  {`[1, 2]`, nil, nil, 0, "neither Azure's form"},
		"no JSON":  {`Office`, nil, nil, 0, "neither Azure's form"},
		"no lists": {`{"Office": "198.51.100.0/24"}`, nil, nil, 0, "neither Azure's form"},
	} {
		got, err := readTags([]byte(c.text), c.names)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil || got.ipv6 != c.ipv6 || !maps.EqualFunc(got.tags, c.want, slices.Equal) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}
