// SPDX-License-Identifier: Apache-2.0

package compute

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/host"
	"bastide.dev/host/hosttest"
	"bastide.dev/metadata"
	"bastide.dev/resource"
	"bastide.dev/store"
	"bastide.dev/store/memory"
)

const (
	subscription = "11111111-1111-1111-1111-111111111111"
	group        = "/subscriptions/" + subscription + "/resourceGroups/rg1"
	jump         = group + "/providers/Microsoft.Compute/virtualMachines/jump"
	nicID        = group + "/providers/Microsoft.Network/networkInterfaces/jump"
	sshKey       = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJYPQl4WDSy1IV0nYeVkSUQZ0QeyJ5cBQEGXzpuqCGgD me"
	testTenant   = "33333333-3333-3333-3333-333333333333"
)

// directory is one in memory: its identities are keys in the store, so that
// they come and go with transactions.
type directory struct{ store store.Store }

const principals = "test/principals/"

func (d directory) PlanManagedIdentity(ctx context.Context, name, resourceID string) (string, string, []store.Change, error) {
	key := principals + "p-" + name
	if _, err := d.store.Get(ctx, key); err == nil {
		return "p-" + name, "c-" + name, nil, nil
	}
	return "p-" + name, "c-" + name, []store.Change{{Key: key, Value: []byte(`"` + resourceID + `"`), Revision: store.Absent}}, nil
}

func (d directory) PlanDeletion(ctx context.Context, principal string) ([]store.Change, error) {
	r, err := d.store.Get(ctx, principals+principal)
	if err != nil {
		return nil, nil
	}
	return []store.Change{{Key: r.Key, Revision: r.Revision}}, nil
}

func (d directory) PlatformSecret(ctx context.Context, principal string) (string, string, error) {
	_, err := d.store.Get(ctx, principals+principal)
	return "c-" + strings.TrimPrefix(principal, "p-"), "secret of " + principal, err
}

// everyone may do all, but assign what isn't "theirs".
type everyone struct{}

func (everyone) Authenticate(_ context.Context, bearer string) (arm.Principal, error) {
	return arm.Principal{ID: "o-" + bearer, Kind: "User", Name: bearer, Tenant: testTenant}, nil
}

func (everyone) Authorize(_ context.Context, who arm.Principal, action string, scope resource.ID) error {
	if action == assignAction && strings.HasPrefix(scope.Name(), "foreign") {
		return fault.New(fault.Forbidden, "AuthorizationFailed", "%s may not", who.Name)
	}
	return nil
}

type networks struct{}

func (networks) Interface(_ context.Context, id resource.ID) (Interface, error) {
	return Interface{ID: id, Location: "eastus", Address: netip.MustParseAddr("10.1.0.4")}, nil
}

func (networks) Waiting(context.Context, resource.ID) (string, error) { return "", nil }

type parts struct{}

func (parts) Machine() (string, []string, error) { return "1", nil, nil }

// front is the whole provider behind the real front door, and a host.
type front struct {
	t     *testing.T
	store store.Store
	h     *arm.Handler
	mu    sync.Mutex // guards host
	host  *hosttest.Host
}

func newFront(t *testing.T) *front {
	t.Helper()
	s := memory.New(0)
	p, err := New(Config{Store: s, Catalogue: parts{}, Network: networks{}, Directory: directory{s}, Authorizer: everyone{}, Log: slog.New(slog.DiscardHandler),
		Host: "h1", Location: "eastus", Tenant: testTenant, Login: "https://login.test"})
	if err != nil {
		t.Fatal(err)
	}
	f := &front{t: t, store: s, host: hosttest.New(s, "h1")}
	f.h, err = arm.New(arm.Config{Store: s, Authenticator: everyone{}, Authorizer: everyone{}, Providers: []arm.Provider{p.ARM()},
		Tenant:        arm.Tenant{ID: testTenant, DisplayName: "Test", Domain: "test.example"},
		Subscriptions: []arm.Subscription{{ID: subscription, DisplayName: "One"}},
		Endpoints:     arm.Endpoints{ResourceManager: "https://management.test", Login: "https://login.test", LoginADFS: true, Graph: "https://graph.test"},
		Wait:          5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	f.run(p.Run)
	f.run(f.h.Run)
	f.run(f.answer)
	f.do("PUT", group+"?api-version=2021-04-01", object{"location": "eastus"}, 201)
	return f
}

func (f *front) run(part func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- part(ctx) }()
	f.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			f.t.Errorf("Run: %v", err)
		}
	})
}

