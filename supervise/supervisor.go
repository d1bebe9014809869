// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"

	"bastide.dev/fault"
)

// Config is what a Supervisor needs; both fields are required.
type Config struct {
	RunDir string // one file a process; on a file system that a reboot empties
	Logger *slog.Logger
}

// Supervisor keeps processes running. Safe for concurrent use.
type Supervisor struct {
	Config
	ctx     context.Context // ends when Run does
	cancel  context.CancelFunc
	keepers sync.WaitGroup
	changed chan string

	mu     sync.Mutex // guards closed and byName
	closed bool
	byName map[string]*keeper
}

var nameForm = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]*$`)

// New makes a supervisor that has no processes yet: those of an earlier one are
// adopted, or replaced, when they are set.
func New(c Config) (*Supervisor, error) {
	if err := os.MkdirAll(c.RunDir, 0o700); err != nil {
		return nil, fmt.Errorf("make run directory: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Supervisor{Config: c, ctx: ctx, cancel: cancel, changed: make(chan string, 256), byName: map[string]*keeper{}}, nil
}

// Run returns when ctx ends and nothing of the supervisor itself runs any more.
// The processes go on.
func (s *Supervisor) Run(ctx context.Context) error {
	<-ctx.Done()
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.keepers.Wait()
	return nil
}

// Set asks for a process: it is started, adopted, or replaced when its
// definition is another. Set doesn't wait for it; Status and Changed tell.
func (s *Supervisor) Set(p Process) error {
	if !nameForm.MatchString(p.Name) || !filepath.IsAbs(p.Path) {
		return fault.New(fault.Invalid, "", "Process %q needs a name and an absolute path.", p.Name)
	}
	hash, err := p.hash()
	if err != nil {
		return err
	}
	want := &wanted{Process: p, hash: hash}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fault.New(fault.Unavailable, "", "The supervisor has ended.")
	}
	k := s.byName[p.Name]
	if k == nil {
		k = newKeeper(s, want)
		s.byName[p.Name] = k
		s.keepers.Go(k.run)
		return nil
	}
	k.ask(want)
	return nil
}

// Stop ends a process with all it started, and forgets it. It returns when that
// is done; what isn't there is no error.
func (s *Supervisor) Stop(ctx context.Context, name string) error { return s.end(ctx, name, false) }

// Kill is Stop without asking the process.
func (s *Supervisor) Kill(ctx context.Context, name string) error { return s.end(ctx, name, true) }

func (s *Supervisor) end(ctx context.Context, name string, kill bool) error {
	s.mu.Lock()
	k := s.byName[name]
	s.mu.Unlock()
	if k == nil {
		return endRecorded(ctx, s.RunDir, name, kill)
	}
	k.ask(&wanted{stop: true, kill: kill})
	select {
	case <-ctx.Done():
		return fmt.Errorf("stop %s: %w", name, ctx.Err())
	case <-k.ended:
		return k.endError
	}
}

// forget is called by a keeper that was asked to stop and has.
func (s *Supervisor) forget(k *keeper) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byName[k.name] == k {
		delete(s.byName, k.name)
	}
}

// Recorded lists the processes that this supervisor or an earlier one with the
// same run directory started and that were not stopped.
func (s *Supervisor) Recorded() ([]string, error) { return Recorded(s.RunDir) }

// Status tells of one process; false when it isn't set.
func (s *Supervisor) Status(name string) (Status, bool) {
	s.mu.Lock()
	k := s.byName[name]
	s.mu.Unlock()
	if k == nil {
		return Status{}, false
	}
	return k.current(), true
}

// All tells of every process that is set, by name.
func (s *Supervisor) All() []Status {
	s.mu.Lock()
	keepers := make([]*keeper, 0, len(s.byName))
	for _, k := range s.byName {
		keepers = append(keepers, k)
	}
	s.mu.Unlock()
	all := make([]Status, len(keepers))
	for i, k := range keepers {
		all[i] = k.current()
	}
	slices.SortFunc(all, func(a, b Status) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// Changed receives the name of a process whose status changed. A reader that is
// slow misses repeats, so it looks at all when it comes late.
func (s *Supervisor) Changed() <-chan string { return s.changed }

func (s *Supervisor) notify(name string) {
	select {
	case s.changed <- name:
	default:
	}
}
