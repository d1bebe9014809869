// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"bastide.dev/arm"
	"bastide.dev/controlplane"
	"bastide.dev/host"
	"bastide.dev/resource"
	"bastide.dev/store"
)

const workPool = testCluster + "/agentPools/nodepool1"

// images is a catalogue whose node image becomes newer.
type images struct {
	catalogue
	image string
}

func (c *images) Parts(version string) (Parts, error) {
	parts, err := c.catalogue.Parts(version)
	parts.Image = c.image
	return parts, err
}

// fleet is a world with a clock, in which pools are rolled.
type fleet struct {
	*world
	images *images
	clock  time.Time
}

// newFleet is a cluster with one pool of so many nodes, and a newer node image.
func newFleet(t *testing.T, nodes int) *fleet {
	t.Helper()
	f := &fleet{world: newWorld(t), images: &images{catalogue{"1.36.3", "1.35.4"}, "12.1"}, clock: time.Now()}
	f.wire()
	f.must("PUT", testCluster, azBody(nodes), resource.Succeeded)
	f.images.image = "12.2"
	return f
}

func (f *fleet) wire() {
	f.p.Catalogue = f.images
	f.p.Now = func() time.Time { return f.clock }
	f.p.ops = arm.NewOperations(f.p.Store, f.p.Now)
}

func (f *fleet) pool(path string) *poolDoc {
	f.t.Helper()
	d, err := arm.GetDocument(f.t.Context(), f.memory, resource.MustParseID(path))
	if err != nil {
		f.t.Fatal(err)
	}
	pool := &poolDoc{Document: d}
	if err := json.Unmarshal(d.State, &pool.poolState); err != nil {
		f.t.Fatal(err)
	}
	return pool
}

// begin sends a request that starts an operation.
func (f *fleet) begin(method, path, body string) string {
	f.t.Helper()
	op, plan, err := f.do(f.t.Context(), method, path, body)
	if err != nil {
		f.t.Fatalf("%s %s: %v", method, path, err)
	}
	if !plan.Async {
		f.t.Fatalf("%s %s starts no operation", method, path)
	}
	return op
}

// next lets reconciler and host take one turn each, and time pass when neither
// had anything to do. It holds what has to be true at any moment.
func (f *fleet) next(pass time.Duration) error {
	again, err := f.step(f.t.Context())
	if err != nil {
		return err
	}
	f.holds()
	if !again {
		f.clock = f.clock.Add(pass)
	}
	return nil
}

// holds is what is true of the pool at any moment: enough nodes take pods, and
// there are no more than count and surge.
func (f *fleet) holds() {
	f.t.Helper()
	pool := f.pool(workPool)
	serving, live := 0, 0
	for i := range pool.Nodes {
		n := &pool.Nodes[i]
		if n.Removed {
			continue
		}
		live++
		status := f.host.Nodes[f.state().ID][n.Name]
		if pool.leave(n) == nil && status != "" && (n.Work == nil || n.Work.Step == workWaits || n.Work.Step == workSoaks || n.Work.Error != "") {
			serving++
		}
	}
	u, count := pool.Pool.Upgrade, pool.want()
	if limit := count + 2*u.MaxSurge(count); live > limit && pool.ProvisioningState != resource.Deleting && u.Cordon || live > limit+count {
		f.t.Fatalf("%d nodes of %d", live, count)
	}
	if pool.ProvisioningState != resource.Deleting && pool.ProvisioningState != resource.Creating && serving < count-u.MaxUnavailable(count) && len(pool.Nodes) >= count && !f.failing() {
		f.t.Fatalf("%d of %d nodes serve: %s", serving, count, f.works())
	}
}

// failing tells whether the test makes machines fail.
func (f *fleet) failing() bool { return f.host.Fail != nil }

// works are the works on the pool's nodes, for messages.
func (f *fleet) works() string {
	var all []string
	for _, n := range f.pool(workPool).Nodes {
		text := n.Name
		if n.Work != nil {
			text += fmt.Sprintf(" %s %s %s", n.Work.Kind, n.Work.Step, n.Work.Error)
		}
		all = append(all, text)
	}
	return strings.Join(all, ", ")
}

