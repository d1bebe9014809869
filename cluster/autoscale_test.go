// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"bastide.dev/autoscale"
	"bastide.dev/controlplane"
	"bastide.dev/fault"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// scaled is a fleet whose control plane wishes what the test says.
type scaled struct {
	*fleet
	wish func(spec controlplane.Autoscaler) *controlplane.Scaling
}

func newScaled(t *testing.T, pool string) *scaled {
	t.Helper()
	s := &scaled{fleet: newFleet(t, 1)}
	s.host.Told = func(status *controlplane.Status) {
		if spec := s.host.Planes[status.ID].Autoscaler; spec != nil && s.wish != nil {
			status.Scaling = s.wish(*spec)
		}
	}
	s.must("PUT", workPool, pool, resource.Succeeded)
	return s
}

const autoPool = `{"properties":{"enableAutoScaling":true,"minCount":1,"maxCount":10}}`

// A pool grows to what its autoscaler wishes in one step, and within its bounds.
func TestPoolsFollowTheirAutoscaler(t *testing.T) {
	s := newScaled(t, autoPool)
	s.wish = func(spec controlplane.Autoscaler) *controlplane.Scaling {
		return &controlplane.Scaling{Pools: []controlplane.PoolWish{{Pool: "nodepool1", From: 1, Want: 7}}}
	}
	s.settle()
	view := s.view(workPool, testVersion)
	if n := len(s.host.Machines); n != 7 || get(view, "properties.count") != 7.0 || get(view, "properties.provisioningState") != "Succeeded" {
		t.Fatalf("%d machines; count %v, %v", n, get(view, "properties.count"), get(view, "properties.provisioningState"))
	}
	if get(view, "properties.enableAutoScaling") != true || get(view, "properties.minCount") != 1.0 || get(view, "properties.maxCount") != 10.0 {
		t.Errorf("%v", view)
	}
	s.settle() // the wish stands, and knows of another count
	if n := len(s.host.Machines); n != 7 {
		t.Fatalf("%d machines", n)
	}
	s.wish = func(controlplane.Autoscaler) *controlplane.Scaling {
		return &controlplane.Scaling{Pools: []controlplane.PoolWish{{Pool: "nodepool1", From: 7, Want: 5000}}}
	}
	s.settle()
	if n := len(s.host.Machines); n != 10 {
		t.Errorf("%d machines, the maximum is 10", n)
	}
	raw, err := json.Marshal(s.view(testCluster, testVersion))
	if err != nil {
		t.Fatal(err)
	}
	if _, plan, err := s.do(t.Context(), "PUT", testCluster, string(raw)); err != nil || plan.Async {
		t.Errorf("writing what was read: %v, %v", plan, err)
	}
}

// Nodes that aren't needed are drained and go, and no more than the minimum leaves.
func TestPoolsShrink(t *testing.T) {
	s := newScaled(t, `{"properties":{"count":4,"enableAutoScaling":true,"minCount":2,"maxCount":10}}`)
	pool := s.pool(workPool)
	names := []string{pool.Nodes[0].Name, pool.Nodes[1].Name, pool.Nodes[2].Name}
	drained := map[string]bool{}
	s.host.Drain = func(n controlplane.Node) controlplane.Left {
		drained[n.Name] = n.Leave.Drain && n.Leave.Timeout == 10*time.Minute
		return controlplane.Left{Since: n.Leave.Since, Phase: controlplane.LeftNode}
	}
	s.wish = func(spec controlplane.Autoscaler) *controlplane.Scaling {
		return &controlplane.Scaling{Remove: append(names, "of nobody")}
	}
	s.settle()
	s.clock = s.clock.Add(time.Minute)
	s.settle()
	pool = s.pool(workPool)
	if pool.Pool.Count != 2 || len(pool.Nodes) != 2 || pool.node(names[0]) != nil || pool.node(names[1]) != nil || pool.node(names[2]) == nil {
		t.Errorf("count %d, nodes %+v", pool.Pool.Count, pool.Nodes)
	}
	if !drained[names[0]] || !drained[names[1]] || drained[names[2]] {
		t.Errorf("drained: %v", drained)
	}
}

// A node whose pods can't leave serves on, and counts.
func TestUndrainableNodesStay(t *testing.T) {
	s := newScaled(t, `{"properties":{"count":3,"enableAutoScaling":true,"minCount":1,"maxCount":10}}`)
	name := s.pool(workPool).Nodes[1].Name
	s.host.Drain = func(n controlplane.Node) controlplane.Left {
		return controlplane.Left{Since: n.Leave.Since, Phase: controlplane.LeaveFailed, Error: "a budget"}
	}
	asked := false
	s.wish = func(spec controlplane.Autoscaler) *controlplane.Scaling {
		if slices.Contains(spec.Going, name) {
			asked = true
		}
		if asked {
			return nil
		}
		return &controlplane.Scaling{Remove: []string{name}}
	}
	s.settle()
	pool := s.pool(workPool)
	if !asked || pool.Pool.Count != 3 || len(pool.Nodes) != 3 || pool.node(name).Work != nil {
		t.Errorf("asked %v; count %d, nodes %+v", asked, pool.Pool.Count, pool.Nodes)
	}
}

