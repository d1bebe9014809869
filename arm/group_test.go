// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"bastide.dev/fault"
	"bastide.dev/resource"
)

const core = "?api-version=2021-04-01"

// finisher ends each operation on a thing as soon as it begins, as a reconciler would.
func finisher(t *testing.T, f *front, end func(*Operation) error) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for e := range f.store.Watch(ctx, OperationPrefix, 0) {
			var op Operation
			if err := json.Unmarshal(e.Value, &op); err != nil || op.Done() || op.Resource.IsType(resource.TypeGroup) {
				continue
			}
			if err := f.ops.Finish(ctx, op.ID, Ending{Fault: end(&op)}); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		}
	}()
	t.Cleanup(func() { stop(); <-done })
}

func TestGroups(t *testing.T) {
	f := withGroup(t)
	a := f.do("GET", rg+core, "").want(t, 200)
	if a.get("location") != "eastus" || a.get("properties", "provisioningState") != "Succeeded" || a.get("type") != "Microsoft.Resources/resourceGroups" {
		t.Errorf("GET: %s", a.Body)
	}
	f.do("HEAD", rg+core, "").want(t, 204)
	f.do("HEAD", sub+"/resourceGroups/no"+core, "").want(t, 404)
	f.do("PUT", rg+core, `{"location":"westus"}`).wantError(t, 409, "InvalidResourceGroupLocation")
	f.do("PATCH", rg+core, `{"tags":{"x":"1"}}`).want(t, 200)
	f.do("PUT", sub+"/resourceGroups/rg2"+core, `{"location":"westus","tags":{"x":"2"}}`).want(t, 201)
	if names := f.do("GET", sub+"/resourcegroups"+core+"&$filter=tagName eq 'x' and tagValue eq '2'", "").names(); !slices.Equal(names, []string{"rg2"}) {
		t.Errorf("groups with x=2: %v", names)
	}
	if names := f.do("GET", sub+"/resourceGroups"+core, "").names(); !slices.Equal(names, []string{"rg1", "rg2"}) {
		t.Errorf("groups: %v", names)
	}
	f.do("PUT", rg+core, `{"location":"eastus","colour":"red"}`).wantError(t, 400, "InvalidParameter")
}

func TestDeletingAGroupDeletesWhatIsInIt(t *testing.T) {
	f := withGroup(t)
	plain(t, f, "quick")
	f.do("PUT", things+"/slow"+v, slow).want(t, 201)
	f.do("DELETE", rg+core, "").want(t, 202)
	f.do("PUT", things+"/more"+v, `{"location":"eastus"}`).wantError(t, 409, "ResourceGroupBeingDeleted")
	finisher(t, f, func(*Operation) error { return nil })
	location := f.do("DELETE", rg+core, "")
	if location.Code == 202 {
		f.do("GET", location.Header().Get("Location"), "").want(t, 200)
	}
	f.do("GET", rg+core, "").wantError(t, 404, "ResourceGroupNotFound")
	records, _, err := f.store.List(t.Context(), DocumentPrefix)
	if err != nil || len(records) != 0 {
		t.Errorf("%d documents are left, %v", len(records), err)
	}
}

func TestDeletionOfAGroupGoesOnAfterARestart(t *testing.T) {
	f := newFront(t) // its background work doesn't run: the process dies after the 202
	f.do("PUT", rg+core, `{"location":"eastus"}`).want(t, 201)
	plain(t, f, "one")
	location := f.do("DELETE", rg+core, "").want(t, 202).Header().Get("Location")
	next := frontOver(t, f.store)
	next.runs()
	next.do("GET", location, "").want(t, 200)
	next.do("GET", rg+core, "").wantError(t, 404, "ResourceGroupNotFound")
}

func TestDeletionOfAGroupThatIsBlocked(t *testing.T) {
	f := withGroup(t)
	f.do("PUT", things+"/one"+v, slow).want(t, 201)
	finisher(t, f, func(op *Operation) error {
		if op.Method == "DELETE" {
			return fault.New(fault.Conflict, "InUse", "It is in use.")
		}
		return nil
	})
	a := f.do("DELETE", rg+core, "")
	link := a.Header().Get("Azure-AsyncOperation")
	got := f.do("GET", link, "").want(t, 200)
	if got.get("status") != "Failed" || got.get("error", "code") != "ResourceGroupDeletionBlocked" || !strings.Contains(got.Body.String(), "InUse") {
		t.Errorf("status: %s", got.Body)
	}
	f.do("GET", a.Header().Get("Location"), "").wantError(t, 409, "ResourceGroupDeletionBlocked")
	f.do("GET", things+"/one"+v, "").want(t, 200)
	f.do("PUT", things+"/two"+v, `{"location":"eastus"}`).want(t, 201) // the group is usable again
}