// end lets time pass until an operation has ended.
func (f *fleet) end(op string, want resource.State) *arm.Operation {
	f.t.Helper()
	for range 3000 {
		if err := f.next(7 * time.Second); err != nil {
			f.t.Fatal(err)
		}
		operation, err := f.p.ops.Get(f.t.Context(), op)
		if err != nil {
			f.t.Fatal(err)
		}
		if operation.Done() {
			f.ended(op, want)
			return operation
		}
	}
	f.t.Fatalf("the operation doesn't end: %s", f.works())
	return nil
}

// rest is what a pool looks like when nothing is going on.
func (f *fleet) rest(nodes int, image string) {
	f.t.Helper()
	f.settle()
	pool := f.pool(workPool)
	if len(pool.Nodes) != nodes {
		f.t.Errorf("%d nodes, want %d", len(pool.Nodes), nodes)
	}
	for _, n := range pool.Nodes {
		if n.Work != nil || n.Surge || n.Removed || image != "" && n.Parts.Image != image {
			f.t.Errorf("node %+v work %+v", n, n.Work)
		}
	}
	for _, n := range f.host.Planes[f.state().ID].Nodes {
		if n.Leave != nil {
			f.t.Errorf("node %s is still to be left", n.Name)
		}
	}
}

// A newer node image reaches every node, in place, with a surge node meanwhile.
func TestRollInPlace(t *testing.T) {
	f := newFleet(t, 3)
	before := f.names(t)
	most := 0
	op := f.begin("POST", workPool+"/upgradeNodeImageVersion", "")
	for done := false; !done; {
		if err := f.next(time.Second); err != nil {
			t.Fatal(err)
		}
		most = max(most, len(f.host.Machines))
		operation, err := f.p.ops.Get(t.Context(), op)
		if err != nil {
			t.Fatal(err)
		}
		done = operation.Done()
	}
	f.ended(op, resource.Succeeded)
	f.rest(3, "12.2")
	if most != 4 {
		t.Errorf("there were %d machines at most, want 4", most)
	}
	if after := f.names(t); strings.Join(after, " ") != strings.Join(before, " ") {
		t.Errorf("nodes are %v, were %v", after, before)
	}
	for id, m := range f.host.Machines {
		if m.Images != 1 || m.Image != "12.2" {
			t.Errorf("machine %s: %d times made anew, of image %s", id, m.Images, m.Image)
		}
	}
}

// The control plane goes first; no kubelet is newer than it at any moment.
func TestPoolsFollowTheControlPlane(t *testing.T) {
	f := newFleet(t, 2)
	op := f.begin("PUT", testCluster, strings.NewReplacer(`"kubernetesVersion":""`, `"kubernetesVersion":"1.36.3"`,
		`"orchestratorVersion":""`, `"orchestratorVersion":"1.36.3"`).Replace(azBody(2)))
	f.end(op, resource.Succeeded)
	f.rest(2, "12.2")
	for name, version := range f.host.Nodes[f.state().ID] {
		if version != "v1.36.3" {
			t.Errorf("node %s runs %s", name, version)
		}
	}
}

// held makes the drain of one node end at its timeout, as a budget does that never allows it.
func (f *fleet) held(name string) {
	f.host.Drain = func(n controlplane.Node) controlplane.Left {
		left := controlplane.Left{Since: n.Leave.Since, Phase: controlplane.LeftNode}
		switch {
		case n.Name != name || !n.Leave.Drain:
		case f.clock.Sub(n.Leave.Since) < n.Leave.Timeout:
			left.Phase, left.Pods, left.Held = controlplane.Leaving, 1, "budget default/web"
		case !n.Leave.Force:
			left.Phase, left.Error = controlplane.LeaveFailed, "pod default/web-1 is held by budget default/web"
		}
		return left
	}
}

// A budget that never allows it: the node is scheduled to again, the upgrade
// fails and says why; asked again later, it goes on from there.
func TestBudgetThatNeverAllows(t *testing.T) {
	f := newFleet(t, 3)
	f.held(f.names(t)[1])
	operation := f.end(f.begin("POST", workPool+"/upgradeNodeImageVersion", ""), resource.Failed)
	if operation.Error.Code != "UpgradeFailed" || !strings.Contains(operation.Error.Message, "budget default/web") {
		t.Errorf("%+v", operation.Error)
	}
	f.settle()
	outdated := 0
	for _, n := range f.pool(workPool).Nodes {
		if n.Parts.Image == "12.1" {
			outdated++
		}
		if n.Surge {
			t.Errorf("surge node %s is left", n.Name)
		}
	}
	if outdated != 2 {
		t.Errorf("%d nodes are outdated, want the held one and the one after it", outdated)
	}
	for _, n := range f.host.Planes[f.state().ID].Nodes {
		if n.Leave != nil {
			t.Errorf("node %s stays cordoned", n.Name)
		}
	}
	f.host.Drain = nil
	f.end(f.begin("POST", workPool+"/upgradeNodeImageVersion", ""), resource.Succeeded)
	f.rest(3, "12.2")
}

