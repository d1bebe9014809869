// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"bastide.dev/arm"
	"bastide.dev/controlplane"
	"bastide.dev/fault"
	"bastide.dev/machine"
	"bastide.dev/node"
	"bastide.dev/reboots"
	"bastide.dev/resource"
)

// patched is a fleet whose nodes need reboots, with a control plane that looks
// at what blocks them, and grants the lock, as an agent does.
type patched struct {
	*fleet
	needs   map[string]int64 // until which boot a node needs a reboot
	lock    string
	blocked map[string][]string
	reboots map[string]int64 // by node: how many there were
}

func newPatched(t *testing.T, nodes int) *patched {
	t.Helper()
	p := &patched{fleet: newFleet(t, nodes), needs: map[string]int64{}, blocked: map[string][]string{}, reboots: map[string]int64{}}
	hostile := p.clock.Add(1e6 * time.Hour)
	p.host.Guest = func(m machine.Spec) json.RawMessage {
		s := node.Status{RebootRequired: m.Boots < p.needs[m.Hostname], RebootPackages: []string{"openssl", "<script>", "libc6"}, RebootSince: hostile}
		raw, err := json.Marshal(s)
		if err != nil {
			t.Error(err)
		}
		p.reboots[m.Hostname] = m.Boots
		return raw
	}
	p.host.Told = func(status *controlplane.Status) {
		want := p.host.Planes[status.ID].Reboots
		if want == nil {
			return
		}
		settings := reboots.Default()
		status.Reboots = &controlplane.RebootsStatus{Settings: settings}
		for _, name := range want.Waiting {
			status.Reboots.Nodes = append(status.Reboots.Nodes, controlplane.RebootNode{Name: name, Blocked: p.blocked[name]})
		}
		p.lock, status.Reboots.Locked = reboots.Lock(p.lock, want.Claims, func(name string) bool { return len(p.blocked[name]) == 0 }, settings, p.clock)
	}
	return p
}

// run lets time pass; at any moment one node is worked on at most, and has the lock.
func (p *patched) run(turns int) {
	p.t.Helper()
	for range turns {
		again, err := p.step(p.t.Context())
		if err != nil {
			p.t.Fatal(err)
		}
		if !again {
			p.clock = p.clock.Add(5 * time.Second)
		}
		working := 0
		for _, n := range p.pool(workPool).Nodes {
			if n.Work == nil || n.Work.Error != "" {
				continue
			}
			working++
			if n.Work.Kind != rebootNode || n.Work.Reason != becausePatch || n.Work.Text != "reboot for updates of openssl, libc6" {
				p.t.Fatalf("work %+v", n.Work)
			}
			if !strings.Contains(p.lock, n.Name) {
				p.t.Fatalf("node %s reboots without the lock: %q", n.Name, p.lock)
			}
		}
		if working > 1 {
			p.t.Fatalf("%d at once: %s", working, p.works())
		}
	}
}

func TestNodesRebootOneAfterAnother(t *testing.T) {
	p := newPatched(t, 3)
	names := p.names(t)
	for _, name := range names {
		p.needs[name] = 1
	}
	p.run(200)
	p.rest(3, "")
	for _, name := range names {
		if p.reboots[name] != 1 {
			t.Errorf("node %s rebooted %d times", name, p.reboots[name])
		}
	}
	if p.lock != "" {
		t.Errorf("the lock is %s", p.lock)
	}
	p.clock = p.clock.Add(2 * time.Hour)
	p.run(5)
	if s := p.state(); s.Reboots != nil || p.host.Planes[s.ID].Reboots != nil {
		t.Errorf("it is remembered: %+v", s.Reboots)
	}
}

