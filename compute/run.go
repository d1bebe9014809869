// SPDX-License-Identifier: Apache-2.0

package compute

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/host"
	"bastide.dev/machine"
	"bastide.dev/node"
	"bastide.dev/reconcile"
	"bastide.dev/resource"
	"bastide.dev/store"
)

const workers = 4

// runner drives the reconciler. Its memory is only a shortcut.
type runner struct {
	*Provider
	queue *reconcile.Queue

	mu     sync.Mutex
	owners map[string]string // a machine's id → its queue key
}

// Run keeps virtual machines as their documents say until ctx ends.
func (p *Provider) Run(ctx context.Context) error {
	r := &runner{Provider: p, owners: map[string]string{},
		queue: reconcile.NewQueue(reconcile.Backoff{Min: 50 * time.Millisecond, Max: 10 * time.Second})}
	var group reconcile.Group
	group.Add("machines", func(ctx context.Context) error {
		return store.Follow(ctx, p.Store, arm.DocumentPrefix, p.Log, r.document)
	})
	group.Add("reports", func(ctx context.Context) error {
		return store.Follow(ctx, p.Store, "hosts/"+p.Host+"/reports/", p.Log, r.report)
	})
	group.Add("reconciler", reconcile.Loop{Name: "machines", Queue: r.queue, Workers: workers, Logger: p.Log,
		Reconciler: reconcile.Func(r.reconcile)}.Run)
	newTeller(p).addTo(&group)
	return group.Run(ctx)
}

// document queues virtual machines; their interfaces' documents matter through
// the network's reports.
func (r *runner) document(record store.Record, deleted bool) {
	key := strings.TrimPrefix(record.Key, arm.DocumentPrefix)
	i := strings.Index(key, "/providers/"+strings.ToLower(vmType)+"/")
	if i < 0 || deleted {
		return
	}
	d, err := arm.DecodeDocument(record)
	var state vmState
	if err == nil && json.Unmarshal(d.State, &state) == nil {
		r.mu.Lock()
		r.owners[state.Machine] = key
		r.mu.Unlock()
	}
	r.queue.Add(key)
}

func (r *runner) report(record store.Record, _ bool) {
	kind, name, _ := strings.Cut(strings.TrimPrefix(record.Key, "hosts/"+r.Host+"/reports/"), "/")
	r.mu.Lock()
	defer r.mu.Unlock()
	switch host.Kind(kind) {
	case host.MachineUnit, host.MetadataUnit:
		if key, known := r.owners[name]; known {
			r.queue.Add(key)
		}
	case host.VNetUnit, host.EdgeUnit:
		for _, key := range r.owners {
			r.queue.Add(key)
		}
	}
}

func (r *runner) forget(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, owner := range r.owners {
		if owner == key {
			delete(r.owners, name)
		}
	}
}

