// SPDX-License-Identifier: Apache-2.0

package authorization_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"bastide.dev/authorization"
	"bastide.dev/rbac"
)

func TestAssignmentHoldsFromTheNextCallOn(t *testing.T) {
	w := newWorld(t)
	thing := rg1 + "/providers/Microsoft.Test/things/a" + v
	w.do(admin, "PUT", thing, `{"location":"eastus"}`).want(t, 201)
	w.do(alice, "GET", thing, "").wantError(t, 403, "AuthorizationFailed")
	for range 20 {
		w.assign(admin, guid(1), rg1, alice, rbac.ReaderRole, "").want(t, 201)
		w.do(alice, "GET", thing, "").want(t, 200)
		w.do(alice, "PUT", thing, `{"location":"eastus"}`).wantError(t, 403, "AuthorizationFailed")
		w.do(admin, "DELETE", assignmentPath(rg1, guid(1)), "").want(t, 204)
		w.do(alice, "GET", thing, "").wantError(t, 403, "AuthorizationFailed")
	}
	w.do(admin, "DELETE", assignmentPath(rg1, guid(1)), "").want(t, 204)
}

func TestAssignmentHoldsInOtherReplicas(t *testing.T) {
	w := newWorld(t)
	_, other := w.open()
	thing := rg1 + "/providers/Microsoft.Test/things/a" + v
	w.do(admin, "PUT", thing, `{"location":"eastus"}`).want(t, 201)
	w.assign(admin, guid(1), sub, devs, rbac.ReaderRole, "").want(t, 201)
	eventually(t, "carol, through a group in a group,", func() bool { return ask(t, other, carol, "GET", thing, "").code == 200 })
	w.do(admin, "DELETE", assignmentPath(sub, guid(1)), "").want(t, 204)
	eventually(t, "the end of it", func() bool { return ask(t, other, carol, "GET", thing, "").code == 403 })
}

func TestAssignmentIsJudged(t *testing.T) {
	w := newWorld(t)
	w.assign(admin, "not-a-guid", rg1, "who", "99999999-9999-9999-9999-999999999999", `,"condition":"@Request[x] StringEquals","delegatedManagedIdentityResourceId":"/x"`).want(t, 400)
	for _, c := range []struct{ principal, role, more, code string }{
		{"who", rbac.ReaderRole, "", "InvalidPrincipalId"},
		{"dddddddd-0000-0000-0000-000000000000", rbac.ReaderRole, "", "PrincipalNotFound"},
		{alice, "none", "", "InvalidRoleDefinitionId"},
		{alice, rbac.ReaderRole, `,"principalType":"Group"`, "UnmatchedPrincipalType"},
		{alice, rbac.ReaderRole, `,"condition":"@Request[x] StringEquals 'a'","conditionVersion":"2.0"`, "UnsupportedConditionAttribute"},
		{alice, rbac.ReaderRole, `,"condition":"@Request[","conditionVersion":"2.0"`, "InvalidRoleAssignmentCondition"},
		{alice, rbac.ReaderRole, `,"condition":"ActionMatches{'*'}"`, "InvalidConditionVersion"},
		{alice, rbac.ReaderRole, `,"colour":"red"`, "InvalidParameter"},
	} {
		w.assign(admin, guid(1), rg1, c.principal, c.role, c.more).wantError(t, 400, c.code)
	}
	w.assign(admin, guid(1), rg1, alice, "99999999-9999-9999-9999-999999999999", "").wantError(t, 404, "RoleDefinitionDoesNotExist")
	w.assign(admin, guid(1), rg1+"/providers/Microsoft.Test/things/none", alice, rbac.ReaderRole, "").want(t, 404)
	w.assign(admin, guid(1), sub+"/resourceGroups/none", alice, rbac.ReaderRole, "").wantError(t, 404, "ResourceGroupNotFound")

	a := w.assign(admin, guid(1), rg1, alice, strings.ToUpper(rbac.ReaderRole), `,"principalType":"User","description":"d"`).want(t, 201)
	p := properties(a)
	if p["scope"] != rg1 || p["principalType"] != "User" || p["createdBy"] != admin || !strings.HasSuffix(p["roleDefinitionId"].(string), rbac.ReaderRole) {
		t.Errorf("properties %v", p)
	}
	w.assign(admin, guid(2), rg1, alice, rbac.ReaderRole, "").wantError(t, 409, "RoleAssignmentExists")
	w.assign(admin, guid(1), rg1, bob, rbac.ReaderRole, "").wantError(t, 400, "RoleAssignmentUpdateNotPermitted")
	w.assign(admin, guid(1), rg1, alice, rbac.ContributorRole, "").wantError(t, 400, "RoleAssignmentUpdateNotPermitted")
	if got := properties(w.assign(admin, guid(1), rg1, alice, rbac.ReaderRole, `,"description":"new"`).want(t, 200)); got["description"] != "new" {
		t.Errorf("description %v", got["description"])
	}
	w.do(admin, "GET", assignmentPath(rg1, guid(1)), "").want(t, 200)
	w.do(admin, "DELETE", assignmentPath(rg1, guid(1)), "").want(t, 204)
	w.assign(admin, guid(2), rg1, alice, rbac.ReaderRole, "").want(t, 201) // the mark of the first holds nothing up
}

