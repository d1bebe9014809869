// SPDX-License-Identifier: Apache-2.0

package pim_test

import (
	"context"
	"encoding/json"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"bastide.dev/arm"
	"bastide.dev/authorization"
	"bastide.dev/fault"
	"bastide.dev/pim"
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
	rg2    = sub + "/resourceGroups/rg2"
	v      = "?api-version=2020-10-01"

	admin = "aaaaaaaa-0000-0000-0000-000000000001"
	robot = "aaaaaaaa-0000-0000-0000-000000000002"
	alice = "aaaaaaaa-0000-0000-0000-000000000003"
	bob   = "aaaaaaaa-0000-0000-0000-000000000004"
	carol = "aaaaaaaa-0000-0000-0000-000000000005"
	devs  = "bbbbbbbb-0000-0000-0000-000000000001"
)

// directory is people and a group.
type directory struct {
	mu      sync.Mutex
	members []string // of devs
	methods []string // of everybody's sign-in
}

func kinds() map[string]string {
	return map[string]string{admin: rbac.User, robot: rbac.ServicePrincipal, alice: rbac.User, bob: rbac.User, carol: rbac.User, devs: rbac.Group}
}

func (d *directory) find(id string) (kind string, err error) {
	if kind = kinds()[strings.ToLower(id)]; kind == "" {
		return "", fault.New(fault.NotFound, "", "none")
	}
	return kind, nil
}

func (d *directory) Groups(_ context.Context, id string) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if slices.Contains(d.members, id) {
		return []string{devs}
	}
	return nil
}

func (d *directory) join(ids ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.members = ids
}

// forRoles and forPIM are the directory as the two packages want it.
type (
	forRoles struct{ *directory }
	forPIM   struct{ *directory }
)

func (d forRoles) Principal(_ context.Context, id string) (authorization.Principal, error) {
	kind, err := d.find(id)
	return authorization.Principal{ID: strings.ToLower(id), Kind: kind, Name: id}, err
}
func (d forRoles) Members(context.Context, string) []string                  { return nil }
func (d forRoles) GlobalAdministrator(context.Context, string) (bool, error) { return false, nil }
func (d forPIM) Principal(_ context.Context, id string) (pim.Principal, error) {
	kind, err := d.find(id)
	return pim.Principal{ID: strings.ToLower(id), Kind: kind, Name: id}, err
}

// roles hands PIM the provider of roles, as cmd does.
type roles struct{ *authorization.Provider }

func (roles) Grant(a *rbac.Assignment) (*arm.Document, error) { return authorization.NewAssignment(a) }

// front is the front door's authorizer, as in cmd.
type access struct{ *authorization.Provider }

func (a access) Authorize(ctx context.Context, who arm.Principal, action string, scope resource.ID) error {
	if pim.SelfService(action, scope) {
		return nil
	}
	return a.AuthorizeRequest(ctx, who, action, scope)
}

// Authenticate takes an object id for a token.
func (d *directory) Authenticate(ctx context.Context, bearer string) (arm.Principal, error) {
	kind, err := d.find(bearer)
	if err != nil {
		return arm.Principal{}, fault.New(fault.Unauthorized, "InvalidAuthenticationToken", "no such token")
	}
	d.mu.Lock()
	methods := d.methods
	d.mu.Unlock()
	return arm.Principal{ID: bearer, Kind: kind, Name: bearer, Tenant: tenant, Groups: d.Groups(ctx, bearer), Methods: methods}, nil
}

type world struct {
	t     *testing.T
	store store.Store
	d     *directory
	pim   *pim.Provider
	front *arm.Handler

	mu   sync.Mutex
	time time.Time
}

func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.time
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.time = w.time.Add(d)
}

// newWorld is a front door whose clock stands still until it is told. PIM's Run
// isn't running: what holds without it is what the tests want to know first.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, store: memory.New(0), d: &directory{}, time: time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)}
	err := authorization.Bootstrap(t.Context(), w.store, authorization.BootstrapOptions{Tenant: tenant, TenantName: "Test", Subscription: subID,
		Owners: []authorization.Principal{{ID: admin, Kind: rbac.User}, {ID: robot, Kind: rbac.ServicePrincipal}}})
	if err != nil {
		t.Fatal(err)
	}
	w.open()
	for _, group := range []string{rg1, rg2} {
		w.do(admin, "PUT", group+"?api-version=2021-04-01", `{"location":"eastus"}`).want(t, 201, "")
	}
	return w
}

