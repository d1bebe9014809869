// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"bastide.dev/fault"
	"bastide.dev/resource"
	"bastide.dev/store"
	"bastide.dev/store/memory"
)

const racks = rg + "/providers/Microsoft.Racks/racks"

// rack's model, as the SDK would have it.
type rack struct {
	Location   *string            `json:"location"`
	Tags       map[string]*string `json:"tags"`
	Properties *struct {
		Slots []*rackSlot `json:"slots"`
	} `json:"properties"`
}

type rackSlot struct {
	ID         *string `json:"id"`
	Name       *string `json:"name"`
	Etag       *string `json:"etag"`
	Properties *struct {
		Unit *int32  `json:"unit"`
		Heat *string `json:"heat"`
	} `json:"properties"`
}

// rackProvider is a type with embedded slots. A slot of unit 7 takes an operation; two can't have the same.
func rackProvider() Provider {
	versions := []resource.APIVersion{"2025-01-01"}
	put := func(_ context.Context, r *Request) (*Plan, error) {
		seen := map[string]bool{}
		async := false
		for i, slot := range Elements(r.Body, "properties.slots") {
			properties, _ := slot["properties"].(map[string]any)
			unit := fmt.Sprint(properties["unit"])
			if seen[unit] {
				return nil, fault.New(fault.Invalid, "UnitTaken", "Unit %s is taken.", unit).At(fmt.Sprintf("properties.slots[%d].properties.unit", i))
			}
			seen[unit], async = true, async || unit == "7"
		}
		d, err := r.New()
		return &Plan{Document: d, Async: async}, err
	}
	view := func(_ context.Context, d *Document, _ resource.APIVersion) (any, error) {
		body, err := ViewBase(d)
		for _, slot := range Elements(body, "properties.slots") {
			properties, _ := slot["properties"].(map[string]any)
			properties["heat"] = "warm"
		}
		return body, err
	}
	return Provider{Namespace: "Microsoft.Racks", Types: []Type{
		{Name: "racks", Versions: versions, Model: func() any { return &rack{} }, Put: put, View: view, Queue: true},
		{Name: "racks/slots", Versions: versions, Embedded: "properties.slots", Model: func() any { return &rackSlot{} }, ReadOnly: []string{"properties.heat"}},
	}}
}

func withRack(t *testing.T) *front {
	t.Helper()
	f := rackFront(t, memory.New(0), rackProvider())
	f.do("PUT", rg+core, `{"location":"eastus"}`).want(t, 201)
	f.do("PUT", racks+"/R1"+v, `{"location":"eastus","tags":{"a":"b"},"properties":{"slots":[{"name":"One","id":"x","etag":"y","properties":{"unit":1,"heat":"cold"}}]}}`).want(t, 201)
	return f
}

