// SPDX-License-Identifier: Apache-2.0

// Package linux makes machines of namespaces: user, mount, pid, net, uts, ipc
// and cgroup. A machine's root is uid 0 only inside; its files are an overlay
// on a read-only image, its limits a control group that it can't see.
//
// It is one implementation of machine.Provider, for host and testcloud. The
// agent binary calls Init when it is started as a machine's first process.
package linux

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"bastide.dev/cgroup"
	"bastide.dev/fault"
	"bastide.dev/machine"
)

// InitCommand is the hidden command under which the agent must call Init.
const InitCommand = "machine-init"

// Range is how many user and group ids a machine has.
const Range = 65536

// Config is what a Provider needs. All but Programs and Logger is required.
type Config struct {
	Instance string
	StateDir string // the machines' disks; root only
	RunDir   string // what runs; gone after a restart of the computer
	CacheDir string // images/<version>/{rootfs,containerd} and bundles/<name>@<version>/root
	UIDBase  uint32 // the first id of the first machine; Range ids follow for each
	Agent    string // the binary that is PID 1 in machines
	// Programs are further ones that each machine has, like its agent: the path
	// inside leads to the binary here. It may be empty.
	Programs map[string]string
	Logger   *slog.Logger
}

// Provider is a machine.Provider. Close it to stop watching; machines run on.
type Provider struct {
	cfg Config
	// The agent's content-addressed copy, and those of the other programs.
	agent    string
	programs []program
	changes  *changes
	trash    *trash
	watches  sync.WaitGroup
	closing  chan struct{}

	mu    sync.Mutex // guards boxes and each box's fields but op
	boxes map[string]*box
}

// box is a machine as the provider knows it.
type box struct {
	op sync.Mutex // held through a whole operation on the machine

	id       string
	disk     disk
	run      run
	proc     *process // nil when nothing runs
	stage1   *os.File // its socket, until it is booted
	failure  string
	guest    words
	stopping bool
}

var _ machine.Provider = (*Provider)(nil)

// New adopts the machines that run and finds those that are on disk.
func New(cfg Config) (*Provider, error) {
	if cfg.Instance == "" || cfg.StateDir == "" || cfg.RunDir == "" || cfg.CacheDir == "" || cfg.Agent == "" || cfg.UIDBase < Range {
		return nil, errors.New("machine provider: incomplete config")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	p := &Provider{cfg: cfg, closing: make(chan struct{}), boxes: map[string]*box{}}
	for _, dir := range []string{p.machinesDir(), p.agentsDir(), p.trashDir(), p.runDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("machine provider: %w", err)
		}
	}
	if err := raiseLimits("/proc/sys"); err != nil {
		cfg.Logger.Warn("few machines may fit on this computer", "error", err)
	}
	if err := p.keepPrograms(); err != nil {
		return nil, fmt.Errorf("machine provider: keep agent: %w", err)
	}
	p.changes = newChanges()
	p.trash = newTrash(p.trashDir(), cfg.Logger)
	if err := p.adoptAll(); err != nil {
		return nil, errors.Join(fmt.Errorf("machine provider: %w", err), p.Close())
	}
	p.lookAtGuests() // before the first Status
	p.watches.Go(p.hearGuests)
	return p, nil
}

// program is one that machines have, beside their agent.
type program struct{ inside, copy string }

func (p *Provider) keepPrograms() error {
	inside := slices.Sorted(maps.Keys(p.cfg.Programs))
	files := []string{p.cfg.Agent}
	for _, path := range inside {
		files = append(files, p.cfg.Programs[path])
	}
	copies, err := keepPrograms(p.agentsDir(), files...)
	if err != nil {
		return err
	}
	p.agent = copies[0]
	for i, path := range inside {
		p.programs = append(p.programs, program{path, copies[i+1]})
	}
	return nil
}

// Close stops watching machines and waits for what it had in hand.
func (p *Provider) Close() error {
	close(p.closing)
	p.mu.Lock()
	for _, b := range p.boxes {
		if b.proc != nil {
			b.proc.unwatch()
		}
	}
	p.mu.Unlock()
	p.watches.Wait()
	p.trash.close()
	p.changes.close()
	return nil
}

