// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"testing"

	"bastide.dev/authorization"
	"bastide.dev/instance"
)

func TestAccessScope(t *testing.T) {
	in := &instance.Instance{Subscription: "11111111-1111-1111-1111-111111111111"}
	const sub = "/subscriptions/11111111-1111-1111-1111-111111111111"
	for text, want := range map[string]string{
		"subscription": sub, "/": "", "shop": sub + "/resourceGroups/shop", "/providers/Microsoft.Management/managementGroups/m": "/providers/Microsoft.Management/managementGroups/m",
		"shop/prod":     sub + "/resourceGroups/shop/providers/Microsoft.ContainerService/managedClusters/prod",
		"shop/prod/web": sub + "/resourceGroups/shop/providers/Microsoft.ContainerService/managedClusters/prod/namespaces/web",
	} {
		if got, err := accessScope(in, text); err != nil || got != want {
			t.Errorf("%s: %s, %v", text, got, err)
		}
	}
	for _, text := range []string{"a/b/c/d", "..", "a/../b", "/subscriptions", "a%2fb", ""} {
		if got, err := accessScope(in, text); err == nil {
			t.Errorf("%q is the scope %s", text, got)
		}
	}
}

func TestPrintAccess(t *testing.T) {
	var out bytes.Buffer
	err := printWhoCan(&out, &authorization.WhoCan{Action: "a/read", Scope: "/s", Grants: []authorization.Holder{
		{PrincipalID: "1", PrincipalType: "Group", Name: "Developers", Role: "Reader", Scope: "/s", Condition: "x\n AND y", Members: []authorization.Member{{ID: "2", Type: "User", Name: "bob"}}},
		{PrincipalID: "3", PrincipalType: "User", Role: "Owner", Scope: "/"}}})
	if err != nil {
		t.Fatal(err)
	}
	want := `WHO           TYPE   ROLE                ON
Developers    Group  Reader              /s
  bob         User   through Developers  
  if x AND y                             
3 (gone)      User   Owner               /
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
	out.Reset()
	if err := printExplanation(&out, &authorization.Explanation{Principal: authorization.Member{ID: "2", Name: "bob"}, Action: "a/read", Scope: "/s", Allowed: true, Reason: "Because.",
		Grant: &authorization.Holder{Role: "Reader", Assignment: "/s/x"}, Through: &authorization.Member{ID: "1", Name: "Developers"}}); err != nil {
		t.Fatal(err)
	}
	want = `ALLOWED: Because.
Principal      bob (2)
Action         a/read
Scope          /s
Role           Reader
Assignment     /s/x
Through group  Developers (1)
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}
