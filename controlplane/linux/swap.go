// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"bastide.dev/controlplane"
	"bastide.dev/supervise"
)

// attempt is a change of etcd or the API server that clients don't notice: it is
// made beside what serves.
type attempt struct {
	key      string // of what is asked for
	spec     controlplane.Spec
	programs []string // that differ
	owner    int
	cancel   context.CancelFunc
}

const (
	readyWithin = time.Minute            // the default of Config.ReadyWithin
	probeEvery  = 50 * time.Millisecond  // a question costs an API server next to nothing
	steady      = 300 * time.Millisecond // it has to be good twice, that far apart
	accidents   = 3                      // exits of a new API server, from where on there is no hope for it
)

// try is called under in.apply: it begins the attempt, unless it is under way or
// was refused a while ago.
func (p *Plane) try(in *instance, a *attempt, now running) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.attempt != nil && in.attempt.key == a.key {
		return
	}
	in.abandon()
	in.refused = ""
	if r := now.Refused; r != nil && r.Key == a.key && time.Since(r.At) < refusedFor {
		in.refused = r.Why
		return
	}
	if in.waits(a.key) {
		return
	}
	ctx, cancel := context.WithCancel(p.ctx)
	a.cancel = cancel
	in.attempt = a
	p.agents.Go(func() {
		defer cancel()
		p.attempt(ctx, in, a)
	})
}

// abandon ends an attempt; in.mu is held. in.second is free when it is over.
func (in *instance) abandon() {
	if in.attempt != nil {
		in.attempt.cancel()
	}
	in.attempt = nil
}

// settle ends an attempt and waits until it is over; in.apply is held.
func (in *instance) settle(ctx context.Context) (release func(), err error) {
	in.mu.Lock()
	in.abandon()
	in.mu.Unlock()
	if err := in.second.lockContext(ctx); err != nil {
		return nil, fmt.Errorf("wait for a change of %s to end: %w", in.id, err)
	}
	return in.second.Unlock, nil
}

// rest ends all that goes on with a control plane beside its processes, and keeps
// changes away until release; in.apply is held.
func (in *instance) rest(ctx context.Context) (release func(), err error) {
	if err := in.endJob(ctx); err != nil {
		return nil, err
	}
	if release, err = in.settle(ctx); err == nil {
		in.endAgent()
	}
	return release, err
}

func (p *Plane) attempt(ctx context.Context, in *instance, a *attempt) {
	if in.second.lockContext(ctx) != nil {
		return
	}
	defer in.second.Unlock()
	err := p.change(ctx, in, a)
	if p.ctx.Err() != nil {
		return // the next Plane finds what is on disk, and goes on
	}
	if err != nil && ctx.Err() == nil {
		p.over(ctx, in, a, err)
	}
	p.empty(in)
}

// change makes etcd first: an API server may be newer than what it came with.
func (p *Plane) change(ctx context.Context, in *instance, a *attempt) error {
	now := p.readRunning(in.id)
	if now.Holding || slices.Contains(a.programs, controlplane.Etcd) {
		if err := p.changeEtcd(ctx, in, a); err != nil {
			return err
		}
	}
	if slices.Contains(a.programs, now.Slot.Program()) {
		return p.swap(ctx, in, a, now)
	}
	return p.conclude(ctx, in, a, nil)
}

// swap starts the API server that is asked for in the free slot, and has it take
// over when it is ready and good.
func (p *Plane) swap(ctx context.Context, in *instance, a *attempt, now running) error {
	d, err := p.draft(a.spec, now.Slot.Other(), a.owner)
	if err != nil {
		return err
	}
	name := d.slot.Program()
	processes, err := d.write(name)
	if err != nil {
		return err
	}
	if now.Launched[now.Slot.Program()].Path != processes[name].Path {
		if err := p.keepSnapshot(ctx, a.spec); err != nil {
			return fmt.Errorf("no snapshot of etcd, so no other version: %w", err)
		}
	}
	if err := p.at(ctx, "begin"); err != nil {
		return err
	}
	if err := p.supervisor.Set(processes[name]); err != nil {
		return err
	}
	if err := p.at(ctx, "started"); err != nil {
		return err
	}
	if err := p.awaitGood(ctx, a.spec, d); err != nil {
		return err
	}
	if err := p.at(ctx, "ready"); err != nil {
		return err
	}
	p.surveyOne(ctx, in, true) // what the API server that ends has counted ends with it
	return p.conclude(ctx, in, a, func() error { return p.takeOver(ctx, in, d, processes[name]) })
}