// With Cordon the node stays cordoned, a surge node stays in its place, and the
// others are upgraded.
func TestUndrainableNodeIsQuarantined(t *testing.T) {
	f := newFleet(t, 3)
	f.must("PUT", workPool, `{"properties":{"count":3,"upgradeSettings":{"maxSurge":"1","undrainableNodeBehavior":"Cordon"}}}`, resource.Succeeded)
	victim := f.names(t)[1]
	f.held(victim)
	f.end(f.begin("POST", workPool+"/upgradeNodeImageVersion", ""), resource.Failed)
	f.settle()
	surges := 0
	for _, n := range f.pool(workPool).Nodes {
		switch {
		case n.Surge:
			surges++
		case (n.Name == victim) != (n.Parts.Image == "12.1"):
			t.Errorf("node %s is of image %s", n.Name, n.Parts.Image)
		}
	}
	if surges != 1 {
		t.Errorf("%d surge nodes, want 1", surges)
	}
	for _, n := range f.host.Planes[f.state().ID].Nodes {
		if (n.Leave != nil) != (n.Name == victim) {
			t.Errorf("node %s: %+v", n.Name, n.Leave)
		}
	}
	f.host.Drain = nil
	f.end(f.begin("POST", workPool+"/upgradeNodeImageVersion", ""), resource.Succeeded)
	f.rest(3, "12.2")
}

// An image that doesn't boot stops the roll after one node; the others stay as they are.
func TestImageThatDoesNotBoot(t *testing.T) {
	f := newFleet(t, 3)
	f.must("PUT", workPool, `{"properties":{"count":3,"upgradeSettings":{"maxSurge":"0","maxUnavailable":"1"}}}`, resource.Succeeded)
	first := f.pool(workPool).Nodes[0].Machine
	f.host.Fail = func(kind host.Kind, name string) string {
		if kind == host.MachineUnit && name == first && f.pool(workPool).Nodes[0].Images > 0 {
			return "there is no init in the image"
		}
		return ""
	}
	operation := f.end(f.begin("POST", workPool+"/upgradeNodeImageVersion", ""), resource.Failed)
	if !strings.Contains(operation.Error.Message, "no init in the image") {
		t.Errorf("%+v", operation.Error)
	}
	for _, n := range f.pool(workPool).Nodes[1:] {
		if n.Parts.Image != "12.1" || n.Work != nil {
			t.Errorf("node %s was touched: %+v", n.Name, n.Work)
		}
	}
	f.host.Fail = nil
	f.end(f.begin("POST", workPool+"/upgradeNodeImageVersion", ""), resource.Succeeded)
	f.rest(3, "12.2")
}

// Nodes that are scaled away are drained first; a budget keeps them, unless a
// deletion says that budgets don't count.
func TestScaleDownDrains(t *testing.T) {
	f := newFleet(t, 2)
	np2 := testCluster + "/agentPools/np2"
	f.must("PUT", np2, `{"properties":{"count":3,"mode":"User"}}`, resource.Succeeded)
	last := f.pool(np2).Nodes[2].Name
	asked := 0
	f.host.Drain = func(n controlplane.Node) controlplane.Left {
		asked++
		return controlplane.Left{Since: n.Leave.Since, Phase: controlplane.LeftNode}
	}
	f.end(f.begin("PUT", np2, `{"properties":{"count":2}}`), resource.Succeeded)
	if pool := f.pool(np2); asked == 0 || len(pool.Nodes) != 2 || pool.Nodes[1].Name == last {
		t.Errorf("drained %d times; left are %v", asked, pool.Nodes)
	}
	f.held(f.pool(np2).Nodes[0].Name)
	operation := f.end(f.begin("DELETE", np2, ""), resource.Failed)
	if operation.Error.Code != "PodDrainFailure" {
		t.Errorf("%+v", operation.Error)
	}
	f.settle()
	for _, n := range f.pool(np2).Nodes {
		if n.Work != nil {
			t.Errorf("after the deletion failed: %s has %+v", n.Name, n.Work)
		}
	}
	op, _, err := f.ask("DELETE", np2, "", map[string]string{"ignore-pod-disruption-budget": "true"})
	if err != nil {
		t.Fatal(err)
	}
	f.end(op, resource.Succeeded)
}

