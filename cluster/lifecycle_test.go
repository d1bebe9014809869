// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"bastide.dev/host"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// azCreate is what az 2.45 sends for `az aks create -g rg1 -n c1 --node-count
// %d --generate-ssh-keys`: its models' defaults included.
const azCreate = `{"location":"eastus","identity":{"type":"SystemAssigned"},"properties":{"kubernetesVersion":"","dnsPrefix":"c1-rg1-0b1f64",
 "agentPoolProfiles":[{"count":%d,"vmSize":"Standard_DS2_v2","osDiskSizeGB":0,"workloadRuntime":"OCIContainer","osType":"Linux",
  "enableAutoScaling":false,"type":"VirtualMachineScaleSets","mode":"System","orchestratorVersion":"","upgradeSettings":{},
  "enableNodePublicIP":false,"enableEncryptionAtHost":false,"enableUltraSSD":false,"enableFIPS":false,"spotMaxPrice":-1.0,
  "scaleSetPriority":"Regular","scaleSetEvictionPolicy":"Delete","nodeTaints":[],"name":"nodepool1"}],
 "linuxProfile":{"adminUsername":"azureuser","ssh":{"publicKeys":[{"keyData":"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJYPQl4WDSy1IV0nYeVkSUQZ0QeyJ5cBQEGXzpuqCGgD me\n"}]}},
 "addonProfiles":{},"enableRBAC":true,"disableLocalAccounts":false,"storageProfile":{},
 "networkProfile":{"networkPlugin":"kubenet","podCidr":"10.244.0.0/16","serviceCidr":"10.0.0.0/16","dnsServiceIP":"10.0.0.10",
  "dockerBridgeCidr":"172.17.0.1/16","outboundType":"loadBalancer","loadBalancerSku":"standard"}}}`

func azBody(count int) string { return fmt.Sprintf(azCreate, count) }

func TestLifecycle(t *testing.T) {
	w := newWorld(t)
	w.must("PUT", testCluster, azBody(2), resource.Succeeded)
	if n := len(w.host.Machines); n != 2 {
		t.Fatalf("%d machines run, want 2", n)
	}
	body := w.view(testCluster, testVersion)
	for path, want := range map[string]any{
		"properties.currentKubernetesVersion":                 "1.35.4",
		"properties.nodeResourceGroup":                        "MC_rg1_c1_eastus",
		"properties.powerState.code":                          "Running",
		"properties.provisioningState":                        "Succeeded",
		"properties.maxAgentPools":                            100.0,
		"properties.servicePrincipalProfile.clientId":         "msi",
		"properties.identityProfile.kubeletidentity.objectId": "principal-of-c1-agentpool",
		"identity.principalId":                                "principal-of-c1",
		"identity.tenantId":                                   "t1",
		"sku.tier":                                            "Free",
	} {
		if got := get(body, path); got != want {
			t.Errorf("%s is %v, want %v", path, got, want)
		}
	}
	if w.document(t.Context(), resource.GroupID("0b1f6471-1bf0-4dda-aec3-cb9272f09590", "MC_rg1_c1_eastus")) == nil {
		t.Error("the node resource group isn't there")
	}

	pool := testCluster + "/agentPools/np2"
	w.must("PUT", pool, `{"properties":{"count":3,"vmSize":"Standard_D2s_v5","mode":"User","nodeLabels":{"team":"a"}}}`, resource.Succeeded)
	w.must("PUT", pool, `{"properties":{"count":1}}`, resource.Succeeded)
	if n := len(w.host.Machines); n != 3 {
		t.Fatalf("%d machines run after scaling down, want 3", n)
	}
	if n := len(w.host.Nodes[w.state().ID]); n != 3 {
		t.Fatalf("%d nodes after scaling down, want 3", n)
	}
	w.must("PUT", pool, `{"properties":{"count":2}}`, resource.Succeeded)
	for id := range w.host.Machines {
		if strings.HasSuffix(id, "np2-000001") || strings.HasSuffix(id, "np2-000002") {
			t.Errorf("the name of machine %s was used before", id)
		}
	}

	w.must("POST", testCluster+"/stop", "", resource.Succeeded)
	if len(w.host.Machines) != 0 {
		t.Error("machines run in a stopped cluster")
	}
	if got := get(w.view(testCluster, testVersion), "properties.powerState.code"); got != "Stopped" {
		t.Errorf("power state is %v", got)
	}
	if _, _, err := w.do(t.Context(), "PUT", pool, `{"properties":{"count":1}}`); err == nil || !strings.Contains(err.Error(), "stopped") {
		t.Errorf("scaling a stopped cluster: %v", err)
	}
	w.must("POST", testCluster+"/start", "", resource.Succeeded)
	if n := len(w.host.Machines); n != 4 {
		t.Errorf("%d machines run after start, want 4", n)
	}

	w.must("DELETE", pool, "", resource.Succeeded)
	if w.document(t.Context(), resource.MustParseID(pool)) != nil || len(w.host.Machines) != 2 {
		t.Error("the pool isn't gone")
	}
	w.must("DELETE", testCluster, "", resource.Succeeded)
	w.nothingLeft()
}

