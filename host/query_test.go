// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/netip"
	"testing"
	"testing/synctest"

	"bastide.dev/machine"
	"bastide.dev/ruleset"
)

// facts answers queries in memory, and counts how often it was asked.
type facts struct {
	asked  int
	place  Place
	policy int
}

func (f *facts) Counters(vnet string) ([]ruleset.Counter, error) {
	f.asked++
	if vnet != "v1" {
		return nil, errors.New("no such network")
	}
	return []ruleset.Counter{{Origin: "nsg/web/allow", Packets: 3}}, nil
}

func (*facts) NetnsPath(name string) string { return "/netns/" + name }

func (*facts) Objects(_ context.Context, id string) (map[string]json.RawMessage, error) {
	return map[string]json.RawMessage{"pods": json.RawMessage(`{"of":"` + id + `"}`), "endpointSlices": json.RawMessage(`{}`), "unknown": json.RawMessage(`1`)}, nil
}

func (f *facts) Probe(_ context.Context, from Place, _ ProbeQuery) (ProbeAnswer, error) {
	f.place = from
	return ProbeAnswer{Result: "refused"}, nil
}

func (f *facts) Policies(_ context.Context, pid int) (ruleset.Table, error) {
	f.policy = pid
	return ruleset.Table{Name: "policy"}, nil
}

// askWorld runs an agent that has answers, and one machine.
func askWorld(t *testing.T) (*world, *facts) {
	w, f := newWorld(), &facts{}
	w.machines["m1"] = &machine.Status{ID: "m1", Phase: machine.Running, PID: 77}
	ctx, cancel := context.WithCancel(t.Context())
	agent := NewAgent(Config{Link: w, Network: network{w}, ControlPlanes: planes{w}, Machines: machines{w},
		Queries: Queries{Rules: f, Objects: f, Prober: f}, Log: slog.New(slog.DiscardHandler)})
	done := make(chan error, 1)
	go func() { done <- agent.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return w, f
}

func TestQueriesAreAnswered(t *testing.T) {
	address := netip.MustParseAddr("10.0.0.4")
	for name, c := range map[string]struct {
		query  Query
		answer string
		err    string
	}{
		"counters":           {Query{Counters: &CountersQuery{VNet: "v1"}}, `[{"origin":"nsg/web/allow","packets":3,"bytes":0}]`, ""},
		"an unknown vnet":    {Query{Counters: &CountersQuery{VNet: "v2"}}, "", "no such network"},
		"objects":            {Query{Objects: &ObjectsQuery{ControlPlane: "c1"}}, `{"pods":{"of":"c1"},"namespaces":null,"services":null,"endpointSlices":{},"nodes":null,"networkPolicies":null}`, ""},
		"policies":           {Query{Policies: &PoliciesQuery{Machine: "m1"}}, `{"name":"policy"}`, ""},
		"no such machine":    {Query{Policies: &PoliciesQuery{Machine: "m2"}}, "", "Machine m2 doesn't run on this host."},
		"probe":              {Query{Probe: &ProbeQuery{Machine: "m1", PodUID: "1234", Address: address}}, `{"result":"refused","micros":0}`, ""},
		"probe from nowhere": {Query{Probe: &ProbeQuery{Address: address}}, "", "A probe begins at a machine or in a namespace."},
		"probe from a path":  {Query{Probe: &ProbeQuery{Namespace: "../x", Address: address}}, "", `"../x" is no namespace to probe from.`},
		"nothing":            {Query{}, "", "The query asks nothing that this host knows."},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, _ := askWorld(t)
				w.units <- unit(t, MachineUnit, "m1", 1, node)
				w.units <- unit(t, QueryUnit, "q", 1, c.query)
				synctest.Wait()
				r := w.reports[unitKey{QueryUnit, "q"}]
				if string(r.Answer) != c.answer || r.Error != c.err || r.Applied != (c.err == "") {
					t.Errorf("answer %s, error %q, applied %v", r.Answer, r.Error, r.Applied)
				}
			})
		})
	}
}

func TestPlacesAreFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, f := askWorld(t)
		w.units <- unit(t, QueryUnit, "q1", 1, Query{Probe: &ProbeQuery{Machine: "m1", PodUID: "1234"}})
		synctest.Wait()
		if want := (Place{PID: 77, PodUID: "1234"}); f.place != want {
			t.Errorf("from %+v", f.place)
		}
		w.units <- unit(t, QueryUnit, "q2", 1, Query{Probe: &ProbeQuery{Namespace: "t1"}})
		synctest.Wait()
		if want := (Place{Netns: "/netns/t1"}); f.place != want {
			t.Errorf("from %+v", f.place)
		}
	})
}

func TestAQueryIsAnsweredOnceAndGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, f := askWorld(t)
		q := unit(t, QueryUnit, "q", 1, Query{Counters: &CountersQuery{VNet: "v1"}})
		for range 3 {
			w.units <- q
			synctest.Wait()
		}
		if f.asked != 1 {
			t.Errorf("asked %d times", f.asked)
		}
		if r := w.reports[unitKey{QueryUnit, "q"}]; len(r.Answer) == 0 {
			t.Errorf("the answer is lost: %+v", r)
		}
		q.Generation = 2
		w.units <- q
		synctest.Wait()
		if f.asked != 2 {
			t.Errorf("a new question was asked %d times", f.asked-1)
		}
		w.units <- Unit{Kind: QueryUnit, Name: "q", Generation: 3, Deleted: true}
		synctest.Wait()
		if r := w.reports[unitKey{QueryUnit, "q"}]; !r.Gone {
			t.Errorf("not gone: %+v", r)
		}
	})
}

func TestAHostWithoutAnswersSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.start(t)
		w.units <- unit(t, QueryUnit, "q", 1, Query{Counters: &CountersQuery{VNet: "v1"}})
		synctest.Wait()
		if r := w.reports[unitKey{QueryUnit, "q"}]; r.Applied || r.Error != "This host answers no queries." {
			t.Errorf("%+v", r)
		}
	})
}
