// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"time"

	"bastide.dev/controlplane"
	"bastide.dev/fault"
	"bastide.dev/machine"
	"bastide.dev/resource"
	"bastide.dev/roll"
)

// rolling is how the works on a pool's nodes go on, under the operation that
// asked for them.
type rolling struct {
	Operation string    `json:"operation,omitempty"`
	Progress  time.Time `json:"progress"` // of the last move
	// Halt is why they stopped: nothing more is begun until another operation.
	Halt *halt `json:"halt,omitempty"`
}

// halt is why a roll stopped.
type halt struct {
	Code     string `json:"code"`
	Message  string `json:"message"`
	Canceled bool   `json:"canceled,omitempty"`
	// Abort is the operation of the request that canceled it, until that has ended.
	Abort string `json:"abort,omitempty"`
}

// fault is what the operation ends with.
func (h *halt) fault() *fault.Error {
	f := fault.New(fault.Exhausted, h.Code, "%s", h.Message)
	if h.Canceled {
		f = f.Because(context.Canceled)
	}
	return f
}

// halted tells whether nothing more is begun in a pool.
func (s *poolState) halted() bool { return s.Roll != nil && s.Roll.Halt != nil }

// engine is what one look of the reconciler found out about works; it isn't kept.
type engine struct {
	surge int // nodes to be added beyond the count
	busy  bool
	waits string
}

// works brings what is being done to nodes a step further: it admits what was
// asked for, rolls outdated nodes, and takes away those that are too many. It
// returns the pools that it changed.
func (r *runner) works(ctx context.Context, w *whole, h *hosted) ([]*poolDoc, error) {
	now := r.Now().UTC().Truncate(time.Millisecond)
	var changed []*poolDoc
	note := func(pool *poolDoc, did bool) {
		if did {
			changed = append(changed, pool)
		}
	}
	plane := w.reported(h)
	serves := plane != nil && plane.Phase == controlplane.Ready && !w.state.Stopped
	var balancers *balancing
	before := map[string]*poolDoc{} // by operation: the pool that is to be rolled first
	for _, pool := range w.pools {
		did := pool.askedAgain(now)
		did = pool.scale(now, w.state.Stopped || w.state.Running == (Version{})) || did
		if err := r.endAbort(ctx, pool, &did); err != nil {
			return nil, err
		}
		if !serves {
			note(pool, did || w.state.Stopped && pool.pause())
			continue
		}
		if balancers == nil && pool.moves() {
			var err error
			if balancers, err = r.balancing(ctx, w); err != nil {
				return nil, err
			}
		}
		v := view{w: w, h: h, pool: pool, now: now, balancers: balancers, nodes: map[string]controlplane.NodeStatus{}}
		for _, n := range plane.Nodes {
			v.nodes[n.Name] = n
		}
		if missing, left := r.absent(&v); missing != "" {
			w.engine(pool.Name, engine{busy: true, waits: "node " + missing + " hasn't registered"})
			w.again = sooner(w.again, left)
			note(pool, did)
			continue
		}
		seen := v.look(before[pool.Operation])
		did = pool.open(seen, now) || did
		seen.Progress = pool.progress(now)
		plan := roll.Next(seen, now)
		moved := pool.take(plan, &v)
		did = moved || pool.close(plan, seen) || did
		w.engine(pool.Name, engine{surge: plan.Add, busy: plan.Busy, waits: plan.Waits})
		w.again = sooner(w.again, sooner(plan.Again, v.again))
		if before[pool.Operation] == nil && (plan.Busy || pool.halted() && pool.Roll.Operation == pool.Operation) {
			before[pool.Operation] = pool
		}
		note(pool, did)
	}
	return changed, nil
}

// reported is what the control plane said last, also of units that were changed since.
func (w *whole) reported(h *hosted) *controlplane.Status {
	return h.reports[unitKey{controlPlaneKind, w.state.ID}].ControlPlane
}

func (w *whole) engine(pool string, e engine) {
	if w.engines == nil {
		w.engines = map[string]engine{}
	}
	w.engines[pool] = e
}

// askedAgain forgets why works stopped when another operation runs on the pool:
// that is how somebody asks again.
func (pool *poolDoc) askedAgain(now time.Time) bool {
	if !pool.halted() || pool.Operation == "" || pool.Operation == pool.Roll.Operation || pool.Roll.Halt.Abort != "" {
		return false
	}
	pool.Roll = &rolling{Operation: pool.Operation, Progress: now}
	for i := range pool.Nodes {
		n := &pool.Nodes[i]
		if n.Work == nil || n.Work.Error == "" {
			continue
		}
		failed := n.Work
		n.Work = nil
		// What failed on the way back is done anew: the node may be in any state.
		if failed.rolls() && failed.Kind == reimageNode && failed.Step != workLeaves {
			n.Work = &work{Kind: reimageNode, Reason: failed.Reason, Text: failed.Text, Asked: now}
		}
	}
	return true
}

// rolls tells whether a work is there because the node is outdated, or was added
// for those that are.
func (w *work) rolls() bool { return w.Reason == becauseUpgrade || w.Reason == becauseNodeImage }

