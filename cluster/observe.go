// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"bastide.dev/arm"
	"bastide.dev/controlplane"
	"bastide.dev/fault"
	"bastide.dev/host"
	"bastide.dev/machine"
	"bastide.dev/resource"
)

const (
	controlPlaneKind = host.ControlPlaneUnit
	machineKind      = host.MachineUnit
	planeReady       = controlplane.Ready
)

// observed is how a cluster is, by its host's reports.
type observed struct {
	// waiting says what isn't true yet, for a message; "" when all is.
	waiting string
	// pools is the same for each pool, by name; a pool that is going waits for its last node.
	pools map[string]string
	// between says that a control plane that runs hasn't answered its newest unit,
	// which it does in a moment.
	between bool
	// ready are the nodes that are, by name.
	ready map[string]bool
	// trouble is an error that a unit reports now.
	trouble *fault.Error
}

// observe compares the reports with what should be. named says that the edge
// answers to the cluster's name.
func observe(w *whole, h *hosted, network string) observed {
	o := observed{pools: map[string]string{}, ready: map[string]bool{}, trouble: troubles(h, w.worked())}
	nodes, plane := o.plane(w, h)
	for name, n := range nodes {
		o.ready[name] = n.Ready
	}
	o.waiting = first(plane, network)
	if w.state.Stopped {
		o.waiting = first(o.waiting, machinesLeft(h))
	}
	for _, pool := range w.pools {
		o.pools[pool.Name] = first(poolWaits(w, pool, h, nodes), w.engines[pool.Name].waits)
	}
	return o
}

func (o *observed) plane(w *whole, h *hosted) (map[string]controlplane.NodeStatus, string) {
	report, answered := h.answer(unitKey{controlPlaneKind, w.state.ID})
	if !answered || !report.Applied || report.ControlPlane == nil {
		if o.between = w.state.Running != (Version{}) && !w.state.Stopped; o.between {
			return nil, "the control plane hasn't taken up what changed"
		}
		return nil, "the control plane hasn't started"
	}
	status := report.ControlPlane
	nodes := map[string]controlplane.NodeStatus{}
	for _, n := range status.Nodes {
		nodes[n.Name] = n
	}
	switch {
	case w.state.Stopped && status.Phase != controlplane.Stopped:
		return nodes, "the control plane hasn't stopped"
	case w.state.Stopped:
		return nodes, ""
	case status.Phase != controlplane.Ready && w.state.running() != w.state.Desired.Version:
		return nodes, fmt.Sprintf("the API server of version %s isn't ready yet, that of %s serves", w.state.Desired.Version, w.state.Running)
	case status.Phase != controlplane.Ready:
		return nodes, first("the API server isn't ready", status.Error)
	case strings.TrimPrefix(status.Version, "v") != w.state.Desired.Version.String():
		return nodes, first(status.Refused, fmt.Sprintf("the API server reports version %s", status.Version))
	case status.Refused != "":
		return nodes, "the control plane isn't as it should be: " + status.Refused
	case !status.CoreDNS:
		return nodes, "CoreDNS isn't available"
	}
	return nodes, ""
}

func machinesLeft(h *hosted) string {
	for k := range h.units {
		if k.kind == machineKind {
			return "machine " + k.name + " hasn't stopped"
		}
	}
	return ""
}

// poolWaits says what isn't true of a pool yet.
func poolWaits(w *whole, pool *poolDoc, h *hosted, nodes map[string]controlplane.NodeStatus) string {
	if w.state.Stopped {
		return ""
	}
	for i := range pool.Nodes {
		n := &pool.Nodes[i]
		if n.Removed {
			return "node " + n.Name + " hasn't gone"
		}
		if works := pool.nodeWorks(n, nodes[n.Name]); works != "" && !pool.resting() {
			return works
		}
		report, answered := h.answer(unitKey{machineKind, n.Machine})
		if !answered || !report.Applied {
			return "node " + n.Name + " hasn't booted"
		}
		status, registered := nodes[n.Name]
		switch {
		case !registered:
			return "node " + n.Name + " hasn't registered"
		case !status.Ready:
			return first("node "+n.Name+" isn't ready", status.Reason)
		case strings.TrimPrefix(status.Version, "v") != n.Version.String():
			return fmt.Sprintf("node %s reports version %s", n.Name, status.Version)
		}
	}
	return ""
}

// troubles is the first error that any unit reports on its present generation,
// but for the machines that are left out.
func troubles(h *hosted, except map[string]bool) *fault.Error {
	for _, k := range h.sorted() {
		report, answered := h.answer(k)
		if !answered || k.kind == machineKind && except[k.name] {
			continue
		}
		if text := trouble(report); text != "" {
			code := map[host.Kind]string{
				controlPlaneKind: "ControlPlaneProvisioningFailed", machineKind: "CreateVMSSAgentPoolFailed",
			}[k.kind]
			return fault.New(fault.Exhausted, code, "The %s %s failed: %s", described(k.kind), k.name, text)
		}
	}
	return nil
}

