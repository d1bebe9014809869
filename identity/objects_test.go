// SPDX-License-Identifier: Apache-2.0

package identity_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"bastide.dev/fault"
	"bastide.dev/identity"
)

// TestAuditHidesSecrets holds every property of every document against the log:
// what is made of a secret has one of the names that are never shown.
func TestAuditHidesSecrets(t *testing.T) {
	hidden := map[string]bool{"passwordHash": true, "secrets": true, "platform": true, "certificates": true}
	for _, v := range []any{identity.User{}, identity.Group{}, identity.Application{}, identity.ServicePrincipal{}} {
		kind := reflect.TypeOf(v)
		for i := range kind.NumField() {
			f := kind.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			secret := strings.Contains(f.Type.String(), "Secret") || strings.Contains(f.Type.String(), "Certificate") || strings.Contains(f.Type.String(), "uint8") ||
				strings.Contains(strings.ToLower(name), "hash") || strings.Contains(strings.ToLower(name), "secret")
			if secret && !hidden[name] {
				t.Errorf("%s.%s may hold a secret and isn't hidden", kind.Name(), f.Name)
			}
		}
	}
	w := newWorld(t)
	sp, plain, err := w.CreateApplication(t.Context(), "app", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.PlatformSecret(t.Context(), sp.ID); err != nil {
		t.Fatal(err)
	}
	user, err := w.CreateUser(t.Context(), "alice", "Alice", "a long first one")
	if err != nil {
		t.Fatal(err)
	}
	w.clock.add(time.Second)
	ctx := identity.By(t.Context(), identity.AuditActor{Kind: identity.UserKind, ID: "1", Name: "root@test"})
	if err := w.ResetPassword(ctx, user.ID, "a long second one", true); err != nil {
		t.Fatal(err)
	}
	log, err := w.AuditLog(t.Context())
	if err != nil || len(log) < 4 {
		t.Fatalf("%v %v", log, err)
	}
	if log[0].Activity != "Reset user password" || log[0].By.Name != "root@test" || !log[len(log)-1].By.Service {
		t.Errorf("%+v", log[0])
	}
	app, err := w.Application(t.Context(), sp.AppID)
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(log)
	if err != nil {
		t.Fatal(err)
	}
	hash, err := json.Marshal(app.Secrets[0].Hash)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{plain, "argon2id", "a long", strings.Trim(string(hash), `"`)} {
		if strings.Contains(string(data), secret) {
			t.Errorf("the log holds %q", secret)
		}
	}
}

// TestDeletionCleans leaves nothing of a principal that much names.
func TestDeletionCleans(t *testing.T) {
	w := newWorld(t)
	user, err := w.CreateUser(t.Context(), "alice", "Alice", "a long first one")
	if err != nil {
		t.Fatal(err)
	}
	const many = 900 // more than one transaction takes
	for i := range many {
		if _, err := w.AddGroup(t.Context(), identity.Group{DisplayName: fmt.Sprint("g", i), Members: []string{user.ID}}); err != nil {
			t.Fatal(err)
		}
	}
	if got := w.GroupsOf(user.ID); len(got) != many {
		t.Fatal(len(got))
	}
	if _, err := w.AssignRole(t.Context(), user.ID, identity.GlobalReader); err != nil {
		t.Fatal(err)
	}
	if err := w.Consent(t.Context(), user.ID, identity.AppCLI, identity.AppGraph, []string{"User.Read"}); err != nil {
		t.Fatal(err)
	}
	if err := w.DeleteUser(t.Context(), user.ID); err != nil {
		t.Fatal(err)
	}
	roles, err := w.RoleAssignments(t.Context())
	if err != nil || len(roles) != 2 || len(w.GroupsOf(user.ID)) != 0 || len(w.RolesOf(user.ID)) != 0 {
		t.Errorf("%v %v %d", roles, err, len(w.GroupsOf(user.ID)))
	}
	records, _, err := w.store.List(t.Context(), "identity/")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		if strings.Contains(string(r.Value), user.ID) {
			t.Errorf("%s names the user", r.Key)
		}
	}
	if again := open(t, w.store, w.clock); len(again.GroupsOf(user.ID)) != 0 {
		t.Error("after a restart the user is back")
	}
}