// scale asks for the nodes to go that are too many, the highest numbered first,
// and keeps those that are wanted again. What nobody can be asked to leave goes at once.
func (pool *poolDoc) scale(now time.Time, atOnce bool) bool {
	staying, want := pool.staying(), pool.want()
	did := false
	for i := 0; i < len(pool.Nodes) && staying < want; i++ {
		n := &pool.Nodes[i]
		if !n.Removed && n.Work != nil && n.Work.Kind == removeNode && n.Work.Reason == becauseScale {
			n.Work, did = nil, true
			staying++
		}
	}
	if staying <= want {
		return did
	}
	pool.sort()
	if atOnce {
		pool.remove(staying - want)
		return true
	}
	deleting := pool.ProvisioningState == resource.Deleting
	for i := len(pool.Nodes) - 1; i >= 0 && staying > want; i-- {
		n := &pool.Nodes[i]
		idle := n.Work == nil || n.Work.Step == workWaits || n.Work.Error != "" || deleting
		if n.Removed || !deleting && n.Surge || !idle || n.goes() {
			continue
		}
		n.Work = &work{Kind: removeNode, Reason: becauseScale, Text: "scale to " + fmt.Sprint(want), Asked: now}
		if deleting {
			n.Work.Text = "deletion of the pool"
			if n.Work.Force = pool.Force; pool.Force {
				n.Work.Drain = forcedDrain
			}
		}
		staying, did = staying-1, true
	}
	return did
}

// forcedDrain is how long evictions are tried when disruption budgets aren't to count.
const forcedDrain = time.Second

// goes tells whether a node is being taken away.
func (n *allotted) goes() bool { return n.Removed || n.Work != nil && n.Work.Kind == removeNode }

// staying counts the nodes that the pool's count is about: not those that go,
// nor surge nodes, unless all of them are to go.
func (pool *poolDoc) staying() int {
	count := 0
	for i := range pool.Nodes {
		n := &pool.Nodes[i]
		if !n.goes() && (!n.Surge || pool.want() == 0) {
			count++
		}
	}
	return count
}

// pause takes works back that a stopped cluster can't go on with: what was being
// left is asked for again when it starts, what was being made anew starts so.
func (pool *poolDoc) pause() bool {
	did := false
	for i := range pool.Nodes {
		n := &pool.Nodes[i]
		if n.Removed || n.Work == nil || n.Work.Step == workWaits || n.Work.Error != "" {
			continue
		}
		did = true
		if n.Work.Step == workLeaves && !n.Work.rolls() {
			n.Work.Step, n.Work.Since, n.Work.Left, n.Work.Gone = workWaits, time.Time{}, time.Time{}, time.Time{}
			continue
		}
		n.Work = nil
	}
	return did
}

// moves tells whether any node is to be left by load balancers, or joined.
func (pool *poolDoc) moves() bool {
	for i := range pool.Nodes {
		n := &pool.Nodes[i]
		if n.Surge && !n.Removed || n.Work != nil && n.Work.Error == "" && (n.Work.Step == workLeaves || n.Work.Step == workSoaks) {
			return true
		}
	}
	return false
}

// absent is a node whose machine runs and that isn't among those that the control
// plane reports, and how long it may be so yet. A report of an agent that has just
// begun may lack nodes that serve: nothing is decided on it.
func (r *runner) absent(v *view) (name string, left time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range v.pool.Nodes {
		n := &v.pool.Nodes[i]
		m := v.h.reports[unitKey{machineKind, n.Machine}].Machine
		if _, registered := v.nodes[n.Name]; registered || n.Removed || m == nil || m.Phase != machine.Running {
			delete(r.missing, n.Machine)
			continue
		}
		if r.missing[n.Machine].IsZero() {
			r.missing[n.Machine] = v.now
		}
		if rest := deadAfter - v.now.Sub(r.missing[n.Machine]); rest > 0 {
			name, left = n.Name, max(left, rest)
		}
	}
	return name, left
}

// open notes that a roll begins, and under which operation.
func (pool *poolDoc) open(seen roll.Pool, now time.Time) bool {
	wanted := false
	for _, n := range seen.Nodes {
		wanted = wanted || n.Outdated || n.Surge || n.Work != nil && n.Work.Error == ""
	}
	if !wanted || pool.Roll != nil && (pool.Roll.Halt != nil || pool.Roll.Operation == pool.Operation) {
		return false
	}
	pool.Roll = &rolling{Operation: pool.Operation, Progress: now}
	return true
}

func (pool *poolDoc) progress(now time.Time) time.Time {
	if pool.Roll == nil {
		return now
	}
	return pool.Roll.Progress
}

// close forgets a roll of which nothing is left, nor an operation that wants to know.
func (pool *poolDoc) close(plan roll.Plan, seen roll.Pool) bool {
	if pool.Roll == nil || plan.Busy || pool.Operation != "" && pool.Operation == pool.Roll.Operation {
		return false
	}
	for _, n := range seen.Nodes {
		if n.Outdated || n.Surge || n.Work != nil {
			return false
		}
	}
	if pool.halted() && pool.Roll.Halt.Abort != "" {
		return false
	}
	pool.Roll = nil
	return true
}