// awaitGood waits until the API server in a draft's slot is what was asked for,
// has everything that it needs, and stays so.
func (p *Plane) awaitGood(ctx context.Context, spec controlplane.Spec, d *draft) error {
	client, err := dialSlot(spec, d.netns, d.slot)
	if err != nil {
		return err
	}
	defer client.hangUp()
	within := p.readyWithin()
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	begun := 0
	for good := false; ; {
		status, _ := p.supervisor.Status(processName(d.id, d.slot.Program()))
		why := errors.New("it doesn't run")
		if status.PID != 0 {
			why = client.good(ctx, spec.Version)
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case status.Error != "":
			return fmt.Errorf("version %s can't be started: %s", spec.Version, status.Error) // of the machine, not of what was asked for
		case status.Restarts >= accidents:
			return verdict{fmt.Errorf("version %s ends by itself: %s: %s", spec.Version, status.Exit, lastLine(status.Log))}
		case why == nil && good && status.PID == begun:
			return nil
		}
		good, begun = why == nil, status.PID
		wait := probeEvery
		if good {
			wait = steady
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		case <-deadline.C:
			return verdict{fmt.Errorf("version %s isn't ready within %v: %w", spec.Version, within, why)}
		}
	}
}

// takeOver leads clients to the API server of the draft's slot. What is on disk
// comes first: whoever reads it after a crash makes the way anew.
func (p *Plane) takeOver(ctx context.Context, in *instance, d *draft, process supervise.Process) error {
	now := p.readRunning(in.id)
	definitions := now.launched(now.Launched)
	delete(definitions.Launched, now.Slot.Program())
	definitions.Launched[d.slot.Program()] = process
	definitions.Slot, definitions.Refused = d.slot, nil
	if err := p.writeRunning(in.id, definitions); err != nil {
		return err
	}
	if err := p.at(ctx, "written"); err != nil {
		return err
	}
	if err := lead(d.netns, in.way(definitions)); err != nil {
		return errors.Join(err, p.writeRunning(in.id, now))
	}
	status, _ := p.supervisor.Status(process.Name)
	in.takenOver(d.slot, status.PID)
	return p.at(ctx, "led")
}

// conclude does what is left to do, and brings everything else up to date: the
// controllers must not be newer than their API server.
func (p *Plane) conclude(ctx context.Context, in *instance, a *attempt, first func() error) error {
	if err := in.apply.lockContext(ctx); err != nil {
		return err
	}
	defer in.apply.Unlock()
	if !in.is(a) {
		return context.Canceled
	}
	if first != nil {
		if err := first(); err != nil {
			return err
		}
	}
	in.mu.Lock()
	in.attempt, in.refused, in.accident = nil, "", accident{}
	in.mu.Unlock()
	defer p.changes.add(in.id)
	spec, _ := in.current() // its nodes may be others by now
	if err := p.start(in, spec); err != nil {
		in.failed(spec, err) // it is applied again
	}
	return nil
}

