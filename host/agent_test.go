// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"bastide.dev/controlplane"
	"bastide.dev/dataplane"
	"bastide.dev/machine"
	"bastide.dev/metadata"
)

// world is everything an agent touches, in memory.
type world struct {
	mu       sync.Mutex
	units    chan Unit
	reports  map[unitKey]Report
	reject   bool // reports fail to arrive
	vnets    []string
	machines map[string]*machine.Status
	planes   map[string]controlplane.Status
	bootFail int // so many boots fail
	boots    int
	told     map[string]metadata.Machine
	changed  chan string
}

func newWorld() *world {
	return &world{units: make(chan Unit, 100), reports: map[unitKey]Report{}, machines: map[string]*machine.Status{},
		planes: map[string]controlplane.Status{}, told: map[string]metadata.Machine{}, changed: make(chan string, 10)}
}

func (w *world) Units(ctx context.Context, receive func(Unit)) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case u, ok := <-w.units:
			if !ok {
				return errors.New("closed")
			}
			receive(u)
		}
	}
}

func (w *world) Report(_ context.Context, reports []Report) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.reject {
		return errors.New("serve is away")
	}
	for _, r := range reports {
		w.reports[unitKey{r.Kind, r.Name}] = r
	}
	return nil
}

// The data plane attaches every interface whose machine has a namespace.
func (w *world) ApplyNetwork(config dataplane.Config, netns func(string) string) map[string]dataplane.VNetStatus {
	w.mu.Lock()
	w.vnets = nil
	w.mu.Unlock()
	status := map[string]dataplane.VNetStatus{}
	for _, v := range config.VNets {
		s := dataplane.VNetStatus{ID: v.ID}
		for _, nic := range v.NICs {
			if nic.Machine == "" || netns(nic.Machine) != "" {
				s.NICs = append(s.NICs, nic.ID)
			}
		}
		status[v.ID] = s
		w.mu.Lock()
		w.vnets = append(w.vnets, v.ID)
		w.mu.Unlock()
	}
	return status
}

type network struct{ *world }

func (n network) Apply(_ context.Context, c dataplane.Config, netns func(string) string) (map[string]dataplane.VNetStatus, error) {
	return n.ApplyNetwork(c, netns), nil
}

type planes struct{ *world }

func (p planes) Apply(_ context.Context, spec controlplane.Spec) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.planes[spec.ID] = controlplane.Status{ID: spec.ID, Phase: controlplane.Ready}
	return nil
}

func (p planes) Remove(_ context.Context, id string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.planes, id)
	return nil
}

func (p planes) Status(id string) controlplane.Status { return p.planes[id] }

func (p planes) IDs() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var ids []string
	for id := range p.planes {
		ids = append(ids, id)
	}
	return ids
}

func (p planes) Changed() <-chan string { return nil }

type machines struct{ *world }

func (m machines) Create(_ context.Context, spec machine.Spec) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.machines[spec.ID] == nil {
		m.machines[spec.ID] = &machine.Status{ID: spec.ID, Phase: machine.Preparing}
	}
	return nil
}

func (m machines) Boot(_ context.Context, spec machine.Spec) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.boots++
	if m.bootFail > 0 {
		m.bootFail--
		return errors.New("no memory")
	}
	m.machines[spec.ID].Phase = machine.Running
	return nil
}

func (m machines) Stop(_ context.Context, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.machines[id].Phase = machine.Stopped
	return nil
}

func (m machines) Delete(_ context.Context, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.machines, id)
	return nil
}

func (m machines) Netns(id string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.machines[id] == nil {
		return ""
	}
	return "/netns/" + id
}

func (m machines) Status(context.Context) ([]machine.Status, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []machine.Status
	for _, s := range m.machines {
		all = append(all, *s)
	}
	return all, nil
}

func (m machines) Changed() <-chan string { return m.changed }

type answers struct{ *world }

func (a answers) Put(m metadata.Machine) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.told[m.ID] = m
	return nil
}

func (a answers) Remove(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.told, id)
}

func (w *world) start(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	agent := NewAgent(Config{Link: w, Network: network{w}, ControlPlanes: planes{w}, Machines: machines{w}, Metadata: answers{w}, Log: slog.New(slog.DiscardHandler)})
	done := make(chan error, 1)
	go func() { done <- agent.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func unit(t *testing.T, kind Kind, name string, generation int64, spec any) Unit {
	t.Helper()
	text, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	return Unit{Kind: kind, Name: name, Generation: generation, Spec: text}
}

var (
	vnet  = dataplane.VNet{ID: "v1", NICs: []dataplane.NIC{{ID: "n1", Machine: "m1"}, {ID: "n2", Namespace: "c1"}}}
	plane = controlplane.Spec{ID: "c1", Namespace: "c1"}
	node  = machine.Spec{ID: "m1"}
)

func TestUnitsAreMadeInWhateverOrderTheyCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.start(t)
		w.units <- unit(t, MachineUnit, "m1", 1, node)
		w.units <- unit(t, ControlPlaneUnit, "c1", 2, plane)
		w.units <- unit(t, VNetUnit, "v1", 3, vnet)
		synctest.Wait()
		if w.boots != 0 {
			t.Fatal("a machine booted before the full listing was there")
		}
		w.units <- Unit{Synced: true}
		synctest.Wait()
		for _, key := range []unitKey{{MachineUnit, "m1"}, {ControlPlaneUnit, "c1"}, {VNetUnit, "v1"}} {
			if !w.reports[key].Applied {
				t.Errorf("%v isn't reported as applied: %+v", key, w.reports[key])
			}
		}
		if w.machines["m1"].Phase != machine.Running || w.planes["c1"].Phase != controlplane.Ready {
			t.Errorf("not running: %+v %+v", w.machines["m1"], w.planes["c1"])
		}
	})
}

func TestTombstoneIsAnsweredByGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.start(t)
		w.units <- unit(t, VNetUnit, "v1", 1, vnet)
		w.units <- unit(t, MachineUnit, "m1", 1, node)
		w.units <- Unit{Synced: true}
		synctest.Wait()
		w.units <- Unit{Kind: MachineUnit, Name: "m1", Generation: 2, Deleted: true}
		w.units <- Unit{Kind: VNetUnit, Name: "v1", Generation: 2, Deleted: true}
		synctest.Wait()
		if r := w.reports[unitKey{MachineUnit, "m1"}]; !r.Gone || r.Generation != 2 || len(w.machines) != 0 {
			t.Errorf("machine: %+v %v", r, w.machines)
		}
		if r := w.reports[unitKey{VNetUnit, "v1"}]; !r.Gone || len(w.vnets) != 0 {
			t.Errorf("vnet: %+v %v", r, w.vnets)
		}
	})
}

func TestWhatNoUnitAsksForIsRemovedOnlyAfterTheFullListing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.machines["orphan"] = &machine.Status{ID: "orphan", Phase: machine.Running}
		w.planes["lost"] = controlplane.Status{ID: "lost"}
		w.start(t)
		synctest.Wait()
		if len(w.machines) != 1 || len(w.planes) != 1 {
			t.Fatal("something was removed on half a picture")
		}
		w.units <- Unit{Synced: true}
		synctest.Wait()
		if len(w.machines) != 0 || len(w.planes) != 0 {
			t.Errorf("orphans stay: %v %v", w.machines, w.planes)
		}
	})
}

func TestFailureIsReportedAndTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.bootFail = 1
		w.start(t)
		w.units <- unit(t, VNetUnit, "v1", 1, vnet)
		w.units <- unit(t, MachineUnit, "m1", 1, node)
		w.units <- Unit{Synced: true}
		synctest.Wait()
		if r := w.reports[unitKey{MachineUnit, "m1"}]; r.Applied || r.Error != "boot machine: no memory" {
			t.Fatalf("report of the failure: %+v", r)
		}
		w.waitFor(func() bool { return w.reports[unitKey{MachineUnit, "m1"}].Applied })
	})
}

func TestReportsWaitForServe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.reject = true
		w.start(t)
		w.units <- unit(t, VNetUnit, "v1", 1, vnet)
		w.units <- Unit{Synced: true}
		synctest.Wait()
		w.mu.Lock()
		w.reject = false
		w.mu.Unlock()
		w.waitFor(func() bool { return w.reports[unitKey{VNetUnit, "v1"}].Applied })
	})
}

func TestMachineThatDiesComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.start(t)
		w.units <- unit(t, VNetUnit, "v1", 1, vnet)
		w.units <- unit(t, MachineUnit, "m1", 1, node)
		w.units <- Unit{Synced: true}
		synctest.Wait()
		w.mu.Lock()
		w.machines["m1"].Phase = machine.Failed
		w.mu.Unlock()
		w.changed <- "m1"
		synctest.Wait()
		if w.boots != 2 || w.machines["m1"].Phase != machine.Running {
			t.Errorf("boots %d, machine %+v", w.boots, w.machines["m1"])
		}
	})
}

func TestUnknownKindIsRefusedByName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.start(t)
		w.units <- unit(t, "teapot", "t1", 1, struct{}{})
		synctest.Wait()
		if r := w.reports[unitKey{"teapot", "t1"}]; r.Applied || r.Error == "" {
			t.Errorf("report: %+v", r)
		}
	})
}

// waitFor lets the bubble's clock run until ok; a hang ends the test by itself.
func (w *world) waitFor(ok func() bool) {
	for {
		synctest.Wait()
		w.mu.Lock()
		done := ok()
		w.mu.Unlock()
		if done {
			return
		}
		time.Sleep(time.Second) // of the bubble: no real time passes
	}
}

func TestKeysStayApart(t *testing.T) {
	keys := []string{UnitKey("h", VNetUnit, "a"), UnitKey("h", MachineUnit, "a"), ReportKey("h", VNetUnit, "a"), UnitKey("h2", VNetUnit, "a")}
	slices.Sort(keys)
	if len(slices.Compact(keys)) != 4 {
		t.Errorf("keys meet: %v", keys)
	}
}

// What a machine finds at the metadata address comes and goes with its unit,
// also with one that went while the host was away; another machine's isn't taken.
func TestMetadataUnits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.start(t)
		w.units <- unit(t, MetadataUnit, "m1", 1, metadata.Machine{ID: "m1"})
		w.units <- unit(t, MetadataUnit, "m2", 2, metadata.Machine{ID: "m2"})
		w.units <- unit(t, MetadataUnit, "m3", 3, metadata.Machine{ID: "m1", TenantID: "another's"})
		w.units <- Unit{Synced: true}
		synctest.Wait()
		if len(w.told) != 2 || w.told["m1"].TenantID != "" || !w.reports[unitKey{MetadataUnit, "m1"}].Applied || w.reports[unitKey{MetadataUnit, "m3"}].Error == "" {
			t.Errorf("told %v, reports %+v", w.told, w.reports)
		}
		w.units <- Unit{Kind: MetadataUnit, Name: "m1", Generation: 4, Deleted: true}
		synctest.Wait()
		if _, there := w.told["m1"]; there || !w.reports[unitKey{MetadataUnit, "m1"}].Gone {
			t.Errorf("told %v, reports %+v", w.told, w.reports)
		}
		old := w.units
		w.units = make(chan Unit, 10)
		close(old)
		w.units <- Unit{Synced: true}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if len(w.told) != 0 {
			t.Errorf("after a listing without it: %v", w.told)
		}
	})
}