// What the control plane is told: bounds, what a node would be, and who goes.
func TestAutoscalerIsTold(t *testing.T) {
	s := newScaled(t, autoPool)
	s.must("PUT", testCluster+"/agentPools/np2", `{"properties":{"mode":"User","count":0,"enableAutoScaling":true,"minCount":0,"maxCount":3,
		"vmSize":"Standard_D2s_v5","nodeLabels":{"team":"a"},"nodeTaints":["k=v:NoSchedule"]}}`, resource.Succeeded)
	spec := s.host.Planes[s.state().ID]
	if len(spec.Autoscaler.Pools) != 2 || spec.Nodes[0].Pool != "nodepool1" {
		t.Fatalf("%+v", spec.Autoscaler)
	}
	p := spec.Autoscaler.Pools[1]
	if p.Min != 0 || p.Max != 3 || p.Count != 0 || p.Template.CPU != 1900 || p.Template.Memory < 4<<30 || p.Template.Memory > 8<<30 || p.Template.Pods != 110 ||
		p.Template.Labels["team"] != "a" || p.Template.Labels["agentpool"] != "np2" || p.Template.Taints[0] != (autoscale.Taint{Key: "k", Value: "v", Effect: "NoSchedule"}) {
		t.Errorf("%+v", p)
	}
	if spec.Autoscaler.Profile != autoscale.DefaultProfile() {
		t.Errorf("%+v", spec.Autoscaler.Profile)
	}
	s.must("PUT", workPool, `{"properties":{"enableAutoScaling":false}}`, resource.Succeeded)
	s.must("DELETE", testCluster+"/agentPools/np2", "", resource.Succeeded)
	if s.host.Planes[s.state().ID].Autoscaler != nil {
		t.Error("no pool scales by itself, and there is an autoscaler")
	}
}

// narrow is a network that has no addresses left when it is full.
type narrow struct {
	Network
	full bool
}

func (n *narrow) Allocate(ctx context.Context, subnet resource.ID, wants []Want) ([]Grant, []store.Change, error) {
	if n.full {
		return nil, nil, fault.New(fault.Exhausted, "InsufficientSubnetSize", "No address is left.")
	}
	return n.Network.Allocate(ctx, subnet, wants)
}

// A wish that there is no room for keeps nothing else from being done, and is
// fulfilled when there is.
func TestWishWithoutRoom(t *testing.T) {
	s := newScaled(t, autoPool)
	network := &narrow{Network: s.p.Network, full: true}
	s.p.Network = network
	s.wish = func(spec controlplane.Autoscaler) *controlplane.Scaling {
		return &controlplane.Scaling{Pools: []controlplane.PoolWish{{Pool: "nodepool1", From: 1, Want: 4}}}
	}
	s.settle()
	if n := s.pool(workPool).Pool.Count; n != 1 {
		t.Fatalf("count %d", n)
	}
	s.must("PUT", workPool, `{"properties":{"maxCount":8}}`, resource.Succeeded)
	network.full = false
	s.clock = s.clock.Add(2 * holdGrowth)
	s.settle()
	if n := len(s.host.Machines); n != 4 {
		t.Errorf("%d machines", n)
	}
}

func TestScalingIsValidated(t *testing.T) {
	s := newScaled(t, autoPool)
	for name, c := range map[string]struct{ path, body, code, target string }{
		"a count by hand":      {workPool, `{"properties":{"count":2}}`, "OperationNotAllowed", "properties.count"},
		"no nodes":             {workPool, `{"properties":{"minCount":0}}`, "InvalidParameter", "properties.minCount"},
		"maximum below":        {workPool, `{"properties":{"minCount":5,"maxCount":4}}`, "InvalidParameter", "properties.maxCount"},
		"too many":             {workPool, `{"properties":{"maxCount":1001}}`, "InvalidParameter", "properties.maxCount"},
		"bounds of nothing":    {testCluster + "/agentPools/np2", `{"properties":{"minCount":1}}`, "InvalidParameter", "properties.minCount"},
		"outside the bounds":   {testCluster + "/agentPools/np2", `{"properties":{"enableAutoScaling":true,"count":9,"minCount":1,"maxCount":3}}`, "InvalidParameter", "properties.count"},
		"no maximum":           {testCluster + "/agentPools/np2", `{"properties":{"enableAutoScaling":true}}`, "InvalidParameter", "properties.maxCount"},
		"more than the subnet": {testCluster + "/agentPools/np2", `{"properties":{"enableAutoScaling":true,"minCount":1,"maxCount":900}}`, "InsufficientSubnetSize", ""},
	} {
		_, _, err := s.do(t.Context(), "PUT", c.path, c.body)
		if found := problems(err); len(found) == 0 || found[0].Code != c.code || c.target != "" && found[0].Target != c.target {
			t.Errorf("%s: %v", name, err)
		}
	}
	s.must("PUT", workPool, `{"properties":{"count":1,"minCount":3}}`, resource.Succeeded) // raises it
	if n := len(s.host.Machines); n != 3 {
		t.Errorf("%d machines, the minimum is 3", n)
	}
	s.must("PUT", workPool, `{"properties":{"count":2,"enableAutoScaling":false}}`, resource.Succeeded)
	if n := len(s.host.Machines); n != 2 {
		t.Errorf("%d machines after switching it off", n)
	}
}