// answer is the host at work.
func (f *front) answer(ctx context.Context) error {
	for ctx.Err() == nil {
		f.mu.Lock()
		_, err := f.host.Answer(ctx)
		f.mu.Unlock()
		if err != nil && ctx.Err() == nil {
			return err
		}
		time.Sleep(time.Millisecond)
	}
	return nil
}

// told is what the host's machines may know.
func (f *front) told() map[string]metadata.Machine {
	f.mu.Lock()
	defer f.mu.Unlock()
	copied := map[string]metadata.Machine{}
	for id, m := range f.host.Metadata {
		copied[id] = m
	}
	return copied
}

func (f *front) do(method, path string, body any, want ...int) object {
	f.t.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		f.t.Fatal(err)
	}
	if !strings.Contains(path, "?") {
		path += "?api-version=2024-07-01"
	}
	r := httptest.NewRequest(method, "https://management.test"+path, strings.NewReader(string(raw)))
	r.Header.Set("Authorization", "Bearer ann")
	w := httptest.NewRecorder()
	f.h.ServeHTTP(w, r)
	good := false
	for _, status := range want {
		good = good || w.Code == status
	}
	if !good {
		f.t.Fatalf("%s %s: %d %s, want %v", method, path, w.Code, w.Body, want)
	}
	answer := object{}
	if w.Body.Len() > 0 && w.Code != http.StatusNoContent {
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
			f.t.Fatal(err)
		}
	}
	return answer
}

// document writes one as other providers do.
func (f *front) document(id string, body object, state any) {
	f.t.Helper()
	parsed := resource.MustParseID(id)
	d := &arm.Document{Envelope: resource.Envelope{ID: parsed, Type: parsed.Type(), Name: parsed.Name(), Location: "eastus", ProvisioningState: resource.Succeeded}}
	if old, err := arm.GetDocument(f.t.Context(), f.store, parsed); err == nil {
		d.Revision = old.Revision
	}
	raw, err := json.Marshal(state)
	if err != nil {
		f.t.Fatal(err)
	}
	d.State = raw
	if err := d.SetBody(body); err != nil {
		f.t.Fatal(err)
	}
	change, err := arm.PutDocument(d)
	if err == nil {
		_, err = f.store.Txn(f.t.Context(), change)
	}
	if err != nil {
		f.t.Fatal(err)
	}
}

// user makes a user-assigned identity and returns its id.
func (f *front) user(name string) string {
	f.t.Helper()
	id := group + "/providers/" + identityType + "/" + name
	if _, err := f.store.Put(f.t.Context(), principals+"p-"+name, []byte("{}"), store.Any); err != nil {
		f.t.Fatal(err)
	}
	f.document(id, object{"properties": object{"principalId": "p-" + name, "clientId": "c-" + name}}, nil)
	return id
}

func (f *front) gone(id string) {
	f.t.Helper()
	if err := f.store.Delete(f.t.Context(), arm.DocumentKey(resource.MustParseID(id)), store.Any); err != nil {
		f.t.Fatal(err)
	}
}

// soon tries until something is so.
func (f *front) soon(what string, so func() bool) {
	f.t.Helper()
	for end := time.Now().Add(5 * time.Second); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			f.t.Fatalf("never came: %s; told %+v", what, f.told())
		}
	}
}

func (f *front) principal(name string) bool {
	_, err := f.store.Get(f.t.Context(), principals+name)
	return err == nil
}

func (f *front) units() int {
	records, _, err := f.store.List(f.t.Context(), host.UnitKey("h1", host.MetadataUnit, ""))
	if err != nil {
		f.t.Fatal(err)
	}
	return len(records)
}
