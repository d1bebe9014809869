// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/machine"
	"bastide.dev/resource"
)

// The switch reaches each node's document, whose network unit is made of it,
// and not the machines: those that run go on.
func TestPodAccessToMetadata(t *testing.T) {
	w := newWorld(t)
	w.must("PUT", testCluster, azBody(2), resource.Succeeded)
	before := map[string]machine.Spec{}
	for id, spec := range w.host.Machines {
		before[id] = spec
	}
	closed := func() (yes, no int) {
		records, _, err := w.memory.List(t.Context(), arm.DocumentPrefix)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range records {
			d, err := arm.DecodeDocument(r)
			if err != nil {
				t.Fatal(err)
			}
			if !d.ID.IsType("Microsoft.Compute/virtualMachineScaleSets/virtualMachines") {
				continue
			}
			var state instanceState
			if err := json.Unmarshal(d.State, &state); err != nil {
				t.Fatal(err)
			}
			if state.NoMetadata {
				yes++
			} else {
				no++
			}
		}
		return yes, no
	}
	for _, step := range []struct {
		value, shown any
		yes, no      int
	}{
		{nil, nil, 0, 2}, {"None", "None", 2, 0}, {nil, "None", 2, 0}, {"imds", "IMDS", 0, 2}, {"none", "None", 2, 0},
	} {
		body := azBody(2)
		if step.value != nil {
			body = change2(t, podAccessPath, step.value)
		}
		w.must("PUT", testCluster, body, resource.Succeeded)
		if yes, no := closed(); yes != step.yes || no != step.no {
			t.Errorf("%v: closed on %d nodes, open on %d", step.value, yes, no)
		}
		if shown := get(w.view(testCluster, testVersion), podAccessPath); shown != step.shown {
			t.Errorf("%v: it shows %v", step.value, shown)
		}
	}
	if !reflect.DeepEqual(before, w.host.Machines) {
		t.Error("the machines changed")
	}
	_, _, err := w.ask("PUT", testCluster, change2(t, podAccessPath, "Some"), nil)
	if f := fault.From(err); err == nil || f.Target != podAccessPath || !strings.Contains(f.Message, "IMDS") {
		t.Errorf("another value: %v", err)
	}
}

// change2 is azBody(2) with the value at path replaced.
func change2(t *testing.T, path string, value any) string {
	t.Helper()
	var body object
	if err := json.Unmarshal([]byte(azBody(2)), &body); err != nil {
		t.Fatal(err)
	}
	set(body, path, value)
	raw, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}