func trouble(report host.Report) string {
	switch {
	case report.Error != "":
		return report.Error
	case report.ControlPlane != nil && report.ControlPlane.Phase == controlplane.Failed:
		return first(report.ControlPlane.Error, "it doesn't run")
	case report.ControlPlane != nil && report.ControlPlane.Refused != "":
		return report.ControlPlane.Refused
	case report.Machine != nil && report.Machine.Phase == machine.Failed:
		return first(report.Machine.Error, "it doesn't run")
	}
	return ""
}

func described(kind host.Kind) string {
	switch kind {
	case controlPlaneKind:
		return "control plane"
	}
	return "machine"
}

// first is the first text that says something.
func first(texts ...string) string {
	for _, text := range texts {
		if text != "" {
			return text
		}
	}
	return ""
}

// conclude ends the operations whose goal is reached, and those that can't
// reach it; for the others it says when to look again.
func (r *runner) conclude(ctx context.Context, w *whole, o observed) (time.Duration, error) {
	key := w.doc.ID.Key()
	since := r.troubled(key, o.trouble != nil)
	var again time.Duration
	for _, id := range operations(w) {
		if cause := w.state.refused(id); cause != nil {
			if err := r.finish(ctx, id, cause); err != nil {
				return 0, err
			}
			continue
		}
		if cause := w.refusedRestore(id); cause != nil {
			if err := r.finish(ctx, id, cause); err != nil {
				return 0, err
			}
			continue
		}
		stopped, going := w.rolls(id)
		if going {
			continue // each of its steps is bounded
		}
		if stopped != nil && o.waiting == "" {
			if err := r.finish(ctx, id, stopped); err != nil {
				return 0, err
			}
			continue
		}
		wait, err := r.concludeOne(ctx, w, id, o, since)
		if err != nil {
			return 0, err
		}
		if wait > 0 && (again == 0 || wait < again) {
			again = wait
		}
	}
	return again, nil
}

// goal is what the operation still waits for: the cluster and every pool under
// it, or the one pool it is about.
func (r *runner) goal(w *whole, o observed, operation string) string {
	waits := o.waiting
	for _, pool := range w.pools {
		if operation == w.doc.Operation || pool.Operation == operation {
			waits = first(waits, o.pools[pool.Name])
			if pool.ProvisioningState == resource.Deleting && len(pool.Nodes) > 0 {
				waits = first(waits, "nodes of the pool haven't gone")
			}
		}
	}
	return waits
}

// concludeOne ends one operation, or says when to look again. An error that
// lasts counts from the operation's start at the earliest: a retry has its chance.
func (r *runner) concludeOne(ctx context.Context, w *whole, id string, o observed, since time.Time) (time.Duration, error) {
	waits, trouble, deadline := r.goal(w, o, id), o.trouble, r.deadline(w, id)
	if waits == "" {
		return 0, r.finish(ctx, id, nil)
	}
	op, err := r.ops.Get(ctx, id)
	if err != nil {
		return 0, err
	}
	if op.Start.After(since) {
		since = op.Start
	}
	left, patience := deadline-r.Now().Sub(op.Start), r.Patience-r.Now().Sub(since)
	switch {
	case trouble != nil && min(left, patience) <= 0:
		return 0, r.finish(ctx, id, trouble)
	case trouble != nil:
		return min(left, patience), nil
	case left <= 0:
		return 0, r.finish(ctx, id, fault.New(fault.Exhausted, "ProvisioningDeadlineExceeded",
			"The operation didn't finish within %s: %s.", deadline, waits))
	}
	return left, nil
}

// timeLeft is how long an operation may still take.
func (r *runner) timeLeft(ctx context.Context, id string, deadline time.Duration) (time.Duration, error) {
	op, err := r.ops.Get(ctx, id)
	if err != nil {
		return 0, err
	}
	return deadline - r.Now().Sub(op.Start), nil
}

func (r *runner) finish(ctx context.Context, id string, cause *fault.Error) error {
	op, err := r.ops.Get(ctx, id)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return fmt.Errorf("end operation: %w", err)
	}
	end := arm.Ending{}
	if cause == nil && op != nil && op.Action == "upgradeNodeImageVersion" {
		if end.Output, err = r.poolOutput(ctx, op.Resource); err != nil {
			return fmt.Errorf("end operation: %w", err)
		}
	}
	if cause == nil && op != nil && strings.HasPrefix(op.Action, "reset") {
		end.Output = json.RawMessage(`{}`) // 200 is what the SDKs want of these actions, not 204
	}
	if cause != nil {
		end.Fault = cause
		r.Log.WarnContext(ctx, "operation failed", "operation", id, "error", cause)
	}
	if err := r.ops.Finish(ctx, id, end); err != nil {
		return fmt.Errorf("end operation: %w", err)
	}
	return nil
}
