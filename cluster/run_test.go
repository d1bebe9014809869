// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	aks "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"

	"bastide.dev/arm"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// The real loop, with its watches: nobody calls it, everything follows from documents and reports.
func TestRun(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- w.p.Run(ctx) }()
	answering := make(chan error, 1)
	go func() { answering <- answer(ctx, w) }()
	for _, s := range []struct{ method, path, body string }{
		{"PUT", testCluster, azBody(2)},
		{"PUT", testCluster + "/agentPools/np2", `{"properties":{"count":1}}`},
		{"POST", testCluster + "/stop", ""},
		{"POST", testCluster + "/start", ""},
		{"DELETE", testCluster + "/agentPools/np2", ""},
		{"DELETE", testCluster, ""},
	} {
		op, _, err := w.do(ctx, s.method, s.path, s.body)
		if err != nil {
			t.Fatalf("%s %s: %v", s.method, s.path, err)
		}
		started := time.Now()
		operation, err := w.p.ops.Wait(ctx, op)
		if err != nil || operation.Status != resource.Succeeded {
			t.Fatalf("%s %s: %+v, %v", s.method, s.path, operation, err)
		}
		if took := time.Since(started); took > 5*time.Second {
			t.Errorf("%s %s took %s", s.method, s.path, took)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := <-answering; err != nil {
		t.Error(err)
	}
	w.nothingLeft()
}

// A cluster made under a name that has just become free isn't forgotten with the old one.
func TestForgettingTheOldKeepsTheNew(t *testing.T) {
	r := newRunner(&Provider{Config: Config{Host: "h1"}})
	note := func(id string) {
		state, err := json.Marshal(clusterState{ID: id})
		if err != nil {
			t.Fatal(err)
		}
		change, err := arm.PutDocument(&arm.Document{Envelope: resource.Envelope{State: state, Operation: "op"}})
		if err != nil {
			t.Fatal(err)
		}
		r.busy("name", store.Record{Key: change.Key, Value: change.Value}, false)
		r.remember("name", store.Record{Key: change.Key, Value: change.Value})
	}
	note("cold")
	before := r.notes("name")
	note("cnew") // between the look that found nothing and its consequence
	r.settled("name", before)
	if r.owners["cnew"] != "name" || len(r.starting["name"]) != 1 {
		t.Errorf("owners %v, starting %v", r.owners, r.starting)
	}
	r.settled("name", r.notes("name"))
	if len(r.owners)+len(r.starting)+len(r.noted) != 0 {
		t.Errorf("not forgotten: %v %v %v", r.owners, r.starting, r.noted)
	}
}

// What waits for the network is woken by the network's report, a pool's operation too.
func TestNetworkReportsWakePools(t *testing.T) {
	w := newWorld(t)
	network := w.p.Network.(*fakeNetwork)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ended, answering := make(chan error, 1), make(chan error, 1)
	go func() { ended <- w.p.Run(ctx) }()
	go func() { answering <- answer(ctx, w) }()
	wait := func(op string) arm.Operation {
		t.Helper()
		operation, err := w.p.ops.Wait(ctx, op)
		if err != nil {
			t.Fatal(err)
		}
		return *operation
	}
	op, _, err := w.do(ctx, "PUT", testCluster, azBody(1))
	if err != nil || wait(op).Status != resource.Succeeded {
		t.Fatal(err)
	}
	network.say("a route is missing")
	if op, _, err = w.do(ctx, "PUT", testCluster+"/agentPools/np2", `{"properties":{"count":1}}`); err != nil {
		t.Fatal(err)
	}
	for busy := true; busy; { // until all else is there and nobody looks any more
		network.say("a route is missing")
		time.Sleep(300 * time.Millisecond)
		busy = network.asked()
	}
	network.say("")
	_, err = w.memory.Txn(ctx, store.Change{Key: "hosts/h1/reports/vnet/v1", Value: []byte(`{"kind":"vnet","name":"v1"}`), Revision: store.Any})
	if err != nil {
		t.Fatal(err)
	}
	if operation := wait(op); operation.Status != resource.Succeeded {
		t.Errorf("%+v", operation)
	}
	network.say("the network isn't gone")
	if op, _, err = w.do(ctx, "DELETE", testCluster, ""); err != nil {
		t.Fatal(err)
	}
	for busy := true; busy; {
		network.say("the network isn't gone")
		time.Sleep(300 * time.Millisecond)
		busy = network.asked()
	}
	network.say("")
	if _, err = w.memory.Txn(ctx, store.Change{Key: "hosts/h1/reports/vnet/v1", Revision: store.Any}); err != nil {
		t.Fatal(err)
	}
	if operation := wait(op); operation.Status != resource.Succeeded {
		t.Errorf("%+v", operation)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := <-answering; err != nil {
		t.Error(err)
	}
}

// answer lets the host answer whenever a unit changes.
func answer(ctx context.Context, w *world) error {
	_, revision, err := w.memory.List(ctx, "hosts/h1/units/")
	if err != nil {
		return err
	}
	for range w.memory.Watch(ctx, "hosts/h1/units/", revision) {
		for again := true; again && ctx.Err() == nil; {
			if again, err = w.host.Answer(ctx); err != nil && ctx.Err() == nil {
				return err
			}
		}
	}
	return nil
}

func TestCredentials(t *testing.T) {
	w := newWorld(t)
	w.must("PUT", testCluster, azBody(1), resource.Succeeded)
	for action, user := range map[string]string{"listClusterAdminCredential": "clusterAdmin_rg1_c1", "listClusterUserCredential": "clusterUser_rg1_c1"} {
		_, plan, err := w.do(t.Context(), "POST", testCluster+"/"+action, "")
		if err != nil {
			t.Fatal(err)
		}
		config := string(plan.Answer.(aks.CredentialResults).Kubeconfigs[0].Value)
		if !strings.Contains(config, user) || !strings.Contains(config, "https://"+w.state().FQDN+":443") || !strings.Contains(config, "client-key-data") {
			t.Errorf("%s gives\n%s", action, config)
		}
		raw, err := json.Marshal(plan.Answer)
		if err != nil || !strings.Contains(string(raw), base64.StdEncoding.EncodeToString([]byte(config))) {
			t.Errorf("%s isn't base64 on the wire: %s, %v", action, raw, err)
		}
	}
	if _, _, err := w.do(t.Context(), "POST", testCluster+"/runCommand", ""); problems(err) == nil || problems(err)[0].Code != "ActionNotSupported" {
		t.Errorf("runCommand: %v", err)
	}
	records, _, err := w.memory.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		sealed := strings.HasPrefix(r.Key, "secrets/") || strings.HasPrefix(r.Key, "hosts/h1/units/")
		if !sealed && strings.Contains(string(r.Value), "PRIVATE KEY") {
			t.Errorf("a private key is in %s", r.Key)
		}
	}
}

func TestCatalogueViews(t *testing.T) {
	w := newWorld(t)
	w.must("PUT", testCluster, azBody(1), resource.Succeeded)
	location := resource.SubscriptionID("0b1f6471-1bf0-4dda-aec3-cb9272f09590").Resource(Namespace, "locations", "East US")
	parent := w.document(t.Context(), resource.MustParseID(testCluster))
	poolParent := w.document(t.Context(), resource.MustParseID(testCluster+"/agentPools/nodepool1"))
	for name, c := range map[string]struct {
		call    func(context.Context, *arm.Request) (any, error)
		request arm.Request
		want    string
	}{
		"orchestrators":      {w.p.orchestrators, arm.Request{ID: location}, `"orchestratorVersion":"1.35.4","default":true,"upgrades":[{"orchestratorType":"Kubernetes","orchestratorVersion":"1.36.3"`},
		"kubernetesVersions": {w.p.kubernetesVersions, arm.Request{ID: location}, `"patchVersions":{"1.35.4":{"upgrades":["1.36.3"]}},"version":"1.35"`},
		"upgrades":           {w.p.clusterUpgrades, arm.Request{ID: parent.ID.Child("upgradeProfiles", "default"), Parent: parent}, `"kubernetesVersion":"1.35.4"`},
		"pool upgrades":      {w.p.poolUpgrades, arm.Request{ID: poolParent.ID.Child("upgradeProfiles", "default"), Parent: poolParent}, `"latestNodeImageVersion":"Debian-12.1"`},
		"pool versions":      {w.p.poolVersions, arm.Request{ID: parent.ID}, `"default":true,"isPreview":false,"kubernetesVersion":"1.35.4"`},
	} {
		answer, err := c.call(t.Context(), &c.request)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		raw, err := json.Marshal(answer)
		if err != nil || !strings.Contains(string(raw), c.want) {
			t.Errorf("%s: %s, %v\nwant %s", name, raw, err, c.want)
		}
	}
	elsewhere := arm.Request{ID: resource.SubscriptionID("s").Resource(Namespace, "locations", "westus")}
	if _, err := w.p.orchestrators(t.Context(), &elsewhere); err == nil {
		t.Error("another location has versions")
	}
}