func TestSideBySideMakesOneAssignment(t *testing.T) {
	w := newWorld(t)
	_, other := w.open()
	// Both have seen the other Owner before either goes on.
	var seen atomic.Int32
	both := make(chan struct{})
	w.directory.asked = func() {
		if seen.Add(1) == 2 {
			close(both)
		}
		<-both
	}
	var wait sync.WaitGroup
	codes := make([]int, 8)
	for i := range codes {
		front := w.front
		if i%2 == 1 {
			front = other
		}
		wait.Go(func() {
			codes[i] = ask(t, front, admin, "PUT", assignmentPath(rg1, guid(10+i)), `{"properties":{"principalId":"`+alice+`","roleDefinitionId":"/providers/Microsoft.Authorization/roleDefinitions/`+rbac.ReaderRole+`"}}`).code
		})
	}
	wait.Wait()
	slices.Sort(codes)
	if codes[0] != 201 || codes[1] != 409 {
		t.Errorf("answers %v, want one 201 and else 409", codes)
	}
}

func TestLastOwnerStays(t *testing.T) {
	w := newWorld(t)
	owners := w.do(admin, "GET", sub+"/providers/Microsoft.Authorization/roleAssignments"+v+"&$filter=atScope()", "").want(t, 200).names()
	if len(owners) != 2 {
		t.Fatalf("%d assignments at first", len(owners))
	}
	_, other := w.open()
	// Both have seen the other Owner before either goes on.
	var seen atomic.Int32
	both := make(chan struct{})
	w.directory.asked = func() {
		if seen.Add(1) == 2 {
			close(both)
		}
		<-both
	}
	var wait sync.WaitGroup
	codes := make([]int, 2)
	for i, front := range []string{"a", "b"} {
		handler := w.front
		if front == "b" {
			handler = other
		}
		wait.Go(func() { codes[i] = ask(t, handler, admin, "DELETE", assignmentPath(sub, owners[i]), "").code })
	}
	wait.Wait()
	slices.Sort(codes)
	if codes[0] != 204 || codes[1] == 204 {
		t.Errorf("deleting both owners side by side gave %v", codes)
	}
}

