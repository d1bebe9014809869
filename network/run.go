// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/host"
	"bastide.dev/reconcile"
	"bastide.dev/store"
)

const (
	// everything is the reconciler's one key: networks depend on each other.
	everything = "networks"
	// soon is when to look again after a lost race.
	soon = time.Millisecond
	// patience is how long a host may report an error before operations fail of it.
	patience = 10 * time.Second
)

// runner is one run of the reconciler. What it remembers is only for speed and
// patience. Its one key has one worker at a time, which needs no lock.
type runner struct {
	*Provider
	queue   *reconcile.Queue
	removed atomic.Bool // a document went since addresses were last looked through

	first      bool                 // round since the start
	operations map[string]*pending  // that run, by id
	troubled   map[string]time.Time // since when a unit's host reports an error
}

// pending is an operation that waits for its networks.
type pending struct {
	since   time.Time
	touched map[string]bool // networks that changed when it was first seen
	foreign bool            // it is on another provider's resource, which ends it
}

// Run keeps the host's units what the documents say, and ends operations when
// their effect is there, until ctx ends. Several may run over one store: each
// write is conditional.
func (p *Provider) Run(ctx context.Context) error {
	r := &runner{Provider: p, queue: reconcile.NewQueue(reconcile.Backoff{Min: 50 * time.Millisecond, Max: 10 * time.Second}),
		first: true, operations: map[string]*pending{}, troubled: map[string]time.Time{}}
	r.removed.Store(true)
	var group reconcile.Group
	for _, prefix := range []string{arm.DocumentPrefix, serverPrefix,
		host.ReportKey(p.Host, host.VNetUnit, ""), host.ReportKey(p.Host, host.EdgeUnit, "")} {
		group.Add(prefix, func(ctx context.Context) error {
			return store.FollowFrom(ctx, p.Store, prefix, p.Log, r.listed, func(event store.Event) { r.see(prefix, event) })
		})
	}
	group.Add("reconciler", reconcile.Loop{Name: everything, Queue: r.queue, Logger: p.Log,
		Reconciler: reconcile.Func(r.reconcile)}.Run)
	return group.Run(ctx)
}

// listed begins anew after a listing: what went meanwhile isn't known.
func (r *runner) listed([]store.Record) {
	r.removed.Store(true)
	r.queue.Add(everything)
}

// see takes a change. Documents of other kinds don't matter, but that what had
// a public address may be gone.
func (r *runner) see(prefix string, event store.Event) {
	if prefix == arm.DocumentPrefix {
		if event.Deleted {
			r.removed.Store(true)
		} else if !wanted(typeOfKey(event.Key)) {
			return
		}
	}
	r.queue.Add(everything)
}

// reconcile does one round: units are made what the documents compile to, then
// operations are ended whose networks stand.
func (r *runner) reconcile(ctx context.Context, _ string) (time.Duration, error) {
	want, err := r.compiledNow(ctx)
	if err != nil {
		return 0, err
	}
	have, err := r.standing(ctx)
	if err != nil {
		return 0, err
	}
	wrote, unwritten := r.write(ctx, want, have)
	switch {
	case fault.Is(unwritten, fault.Precondition):
		return soon, nil
	case fault.Is(unwritten, fault.Unavailable):
		return 0, unwritten
	}
	again, err := r.conclude(ctx, want, have, wrote)
	if err == nil {
		err = r.sweep(ctx)
	}
	return again, errors.Join(unwritten, err)
}

// write stores the units that differ, asks the host to remove those that aren't
// wanted, and forgets those it has removed. It returns the networks it wrote. A
// unit that the store refuses is that network's trouble and holds up no other.
func (r *runner) write(ctx context.Context, want *compiled, have standing) (map[string]bool, error) {
	wrote := map[string]bool{}
	var refused []error
	put := func(name string, value []byte) error {
		unit := have[name]
		revision, err := r.Store.Put(ctx, r.unitKey(name), value, unit.revision)
		switch {
		case fault.Is(err, fault.Precondition), fault.Is(err, fault.Unavailable):
			return err
		case err != nil:
			unit.refused = err.Error()
			have[name], refused = unit, append(refused, fmt.Errorf("unit %s: %w", name, err))
		default:
			have[name], wrote[name] = stand{value: value, revision: revision}, true
		}
		return nil
	}
	for name, value := range want.units {
		if string(have[name].value) != string(value) {
			if err := put(name, value); err != nil {
				return nil, err
			}
		}
	}
	for name, unit := range have {
		var err error
		switch {
		case want.units[name] != nil || unit.value == nil:
		case !unit.tombstoned():
			err = put(name, host.Tombstone)
		case unit.answered() && unit.report.Gone:
			err = r.forget(ctx, name, unit)
			delete(have, name)
		}
		if err != nil {
			return nil, err
		}
	}
	return wrote, errors.Join(refused...)
}

// forget removes the documents of a unit of which the host has nothing left.
func (r *runner) forget(ctx context.Context, name string, unit stand) error {
	_, err := r.Store.Txn(ctx, store.Change{Key: r.unitKey(name), Revision: unit.revision},
		store.Change{Key: r.reportKey(name), Revision: store.Any})
	return err
}

// unitKey is the store's key of a unit: of the edge, or a network's.
func (p *Provider) unitKey(name string) string {
	if name == edgeUnit {
		return host.UnitKey(p.Host, host.EdgeUnit, edgeUnit)
	}
	return host.UnitKey(p.Host, host.VNetUnit, name)
}

func (p *Provider) reportKey(name string) string {
	return strings.Replace(p.unitKey(name), "/units/", "/reports/", 1)
}