// refuse notes why the attempt ended.
func (p *Plane) refuse(ctx context.Context, in *instance, a *attempt, why error) {
	if in.apply.lockContext(ctx) != nil {
		return
	}
	defer in.apply.Unlock()
	if !in.is(a) {
		return
	}
	p.Logger.Error("control plane stays as it is", "controlplane", in.id, "error", why)
	now := p.readRunning(in.id)
	now.Refused = &refusal{Key: a.key, Why: why.Error(), At: time.Now()}
	if err := p.writeRunning(in.id, now); err != nil {
		p.Logger.Error("refusal not kept", "controlplane", in.id, "error", err)
	}
	in.mu.Lock()
	in.attempt, in.refused = nil, why.Error()
	in.mu.Unlock()
	p.changes.add(in.id)
}

// empty ends what runs in the slot that isn't in charge, and removes its files:
// some are secrets. in.second is held.
func (p *Plane) empty(in *instance) {
	defer in.parted(p)
	name := p.readRunning(in.id).Slot.Other().Program()
	err := p.partFrom(in, name)
	if err == nil && p.ctx.Err() == nil {
		err = p.forget(in.id, name)
	}
	if err != nil && p.ctx.Err() == nil {
		p.Logger.Error("the former API server isn't cleared away", "controlplane", in.id, "error", err)
	}
}

// parted tells that nobody is with a former API server any more.
func (in *instance) parted(p *Plane) {
	in.mu.Lock()
	in.parting = false
	in.mu.Unlock()
	p.changes.add(in.id)
}

// partFrom ends an API server whose clients are to go to the other. It refuses
// requests on open connections as soon as it is told to end, and asks clients to
// leave a moment later: so no request comes to it from before until it has ended.
// A client that is asked to leave sends what wasn't taken to the other.
func (p *Plane) partFrom(in *instance, name string) error {
	spec, known := in.current()
	if there, err := p.there(in.id, name); err != nil || !there {
		return err
	}
	status, set := p.supervisor.Status(processName(in.id, name))
	if !known || spec.Stopped || set && status.PID == 0 {
		return p.end(p.ctx, in.id, p.supervisor.Stop, name)
	}
	api, err := dialSlot(spec, p.Netns(spec.Namespace), p.readRunning(in.id).Slot.Other())
	if err != nil {
		return err
	}
	defer api.hangUp()
	if err := awaitQuiet(p.ctx, api, func(held bool) error { return p.leave(in, spec, held) }); err != nil {
		return err
	}
	err = p.end(p.ctx, in.id, p.supervisor.Stop, name)
	if p.ctx.Err() != nil {
		return p.ctx.Err()
	}
	return errors.Join(err, p.leave(in, spec, false))
}

func (p *Plane) leave(in *instance, spec controlplane.Spec, leaving bool) error {
	in.mu.Lock()
	in.leaving = leaving
	in.mu.Unlock()
	return lead(p.Netns(spec.Namespace), in.way(p.readRunning(in.id)))
}

// way is where clients are led as long as r is what runs.
func (in *instance) way(r running) way {
	in.mu.Lock()
	defer in.mu.Unlock()
	return way{to: r.Slot, held: r.Holding || in.job.onTrial(), leaving: in.leaving}
}

// tidy empties the other slot of what an earlier Plane left there.
func (p *Plane) tidy(in *instance, slot controlplane.Slot) error {
	if there, err := p.there(in.id, slot.Other().Program()); err != nil || !there {
		return err
	}
	in.mu.Lock()
	in.parting = true
	in.mu.Unlock()
	p.agents.Go(func() {
		if in.second.lockContext(p.ctx) == nil {
			defer in.second.Unlock()
			p.empty(in)
		}
	})
	return nil
}

// there tells whether a program is to be ended: it has no record yet while it is
// being started, and an earlier Plane's isn't set.
func (p *Plane) there(id, program string) (bool, error) {
	if _, set := p.supervisor.Status(processName(id, program)); set {
		return true, nil
	}
	recorded, err := p.supervisor.Recorded()
	return slices.Contains(recorded, processName(id, program)), err
}

// at is where a test may end the Plane.
func (p *Plane) at(ctx context.Context, point string) error {
	if p.reached != nil {
		p.reached(point)
	}
	return ctx.Err()
}
