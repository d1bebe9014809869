// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"bastide.dev/fault"
	"bastide.dev/resource"
	"bastide.dev/store"
	"bastide.dev/store/memory"
)

const (
	sub    = "/subscriptions/11111111-1111-1111-1111-111111111111"
	other  = "/subscriptions/22222222-2222-2222-2222-222222222222"
	rg     = sub + "/resourceGroups/rg1"
	things = rg + "/providers/Microsoft.Test/things"
	v      = "?api-version=2025-01-01"
)

// tokens is an Authenticator of fixed words.
type tokens struct{}

func (tokens) Authenticate(_ context.Context, bearer string) (Principal, error) {
	switch bearer {
	case "owner":
		return Principal{ID: "owner-id", Kind: "User", Name: "owner@example.org", Tenant: "t"}, nil
	case "stranger":
		return Principal{ID: "stranger-id", Kind: "ServicePrincipal", AppID: "app", Tenant: "t"}, nil
	case "bomb":
		panic("boom")
	}
	return Principal{}, fault.New(fault.Unauthorized, "ExpiredAuthenticationToken", "The access token expiry UTC time is earlier than current UTC time.")
}

func (tokens) Authorize(_ context.Context, who Principal, action string, scope resource.ID) error {
	if who.ID == "owner-id" && strings.EqualFold(scope.SubscriptionID().String(), sub) {
		return nil
	}
	return fault.New(fault.Forbidden, "AuthorizationFailed", "The client '%s' does not have authorization to perform action '%s' over scope '%s'.", who.ID, action, scope)
}

// thing is the model of the test's own resource type, as the SDK would have it.
type thing struct {
	Location   *string            `json:"location"`
	Tags       map[string]*string `json:"tags"`
	Properties *struct {
		Size  *int32  `json:"size"`
		Mode  *string `json:"mode"`
		Parts []*struct {
			Name  *string `json:"name"`
			State *string `json:"state"`
		} `json:"parts"`
	} `json:"properties"`
}

// provider is a small real one: things with a size and parts. What is "slow" takes an operation.
func provider() Provider {
	versions := []resource.APIVersion{"2025-01-01", "2024-01-01", "2024-06-01-preview"}
	put := func(_ context.Context, r *Request) (*Plan, error) {
		properties, _ := r.Body["properties"].(map[string]any)
		var problems []*fault.Error
		if size, ok := properties["size"].(json.Number); ok {
			if n, err := size.Int64(); err == nil && n > 100 {
				problems = append(problems, fault.New(fault.Invalid, "InvalidSize", "The size must be at most 100.").At("properties.size"))
			}
		}
		if len(r.ID.Name()) > 10 {
			problems = append(problems, fault.New(fault.Invalid, "InvalidName", "The name must have at most 10 characters."))
		}
		if err := fault.Join(problems...); err != nil {
			return nil, err
		}
		d, err := r.New()
		return &Plan{Document: d, Async: properties["mode"] == "slow"}, err
	}
	remove := func(_ context.Context, r *Request) (*Plan, error) {
		return &Plan{Async: strings.Contains(string(r.Old.Body), "slow")}, nil
	}
	stop := func(_ context.Context, r *Request) (*Plan, error) {
		d := *r.Old
		return &Plan{Document: &d, Async: true, State: resource.Stopping}, nil
	}
	abort := func(_ context.Context, r *Request) (*Plan, error) {
		d := *r.Old
		return &Plan{Document: &d, Async: true, State: "Canceling"}, nil
	}
	keys := func(_ context.Context, r *Request) (*Plan, error) {
		return &Plan{Answer: map[string]string{"key": "k-" + r.ID.Name()}}, nil
	}
	return Provider{Namespace: "Microsoft.Test", Types: []Type{
		{Name: "things", Versions: versions, Model: func() any { return &thing{} }, ReadOnly: []string{"properties.parts[].state"},
			Put: put, Delete: remove, Actions: map[string]Hook{"stop": stop, "abort": abort, "listKeys": keys}, Beside: []string{"abort"}},
		{Name: "things/parts", Versions: versions, Put: put, Delete: remove},
		{Name: "things/profiles", Versions: versions, Get: func(_ context.Context, r *Request) (any, error) {
			return map[string]string{"of": r.Parent.Name, "name": r.ID.Name()}, nil
		}},
		{Name: "locations/sizes", Scope: InSubscription, Versions: versions, List: func(_ context.Context, r *Request) (any, error) {
			return map[string]string{"location": r.ID.Name()}, nil
		}},
	}}
}