func (w *world) state() clusterState {
	w.t.Helper()
	var s clusterState
	if err := json.Unmarshal(w.document(w.t.Context(), resource.MustParseID(testCluster)).State, &s); err != nil {
		w.t.Fatal(err)
	}
	return s
}

func (w *world) nothingLeft() {
	w.t.Helper()
	if left := w.leftovers(); len(left) > 0 {
		w.t.Errorf("left in the store: %v", left)
	}
	if n := len(w.host.VNets) + len(w.host.Planes) + len(w.host.Machines); n > 0 {
		w.t.Errorf("%d things are left on the host", n)
	}
	if len(w.directory.made) > 0 {
		w.t.Errorf("identities are left: %v", w.directory.made)
	}
}

// What a client reads it may send back: nothing is refused, nothing happens.
func TestReadIsWritable(t *testing.T) {
	for _, version := range []resource.APIVersion{"2020-11-01", "2022-11-01", "2025-02-01", "2026-03-01"} {
		w := newWorld(t)
		w.must("PUT", testCluster, azBody(1), resource.Succeeded)
		for _, path := range []string{testCluster, testCluster + "/agentPools/nodepool1"} {
			raw, err := json.Marshal(w.view(path, version))
			if err != nil {
				t.Fatal(err)
			}
			_, plan, err := w.do(t.Context(), "PUT", path, string(raw))
			if err != nil {
				t.Fatalf("%s in %s: %v", path, version, err)
			}
			if plan.Async {
				t.Errorf("%s in %s: writing what was read starts an operation", path, version)
			}
		}
	}
}

// az aks scale reads, changes the count, drops the service principal and writes.
func TestScaleThroughCluster(t *testing.T) {
	w := newWorld(t)
	w.must("PUT", testCluster, azBody(1), resource.Succeeded)
	body := w.view(testCluster, testVersion)
	get(body, "properties.agentPoolProfiles").([]any)[0].(object)["count"] = 3
	set(body, "properties.servicePrincipalProfile", nil)
	raw, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	w.must("PUT", testCluster, string(raw), resource.Succeeded)
	if n := len(w.host.Machines); n != 3 {
		t.Errorf("%d machines run, want 3", n)
	}
	if got := get(w.view(testCluster+"/agentPools/nodepool1", testVersion), "properties.count"); got != 3.0 {
		t.Errorf("the pool says %v nodes", got)
	}
}

// A property of a newer API version that is switched off comes back.
func TestNewerPropertySurvives(t *testing.T) {
	w := newWorld(t)
	body := strings.Replace(azBody(1), `"storageProfile":{}`, `"aNewProfile":{"enabled":false,"mode":""}`, 1)
	w.must("PUT", testCluster, body, resource.Succeeded)
	if got := get(w.view(testCluster, testVersion), "properties.aNewProfile.enabled"); got != false {
		t.Errorf("the property reads %v", got)
	}
	body = strings.Replace(body, `"aNewProfile":{"enabled":false`, `"aNewProfile":{"enabled":true`, 1)
	if _, _, err := w.do(t.Context(), "PUT", testCluster, body); err == nil || problems(err)[0].Target != "properties.aNewProfile.enabled" {
		t.Errorf("switched on: %v", err)
	}
}