// reconcile brings one virtual machine a step nearer to what its document says.
func (r *runner) reconcile(ctx context.Context, key string) (time.Duration, error) {
	id, err := resource.ParseID("/" + key)
	if err != nil {
		return 0, err
	}
	d, err := arm.GetDocument(ctx, r.Store, id)
	if fault.Is(err, fault.NotFound) {
		r.forget(key)
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	var state vmState
	if err := json.Unmarshal(d.State, &state); err != nil {
		return 0, fmt.Errorf("machine %s: state: %w", id, err)
	}
	again, err := r.step(ctx, d, &state)
	if fault.Is(err, fault.Precondition) {
		return time.Millisecond, nil // lost a race: look again
	}
	return again, err
}

func (r *runner) step(ctx context.Context, d *arm.Document, s *vmState) (time.Duration, error) {
	value := host.Tombstone
	if d.ProvisioningState != resource.Deleting {
		spec, err := compile(s)
		if err != nil {
			return 0, err
		}
		if value, err = json.Marshal(spec); err != nil {
			return 0, fmt.Errorf("machine %s: %w", s.Machine, err)
		}
	}
	unit, err := r.Store.Get(ctx, host.UnitKey(r.Host, host.MachineUnit, s.Machine))
	missing := fault.Is(err, fault.NotFound)
	if err != nil && !missing {
		return 0, err
	}
	deleting := d.ProvisioningState == resource.Deleting
	if deleting && missing {
		return 0, r.finish(ctx, d, nil)
	}
	if !bytes.Equal(unit.Value, value) {
		_, err := r.Store.Txn(ctx, store.Change{Key: arm.DocumentKey(d.ID), Revision: d.Revision, Check: true},
			store.Change{Key: host.UnitKey(r.Host, host.MachineUnit, s.Machine), Value: value, Revision: unit.Revision})
		return 0, err // the host's report wakes us
	}
	report, err := r.answer(ctx, s.Machine, unit.Revision)
	if err != nil {
		return 0, err
	}
	if deleting && report.Gone {
		_, err := r.Store.Txn(ctx, store.Change{Key: host.UnitKey(r.Host, host.MachineUnit, s.Machine), Revision: unit.Revision},
			store.Change{Key: host.ReportKey(r.Host, host.MachineUnit, s.Machine), Revision: store.Any})
		return time.Millisecond, err
	}
	if d.Operation == "" {
		return 0, nil
	}
	return r.conclude(ctx, d, s, report)
}

// answer is the host's report on a unit at a revision; empty as long as there is none.
func (r *runner) answer(ctx context.Context, name string, revision int64) (host.Report, error) {
	var report host.Report
	record, err := r.Store.Get(ctx, host.ReportKey(r.Host, host.MachineUnit, name))
	if fault.Is(err, fault.NotFound) {
		return report, nil
	}
	if err != nil {
		return report, err
	}
	if err := json.Unmarshal(record.Value, &report); err != nil {
		return report, fmt.Errorf("report on %s: %w", name, err)
	}
	if report.Generation < revision {
		return host.Report{}, nil
	}
	return report, nil
}

// conclude ends the operation when all of it is true, or when it takes too long.
func (r *runner) conclude(ctx context.Context, d *arm.Document, s *vmState, report host.Report) (time.Duration, error) {
	op, err := r.ops.Get(ctx, d.Operation)
	if err != nil {
		return 0, err
	}
	since := r.Now().Sub(op.Start)
	waits := "the machine isn't made yet"
	if report.Applied && report.Machine != nil {
		want := machine.Running
		if s.Power != running {
			want = machine.Stopped
		}
		waits = ""
		if report.Machine.Phase != want {
			waits = fmt.Sprintf("the machine is %s", report.Machine.Phase)
		}
	}
	if waits == "" {
		if waits, err = r.Network.Waiting(ctx, s.NIC); err != nil {
			return 0, err
		}
	}
	if waits == "" && d.ProvisioningState != resource.Deleting {
		m, err := r.vmMetadata(ctx, d)
		if err != nil {
			return 0, err
		}
		if waits, err = r.tell(ctx, m); err != nil {
			return 0, err
		}
	}
	switch {
	case waits == "" && d.ProvisioningState != resource.Deleting:
		return 0, r.end(ctx, d.Operation, op.Method)
	case report.Error != "" && since >= r.Patience:
		return 0, r.finish(ctx, d, fault.New(fault.Exhausted, "VMProvisioningFailed", "The machine failed: %s", report.Error))
	case report.Error != "":
		return r.Patience - since, nil
	case since >= r.Deadline:
		return 0, r.finish(ctx, d, fault.New(fault.Exhausted, "OSProvisioningTimedOut", "The operation didn't finish within %s: %s.", r.Deadline, waits))
	}
	return r.Deadline - since, nil
}

// end is the operation's good end. Compute's actions answer 200 then, and the
// SDKs' clients take nothing else: that needs a body.
func (r *runner) end(ctx context.Context, operation, method string) error {
	var end arm.Ending
	if method == "POST" {
		end.Output = json.RawMessage("{}")
	}
	if err := r.ops.Finish(ctx, operation, end); err != nil {
		return fmt.Errorf("end operation: %w", err)
	}
	return nil
}

func (r *runner) finish(ctx context.Context, d *arm.Document, cause *fault.Error) error {
	end := arm.Ending{}
	if cause != nil {
		end.Fault = cause
		r.Log.WarnContext(ctx, "operation failed", "operation", d.Operation, "error", cause)
	}
	if err := r.ops.Finish(ctx, d.Operation, end); err != nil {
		return fmt.Errorf("end operation: %w", err)
	}
	return nil
}

const nodeConfigMode = 0o600

// compile says, purely, which machine a virtual machine is.
func compile(s *vmState) (machine.Spec, error) {
	size, known := machine.SizeByName(s.Size)
	if !known {
		return machine.Spec{}, fmt.Errorf("machine %s: size %s isn't known any more", s.Machine, s.Size)
	}
	config, err := json.Marshal(node.Config{Role: node.RoleVM, Hostname: s.Hostname, Address: s.Address,
		AdminUser: s.Admin, AuthorizedKeys: s.Keys, CPUs: size.CPUs, Memory: size.Memory})
	if err != nil {
		return machine.Spec{}, fmt.Errorf("machine %s: %w", s.Machine, err)
	}
	return machine.Spec{
		ID: s.Machine, Hostname: s.Hostname, Image: s.Image, Layers: s.Layers, CPUs: size.CPUs, Memory: size.Memory,
		Boots: s.Boots, Images: s.Images, Stopped: s.Power != running,
		Files: []machine.File{{Path: node.ConfigPath, Mode: nodeConfigMode, Data: config}},
	}, nil
}
