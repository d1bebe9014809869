// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"strings"
	"time"

	"bastide.dev/controlplane"
	"bastide.dev/machine"
	"bastide.dev/resource"
	"bastide.dev/roll"
)

// deadAfter is how long a node has to be unready until nobody expects it to end
// its pods any more.
const deadAfter = time.Minute

// connectionPause is what connections get to end after a node has left the load balancers.
const connectionPause = time.Second

// view is a pool with what is reported of it now.
type view struct {
	w         *whole
	h         *hosted
	pool      *poolDoc
	nodes     map[string]controlplane.NodeStatus
	balancers *balancing
	now       time.Time
	again     time.Duration // when a look is due that no report asks for
}

// look is the pool as package roll sees it; before is the pool that the same
// operation rolls first.
func (v *view) look(before *poolDoc) roll.Pool {
	pool := v.pool
	u := pool.Pool.Upgrade
	count := pool.want()
	seen := roll.Pool{Count: count, Surge: u.MaxSurge(count), Unavailable: u.MaxUnavailable(count), Drain: u.DrainTimeout(), Soak: u.Soak,
		Cordon: u.Cordon, Halted: pool.halted(), Canceled: pool.halted() && pool.Roll.Halt.Canceled}
	if v.balancers.lead() {
		seen.Pause = connectionPause
	}
	if running := v.w.state.running(); pool.Pool.Version.Compare(running) > 0 {
		seen.Hold = fmt.Sprintf("pool %s waits for the control plane, which runs %s, to become %s", pool.Name, running, pool.Pool.Version)
	}
	if before != nil {
		seen.Hold = fmt.Sprintf("pool %s comes after pool %s", pool.Name, before.Name)
		// What stopped there isn't begun here; this one's operation is the same.
		seen.Halted = seen.Halted || before.halted()
	}
	for i := range pool.Nodes {
		if n := &pool.Nodes[i]; !n.Removed {
			seen.Nodes = append(seen.Nodes, v.node(n))
		}
	}
	return seen
}

// node is a node with what is reported of it.
func (v *view) node(n *allotted) roll.Node {
	status, registered := v.nodes[n.Name]
	report := v.h.reports[unitKey{machineKind, n.Machine}]
	seen := roll.Node{Name: n.Name, Surge: n.Surge, Work: n.Work.rolled(), Cordoned: status.Cordoned,
		Outdated: v.pool.ProvisioningState != resource.Deleting && !v.pool.upToDate(n),
		Ready:    registered && status.Ready, Dead: v.dead(status, registered)}
	if answered, ok := v.h.answer(unitKey{machineKind, n.Machine}); ok {
		seen.Trouble = trouble(answered)
	}
	if m := report.Machine; m != nil {
		seen.Made = m.Phase == machine.Running && m.Images >= n.Images && m.Boots >= n.Boots
	}
	// A surge node stands in for another when load balancers lead to it; one that is
	// back is waited for like one that is cordoned still.
	if joining := v.balancers.lead() && !v.balancers.joined(n); joining && n.Surge && n.Work == nil {
		seen.Ready = seen.Ready && !v.lately(v.pool.progress(v.now))
	} else if joining && n.Work != nil && n.Work.Step == workSoaks {
		seen.Cordoned = true
	}
	if n.Work == nil {
		return seen
	}
	seen.Back = seen.Ready && strings.TrimPrefix(status.Version, "v") == n.Version.String() && (n.Work.Boot == "" || status.Boot != n.Work.Boot)
	if n.Work.Step != workLeaves {
		return seen
	}
	seen.Dropped = v.balancers.dropped(n)
	if left := status.Left; left.Since.Equal(n.Work.Left) {
		seen.Left, seen.Failed = left.Phase == controlplane.LeftNode, left.Phase == controlplane.LeaveFailed
		seen.Held = held(left)
	}
	return seen
}

// joinsWithin bounds the wait for load balancers that aren't kept any more.
const joinsWithin = 30 * time.Second

// lately tells whether load balancers may still be waited for.
func (v *view) lately(since time.Time) bool {
	left := joinsWithin - v.now.Sub(since)
	if left > 0 {
		v.again = sooner(v.again, min(left, 200*time.Millisecond))
	}
	return left > 0
}

// held says what holds a drain up.
func held(left controlplane.Left) string {
	switch {
	case left.Phase == controlplane.LeaveFailed && left.Error != "":
		return left.Error
	case left.Pods == 0:
		return ""
	case left.Held == "":
		return fmt.Sprintf("%d pods left", left.Pods)
	}
	return fmt.Sprintf("%d pods left, held by %s", left.Pods, left.Held)
}

// dead tells whether a node's pods can't be asked to end.
func (v *view) dead(status controlplane.NodeStatus, registered bool) bool {
	if !registered {
		return true
	}
	if status.Ready || status.NotReadySince.IsZero() {
		return false
	}
	left := deadAfter - v.now.Sub(status.NotReadySince)
	if left > 0 {
		v.again = sooner(v.again, left)
	}
	return left <= 0
}

