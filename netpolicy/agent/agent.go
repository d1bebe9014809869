// SPDX-License-Identifier: Apache-2.0

// Package agent keeps the network policies of one node in its kernel. It
// follows the cluster's objects, compiles them, and puts the table in place
// whole; while it is away the kernel keeps the last one. New pods are held back
// by netpolicy/cni until their rules are there.
//
// Only cmd/bastide-netpolicy runs it. It speaks to the API server itself, with
// net/http, as it is to be small: each node has one.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"sync"
	"time"

	"bastide.dev/netpolicy"
	"bastide.dev/ruleset"
)

// Kernel is where the table goes. Put is atomic and changes only what differs;
// it may be called again after a failure. Counters are of what was put last.
type Kernel interface {
	Put(table ruleset.Table) error
	Counters() ([]ruleset.Counter, error)
	// Cut ends the connections of which refused says so, judging by their first
	// packet, and returns how many it ended.
	Cut(refused func(hook ruleset.Hook, first ruleset.Packet) bool) (int, error)
}

const (
	debounce = 5 * time.Millisecond   // changes come in groups
	longest  = 100 * time.Millisecond // a change waits no longer for the one before
	retry    = 200 * time.Millisecond
	// A connection that the old table let through may enter the kernel's list
	// just after it was looked through.
	lookAgain = 100 * time.Millisecond
)

// Config is what an Agent needs. All of it is required.
type Config struct {
	netpolicy.AgentConfig
	Kernel Kernel
	Logger *slog.Logger
}

// Agent keeps one node. Its methods are called by Run alone.
type Agent struct {
	cfg     Config
	server  *server
	cluster *cluster
	stale   chan struct{} // holds one token after the table changed

	mu      sync.Mutex // guards what follows
	applied applied
	status  netpolicy.AgentStatus
	problem string
}

// applied is what the kernel has.
type applied struct {
	table   ruleset.Table
	version int64
	local   map[netip.Addr]string
	next    chan struct{} // closed when there is a newer one
}

// New makes an agent, which does nothing before Run.
func New(c Config) (*Agent, error) {
	s, err := newServer(c.AgentConfig)
	if err != nil {
		return nil, fmt.Errorf("policy agent: %w", err)
	}
	known, err := newCluster(c.Node, c.Sandboxes)
	if err != nil {
		return nil, fmt.Errorf("policy agent: sandboxes: %w", err)
	}
	return &Agent{cfg: c, server: s, cluster: known, stale: make(chan struct{}, 1), applied: applied{next: make(chan struct{})}}, nil
}

// Run works until ctx ends, and leaves the kernel's table as it is then. It
// fails only when it can't listen.
func (a *Agent) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	for k := range kinds {
		all.Go(func() { a.follow(ctx, k) })
	}
	all.Go(func() { a.keep(ctx) })
	all.Go(func() { a.keepCutting(ctx) })
	err := a.serve(ctx)
	cancel()
	all.Wait()
	return err
}

// keep puts the table in place whenever what it is made of changed.
func (a *Agent) keep(ctx context.Context) {
	var p pace
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.cluster.changed:
		}
		sleep(ctx, debounce)
		begin := time.Now()
		if err := a.apply(); err != nil {
			a.cfg.Logger.Error("policies not applied", "error", err)
			a.trouble(err)
			sleep(ctx, retry)
			a.cluster.again()
			continue
		}
		// A cluster in turmoil gets its policies in turns, and the node its CPU.
		sleep(ctx, p.spent(time.Since(begin), time.Now()))
	}
}

// apply compiles what is known and puts it in place. Nothing happens before all
// is known: the kernel keeps what an earlier agent left.
func (a *Agent) apply() error {
	state, version, ok := a.cluster.snapshot()
	if !ok {
		return nil
	}
	state.Ranges = a.cfg.Ranges
	begin := time.Now()
	table := netpolicy.Compile(state)
	local := netpolicy.Local(state)
	compiled := time.Now()
	a.mu.Lock()
	same := a.status.Synced && reflect.DeepEqual(a.applied.table, table)
	a.mu.Unlock()
	if !same {
		if err := a.cfg.Kernel.Put(table); err != nil {
			return fmt.Errorf("put policies: %w", err)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	close(a.applied.next)
	a.applied = applied{table, version, local, make(chan struct{})}
	a.status.Synced, a.status.Pods, a.status.Policies = true, len(state.Pods), len(state.Policies)+len(state.ClusterPolicies)
	if !same {
		a.status.Puts++
		a.status.CompileMicros, a.status.PutMicros = compiled.Sub(begin).Microseconds(), time.Since(compiled).Microseconds()
		a.markStale()
	}
	return nil
}

func (a *Agent) markStale() {
	select {
	case a.stale <- struct{}{}:
	default:
	}
}

// keepCutting ends what the table doesn't allow any more. The table itself
// decides about the first packet of a connection only: that keeps the price of
// thousands of rules off every other packet.
func (a *Agent) keepCutting(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.stale:
		}
		a.cut()
		sleep(ctx, lookAgain)
		a.cut()
	}
}

func (a *Agent) cut() {
	a.mu.Lock()
	table := a.applied.table
	a.mu.Unlock()
	n, err := a.cfg.Kernel.Cut(newJudge(table, a.cfg.Ranges).refuses)
	if err != nil {
		a.cfg.Logger.Error("connections not looked through", "error", err)
		a.trouble(err)
	}
	a.mu.Lock()
	a.status.Cut += int64(n)
	a.mu.Unlock()
}

// awaitSandbox returns when the kernel's table has a sandbox's pod as of version
// or later.
func (a *Agent) awaitSandbox(ctx context.Context, s netpolicy.Sandbox, version int64) error {
	for {
		a.mu.Lock()
		now := a.applied
		a.mu.Unlock()
		if now.version >= version && a.covers(now, s) {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.New("the pod's policies aren't in place yet: " + a.why(s))
		case <-now.next:
		}
	}
}

func (a *Agent) covers(now applied, s netpolicy.Sandbox) bool {
	uid := a.cluster.uid(s)
	for _, address := range s.Addresses {
		if uid == "" || now.local[address] != uid {
			return false
		}
	}
	return len(s.Addresses) > 0
}

func (a *Agent) why(s netpolicy.Sandbox) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.problem != "":
		return a.problem
	case !a.status.Synced:
		return "the cluster's policies haven't been read yet"
	}
	return fmt.Sprintf("pod %s/%s with UID %s hasn't been seen on this node", s.Namespace, s.Name, s.UID)
}

// trouble notes what goes wrong, and logs it once; nil says that it is over.
func (a *Agent) trouble(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	a.mu.Lock()
	news := text != a.problem
	a.problem = text
	a.mu.Unlock()
	if news && err != nil {
		a.cfg.Logger.Warn("trouble", "error", err)
	}
}