// TestNamesAreOnes of many who ask for a name at once gets it.
func TestNamesAreOnes(t *testing.T) {
	w := newWorld(t)
	second := open(t, w.store, w.clock) // another replica, which hears nothing of the first
	var wait sync.WaitGroup
	var mu sync.Mutex // guards made
	made := 0
	for i := range 8 {
		wait.Go(func() {
			d := w
			if i%2 == 1 {
				d = second
			}
			if _, err := d.CreateUser(t.Context(), "alice", "Alice", "a long first one"); err == nil {
				mu.Lock()
				made++
				mu.Unlock()
			} else if !fault.Is(err, fault.Invalid) {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if made != 1 {
		t.Errorf("%d users of one name", made)
	}
}

// TestMembersAtOnce are all there.
func TestMembersAtOnce(t *testing.T) {
	w := newWorld(t)
	group, err := w.CreateGroup(t.Context(), "all")
	if err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	for i := range 20 {
		sp, _, err := w.CreateApplication(t.Context(), fmt.Sprint("app", i), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		wait.Go(func() {
			if err := w.AddMember(t.Context(), group.ID, sp.ID); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if got, err := w.Group(t.Context(), group.ID); err != nil || len(got.Members) != 20 || len(w.MembersOf(group.ID)) != 20 {
		t.Errorf("%d members, %v", len(got.Members), err)
	}
}

func TestRolesThroughGroups(t *testing.T) {
	w := newWorld(t)
	user, err := w.CreateUser(t.Context(), "alice", "Alice", "a long first one")
	if err != nil {
		t.Fatal(err)
	}
	plain, err := w.CreateGroup(t.Context(), "plain", user.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.AssignRole(t.Context(), plain.ID, identity.GlobalReader); !fault.Is(err, fault.Invalid) {
		t.Errorf("a plain group holds a role: %v", err)
	}
	if _, err := w.AddGroup(t.Context(), identity.Group{DisplayName: "nested", RoleAssignable: true, Members: []string{plain.ID}}); !fault.Is(err, fault.Invalid) {
		t.Errorf("a group in a role-assignable one: %v", err)
	}
	roles, err := w.AddGroup(t.Context(), identity.Group{DisplayName: "roles", RoleAssignable: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.AssignRole(t.Context(), roles.ID, identity.GlobalReader); err != nil {
		t.Fatal(err)
	}
	if err := w.AddMember(t.Context(), roles.ID, strings.ToUpper(user.ID)); err != nil {
		t.Fatal(err)
	}
	if got := w.RolesOf(user.ID); len(got) != 1 || got[0] != identity.GlobalReader {
		t.Errorf("%v", got)
	}
	if err := w.RemoveMember(t.Context(), roles.ID, user.ID); err != nil || len(w.RolesOf(user.ID)) != 0 {
		t.Errorf("%v %v", err, w.RolesOf(user.ID))
	}
	err = w.EditGroup(t.Context(), plain.ID, func(g *identity.Group) error { g.RoleAssignable = true; return nil })
	if !fault.Is(err, fault.Invalid) {
		t.Errorf("a group with members becomes assignable to roles: %v", err)
	}
}

// TestConsentIsLive ends what was agreed to at once, and knows scopes only that are there.
func TestConsentIsLive(t *testing.T) {
	w := newWorld(t)
	user, err := w.User(t.Context(), w.first.Administrator)
	if err != nil {
		t.Fatal(err)
	}
	consented := func() string {
		got, err := w.Consented(t.Context(), user.ID, identity.AppCLI, identity.AppGraph)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(got, " ")
	}
	if err := w.Consent(t.Context(), user.ID, identity.AppCLI, identity.AppGraph, []string{"User.Read"}); err != nil {
		t.Fatal(err)
	}
	if err := w.Consent(t.Context(), user.ID, identity.AppCLI, identity.AppGraph, []string{"openid", "User.Read"}); err != nil || consented() != "User.Read openid" {
		t.Errorf("%q %v", consented(), err)
	}
	if err := w.Consent(t.Context(), user.ID, identity.AppCLI, identity.AppGraph, []string{"Mind.Read"}); !fault.Is(err, fault.Invalid) {
		t.Errorf("an unknown scope: %v", err)
	}
	all, err := w.Grants(t.Context(), "")
	if err != nil || len(all) != 1 {
		t.Fatalf("%v %v", all, err)
	}
	if err := w.DeleteGrant(t.Context(), all[0].ID); err != nil || consented() != "" {
		t.Errorf("%q %v", consented(), err)
	}
	if err := w.Consent(t.Context(), "11111111-1111-4111-8111-111111111111", identity.AppCLI, identity.AppGraph, []string{"User.Read"}); !fault.Is(err, fault.Invalid) {
		t.Errorf("nobody's consent: %v", err)
	}
}

// TestAuditEnds with age, and nothing newer.
func TestAuditEnds(t *testing.T) {
	w := newWorld(t)
	if _, err := w.CreateGroup(t.Context(), "old"); err != nil {
		t.Fatal(err)
	}
	w.clock.add(31 * 24 * time.Hour)
	if _, err := w.CreateGroup(t.Context(), "new"); err != nil {
		t.Fatal(err)
	}
	if err := w.SweepAudit(t.Context()); err != nil {
		t.Fatal(err)
	}
	log, err := w.AuditLog(t.Context())
	if err != nil || len(log) != 1 || log[0].Targets[0].Name != "new" {
		t.Errorf("%+v %v", log, err)
	}
}

var errStop = errors.New("stop")

// TestEditStops writes nothing when the change refuses itself.
func TestEditStops(t *testing.T) {
	w := newWorld(t)
	group, err := w.CreateGroup(t.Context(), "before")
	if err != nil {
		t.Fatal(err)
	}
	err = w.EditGroup(t.Context(), group.ID, func(g *identity.Group) error {
		g.DisplayName = "after"
		return errStop
	})
	if got, _ := w.Group(t.Context(), group.ID); !errors.Is(err, errStop) || got.DisplayName != "before" {
		t.Errorf("%v %v", err, got)
	}
}

// BenchmarkGroupsOf is asked at each request: 10,000 users in 1,000 groups.
func BenchmarkGroupsOf(b *testing.B) {
	d, ids := big(b)
	b.ResetTimer()
	for i := range b.N {
		if len(d.GroupsOf(ids[i%len(ids)])) == 0 {
			b.Fatal("no groups")
		}
	}
}
