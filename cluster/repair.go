// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"time"

	"bastide.dev/controlplane"
	"bastide.dev/machine"
	"bastide.dev/resource"
)

// RepairTimes are those of node auto-repair. Zero is what AKS's document "Node
// auto-repair" says where it says something.
type RepairTimes struct {
	// Unready is how long a node isn't ready, or isn't there, before anything is done.
	Unready time.Duration
	// Between is how long a remedy has to show its effect before the next one is tried.
	Between time.Duration
	// Well is how long a node has to be ready for what was tried to be forgotten.
	Well time.Duration
}

func (t *RepairTimes) complete() {
	if t.Unready == 0 {
		t.Unready = 10 * time.Minute
	}
	if t.Between == 0 {
		t.Between = 10 * time.Minute
	}
	if t.Well == 0 {
		t.Well = 30 * time.Minute
	}
}

// replacements is how many nodes of a pool are replaced before one of them has
// to be well for a while: an image that doesn't boot isn't mended by more of it.
const replacements = 3

// repair is what was done about a node that isn't ready, or isn't there.
type repair struct {
	Missing time.Time `json:"missing,omitzero"` // since when there is no Node of its name
	Ready   time.Time `json:"ready,omitzero"`   // since when it is ready again
	Tried   int       `json:"tried,omitempty"`  // remedies
	Last    time.Time `json:"last,omitzero"`    // when the last one was asked for
	GaveUp  bool      `json:"gaveUp,omitempty"`
}

// patient is a node as the rules of repair see it.
type patient struct {
	name   string
	ready  bool
	since  time.Time // not ready or not there since; zero: nobody knows
	dead   bool      // its machine doesn't run: no opinion of the API server is needed
	barred bool      // something is being done to it, or a user keeps it out
	repair repair
}

// remedy is what a node's rule says: which work, or when to look again.
type remedy struct {
	kind   workKind // "": nothing now
	giveUp bool
	after  time.Duration
}

// remedies are AKS's: restart, reimage, redeploy.
func remedies() []workKind { return []workKind{rebootNode, reimageNode, removeNode} }

// treat says what to do for one node. others tells that too many are unready at
// once: then only what surely is dead is touched, and only restarted.
func (t *RepairTimes) treat(p *patient, now time.Time, others bool, replaced int) remedy {
	if p.ready || p.barred || p.since.IsZero() || p.repair.GaveUp {
		return remedy{}
	}
	wait := p.since.Add(t.Unready).Sub(now)
	if p.repair.Tried > 0 {
		wait = max(wait, p.repair.Last.Add(t.Between).Sub(now))
		if p.since.Before(p.repair.Last) { // it never came back: the pause alone counts
			wait = p.repair.Last.Add(t.Between).Sub(now)
		}
	}
	if wait > 0 {
		return remedy{after: wait}
	}
	all := remedies()
	next := all[min(p.repair.Tried, len(all)-1)]
	switch {
	case others && (!p.dead || p.repair.Tried > 0):
		return remedy{after: t.Between}
	case next == removeNode && replaced >= replacements:
		return remedy{giveUp: true}
	}
	return remedy{kind: next}
}

// crowded tells whether so many nodes are unready at once that it is rather what
// they all need that is broken: more than one, and more than half.
func crowded(all []*patient) bool {
	sick := 0
	for _, p := range all {
		if !p.ready {
			sick++
		}
	}
	return sick > 1 && 2*sick > len(all)
}

// repair asks for remedies, one at a time a pool.
func (r *runner) repair(w *whole, h *hosted, status *controlplane.Status, now time.Time) []*poolDoc {
	if w.doc.Operation != "" {
		return nil // it says itself what it waits for
	}
	nodes := map[string]controlplane.NodeStatus{}
	for _, n := range status.Nodes {
		nodes[n.Name] = n
	}
	var everyone []*patient
	for _, pool := range w.pools {
		for i := range pool.Nodes {
			if n := &pool.Nodes[i]; !n.goes() {
				everyone = append(everyone, patientOf(n, nodes, h))
			}
		}
	}
	others := crowded(everyone)
	var changed []*poolDoc
	for _, pool := range w.pools {
		if pool.ProvisioningState != resource.Deleting && pool.Operation == "" && r.repairPool(w, pool, nodes, h, others, now) {
			changed = append(changed, pool)
		}
	}
	return changed
}

// patientOf is a node as it is reported.
func patientOf(n *allotted, nodes map[string]controlplane.NodeStatus, h *hosted) *patient {
	status, there := nodes[n.Name]
	p := &patient{name: n.Name, ready: there && status.Ready, since: status.NotReadySince}
	if n.Repair != nil {
		p.repair = *n.Repair
	}
	if !there {
		p.since = p.repair.Missing
	}
	if m := h.reports[unitKey{machineKind, n.Machine}].Machine; m != nil {
		p.dead = m.Phase == machine.Failed || m.Phase == machine.Stopped
	}
	ours := n.Work != nil
	p.barred = ours && (n.Work.Error == "" || n.Work.Reason != becauseRepair) || !ours && status.Cordoned || n.Surge || n.Off
	return p
}

