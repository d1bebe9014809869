// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bastide.dev/fault"
	"bastide.dev/resource"
	"bastide.dev/store"
)

const (
	quick = `{"location":"eastus","properties":{"size":3,"future":null}}`
	slow  = `{"location":"eastus","properties":{"mode":"slow"}}`
)

func plain(t *testing.T, f *front, name string) {
	t.Helper()
	f.do("PUT", things+"/"+name+v, `{"location":"eastus","properties":{"size":3}}`).want(t, 201)
}

func TestPutGetListDelete(t *testing.T) {
	f := withGroup(t)
	a := f.do("PUT", things+"/One"+v, `{"id":"x","Location":"East US","tags":{"env":"dev"},"properties":{"size":3,"provisioningState":"Bad","parts":[{"name":"p","state":"x"}]}}`).want(t, 201)
	if a.get("properties", "provisioningState") != "Succeeded" || a.get("location") != "eastus" || a.get("tags", "env") != "dev" ||
		a.get("id") != things+"/One" || a.get("type") != "Microsoft.Test/things" || a.get("systemData", "createdBy") != "owner@example.org" {
		t.Errorf("PUT answers %s", a.Body)
	}
	if strings.Contains(a.Body.String(), `"state"`) {
		t.Errorf("a read-only property was kept: %s", a.Body)
	}
	upper := strings.ToUpper(strings.ReplaceAll(things, "/", "//")) + "/oNE"
	if got := f.do("GET", upper+v, "").want(t, 200); got.get("id") != things+"/One" {
		t.Errorf("GET in another case and with double slashes: id %v", got.get("id"))
	}
	f.do("PUT", things+"/one"+v, `{"location":"eastus","properties":{"size":4}}`).want(t, 200)
	if got := f.do("GET", things+"/One"+v, ""); got.get("id") != things+"/One" || got.get("properties", "size") != 4.0 || got.get("tags") != nil {
		t.Errorf("after the second PUT: %s", got.Body)
	}
	for _, scope := range []string{things, sub + "/providers/microsoft.test/THINGS"} {
		if names := f.do("GET", scope+v, "").want(t, 200).names(); !slices.Equal(names, []string{"One"}) {
			t.Errorf("GET %s lists %v", scope, names)
		}
	}
	f.do("HEAD", things+"/one"+v, "").want(t, 204)
	f.do("DELETE", things+"/one"+v, "").want(t, 204)
	f.do("DELETE", things+"/one"+v, "").want(t, 204)
	f.do("GET", things+"/one"+v, "").wantError(t, 404, "ResourceNotFound")
	f.do("HEAD", things+"/one"+v, "").want(t, 404)
}

