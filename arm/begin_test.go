// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"net/http"
	"testing"
	"time"

	"bastide.dev/fault"
	"bastide.dev/resource"
)

// thing is a document that is there, as the service reads it.
func (f *front) thing(name string) *Document {
	f.t.Helper()
	d, err := GetDocument(f.t.Context(), f.store, resource.MustParseID(things+"/"+name))
	if err != nil {
		f.t.Fatal(err)
	}
	return d
}

func TestTheServiceBeginsAnOperation(t *testing.T) {
	f := withGroup(t)
	f.do("PUT", things+"/a"+v, `{"location":"eastus","properties":{"size":1}}`).want(t, 201)
	f.do("PUT", things+"/a/parts/p"+v, `{"properties":{}}`).want(t, 201)
	part, err := GetDocument(t.Context(), f.store, resource.MustParseID(things+"/a/parts/p"))
	if err != nil {
		t.Fatal(err)
	}
	id, err := f.ops.Begin(t.Context(), Beginning{Document: f.thing("a"), Children: []*Document{part}, State: resource.Upgrading, Version: "2025-01-01", Why: "its window"})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/a", "/a/parts/p"} {
		if got := f.do("GET", things+path+v, "").want(t, 200).get("properties", "provisioningState"); got != "Upgrading" {
			t.Errorf("%s is %v", path, got)
		}
	}
	// A client's write has to wait for it, and so has the service's own next.
	f.do("PUT", things+"/a"+v, `{"location":"eastus","properties":{"size":2}}`).wantError(t, 409, "OperationNotAllowed")
	f.do("PUT", things+"/a/parts/q"+v, `{"properties":{}}`).wantError(t, 409, "OperationNotAllowed")
	if _, err := f.ops.Begin(t.Context(), Beginning{Document: f.thing("a")}); !fault.Is(err, fault.Conflict) {
		t.Errorf("a second operation: %v", err)
	}
	if err := f.ops.Finish(t.Context(), id, Ending{}); err != nil {
		t.Fatal(err)
	}
	if d := f.thing("a"); d.ProvisioningState != resource.Succeeded || d.Operation != "" || d.SystemData.LastModifiedBy != "Bastide" {
		t.Errorf("when it has ended the document is %+v", d.Envelope)
	}
	log := f.do("GET", sub+"/providers/Microsoft.Insights/eventtypes/management/values?api-version=2015-04-01&$filter=eventTimestamp ge '"+
		time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)+"' and resourceUri eq '"+things+"/a'", "").want(t, http.StatusOK)
	callers := map[any]int{}
	for _, value := range log.body["value"].([]any) {
		callers[value.(map[string]any)["caller"]]++
	}
	if callers["Bastide"] != 2 {
		t.Errorf("the activity log has %v", callers)
	}
}

// Of a client and the service, or of two services, who read the same the first wins.
func TestABeginningIsOfWhatWasRead(t *testing.T) {
	f := withGroup(t)
	f.do("PUT", things+"/a"+v, `{"location":"eastus","properties":{"size":1}}`).want(t, 201)
	stale, twin := f.thing("a"), f.thing("a")
	// A part that gets an operation in between.
	f.do("PUT", things+"/a/parts/p"+v, `{"properties":{"mode":"slow"}}`)
	if _, err := f.ops.Begin(t.Context(), Beginning{Document: f.thing("a")}); !fault.Is(err, fault.Conflict) {
		t.Errorf("while a part has an operation: %v", err)
	}
	part, err := GetDocument(t.Context(), f.store, resource.MustParseID(things+"/a/parts/p"))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.ops.Finish(t.Context(), part.Operation, Ending{}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.ops.Begin(t.Context(), Beginning{Document: stale}); !fault.Is(err, fault.Precondition) {
		t.Errorf("with what was read before a part was written: %v", err)
	}
	*twin = *f.thing("a")
	other := *twin
	if _, err := f.ops.Begin(t.Context(), Beginning{Document: twin}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.ops.Begin(t.Context(), Beginning{Document: &other}); !fault.Is(err, fault.Precondition) {
		t.Errorf("the second of two: %v", err)
	}
}