// Changed implements machine.Provider.
func (p *Provider) Changed() <-chan string { return p.changes.out }

// Netns implements machine.Provider.
func (p *Provider) Netns(id string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if b := p.boxes[id]; b != nil && b.proc != nil {
		return fmt.Sprintf("/proc/%d/ns/net", b.proc.pid)
	}
	return ""
}

// Status implements machine.Provider.
func (p *Provider) Status(context.Context) ([]machine.Status, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []machine.Status
	for _, b := range p.boxes {
		if b.disk.Image == "" {
			continue // being created
		}
		s := machine.Status{ID: b.id, Phase: machine.Stopped, Boots: b.run.Boots, Images: b.disk.Images, Error: b.failure}
		switch {
		case b.proc != nil && b.run.Booted:
			s.Phase, s.PID, s.Guest = machine.Running, b.proc.pid, b.guest.said
		case b.proc != nil:
			s.Phase, s.PID = machine.Preparing, b.proc.pid
		case b.failure != "":
			s.Phase = machine.Failed
		}
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b machine.Status) int { return strings.Compare(a.ID, b.ID) })
	return all, nil
}

// Create implements machine.Provider.
func (p *Provider) Create(ctx context.Context, spec machine.Spec) error {
	if err := p.check(spec); err != nil {
		return err
	}
	b := p.lock(spec.ID)
	defer b.op.Unlock()
	if p.running(b) != nil && spec.Images > b.disk.Images {
		p.end(b, 0)
	}
	if p.running(b) != nil && b.run.Booted && spec.Boots > b.run.Boots {
		p.end(b, stopGrace)
	}
	if err := p.prepareDisk(ctx, b, spec); err != nil {
		return fmt.Errorf("machine %s: prepare disk: %w", spec.ID, err)
	}
	if err := cgroup.Create(p.group(spec.ID), limitsOf(spec)); err != nil {
		return fmt.Errorf("machine %s: %w", spec.ID, err)
	}
	if p.running(b) != nil {
		if err := p.refresh(b, spec); err != nil {
			return fmt.Errorf("machine %s: %w", spec.ID, err)
		}
		return nil
	}
	if err := p.start(b, spec); err != nil {
		return fmt.Errorf("machine %s: start: %w", spec.ID, err)
	}
	p.changes.add(spec.ID)
	return nil
}

// Boot implements machine.Provider.
func (p *Provider) Boot(ctx context.Context, spec machine.Spec) error {
	if err := p.check(spec); err != nil {
		return err
	}
	b := p.lock(spec.ID)
	defer b.op.Unlock()
	if p.running(b) == nil || spec.Images > b.disk.Images || b.run.Booted && spec.Boots > b.run.Boots {
		return fault.New(fault.Conflict, "MachineNotCreated", "Machine %s has to be created before it can be booted.", spec.ID)
	}
	if b.run.Booted {
		return nil
	}
	if err := p.boot(ctx, b, spec); err != nil {
		p.end(b, 0)
		return fmt.Errorf("machine %s: boot: %w", spec.ID, err)
	}
	p.changes.add(spec.ID)
	return nil
}

// stopGrace is how long a machine has to stop cleanly.
const stopGrace = 4 * time.Second

// Stop implements machine.Provider.
func (p *Provider) Stop(_ context.Context, id string) error {
	b := p.known(id)
	if b == nil {
		return nil
	}
	b.op.Lock()
	defer b.op.Unlock()
	p.end(b, stopGrace)
	if err := cgroup.Delete(p.group(id)); err != nil {
		return fmt.Errorf("machine %s: stop: %w", id, err)
	}
	p.set(func() { b.failure = "" })
	p.changes.add(id)
	return nil
}

