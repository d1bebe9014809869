// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"bastide.dev/arm"
	"bastide.dev/controlplane"
	"bastide.dev/fault"
	"bastide.dev/host/hosttest"
	"bastide.dev/resource"
	"bastide.dev/store"
	"bastide.dev/store/memory"
)

const (
	testCluster = "/subscriptions/0b1f6471-1bf0-4dda-aec3-cb9272f09590/resourceGroups/rg1/providers/Microsoft.ContainerService/managedClusters/c1"
	testVersion = resource.APIVersion("2022-11-01")
)

// directory makes identities, and counts what it has.
type directory struct {
	mu    sync.Mutex
	made  map[string]string
	roles []string
	// denied are actions that identities may not do; ends are secrets with an end.
	denied map[string]bool
	ends   map[string]time.Time
}

func (d *directory) May(_ context.Context, _, action, _ string) (bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.denied[action], nil
}

func (d *directory) Revoke(_ context.Context, principal, role, scope string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.roles = slices.DeleteFunc(d.roles, func(r string) bool { return r == principal+" "+role+" "+scope })
	return nil
}

func (d *directory) secretEnd(_ context.Context, client, _ string) (time.Time, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	end, found := d.ends[client]
	if !found {
		return time.Now().AddDate(1, 0, 0), nil
	}
	if end.IsZero() {
		return end, fault.New(fault.NotFound, "Gone", "It is gone.")
	}
	return end, nil
}

func (d *directory) CreateManagedIdentity(_ context.Context, _, id string) (string, string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.made[strings.ToLower(id)] = "principal-of-" + id[strings.LastIndex(id, "/")+1:]
	return d.made[strings.ToLower(id)], "client-of-" + id[strings.LastIndex(id, "/")+1:], nil
}

func (d *directory) DeletePrincipal(_ context.Context, principal string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, p := range d.made {
		if p == principal {
			delete(d.made, id)
		}
	}
	return nil
}

func (d *directory) PlatformSecret(_ context.Context, principal string) (string, string, error) {
	return "client-of-" + principal, "secret-of-" + principal, nil
}

func (d *directory) Assign(_ context.Context, principal, role, scope string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.roles = append(d.roles, principal+" "+role+" "+scope)
	return nil
}

func (d *directory) PrincipalOf(_ context.Context, client string) (string, error) {
	return "principal-of-" + client, nil
}

type catalogue []string

func (c catalogue) Kubernetes() []string { return c }

func (c catalogue) Parts(version string) (Parts, error) {
	return Parts{Etcd: "3.6.16", Image: "12.1", Layers: []string{"runtime@1", "kubernetes@" + version}}, nil
}

func (catalogue) HasImage(version string) bool { return strings.HasPrefix(version, "12.") }

func testProvider(t *testing.T, s store.Store) (*Provider, *directory) {
	t.Helper()
	d := &directory{made: map[string]string{}, denied: map[string]bool{}, ends: map[string]time.Time{}}
	p, err := New(Config{
		Store: s, Catalogue: catalogue{"1.36.3", "1.35.4", "1.34.4"}, Directory: d,
		CheckSecret: func(_ context.Context, _, secret string) error {
			if secret != "right" {
				return errors.New("wrong")
			}
			return nil
		},
		SecretEnd: d.secretEnd, Roles: d, Authorizer: anyone{},
		Log: slog.New(slog.DiscardHandler), Host: "h1", Location: "eastus", Domain: "bastide.internal", Tenant: "t1",
		Network: newFakeNetwork(s),
		Login:   "https://login.bastide.internal", Guard: "https://guard.bastide.internal",
		Addons: controlplane.Addons{CoreDNS: "registry/coredns:1"}, Registry: "registry.bastide.internal", PauseImage: "registry/pause:1",
	})
	if err != nil {
		t.Fatal(err)
	}
	return p, d
}

// front does with a plan what the front door says it does, without HTTP: it
// lets a test stop between any two writes.
type front struct {
	store store.Store
	p     *Provider
}

