// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"log/slog"
	"sync"

	"bastide.dev/controlplane"
	"bastide.dev/dataplane"
	"bastide.dev/machine"
	"bastide.dev/metadata"
)

// Network is the machine's data plane.
type Network interface {
	// Apply makes the whole configuration so. netns finds a machine's network
	// namespace; a NIC whose machine has none yet is left out of the status.
	Apply(ctx context.Context, config dataplane.Config, netns func(machine string) string) (map[string]dataplane.VNetStatus, error)
}

// ControlPlanes runs control planes. Apply and Remove are idempotent.
type ControlPlanes interface {
	Apply(ctx context.Context, spec controlplane.Spec) error
	Remove(ctx context.Context, id string) error
	Status(id string) controlplane.Status
	IDs() []string
	Changed() <-chan string
}

// Machines is what an Agent needs of a machine.Provider, which says how each
// method behaves.
type Machines interface {
	Create(ctx context.Context, spec machine.Spec) error
	Boot(ctx context.Context, spec machine.Spec) error
	Stop(ctx context.Context, id string) error
	Delete(ctx context.Context, id string) error
	Netns(id string) string
	Status(ctx context.Context) ([]machine.Status, error)
	Changed() <-chan string
}

// Link is the way to serve: it streams units and delivers reports.
type Link interface {
	// Units calls receive for each unit until the stream or ctx ends.
	Units(ctx context.Context, receive func(Unit)) error
	Report(ctx context.Context, reports []Report) error
}

// Metadata answers machines at the metadata address. Its methods are idempotent.
type Metadata interface {
	Put(m metadata.Machine) error
	Remove(machine string)
}

// Config is what an Agent needs; every field is required, Queries by queries,
// Metadata by its units.
type Config struct {
	Link          Link
	Network       Network
	ControlPlanes ControlPlanes
	Machines      Machines
	Queries       Queries
	Metadata      Metadata
	Log           *slog.Logger
}

// Agent makes a host what its units say. Stopping it stops nothing that it
// started: control planes and machines go on, and the next Agent adopts them.
type Agent struct {
	Config
	net    *networkKeeper
	outbox *outbox

	mu      sync.Mutex // guards keepers and seen
	keepers map[unitKey]*keeper
	seen    map[unitKey]bool // in the listing that is being received

	keeping sync.WaitGroup // the keepers' goroutines
}

type unitKey struct {
	kind Kind
	name string
}

// NewAgent returns an agent that does nothing until Run.
func NewAgent(config Config) *Agent {
	a := &Agent{Config: config, keepers: map[unitKey]*keeper{}, outbox: newOutbox(config.Link, config.Log)}
	a.net = newNetworkKeeper(config.Network, config.Machines.Netns, a.outbox, config.Log)
	return a
}

// Run pulls units and keeps them until ctx ends; then it returns nil, after
// every goroutine it started has ended.
func (a *Agent) Run(ctx context.Context) error {
	var parts sync.WaitGroup
	parts.Go(func() { a.outbox.run(ctx) })
	parts.Go(func() { a.net.run(ctx) })
	parts.Go(func() { a.wakeChanged(ctx) })
	a.follow(ctx)
	a.keeping.Wait()
	parts.Wait()
	return nil
}

// follow keeps a stream of units open, however often it breaks.
func (a *Agent) follow(ctx context.Context) {
	var retry backoff
	for ctx.Err() == nil {
		a.mu.Lock()
		a.seen = map[unitKey]bool{}
		a.mu.Unlock()
		err := a.Link.Units(ctx, func(u Unit) {
			retry.reset()
			a.receive(ctx, u)
		})
		if ctx.Err() == nil {
			a.Log.Warn("the stream of units ended", "error", err)
			retry.wait(ctx)
		}
	}
}

func (a *Agent) receive(ctx context.Context, u Unit) {
	if u.Synced {
		a.synced(ctx)
		return
	}
	a.mu.Lock()
	if a.seen != nil {
		a.seen[unitKey{u.Kind, u.Name}] = true
	}
	a.mu.Unlock()
	switch u.Kind {
	case EdgeUnit, VNetUnit:
		a.net.set(u)
	case ControlPlaneUnit, MachineUnit, MetadataUnit, QueryUnit:
		a.keep(ctx, u)
	default:
		a.outbox.put(Report{Kind: u.Kind, Name: u.Name, Generation: u.Generation, Error: "this host doesn't know units of kind " + string(u.Kind)})
	}
}

// synced compares the full listing with what stands on this host, and removes
// what nobody asks for any more.
func (a *Agent) synced(ctx context.Context) {
	a.mu.Lock()
	seen := a.seen
	a.seen = nil
	stale := map[unitKey]bool{}
	for key := range a.keepers {
		stale[key] = !seen[key]
	}
	a.mu.Unlock()
	for _, id := range a.ControlPlanes.IDs() {
		stale[unitKey{ControlPlaneUnit, id}] = !seen[unitKey{ControlPlaneUnit, id}]
	}
	machines, err := a.Machines.Status(ctx)
	if err != nil {
		a.Log.Error("listing machines", "error", err)
	}
	for _, m := range machines {
		stale[unitKey{MachineUnit, m.ID}] = !seen[unitKey{MachineUnit, m.ID}]
	}
	for key, gone := range stale {
		if gone {
			a.Log.Info("removing what no unit asks for", "kind", key.kind, "name", key.name)
			a.keep(ctx, Unit{Kind: key.kind, Name: key.name, Deleted: true})
		}
	}
	a.net.synced(seen)
}

// keep hands a unit to its keeper, which is started when there is none.
func (a *Agent) keep(ctx context.Context, u Unit) {
	key := unitKey{u.Kind, u.Name}
	a.mu.Lock()
	defer a.mu.Unlock()
	if k := a.keepers[key]; k != nil {
		k.set(u)
		return
	}
	k := newKeeper(u, a.maker(key), a.outbox, a.Log)
	a.keepers[key] = k
	a.keeping.Go(func() { k.run(ctx, func() bool { return a.forget(key, k) }) })
}

// forget drops a keeper whose unit is gone, unless the unit came back meanwhile.
func (a *Agent) forget(key unitKey, k *keeper) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !k.idle() {
		return false
	}
	delete(a.keepers, key)
	return true
}

func (a *Agent) maker(key unitKey) maker {
	switch key.kind {
	case MachineUnit:
		return &machineMaker{provider: a.Machines, net: a.net}
	case MetadataUnit:
		return &metadataMaker{metadata: a.Metadata}
	case QueryUnit:
		return &queryMaker{queries: a.Queries, machines: a.Machines}
	}
	return &controlPlaneMaker{planes: a.ControlPlanes, net: a.net}
}

// wakeChanged lets a keeper look again when what it keeps changed by itself.
func (a *Agent) wakeChanged(ctx context.Context) {
	wake := func(kind Kind, name string) {
		a.mu.Lock()
		defer a.mu.Unlock()
		if k := a.keepers[unitKey{kind, name}]; k != nil {
			k.wake()
		}
	}
	for {
		select {
		case <-ctx.Done():
			return
		case id := <-a.ControlPlanes.Changed():
			wake(ControlPlaneUnit, id)
		case id := <-a.Machines.Changed():
			wake(MachineUnit, id)
		}
	}
}