func rackFront(t *testing.T, s store.Store, p Provider) *front {
	t.Helper()
	h, err := New(Config{Store: s, Authenticator: tokens{}, Authorizer: tokens{}, Providers: []Provider{p},
		Tenant: Tenant{ID: "t"}, Subscriptions: []Subscription{{ID: sub[15:]}},
		Endpoints: Endpoints{ResourceManager: "https://management.test", Login: "https://login.test", Graph: "https://graph.test"},
		Logger:    slog.New(slog.NewTextHandler(io.Discard, nil)), Wait: 20 * time.Millisecond, LongPoll: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return &front{t: t, store: s, h: h, ops: NewOperations(s, nil)}
}

func TestEmbedded(t *testing.T) {
	f := withRack(t)
	one := f.do("GET", strings.ToUpper(racks+"/r1/slots/one")+v, "").want(t, 200)
	whole := f.do("GET", racks+"/r1"+v, "")
	if one.get("id") != racks+"/R1/slots/One" || one.get("type") != "Microsoft.Racks/racks/slots" || one.get("properties", "provisioningState") != "Succeeded" ||
		one.get("properties", "heat") != "warm" || one.get("etag") != "W/"+whole.Header().Get("ETag") || one.Header().Get("ETag") != one.get("etag") {
		t.Errorf("GET of a part: %s, of the whole: %s", one.Body, whole.Body)
	}
	a := f.do("PUT", racks+"/r1/SLOTS/two"+v, `{"name":"other","id":"z","properties":{"unit":2,"heat":"hot","provisioningState":"Bad"}}`).want(t, 201)
	if a.get("name") != "two" || a.get("properties", "unit") != 2.0 {
		t.Errorf("PUT of a part: %s", a.Body)
	}
	if raw, _ := GetDocument(t.Context(), f.store, resource.MustParseID(racks+"/r1")); strings.Contains(string(raw.Body), "heat") || strings.Contains(string(raw.Body), "etag") {
		t.Errorf("read-only properties were kept: %s", raw.Body)
	}
	f.do("PUT", racks+"/r1/slots/TWO"+v, `{"Properties":{"UNIT":3}}`).want(t, 200)
	if got := f.do("GET", racks+"/r1/slots/two"+v, ""); got.get("properties", "unit") != 3.0 {
		t.Errorf("a property in another case: %s", got.Body)
	}
	if names := f.do("GET", racks+"/r1/slots"+v, "").want(t, 200).names(); !slices.Equal(names, []string{"One", "two"}) {
		t.Errorf("slots %v", names)
	}
	if got := f.do("GET", racks+"/r1"+v, ""); got.get("tags", "a") != "b" || got.get("location") != "eastus" {
		t.Errorf("the whole lost what isn't the part's: %s", got.Body)
	}
	f.do("HEAD", racks+"/r1/slots/two"+v, "").want(t, 204)
	f.do("DELETE", racks+"/r1/slots/two"+v, "").want(t, 204)
	f.do("DELETE", racks+"/r1/slots/two"+v, "").want(t, 204)
	f.do("DELETE", racks+"/no/slots/two"+v, "").want(t, 204)
	f.do("HEAD", racks+"/r1/slots/two"+v, "").want(t, 404)
	f.do("DELETE", racks+"/r1/slots/one"+v, "").want(t, 204)
	if got := f.do("GET", racks+"/r1/slots"+v, ""); got.Body.String() != "{\"value\":[]}\n" {
		t.Errorf("an empty list: %s", got.Body)
	}
}

func TestEmbeddedRefusals(t *testing.T) {
	f := withRack(t)
	for _, c := range []struct {
		name, method, target, body string
		status                     int
		code, at                   string
	}{
		{"no part", "GET", "/R1/slots/no", "", 404, "ResourceNotFound", ""},
		{"no whole", "GET", "/no/slots/x", "", 404, "ParentResourceNotFound", ""},
		{"no whole of a PUT", "PUT", "/no/slots/x", `{}`, 404, "ParentResourceNotFound", ""},
		{"no whole of a list", "GET", "/no/slots", "", 404, "ResourceNotFound", ""},
		{"PATCH", "PATCH", "/R1/slots/one", `{"tags":{}}`, 405, "MethodNotAllowed", ""},
		{"unknown property", "PUT", "/R1/slots/x", `{"properties":{"unti":1}}`, 400, "InvalidParameter", "properties.unti"},
		{"the hook's refusal", "PUT", "/R1/slots/x", `{"properties":{"unit":1}}`, 400, "UnitTaken", "properties.unit"},
		{"bad name", "PUT", "/R1", `{"location":"eastus","properties":{"slots":[{"name":"a b"}]}}`, 400, "InvalidResourceName", "properties.slots[0].name"},
		{"same name", "PUT", "/R1", `{"location":"eastus","properties":{"slots":[{"name":"a"},{"name":"A","properties":{"unit":2}}]}}`, 400, "DuplicateResourceName", "properties.slots[1].name"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := f.do(c.method, racks+c.target+v, c.body).wantError(t, c.status, c.code)
			if got, _ := a.get("error", "target").(string); got != c.at {
				t.Errorf("target %q, want %q", got, c.at)
			}
		})
	}
}

func TestEmbeddedEtags(t *testing.T) {
	f := withRack(t)
	etag := f.do("GET", racks+"/R1/slots/one"+v, "").Header().Get("ETag")
	f.do("PUT", racks+"/R1/slots/one"+v, `{"properties":{"unit":4}}`, "If-None-Match", "*").wantError(t, 412, "PreconditionFailed")
	f.do("PUT", racks+"/R1/slots/two"+v, `{"properties":{"unit":5}}`, "If-Match", "*").wantError(t, 412, "PreconditionFailed")
	f.do("PUT", racks+"/R1/slots/one"+v, `{"properties":{"unit":4}}`, "If-Match", etag).want(t, 200)
	f.do("DELETE", racks+"/R1/slots/one"+v, "", "If-Match", etag).wantError(t, 412, "PreconditionFailed")
	f.do("PUT", racks+"/R1/slots/two"+v, `{"properties":{"unit":5}}`, "If-None-Match", "*").want(t, 201)
}

func TestEmbeddedOperations(t *testing.T) {
	f := withRack(t)
	a := f.do("PUT", racks+"/R1/slots/slow"+v, `{"properties":{"unit":7}}`).want(t, 201)
	id := a.operation(t)
	if a.get("properties", "provisioningState") != "Updating" || a.get("name") != "slow" {
		t.Errorf("PUT answers %s", a.Body)
	}
	op, err := f.ops.Get(t.Context(), id)
	if err != nil || op.Resource.String() != racks+"/R1" || op.Method != http.MethodPut || op.Part.ID.Name() != "slow" || !op.Created {
		t.Errorf("operation %+v, %v", op, err)
	}
	var later sync.WaitGroup
	for i := range 8 { // they wait for the first, and for each other
		later.Go(func() {
			f.do("PUT", fmt.Sprintf("%s/R1/slots/s%d%s", racks, i, v), fmt.Sprintf(`{"properties":{"unit":%d}}`, 20+i)).want(t, 201)
		})
	}
	finisher(t, f, func(*Operation) error { return nil })
	later.Wait()
	if names := f.do("GET", racks+"/R1/slots"+v, "").names(); len(names) != 10 {
		t.Errorf("slots %v", names)
	}
	f.h.config.Wait = 5 * time.Second
	f.do("PUT", racks+"/R1/slots/one"+v, `{"properties":{"unit":9}}`).want(t, 200)
	f.do("DELETE", racks+"/R1/slots/one"+v, "").want(t, 204) // slow is still there: an operation, which ended at once
	f.h.config.Wait = time.Nanosecond
	deletion := f.do("DELETE", racks+"/R1/slots/s1"+v, "").want(t, 202)
	f.do("GET", deletion.Header().Get("Location"), "").want(t, 204)
	f.do("GET", racks+"/R1/slots/s1"+v, "").wantError(t, 404, "ResourceNotFound")
	f.do("GET", racks+"/R1"+v, "").want(t, 200)
}

// A deletion that saw no use of a resource doesn't take it away from someone
// who began to use it, and wrote it again as it was, in between.
func TestDeletionSeesWhatItsHookSaw(t *testing.T) {
	s, p, calls := memory.New(0), rackProvider(), 0
	p.Types[0].Delete = func(ctx context.Context, r *Request) (*Plan, error) {
		if calls++; calls > 1 {
			return nil, fault.New(fault.Invalid, "InUse", "It is in use.")
		}
		held, err := PutDocument(r.Old)
		if err != nil {
			return nil, err
		}
		_, err = s.Txn(ctx, held)
		return &Plan{}, err
	}
	f := rackFront(t, s, p)
	f.do("PUT", rg+core, `{"location":"eastus"}`).want(t, 201)
	f.do("PUT", racks+"/r"+v, `{"location":"eastus"}`).want(t, 201)
	f.do("DELETE", racks+"/r"+v, "").wantError(t, 400, "InUse")
	f.do("GET", racks+"/r"+v, "").want(t, 200)
}
