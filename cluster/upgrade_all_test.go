// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	sdk "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v6"

	"bastide.dev/arm"
	"bastide.dev/controlplane"
	"bastide.dev/fault"
	"bastide.dev/resource"
)

// az aks upgrade writes the version to the cluster and each pool. The control
// plane goes first, nodes follow with the newest image, a few at a time.
func TestUpgradeOfAll(t *testing.T) {
	w := newWorld(t)
	s := newShelf(w)
	w.must("PUT", testCluster, azBody(2), resource.Succeeded)
	w.must("PUT", testCluster+"/agentPools/np2", `{"properties":{"count":1,"upgradeSettings":{"maxSurge":"1"}}}`, resource.Succeeded)
	s.renew("12.2")
	refusing(w, "") // the control plane takes its time
	body := w.view(testCluster, testVersion)
	set(body, "properties.kubernetesVersion", "1.36.3")
	for _, pool := range get(body, "properties.agentPoolProfiles").([]any) {
		pool.(object)["orchestratorVersion"] = "1.36.3"
	}
	raw, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	op, _, err := w.do(t.Context(), "PUT", testCluster, string(raw))
	if err != nil {
		t.Fatal(err)
	}
	w.settle()
	w.ended(op, arm.InProgress)
	if n := len(w.host.Machines); n != 3 {
		t.Errorf("%d machines run before the control plane is upgraded, want 3", n)
	}
	for name, m := range w.host.Machines {
		if m.Image != "12.1" || m.Images != 0 {
			t.Errorf("machine %s was made anew before its control plane", name)
		}
	}
	for _, n := range w.host.Planes[w.state().ID].Nodes {
		if n.Leave != nil {
			t.Errorf("node %s is left before the control plane is upgraded", n.Name)
		}
	}
	w.host.Told = nil
	w.settle()
	w.ended(op, resource.Succeeded)
	for _, pool := range get(w.view(testCluster, testVersion), "properties.agentPoolProfiles").([]any) {
		for path, want := range map[string]any{"currentOrchestratorVersion": "1.36.3", "nodeImageVersion": "Debian-12.2", "provisioningState": "Succeeded"} {
			if got := get(pool.(object), path); got != want {
				t.Errorf("pool %v: %s is %v, want %v", get(pool.(object), "name"), path, got, want)
			}
		}
	}
	if n := len(w.host.Machines); n != 3 {
		t.Errorf("%d machines run, want 3", n)
	}
	for name, m := range w.host.Machines {
		if m.Image != "12.2" || !slices.Contains(m.Layers, "kubernetes@1.36.3") {
			t.Errorf("machine %s is made of %s, %v", name, m.Image, m.Layers)
		}
	}
	if all, err := ReadProgress(t.Context(), w.memory); err != nil || len(all) != 0 {
		t.Errorf("progress of what has ended: %+v, %v", all, err)
	}
	for _, n := range w.host.Planes[w.state().ID].Nodes {
		if n.Leave != nil {
			t.Errorf("node %s is still to be left", n.Name)
		}
	}
	w.must("DELETE", testCluster, "", resource.Succeeded)
	w.nothingLeft()
}

