// SPDX-License-Identifier: Apache-2.0

package authorization_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"bastide.dev/arm"
	"bastide.dev/authorization"
	"bastide.dev/fault"
	"bastide.dev/rbac"
	"bastide.dev/resource"
	"bastide.dev/store"
	"bastide.dev/store/memory"
)

const (
	tenant = "33333333-3333-3333-3333-333333333333"
	subID  = "11111111-1111-1111-1111-111111111111"
	sub    = "/subscriptions/" + subID
	rg1    = sub + "/resourceGroups/rg1"
	rg10   = sub + "/resourceGroups/rg10"
	v      = "?api-version=2022-04-01"

	admin  = "aaaaaaaa-0000-0000-0000-000000000001"
	robot  = "aaaaaaaa-0000-0000-0000-000000000002"
	alice  = "aaaaaaaa-0000-0000-0000-000000000003"
	bob    = "aaaaaaaa-0000-0000-0000-000000000004"
	carol  = "aaaaaaaa-0000-0000-0000-000000000005"
	devs   = "bbbbbbbb-0000-0000-0000-000000000001"
	nested = "bbbbbbbb-0000-0000-0000-000000000002"
)

// directory is people and groups in memory.
type directory struct {
	mu      sync.Mutex
	kinds   map[string]string
	names   map[string]string
	members map[string][]string // of groups
	global  map[string]bool
	asked   func() // called when somebody looks a principal up; nil: nothing is
}

func newDirectory() *directory {
	return &directory{
		kinds: map[string]string{admin: rbac.User, robot: rbac.ServicePrincipal, alice: rbac.User, bob: rbac.User, carol: rbac.User, devs: rbac.Group, nested: rbac.Group},
		names: map[string]string{admin: "admin", robot: "robot", alice: "alice", bob: "bob", carol: "carol", devs: "Developers", nested: "Nested"},
		// carol is in nested, which is in devs.
		members: map[string][]string{devs: {bob, nested}, nested: {carol}},
		global:  map[string]bool{admin: true},
	}
}

func (d *directory) Principal(_ context.Context, id string) (authorization.Principal, error) {
	if d.asked != nil {
		d.asked()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for known, name := range d.names {
		if strings.EqualFold(known, id) || name == id {
			return authorization.Principal{ID: known, Kind: d.kinds[known], Name: name}, nil
		}
	}
	return authorization.Principal{}, fault.New(fault.NotFound, "Request_ResourceNotFound", "none")
}

func (d *directory) Groups(_ context.Context, id string) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var found []string
	for more := []string{id}; len(more) > 0; more = more[1:] {
		for group, members := range d.members {
			if slices.Contains(members, more[0]) && !slices.Contains(found, group) {
				found, more = append(found, group), append(more, group)
			}
		}
	}
	return found
}

func (d *directory) Members(_ context.Context, group string) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var found []string
	for more := []string{group}; len(more) > 0; more = more[1:] {
		for _, m := range d.members[more[0]] {
			found, more = append(found, m), append(more, m)
		}
	}
	return found
}

func (d *directory) GlobalAdministrator(_ context.Context, id string) (bool, error) {
	return d.global[id], nil
}

func (d *directory) remove(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.names, id)
	delete(d.kinds, id)
}

// world is a front door with Microsoft.Authorization and a small provider, and an admin who owns it.
type world struct {
	t         *testing.T
	store     store.Store
	directory *directory
	p         *authorization.Provider
	front     *arm.Handler
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, store: memory.New(0), directory: newDirectory()}
	if err := authorization.Bootstrap(t.Context(), w.store, bootstrap()); err != nil {
		t.Fatal(err)
	}
	w.p, w.front = w.open()
	for _, group := range []string{rg1, rg10} {
		w.do(admin, "PUT", group+"?api-version=2021-04-01", `{"location":"eastus"}`).want(t, 201)
	}
	return w
}

func bootstrap() authorization.BootstrapOptions {
	return authorization.BootstrapOptions{Tenant: tenant, TenantName: "Test", Subscription: subID,
		Owners: []authorization.Principal{{ID: admin, Kind: rbac.User}, {ID: robot, Kind: rbac.ServicePrincipal}}}
}

// open is a front door over the store, as a replica or after a restart. Its
// background work runs until the test ends.
func (w *world) open() (*authorization.Provider, *arm.Handler) {
	w.t.Helper()
	p, err := authorization.New(authorization.Config{Store: w.store, Directory: w.directory, Tenant: tenant, Subscription: subID})
	if err != nil {
		w.t.Fatal(err)
	}
	others := []arm.Provider{things()}
	front, err := arm.New(arm.Config{Store: w.store, Authenticator: tokens{w.directory}, Authorizer: access{p}, Providers: append(others, p.ARM(others)...),
		Tenant: arm.Tenant{ID: tenant}, Subscriptions: []arm.Subscription{{ID: subID, DisplayName: "One"}}, Committed: p.Committed,
		Endpoints: arm.Endpoints{ResourceManager: "https://management.test", Login: "https://login.test", Graph: "https://graph.test"}})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	wait.Go(func() { _ = p.Run(ctx) })
	wait.Go(func() { _ = front.Run(ctx) })
	w.t.Cleanup(func() { stop(); wait.Wait() })
	return p, front
}