func TestRefusals(t *testing.T) {
	f := withGroup(t)
	plain(t, f, "one")
	long := strings.Repeat("x", maxBody+10)
	for _, c := range []struct {
		name, method, target, body string
		status                     int
		code                       string
	}{
		{"no version", "GET", things + "/one", "", 400, "MissingApiVersionParameter"},
		{"malformed version", "GET", things + "/one?api-version=yesterday", "", 400, "InvalidApiVersionParameter"},
		{"unknown version of a provider", "GET", things + "/one?api-version=2020-01-01", "", 400, "NoRegisteredProviderFound"},
		{"unknown version of ARM", "GET", rg + "?api-version=2020-01-02", "", 400, "InvalidApiVersionParameter"},
		{"unknown namespace", "GET", rg + "/providers/Microsoft.No/things/x" + v, "", 404, "InvalidResourceNamespace"},
		{"unknown type", "GET", rg + "/providers/Microsoft.Test/nothings/x" + v, "", 404, "InvalidResourceType"},
		{"unknown subscription", "GET", "/subscriptions/nope/resourceGroups/x" + v, "", 404, "SubscriptionNotFound"},
		{"unknown group", "GET", sub + "/resourceGroups/nope/providers/Microsoft.Test/things/x" + v, "", 404, "ResourceGroupNotFound"},
		{"unknown group of a list", "GET", sub + "/resourceGroups/nope/providers/Microsoft.Test/things" + v, "", 404, "ResourceGroupNotFound"},
		{"unknown group of a PUT", "PUT", sub + "/resourceGroups/nope/providers/Microsoft.Test/things/x" + v, quick, 404, "ResourceGroupNotFound"},
		{"unknown parent", "PUT", things + "/no/parts/p" + v, `{}`, 404, "ParentResourceNotFound"},
		{"unknown action", "POST", things + "/one/explode" + v, "", 404, "InvalidResourceType"},
		{"action on nothing", "POST", things + "/no/stop" + v, "", 404, "ResourceNotFound"},
		{"wrong scope", "PUT", sub + "/providers/Microsoft.Test/things/x" + v, quick, 404, "InvalidResourceType"},
		{"malformed body", "PUT", things + "/x" + v, `{"location":`, 400, "InvalidRequestContent"},
		{"body of a list", "PUT", things + "/x" + v, `[]`, 400, "InvalidRequestContent"},
		{"null body", "PUT", things + "/x" + v, `null`, 400, "InvalidRequestContent"},
		{"two bodies", "PUT", things + "/x" + v, `{}{}`, 400, "InvalidRequestContent"},
		{"no body", "PUT", things + "/x" + v, ``, 400, "InvalidRequestContent"},
		{"huge body", "PUT", things + "/x" + v, `{"location":"` + long + `"}`, 413, "RequestContentTooLarge"},
		{"no location", "PUT", things + "/x" + v, `{}`, 400, "LocationRequired"},
		{"unknown location", "PUT", things + "/x" + v, `{"location":"atlantis"}`, 400, "LocationNotAvailableForResourceType"},
		{"another location", "PUT", things + "/one" + v, `{"location":"westus"}`, 409, "InvalidResourceLocation"},
		{"tag of a number", "PUT", things + "/x" + v, `{"location":"eastus","tags":{"a":1}}`, 400, "InvalidTagValue"},
		{"unknown property", "PUT", things + "/x" + v, quick, 400, "InvalidParameter"},
		{"wrong type", "PUT", things + "/x" + v, `{"location":"eastus","properties":{"size":"3"}}`, 400, "InvalidParameter"},
		{"PATCH of more than tags", "PATCH", things + "/one" + v, `{"properties":{}}`, 400, "PropertyChangeNotAllowed"},
		{"PUT of a computed type", "PUT", things + "/one/profiles/default" + v, `{}`, 405, "MethodNotAllowed"},
		{"POST on a resource", "POST", things + "/one" + v, `{}`, 405, "MethodNotAllowed"},
		{"bad group name", "PUT", sub + "/resourceGroups/a b." + v, `{"location":"eastus"}`, 400, "InvalidApiVersionParameter"},
		{"bad group name", "PUT", sub + "/resourceGroups/a b.?api-version=2021-04-01", `{"location":"eastus"}`, 400, "InvalidResourceGroup"},
		{"export of a template", "POST", rg + "/exportTemplate?api-version=2021-04-01", `{}`, 404, "InvalidResourceType"},
		{"deployments", "PUT", rg + "/providers/Microsoft.Resources/deployments/d?api-version=2021-04-01", `{}`, 404, "InvalidResourceType"},
		{"bad filter", "GET", sub + "/resources?api-version=2021-04-01&$filter=name eq", "", 400, "InvalidFilterInQueryString"},
		{"unknown filter field", "GET", sub + "/resources?api-version=2021-04-01&$filter=colour eq 'red'", "", 400, "InvalidFilterInQueryString"},
		{"bad $top", "GET", things + v + "&$top=-1", "", 400, "InvalidQueryParameterValue"},
		{"bad $skiptoken", "GET", things + v + "&$skiptoken=***", "", 400, "InvalidSkipToken"},
		{"bad character", "GET", things + "/a%3Cb" + v, "", 400, "x"},
		{"a path of nothing", "GET", "/a/b/c/d" + v, "", 400, "InvalidRequestUri"},
		{"the root", "GET", "/" + v, "", 404, "InvalidRequestUri"},
	} {
		t.Run(c.name, func(t *testing.T) {
			target := c.target
			if c.code == "x" {
				target, c.code = strings.ReplaceAll(target, "%3C", "<"), "InvalidRequestUri"
			}
			f.do(c.method, target, c.body).wantError(t, c.status, c.code)
		})
	}
}

func TestAllProblemsAtOnce(t *testing.T) {
	f := withGroup(t)
	a := f.do("PUT", things+"/far-too-long-a-name"+v, `{"location":"eastus","colour":1,"properties":{"size":101,"nested":{}}}`).wantError(t, 400, "InvalidParameter")
	details, _ := a.get("error", "details").([]any)
	var targets []string
	for _, d := range details {
		object, _ := d.(map[string]any)
		targets = append(targets, fmt.Sprint(object["target"]))
	}
	if want := []string{"colour", "properties.nested", "properties.size", "<nil>"}; !slices.Equal(targets, want) {
		t.Errorf("targets %v, want %v: %s", targets, want, a.Body)
	}
}