func TestScopeTricks(t *testing.T) {
	w := newWorld(t)
	for _, scope := range []string{rg1, rg10} {
		w.do(admin, "PUT", scope+"/providers/Microsoft.Test/things/a"+v, `{"location":"eastus"}`).want(t, 201)
	}
	w.assign(admin, guid(1), rg1, alice, rbac.ContributorRole, "").want(t, 201)
	w.do(alice, "GET", strings.ToUpper(rg1)+"/providers/microsoft.test/THINGS/a"+v, "").want(t, 200)
	for _, target := range []string{rg10 + "/providers/Microsoft.Test/things/a", sub, rg1 + "/../rg10/providers/Microsoft.Test/things/a",
		rg1 + "/./../rg10/providers/Microsoft.Test/things/a", rg1 + "%2f..%2frg10/providers/Microsoft.Test/things/a", rg1 + "%2e%2e", rg10, rg1 + "\\..\\rg10"} {
		if target == sub {
			target = sub + "/resourceGroups/new"
		}
		if a := w.do(alice, "PUT", target+v, `{"location":"eastus"}`); a.code < 400 {
			t.Errorf("PUT %s: %d", target, a.code)
		}
	}
	for _, target := range []string{rg1 + "/providers/Microsoft.Authorization/roleAssignments/" + guid(3) + "/providers/Microsoft.Authorization/roleAssignments/" + guid(4),
		rg1 + "/providers/Microsoft.Authorization/roleAssignments/" + guid(1) + "/parts/x"} {
		if a := w.do(alice, "PUT", target+v, `{"properties":{}}`); a.code < 400 {
			t.Errorf("PUT %s: %d", target, a.code)
		}
	}
}

func TestEscalation(t *testing.T) {
	w := newWorld(t)
	w.assign(admin, guid(1), sub, alice, rbac.ContributorRole, "").want(t, 201)
	w.assign(alice, guid(2), sub, alice, rbac.OwnerRole, "").wantError(t, 403, "AuthorizationFailed")
	w.assign(alice, guid(2), "/", alice, rbac.OwnerRole, "").wantError(t, 403, "AuthorizationFailed")
	w.do(alice, "DELETE", assignmentPath(sub, guid(1)), "").wantError(t, 403, "AuthorizationFailed")
	w.do(alice, "PUT", sub+"/providers/Microsoft.Authorization/roleDefinitions/"+guid(5)+v, `{"properties":{"roleName":"x","assignableScopes":["`+sub+`"],"permissions":[{"actions":["*"]}]}}`).
		wantError(t, 403, "AuthorizationFailed")
	w.do(alice, "POST", "/providers/Microsoft.Authorization/elevateAccess?api-version=2015-07-01", "").wantError(t, 403, "AuthorizationFailed")

	// bob may give out Reader, to users.
	condition := `,"conditionVersion":"2.0","condition":"((!(ActionMatches{'Microsoft.Authorization/roleAssignments/write'})) OR (@Request[Microsoft.Authorization/roleAssignments:RoleDefinitionId] ForAnyOfAnyValues:GuidEquals {` +
		rbac.ReaderRole + `} AND @Request[Microsoft.Authorization/roleAssignments:PrincipalType] StringEqualsIgnoreCase 'User')) AND ((!(ActionMatches{'Microsoft.Authorization/roleAssignments/delete'})) OR (@Resource[Microsoft.Authorization/roleAssignments:RoleDefinitionId] ForAnyOfAnyValues:GuidEquals {` + rbac.ReaderRole + `}))"`
	w.assign(admin, guid(3), rg1, bob, rbac.AccessAdministratorRole, condition).want(t, 201)
	w.assign(bob, guid(10), rg1, carol, rbac.ReaderRole, "").want(t, 201)
	w.assign(bob, guid(11), rg1, bob, rbac.OwnerRole, "").wantError(t, 403, "AuthorizationFailed")
	w.assign(bob, guid(12), rg1, devs, rbac.ReaderRole, "").wantError(t, 403, "AuthorizationFailed")
	w.assign(bob, guid(13), sub, carol, rbac.ReaderRole, "").wantError(t, 403, "AuthorizationFailed")
	w.assign(bob, guid(3), rg1, bob, rbac.AccessAdministratorRole, "").wantError(t, 403, "AuthorizationFailed") // his own, without its condition
	w.do(bob, "DELETE", assignmentPath(rg1, guid(3)), "").wantError(t, 403, "AuthorizationFailed")
	w.do(bob, "DELETE", assignmentPath(rg1, guid(10)), "").want(t, 204)
	w.do(bob, "PUT", rg1+"/providers/Microsoft.Test/things/a"+v, `{"location":"eastus"}`).wantError(t, 403, "AuthorizationFailed")
}