func TestWhatStandsAgainstReboots(t *testing.T) {
	p := newPatched(t, 2)
	names := p.names(t)
	p.needs[names[0]], p.needs[names[1]] = 1, 1
	p.blocked[names[0]] = []string{"pod default/db is there"}
	p.run(100)
	if p.reboots[names[0]] != 0 || p.reboots[names[1]] != 1 {
		t.Errorf("rebooted: %v", p.reboots)
	}
	p.lock = `{"nodeID":"manual"}`
	p.blocked[names[0]] = nil
	p.run(100)
	if p.reboots[names[0]] != 0 {
		t.Error("a person has the lock, and a node reboots")
	}
	p.lock = ""
	p.run(100)
	if p.reboots[names[0]] != 1 {
		t.Error("nothing stands against it, and it doesn't reboot")
	}
	// A machine that always asks gets little: once an hour.
	p.needs[names[0]] = 1000
	p.run(100)
	before := p.reboots[names[0]]
	p.clock = p.clock.Add(time.Hour)
	p.run(100)
	if after := p.reboots[names[0]]; before != 1 || after != 2 {
		t.Errorf("rebooted %d, then %d times", before, after)
	}
}

// A drain that fails gives the lock back, and the node its pods; others may try.
func TestAFailedDrainStopsNobody(t *testing.T) {
	p := newPatched(t, 2)
	names := p.names(t)
	slices.Sort(names)
	p.needs[names[0]], p.needs[names[1]] = 1, 1
	p.held(names[0])
	p.run(600)
	if p.reboots[names[0]] != 0 || p.reboots[names[1]] != 1 || p.lock != "" {
		t.Errorf("rebooted %v, the lock is %q: %s", p.reboots, p.lock, p.works())
	}
	p.host.Drain = nil
	p.clock = p.clock.Add(reboots.RetryAfter)
	p.run(200)
	if p.reboots[names[0]] != 1 {
		t.Errorf("not tried again: %s", p.works())
	}
	p.rest(2, "")
}

// What people are told is what is decided.
func TestWhatPeopleAreTold(t *testing.T) {
	p := newPatched(t, 2)
	told := func() map[string]pendingReboot {
		answer, err := p.p.pendingReboots(t.Context(), &arm.Request{ID: resource.MustParseID(testCluster)})
		if err != nil {
			t.Fatal(err)
		}
		all := map[string]pendingReboot{}
		for _, value := range answer.(object)["value"].([]any) {
			entry := value.(object)["properties"].(pendingReboot)
			all[entry.Node] = entry
		}
		return all
	}
	if all := told(); len(all) != 0 {
		t.Errorf("nothing is needed: %+v", all)
	}
	names := p.names(t)
	slices.Sort(names)
	p.needs[names[0]], p.needs[names[1]] = 1, 1
	p.blocked[names[1]] = []string{"pod default/db is there"}
	p.host.Drain = func(n controlplane.Node) controlplane.Left {
		return controlplane.Left{Since: n.Leave.Since, Phase: controlplane.Leaving, Pods: 1}
	}
	p.run(30)
	all := told()
	if first := all[names[0]]; first.State != "Rebooting" || first.Why != string(workLeaves) || !strings.Contains(first.For, "openssl") {
		t.Errorf("%+v", first)
	}
	if second := all[names[1]]; second.State != "Waiting" || !strings.Contains(second.Why, "default/db") || second.Since == nil {
		t.Errorf("%+v", second)
	}
	_, err := p.p.pendingReboots(t.Context(), &arm.Request{ID: resource.MustParseID(testCluster + "x")})
	if !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
}

func TestHostileGuests(t *testing.T) {
	for _, raw := range []string{``, `{`, `[]`, `{"rebootRequired":"yes"}`, strings.Repeat(" ", machine.GuestBytes+1) + `{"rebootRequired":true}`} {
		if s := guest(&machine.Status{Guest: json.RawMessage(raw)}); s.RebootRequired {
			t.Errorf("%.40q: %+v", raw, s)
		}
	}
	many := make([]string, 10000)
	for i := range many {
		many[i] = fmt.Sprint("p", i)
	}
	if text := rebootText(node.Status{RebootPackages: many}); len(text) > 100 {
		t.Error(text)
	}
}
