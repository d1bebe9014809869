// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"bastide.dev/arm"
	"bastide.dev/dataplane"
	"bastide.dev/fault"
	"bastide.dev/host"
	"bastide.dev/host/hosttest"
	"bastide.dev/resource"
	"bastide.dev/ruleset"
	"bastide.dev/store"
	"bastide.dev/store/memory"
)

// runWorld is the front door with this provider's reconciler and a host without a machine.
type runWorld struct {
	*edgeWorld

	mu      sync.Mutex // guards what follows
	clock   time.Duration
	trouble map[string]string // by unit
	away    bool              // the host doesn't answer
	kick    chan struct{}
	host    *hosttest.Host
}

func newRun(t *testing.T) *runWorld {
	t.Helper()
	w := &runWorld{trouble: map[string]string{}, kick: make(chan struct{}, 1)}
	s := memory.New(0)
	p, err := New(Config{Store: s, Log: slog.New(slog.DiscardHandler), Host: "h1", Location: "eastus", Domain: "bastide.internal",
		PublicPool: netip.MustParsePrefix("192.88.99.0/26"), FrontDoor: netip.MustParseAddr("192.88.99.1"), Now: w.now})
	if err != nil {
		t.Fatal(err)
	}
	w.edgeWorld = &edgeWorld{t: t, store: s, p: p, server: httptest.NewUnstartedServer(nil)}
	url := "https://" + w.server.Listener.Addr().String()
	h, err := arm.New(arm.Config{Store: s, Authenticator: edgeAnyone{}, Authorizer: edgeAnyone{}, Providers: p.ARM(), Tenant: arm.Tenant{ID: "t1"},
		Subscriptions: []arm.Subscription{{ID: edgeSub, DisplayName: "test"}},
		Endpoints:     arm.Endpoints{ResourceManager: url, Login: url}, Logger: slog.New(slog.DiscardHandler), Wait: 3 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	w.server.Config.Handler = h
	w.server.StartTLS()
	t.Cleanup(w.server.Close)
	w.host = hosttest.New(s, "h1")
	w.host.Queries = w.counters
	w.host.Fail = func(_ host.Kind, name string) string { return w.trouble[name] }
	w.document(edgeGroup, `{}`, nil)
	w.start(h.Run)
	w.start(p.Run)
	w.start(w.answer)
	return w
}

// start runs a component until the test ends, or until the function it returns is called.
func (w *runWorld) start(run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	})
	w.t.Cleanup(stop)
	return stop
}

func (w *runWorld) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Now().Add(w.clock)
}

// answer applies units as they come, questions too.
func (w *runWorld) answer(ctx context.Context) error {
	units := w.store.Watch(ctx, "hosts/h1/units/", 0)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-units:
		case <-w.kick:
		}
		w.mu.Lock()
		var err error
		if !w.away {
			_, err = w.host.Answer(ctx)
		}
		w.mu.Unlock()
		if err != nil && ctx.Err() == nil {
			return err
		}
	}
}

// counters answers a question for counters: one packet for each rule of the
// network. The host calls it, with mu held.
func (w *runWorld) counters(q host.Query) (any, error) {
	if q.Counters == nil {
		return nil, errors.New("no such question")
	}
	vnet, known := w.host.VNets[q.Counters.VNet]
	if !known {
		return nil, errors.New("no such network")
	}
	var counters []ruleset.Counter
	for _, g := range vnet.NSGs {
		for _, r := range g.Rules {
			counters = append(counters, ruleset.Counter{Origin: "nsg/" + g.ID + "/" + r.Name, Packets: 1, Bytes: 60})
		}
	}
	return counters, nil
}

// set changes the host's behaviour.
func (w *runWorld) set(change func()) {
	w.mu.Lock()
	change()
	w.mu.Unlock()
	w.kick <- struct{}{}
}

func (w *runWorld) vnet(id string) (dataplane.VNet, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	v, ok := w.host.VNets[VNetID(resource.MustParseID(id))]
	return v, ok
}

// until waits for a condition.
func (w *runWorld) until(what string, met func() bool) {
	w.t.Helper()
	for end := time.Now().Add(5 * time.Second); !met(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("never: %s", what)
		}
	}
}

func (w *runWorld) waiting(id string) string {
	w.t.Helper()
	text, err := w.p.Waiting(w.t.Context(), resource.MustParseID(id))
	if err != nil {
		w.t.Fatal(err)
	}
	return text
}

const (
	runVNet  = edgeNetwork + "virtualNetworks/run"
	runGroup = edgeNetwork + "networkSecurityGroups/g"
)