// open is a front door over the store, as after a restart.
func (w *world) open() {
	w.t.Helper()
	p, err := authorization.New(authorization.Config{Store: w.store, Directory: forRoles{w.d}, Tenant: tenant, Subscription: subID, Now: w.now})
	if err != nil {
		w.t.Fatal(err)
	}
	if w.pim, err = pim.New(pim.Config{Store: w.store, Roles: roles{p}, Directory: forPIM{w.d}, Now: w.now}); err != nil {
		w.t.Fatal(err)
	}
	providers := append(p.ARM(nil), arm.Provider{Namespace: pim.Namespace, Types: w.pim.Types()})
	w.front, err = arm.New(arm.Config{Store: w.store, Authenticator: w.d, Authorizer: access{p}, Providers: providers, Now: w.now,
		Tenant: arm.Tenant{ID: tenant}, Subscriptions: []arm.Subscription{{ID: subID, DisplayName: "One"}}, Committed: p.Committed,
		Endpoints: arm.Endpoints{ResourceManager: "https://management.test", Login: "https://login.test", Graph: "https://graph.test"}})
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) look() {
	w.t.Helper()
	if err := w.pim.Look(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

type answer struct {
	status int
	body   map[string]any
}

func (w *world) do(who, method, target, body string) answer {
	w.t.Helper()
	r := httptest.NewRequest(method, "https://management.test"+strings.ReplaceAll(target, " ", "%20"), strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+who)
	rec := httptest.NewRecorder()
	w.front.ServeHTTP(rec, r)
	a := answer{status: rec.Code}
	if rec.Body.Len() > 0 {
		if err := json.Unmarshal(rec.Body.Bytes(), &a.body); err != nil {
			w.t.Fatalf("%s %s: %v in %s", method, target, err, rec.Body)
		}
	}
	return a
}

// want checks status and error code.
func (a answer) want(t *testing.T, status int, code string) answer {
	t.Helper()
	e, _ := a.body["error"].(map[string]any)
	if got, _ := e["code"].(string); a.status != status || got != code {
		t.Errorf("%d %q, want %d %q: %v", a.status, got, status, code, a.body)
	}
	return a
}

func (a answer) property(name string) any {
	properties, _ := a.body["properties"].(map[string]any)
	return properties[name]
}

func (a answer) count() int {
	values, _ := a.body["value"].([]any)
	return len(values)
}

const provider = "/providers/Microsoft.Authorization/"

// ask sends a schedule request of a kind, "Eligibility" or "Assignment".
func (w *world) ask(who, kind, scope, typ, principal, role, more string) answer {
	w.t.Helper()
	if more == "" {
		more = `"justification":"because"`
	}
	return w.do(who, "PUT", scope+provider+"role"+kind+"ScheduleRequests/"+uuid.NewString()+v, `{"properties":{"requestType":"`+typ+`","principalId":"`+principal+
		`","roleDefinitionId":"`+sub+provider+`roleDefinitions/`+role+`",`+more+`}}`)
}

// eligible makes a principal eligible for a role on a scope for a month.
func (w *world) eligible(principal, role, scope string) answer {
	w.t.Helper()
	return w.ask(admin, "Eligibility", scope, "AdminAssign", principal, role, `"scheduleInfo":{"expiration":{"type":"AfterDuration","duration":"P30D"}}`).want(w.t, 201, "")
}

func (w *world) activate(who, role, scope, hours string) answer {
	w.t.Helper()
	return w.ask(who, "Assignment", scope, "SelfActivate", who, role, `"justification":"incident 7","scheduleInfo":{"expiration":{"type":"AfterDuration","duration":"`+hours+`"}}`)
}

// can tells whether somebody may write tags of a group, which a Contributor may.
func (w *world) can(who, scope string) bool {
	w.t.Helper()
	switch a := w.do(who, "PATCH", scope+"?api-version=2021-04-01", `{"tags":{"a":"b"}}`); a.status {
	case 200:
		return true
	case 403:
		return false
	default:
		w.t.Fatalf("%d %v", a.status, a.body)
		return false
	}
}

// policy changes rules of a role on a scope.
func (w *world) policy(scope, role string, rules ...string) answer {
	w.t.Helper()
	list := w.do(admin, "GET", scope+provider+"roleManagementPolicyAssignments"+v+"&$filter=roleDefinitionId eq '"+role+"'", "")
	if list.count() != 1 {
		w.t.Fatalf("%v", list)
	}
	id, _ := list.body["value"].([]any)[0].(map[string]any)["properties"].(map[string]any)["policyId"].(string)
	return w.do(admin, "PATCH", id+v, `{"properties":{"rules":[`+strings.Join(rules, ",")+`]}}`)
}

func approvalBy(kind, id string) string {
	return `{"id":"Approval_EndUser_Assignment","ruleType":"RoleManagementPolicyApprovalRule","setting":{"isApprovalRequired":true,"approvalMode":"SingleStage","approvalStages":[{"primaryApprovers":[{"id":"` + id + `","userType":"` + kind + `"}]}]}}`
}

// run is the front door's background work, until the function it returns is called.
func (w *world) run() (stop func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- w.front.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	}
}