func TestResourcesAndPages(t *testing.T) {
	f := withGroup(t)
	for i := range 7 {
		body := fmt.Sprintf(`{"location":"eastus","tags":{"n":"%d"}}`, i%2)
		f.do("PUT", fmt.Sprintf("%s/t%d%s", things, i, v), body).want(t, 201)
	}
	f.do("PUT", things+"/t0/parts/p"+v, `{}`).want(t, 201)
	var all []string
	next, pages := sub+"/resources"+core+"&$top=3&$filter=resourceType eq 'microsoft.test/Things'", 0
	for next != "" {
		a := f.do("GET", next, "").want(t, 200)
		all = append(all, a.names()...)
		next, _ = a.get("nextLink").(string)
		pages++
	}
	if !slices.Equal(all, []string{"t0", "t1", "t2", "t3", "t4", "t5", "t6"}) || pages != 3 {
		t.Errorf("%d pages with %v", pages, all)
	}
	for filter, want := range map[string]int{
		"tagName eq 'n' and tagValue eq '1'":            3,
		"substringof('T', name)":                        7,
		"name eq 't1' or name eq 't2'":                  2,
		"resourceGroup eq 'RG1' and not name eq 't1'":   6,
		"startswith(tagName,'n')":                       7,
		"location ne 'eastus'":                          0,
		"resourceType eq 'Microsoft.Test/things/parts'": 0,
	} {
		if got := len(f.do("GET", rg+"/resources"+core+"&$filter="+filter, "").want(t, 200).names()); got != want {
			t.Errorf("%s: %d resources, want %d", filter, got, want)
		}
	}
}

func TestAccount(t *testing.T) {
	f := withGroup(t)
	if a := f.do("GET", "/subscriptions?api-version=2019-11-01", "").want(t, 200); len(a.body["value"].([]any)) != 1 {
		t.Errorf("the caller's subscriptions: %s", a.Body)
	}
	if a := f.do("GET", "/subscriptions?api-version=2022-12-01", "", "Authorization", "Bearer stranger").want(t, 200); len(a.body["value"].([]any)) != 0 {
		t.Errorf("a stranger's subscriptions: %s", a.Body)
	}
	if a := f.do("GET", sub+"?api-version=2022-12-01", "").want(t, 200); a.get("state") != "Enabled" || a.get("tenantId") != f.h.config.Tenant.ID {
		t.Errorf("subscription: %s", a.Body)
	}
	f.do("GET", "/tenants?api-version=2022-12-01", "").want(t, 200)
	if names := f.do("GET", sub+"/locations?api-version=2022-12-01", "").want(t, 200).names(); !slices.Contains(names, "eastus") {
		t.Errorf("locations: %v", names)
	}
	a := f.do("GET", sub+"/providers/microsoft.test"+core, "").want(t, 200)
	if a.get("namespace") != "Microsoft.Test" || !strings.Contains(a.Body.String(), `"resourceType":"things/parts"`) {
		t.Errorf("provider: %s", a.Body)
	}
	f.do("GET", sub+"/providers"+core, "").want(t, 200)
	f.do("POST", sub+"/providers/Microsoft.Test/register"+core, "").want(t, 200)
	f.do("POST", sub+"/providers/Microsoft.Test/unregister"+core, "").wantError(t, 409, "CannotUnregisterRegistrationFreeResourceProvider")
	f.do("POST", sub+"/providers/Microsoft.No/register"+core, "").wantError(t, 404, "InvalidResourceNamespace")
	f.do("GET", sub+"/providers/Microsoft.Features/providers/Microsoft.Test/features?api-version=2021-07-01", "").want(t, 200)
	f.do("GET", sub+"/providers/Microsoft.Features/providers/Microsoft.Test/features/x?api-version=2021-07-01", "").wantError(t, 404, "FeatureNotFound")
}