// Delete implements machine.Provider.
func (p *Provider) Delete(_ context.Context, id string) error {
	b := p.known(id)
	if b == nil {
		return nil
	}
	b.op.Lock()
	defer b.op.Unlock()
	p.end(b, 0)
	if err := cgroup.Delete(p.group(id)); err != nil {
		return fmt.Errorf("machine %s: delete: %w", id, err)
	}
	if err := p.trash.take(p.machineDir(id)); err != nil {
		return fmt.Errorf("machine %s: delete: %w", id, err)
	}
	if err := removeIfThere(p.runFile(id)); err != nil {
		return fmt.Errorf("machine %s: delete: %w", id, err)
	}
	// Whoever waited for the box meanwhile finds it empty and another in its place.
	p.set(func() {
		b.disk, b.run, b.failure = disk{}, run{}, ""
		if p.boxes[id] == b {
			delete(p.boxes, id)
		}
	})
	p.changes.add(id)
	return nil
}

// lock returns the box of id, made if there is none, with its operation lock held.
func (p *Provider) lock(id string) *box {
	for {
		p.mu.Lock()
		b := p.boxes[id]
		if b == nil {
			b = &box{id: id}
			p.boxes[id] = b
		}
		p.mu.Unlock()
		b.op.Lock()
		if p.known(id) == b {
			return b
		}
		b.op.Unlock() // deleted while we waited
	}
}

func (p *Provider) known(id string) *box {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.boxes[id]
}

func (p *Provider) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
}

var idPattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

func (p *Provider) check(spec machine.Spec) error {
	var problems []*fault.Error
	refuse := func(target, format string, args ...any) {
		problems = append(problems, fault.New(fault.Invalid, "InvalidParameter", format, args...).At(target))
	}
	if !idPattern.MatchString(spec.ID) {
		refuse("id", "%q isn't a machine's name.", spec.ID)
	}
	if spec.CPUs < 1 || spec.Memory < 64<<20 {
		refuse("memory", "A machine has at least one CPU and 64 MiB, not %d and %d bytes.", spec.CPUs, spec.Memory)
	}
	for _, dir := range p.lowers(spec.Image, spec.Layers) {
		if _, err := os.Stat(dir); err != nil {
			refuse("image", "%s of machine %s isn't there.", dir, spec.ID)
		}
	}
	for _, f := range spec.Files {
		if !filepath.IsAbs(f.Path) {
			refuse("files", "%q isn't absolute.", f.Path)
		}
	}
	return fault.Join(problems...)
}

func limitsOf(spec machine.Spec) cgroup.Limits {
	return cgroup.Limits{CPUs: float64(spec.CPUs), Memory: spec.Memory, PIDs: 32768, Devices: []string{
		"c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm", // null zero full random urandom
		"c 5:0 rwm", "c 5:2 rwm", "c 136:* rwm", // tty ptmx pts
	}}
}

// lowers are the directories beneath a machine's own files, the topmost first.
func (p *Provider) lowers(image string, layers []string) []string {
	var dirs []string
	for _, layer := range slices.Backward(layers) {
		dirs = append(dirs, filepath.Join(p.cfg.CacheDir, "bundles", layer, "root"))
	}
	return append(dirs, filepath.Join(p.imageDir(image), "rootfs"))
}

// group is the machine's control group; the machine itself lives in "root" below it.
func (p *Provider) group(id string) string { return "bastide-" + p.cfg.Instance + "/machines/" + id }

func (p *Provider) imageDir(image string) string {
	return filepath.Join(p.cfg.CacheDir, "images", image)
}
func (p *Provider) machinesDir() string         { return filepath.Join(p.cfg.StateDir, "machines") }
func (p *Provider) machineDir(id string) string { return filepath.Join(p.machinesDir(), id) }
func (p *Provider) agentsDir() string           { return filepath.Join(p.cfg.StateDir, "agents") }
func (p *Provider) trashDir() string            { return filepath.Join(p.cfg.StateDir, "trash") }
func (p *Provider) runDir() string              { return filepath.Join(p.cfg.RunDir, "machines") }
func (p *Provider) runFile(id string) string    { return filepath.Join(p.runDir(), id+".json") }