func (f *front) document(ctx context.Context, id resource.ID) *arm.Document {
	d, err := arm.GetDocument(ctx, f.store, id)
	if err != nil {
		return nil
	}
	return d
}

// do sends a request and returns the id of its operation, "" when it was done at once.
func (f *front) do(ctx context.Context, method, path, body string) (string, *arm.Plan, error) {
	return f.request(ctx, method, path, body, nil)
}

// ask is do with a query.
func (w *world) ask(method, path, body string, query map[string]string) (string, *arm.Plan, error) {
	values := url.Values{}
	for k, v := range query {
		values.Set(k, v)
	}
	return w.request(w.t.Context(), method, path, body, values)
}

func (f *front) request(ctx context.Context, method, path, body string, query url.Values) (string, *arm.Plan, error) {
	parsed, err := resource.ParsePath(path)
	if err != nil {
		return "", nil, err
	}
	r := &arm.Request{ID: parsed.ID, Version: testVersion, Query: query, Old: f.document(ctx, parsed.ID), Operation: fmt.Sprintf("op-%d", time.Now().UnixNano())}
	row := f.row(parsed.ID)
	if parsed.ID.IsChild() {
		r.Parent = f.document(ctx, parsed.ID.Parent())
	}
	if body != "" {
		decoder := json.NewDecoder(strings.NewReader(body))
		decoder.UseNumber()
		if err := decoder.Decode(&r.Body); err != nil {
			return "", nil, err
		}
		for _, dropped := range append(row.ReadOnly, "id", "name", "type", "etag", "systemData", "properties.provisioningState") {
			arm.Drop(r.Body, dropped)
		}
	}
	hook, action := row.Put, ""
	switch method {
	case "DELETE":
		hook = row.Delete
	case "POST":
		action = parsed.Rest[0]
		hook = row.Actions[action]
	}
	plan, err := hook(ctx, r)
	if err != nil {
		return "", nil, err
	}
	op := arm.Operation{ID: r.Operation, Resource: r.ID, Method: method, Action: action, Status: arm.InProgress, Start: time.Now()}
	return r.Operation, plan, f.commit(ctx, r, plan, op)
}

func (f *front) row(id resource.ID) arm.Type {
	for _, row := range f.p.ARM().Types {
		if strings.EqualFold(id.Type(), Namespace+"/"+row.Name) {
			return row
		}
	}
	return arm.Type{}
}

func (f *front) commit(ctx context.Context, r *arm.Request, plan *arm.Plan, op arm.Operation) error {
	if plan.Document == nil && op.Method == "DELETE" {
		plan.Document = r.Old
	}
	if plan.Document == nil {
		return nil
	}
	changes := plan.Changes
	for _, d := range append(plan.Children, plan.Document) {
		d.Generation++
		if op.Method == "POST" && slices.Contains(f.row(r.ID).Beside, op.Action) {
			d.ProvisioningState = plan.State
			change, err := arm.PutDocument(d)
			if err != nil {
				return err
			}
			changes = append(changes, change)
			continue
		}
		d.ProvisioningState, d.Operation = resource.Succeeded, ""
		if plan.Async {
			d.Operation, d.ProvisioningState = op.ID, resource.State(or(string(plan.State), string(resource.Updating)))
			if op.Method == "DELETE" {
				d.ProvisioningState = resource.Deleting
			}
		}
		change, err := arm.PutDocument(d)
		if err != nil {
			return err
		}
		changes = append(changes, change)
	}
	if r.Parent != nil {
		change, err := arm.PutDocument(r.Parent)
		if err != nil {
			return err
		}
		changes = append(changes, change)
	}
	if plan.Async {
		value, err := json.Marshal(op)
		if err != nil {
			return err
		}
		changes = append(changes, store.Change{Key: arm.OperationPrefix + op.ID, Value: value, Revision: store.Absent})
	}
	_, err := f.store.Txn(ctx, changes...)
	return err
}

