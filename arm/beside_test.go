// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"context"
	"testing"

	"bastide.dev/fault"
)

// An action may run beside an operation: that one stays the resource's, and each
// has an end of its own.
func TestActionBesideAnOperation(t *testing.T) {
	f := withGroup(t)
	plain(t, f, "one")
	stop := f.do("POST", things+"/one/stop"+v, "").want(t, 202).operation(t)
	f.do("POST", things+"/one/stop"+v, "").wantError(t, 409, "OperationNotAllowed")
	abort := f.do("POST", things+"/one/abort"+v, "").want(t, 202)
	id, location := abort.operation(t), abort.Header().Get("Location")
	if id == stop {
		t.Fatal("both requests have one operation")
	}
	if got := f.do("GET", things+"/one"+v, ""); got.get("properties", "provisioningState") != "Canceling" {
		t.Errorf("while it is aborted: %s", got.Body)
	}
	f.do("POST", things+"/one/stop"+v, "").wantError(t, 409, "OperationNotAllowed")
	canceled := fault.New(fault.Conflict, "OperationAborted", "It was aborted.").Because(context.Canceled)
	if err := f.ops.Finish(t.Context(), stop, Ending{Fault: canceled}); err != nil {
		t.Fatal(err)
	}
	if op, err := f.ops.Get(t.Context(), stop); err != nil || op.Status != "Canceled" {
		t.Errorf("what was aborted: %+v, %v", op, err)
	}
	if err := f.ops.Finish(t.Context(), id, Ending{}); err != nil {
		t.Fatal(err)
	}
	f.do("GET", location, "").want(t, 204)
	if got := f.do("GET", things+"/one"+v, ""); got.get("properties", "provisioningState") != "Canceled" {
		t.Errorf("after it was aborted: %s", got.Body)
	}
	f.do("POST", things+"/one/stop"+v, "").want(t, 202)
}