// repairPool notes how the nodes of a pool are, and asks for one remedy.
func (r *runner) repairPool(w *whole, pool *poolDoc, nodes map[string]controlplane.NodeStatus, h *hosted, others bool, now time.Time) bool {
	did, busy := false, false
	for i := range pool.Nodes {
		n := &pool.Nodes[i]
		if n.Removed {
			continue
		}
		_, there := nodes[n.Name]
		did = n.note(there, there && nodes[n.Name].Ready, now, &r.Repair, w) || did
		busy = busy || n.Work != nil && n.Work.Reason == becauseRepair && n.Work.Error == ""
	}
	if did = pool.recovered(nodes, now, &r.Repair) || did; busy {
		return did
	}
	for i := range pool.Nodes {
		n := &pool.Nodes[i]
		if n.goes() {
			continue
		}
		p := patientOf(n, nodes, h)
		cure := r.Repair.treat(p, now, others, pool.Repairs)
		if cure.after > 0 {
			w.tended = sooner(w.tended, cure.after)
		}
		if cure.giveUp {
			n.Repair.GaveUp, did = true, true
			n.Note = &controlplane.Note{Reason: "NodeRepairGaveUp", Warning: true, At: now,
				Message: fmt.Sprintf("Node auto-repair gave up: %d nodes of the pool were replaced and none stayed ready.", pool.Repairs)}
			r.Log.Warn("node auto-repair gave up", "node", n.Name)
		}
		if cure.kind != "" && pool.cure(n, cure.kind, now) {
			r.Log.Warn("node is repaired", "node", n.Name, "by", string(cure.kind), "since", p.since)
			return true
		}
	}
	return did
}

// cure asks for a remedy. A replaced node's count stays: another one comes.
func (pool *poolDoc) cure(n *allotted, kind workKind, now time.Time) bool {
	if n.Repair == nil {
		n.Repair = &repair{}
	}
	action := map[workKind]string{rebootNode: "NodeRebootStart", reimageNode: "NodeReimageStart", removeNode: "NodeRedeployStart"}[kind]
	text := map[workKind]string{rebootNode: "restarted", reimageNode: "reimaged", removeNode: "replaced"}[kind]
	next := work{Kind: kind, Reason: becauseRepair, Text: "it isn't ready", Asked: now, NoDrain: true}
	if kind == reimageNode {
		next.Parts, next.Version = n.Parts, n.Version
	}
	if !pool.ask(n.Name, next) {
		return false
	}
	n.Repair.Tried++
	n.Repair.Last, n.Repair.Ready = now, time.Time{}
	if kind == removeNode {
		pool.Repairs, pool.Replaced = pool.Repairs+1, now
	}
	n.Note = &controlplane.Note{Reason: action, Warning: true, At: now, Message: "Node auto-repair: the node isn't ready and is " + text + "."}
	return true
}

// note keeps when a node went missing, and forgets what was tried when it has
// been well for long enough.
func (n *allotted) note(there, ready bool, now time.Time, t *RepairTimes, w *whole) bool {
	switch {
	case !there && (n.Repair == nil || n.Repair.Missing.IsZero()):
		if n.Repair == nil {
			n.Repair = &repair{}
		}
		n.Repair.Missing, n.Repair.Ready = now, time.Time{}
		return true
	case n.Repair == nil || !there:
		return false
	case ready && n.Repair.Tried == 0:
		n.Repair = nil
		return true
	case ready && n.Repair.Ready.IsZero():
		n.Repair.Ready, n.Repair.Missing = now, time.Time{}
		w.tended = sooner(w.tended, t.Well)
		return true
	case ready && !n.Repair.Ready.Add(t.Well).After(now):
		n.Repair = nil
		return true
	case ready:
		w.tended = sooner(w.tended, n.Repair.Ready.Add(t.Well).Sub(now))
		return false
	case !n.Repair.Missing.IsZero() || !n.Repair.Ready.IsZero():
		n.Repair.Missing, n.Repair.Ready = time.Time{}, time.Time{}
		return true
	}
	return false
}

// recovered forgets the replaced nodes of a pool all of whose nodes are well.
func (pool *poolDoc) recovered(nodes map[string]controlplane.NodeStatus, now time.Time, t *RepairTimes) bool {
	if pool.Repairs == 0 {
		return false
	}
	for i := range pool.Nodes {
		n := &pool.Nodes[i]
		if !nodes[n.Name].Ready || n.Repair != nil || pool.Replaced.Add(t.Well).After(now) {
			return false
		}
	}
	pool.Repairs = 0
	return true
}