func TestAutoScalerProfile(t *testing.T) {
	s := newScaled(t, autoPool)
	body := func(profile string) string {
		return strings.Replace(azBody(1), `"storageProfile":{}`, `"autoScalerProfile":`+profile, 1)
	}
	full := func(profile string) string {
		return strings.Replace(body(profile), `"enableAutoScaling":false`, `"enableAutoScaling":true,"minCount":1,"maxCount":10`, 1)
	}
	s.must("PUT", testCluster, full(`{"scan-interval":"20s","scale-down-unneeded-time":"90s","expander":"least-waste","scale-down-utilization-threshold":"0.25",
		"balance-similar-node-groups":"true","max-graceful-termination-sec":"30","ok-total-unready-count":"5","ignore-daemonsets-utilization":true}`), resource.Succeeded)
	want := autoscale.DefaultProfile()
	want.Scan, want.Unneeded, want.Expander, want.Threshold, want.Balance, want.Grace, want.UnreadyCount, want.IgnoreDaemons =
		20*time.Second, 90*time.Second, autoscale.LeastWaste, 0.25, true, 30*time.Second, 5, true
	if got := s.host.Planes[s.state().ID].Autoscaler.Profile; got != want {
		t.Errorf("%+v", got)
	}
	view := s.view(testCluster, testVersion)
	for name, want := range map[string]any{"scan-interval": "20s", "scale-down-unneeded-time": "90s", "scale-down-delay-after-add": "10m",
		"expander": "least-waste", "skip-nodes-with-system-pods": "true", "max-graceful-termination-sec": "30", "new-pod-scale-up-delay": "0s"} {
		if got := get(view, "properties.autoScalerProfile").(object)[name]; got != want {
			t.Errorf("%s is %v", name, got)
		}
	}
	for _, c := range [][2]string{{"scan-interval", "10"}, {"scan-interval", "0s"}, {"scale-down-unneeded-time", "1.5h"}, {"scale-down-unneeded-time", "999999h"}, {"expander", "cheapest"},
		{"scale-down-utilization-threshold", "NaN"}, {"scale-down-utilization-threshold", "2"}, {"max-empty-bulk-delete", "0"}, {"skip-nodes-with-system-pods", "yes"}, {"max-total-unready-percentage", "101"}} {
		_, _, err := s.do(t.Context(), "PUT", testCluster, full(fmt.Sprintf(`{%q:%q}`, c[0], c[1])))
		if found := problems(err); len(found) != 1 || found[0].Target != profileObject+c[0] {
			t.Errorf("%v: %v", c, err)
		}
	}
	if _, _, err := s.do(t.Context(), "PUT", testCluster, full(`{"daemonset-eviction-for-occupied-nodes":true}`)); len(problems(err)) != 1 {
		t.Errorf("eviction of DaemonSets: %v", err)
	}
}

// Somebody who speaks for a control plane can't have a pool leave its bounds, nor
// nodes taken away that aren't the pool's to give.
func TestWishesAreBounded(t *testing.T) {
	auto := &poolDoc{poolState: poolState{Pool: Pool{Name: "np", AutoScale: true, Min: 1, Max: 3, Count: 2}, Nodes: []allotted{
		{Name: "n1", Address: netip.MustParseAddr("10.0.0.1")}, {Name: "n2", Surge: true}, {Name: "n3", Work: &work{Kind: rebootNode}}, {Name: "n4"}}}}
	for _, wish := range []controlplane.PoolWish{{Pool: "np", From: 1, Want: 3}, {Pool: "np", From: 2, Want: -1}, {Pool: "other", From: 2, Want: 3}, {Pool: "np", From: 2, Want: 1}} {
		if auto.grow(&controlplane.Scaling{Pools: []controlplane.PoolWish{wish}}) {
			t.Errorf("%+v is followed: %d", wish, auto.Pool.Count)
		}
	}
	auto.shrink(&controlplane.Scaling{Remove: []string{"n2", "n3", "n5", "n1", "n4"}}, time.Minute, time.Now())
	if auto.Pool.Count != 1 || auto.node("n1").Work == nil || auto.node("n2").Work != nil || auto.node("n3").Work.Kind != rebootNode || auto.node("n4").Work != nil {
		t.Errorf("%+v", auto.poolState)
	}
}
