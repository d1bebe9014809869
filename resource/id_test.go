// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"encoding/json"
	"strings"
	"testing"
)

const cluster = "/subscriptions/S1/resourceGroups/RG/providers/Microsoft.ContainerService/managedClusters/c1"

func TestParseID(t *testing.T) {
	for _, c := range []struct{ in, typ, name, group, parent string }{
		{"/", TypeTenant, "", "", "/"},
		{"/subscriptions/S1", TypeSubscription, "S1", "", "/"},
		{"/subscriptions/S1/resourcegroups/RG", TypeGroup, "RG", "RG", "/subscriptions/S1"},
		{cluster, "Microsoft.ContainerService/managedClusters", "c1", "RG", "/subscriptions/S1/resourceGroups/RG"},
		{"//" + cluster + "/", "Microsoft.ContainerService/managedClusters", "c1", "RG", "/subscriptions/S1/resourceGroups/RG"},
		{cluster + "/agentPools/np", "Microsoft.ContainerService/managedClusters/agentPools", "np", "RG", cluster},
		{cluster + "/providers/Microsoft.Authorization/locks/l", "Microsoft.Authorization/locks", "l", "RG", cluster},
		{"/subscriptions/S1/providers/Microsoft.X/locations/eastus/operations/o", "Microsoft.X/locations/operations", "o", "", "/subscriptions/S1/providers/Microsoft.X/locations/eastus"},
		{"/providers/Microsoft.Management/managementGroups/m", "Microsoft.Management/managementGroups", "m", "", "/"},
	} {
		id, err := ParseID(c.in)
		if err != nil {
			t.Errorf("%s: %v", c.in, err)
			continue
		}
		if id.Type() != c.typ || id.Name() != c.name || id.Group() != c.group || id.Parent().String() != c.parent {
			t.Errorf("%s: type %s, name %s, group %s, parent %s", c.in, id.Type(), id.Name(), id.Group(), id.Parent())
		}
	}
	for _, in := range []string{"/subscriptions", cluster + "/agentPools", "/subscriptions/a/../b", "/a/b", "/subscriptions/S1/x/y", cluster + "/a<b/c", "/subscriptions/" + strings.Repeat("x", MaxIDLength)} {
		if id, err := ParseID(in); err == nil {
			t.Errorf("%q was taken as %s", in, id)
		}
	}
}

func TestIDKeepsCaseAndForgivesIt(t *testing.T) {
	id, upper := MustParseID(cluster), MustParseID(strings.ToUpper(cluster))
	if !id.Equal(upper) || id.Key() != upper.Key() || id.String() != cluster {
		t.Errorf("%s and %s", id, upper)
	}
	if id.Key() != "subscriptions/s1/resourcegroups/rg/providers/microsoft.containerservice/managedclusters/c1" {
		t.Errorf("key %s", id.Key())
	}
	pool := id.Child("agentPools", "np")
	if !pool.Parent().Equal(id) || !pool.IsChild() || id.IsChild() || !pool.Under(id) || id.Under(pool) {
		t.Errorf("child %s", pool)
	}
	if near := MustParseID(cluster + "0"); near.Under(id) {
		t.Error("c10 is under c1")
	}
	if !id.Under(GroupID("s1", "rg")) || !id.Under(SubscriptionID("S1")) || !id.Under(ID{}) {
		t.Error("a cluster isn't under its scopes")
	}
	var back struct{ ID ID }
	raw, err := json.Marshal(struct{ ID ID }{pool})
	if err != nil || json.Unmarshal(raw, &back) != nil || back.ID != pool {
		t.Errorf("%s came back as %s, %v", pool, back.ID, err)
	}
}

func TestParsePath(t *testing.T) {
	for in, want := range map[string]struct {
		id       string
		rest     string
		provider bool
	}{
		"/subscriptions":                                   {"/", "subscriptions", false},
		"/subscriptions/S1/resourceGroups":                 {"/subscriptions/S1", "resourceGroups", false},
		"/subscriptions/S1/providers/Microsoft.X":          {"/subscriptions/S1", "Microsoft.X", true},
		"/subscriptions/S1/providers/Microsoft.X/register": {"/subscriptions/S1", "Microsoft.X register", true},
		cluster + "/stop":                                  {cluster, "stop", false},
		cluster + "/agentPools":                            {cluster, "agentPools", false},
		cluster + "/providers/Microsoft.Insights/metrics":  {cluster, "Microsoft.Insights metrics", true},
	} {
		p, err := ParsePath(in)
		if err != nil || p.ID.String() != want.id || strings.Join(p.Rest, " ") != want.rest || p.Provider != want.provider {
			t.Errorf("%s: %s, %v, %v, %v", in, p.ID, p.Rest, p.Provider, err)
		}
	}
}

func FuzzParsePath(f *testing.F) {
	for _, seed := range []string{"/", cluster, cluster + "/agentPools/x", "/providers/a/b/c/providers/d/e", "/subscriptions//", "/ſubscriptions/x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePath(s)
		if err != nil {
			return
		}
		again, err := ParseID(p.ID.String())
		if err != nil || again != p.ID {
			t.Errorf("%q parses as %q, which parses as %q, %v", s, p.ID, again, err)
		}
		for id := p.ID; !id.IsRoot(); id = id.Parent() {
			if len(id.Parent().String()) >= len(id.String()) {
				t.Fatalf("the parent of %q is %q", id, id.Parent())
			}
		}
	})
}

func TestVersions(t *testing.T) {
	for _, bad := range []string{"", "2022", "2022-13-01", "2022-01-01-beta", "2022-01-01-preview2", "latest"} {
		if v, err := ParseAPIVersion(bad); err == nil {
			t.Errorf("%q was taken as %s", bad, v)
		}
	}
	order := []APIVersion{"2020-11-01", "2022-11-02-preview", "2022-11-02", "2023-01-01"}
	for i := 1; i < len(order); i++ {
		if order[i-1].Compare(order[i]) >= 0 || !order[i].AtLeast(order[i-1]) || order[i].Compare(order[i]) != 0 {
			t.Errorf("%s isn't before %s", order[i-1], order[i])
		}
	}
	if got := MonthlyVersions("2024-11-01", "2025-02-01"); len(got) != 4 || got[0] != "2025-02-01" || got[3] != "2024-11-01" {
		t.Errorf("monthly versions %v", got)
	}
}

func TestLocations(t *testing.T) {
	seen := map[string]bool{}
	for _, l := range Locations() {
		if seen[l.Name] || NormalizeLocation(l.Display) != l.Name {
			t.Errorf("location %s, %s", l.Name, l.Display)
		}
		seen[l.Name] = true
		if _, ok := FindLocation(l.Paired); l.Paired != "" && !ok {
			t.Errorf("%s is paired with %s, which isn't there", l.Name, l.Paired)
		}
	}
	if l, ok := FindLocation("East US"); !ok || l.Name != "eastus" {
		t.Errorf("East US is %v", l)
	}
	if _, ok := FindLocation("atlantis"); ok {
		t.Error("atlantis was found")
	}
}