func TestLists(t *testing.T) {
	w := newWorld(t)
	for _, scope := range []string{rg1, rg10} {
		w.do(admin, "PUT", scope+"/providers/Microsoft.Test/things/a"+v, `{"location":"eastus"}`).want(t, 201)
		w.do(admin, "PUT", scope+"/providers/Microsoft.Test/things/b"+v, `{"location":"eastus"}`).want(t, 201)
	}
	w.do(admin, "PUT", rg1+"/providers/Microsoft.Test/things/a/parts/p"+v, `{}`).want(t, 201)
	groups, all, things := sub+"/resourceGroups?api-version=2021-04-01", sub+"/resources?api-version=2021-04-01", sub+"/providers/Microsoft.Test/things"+v
	for _, target := range []string{groups, all, things, rg1 + "/resources?api-version=2021-04-01"} {
		w.do(alice, "GET", target, "").wantError(t, 403, "AuthorizationFailed")
	}
	if a := w.do(alice, "GET", "/subscriptions?api-version=2020-01-01", "").want(t, 200); len(a.body["value"].([]any)) != 0 {
		t.Errorf("a stranger sees %s", a.text)
	}
	w.assign(admin, guid(1), rg1, alice, rbac.ReaderRole, "").want(t, 201)
	w.assign(admin, guid(2), rg10+"/providers/Microsoft.Test/things/b", bob, rbac.ContributorRole, "").want(t, 201)
	for who, cases := range map[string]map[string]string{
		alice: {groups: "[rg1]", all: "[a b]", things: "[a b]", rg10 + "/resources?api-version=2021-04-01": "[]"},
		bob:   {groups: "[]", all: "[b]", things: "[b]", rg10 + "/providers/Microsoft.Test/things" + v: "[b]"},
	} {
		for target, want := range cases {
			a := w.do(who, "GET", target, "")
			if target == rg10+"/resources?api-version=2021-04-01" && who == alice {
				a.wantError(t, 403, "AuthorizationFailed")
				continue
			}
			if got := fmt.Sprint(a.want(t, 200).names()); got != want {
				t.Errorf("%s gets %s of %s, want %s", who, got, target, want)
			}
		}
		if a := w.do(who, "GET", "/subscriptions?api-version=2020-01-01", "").want(t, 200); len(a.body["value"].([]any)) != 1 {
			t.Errorf("%s sees %s", who, a.text)
		}
	}
	w.do(bob, "GET", rg10+"?api-version=2021-04-01", "").wantError(t, 403, "AuthorizationFailed")
	w.do(bob, "GET", rg1+"/providers/Microsoft.Test/things/a/parts"+v, "").wantError(t, 403, "AuthorizationFailed")
}

func TestLinkedResources(t *testing.T) {
	w := newWorld(t)
	friend := rg10 + "/providers/Microsoft.Test/things/friend"
	identity := rg10 + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/i"
	w.do(admin, "PUT", friend+v, `{"location":"eastus"}`).want(t, 201)
	w.assign(admin, guid(1), rg1, alice, rbac.ContributorRole, "").want(t, 201)
	mine := rg1 + "/providers/Microsoft.Test/things/mine" + v
	body := `{"location":"eastus","properties":{"friends":[{"id":"` + rg1 + `/providers/Microsoft.Test/things/x"},{"id":"` + strings.ToUpper(friend) + `"}]}}`
	w.do(alice, "PUT", mine, body).wantError(t, 403, "LinkedAuthorizationFailed")
	w.do(alice, "PUT", mine, `{"location":"eastus","IDENTITY":{"userAssignedIdentities":{"`+identity+`":{}}}}`).wantError(t, 403, "LinkedAuthorizationFailed")
	w.assign(admin, guid(2), friend, alice, rbac.ContributorRole, "").want(t, 201)
	w.do(alice, "PUT", mine, body).want(t, 201)
	w.do(alice, "PUT", mine, `{"location":"eastus","properties":{"friends":[]}}`).want(t, 200)
}

