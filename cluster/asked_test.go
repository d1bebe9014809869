// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"bastide.dev/arm"
	"bastide.dev/controlplane"
	"bastide.dev/fault"
	"bastide.dev/resource"
	"bastide.dev/store"
)

func TestDeleteMachines(t *testing.T) {
	f := newFleet(t, 3)
	f.images.image = "12.1"
	names := []string{f.pool(workPool).Nodes[0].Name, f.pool(workPool).Nodes[1].Name}
	body := func(names ...string) string {
		raw, _ := json.Marshal(map[string]any{"machineNames": names})
		return string(raw)
	}
	for what, body := range map[string]string{"nothing": `{}`, "another's": body(names[0], "aks-other-1"), "all of a system pool": body(names[0], names[1], f.pool(workPool).Nodes[2].Name), "no names": `{"machineNames":[1]}`} {
		if _, _, err := f.do(t.Context(), "POST", workPool+"/deleteMachines", body); err == nil {
			t.Errorf("%s is taken", what)
		}
	}
	f.end(f.begin("POST", workPool+"/deleteMachines", body(names[0])), resource.Succeeded)
	pool := f.pool(workPool)
	if pool.Pool.Count != 2 || len(pool.Nodes) != 2 || pool.node(names[0]) != nil || pool.node(names[1]) == nil {
		t.Errorf("count %d, nodes %+v", pool.Pool.Count, pool.Nodes)
	}
	if got := get(f.view(workPool, testVersion), "properties.count"); got != 2.0 {
		t.Errorf("the pool says %v nodes", got)
	}
	parent := f.document(t.Context(), resource.MustParseID(workPool))
	list, err := f.p.machines(t.Context(), &arm.Request{ID: parent.ID.Child("machines", ""), Parent: parent})
	if err != nil || len(list.(object)["value"].([]any)) != 2 {
		t.Errorf("%v, %v", list, err)
	}
	one, err := f.p.machine(t.Context(), &arm.Request{ID: parent.ID.Child("machines", names[1]), Parent: parent})
	if err != nil || get(one.(object), "properties.provisioningState") != "Succeeded" {
		t.Errorf("%v, %v", one, err)
	}
	if _, err := f.p.machine(t.Context(), &arm.Request{ID: parent.ID.Child("machines", names[0]), Parent: parent}); !fault.Is(err, fault.NotFound) {
		t.Errorf("one that is gone: %v", err)
	}
}

// What can't be drained stays, counts, and fails its operation.
func TestDeleteMachinesThatCantLeave(t *testing.T) {
	f := newFleet(t, 3)
	f.images.image = "12.1"
	name := f.pool(workPool).Nodes[0].Name
	f.host.Drain = func(n controlplane.Node) controlplane.Left {
		return controlplane.Left{Since: n.Leave.Since, Phase: controlplane.LeaveFailed, Error: "a budget"}
	}
	operation := f.end(f.begin("POST", workPool+"/deleteMachines", fmt.Sprintf(`{"machineNames":[%q]}`, name)), resource.Failed)
	if operation.Error == nil || !strings.Contains(operation.Error.Message, "a budget") {
		t.Errorf("%+v", operation.Error)
	}
	f.settle()
	pool := f.pool(workPool)
	if pool.Pool.Count != 3 || len(pool.Nodes) != 3 || pool.node(name) == nil || pool.node(name).Work != nil {
		t.Errorf("count %d, nodes %+v", pool.Pool.Count, pool.Nodes)
	}
}

// act does what compute's front door does with an action on a scale set's document.
func (f *fleet) act(ctx context.Context, document, set resource.ID, action string, instances ...string) (string, error) {
	changes, err := f.p.PlanAction(ctx, set, action, instances)
	if err != nil {
		return "", err
	}
	d := f.document(ctx, document)
	op := arm.Operation{ID: fmt.Sprintf("act-%d", time.Now().UnixNano()), Resource: document, Method: "POST", Action: action, Status: arm.InProgress, Start: f.clock}
	d.Operation, d.ProvisioningState = op.ID, resource.Updating
	change, err := arm.PutDocument(d)
	if err != nil {
		return "", err
	}
	value, err := json.Marshal(op)
	if err != nil {
		return "", err
	}
	_, err = f.memory.Txn(ctx, append(changes, change, store.Change{Key: arm.OperationPrefix + op.ID, Value: value, Revision: store.Absent})...)
	return op.ID, err
}

// Restart and reimage of a scale set's machines begin at once, without a drain,
// and end when the machines are back.
func TestActionsOnScaleSets(t *testing.T) {
	f := newFleet(t, 2)
	f.images.image = "12.1"
	w, err := f.p.load(t.Context(), f.document(t.Context(), resource.MustParseID(testCluster)))
	if err != nil {
		t.Fatal(err)
	}
	set, instance := w.scaleSet("nodepool1"), w.instance("nodepool1", 0)
	f.host.Drain = func(n controlplane.Node) controlplane.Left {
		if n.Leave.Drain {
			t.Errorf("%s is drained", n.Name)
		}
		return controlplane.Left{Since: n.Leave.Since, Phase: controlplane.LeftNode}
	}
	op, err := f.act(t.Context(), instance, set, "restart", "0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.act(t.Context(), set, set, "restart", "0"); !fault.Is(err, fault.Conflict) {
		t.Errorf("twice at once: %v", err)
	}
	f.settle()
	f.ended(op, resource.Succeeded)
	if n := f.pool(workPool).Nodes; n[0].Boots != 1 || n[0].Images != 0 || n[0].Work != nil || n[1].Boots != 0 {
		t.Errorf("%+v", n)
	}
	if op, err = f.act(t.Context(), set, set, "reimage"); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		f.clock = f.clock.Add(time.Second)
		f.settle()
	}
	f.ended(op, resource.Succeeded)
	if n := f.pool(workPool).Nodes; n[0].Images != 1 || n[1].Images != 1 {
		t.Errorf("%+v", n)
	}
	if d := f.document(t.Context(), set); d.Operation != "" || d.ProvisioningState != resource.Succeeded {
		t.Errorf("%+v", d.Envelope)
	}
	for what, err := range map[string]error{
		"a machine that isn't there": func() error { _, err := f.p.PlanAction(t.Context(), set, "restart", []string{"9"}); return err }(),
		"an action that isn't":       func() error { _, err := f.p.PlanAction(t.Context(), set, "format", nil); return err }(),
		"a set that isn't a pool's": func() error {
			_, err := f.p.PlanAction(t.Context(), w.own("virtualMachineScaleSets", "x"), "restart", nil)
			return err
		}(),
		"a set in no cluster's group": func() error {
			_, err := f.p.PlanAction(t.Context(), resource.MustParseID(testCluster), "restart", nil)
			return err
		}(),
	} {
		if err == nil {
			t.Errorf("%s is taken", what)
		}
	}
}

// A cluster that is deleted in the middle of an action leaves no operation behind.
func TestDeletionEndsActions(t *testing.T) {
	f := newFleet(t, 1)
	w, err := f.p.load(t.Context(), f.document(t.Context(), resource.MustParseID(testCluster)))
	if err != nil {
		t.Fatal(err)
	}
	op, err := f.act(t.Context(), w.scaleSet("nodepool1"), w.scaleSet("nodepool1"), "restart")
	if err != nil {
		t.Fatal(err)
	}
	f.must("DELETE", testCluster, "", resource.Succeeded)
	f.nothingLeft()
	f.ended(op, resource.Failed)
}