// The SDK upgrades a pool's image; meanwhile neither the pool nor the cluster can
// be asked for something else, and another pool can.
func TestUpgradesOfTheSDK(t *testing.T) {
	w, factory := service(t, 0)
	s := newShelf(w)
	ctx := t.Context()
	clusters, pools := factory.NewManagedClustersClient(), factory.NewAgentPoolsClient()
	model := sdk.ManagedCluster{Location: ptr("eastus"), Identity: &sdk.ManagedClusterIdentity{Type: ptr(sdk.ResourceIdentityTypeSystemAssigned)},
		Properties: &sdk.ManagedClusterProperties{DNSPrefix: ptr("c1"), AgentPoolProfiles: []*sdk.ManagedClusterAgentPoolProfile{
			{Name: ptr("a"), Count: ptr[int32](1), Mode: ptr(sdk.AgentPoolModeSystem)}, {Name: ptr("b"), Count: ptr[int32](1)}}}}
	done[sdk.ManagedClustersClientCreateOrUpdateResponse](t)(clusters.BeginCreateOrUpdate(ctx, "rg1", "c1", model, nil))
	s.renew("12.2")
	var held atomic.Bool
	held.Store(true)
	w.host.Drain = func(n controlplane.Node) controlplane.Left {
		if !held.Load() {
			return controlplane.Left{Since: n.Leave.Since, Phase: controlplane.LeftNode}
		}
		return controlplane.Left{Since: n.Leave.Since, Phase: controlplane.Leaving, Pods: 1, Held: "budget default/web"}
	}
	first, err := pools.BeginUpgradeNodeImageVersion(ctx, "rg1", "c1", "a", nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, again := range map[string]func() error{
		"the same": func() error { _, err := pools.BeginUpgradeNodeImageVersion(ctx, "rg1", "c1", "a", nil); return err },
		"the cluster": func() error {
			model.Properties.KubernetesVersion = ptr("1.36.3")
			_, err := clusters.BeginCreateOrUpdate(ctx, "rg1", "c1", model, nil)
			return err
		},
		"a scale of the pool": func() error {
			_, err := pools.BeginCreateOrUpdate(ctx, "rg1", "c1", "a", sdk.AgentPool{Properties: &sdk.ManagedClusterAgentPoolProfileProperties{Count: ptr[int32](2)}}, nil)
			return err
		},
	} {
		if err := again(); status(err) != http.StatusConflict || !strings.Contains(err.Error(), "OperationNotAllowed") {
			t.Errorf("%s: %v", name, err)
		}
	}
	held.Store(false) // the host looks again at the next change
	second, err := pools.BeginUpgradeNodeImageVersion(ctx, "rg1", "c1", "b", nil)
	if err != nil {
		t.Errorf("another pool: %v", err)
	}
	if pool := done[sdk.AgentPoolsClientUpgradeNodeImageVersionResponse](t)(first, nil); *pool.Properties.NodeImageVersion != "Debian-12.2" || *pool.Name != "a" {
		t.Errorf("the upgraded pool: %+v", pool.Properties)
	}
	done[sdk.AgentPoolsClientUpgradeNodeImageVersionResponse](t)(second, nil)
}

func TestStoppedClusterIsNotUpgraded(t *testing.T) {
	w := newWorld(t)
	newShelf(w)
	w.must("PUT", testCluster, azBody(2), resource.Succeeded)
	names := w.names(t)
	w.must("POST", testCluster+"/stop", "", resource.Succeeded)
	for method, path := range map[string]string{"PUT": testCluster, "POST": testPool + "/upgradeNodeImageVersion"} {
		body := ""
		if method == "PUT" {
			body = strings.Replace(versioned(t, "1.36.3", "1.36.3"), `"count":1`, `"count":2`, 1)
		}
		if _, _, err := w.do(t.Context(), method, path, body); !fault.Is(err, fault.Conflict) || fault.From(err).Code != "OperationNotAllowed" {
			t.Errorf("%s %s: %v", method, path, err)
		}
	}
	if _, err := w.begin(upgrade{ControlPlane: Version{1, 36, 3}}); !fault.Is(err, fault.Conflict) {
		t.Errorf("from inside: %v", err)
	}
	w.must("POST", testCluster+"/start", "", resource.Succeeded)
	if got := w.names(t); !slices.Equal(got, names) {
		t.Errorf("after the start the nodes are %v, before the stop %v", got, names)
	}
}

func (w *world) names(t *testing.T) []string {
	t.Helper()
	var names []string
	for _, pool := range w.load(t).pools {
		for _, n := range pool.Nodes {
			names = append(names, n.Name)
		}
	}
	return names
}

// begin starts an upgrade as the service does by itself.
func (w *world) begin(u upgrade) (string, error) {
	plan, err := w.p.planUpgrade(w.t.Context(), w.load(w.t), u)
	if err != nil || plan == nil {
		return "", err
	}
	return w.p.ops.Begin(w.t.Context(), arm.Beginning{Document: plan.Document, Children: plan.Children, State: plan.State, Version: testVersion})
}

func TestUpgradeFromInside(t *testing.T) {
	w := newWorld(t)
	s := newShelf(w)
	w.must("PUT", testCluster, azBody(1), resource.Succeeded)
	for name, u := range map[string]upgrade{
		"nothing":        {},
		"what is":        {ControlPlane: Version{1, 35, 4}, Pools: []poolUpgrade{{Name: "nodepool1", Version: Version{1, 35, 4}}}},
		"image that has": {Pools: []poolUpgrade{{Name: "nodepool1", Image: true}}},
	} {
		if op, err := w.begin(u); op != "" || err != nil {
			t.Errorf("%s: %q, %v", name, op, err)
		}
	}
	for name, u := range map[string]upgrade{
		"a version that isn't": {ControlPlane: Version{1, 36, 1}},
		"down":                 {ControlPlane: Version{1, 34, 4}},
		"pool ahead":           {Pools: []poolUpgrade{{Name: "nodepool1", Version: Version{1, 36, 3}}}},
		"pool that isn't":      {Pools: []poolUpgrade{{Name: "other", Image: true}}},
	} {
		if _, err := w.begin(u); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	op, err := w.begin(upgrade{ControlPlane: Version{1, 36, 3}})
	if err != nil || op == "" {
		t.Fatal(op, err)
	}
	if got := get(w.view(testCluster, testVersion), "properties.provisioningState"); got != "Upgrading" {
		t.Errorf("the cluster is %v", got)
	}
	w.settle()
	w.ended(op, resource.Succeeded)
	s.renew("12.2")
	if op, err = w.begin(upgrade{Pools: []poolUpgrade{{Name: "nodepool1", Version: Version{1, 36, 3}}}}); err != nil || op == "" {
		t.Fatal(op, err)
	}
	pool := w.load(t).pools[0]
	if pool.Pool.Version.String() != "1.36.3" || pool.Target.Image != "12.2" || pool.Operation != op {
		t.Errorf("the pool is to be %s of %v, in %s", pool.Pool.Version, pool.Target, pool.Operation)
	}
	if got := get(w.view(testPool, testVersion), "properties.orchestratorVersion"); got != "1.36.3" {
		t.Errorf("the pool's document says %v", got)
	}
}

// Documents from before pools had a target mean what they meant then.
func TestDocumentsOfBefore(t *testing.T) {
	old := `{"pool":{"Name":"a","Version":"1.35.4"},"next":2,"nodes":[{"name":"n0","number":0,"parts":{"image":"1","layers":["k"]}},{"name":"n1","number":1,"parts":{"image":"2","layers":["k"]}}]}`
	var s poolState
	if err := json.Unmarshal([]byte(old), &s); err != nil {
		t.Fatal(err)
	}
	s.adopt()
	if s.Target.Image != "2" || s.Nodes[0].Version.String() != "1.35.4" || s.image() != "Debian-1" || s.current().String() != "1.35.4" {
		t.Errorf("%+v", s)
	}
	before := s.Target
	s.Pool.Version = Version{1, 36, 3}
	s.adopt()
	if !s.Target.sameNode(before) || s.Nodes[0].Version.String() != "1.35.4" {
		t.Errorf("adopted twice: %+v", s)
	}
}

func TestUpgradeSettings(t *testing.T) {
	w := newWorld(t)
	w.must("PUT", testCluster, azBody(1), resource.Succeeded)
	settings := func() Upgrade { return w.load(t).pools[0].Pool.Upgrade }
	if settings() != (Upgrade{}) || settings().MaxSurge(10) != 1 || settings().MaxSurge(11) != 2 || settings().MaxUnavailable(10) != 0 || settings().DrainTimeout() != 30*time.Minute {
		t.Errorf("defaults: %+v", settings())
	}
	w.must("PUT", testPool, `{"properties":{"count":1,"upgradeSettings":{"maxSurge":"33%","maxUnavailable":"2","drainTimeoutInMinutes":5,"nodeSoakDurationInMinutes":7,"undrainableNodeBehavior":"cordon"}}}`, resource.Succeeded)
	want := Upgrade{Surge: "33%", Unavailable: "2", Drain: 5 * time.Minute, Soak: 7 * time.Minute, Cordon: true}
	if settings() != want || want.MaxSurge(4) != 2 || want.MaxUnavailable(4) != 2 {
		t.Errorf("%+v, want %+v", settings(), want)
	}
	if got := get(w.view(testPool, testVersion), "properties.upgradeSettings.undrainableNodeBehavior"); got != "Cordon" {
		t.Errorf("the pool says %v", got)
	}
	w.must("PUT", testPool, `{"properties":{"count":2}}`, resource.Succeeded)
	if settings() != want {
		t.Errorf("after a scale that says nothing of them: %+v", settings())
	}
	w.must("PUT", testPool, `{"properties":{"upgradeSettings":{"maxSurge":"10%","maxUnavailable":"0%","drainTimeoutInMinutes":30,"nodeSoakDurationInMinutes":0,"undrainableNodeBehavior":"Schedule"}}}`, resource.Succeeded)
	if settings() != (Upgrade{}) {
		t.Errorf("the defaults by name: %+v", settings())
	}
}

func FuzzAmount(f *testing.F) {
	for _, text := range []string{"1", "33%", "0", "%", "-1", "1e3", "99999999999999999999", "٣"} {
		f.Add(text, 10)
	}
	f.Fuzz(func(t *testing.T, text string, nodes int) {
		nodes = max(0, min(nodes, maxPerPool))
		ps := parser{}
		kept := ps.amount(text, defaultSurge, "x")
		n := amount(or(kept, defaultSurge), nodes)
		if n < 0 || n > maxPerPool || strings.HasSuffix(kept, "%") && n > nodes {
			t.Errorf("%q of %d nodes is %d", text, nodes, n)
		}
	})
}
