// SPDX-License-Identifier: Apache-2.0

package identity_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"bastide.dev/fault"
	"bastide.dev/identity"
	"bastide.dev/store/memory"
)

// clock is a time that only the test moves.
type clock struct {
	mu  sync.Mutex // guards now
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

type world struct {
	*identity.Directory
	store *memory.Store
	clock *clock
	first identity.Bootstrapped
}

var endpoints = identity.Endpoints{Authority: "https://login.test", ResourceManager: "https://management.test",
	Graph: "https://graph.test", Registry: "https://registry.test"}

func open(t *testing.T, s *memory.Store, c *clock) world {
	t.Helper()
	d, err := identity.New(identity.Config{Store: s, Endpoints: endpoints, Now: c.Now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	first, err := d.Bootstrap(t.Context(), identity.BootstrapOptions{Domain: "test"})
	if err != nil {
		t.Fatal(err)
	}
	return world{d, s, c, first}
}

func newWorld(t *testing.T) world {
	t.Helper()
	return open(t, memory.New(0), &clock{now: time.Now()})
}

func (w world) ownerToken(t *testing.T, resource string) string {
	t.Helper()
	sp, credential, err := w.CheckSecret(t.Context(), w.first.ClientID, w.first.Secret, "1.1.1.1")
	if err != nil {
		t.Fatal(err)
	}
	r, err := w.Resource(t.Context(), resource)
	if err != nil {
		t.Fatal(err)
	}
	token, err := w.PrincipalToken(t.Context(), sp, r, credential)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func wantCode(t *testing.T, err error, code string) {
	t.Helper()
	if err == nil || fault.From(err).Code != code {
		t.Errorf("got error %v, want %s", err, code)
	}
}

func TestBootstrapIsDoneOnce(t *testing.T) {
	w := newWorld(t)
	if !w.first.Created || w.first.Password == "" || w.first.Secret == "" {
		t.Fatalf("first start: %+v", w.first)
	}
	records, _, err := w.store.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		if strings.Contains(string(r.Value), w.first.Password) || strings.Contains(string(r.Value), w.first.Secret) {
			t.Errorf("%s holds a secret in clear", r.Key)
		}
	}
	again := open(t, w.store, w.clock)
	if again.first.Created || again.first.Password != "" || again.first.Tenant != w.first.Tenant || again.first.ClientID != w.first.ClientID {
		t.Errorf("second start: %+v, first %+v", again.first, w.first)
	}
	if _, err := again.CheckPassword(t.Context(), "admin@test", w.first.Password, "1.1.1.1"); err != nil {
		t.Error(err)
	}
}

func TestResetOwnerEndsOldSecrets(t *testing.T) {
	w := newWorld(t)
	token := w.ownerToken(t, "https://management.test")
	w.clock.add(time.Second)
	fresh, err := w.ResetOwner(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Authenticate(t.Context(), token)
	wantCode(t, err, "InvalidAuthenticationToken")
	_, _, err = w.CheckSecret(t.Context(), w.first.ClientID, w.first.Secret, "a")
	wantCode(t, err, identity.CodeWrongSecret)
	if _, _, err = w.CheckSecret(t.Context(), w.first.ClientID, fresh.Secret, "a"); err != nil {
		t.Error(err)
	}
	_, err = w.CheckPassword(t.Context(), "admin@test", w.first.Password, "a")
	wantCode(t, err, identity.CodeWrongPassword)
	if _, err = w.CheckPassword(t.Context(), "ADMIN@test", fresh.Password, "a"); err != nil {
		t.Error(err)
	}
}

func TestPrincipalsEndAtOnce(t *testing.T) {
	w := newWorld(t)
	user, err := w.CreateUser(t.Context(), "eve", "Eve", "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	app, err := w.Application(t.Context(), identity.AppCLI)
	if err != nil {
		t.Fatal(err)
	}
	arm, err := w.Resource(t.Context(), "https://management.azure.com/")
	if err != nil {
		t.Fatal(err)
	}
	issue := func() string {
		token, err := w.UserToken(t.Context(), identity.UserGrant{User: user, Client: app, Resource: arm, AuthTime: time.Now(), Address: "1.1.1.1"})
		if err != nil {
			t.Fatal(err)
		}
		if p, err := w.Authenticate(t.Context(), token); err != nil || p.Name != "eve@test" {
			t.Fatal(p, err)
		}
		return token
	}
	token := issue()
	if err := w.UpdateUser(t.Context(), user.ID, func(u *identity.User) { u.Disabled = true }); err != nil {
		t.Fatal(err)
	}
	_, err = w.Authenticate(t.Context(), token)
	wantCode(t, err, "InvalidAuthenticationToken")
	if err := w.UpdateUser(t.Context(), user.ID, func(u *identity.User) { u.Disabled = false }); err != nil {
		t.Fatal(err)
	}
	token = issue()
	w.clock.add(time.Second)
	if err := w.SetPassword(t.Context(), user.ID, "another horse"); err != nil {
		t.Fatal(err)
	}
	_, err = w.Authenticate(t.Context(), token)
	wantCode(t, err, "InvalidAuthenticationToken")
	token = issue()
	if err := w.DeleteUser(t.Context(), user.ID); err != nil {
		t.Fatal(err)
	}
	_, err = w.Authenticate(t.Context(), token)
	wantCode(t, err, "InvalidAuthenticationToken")
}

func TestSecretEndsWithItsTokens(t *testing.T) {
	w := newWorld(t)
	sp, plain, err := w.CreateApplication(t.Context(), "short", 10*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	_, id, err := w.CheckSecret(t.Context(), sp.AppID, plain, "a")
	if err != nil {
		t.Fatal(err)
	}
	arm, err := w.Resource(t.Context(), "https://management.test")
	if err != nil {
		t.Fatal(err)
	}
	token, err := w.PrincipalToken(t.Context(), sp, arm, id)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Authenticate(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	w.clock.add(11 * time.Minute)
	_, err = w.Authenticate(t.Context(), token)
	wantCode(t, err, "InvalidAuthenticationToken")
	_, _, err = w.CheckSecret(t.Context(), sp.AppID, plain, "a")
	wantCode(t, err, identity.CodeExpiredSecret)
}

func TestKeysRotateWithOverlap(t *testing.T) {
	w := newWorld(t)
	kid := func() string {
		parsed, err := jwt.ParseSigned(w.ownerToken(t, "https://management.test"), []jose.SignatureAlgorithm{identity.Algorithm})
		if err != nil {
			t.Fatal(err)
		}
		return parsed.Headers[0].KeyID
	}
	published := func() int {
		set, err := w.KeySet(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return len(set.Keys)
	}
	rotate := func() {
		if _, err := w.Bootstrap(t.Context(), identity.BootstrapOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	old := kid()
	w.clock.add(30*24*time.Hour + time.Minute)
	rotate()
	if published() != 2 || kid() != old {
		t.Errorf("the new key must be published (%d) and not used yet", published())
	}
	w.clock.add(23*time.Hour + 30*time.Minute)
	token := w.ownerToken(t, "https://management.test")
	w.clock.add(30 * time.Minute)
	if kid() == old {
		t.Error("the new key must be used a day after it was published")
	}
	if _, err := w.Authenticate(t.Context(), token); err != nil {
		t.Errorf("a token of the old key must be valid to its end: %v", err)
	}
	w.clock.add(48 * time.Hour)
	rotate()
	if published() != 1 {
		t.Errorf("the old key must be gone, %d published", published())
	}
}

func TestManagedIdentity(t *testing.T) {
	w := newWorld(t)
	resource := "/subscriptions/s/resourcegroups/g/providers/Microsoft.ContainerService/managedClusters/c"
	var wait sync.WaitGroup
	ids := make([]string, 4)
	for i := range ids {
		d := open(t, w.store, w.clock) // replicas that know nothing of each other yet
		wait.Go(func() {
			id, _, err := d.CreateManagedIdentity(context.Background(), "c", resource)
			if err != nil {
				t.Error(err)
			}
			ids[i] = id
		})
	}
	wait.Wait()
	for _, id := range ids[1:] {
		if id != ids[0] || id == "" {
			t.Fatalf("one resource has several identities: %v", ids)
		}
	}
	for range 2 {
		if err := w.DeletePrincipal(t.Context(), ids[0]); err != nil {
			t.Fatal(err)
		}
	}
	next, _, err := w.CreateManagedIdentity(t.Context(), "c", resource)
	if err != nil || next == ids[0] {
		t.Errorf("a new identity has the old one's id: %v %v", next, err)
	}
}

func TestReplicasSeeEachOther(t *testing.T) {
	w := newWorld(t)
	other := open(t, w.store, w.clock)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- other.Run(ctx) }()
	user, err := w.CreateUser(t.Context(), "late", "Late", "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.User(t.Context(), user.ID); err != nil {
		t.Errorf("a user of another replica must be found by id at once: %v", err)
	}
	if err := w.DeleteUser(t.Context(), user.ID); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(2 * time.Minute)
	for {
		if _, err := other.User(t.Context(), user.ID); fault.Is(err, fault.NotFound) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the deletion wasn't seen")
		}
		time.Sleep(time.Millisecond)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestGroupsAreTransitive(t *testing.T) {
	w := newWorld(t)
	user, err := w.CreateUser(t.Context(), "g", "G", "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	inner, err := w.CreateGroup(t.Context(), "inner", user.ID)
	if err != nil {
		t.Fatal(err)
	}
	outer, err := w.CreateGroup(t.Context(), "outer", inner.ID)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(w.GroupsOf(user.ID)); !strings.Contains(got, outer.ID) || !strings.Contains(got, inner.ID) {
		t.Errorf("groups %s", got)
	}
}

func TestLockOut(t *testing.T) {
	w := newWorld(t)
	for range 10 {
		_, err := w.CheckPassword(t.Context(), "admin@test", "wrong", "9.9.9.9")
		wantCode(t, err, identity.CodeWrongPassword)
	}
	_, err := w.CheckPassword(t.Context(), "admin@test", w.first.Password, "9.9.9.9")
	wantCode(t, err, identity.CodeLocked)
	if _, err := w.CheckPassword(t.Context(), "admin@test", w.first.Password, "8.8.8.8"); err != nil {
		t.Errorf("another address is locked as well: %v", err)
	}
	w.clock.add(61 * time.Second)
	if _, err := w.CheckPassword(t.Context(), "admin@test", w.first.Password, "9.9.9.9"); err != nil {
		t.Errorf("still locked: %v", err)
	}
	for i := range 100 {
		_, _ = w.CheckPassword(t.Context(), fmt.Sprintf("nobody%d@test", i), "wrong", "7.7.7.7")
	}
	_, err = w.CheckPassword(t.Context(), "admin@test", w.first.Password, "7.7.7.7")
	wantCode(t, err, identity.CodeLocked)
}

func TestUnknownUserTakesAsLong(t *testing.T) {
	w := newWorld(t)
	best := func(name string) time.Duration {
		least := time.Hour
		for i := range 7 {
			start := time.Now()
			_, err := w.CheckPassword(t.Context(), name, "wrong", fmt.Sprint(i))
			least = min(least, time.Since(start))
			wantCode(t, err, identity.CodeWrongPassword)
		}
		return least
	}
	known, unknown := best("admin@test"), best("nobody@test")
	if unknown < known/2 || known < unknown/2 {
		t.Errorf("known user %v, unknown user %v", known, unknown)
	}
}

func TestBasic(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	for _, c := range []struct{ name, password string }{
		{"admin", w.first.Password}, {"admin@test", w.first.Password}, {w.first.ClientID, w.first.Secret},
		{identity.TokenUser, w.ownerToken(t, "https://management.test")}, {identity.TokenUser, w.ownerToken(t, "https://registry.test")},
	} {
		p, err := w.AuthenticateBasic(ctx, c.name, c.password, "a")
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if err := w.Standing(ctx, p); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	_, err := w.AuthenticateBasic(ctx, "admin", w.first.Password+"x", "a")
	wantCode(t, err, identity.CodeWrongPassword)
	user, err := w.User(ctx, "admin@test")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.SetPassword(ctx, user.ID, "something else"); err != nil {
		t.Fatal(err)
	}
	_, err = w.AuthenticateBasic(ctx, "admin", w.first.Password, "a")
	wantCode(t, err, identity.CodeWrongPassword)
}

func BenchmarkAuthenticate(b *testing.B) {
	s, c := memory.New(0), &clock{now: time.Now()}
	d, err := identity.New(identity.Config{Store: s, Endpoints: endpoints, Now: c.Now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	first, err := d.Bootstrap(b.Context(), identity.BootstrapOptions{Domain: "test"})
	if err != nil {
		b.Fatal(err)
	}
	sp, err := d.ServicePrincipal(b.Context(), first.ClientID)
	if err != nil {
		b.Fatal(err)
	}
	arm, err := d.Resource(b.Context(), endpoints.ResourceManager)
	if err != nil {
		b.Fatal(err)
	}
	var token string
	b.Run("issue", func(b *testing.B) {
		for b.Loop() {
			if token, err = d.PrincipalToken(b.Context(), sp, arm, ""); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("verify cached", func(b *testing.B) {
		for b.Loop() {
			if _, err := d.Authenticate(b.Context(), token); err != nil {
				b.Fatal(err)
			}
		}
	})
}
