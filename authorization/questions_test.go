// SPDX-License-Identifier: Apache-2.0

package authorization_test

import (
	"encoding/json"
	"strings"
	"testing"

	"bastide.dev/arm"
	"bastide.dev/authorization"
	"bastide.dev/rbac"
	"bastide.dev/store"
	"bastide.dev/store/memory"
)

func TestQuestions(t *testing.T) {
	w := newWorld(t)
	w.assign(admin, guid(1), rg1, devs, rbac.ReaderRole, "").want(t, 201)
	questions := func(who, scope, action, body string) *answer {
		return w.do(who, "POST", scope+"/providers/Bastide.Authorization/questions/default/"+action+"?api-version=2026-11-01", body)
	}
	a := questions(admin, rg1, "whoCan", `{"action":"Microsoft.Test/things/read"}`).want(t, 200)
	var can authorization.WhoCan
	if err := json.Unmarshal([]byte(a.text), &can); err != nil || len(can.Grants) != 3 {
		t.Fatalf("%v: %s", err, a.text)
	}
	if g := can.Grants[0]; g.Name != "Developers" || g.Role != "Reader" || len(g.Members) != 3 {
		t.Errorf("the nearest grant %+v", g)
	}
	explain := func(who, action, scope string) authorization.Explanation {
		t.Helper()
		a := questions(admin, scope, "explain", `{"principal":"`+who+`","action":"`+action+`"}`).want(t, 200)
		var e authorization.Explanation
		if err := json.Unmarshal([]byte(a.text), &e); err != nil {
			t.Fatal(err)
		}
		return e
	}
	if e := explain("carol", "Microsoft.Test/things/read", rg1); !e.Allowed || e.Through == nil || e.Through.Name != "Developers" || e.Grant.Role != "Reader" {
		t.Errorf("carol: %+v", e)
	}
	if e := explain(carol, "Microsoft.Test/things/write", rg1); e.Allowed || !strings.Contains(e.Reason, "Reader") {
		t.Errorf("carol: %+v", e)
	}
	if e := explain(alice, "Microsoft.Test/things/read", rg1); e.Allowed || !strings.Contains(e.Reason, "No role") {
		t.Errorf("alice: %+v", e)
	}
	questions(admin, rg1, "explain", `{"principal":"nobody","action":"a/read"}`).wantError(t, 404, "PrincipalNotFound")
	questions(admin, rg1, "whoCan", `{"action":"*"}`).wantError(t, 400, "InvalidAction")
	questions(admin, rg1, "whoCan", `{"action":["a"]}`).want(t, 400)
	questions(alice, rg1, "whoCan", `{"action":"a/read"}`).wantError(t, 403, "AuthorizationFailed")
	questions(carol, rg1, "whoCan", `{"action":"a/read"}`).want(t, 200) // a Reader reads role assignments
	questions(carol, sub, "whoCan", `{"action":"a/read"}`).wantError(t, 403, "AuthorizationFailed")
	questions(admin, sub+"/resourceGroups/none", "whoCan", `{"action":"a/read"}`).want(t, 404)
}

func TestActivityLogHasBeforeAndAfter(t *testing.T) {
	w := newWorld(t)
	w.assign(admin, guid(1), rg1, alice, rbac.ReaderRole, "").want(t, 201)
	w.assign(admin, guid(1), rg1, alice, rbac.ReaderRole, `,"description":"why"`).want(t, 200)
	w.do(admin, "DELETE", assignmentPath(rg1, guid(1)), "").want(t, 204)
	w.assign(alice, guid(2), rg1, alice, rbac.OwnerRole, "").want(t, 403)
	a := w.do(admin, "GET", sub+"/providers/Microsoft.Insights/eventtypes/management/values?api-version=2015-04-01", "")
	if a.code != 200 {
		a = w.do(admin, "GET", sub+"/providers/Microsoft.Insights/eventtypes/values?api-version=2015-04-01", "").want(t, 200)
	}
	var log struct {
		Value []struct {
			OperationName struct{ Value string }
			Status        struct{ Value string }
			Caller        string
			Properties    map[string]string
		}
	}
	if err := json.Unmarshal([]byte(a.text), &log); err != nil {
		t.Fatal(err)
	}
	var steps []string
	for _, e := range log.Value {
		if strings.HasPrefix(e.OperationName.Value, "Microsoft.Authorization/roleAssignments/") {
			step := strings.TrimPrefix(e.OperationName.Value, "Microsoft.Authorization/roleAssignments/") + " " + e.Caller + " " + e.Status.Value
			if strings.Contains(e.Properties["before"], alice) {
				step += " before"
			}
			if strings.Contains(e.Properties["after"], alice) {
				step += " after"
			}
			steps = append([]string{step}, steps...)
		}
	}
	want := "write admin Succeeded after, write admin Succeeded before after, delete admin Succeeded before, write alice Failed"
	if got := strings.Join(steps, ", "); got != want {
		t.Errorf("log %q, want %q", got, want)
	}
}

// TestOlderInstanceIsTakenOver starts from the documents of an instance whose
// role assignments weren't ARM documents yet.
func TestOlderInstanceIsTakenOver(t *testing.T) {
	w := &world{t: t, store: memory.New(0), directory: newDirectory()}
	old := map[string]string{"1": `{"id":"1","principalId":"` + admin + `","role":"8e3af657-a8ff-443c-a75c-2fe8c4b6b635","scope":"` + sub + `"}`,
		"2": `{"id":"2","principalId":"` + bob + `","role":"` + rbac.ContributorRole + `","scope":"` + rg1 + `"}`}
	for id, document := range old {
		if _, err := w.store.Put(t.Context(), "identity/assignments/"+id, []byte(document), store.Absent); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := authorization.Bootstrap(t.Context(), w.store, bootstrap()); err != nil {
			t.Fatal(err)
		}
	}
	w.p, w.front = w.open()
	w.do(admin, "PUT", rg1+"?api-version=2021-04-01", `{"location":"eastus"}`).want(t, 201)
	w.do(bob, "PUT", rg1+"?api-version=2021-04-01", `{"location":"eastus"}`).want(t, 200)
	w.do(robot, "GET", rg1+"?api-version=2021-04-01", "").wantError(t, 403, "AuthorizationFailed") // its Owner had been taken away
	if err := w.p.Unassign(t.Context(), bob); err != nil {
		t.Fatal(err)
	}
	w.do(bob, "GET", rg1+"?api-version=2021-04-01", "").wantError(t, 403, "AuthorizationFailed")
}

func TestDocumentThatCantBeReadGrantsNothing(t *testing.T) {
	w := newWorld(t)
	w.assign(admin, guid(1), rg1, alice, rbac.ReaderRole, "").want(t, 201)
	id, err := authorization.AssignmentID(rg1, guid(1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.Put(t.Context(), arm.DocumentKey(id), []byte(`{"id":"`+id.String()+`","body":{"properties":7}}`), store.Any); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of the grant", func() bool { return w.do(alice, "GET", rg1+"?api-version=2021-04-01", "").code == 403 })
}