// An abort gives back what is being left, finishes what was begun, and ends both operations.
func TestAbort(t *testing.T) {
	f := newFleet(t, 3)
	f.held(f.names(t)[1])
	op := f.begin("POST", workPool+"/upgradeNodeImageVersion", "")
	for f.pool(workPool).Nodes[1].Work == nil {
		if err := f.next(time.Second); err != nil {
			t.Fatal(err)
		}
	}
	abort := f.begin("POST", workPool+"/abort", "")
	if pool := f.pool(workPool); pool.Operation != op || pool.ProvisioningState != canceling {
		t.Errorf("the pool's operation is %s, its state %s", pool.Operation, pool.ProvisioningState)
	}
	f.end(op, resource.Canceled)
	f.end(abort, resource.Succeeded)
	f.host.Drain = nil
	f.rest(3, "")
	if pool := f.pool(workPool); pool.ProvisioningState != resource.Canceled || pool.Nodes[1].Parts.Image != "12.1" || pool.Nodes[0].Parts.Image != "12.2" {
		t.Errorf("%s: %+v", pool.ProvisioningState, pool.Nodes)
	}
	if _, _, err := f.do(t.Context(), "POST", workPool+"/abort", ""); err == nil {
		t.Error("what doesn't run was aborted")
	}
	f.end(f.begin("POST", workPool+"/upgradeNodeImageVersion", ""), resource.Succeeded)
	f.rest(3, "12.2")
	scale := f.begin("PUT", workPool, `{"properties":{"count":4}}`)
	if _, _, err := f.do(t.Context(), "POST", workPool+"/abort", ""); err == nil {
		t.Error("a scale was aborted")
	}
	f.end(scale, resource.Succeeded)
}

