// SPDX-License-Identifier: Apache-2.0

// Package linux runs control planes on a Linux machine: each with a uid, a
// cgroup, directories and a network namespace of its own, its programs kept by
// package supervise and its objects by package controlplane/agent.
//
// It is mechanism: cmd and testcloud hand it to package host.
package linux

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"bastide.dev/bundle"
	"bastide.dev/cgroup"
	"bastide.dev/controlplane"
	"bastide.dev/controlplane/addons"
	"bastide.dev/fault"
	"bastide.dev/supervise"
)

// Config is what a Plane needs. All but ReadyWithin is required.
type Config struct {
	Instance string
	StateDir string // keeps controlplanes/<id> on disk
	RunDir   string // keeps what a reboot may empty
	CacheDir string // of bundles
	UIDBase  int    // the first uid of control planes; each takes the lowest free one
	UIDCount int
	// ReadyWithin is how long a new API server may take beside the one that serves;
	// 0: a minute.
	ReadyWithin time.Duration
	// Netns is the path of a network namespace by its name in a spec.
	Netns  func(name string) string
	Logger *slog.Logger
}

// Plane runs control planes. Safe for concurrent use. The processes outlive it
// and are adopted by the next Plane with the same directories, when their specs
// are applied again.
type Plane struct {
	Config
	supervisor *supervise.Supervisor
	changes    *changes
	uids       sync.Mutex // held while a uid is chosen and written down
	ctx        context.Context
	cancel     context.CancelFunc

	// policy gives the default rights of a release; a test takes it away to see
	// those that the release makes itself.
	policy func(version string) ([]*unstructured.Unstructured, error)

	// reached is called at the steps of a change; a test ends the Plane there.
	reached func(point string)

	mu     sync.Mutex // guards byID
	byID   map[string]*instance
	agents sync.WaitGroup
}

// New makes a Plane; nothing runs before Run and Apply.
func New(c Config) (*Plane, error) {
	for _, dir := range []string{filepath.Join(c.StateDir, "controlplanes"), filepath.Join(c.RunDir, "controlplanes")} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return nil, fmt.Errorf("make directory of control planes: %w", err)
		}
	}
	s, err := supervise.New(supervise.Config{RunDir: filepath.Join(c.RunDir, "controlplanes"), Logger: c.Logger})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Plane{Config: c, supervisor: s, changes: newChanges(), policy: addons.Policy, ctx: ctx, cancel: cancel, byID: map[string]*instance{}}, nil
}

// Run follows the processes and renews certificates until ctx ends, and leaves
// the processes running.
func (p *Plane) Run(ctx context.Context) error {
	var wait sync.WaitGroup
	wait.Go(func() { _ = p.supervisor.Run(ctx) }) // always nil
	wait.Go(func() { p.changes.deliver(ctx) })
	wait.Go(func() { p.surveys(ctx) })
	renew := time.NewTicker(time.Hour)
	defer renew.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case name := <-p.supervisor.Changed():
			p.processChanged(name)
		case <-renew.C:
			p.renew()
		}
	}
	p.cancel()
	p.agents.Wait()
	wait.Wait()
	return nil
}

// Changed receives the ID of a control plane whose status changed. It is never
// closed; it is fed while Run runs.
func (p *Plane) Changed() <-chan string { return p.changes.out }

// IDs lists the control planes that have anything on this machine.
func (p *Plane) IDs() []string {
	entries, err := os.ReadDir(filepath.Join(p.StateDir, "controlplanes"))
	if err != nil {
		return nil
	}
	var ids []string
	for _, e := range entries {
		if e.IsDir() {
			ids = append(ids, e.Name())
		}
	}
	return ids
}

// Apply makes a control plane what its spec says. It returns when the processes
// are asked for; Status and Changed tell how they get on.
func (p *Plane) Apply(ctx context.Context, spec controlplane.Spec) error {
	if err := spec.Validate(); err != nil {
		return err
	}
	in := p.instance(spec.ID)
	in.apply.Lock()
	defer in.apply.Unlock()
	if spec.Stopped {
		return p.stop(ctx, in, spec)
	}
	if err := p.start(in, spec); err != nil {
		in.failed(spec, err)
		p.changes.add(spec.ID)
		return err
	}
	p.tend(in)
	return p.dropBackups(&spec)
}

func (p *Plane) instance(id string) *instance {
	p.mu.Lock()
	defer p.mu.Unlock()
	in := p.byID[id]
	if in == nil {
		in = &instance{id: id, apply: newLock(), second: newLock()}
		p.byID[id] = in
	}
	return in
}