type front struct {
	t     *testing.T
	store store.Store
	h     *Handler
	ops   *Operations
}

func newFront(t *testing.T) *front { return frontOver(t, memory.New(0)) }

// frontOver is a front door over a store, as after a restart.
func frontOver(t *testing.T, s store.Store) *front {
	t.Helper()
	h, err := New(Config{Store: s, Authenticator: tokens{}, Authorizer: tokens{}, Providers: []Provider{provider()},
		Tenant:        Tenant{ID: "33333333-3333-3333-3333-333333333333", DisplayName: "Test", Domain: "test.example"},
		Subscriptions: []Subscription{{ID: sub[15:], DisplayName: "One"}, {ID: other[15:], DisplayName: "Two"}},
		Endpoints:     Endpoints{ResourceManager: "https://management.test", Login: "https://login.test", LoginADFS: true, Graph: "https://graph.test"},
		Logger:        slog.New(slog.NewTextHandler(io.Discard, nil)), Wait: 20 * time.Millisecond, LongPoll: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return &front{t: t, store: s, h: h, ops: NewOperations(s, nil)}
}

// withGroup is a front door with the resource group rg1, and its background work running.
func withGroup(t *testing.T) *front {
	t.Helper()
	f := newFront(t)
	f.runs()
	f.do("PUT", rg+"?api-version=2021-04-01", `{"location":"East US","tags":{"a":"b"}}`).want(t, 201)
	return f
}

func (f *front) runs() {
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- f.h.Run(ctx) }()
	f.t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			f.t.Error(err)
		}
	})
}

type answer struct {
	*httptest.ResponseRecorder
	body map[string]any
}

func (f *front) do(method, target, body string, headers ...string) *answer {
	f.t.Helper()
	target = strings.TrimPrefix(target, "https://management.test")
	r := httptest.NewRequest(method, "https://management.test/", strings.NewReader(body))
	path, query, _ := strings.Cut(target, "?")
	r.URL.Path, r.URL.RawQuery = path, strings.ReplaceAll(query, " ", "%20")
	r.Header.Set("Authorization", "Bearer owner")
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	a := &answer{ResponseRecorder: httptest.NewRecorder()}
	f.h.ServeHTTP(a, r)
	if a.Body.Len() > 0 {
		if err := json.Unmarshal(a.Body.Bytes(), &a.body); err != nil && method != http.MethodHead {
			if !strings.HasPrefix(a.Body.String(), "[") {
				f.t.Errorf("%s %s: body %q: %v", method, target, a.Body, err)
			}
		}
	}
	return a
}

func (a *answer) want(t *testing.T, code int) *answer {
	t.Helper()
	if a.Code != code {
		t.Errorf("status %d, want %d; %s", a.Code, code, a.Body)
	}
	return a
}

// wantError checks status and code of ARM's error body.
func (a *answer) wantError(t *testing.T, status int, code string) *answer {
	t.Helper()
	a.want(t, status)
	if got := a.get("error", "code"); got != code {
		t.Errorf("error code %v, want %s; %s", got, code, a.Body)
	}
	return a
}

// get walks into the body.
func (a *answer) get(path ...string) any {
	var at any = a.body
	for _, name := range path {
		object, _ := at.(map[string]any)
		at = object[name]
	}
	return at
}

func (a *answer) names() []string {
	var names []string
	values, _ := a.body["value"].([]any)
	for _, value := range values {
		object, _ := value.(map[string]any)
		name, _ := object["name"].(string)
		names = append(names, name)
	}
	return names
}

// operation is the id of the operation that an answer speaks of.
func (a *answer) operation(t *testing.T) string {
	t.Helper()
	link, _, _ := strings.Cut(a.Header().Get("Azure-AsyncOperation"), "?")
	if !strings.HasPrefix(link, "https://management.test/") || a.Header().Get("Retry-After") != "1" {
		t.Fatalf("Azure-AsyncOperation %q, Retry-After %q", link, a.Header().Get("Retry-After"))
	}
	return link[strings.LastIndex(link, "/")+1:]
}