func TestWhoMayAsk(t *testing.T) {
	f := withGroup(t)
	a := f.do("GET", rg+"?api-version=2021-04-01", "", "Authorization", "Bearer old").wantError(t, 401, "ExpiredAuthenticationToken")
	if got := a.Header().Get("WWW-Authenticate"); !strings.HasPrefix(got, `Bearer authorization_uri="https://login.test/33333333-`) || !strings.Contains(got, `error="invalid_token"`) {
		t.Errorf("WWW-Authenticate: %s", got)
	}
	f.do("GET", rg+v, "", "Authorization", "").wantError(t, 401, "AuthenticationFailed")
	f.do("GET", rg+v, "", "Authorization", "Basic abc").wantError(t, 401, "AuthenticationFailedInvalidHeader")
	for _, c := range [][2]string{{"GET", things + "/one"}, {"PUT", things + "/one"}, {"DELETE", things + "/one"}, {"POST", things + "/one/stop"}, {"GET", things},
		{"GET", sub + "/resources"}, {"GET", sub + "/locations"}, {"GET", sub}} {
		f.do(c[0], c[1]+"?api-version=2025-01-01", quick, "Authorization", "Bearer stranger").wantNot(t)
	}
	f.do("GET", things+"/one"+v, "", "Authorization", "Bearer stranger").wantError(t, 403, "AuthorizationFailed")
	f.do("GET", rg+v, "", "Authorization", "Bearer bomb").wantError(t, 500, "InternalServerError")
}

// wantNot checks that nothing was given or done.
func (a *answer) wantNot(t *testing.T) {
	t.Helper()
	if a.Code != 403 && a.Code != 400 {
		t.Errorf("status %d, want a refusal; %s", a.Code, a.Body)
	}
}

func TestEtags(t *testing.T) {
	f := withGroup(t)
	body := `{"location":"eastus"}`
	f.do("PUT", things+"/one"+v, body, "If-Match", "*").wantError(t, 412, "PreconditionFailed")
	first := f.do("PUT", things+"/one"+v, body, "If-None-Match", "*").want(t, 201).Header().Get("ETag")
	f.do("PUT", things+"/one"+v, body, "If-None-Match", "*").wantError(t, 412, "PreconditionFailed")
	second := f.do("PUT", things+"/one"+v, body, "If-Match", first).want(t, 200).Header().Get("ETag")
	if first == second || second == "" {
		t.Errorf("etags %q, %q", first, second)
	}
	f.do("PATCH", things+"/one"+v, `{"tags":{"a":"1"}}`, "If-Match", first).wantError(t, 412, "PreconditionFailed")
	if a := f.do("PATCH", things+"/one"+v, `{"tags":{"a":"1"}}`, "If-Match", second).want(t, 200); a.get("tags", "a") != "1" {
		t.Errorf("PATCH answers %s", a.Body)
	}
	f.do("DELETE", things+"/one"+v, "", "If-Match", second).wantError(t, 412, "PreconditionFailed")
}

func TestOperationOverTime(t *testing.T) {
	f := withGroup(t)
	a := f.do("PUT", things+"/one"+v, slow).want(t, 201)
	id := a.operation(t)
	if a.get("properties", "provisioningState") != "Creating" {
		t.Errorf("PUT answers %s", a.Body)
	}
	status := a.Header().Get("Azure-AsyncOperation")
	if got := f.do("GET", things+"/one"+v, ""); got.Header().Get("Retry-After") != "1" {
		t.Error("GET during the operation has no Retry-After")
	}
	f.do("PUT", things+"/one"+v, slow).wantError(t, 409, "OperationNotAllowed")
	f.do("PATCH", things+"/one"+v, `{"tags":{}}`).wantError(t, 409, "OperationNotAllowed")
	f.do("POST", things+"/one/stop"+v, "").wantError(t, 409, "OperationNotAllowed")
	f.do("PUT", things+"/one/parts/p"+v, `{}`).wantError(t, 409, "OperationNotAllowed")
	if got := f.do("POST", things+"/one/listkeys"+v, "").want(t, 200); got.get("key") != "k-one" {
		t.Errorf("an action that only reads, during the operation: %s", got.Body)
	}

	var reads sync.WaitGroup
	reads.Go(func() { // it waits for the end instead of saying "in progress"
		if got := f.do("GET", status, "").want(t, 200); got.get("status") != "Succeeded" || got.get("endTime") == nil {
			t.Errorf("status read: %s", got.Body)
		}
	})
	time.Sleep(50 * time.Millisecond) // the read above shall be the one that waits; were it later, it would pass as well
	if err := f.ops.Finish(t.Context(), id, Ending{}); err != nil {
		t.Fatal(err)
	}
	reads.Wait()
	if got := f.do("GET", things+"/one"+v, ""); got.get("properties", "provisioningState") != "Succeeded" || got.Header().Get("Retry-After") != "" {
		t.Errorf("GET after the operation: %s", got.Body)
	}
	if err := f.ops.Finish(t.Context(), id, Ending{Fault: fault.New(fault.Internal, "", "late")}); err != nil {
		t.Errorf("a second Finish: %v", err)
	}
	if op, _ := f.ops.Get(t.Context(), id); op.Status != resource.Succeeded {
		t.Errorf("a second Finish changed the operation to %s", op.Status)
	}
}

