// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"bastide.dev/arm"
	"bastide.dev/dataplane"
	"bastide.dev/host"
	"bastide.dev/instance"
	"bastide.dev/machine"
	"bastide.dev/network"
	"bastide.dev/node"
	"bastide.dev/reconcile"
	"bastide.dev/resource"
	"bastide.dev/store"
	"bastide.dev/store/memory"
	"bastide.dev/why"
)

const (
	testSubscription = "0b1f6471-1bf0-4dda-aec3-cb9272f09590"
	testGroup        = "/subscriptions/" + testSubscription + "/resourceGroups/rg"
)

// anyone may do anything here.
type anyone struct{}

func (anyone) Authenticate(context.Context, string) (arm.Principal, error) {
	return arm.Principal{ID: "p", Kind: "User", Name: "tester"}, nil
}

func (anyone) Authorize(context.Context, arm.Principal, string, resource.ID) error { return nil }

// diagnosed is the front door with networks and diagnostics, and a host that
// applies every unit and answers probes with result.
type diagnosed struct {
	t       *testing.T
	store   store.Store
	url     string
	client  *http.Client
	result  atomic.Value
	objects atomic.Int32 // how often they were asked for
}

func newDiagnosed(t *testing.T) *diagnosed {
	t.Helper()
	s := memory.New(0)
	log := slog.New(slog.DiscardHandler)
	networks, err := network.New(network.Config{Store: s, Log: log, Host: hostName, Location: "eastus", Domain: "bastide.internal",
		PublicPool: netip.MustParsePrefix("192.88.99.0/26"), FrontDoor: netip.MustParseAddr("192.88.99.1")})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(nil)
	d := &diagnosed{t: t, store: s, url: "https://" + server.Listener.Addr().String()}
	d.result.Store("connected")
	h, err := arm.New(arm.Config{Store: s, Authenticator: anyone{}, Authorizer: anyone{}, Tenant: arm.Tenant{ID: "t"}, Wait: 20 * time.Second,
		Providers:     append(networks.ARM(), newDiagnostics(&instance.Instance{Settings: instance.Settings{Name: "test"}}, s, networks)),
		Subscriptions: []arm.Subscription{{ID: testSubscription}}, Endpoints: arm.Endpoints{ResourceManager: d.url, Login: d.url}, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	server.Config.Handler = h
	server.StartTLS()
	d.client = server.Client()
	ctx, stop := context.WithCancel(context.Background())
	var group reconcile.Group
	group.Add("front door", h.Run)
	group.Add("networks", networks.Run)
	group.Add("host", d.host)
	ended := make(chan error, 1)
	go func() { ended <- group.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		server.Close()
	})
	d.call("PUT", testGroup+"?api-version=2021-04-01", `{"location":"eastus"}`, http.StatusCreated)
	return d
}

// host answers units as a host does.
func (d *diagnosed) host(ctx context.Context) error {
	prefix := "hosts/" + hostName + "/units/"
	for e := range d.store.Watch(ctx, prefix, 0) {
		kind, name, _ := strings.Cut(strings.TrimPrefix(e.Key, prefix), "/")
		if e.Deleted || kind == string(host.MachineUnit) {
			continue
		}
		report := host.Report{Kind: host.Kind(kind), Name: name, Generation: e.Revision, Applied: true}
		switch {
		case bytes.Equal(e.Value, host.Tombstone):
			report.Applied, report.Gone = false, true
		case report.Kind == host.VNetUnit:
			report.VNet = &dataplane.VNetStatus{ID: name, Digest: "another"}
		case report.Kind == host.QueryUnit:
			report.Answer = d.answer(e.Value)
		}
		value, err := json.Marshal(report)
		if err == nil {
			_, err = d.store.Put(ctx, host.ReportKey(hostName, report.Kind, name), value, store.Any)
		}
		if err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

func (d *diagnosed) answer(raw []byte) json.RawMessage {
	var q host.Query
	if err := json.Unmarshal(raw, &q); err != nil {
		d.t.Error(err)
	}
	var answer any = host.ProbeAnswer{Result: d.result.Load().(string), Source: "192.88.99.2:4711"}
	if q.Objects != nil {
		d.objects.Add(1)
		answer = json.RawMessage(`{"namespaces":{"items":[{"metadata":{"name":"a"}}]},"pods":{"items":[{"metadata":{"namespace":"a","name":"web","uid":"u"},"spec":{"nodeName":"n0"},
			"status":{"phase":"Running","podIPs":[{"ip":"10.244.0.9"}]}}]}}`)
	}
	text, err := json.Marshal(answer)
	if err != nil {
		d.t.Error(err)
	}
	return text
}

func (d *diagnosed) call(method, path, body string, want int) []byte {
	d.t.Helper()
	request, err := http.NewRequestWithContext(d.t.Context(), method, d.url+path, strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer x")
	answer, err := d.client.Do(request)
	if err != nil {
		d.t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != want {
		d.t.Fatalf("%s %s: %s, want %d: %s %v", method, path, answer.Status, want, text, err)
	}
	return text
}

func (d *diagnosed) ask(body string) why.Answer {
	d.t.Helper()
	var a why.Answer
	text := d.call("POST", "/subscriptions/"+testSubscription+"/providers/Bastide.Network/diagnostics/default/why?api-version="+ownVersion, body, http.StatusOK)
	if err := json.Unmarshal(text, &a); err != nil {
		d.t.Fatalf("%v: %s", err, text)
	}
	return a
}

// document puts a document there as another provider would.
func (d *diagnosed) document(id, body string, state any) {
	d.t.Helper()
	parsed := resource.MustParseID(id)
	raw, err := json.Marshal(state)
	if err != nil {
		d.t.Fatal(err)
	}
	change, err := arm.PutDocument(&arm.Document{Envelope: resource.Envelope{ID: parsed, Type: parsed.Type(), Name: parsed.Name(), Location: "eastus", Etag: "e",
		ProvisioningState: resource.Succeeded, Body: json.RawMessage(body), State: raw}})
	if err == nil {
		_, err = d.store.Txn(d.t.Context(), change)
	}
	if err != nil {
		d.t.Fatal(err)
	}
}

// jump makes a jump host with a public address whose group lets SSH in.
func (d *diagnosed) jump() {
	const provider, version = testGroup + "/providers/Microsoft.Network/", "?api-version=" + networkVersion
	d.call("PUT", provider+"networkSecurityGroups/g"+version, `{"location":"eastus","properties":{"securityRules":[{"name":"ssh","properties":{"priority":100,
		"access":"Allow","direction":"Inbound","protocol":"Tcp","sourceAddressPrefix":"Internet","sourcePortRange":"*","destinationAddressPrefix":"*","destinationPortRange":"22"}}]}}`, http.StatusCreated)
	d.call("PUT", provider+"virtualNetworks/v"+version, `{"location":"eastus","properties":{"addressSpace":{"addressPrefixes":["10.0.0.0/16"]},
		"subnets":[{"name":"s","properties":{"addressPrefix":"10.0.0.0/24"}}]}}`, http.StatusCreated)
	d.call("PUT", provider+"publicIPAddresses/p"+version, `{"location":"eastus","sku":{"name":"Standard"},"properties":{"publicIPAllocationMethod":"Static"}}`, http.StatusCreated)
	d.call("PUT", provider+"networkInterfaces/n"+version, `{"location":"eastus","properties":{"networkSecurityGroup":{"id":"`+provider+`networkSecurityGroups/g"},
		"ipConfigurations":[{"name":"c","properties":{"subnet":{"id":"`+provider+`virtualNetworks/v/subnets/s"},"publicIPAddress":{"id":"`+provider+`publicIPAddresses/p"}}}]}}`, http.StatusCreated)
	d.document(testGroup+"/providers/Microsoft.Compute/virtualMachines/jump",
		`{"properties":{"networkProfile":{"networkInterfaces":[{"id":"`+provider+`networkInterfaces/n"}]}}}`, network.InterfaceState{Machine: "m-jump"})
	for d.t.Context().Err() == nil { // the reconciler sees the document when it does
		found, err := units[dataplane.VNet](d.t.Context(), d.store, hostName, host.VNetUnit)
		if err != nil {
			d.t.Fatal(err)
		}
		if len(found) > 0 && len(found[0].NICs) > 0 {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func TestWhyOverTheFrontDoor(t *testing.T) {
	d := newDiagnosed(t)
	d.jump()
	const internet = `{"from":"internet","to":"vm/jump:22","probe":true}`
	refused := d.call("POST", "/subscriptions/"+testSubscription+"/providers/Bastide.Network/diagnostics/default/why?api-version="+ownVersion, internet, http.StatusBadRequest)
	if !strings.Contains(string(refused), "bastide outside create") {
		t.Errorf("without a terminal: %s", refused)
	}
	d.call("PUT", testGroup+"/providers/Bastide.Network/terminals/me?api-version="+ownVersion, `{}`, http.StatusCreated)

	a := d.ask(`{"from":"terminal/me","to":"vm/jump:22"}`)
	if a.Reachable != why.Yes || a.Rule != "nsg/rg/g/ssh" || !a.Stale || len(a.StaleAt) != 1 || a.StaleAt[0] != "vnet rg/v" || a.Probe != nil {
		t.Errorf("open port: %+v", a)
	}
	a = d.ask(internet)
	if a.Reachable != why.Yes || a.Probe == nil || !a.Probe.Agrees || a.Probe.Measured != "connected" || len(a.Notes) == 0 {
		t.Errorf("from the Internet, probed: %+v %+v", a, a.Probe)
	}
	d.result.Store("timeout")
	if a = d.ask(`{"from":"terminal/me","to":"vm/jump:23","probe":true}`); a.Reachable != why.No || !a.Probe.Agrees || a.Rule != "nsg/rg/g/DenyAllInBound" {
		t.Errorf("closed port: %+v %+v", a, a.Probe)
	}
	if a = d.ask(internet); a.Probe.Agrees {
		t.Errorf("a probe that finds something else agrees: %+v", a.Probe)
	}
	if d.objects.Load() != 0 {
		t.Error("a cluster was asked for its objects, and none is on the way")
	}
}

func TestWhyInACluster(t *testing.T) {
	d := newDiagnosed(t)
	d.jump()
	cluster := resource.MustParseID(testGroup + "/providers/Microsoft.ContainerService/managedClusters/one")
	change, err := network.ServerChange(cluster, &network.Server{Cluster: cluster, Namespace: "c1", Port: 443, Address: netip.MustParseAddr("10.0.0.5"),
		Subnet: resource.MustParseID(testGroup + "/providers/Microsoft.Network/virtualNetworks/v/subnets/s")})
	if err != nil {
		t.Fatal(err)
	}
	config, err := json.Marshal(node.Config{Hostname: "n0", Address: netip.MustParseAddr("10.0.0.4"), Network: node.PodNetwork{Plugin: "kubenet",
		Pods: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/24")}}, Policy: &node.Policy{}, ServiceCIDR: netip.MustParsePrefix("10.1.0.0/16")})
	if err != nil {
		t.Fatal(err)
	}
	unit, err := json.Marshal(machine.Spec{ID: "c1-0", Files: []machine.File{{Path: node.ConfigPath, Data: config}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.store.Txn(t.Context(), change, store.Change{Key: host.UnitKey(hostName, host.MachineUnit, "c1-0"), Value: unit, Revision: store.Any}); err != nil {
		t.Fatal(err)
	}
	a := d.ask(`{"from":"pod/a/web","to":"10.1.0.10:80"}`)
	if a.Reachable != why.No || a.Rule != "services/unallocatedAddress" || d.objects.Load() != 1 || a.Sender.PodUID != "u" {
		t.Errorf("objects asked for %d times: %+v", d.objects.Load(), a)
	}
	if a = d.ask(`{"from":"pod/a/web","to":"10.0.0.4:22"}`); a.Reachable != why.Yes || len(a.StaleAt) != 1 || a.StaleAt[0] != "node n0" {
		t.Errorf("the agent's table is another one: %+v", a)
	}
	for body, code := range map[string]int{`{"from":"pod/a/none","to":"internet:1"}`: http.StatusNotFound, `{"from":"cow"}`: http.StatusBadRequest, `{"what":1}`: http.StatusBadRequest} {
		d.call("POST", "/subscriptions/"+testSubscription+"/providers/Bastide.Network/diagnostics/default/why?api-version="+ownVersion, body, code)
	}
	d.call("GET", "/subscriptions/"+testSubscription+"/providers/Bastide.Network/diagnostics?api-version="+ownVersion, "", http.StatusOK)
	d.call("GET", "/subscriptions/"+testSubscription+"/providers/Bastide.Network/diagnostics/other?api-version="+ownVersion, "", http.StatusNotFound)
}