// start makes the control plane as its spec says. Etcd and the API server, where
// they run as something else, are changed beside what serves: that goes on when
// start returns.
func (p *Plane) start(in *instance, spec controlplane.Spec) error {
	if err := p.settleData(in); err != nil {
		return err
	}
	owner, err := p.ensureDirs(spec.ID)
	if err != nil {
		return err
	}
	now := p.readRunning(spec.ID)
	d, err := p.draft(spec, now.Slot, owner)
	if err != nil {
		return err
	}
	if err := prepareNetns(d.netns); err != nil {
		return fault.New(fault.Unavailable, "", "The network namespace of control plane %s isn't ready.", spec.ID).Because(err)
	}
	if err := lead(d.netns, in.way(now)); err != nil {
		return err
	}
	in.inCharge(now.Slot, p.readSurvey(spec.ID).Uses)
	programs, key, err := d.differs(now)
	if err != nil {
		return err
	}
	idle := len(now.Launched) == 0
	if !idle && len(programs) > 0 && (now.Refused == nil || now.Refused.Key != key) {
		if idle, err = p.idle(spec.ID); err != nil {
			return err
		}
	}
	if idle || len(programs) == 0 && !now.Holding {
		return p.startInPlace(in, d, spec, now.Slot)
	}
	if err := p.drop(spec); err != nil {
		return err
	}
	if err := p.launch(in, now.inOrder(spec)); err != nil {
		return err
	}
	if err := p.keepObjects(in, spec, d.netns); err != nil {
		return err
	}
	p.try(in, &attempt{key: key, spec: spec, programs: programs, owner: owner}, now)
	return p.launchLate(in)
}

// idle tells that no process of a control plane lives: nobody is served, so
// nothing has to be beside anything.
func (p *Plane) idle(id string) (bool, error) {
	alive, err := supervise.Processes(p.supervisor.RunDir)
	if err != nil {
		return false, err
	}
	for name := range alive {
		if of, _, _ := strings.Cut(name, "."); of == id {
			return false, nil
		}
	}
	return true, nil
}

func (p *Plane) startInPlace(in *instance, d *draft, spec controlplane.Spec, slot controlplane.Slot) error {
	in.mu.Lock()
	in.abandon()
	in.refused, in.accident = "", accident{}
	in.mu.Unlock()
	processes, err := d.write(d.names()...)
	if err != nil {
		return err
	}
	now := running{Slot: slot, Launched: processes}
	if err := p.writeRunning(spec.ID, now); err != nil {
		return err
	}
	if err := p.drop(spec); err != nil {
		return err
	}
	if err := p.launch(in, now.inOrder(spec)); err != nil {
		return err
	}
	if err := p.keepObjects(in, spec, d.netns); err != nil {
		return err
	}
	if err := p.tidy(in, slot); err != nil {
		return err
	}
	return p.launchLate(in)
}

// drop ends a program that the spec no longer has, and removes its files.
func (p *Plane) drop(spec controlplane.Spec) error {
	wanted := spec.Programs()
	for _, program := range controlplane.Programs() {
		if slices.Contains(wanted, program) {
			continue
		}
		if err := p.end(p.ctx, spec.ID, p.supervisor.Stop, program); err != nil {
			return err
		}
		if err := p.forget(spec.ID, program); err != nil {
			return fmt.Errorf("forget %s: %w", processName(spec.ID, program), err)
		}
	}
	return nil
}

// launch starts what can start at once. The scheduler waits for its rights to
// be in place, and the controllers for the API server to be ready: come too
// early, each would fall back to retries of a second and more. Those that run
// already are adopted, and live through the API server's restarts.
func (p *Plane) launch(in *instance, processes []supervise.Process) error {
	running, err := p.supervisor.Recorded()
	if err != nil {
		return err
	}
	var late []supervise.Process
	for _, process := range processes {
		_, program, _ := strings.Cut(process.Name, ".")
		if waits(program) && !slices.Contains(running, process.Name) {
			late = append(late, process)
			continue
		}
		if err := p.supervisor.Set(process); err != nil {
			return err
		}
	}
	in.mu.Lock()
	in.late = late
	in.mu.Unlock()
	return nil
}

func waits(program string) bool {
	return slices.Contains([]string{controlplane.ControllerManager, controlplane.Scheduler, controlplane.CloudController}, program)
}

