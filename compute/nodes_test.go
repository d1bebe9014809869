// SPDX-License-Identifier: Apache-2.0

package compute

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// asked remembers what was asked of nodes.
type asked []string

func (a *asked) PlanAction(_ context.Context, set resource.ID, action string, instances []string) ([]store.Change, error) {
	*a = append(*a, fmt.Sprint(action, " ", set.Name(), " ", instances))
	if action == "redeploy" {
		return nil, fault.New(fault.Conflict, "OperationNotAllowed", "not now")
	}
	return []store.Change{{Key: "pool"}}, nil
}

func TestActionsOnNodes(t *testing.T) {
	set := resource.MustParseID(group + "/providers/Microsoft.Compute/virtualMachineScaleSets/aks-np-12345678-vmss")
	var a asked
	p := &Provider{Config: Config{Nodes: &a}}
	do := func(id resource.ID, action string, body object) (*arm.Plan, error) {
		return p.managedActions()[action](t.Context(), &arm.Request{ID: id, Body: body, Old: &arm.Document{Envelope: resource.Envelope{ID: id}}})
	}
	for _, c := range []struct {
		id     resource.ID
		action string
		body   object
		want   string
	}{
		{set.Child("virtualMachines", "3"), "restart", nil, "restart aks-np-12345678-vmss [3]"},
		{set, "restart", object{"instanceIds": []any{"0", "2", "0"}}, "restart aks-np-12345678-vmss [0 2]"},
		{set, "reimage", object{"instanceIds": []any{"1", "*"}}, "reimage aks-np-12345678-vmss []"},
		{set, "reimage", nil, "reimage aks-np-12345678-vmss []"},
	} {
		plan, err := do(c.id, c.action, c.body)
		if err != nil || !plan.Async || len(plan.Changes) != 1 || !plan.Document.ID.Equal(c.id) || a[len(a)-1] != c.want {
			t.Errorf("%s: %+v, %v, asked %v", c.want, plan, err, a)
		}
	}
	if _, err := do(set, "redeploy", nil); !fault.Is(err, fault.Conflict) {
		t.Errorf("what the cluster refuses: %v", err)
	}
	if _, err := do(set, "restart", object{"instanceIds": []any{3.0}}); err == nil {
		t.Error("an id that is none is taken")
	}
	if _, err := do(set, "restart", object{"instanceIds": make([]any, mostInstances+1)}); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("a list that is too long: %v", err)
	}
	if _, err := do(set, "delete", nil); !fault.Is(err, fault.Conflict) {
		t.Errorf("what only the pool may: %v", err)
	}
}