func TestFailureIsTold(t *testing.T) {
	w := newWorld(t)
	now := time.Now()
	w.p.Now = func() time.Time { return now }
	w.runner = newRunner(w.p)
	broken := true
	w.host.Fail = func(kind host.Kind, _ string) string {
		if broken && kind == host.MachineUnit {
			return "no space left on device"
		}
		return ""
	}
	op, _, err := w.do(t.Context(), "PUT", testCluster, azBody(1))
	if err != nil {
		t.Fatal(err)
	}
	w.settle()
	w.ended(op, "InProgress")
	now = now.Add(2 * time.Minute)
	w.settle()
	w.ended(op, resource.Failed)
	operation, err := w.p.ops.Get(t.Context(), op)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(operation.Error.Message, "no space left") {
		t.Errorf("the error doesn't tell the reason: %+v", operation.Error)
	}
	if got := get(w.view(testCluster, testVersion), "properties.provisioningState"); got != "Failed" {
		t.Errorf("state is %v", got)
	}
	broken = false
	// The same again is a retry; its clock is the real one, in the past of the test's.
	w.p.Now = time.Now
	w.runner = newRunner(w.p)
	w.must("PUT", testCluster, azBody(1), resource.Succeeded)
	w.must("DELETE", testCluster, "", resource.Succeeded)
	w.nothingLeft()
}

func TestDeleteWhileCreating(t *testing.T) {
	w := newWorld(t)
	w.host.Fail = func(kind host.Kind, _ string) string {
		if kind == host.ControlPlaneUnit && len(w.host.Planes) == 0 && len(w.host.Machines) > 0 {
			return "port 443 is taken"
		}
		return ""
	}
	if _, _, err := w.do(t.Context(), "PUT", testCluster, azBody(2)); err != nil {
		t.Fatal(err)
	}
	w.settle()
	w.host.Fail = nil
	w.must("DELETE", testCluster, "", resource.Succeeded)
	w.nothingLeft()
}

// killer is a store that dies at the n-th write: before it, or after it without an answer.
type killer struct {
	store.Store
	left  int
	after bool
}

var errKilled = errors.New("killed")

func (k *killer) Txn(ctx context.Context, changes ...store.Change) (int64, error) {
	if k.left--; k.left != 0 {
		return k.Store.Txn(ctx, changes...)
	}
	if k.after {
		if _, err := k.Store.Txn(ctx, changes...); err != nil {
			return 0, err
		}
	}
	return 0, errKilled
}

// Whatever write serve is killed at, during create, scale, stop, start and
// delete: a new one goes on from there, and in the end nothing is left over.
func TestKilledAtEveryWrite(t *testing.T) {
	steps := []struct{ method, path, body string }{
		{"PUT", testCluster, azBody(2)},
		{"PUT", testCluster + "/agentPools/np2", `{"properties":{"count":2,"mode":"User"}}`},
		{"PUT", testCluster + "/agentPools/np2", `{"properties":{"count":1}}`},
		{"POST", testCluster + "/stop", ""},
		{"POST", testCluster + "/start", ""},
		{"DELETE", testCluster + "/agentPools/np2", ""},
		{"DELETE", testCluster, ""},
	}
	for _, after := range []bool{false, true} {
		deaths := 0
		for n := 1; ; n++ {
			w := newWorld(t)
			k := &killer{Store: w.memory, left: n, after: after}
			died := false
			w.restart(k)
			for _, s := range steps {
				died = w.survive(k, s.method, s.path, s.body) || died
			}
			w.nothingLeft()
			if !died {
				break
			}
			deaths++
		}
		if deaths < 20 {
			t.Errorf("only %d writes were there to be killed at", deaths)
		}
	}
}

// restart makes a new provider over the store, as after a kill.
func (w *world) restart(s store.Store) {
	w.p, _ = testProvider(w.t, s)
	w.p.Directory, w.p.Roles = w.directory, w.directory
	w.front = &front{store: s, p: w.p}
	w.runner = newRunner(w.p)
}

// survive does one request to its end, through a kill.
func (w *world) survive(k *killer, method, path, body string) (died bool) {
	w.t.Helper()
	op, plan, err := w.do(w.t.Context(), method, path, body)
	for attempt := 0; errors.Is(err, errKilled) && attempt < 2; attempt++ {
		died = true
		w.restart(k)
		if method == "DELETE" && w.document(w.t.Context(), resource.MustParseID(path)) == nil {
			return true
		}
		op, plan, err = w.do(w.t.Context(), method, path, body)
	}
	if err != nil {
		w.t.Fatalf("%s %s with %d writes left: %v", method, path, k.left, err)
	}
	for range 300 {
		again, err := w.step(w.t.Context())
		if errors.Is(err, errKilled) {
			died = true
			w.restart(k)
			continue
		}
		if err != nil {
			w.t.Fatalf("%s %s: %v", method, path, err)
		}
		if !again {
			break
		}
	}
	if plan.Async {
		w.ended(op, resource.Succeeded)
	}
	return died
}