func TestFailureIsToldAndCanBeRetried(t *testing.T) {
	f := withGroup(t)
	a := f.do("PUT", things+"/one"+v, slow).want(t, 201)
	if err := f.ops.Finish(t.Context(), a.operation(t), Ending{Fault: fault.New(fault.Exhausted, "NoDisk", "The disk is full.")}); err != nil {
		t.Fatal(err)
	}
	got := f.do("GET", a.Header().Get("Azure-AsyncOperation"), "").want(t, 200)
	if got.get("status") != "Failed" || got.get("error", "code") != "NoDisk" || got.Header().Get("Retry-After") != "" {
		t.Errorf("status: %s", got.Body)
	}
	f.do("PATCH", things+"/one"+v, `{"tags":{"a":"b"}}`).want(t, 200)
	if got := f.do("GET", things+"/one"+v, ""); got.get("properties", "provisioningState") != "Failed" {
		t.Errorf("new tags healed a failed resource: %s", got.Body)
	}
	f.do("PUT", things+"/one"+v, slow).want(t, 200)
}

func TestActionsAndResults(t *testing.T) {
	f := withGroup(t)
	plain(t, f, "one")
	a := f.do("POST", things+"/one/stop"+v, "").want(t, 202)
	id, location := a.operation(t), a.Header().Get("Location")
	if got := f.do("GET", things+"/one"+v, ""); got.get("properties", "provisioningState") != "Stopping" {
		t.Errorf("during stop: %s", got.Body)
	}
	f.h.config.LongPoll = 10 * time.Millisecond
	if got := f.do("GET", location, "").want(t, 202); got.Header().Get("Retry-After") != "1" || got.Header().Get("Location") == "" {
		t.Errorf("result in progress: %v", got.Header())
	}
	edit := func(d *Document) error { d.State = []byte(`{"stopped":true}`); return nil }
	if err := f.ops.Finish(t.Context(), id, Ending{Edit: edit}); err != nil {
		t.Fatal(err)
	}
	f.do("GET", location, "").want(t, 204)
	d, err := GetDocument(t.Context(), f.store, resource.MustParseID(things+"/one"))
	if err != nil || string(d.State) != `{"stopped":true}` {
		t.Errorf("state %s, %v", d.State, err)
	}
	f.do("GET", strings.Replace(location, sub, other, 1), "").wantError(t, 404, "OperationNotFound")
	if got := f.do("GET", things+"/one/profiles/default"+v, "").want(t, 200); got.get("of") != "one" || got.get("name") != "default" {
		t.Errorf("computed child: %s", got.Body)
	}
	if got := f.do("GET", sub+"/providers/Microsoft.Test/locations/eastus/sizes"+v, "").want(t, 200); got.get("location") != "eastus" {
		t.Errorf("computed list: %s", got.Body)
	}
}