// Before a node is made anew, no load balancer leads to it any more.
func TestLoadBalancersAreLeftFirst(t *testing.T) {
	f := newFleet(t, 2)
	w := f.load(t)
	pool := w.balancerID().Child("backendAddressPools", servicePool).String()
	f.edit(w.balancerID(), func(body object) {
		set(body, "properties.loadBalancingRules", []any{named("r", object{"backendAddressPool": object{"id": pool}})})
	})
	op := f.begin("POST", workPool+"/upgradeNodeImageVersion", "")
	victim := f.pool(workPool).Nodes[0]
	for range 100 {
		if err := f.next(10 * time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
	if n := f.pool(workPool).Nodes[0]; n.Work == nil || n.Work.Step != workLeaves {
		t.Fatalf("a balancer leads to it, and it is %+v", n.Work)
	}
	id := w.instance("nodepool1", victim.Number)
	out := ref(w.balancerID().Child("backendAddressPools", outboundPool))
	f.edit(id, func(body object) {
		nic := get(body, "properties.networkProfileConfiguration.networkInterfaceConfigurations").([]any)[0].(object)
		config := get(nic, "properties.ipConfigurations").([]any)[0].(object)
		set(config, "properties.loadBalancerBackendAddressPools", []any{out})
	})
	left := f.clock
	for f.pool(workPool).Nodes[0].Images == 0 {
		if err := f.next(10 * time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
	if took := f.clock.Sub(left); took < connectionPause || took > 2*connectionPause {
		t.Errorf("it was made anew %s after the balancers left it", took)
	}
	f.end(op, resource.Succeeded)
}

// edit changes a document as others do.
func (f *fleet) edit(id resource.ID, change func(object)) {
	f.t.Helper()
	d, err := arm.GetDocument(f.t.Context(), f.memory, id)
	if err != nil {
		f.t.Fatal(err)
	}
	var body object
	if err := json.Unmarshal(d.Body, &body); err != nil {
		f.t.Fatal(err)
	}
	change(body)
	if err := d.SetBody(body); err != nil {
		f.t.Fatal(err)
	}
	put, err := arm.PutDocument(d)
	if err != nil {
		f.t.Fatal(err)
	}
	if _, err := f.memory.Txn(f.t.Context(), put); err != nil {
		f.t.Fatal(err)
	}
}

// Whatever write serve is killed at during a whole roll, before it or after it: a
// new one goes on, and in the end every node is there, and none is cordoned.
func TestRollKilledAtEveryWrite(t *testing.T) {
	deaths := 0
	for _, after := range []bool{false, true} {
		for n := 1; ; n++ {
			f := newFleet(t, 2)
			k := &killer{Store: f.memory, left: n, after: after}
			op := f.begin("POST", workPool+"/upgradeNodeImageVersion", "")
			f.restart(k)
			f.wire()
			died := f.endThrough(k, op)
			f.restart(f.memory)
			f.wire()
			f.ended(op, resource.Succeeded)
			f.rest(2, "12.2")
			for id, m := range f.host.Machines {
				if m.Images != 1 {
					t.Fatalf("killed at write %d: machine %s was made anew %d times", n, id, m.Images)
				}
			}
			if !died {
				break
			}
			deaths++
		}
	}
	if deaths < 30 {
		t.Errorf("only %d writes were there to be killed at", deaths)
	}
	t.Logf("%d kills", deaths)
}

// Killed again and again, at random.
func TestRollKilledAtRandom(t *testing.T) {
	for seed := range 100 {
		f := newFleet(t, 3)
		op := f.begin("POST", workPool+"/upgradeNodeImageVersion", "")
		for kill := 0; ; kill++ {
			k := &killer{Store: f.memory, left: 1 + (seed*7+kill*kill*3)%11, after: (seed+kill)%2 == 0}
			f.restart(k)
			f.wire()
			if !f.until(op) {
				break
			}
		}
		f.restart(f.memory)
		f.wire()
		f.ended(op, resource.Succeeded)
		f.rest(3, "12.2")
	}
}

// until lets time pass until an operation has ended; true: it was killed before.
func (f *fleet) until(op string) bool {
	f.t.Helper()
	for range 2000 {
		err := f.next(3 * time.Second)
		if errors.Is(err, errKilled) {
			return true
		}
		if err != nil {
			f.t.Fatal(err)
		}
		if operation, err := f.p.ops.Get(f.t.Context(), op); err == nil && operation.Done() {
			return false
		}
	}
	f.t.Fatalf("the operation doesn't end: %s", f.works())
	return false
}

func (f *fleet) endThrough(k store.Store, op string) (died bool) {
	for f.until(op) {
		died = true
		f.restart(k)
		f.wire()
	}
	return died
}

// A report that lacks a node whose machine runs says nothing about that node: it
// isn't taken for one that serves nobody.
func TestReportsThatLackNodes(t *testing.T) {
	f := newFleet(t, 3)
	lost := f.names(t)[2]
	f.host.Told = func(status *controlplane.Status) {
		status.Nodes = slices.DeleteFunc(status.Nodes, func(n controlplane.NodeStatus) bool { return n.Name == lost })
	}
	op := f.begin("POST", workPool+"/upgradeNodeImageVersion", "")
	for range 30 {
		if err := f.next(time.Second); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range f.pool(workPool).Nodes {
		if n.Work != nil || n.Images > 0 {
			t.Errorf("node %s is worked on: %+v", n.Name, n.Work)
		}
	}
	f.host.Told = nil
	f.end(op, resource.Succeeded)
	f.rest(3, "12.2")
}

// Where there is no room for a surge node the upgrade fails and says so, and
// nothing else is held up by it.
func TestNoRoomForSurge(t *testing.T) {
	f := &fleet{world: newWorld(t), images: &images{catalogue{"1.36.3", "1.35.4"}, "12.1"}, clock: time.Now()}
	f.wire()
	f.must("PUT", testCluster, strings.Replace(azBody(2), "10.244.0.0/16", "10.244.0.0/23", 1), resource.Succeeded)
	f.images.image = "12.2"
	operation := f.end(f.begin("POST", workPool+"/upgradeNodeImageVersion", ""), resource.Failed)
	if operation.Error.Code != "InsufficientSubnetSize" || !strings.Contains(operation.Error.Message, "surge node") {
		t.Errorf("%+v", operation.Error)
	}
	f.rest(2, "12.1")
	f.end(f.begin("PUT", workPool, `{"properties":{"count":2,"upgradeSettings":{"maxSurge":"0","maxUnavailable":"1"}}}`), resource.Succeeded)
	f.rest(2, "12.2") // asked again, with settings that need no room
}