func (w *runWorld) network() {
	w.must("PUT", runGroup, `{"location":"eastus","properties":{"securityRules":[]}}`)
	w.must("PUT", runVNet, `{"location":"eastus","properties":{"addressSpace":{"addressPrefixes":["10.7.0.0/16"]},"subnets":[
		{"name":"a","properties":{"addressPrefix":"10.7.0.0/24","networkSecurityGroup":{"id":"`+runGroup+`"}}}]}}`)
}

func webRule(priority string) string {
	return `{"properties":{"priority":` + priority + `,"direction":"Inbound","access":"Allow","protocol":"Tcp","sourceAddressPrefix":"Internet",
		"sourcePortRange":"*","destinationAddressPrefix":"*","destinationPortRange":"80"}}`
}

func hasRule(v dataplane.VNet, name string) bool {
	return slices.ContainsFunc(v.NSGs, func(g dataplane.NSG) bool {
		return slices.ContainsFunc(g.Rules, func(r dataplane.NSGRule) bool { return r.Name == name })
	})
}

// Success means that the host has it.
func TestRunEndsOperationsWhenApplied(t *testing.T) {
	w := newRun(t)
	w.network()
	if v, there := w.vnet(runVNet); !there || len(v.NSGs) != 1 {
		t.Fatalf("the network succeeded, and the host has %v, %v", v, there)
	}
	start := time.Now()
	w.must("PUT", runGroup+"/securityRules/web", webRule("100"))
	t.Logf("PUT of a rule to its success: %s", time.Since(start))
	if v, _ := w.vnet(runVNet); !hasRule(v, "web") {
		t.Error("the rule succeeded, and the host hasn't got it")
	}
	if text := w.waiting(runVNet); text != "" {
		t.Errorf("all is applied, and yet: %s", text)
	}
	w.set(func() { w.away = true })
	answer := make(chan edgeAnswer, 1)
	go func() { answer <- w.do("PUT", runGroup+"/securityRules/more", webRule("110")) }()
	w.until("the change waits", func() bool { return strings.Contains(w.waiting(runVNet), "isn't in place") })
	time.Sleep(50 * time.Millisecond)
	select {
	case a := <-answer:
		t.Fatalf("without the host: %s", a.text)
	default:
	}
	w.set(func() { w.away = false })
	if a := <-answer; a.get("properties", "provisioningState") != "Succeeded" {
		t.Errorf("%d %s", a.code, a.text)
	}
}

// What is deleted leaves the host first, and its document after.
func TestRunDeletes(t *testing.T) {
	w := newRun(t)
	w.network()
	w.must("DELETE", runVNet, "")
	w.until("the network is gone", func() bool {
		_, err := w.store.Get(t.Context(), arm.DocumentKey(resource.MustParseID(runVNet)))
		return fault.Is(err, fault.NotFound)
	})
	if _, there := w.vnet(runVNet); there {
		t.Error("the document went before the network")
	}
	w.until("its unit is forgotten", func() bool { return len(w.keys("hosts/h1/units/vnet/")) == 0 })
	if left := w.keys("hosts/h1/reports/vnet/"); len(left) > 0 || w.waiting(runVNet) != "" {
		t.Errorf("left: %v, %q", left, w.waiting(runVNet))
	}
	w.must("DELETE", runGroup, "")
}

// An error that lasts fails the operation, with the host's text; one of another network doesn't.
func TestRunFailsOfLastingErrors(t *testing.T) {
	w := newRun(t)
	w.network()
	other := edgeNetwork + "virtualNetworks/other"
	w.must("PUT", other, `{"location":"eastus","properties":{"addressSpace":{"addressPrefixes":["10.8.0.0/16"]}}}`)
	w.set(func() { w.trouble[VNetID(resource.MustParseID(runVNet))] = "no room in the kernel" })
	answer := make(chan edgeAnswer, 1)
	go func() { answer <- w.do("PUT", runGroup+"/securityRules/web", webRule("100")) }()
	unit := host.UnitKey("h1", host.VNetUnit, VNetID(resource.MustParseID(runVNet)))
	w.until("the error is reported", func() bool {
		record, err := w.store.Get(t.Context(), unit)
		return err == nil && strings.Contains(string(record.Value), `"web"`) && strings.Contains(w.waiting(runVNet), "no room")
	})
	w.must("PUT", other, `{"location":"eastus","properties":{"addressSpace":{"addressPrefixes":["10.8.0.0/16","10.9.0.0/16"]}}}`)
	select {
	case a := <-answer:
		t.Fatalf("at once: %s", a.text)
	default:
	}
	w.set(func() { w.clock = patience + time.Second })
	w.must("PUT", other, `{"location":"eastus","properties":{"addressSpace":{"addressPrefixes":["10.8.0.0/16"]}}}`) // an event
	a := <-answer
	if group := w.do("GET", runGroup, ""); group.get("properties", "provisioningState") != "Failed" {
		t.Errorf("the operation: %d %s, the group: %s", a.code, a.text, group.text)
	}
	w.set(func() { clear(w.trouble) })
	w.must("PUT", runGroup+"/securityRules/web", webRule("100"))
}