func TestWhatStandsOnAScopeGoesWithIt(t *testing.T) {
	w := newWorld(t)
	thing := rg1 + "/providers/Microsoft.Test/things/a"
	w.do(admin, "PUT", thing+v, `{"location":"eastus"}`).want(t, 201)
	w.assign(admin, guid(1), thing, alice, rbac.ReaderRole, "").want(t, 201)
	w.assign(admin, guid(2), thing+"/namespaces/one", alice, rbac.ReaderRole, "").want(t, 201)
	w.do(admin, "DELETE", thing+v, "").want(t, 204)
	w.do(admin, "PUT", thing+v, `{"location":"eastus"}`).want(t, 201)
	w.do(alice, "GET", thing+v, "").wantError(t, 403, "AuthorizationFailed")

	// A Contributor may delete a group with all roles on it, though not the roles alone.
	w.assign(admin, guid(3), rg10, bob, rbac.ContributorRole, "").want(t, 201)
	w.do(bob, "DELETE", assignmentPath(rg10, guid(3)), "").wantError(t, 403, "AuthorizationFailed")
	w.do(bob, "DELETE", rg10+"?api-version=2021-04-01", "")
	eventually(t, "the group's end", func() bool { return w.do(admin, "GET", rg10+"?api-version=2021-04-01", "").code == 404 })
	w.do(admin, "PUT", rg10+"?api-version=2021-04-01", `{"location":"eastus"}`).want(t, 201)
	w.do(bob, "GET", rg10+"?api-version=2021-04-01", "").wantError(t, 403, "AuthorizationFailed")
}

func TestOwnAssignments(t *testing.T) {
	w := newWorld(t)
	for range 2 {
		if err := w.p.Assign(t.Context(), alice, rbac.ReaderRole, rg1); err != nil {
			t.Fatal(err)
		}
	}
	w.assign(admin, guid(1), rg10, alice, rbac.ReaderRole, "").want(t, 201)
	w.do(alice, "GET", rg1+"?api-version=2021-04-01", "").want(t, 200)
	if err := w.p.Unassign(t.Context(), alice); err != nil {
		t.Fatal(err)
	}
	w.do(alice, "GET", rg1+"?api-version=2021-04-01", "").want(t, 403)
	w.do(alice, "GET", rg10+"?api-version=2021-04-01", "").want(t, 200) // somebody's own decision stays

	// An assignment whose principal is gone is there, and nobody's.
	w.directory.remove(alice)
	w.do(admin, "GET", assignmentPath(rg10, guid(1)), "").want(t, 200)
	if err := w.p.Assign(t.Context(), bob, "99999999-9999-9999-9999-999999999999", rg1); err == nil {
		t.Error("a role that isn't there was assigned")
	}
}

func TestBootstrapIsOnce(t *testing.T) {
	w := newWorld(t)
	names := w.do(admin, "GET", sub+"/providers/Microsoft.Authorization/roleAssignments"+v+"&$filter=principalId eq '"+robot+"'", "").want(t, 200).names()
	if len(names) != 1 {
		t.Fatalf("robot has %v", names)
	}
	w.do(admin, "DELETE", assignmentPath(sub, names[0]), "").want(t, 204)
	if err := authorization.Bootstrap(t.Context(), w.store, bootstrap()); err != nil {
		t.Fatal(err)
	}
	_, again := w.open()
	ask(t, again, robot, "GET", rg1+"?api-version=2021-04-01", "").want(t, 403)
	ask(t, again, admin, "GET", rg1+"?api-version=2021-04-01", "").want(t, 200)
}