func TestEndpointsNeedNoToken(t *testing.T) {
	f := newFront(t)
	old := f.do("GET", "/metadata/endpoints?api-version=2015-01-01", "", "Authorization", "").want(t, 200)
	if old.get("authentication", "loginEndpoint") != "https://login.test/adfs" {
		t.Errorf("2015: %s", old.Body)
	}
	if list := f.do("GET", "//metadata/endpoints?api-version=2019-05-01", "", "Authorization", "").want(t, 200); !strings.HasPrefix(list.Body.String(), `[{`) {
		t.Errorf("2019: %s", list.Body)
	}
	if one := f.do("GET", "/metadata/endpoints/?api-version=2022-09-01", "", "Authorization", "").want(t, 200); one.get("resourceManager") != "https://management.test/" {
		t.Errorf("2022: %s", one.Body)
	}
}

func TestActivityLog(t *testing.T) {
	f := withGroup(t)
	start := time.Now().UTC().Add(-time.Minute).Format("2006-01-02T15:04:05Z")
	correlation := "44444444-4444-4444-4444-444444444444"
	id := f.do("PUT", things+"/one"+v, slow, "x-ms-correlation-request-id", correlation).want(t, 201).operation(t)
	if err := f.ops.Finish(t.Context(), id, Ending{}); err != nil {
		t.Fatal(err)
	}
	f.do("PUT", things+"/one"+v, `{"location":"atlantis"}`).want(t, 400)
	f.do("DELETE", things+"/one"+v, "", "Authorization", "Bearer stranger").want(t, 403)
	log := sub + "/providers/microsoft.insights/eventtypes/management/values?api-version=2015-04-01&$filter="
	statuses := func(filter string) []string {
		a := f.do("GET", log+filter, "").want(t, 200)
		var got []string
		for _, value := range a.body["value"].([]any) {
			e := &answer{body: value.(map[string]any)}
			got = append(got, fmt.Sprint(e.get("authorization", "action"), " ", e.get("status", "value"), " ", e.get("caller")))
		}
		return got
	}
	want := []string{
		"Microsoft.Test/things/delete Failed app",
		"Microsoft.Test/things/write Failed owner@example.org",
		"Microsoft.Test/things/write Succeeded owner@example.org",
		"Microsoft.Test/things/write Started owner@example.org",
		"Microsoft.Resources/subscriptions/resourceGroups/write Succeeded owner@example.org",
	}
	if got := statuses("eventTimestamp ge '" + start + "' and resourceGroupName eq 'rg1'"); !slices.Equal(got, want) {
		t.Errorf("log\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if got := statuses("correlationId eq '" + correlation + "'"); len(got) != 2 {
		t.Errorf("by correlation id: %v", got)
	}
	if got := statuses("eventTimestamp lt '" + start + "'"); len(got) != 0 {
		t.Errorf("before it all: %v", got)
	}
}

func TestSweepKeepsWhatIsYoungOrRuns(t *testing.T) {
	f := withGroup(t)
	running := f.do("PUT", things+"/one"+v, slow).want(t, 201).operation(t)
	done := f.do("PUT", things+"/two"+v, slow).want(t, 201).operation(t)
	if err := f.ops.Finish(t.Context(), done, Ending{}); err != nil {
		t.Fatal(err)
	}
	counts := func() (int, int) {
		operations, _, _ := f.store.List(t.Context(), OperationPrefix)
		records, _, _ := f.store.List(t.Context(), ActivityPrefix)
		return len(operations), len(records)
	}
	operations, records := counts()
	sweep := func(later time.Duration) {
		old := frontOver(t, f.store)
		old.h.now = func() time.Time { return time.Now().Add(later) }
		if err := old.h.sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	sweep(time.Hour)
	if o, r := counts(); o != operations || r != records {
		t.Errorf("an hour later %d operations and %d records are left of %d and %d", o, r, operations, records)
	}
	sweep(DefaultRetention + time.Hour)
	if o, r := counts(); o != 1 || r != 0 {
		t.Errorf("long after, %d operations and %d records are left; want the running one", o, r)
	}
	if _, err := f.ops.Get(t.Context(), running); err != nil {
		t.Errorf("the running operation is gone: %v", err)
	}
}