// access is how cmd gives the provider to the front door.
type access struct{ *authorization.Provider }

func (a access) Authorize(ctx context.Context, who arm.Principal, action string, scope resource.ID) error {
	return a.AuthorizeRequest(ctx, who, action, scope)
}

// tokens takes an object id for a token.
type tokens struct{ d *directory }

func (t tokens) Authenticate(ctx context.Context, bearer string) (arm.Principal, error) {
	found, err := t.d.Principal(ctx, bearer)
	if err != nil {
		return arm.Principal{}, fault.New(fault.Unauthorized, "InvalidAuthenticationToken", "no such token")
	}
	return arm.Principal{ID: found.ID, Kind: found.Kind, Name: found.Name, Tenant: tenant, Groups: t.d.Groups(ctx, found.ID)}, nil
}

// things is a provider with resources, parts, and names of others' resources in bodies.
func things() arm.Provider {
	put := func(_ context.Context, r *arm.Request) (*arm.Plan, error) {
		d, err := r.New()
		return &arm.Plan{Document: d}, err
	}
	versions := []resource.APIVersion{"2022-04-01"}
	act := func(context.Context, *arm.Request) (*arm.Plan, error) {
		return &arm.Plan{Answer: map[string]string{"a": "b"}}, nil
	}
	return arm.Provider{Namespace: "Microsoft.Test", Types: []arm.Type{
		{Name: "things", Versions: versions, Put: put, Actions: map[string]arm.Hook{"poke": act}, Links: []arm.Link{
			{Path: "properties.friends[].id", Action: "Microsoft.Test/things/join/action"},
			{Path: "identity.userAssignedIdentities{}", Action: "Microsoft.ManagedIdentity/userAssignedIdentities/assign/action"}}},
		{Name: "things/parts", Versions: versions, Put: put},
	}}
}

type answer struct {
	code int
	body map[string]any
	text string
}

func (w *world) do(who, method, target, body string) *answer {
	return ask(w.t, w.front, who, method, target, body)
}

func ask(t *testing.T, front *arm.Handler, who, method, target, body string) *answer {
	t.Helper()
	r := httptest.NewRequestWithContext(context.Background(), method, "https://management.test/", strings.NewReader(body))
	path, query, _ := strings.Cut(target, "?")
	r.URL.Path, r.URL.RawQuery = path, strings.NewReplacer(" ", "%20", "'", "%27").Replace(query)
	r.Header.Set("Authorization", "Bearer "+who)
	recorder := httptest.NewRecorder()
	front.ServeHTTP(recorder, r)
	raw, err := io.ReadAll(recorder.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	a := &answer{code: recorder.Code, text: string(raw)}
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &a.body); err != nil {
			t.Errorf("%s %s: %v in %s", method, target, err, raw)
		}
	}
	return a
}

func (a *answer) want(t *testing.T, code int) *answer {
	t.Helper()
	if a.code != code {
		t.Errorf("status %d, want %d: %s", a.code, code, a.text)
	}
	return a
}

func (a *answer) wantError(t *testing.T, status int, code string) *answer {
	t.Helper()
	a.want(t, status)
	if e, _ := a.body["error"].(map[string]any); e["code"] != code {
		t.Errorf("code %v, want %s: %s", e["code"], code, a.text)
	}
	return a
}

// names are those of a list's values.
func (a *answer) names() []string {
	found := []string{}
	values, _ := a.body["value"].([]any)
	for _, value := range values {
		object, _ := value.(map[string]any)
		name, _ := object["name"].(string)
		found = append(found, name)
	}
	slices.Sort(found)
	return found
}

func properties(a *answer) map[string]any {
	p, _ := a.body["properties"].(map[string]any)
	return p
}

// assign is a PUT of a role assignment by the admin, or by another.
func (w *world) assign(by, name, scope, principal, role, more string) *answer {
	w.t.Helper()
	return w.do(by, "PUT", assignmentPath(scope, name), `{"properties":{"roleDefinitionId":"`+sub+`/providers/Microsoft.Authorization/roleDefinitions/`+role+
		`","principalId":"`+principal+`"`+more+`}}`)
}

func assignmentPath(scope, name string) string {
	return strings.TrimSuffix(scope, "/") + "/providers/Microsoft.Authorization/roleAssignments/" + name + v
}

func guid(n int) string {
	return "cccccccc-0000-0000-0000-0000000000" + string(rune('0'+n/10)) + string(rune('0'+n%10))
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if holds() {
			return
		}
	}
	t.Errorf("%s didn't come to be", what)
}