// rolled is a work as package roll sees it.
func (w *work) rolled() *roll.Work {
	if w == nil {
		return nil
	}
	return &roll.Work{Kind: roll.Kind(w.Kind), Roll: w.rolls(), Step: roll.Step(w.Step), Since: w.Since, NoDrain: w.NoDrain,
		Drain: w.Drain, Force: w.Force, Gone: w.Gone, Error: w.Error, Quarantined: w.Quarantined}
}

// take writes a plan into the pool's state; it tells whether that changed.
func (pool *poolDoc) take(plan roll.Plan, v *view) bool {
	for _, m := range plan.Moves {
		for i := range pool.Nodes {
			if n := &pool.Nodes[i]; n.Name == m.Node {
				pool.move(n, m, v)
			}
		}
	}
	if plan.Halt != "" {
		pool.stop(plan, v.now)
	}
	if len(plan.Moves)+plan.Add > 0 && pool.Roll != nil {
		pool.Roll.Progress = v.now
	}
	return len(plan.Moves) > 0 || plan.Halt != ""
}

// move writes one move.
func (pool *poolDoc) move(n *allotted, m roll.Move, v *view) {
	if m.Work == nil {
		n.Work = nil
		return
	}
	next := work{Asked: v.now}
	if n.Work != nil && n.Work.Kind == workKind(m.Work.Kind) && n.Work.rolls() == m.Work.Roll {
		next = *n.Work
	} else {
		next.Kind = workKind(m.Work.Kind)
		next.Reason, next.Text = pool.reason(n)
	}
	begun := next.Step == workWaits || next.Error != ""
	next.Step, next.Since, next.NoDrain, next.Gone = workStep(m.Work.Step), m.Work.Since, m.Work.NoDrain, m.Work.Gone
	next.Error, next.Quarantined = m.Work.Error, m.Work.Quarantined
	if begun && next.Error == "" {
		next.Left = v.now
	}
	if m.Act != "" {
		next.Boot = v.nodes[n.Name].Boot
	}
	switch m.Act {
	case roll.Reimage:
		n.Images++
		if next.rolls() {
			next.Parts, next.Version = pool.Target, pool.Pool.Version
		}
		if next.Parts.Image != "" {
			n.Parts, n.Version = next.Parts, next.Version
		}
	case roll.Reboot:
		n.Boots++
	case roll.Remove:
		n.Removed = true
	}
	n.Work = &next
}

// reason is why a node is rolled, for the document and for people.
func (pool *poolDoc) reason(n *allotted) (reason, text string) {
	if n.Version != pool.Pool.Version {
		return becauseUpgrade, "upgrade to " + pool.Pool.Version.String()
	}
	if !n.Parts.sameNode(pool.Target) {
		return becauseNodeImage, "upgrade to node image " + pool.Target.Image
	}
	return becauseUpgrade, "end of the upgrade"
}

// stop notes why nothing more is begun. A removal that no operation waits for
// stops nothing but itself.
func (pool *poolDoc) stop(plan roll.Plan, now time.Time) {
	h := &halt{Code: "UpgradeFailed", Message: fmt.Sprintf("The upgrade of agent pool %s stopped: %s.", pool.Name, plan.Halt)}
	for i := range pool.Nodes {
		n := &pool.Nodes[i]
		if n.Work == nil || n.Work.Error != plan.Halt {
			continue
		}
		if plan.Undrained {
			h.Message = fmt.Sprintf("Drain of node %s did not complete: %s. This is often caused by a restrictive Pod Disruption Budget.", n.Name, plan.Halt)
		}
		if n.Work.Reason == becauseScale {
			if pool.Operation == "" {
				return
			}
			h.Code = "PodDrainFailure"
		}
		break
	}
	pool.Roll = &rolling{Operation: pool.Operation, Progress: now, Halt: h}
}

// leave is what the control plane is asked to do with the node; nil: nothing.
func (pool *poolDoc) leave(n *allotted) *controlplane.Leave {
	w := n.Work
	if w == nil || n.Removed || w.Left.IsZero() || w.Error != "" && !w.Quarantined {
		return nil
	}
	switch w.Step {
	case workLeaves, workActs, workReturns:
	case workWaits, workSoaks:
		return nil
	}
	timeout := w.Drain
	if timeout == 0 {
		timeout = pool.Pool.Upgrade.DrainTimeout()
	}
	return &controlplane.Leave{Drain: !w.NoDrain && !w.Quarantined, Out: true, Timeout: timeout, Since: w.Left, Force: w.Force, Quarantined: w.Quarantined,
		Reason: w.Text, Reboot: w.Kind == rebootNode}
}

// imageLabel is the label of a node that follows its image; a kubelet writes it
// with a new Node alone.
func imageLabel(n allotted) map[string]string {
	return map[string]string{"kubernetes.azure.com/node-image-version": cutLabel(imageVersion(n.Parts.Image))}
}