// Killed between a write and its answer, it goes on where it was.
func TestRunAfterAStop(t *testing.T) {
	w := newRun(t)
	w.network()
	w.set(func() { w.away = true })
	answer := make(chan edgeAnswer, 1)
	stop := w.start(w.p.Run) // two may run at once
	go func() { answer <- w.do("PUT", runGroup+"/securityRules/web", webRule("100")) }()
	w.until("the change waits", func() bool { return strings.Contains(w.waiting(runVNet), "isn't in place") })
	stop()
	w.set(func() { w.away = false })
	if a := <-answer; a.get("properties", "provisioningState") != "Succeeded" {
		t.Errorf("%d %s", a.code, a.text)
	}
}

func TestRunReleasesAddresses(t *testing.T) {
	w := newRun(t)
	w.must("PUT", edgeNetwork+"publicIPAddresses/kept", `{"location":"eastus","sku":{"name":"Standard"}}`)
	lost := resource.MustParseID(edgeNetwork + "publicIPAddresses/lost")
	found, changes, err := w.p.PublicAddresses(t.Context(), lost, 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.Txn(t.Context(), changes...); err != nil {
		t.Fatal(err)
	}
	terminal := edgeGroup + "/providers/Bastide.Network/terminals/t1?api-version=2026-11-01"
	w.must("PUT", terminal, `{}`)
	w.must("DELETE", terminal, "")
	w.until("what is lost is free, and only that", func() bool {
		keys := w.keys(publicPrefix)
		return len(keys) == 1 && keys[0] != publicKey(found[0])
	})
}

func TestTerminals(t *testing.T) {
	w := newRun(t)
	base, version := edgeGroup+"/providers/Bastide.Network/terminals/", "?api-version=2026-11-01"
	a := w.must("PUT", base+"one"+version, `{}`)
	address, _ := a.get("properties", "address").(string)
	if a.get("properties", "host") != "h1" || a.get("properties", "namespace") == "" || !w.p.PublicPool.Contains(netip.MustParseAddr(address)) {
		t.Errorf("terminal %s", a.text)
	}
	w.mu.Lock()
	edge := w.host.Edge
	w.mu.Unlock()
	if len(edge.Terminals) != 1 || edge.Terminals[0].Address.String() != address || edge.Terminals[0].Namespace != a.get("properties", "namespace") {
		t.Errorf("the edge has %v", edge.Terminals)
	}
	if again := w.must("PUT", base+"one"+version, `{}`); again.get("properties", "address") != address {
		t.Errorf("another PUT: %s", again.text)
	}
	two := w.must("PUT", base+"two"+version, `{"properties":{"address":"192.88.99.40"}}`)
	if two.get("properties", "address") != "192.88.99.40" {
		t.Errorf("terminal %s", two.text)
	}
	moved := w.must("PUT", base+"two"+version, `{"properties":{"address":"192.88.99.41"}}`)
	if moved.get("properties", "address") != "192.88.99.41" || slices.Contains(w.keys(publicPrefix), publicKey(ip("192.88.99.40"))) {
		t.Errorf("moved: %s, taken: %v", moved.text, w.keys(publicPrefix))
	}
	w.refuses("PUT", base+"three"+version, `{"properties":{"address":"192.88.99.41"}}`, "PublicIPAddressInUse")
	w.refuses("PUT", base+"three"+version, `{"properties":{"address":"192.88.99.1"}}`, "PublicIPAddressInUse")
	w.refuses("PUT", base+"three"+version, `{"properties":{"address":"10.0.0.9"}}`, "PublicIPAddressNotInPool")
	w.refuses("PUT", base+"three"+version, `{"properties":{"address":"nowhere"}}`, "InvalidIPAddress")
}

func TestAsk(t *testing.T) {
	w := newRun(t)
	w.network()
	w.must("PUT", runGroup+"/securityRules/web", webRule("100"))
	w.must("PUT", runGroup+"/securityRules/cloud", `{"properties":{"priority":200,"direction":"Inbound","access":"Allow","protocol":"*",
		"sourceAddressPrefix":"AzureCloud","sourcePortRange":"*","destinationAddressPrefix":"*","destinationPortRange":"*"}}`)
	counters := w.must("POST", runGroup+"/counters", "")
	if !strings.HasPrefix(counters.text, `{"value":[{"name":"web","packets":1,"bytes":60},{"name":"cloud","packets":1,"bytes":60},{"name":"AllowVnetInBound",`) {
		t.Errorf("counters %s", counters.text)
	}
	if _, err := w.p.Ask(t.Context(), host.Query{Counters: &host.CountersQuery{VNet: "nowhere"}}); err == nil || !strings.Contains(err.Error(), "no such network") {
		t.Errorf("asked for nothing: %v", err)
	}
	w.set(func() { w.away = true })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := w.p.Ask(ctx, host.Query{Counters: &host.CountersQuery{VNet: "x"}}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("without a host: %v", err)
	}
	if left := append(w.keys("hosts/h1/units/query/"), w.keys("hosts/h1/reports/query/")...); len(left) > 0 {
		t.Errorf("questions left: %v", left)
	}
	if _, err := w.store.Put(t.Context(), host.UnitKey("h1", host.QueryUnit, "1000-old"), []byte(`{}`), store.Absent); err != nil {
		t.Fatal(err)
	}
	w.set(func() { w.away = false })
	w.must("PUT", runGroup+"/securityRules/web", webRule("120"))
	w.until("a lost question is removed", func() bool { return len(w.keys("hosts/h1/units/query/")) == 0 })
}

// Two allocations at once can't both be written.
func TestAllocateOnce(t *testing.T) {
	w := newRun(t)
	w.network()
	subnet := resource.MustParseID(runVNet + "/subnets/a")
	one, changesOne, err := w.p.Allocate(t.Context(), subnet, []Want{{}})
	if err != nil {
		t.Fatal(err)
	}
	two, changesTwo, err := w.p.Allocate(t.Context(), subnet, []Want{{}})
	if err != nil || one[0].Address != two[0].Address {
		t.Fatalf("%v, %v, %v", one, two, err)
	}
	if _, err := w.store.Txn(t.Context(), changesOne...); err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.Txn(t.Context(), changesTwo...); !fault.Is(err, fault.Precondition) {
		t.Errorf("the second one: %v", err)
	}
	w.document(edgeGroup+"/providers/Microsoft.Compute/virtualMachineScaleSets/s/virtualMachines/0",
		`{"properties":{"networkProfileConfiguration":{"networkInterfaceConfigurations":[{"name":"n","properties":{"ipConfigurations":[{"name":"i","properties":{"subnet":{"id":"`+subnet.String()+`"}}}]}}]}}}`,
		InterfaceState{Machine: "m", Address: ip("10.7.0.4"), Pods: []netip.Prefix{cidr("10.7.0.5/32"), cidr("10.7.0.6/31")}})
	three, _, err := w.p.Allocate(t.Context(), subnet, []Want{{Pods: 30}})
	if err != nil || three[0].Address != ip("10.7.0.8") {
		t.Errorf("beside an instance: %v, %v", three, err)
	}
	if info, err := w.p.Subnet(t.Context(), subnet); err != nil || info.Free != 251-4 || info.NSG.Name() != "g" || info.VNet.Name() != "run" {
		t.Errorf("%+v, %v", info, err)
	}
	if _, _, err := w.p.Allocate(t.Context(), subnet.Parent().Child("subnets", "b"), []Want{{}}); !fault.Is(err, fault.NotFound) {
		t.Errorf("in no subnet: %v", err)
	}
}

// BenchmarkRuleChange is a rule's change in a network of 100 nodes and 1,000
// rules, from the document's write to the unit's.
func BenchmarkRuleChange(b *testing.B) {
	s := memory.New(0)
	p, err := New(Config{Store: s, Log: slog.New(slog.DiscardHandler), Host: "h1", Location: "eastus", Domain: "bastide.internal",
		PublicPool: netip.MustParsePrefix("192.88.99.0/24"), FrontDoor: netip.MustParseAddr("192.88.99.1")})
	if err != nil {
		b.Fatal(err)
	}
	var group resource.Envelope
	for _, envelope := range largeScene(b).Documents {
		if envelope.ID.Name() == "aks-nsg" {
			group = envelope
		}
		put(b, s, envelope)
	}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	vnet := group.ID.GroupID().Resource(Namespace, "virtualNetworks", "aks-vnet")
	units := s.Watch(ctx, host.UnitKey("h1", host.VNetUnit, VNetID(vnet)), 0)
	<-units
	for n := 0; b.Loop(); n++ {
		group.Body = json.RawMessage(strings.Replace(string(group.Body), `"priority":`+[]string{"100,", "4000,"}[n%2], `"priority":`+[]string{"4000,", "100,"}[n%2], 1))
		put(b, s, group)
		<-units
	}
	cancel()
	if err := <-done; err != nil {
		b.Error(err)
	}
}

func put(b *testing.B, s store.Store, envelope resource.Envelope) {
	b.Helper()
	change, err := arm.PutDocument(&arm.Document{Envelope: envelope})
	if err != nil {
		b.Fatal(err)
	}
	if _, err := s.Put(b.Context(), change.Key, change.Value, store.Any); err != nil {
		b.Fatal(err)
	}
}

// An operation of another provider is that one's to end, also when documents
// of networks run under it. New service tags reach the host.
func TestRunLeavesForeignOperations(t *testing.T) {
	w := newRun(t)
	w.network()
	cluster := resource.MustParseID(edgeGroup + "/providers/Microsoft.ContainerService/managedClusters/c")
	value, err := json.Marshal(arm.Operation{ID: "foreign", Resource: cluster, Method: "PUT", Status: arm.InProgress})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.Put(t.Context(), arm.OperationPrefix+"foreign", value, store.Absent); err != nil {
		t.Fatal(err)
	}
	made := resource.MustParseID(edgeNetwork + "virtualNetworks/made")
	change, err := arm.PutDocument(&arm.Document{Envelope: resource.Envelope{ID: made, Type: made.Type(), Name: "made", ProvisioningState: resource.Creating,
		Operation: "foreign", Body: json.RawMessage(`{"properties":{"addressSpace":{"addressPrefixes":["10.5.0.0/16"]}}}`)}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.Txn(t.Context(), change); err != nil {
		t.Fatal(err)
	}
	w.until("the host has it", func() bool { return w.waiting(made.String()) == "" })
	if op, err := w.p.ops.Get(t.Context(), "foreign"); err != nil || op.Done() {
		t.Errorf("%+v, %v", op, err)
	}
}

// fullStore refuses large documents, as etcd does.
type fullStore struct{ store.Store }

func (f fullStore) Put(ctx context.Context, key string, value []byte, revision int64) (int64, error) {
	if strings.Contains(string(value), "10.66.0.0/16") && strings.Contains(key, "/units/") {
		return 0, errors.New("request is too large")
	}
	return f.Store.Put(ctx, key, value, revision)
}

// A unit that can't be stored fails the operations on its network, and no others.
func TestRunOutlivesRefusedUnits(t *testing.T) {
	s := memory.New(0)
	now := time.Now()
	p, err := New(Config{Store: fullStore{s}, Log: slog.New(slog.DiscardHandler), Host: "h1", PublicPool: cidr("192.88.99.0/26"), Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	for name, space := range map[string]string{"large": "10.66.0.0/16", "small": "10.7.0.0/16"} {
		id := resource.MustParseID(edgeNetwork + "virtualNetworks/" + name)
		document, err := arm.PutDocument(&arm.Document{Envelope: resource.Envelope{ID: id, Type: id.Type(), Name: name, ProvisioningState: resource.Creating,
			Operation: name, Body: json.RawMessage(`{"properties":{"addressSpace":{"addressPrefixes":["` + space + `"]}}}`)}})
		if err != nil {
			t.Fatal(err)
		}
		operation, err := json.Marshal(arm.Operation{ID: name, Resource: id, Method: "PUT", Status: arm.InProgress})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Txn(t.Context(), document, store.Change{Key: arm.OperationPrefix + name, Value: operation, Revision: store.Absent}); err != nil {
			t.Fatal(err)
		}
	}
	r := &runner{Provider: p, first: true, operations: map[string]*pending{}, troubled: map[string]time.Time{}}
	h := hosttest.New(s, "h1")
	for range 3 {
		if _, err := r.reconcile(t.Context(), everything); err == nil || !strings.Contains(err.Error(), "too large") {
			t.Fatalf("a refused unit: %v", err)
		}
		if _, err := h.Answer(t.Context()); err != nil {
			t.Fatal(err)
		}
		now = now.Add(patience / 2)
	}
	for id, want := range map[string]resource.State{"large": resource.Failed, "small": resource.Succeeded} {
		if op, err := p.ops.Get(t.Context(), id); err != nil || op.Status != want {
			t.Errorf("%s: %+v, %v", id, op, err)
		}
	}
}
