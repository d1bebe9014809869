// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/machine"
	"bastide.dev/node"
	"bastide.dev/resource"
)

// patchable is a cluster whose nodes look for updates and install them as they are told.
type patchable struct {
	*fleet
	status map[string]*node.Status // by host name
	looked map[string]string       // the token for which it looked
	tales  bool                    // a node tells of orders that nobody gave
}

func newPatchable(t *testing.T, nodes int) *patchable {
	t.Helper()
	p := &patchable{fleet: newFleet(t, nodes), status: map[string]*node.Status{}, looked: map[string]string{}}
	p.p.Mirror = "https://packages.bastide.internal"
	p.host.Guest = p.guest
	return p
}

var openssl = node.Update{Package: "openssl", From: "3.0.17-1", To: "3.0.18-1"}

func (p *patchable) guest(m machine.Spec) json.RawMessage {
	var config node.Config
	if err := json.Unmarshal(m.Files[0].Data, &config); err != nil {
		p.t.Error(err)
	}
	s := p.status[m.Hostname]
	if s == nil {
		s = &node.Status{}
		p.status[m.Hostname] = s
	}
	if config.Look != "" && config.Look != p.looked[m.Hostname] {
		p.looked[m.Hostname] = config.Look
		s.Looked, s.Upgradable = p.clock, []node.Update{openssl}
	}
	if config.Patch != nil && (s.Patch == nil || s.Patch.Token != config.Patch.Token) {
		s.Patch = &node.PatchStatus{Token: config.Patch.Token, Begun: p.clock, Ended: p.clock, Installed: []node.Update{openssl}}
		s.Upgradable = nil
	}
	told := *s
	if p.tales && told.Patch != nil {
		tale := *told.Patch
		tale.Token, tale.Installed = fmt.Sprint(p.clock.UnixNano()), []node.Update{{Package: "tale\x1b[2J", To: strings.Repeat("x", 4096)}}
		told.Patch = &tale
	}
	raw, err := json.Marshal(told)
	if err != nil {
		p.t.Error(err)
	}
	return raw
}

func (p *patchable) list() []nodePatch {
	p.t.Helper()
	d, err := arm.GetDocument(p.t.Context(), p.memory, resource.MustParseID(testCluster))
	if err != nil {
		p.t.Fatal(err)
	}
	answer, err := p.p.nodePatches(p.t.Context(), &arm.Request{ID: d.ID, Parent: d})
	if err != nil {
		p.t.Fatal(err)
	}
	var list []nodePatch
	for _, v := range answer.(object)["value"].([]any) {
		list = append(list, v.(object)["properties"].(nodePatch))
	}
	return list
}

// TestPatchesOfNodes: an unpatched package is found, and gone after the order;
// what was installed is on record, also when the node is another one since.
func TestPatchesOfNodes(t *testing.T) {
	p := newPatchable(t, 2)
	for _, n := range p.list() {
		if len(n.Upgradable) != 0 || n.Looked != nil || len(n.Runs) != 0 {
			t.Errorf("before anything was asked: %+v", n)
		}
	}
	p.must("POST", testCluster+"/lookForPatches", "", "")
	for _, n := range p.list() {
		if len(n.Upgradable) != 1 || n.Upgradable[0] != openssl || n.Looked == nil {
			t.Errorf("not found: %+v", n)
		}
	}
	p.must("POST", testCluster+"/patchNodes", "", "")
	for _, n := range p.list() {
		if len(n.Upgradable) != 0 || len(n.Runs) != 1 || len(n.Runs[0].Installed) != 1 || n.Runs[0].Installed[0] != openssl || n.Running {
			t.Errorf("not gone, or not on record: %+v", n)
		}
	}
	for _, m := range p.host.Machines {
		var config node.Config
		if err := json.Unmarshal(m.Files[0].Data, &config); err != nil {
			t.Fatal(err)
		}
		if config.Mirror != p.p.Mirror || config.Patch != nil {
			t.Errorf("%+v; all have carried the order out, and still there is %+v", config.Mirror, config.Patch)
		}
	}
	if night := p.load(t).state.Patch; !night.Over || !night.Until.Equal(p.clock.Add(askedNight)) {
		t.Errorf("%+v", night)
	}
	p.clock = p.clock.Add(24 * time.Hour)
	p.must("POST", testCluster+"/patchNodes", "", "")
	if list := p.list(); len(list[0].Runs) != 2 || !list[0].Runs[0].Begun.After(list[0].Runs[1].Begun) {
		t.Errorf("two nights: %+v", list[0].Runs)
	}
	p.status = map[string]*node.Status{} // all were reimaged, and want nothing
	p.must("POST", testCluster+"/lookForPatches", "", "")
	if list := p.list(); len(list[0].Runs) != 2 || len(list[0].Upgradable) != 1 {
		t.Errorf("after a reimage, which no order is about: %+v", list[0])
	}
	p.must("DELETE", testCluster, "", resource.Succeeded)
	for _, key := range p.leftovers() {
		if strings.HasPrefix(key, "patches/") {
			t.Errorf("left: %s", key)
		}
	}
}

// TestNoTales: a node that its tenant has taken over can't fill the record, nor
// a terminal.
func TestNoTales(t *testing.T) {
	p := newPatchable(t, 1)
	p.tales = true
	p.must("POST", testCluster+"/patchNodes", "", "")
	for range 5 {
		p.clock = p.clock.Add(time.Minute)
		p.must("POST", testCluster+"/lookForPatches", "", "")
	}
	if list := p.list(); len(list[0].Runs) != 0 {
		t.Errorf("%+v", list[0].Runs)
	}
	if s := guest(&machine.Status{Guest: json.RawMessage(`{"upgradable":[{"package":"a\u001b[2Jb"}]}`)}).Bounded(); s.Upgradable[0].Package != "a?[2Jb" {
		t.Errorf("%q", s.Upgradable[0].Package)
	}
}

func TestThePatchLogIsBounded(t *testing.T) {
	var log patchLog
	for i := range 5000 {
		run := patchRun{Node: fmt.Sprint("n", i), PatchStatus: node.PatchStatus{Token: "t"}}
		for range 40 {
			run.Installed = append(run.Installed, node.Update{Package: strings.Repeat("p", 40), From: "1", To: "2"})
		}
		log.Runs = append(log.Runs, run)
	}
	data, err := log.encode()
	if err != nil || len(data) > maxPatchBytes || len(log.Runs) < 50 || log.Runs[len(log.Runs)-1].Node != "n4999" {
		t.Errorf("%d bytes, %d runs, %v", len(data), len(log.Runs), err)
	}
}

func TestAStoppedClusterIsNotPatched(t *testing.T) {
	p := newPatchable(t, 1)
	p.must("POST", testCluster+"/stop", "", resource.Succeeded)
	for _, action := range []string{"patchNodes", "lookForPatches"} {
		if _, _, err := p.do(t.Context(), "POST", testCluster+"/"+action, ""); !fault.Is(err, fault.Conflict) {
			t.Errorf("%s: %v", action, err)
		}
	}
}
