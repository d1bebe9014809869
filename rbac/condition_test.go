// SPDX-License-Identifier: Apache-2.0

package rbac_test

import (
	"strings"
	"testing"
	"time"

	"bastide.dev/rbac"
)

// crd is the condition that AKS's documents have as example.
const crd = `( ( !(ActionMatches{'Microsoft.ContainerService/managedClusters/customresources/read'}) ) OR (
 @Request[Microsoft.ContainerService/managedClusters/customResources:group] StringEqualsIgnoreCase 'secrets-store.csi.x-k8s.io'
 AND @Request[Microsoft.ContainerService/managedClusters/customResources:kind] StringEqualsIgnoreCase 'secretproviderclasses' ) )`

func attributes(pairs ...string) map[string][]string {
	made := map[string][]string{}
	for i := 0; i+1 < len(pairs); i += 2 {
		made[rbac.Attribute(rbac.OfRequest, pairs[i])] = strings.Split(pairs[i+1], "|")
	}
	return made
}

func TestConditions(t *testing.T) {
	const read = "Microsoft.ContainerService/managedClusters/customresources/read"
	now := time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)
	guid := "acdd72a7-3385-48ef-bd42-f606fba81ae7"
	for _, c := range []struct {
		text   string
		action string
		with   map[string][]string
		met    bool
	}{
		{crd, read, attributes(rbac.CustomResourceGroup, "Secrets-Store.csi.x-k8s.io", rbac.CustomResourceKind, "secretproviderclasses"), true},
		{crd, read, attributes(rbac.CustomResourceGroup, "kyverno.io", rbac.CustomResourceKind, "secretproviderclasses"), false},
		{crd, read, attributes(rbac.CustomResourceGroup, "secrets-store.csi.x-k8s.io"), false},
		{crd, read, nil, false},
		{crd, aks + "pods/read", nil, true},
		{"@Request[a] StringNotEquals 'x'", "", nil, false}, // what isn't known isn't unequal
		{"!(@Request[a] StringEquals 'x')", "", nil, false},
		{"!(@Request[a] StringEquals 'x')", "", attributes("A", "y"), true},
		{"Exists @Request[a]", "", nil, false},
		{"NOT Exists @Request[a] && NotExists @Request[b]", "", nil, true},
		{"Exists @Request[a]", "", attributes("a", "y"), true},
		{"@Request[a] StringEquals 'X'", "", attributes("a", "x"), false},
		{"@Request[a] StringStartsWith 'x' || @Request[a] StringLike 'y*z?'", "", attributes("a", "yabczd"), true},
		{"@Request[a] StringNotLike 'y*'", "", attributes("a", "yabczd"), false},
		{"@Request[a] StringNotStartsWithIgnoreCase 'Y'", "", attributes("a", "yabczd"), false},
		{"@Request[a] StringEquals 'it\\'s \\\\'", "", attributes("a", `it's \`), true},
		{"@Request[a] GuidEquals " + strings.ToUpper(guid), "", attributes("a", "/providers/Microsoft.Authorization/roleDefinitions/"+guid), true},
		{"@Request[a] GuidNotEquals 'no guid'", "", attributes("a", guid), false},
		{"@Request[a] BoolEquals true AND @Request[b] NumericGreaterThanEquals 2.5", "", attributes("a", "True", "b", "2.5"), true},
		{"@Request[b] NumericLessThan 'NaN'", "", attributes("b", "2"), false},
		{"@Environment[UtcNow] DateTimeGreaterThan '2026-11-21' && @Environment[UtcNow] DateTimeLessThanEquals '2026-11-21T10:00:00Z'", "", nil, true},
		{"@Request[a] ForAnyOfAnyValues:StringEquals {'x', 'y'}", "", attributes("a", "z|y"), true},
		{"@Request[a] ForAllOfAnyValues:StringEquals {'x', 'y'}", "", attributes("a", "x|y"), true},
		{"@Request[a] ForAllOfAnyValues:StringEquals {'x', 'y'}", "", attributes("a", "x|z"), false},
		{"@Request[a] ForAnyOfAllValues:StringNotEquals {'x', 'y'}", "", attributes("a", "x|z"), true},
		{"@Request[a] ForAllOfAllValues:StringNotEquals {'x', 'y'}", "", attributes("a", "w|z"), true},
		{"@Request[a] ForAllOfAllValues:StringNotEquals {'x', 'y'}", "", nil, false},
		{"@Request[a] StringEquals 'x'", "", attributes("a", "x|x"), false},
		{"@Request[a] StringEquals @Request[b]", "", attributes("a", "q", "b", "q"), true},
		{"SubOperationMatches{'Blob.List'}", "", map[string][]string{rbac.SubOperation: {"blob.list"}}, true},
		{"SubOperationMatches{'Blob.List'} or 'a' StringEquals 'b' or 'c' StringEquals 'c' and !('d' StringEquals 'd')", "", nil, false},
	} {
		parsed, err := rbac.ParseCondition(c.text)
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		if got := parsed.Met(rbac.Request{Action: c.action, Attributes: c.with, Now: now}); got != c.met {
			t.Errorf("%s with %v: %v", c.text, c.with, got)
		}
	}
}

func TestConditionsThatAreNone(t *testing.T) {
	for _, text := range []string{"", "(", ")", "()", "a", "@Request[a]", "@Request[a] Equals 'b'", "@Request[a] StringEquals", "@Request[a StringEquals 'b'", "@Elsewhere[a] StringEquals 'b'",
		"@Request[] StringEquals 'b'", "@Request[a] ForSome:StringEquals 'b'", "@Request[a] StringEquals 'b", "@Request[a] StringEquals {}", "@Request[a] StringEquals {'b'", "@Request[a] StringEquals 'b' 'c'",
		"ActionMatches{}", "ActionMatches 'a'", "'a' StringEquals 'b' AND", "'a' StringEquals 'b' & 'c' StringEquals 'c'", "ü", "'a' StringEquals '\\", "Exists 'a'",
		strings.Repeat("(", 100) + "'a' StringEquals 'a'" + strings.Repeat(")", 100), strings.Repeat("!", 5000) + "('a' StringEquals 'a')", strings.Repeat(" ", rbac.MaxCondition+1)} {
		if _, err := rbac.ParseCondition(text); err == nil {
			t.Errorf("%.80q was understood", text)
		}
	}
	parsed, err := rbac.ParseCondition(crd + " AND @Principal[Microsoft.Directory/CustomSecurityAttributes/Id:A_B] StringEquals 'x'")
	if err != nil {
		t.Fatal(err)
	}
	if got := parsed.Unsupported(); len(got) != 1 || !strings.HasPrefix(got[0], "@principal[") {
		t.Errorf("unsupported %v", got)
	}
}

func TestConditionOfAssignment(t *testing.T) {
	table := rbac.NewTable()
	a := assigned(1, "u", rbac.AccessAdministratorRole, rg1)
	a.Condition = "@Request[" + rbac.AssignedRole + "] ForAnyOfAnyValues:GuidEquals {" + rbac.ReaderRole + "}"
	table.Put(a)
	r := rbac.Request{Subject: rbac.Subject{ID: "u"}, Action: "Microsoft.Authorization/roleAssignments/write", Scope: rg1}
	if d := table.Decide(r); d.Allowed || !strings.Contains(d.Reason, "condition") {
		t.Errorf("without attributes: %+v", d)
	}
	r.Open = true
	if !table.Decide(r).Allowed {
		t.Error("open: it could be allowed")
	}
	r.Attributes = map[string][]string{rbac.Attribute(rbac.OfRequest, rbac.AssignedRole): {rbac.OwnerRole}}
	if table.Decide(r).Allowed {
		t.Error("another role is allowed")
	}
	broken := *a
	broken.Condition = "@Request["
	table.Put(&broken)
	if r.Attributes = nil; table.Decide(r).Allowed {
		t.Error("a condition that can't be read is met")
	}
}

func FuzzParseCondition(f *testing.F) {
	f.Add(crd)
	f.Add("!(@Request[a] ForAllOfAnyValues:StringLike {'x*', \"y\"}) && Exists @Environment[UtcNow]")
	f.Fuzz(func(t *testing.T, text string) {
		parsed, err := rbac.ParseCondition(text)
		if err != nil {
			return
		}
		r := rbac.Request{Action: "a/b/read", Attributes: map[string][]string{}}
		without := parsed.Met(r)
		r.Open = true
		_ = parsed.Met(r)
		for _, key := range parsed.Attributes() {
			r.Attributes[key] = []string{"x"}
		}
		_ = parsed.Met(r)
		again, err := rbac.ParseCondition("!(" + text + ")")
		if err != nil {
			return // deeper or longer than is taken
		}
		if without && again.Met(rbac.Request{Action: "a/b/read"}) {
			t.Errorf("%q and its negation are both met", text)
		}
	})
}
