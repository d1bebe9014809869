// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"bastide.dev/controlplane"
	"bastide.dev/machine"
	"bastide.dev/metadata"
)

// maker makes one kind of unit so, or removes it. Both are repeated after errors.
type maker interface {
	make(ctx context.Context, u Unit, report *Report) error
	remove(ctx context.Context, name string) error
}

// keeper keeps one unit: each new generation interrupts the work on the last.
type keeper struct {
	maker  maker
	outbox *outbox
	log    *slog.Logger
	woken  chan struct{} // capacity 1

	mu        sync.Mutex // guards the rest
	unit      Unit
	dirty     bool
	interrupt context.CancelFunc
}

func newKeeper(u Unit, m maker, out *outbox, log *slog.Logger) *keeper {
	k := &keeper{maker: m, outbox: out, log: log.With("kind", u.Kind, "name", u.Name), woken: make(chan struct{}, 1)}
	k.set(u)
	return k
}

func (k *keeper) set(u Unit) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.unit, k.dirty = u, true
	if k.interrupt != nil {
		k.interrupt()
	}
	k.wake()
}

func (k *keeper) wake() {
	select {
	case k.woken <- struct{}{}:
	default:
	}
}

func (k *keeper) idle() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return !k.dirty
}

// run works until ctx ends, or the unit is gone and forget agrees.
func (k *keeper) run(ctx context.Context, forget func() bool) {
	var retry backoff
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.woken:
		}
		unit, err := k.work(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			if !k.idle() { // a newer generation interrupted
				continue
			}
			k.log.Warn("unit not made, will try again", "error", err)
			retry.wait(ctx)
			k.wake()
			continue
		}
		retry.reset()
		if unit.Deleted && forget() {
			return
		}
	}
}

func (k *keeper) work(ctx context.Context) (Unit, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	k.mu.Lock()
	unit := k.unit
	k.dirty, k.interrupt = false, cancel
	k.mu.Unlock()

	report := Report{Kind: unit.Kind, Name: unit.Name, Generation: unit.Generation}
	var err error
	if unit.Deleted {
		err = k.maker.remove(ctx, unit.Name)
		report.Gone = err == nil
	} else {
		err = k.maker.make(ctx, unit, &report)
		report.Applied = err == nil && report.Error == ""
	}
	if err != nil {
		report.Error = err.Error()
	}
	if ctx.Err() == nil {
		k.outbox.put(report)
	}
	return unit, err
}

type machineMaker struct {
	provider Machines
	net      *networkKeeper
}

// make creates the machine, waits until the data plane gave it its interface,
// and lets it boot.
func (m *machineMaker) make(ctx context.Context, u Unit, report *Report) error {
	var spec machine.Spec
	if err := json.Unmarshal(u.Spec, &spec); err != nil {
		return fmt.Errorf("unit: %w", err)
	}
	if spec.Stopped {
		return m.stop(ctx, spec.ID, report)
	}
	if err := m.provider.Create(ctx, spec); err != nil {
		return fmt.Errorf("create machine: %w", err)
	}
	if err := m.net.attached(ctx, func(n nicRef) bool { return n.machine == spec.ID }); err != nil {
		return fmt.Errorf("attach interface: %w", err)
	}
	if err := m.provider.Boot(ctx, spec); err != nil {
		return fmt.Errorf("boot machine: %w", err)
	}
	return m.status(ctx, spec.ID, report)
}

// stop ends the machine, once: ending one is a change, which leads here again.
func (m *machineMaker) stop(ctx context.Context, id string, report *Report) error {
	if err := m.status(ctx, id, report); err != nil || report.Machine == nil || report.Machine.Phase == machine.Stopped {
		return err
	}
	if err := m.provider.Stop(ctx, id); err != nil {
		return fmt.Errorf("stop machine: %w", err)
	}
	return m.status(ctx, id, report)
}

func (m *machineMaker) status(ctx context.Context, id string, report *Report) error {
	all, err := m.provider.Status(ctx)
	if err != nil {
		return fmt.Errorf("machine status: %w", err)
	}
	for _, status := range all {
		if status.ID == id {
			report.Machine = &status
		}
	}
	return nil
}

func (m *machineMaker) remove(ctx context.Context, name string) error {
	return m.provider.Delete(ctx, name)
}

// metadataMaker tells what a machine finds at the metadata address. Nothing of
// it outlives the process: the next one is told again.
type metadataMaker struct{ metadata Metadata }

func (m *metadataMaker) make(_ context.Context, u Unit, _ *Report) error {
	var machine metadata.Machine
	if err := json.Unmarshal(u.Spec, &machine); err != nil {
		return fmt.Errorf("unit: %w", err)
	}
	if machine.ID != u.Name {
		return fmt.Errorf("unit: it is of machine %q", machine.ID)
	}
	return m.metadata.Put(machine)
}

func (m *metadataMaker) remove(_ context.Context, name string) error {
	m.metadata.Remove(name)
	return nil
}

type controlPlaneMaker struct {
	planes ControlPlanes
	net    *networkKeeper
}

func (c *controlPlaneMaker) make(ctx context.Context, u Unit, report *Report) error {
	var spec controlplane.Spec
	if err := json.Unmarshal(u.Spec, &spec); err != nil {
		return fmt.Errorf("unit: %w", err)
	}
	if err := c.net.attached(ctx, func(n nicRef) bool { return n.namespace == spec.Namespace }); err != nil {
		return fmt.Errorf("attach interface: %w", err)
	}
	if err := c.planes.Apply(ctx, spec); err != nil {
		return fmt.Errorf("apply control plane: %w", err)
	}
	status := c.planes.Status(spec.ID)
	report.ControlPlane = &status
	return nil
}

func (c *controlPlaneMaker) remove(ctx context.Context, name string) error {
	return c.planes.Remove(ctx, name)
}

// backoff waits longer after each failure, up to a few seconds, with jitter.
type backoff struct{ last time.Duration }

func (b *backoff) reset() { b.last = 0 }

func (b *backoff) wait(ctx context.Context) {
	b.last = min(max(2*b.last, 50*time.Millisecond), 5*time.Second)
	timer := time.NewTimer(b.last/2 + rand.N(b.last/2))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