// world is a provider with its front, its host, and a reconciler that a test steps.
type world struct {
	*front
	t         *testing.T
	memory    *memory.Store
	directory *directory
	host      *hosttest.Host
	runner    *runner
}

func newWorld(t *testing.T) *world {
	t.Helper()
	s := memory.New(0)
	p, d := testProvider(t, s)
	return &world{front: &front{store: s, p: p}, t: t, memory: s, directory: d, host: hosttest.New(s, "h1"), runner: newRunner(p)}
}

// settle lets reconciler and host take turns until neither has anything to do.
func (w *world) settle() {
	w.t.Helper()
	for range 200 {
		again, err := w.step(w.t.Context())
		if err != nil {
			w.t.Fatal(err)
		}
		if !again {
			return
		}
	}
	w.t.Fatal("reconciler and host don't come to rest")
}

func (w *world) step(ctx context.Context) (bool, error) {
	before := w.revision(ctx)
	records, _, err := w.memory.List(ctx, arm.DocumentPrefix)
	if err != nil {
		return false, err
	}
	for _, record := range records {
		key, pool, ok := clusterKey(strings.TrimPrefix(record.Key, arm.DocumentPrefix))
		if ok && !pool && arm.DocumentPrefix+key == record.Key {
			w.runner.document(record, false)
			if _, err := w.runner.reconcile(ctx, key); err != nil {
				return true, err
			}
		}
	}
	if _, err := w.host.Answer(ctx); err != nil {
		return true, err
	}
	return w.revision(ctx) != before, nil
}

func (w *world) revision(ctx context.Context) int64 {
	_, revision, err := w.memory.List(ctx, "no such prefix")
	if err != nil {
		w.t.Fatal(err)
	}
	return revision
}

// must sends a request that is accepted, and settles; the operation must end so.
func (w *world) must(method, path, body string, want resource.State) {
	w.t.Helper()
	op, plan, err := w.do(w.t.Context(), method, path, body)
	if err != nil {
		w.t.Fatalf("%s %s: %v", method, path, err)
	}
	w.settle()
	if plan.Async {
		w.ended(op, want)
	}
}

func (w *world) ended(op string, want resource.State) {
	w.t.Helper()
	operation, err := w.p.ops.Get(w.t.Context(), op)
	if err != nil {
		w.t.Fatal(err)
	}
	if operation.Status != want {
		text, _ := json.Marshal(operation.Error)
		w.t.Fatalf("operation is %s, want %s: %s", operation.Status, want, text)
	}
}

// view reads a resource as a client does.
func (w *world) view(path string, version resource.APIVersion) object {
	w.t.Helper()
	id := resource.MustParseID(path)
	d := w.document(w.t.Context(), id)
	if d == nil {
		w.t.Fatalf("%s isn't there", path)
	}
	v, err := w.row(id).View(w.t.Context(), d, version)
	if err != nil {
		w.t.Fatal(err)
	}
	raw, err := json.Marshal(v)
	if err != nil {
		w.t.Fatal(err)
	}
	var out object
	if err := json.Unmarshal(raw, &out); err != nil {
		w.t.Fatal(err)
	}
	return out
}

// leftovers are the keys in the store that aren't records of the past.
func (w *world) leftovers() []string {
	records, _, err := w.memory.List(w.t.Context(), "")
	if err != nil {
		w.t.Fatal(err)
	}
	var keys []string
	for _, r := range records {
		past := strings.HasPrefix(r.Key, arm.OperationPrefix) || strings.HasPrefix(r.Key, arm.ActivityPrefix) || strings.HasSuffix(r.Key, "/edge/edge")
		if !past {
			keys = append(keys, r.Key)
		}
	}
	return keys
}

func problems(err error) []*fault.Error {
	f := fault.From(err)
	if f == nil {
		return nil
	}
	if len(f.Details) > 0 {
		return f.Details
	}
	return []*fault.Error{f}
}