// launchLate starts what waited for the API server to come as far as it is now.
func (p *Plane) launchLate(in *instance) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.agent == nil {
		return nil
	}
	state := in.agent.State()
	var still []supervise.Process
	for _, process := range in.late {
		if !state.Serving || !state.Ready && process.Name != processName(in.id, controlplane.Scheduler) {
			still = append(still, process)
			continue
		}
		if err := p.supervisor.Set(process); err != nil {
			return err
		}
	}
	in.late = still
	return nil
}

func (p *Plane) programs(plan controlplane.Plan) ([]program, error) {
	found := make([]program, len(plan.Programs))
	for i, want := range plan.Programs {
		b, err := bundle.Open(p.CacheDir, want.Bundle, want.Version)
		if err != nil {
			return nil, err
		}
		path := b.Path(want.Binary)
		if path == "" {
			return nil, fault.New(fault.NotFound, "BundleIncomplete", "Bundle %s has no %s.", b.ID(), want.Binary)
		}
		found[i] = program{path: path, root: b.Root()}
	}
	return found, nil
}

// stop ends all processes and keeps the data. etcd goes last, so that the
// others can write what they have.
func (p *Plane) stop(ctx context.Context, in *instance, spec controlplane.Spec) error {
	release, err := in.rest(ctx)
	if err != nil {
		return err
	}
	defer release()
	if err := p.end(ctx, spec.ID, p.supervisor.Stop, clients()...); err != nil {
		return err
	}
	if err := p.end(ctx, spec.ID, p.supervisor.Stop, controlplane.Etcd); err != nil {
		return err
	}
	if err := p.ended(spec.ID); err != nil {
		return err
	}
	in.set(spec, nil)
	p.changes.add(spec.ID)
	return nil
}

// ended forgets how programs were launched: the next start has nothing to be
// beside of, and takes what is asked for then.
func (p *Plane) ended(id string) error {
	now := p.readRunning(id)
	if len(now.Launched) == 0 && now.Refused == nil {
		return nil
	}
	return p.writeRunning(id, running{Slot: now.Slot})
}

// everything is all programs in all places.
func everything() []string {
	return append(controlplane.Programs(), controlplane.APIServerB, controlplane.TrialEtcd)
}

// clients are the programs that write to etcd, by way of the API server or itself.
func clients() []string {
	return slices.DeleteFunc(everything(), func(name string) bool { return name == controlplane.Etcd })
}

func (p *Plane) end(ctx context.Context, id string, end func(context.Context, string) error, programs ...string) error {
	errs := make([]error, len(programs))
	var wait sync.WaitGroup
	for i, name := range programs {
		wait.Go(func() { errs[i] = end(ctx, processName(id, name)) })
	}
	wait.Wait()
	return errors.Join(errs...)
}

// Remove ends a control plane and leaves nothing of it.
func (p *Plane) Remove(ctx context.Context, id string) error {
	if id != filepath.Base(id) || id == "." || id == ".." {
		return fault.New(fault.Invalid, "", "%q is not the ID of a control plane.", id)
	}
	in := p.instance(id)
	in.apply.Lock()
	defer in.apply.Unlock()
	release, err := in.rest(ctx)
	if err != nil {
		return err
	}
	defer release()
	if err := p.end(ctx, id, p.supervisor.Kill, everything()...); err != nil {
		return fmt.Errorf("remove control plane %s: %w", id, err)
	}
	if err := cgroup.Delete(p.group(id)); err != nil {
		return fmt.Errorf("remove control plane %s: %w", id, err)
	}
	if err := p.removeDirs(id); err != nil {
		return fmt.Errorf("remove control plane %s: %w", id, err)
	}
	p.mu.Lock()
	delete(p.byID, id)
	p.mu.Unlock()
	p.changes.add(id)
	return nil
}

// renew starts again what runs, which issues the certificates that are due.
func (p *Plane) renew() {
	for _, in := range p.instances() {
		if err := p.renewOne(in); err != nil {
			p.Logger.Error("certificates not renewed", "controlplane", in.id, "error", err)
		}
	}
}

func (p *Plane) renewOne(in *instance) error {
	in.apply.Lock()
	defer in.apply.Unlock()
	p.mu.Lock()
	removed := p.byID[in.id] != in
	p.mu.Unlock()
	spec, known := in.current()
	if removed || !known || spec.Stopped {
		return nil
	}
	return p.start(in, spec)
}

func (p *Plane) instances() []*instance {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]*instance, 0, len(p.byID))
	for _, in := range p.byID {
		all = append(all, in)
	}
	slices.SortFunc(all, func(a, b *instance) int { return compare(a.id, b.id) })
	return all
}