func TestDeleteTakesThePlaceOfWhatRuns(t *testing.T) {
	f := withGroup(t)
	first := f.do("PUT", things+"/one"+v, slow).want(t, 201).operation(t)
	deletion := f.do("DELETE", things+"/one"+v, "").want(t, 202)
	if op, _ := f.ops.Get(t.Context(), first); op.Status != resource.Canceled {
		t.Errorf("the PUT's operation is %s", op.Status)
	}
	if again := f.do("DELETE", things+"/one"+v, "").want(t, 202); again.operation(t) != deletion.operation(t) {
		t.Error("a second DELETE began another operation")
	}
	if err := f.ops.Finish(t.Context(), first, Ending{}); err != nil {
		t.Errorf("Finish of the canceled operation: %v", err)
	}
	if got := f.do("GET", things+"/one"+v, ""); got.get("properties", "provisioningState") != "Deleting" {
		t.Errorf("the canceled operation's end changed the resource: %s", got.Body)
	}
	if err := f.ops.Finish(t.Context(), deletion.operation(t), Ending{}); err != nil {
		t.Fatal(err)
	}
	f.do("GET", things+"/one"+v, "").wantError(t, 404, "ResourceNotFound")
	f.do("GET", deletion.Header().Get("Location"), "").want(t, 204)
}

func TestPartsAndTheirWhole(t *testing.T) {
	f := withGroup(t)
	plain(t, f, "one")
	part := f.do("PUT", things+"/one/parts/p"+v, `{"properties":{"mode":"slow"}}`).want(t, 201).operation(t)
	f.do("PUT", things+"/one"+v, `{"location":"eastus"}`).wantError(t, 409, "OperationNotAllowed")
	f.do("PUT", things+"/one/parts/q"+v, `{"properties":{"mode":"slow"}}`).want(t, 201)
	if names := f.do("GET", things+"/one/parts"+v, "").names(); !slices.Equal(names, []string{"p", "q"}) {
		t.Errorf("parts %v", names)
	}
	f.do("DELETE", things+"/one"+v, "").want(t, 204)
	f.do("GET", things+"/one/parts/p"+v, "").wantError(t, 404, "ParentResourceNotFound")
	if op, _ := f.ops.Get(t.Context(), part); op.Status != resource.Canceled {
		t.Errorf("the part's operation is %s", op.Status)
	}
}

// meeting is a store whose first two transactions wait for each other: both
// writers have read what there is before either writes.
type meeting struct {
	store.Store
	both *sync.WaitGroup
	left atomic.Int32
}

func (m *meeting) Txn(ctx context.Context, changes ...store.Change) (int64, error) {
	if m.left.Add(-1) >= 0 {
		m.both.Done()
		m.both.Wait()
	}
	return m.Store.Txn(ctx, changes...)
}

// Of writes to a whole and to its part at the same time, never both go through;
// nor do a deletion of a group and a creation in it.
func TestWritesDoNotPassEachOther(t *testing.T) {
	for name, writes := range map[string][2][3]string{
		"whole and part":   {{"PUT", things + "/one" + v, slow}, {"PUT", things + "/one/parts/p" + v, `{"properties":{"mode":"slow"}}`}},
		"twice the same":   {{"PUT", things + "/one" + v, slow}, {"PUT", things + "/one" + v, slow}},
		"group and member": {{"DELETE", rg + core, ""}, {"PUT", things + "/two" + v, `{"location":"eastus"}`}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFront(t)
			f.do("PUT", rg+core, `{"location":"eastus"}`).want(t, 201)
			plain(t, f, "one")
			m := &meeting{Store: f.store, both: &sync.WaitGroup{}}
			m.both.Add(2)
			m.left.Store(2)
			f = frontOver(t, m)
			var refused atomic.Int32
			var group sync.WaitGroup
			for _, w := range writes {
				group.Go(func() {
					if f.do(w[0], w[1], w[2]).Code == 409 {
						refused.Add(1)
					}
				})
			}
			group.Wait()
			deleting := f.do("GET", rg+core, "").get("properties", "provisioningState") == "Deleting"
			if refused.Load() != 1 && !(deleting && f.do("GET", things+"/two"+v, "").Code == 200) {
				t.Errorf("%d writes were refused", refused.Load())
			}
		})
	}
}

func TestOperationsOutliveTheProcess(t *testing.T) {
	f := withGroup(t)
	a := f.do("PUT", things+"/one"+v, slow).want(t, 201)
	next := frontOver(t, f.store)
	next.do("PUT", things+"/one"+v, slow).wantError(t, 409, "OperationNotAllowed")
	if err := next.ops.Finish(t.Context(), a.operation(t), Ending{}); err != nil {
		t.Fatal(err)
	}
	if got := next.do("GET", a.Header().Get("Azure-AsyncOperation"), ""); got.get("status") != "Succeeded" {
		t.Errorf("status after the restart: %s", got.Body)
	}
}
