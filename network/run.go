// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
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
	// listPause is the wait after documents couldn't be listed.
	listPause = time.Second
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
	for _, prefix := range []string{arm.DocumentPrefix, serverPrefix, tagsKey,
		host.ReportKey(p.Host, host.VNetUnit, ""), host.ReportKey(p.Host, host.EdgeUnit, "")} {
		group.Add(prefix, func(ctx context.Context) error { return r.follow(ctx, prefix) })
	}
	group.Add("reconciler", reconcile.Loop{Name: everything, Queue: r.queue, Logger: p.Log,
		Reconciler: reconcile.Func(r.reconcile)}.Run)
	return group.Run(ctx)
}

// tagsKey is a record that changes when the operator's service tags did.
const tagsKey = "network/tags"

// TagsChanged has networks compiled anew with what Config.Tags gives now.
func (p *Provider) TagsChanged(ctx context.Context) error {
	if _, err := p.Store.Put(ctx, tagsKey, []byte("{}"), store.Any); err != nil {
		return fmt.Errorf("service tags: %w", err)
	}
	return nil
}

// follow asks for work whenever something under prefix changes, however often the watch breaks.
func (r *runner) follow(ctx context.Context, prefix string) error {
	for ctx.Err() == nil {
		_, revision, err := r.Store.List(ctx, prefix)
		if err != nil {
			if ctx.Err() == nil {
				r.Log.ErrorContext(ctx, "listing failed", "prefix", prefix, "error", err)
				pause(ctx, listPause)
			}
			continue
		}
		r.removed.Store(true)
		r.queue.Add(everything)
		for event := range r.Store.Watch(ctx, prefix, revision) {
			r.see(prefix, event)
		}
	}
	return nil
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

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
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
	wrote, err := r.write(ctx, want, have)
	if fault.Is(err, fault.Precondition) {
		return soon, nil
	}
	if err != nil {
		return 0, err
	}
	again, err := r.conclude(ctx, want, have, wrote)
	if err != nil {
		return 0, err
	}
	return again, r.sweep(ctx)
}

// write stores the units that differ, asks the host to remove those that aren't
// wanted, and forgets those it has removed. It returns the networks it wrote.
func (r *runner) write(ctx context.Context, want *compiled, have standing) (map[string]bool, error) {
	wrote := map[string]bool{}
	for name, value := range want.units {
		unit := have[name]
		if string(unit.value) == string(value) {
			continue
		}
		revision, err := r.Store.Put(ctx, r.unitKey(name), value, unit.revision)
		if err != nil {
			return nil, err
		}
		have[name] = stand{value: value, revision: revision}
		wrote[name] = true
	}
	for name, unit := range have {
		if want.units[name] != nil || unit.value == nil {
			continue
		}
		switch {
		case !unit.tombstoned():
			revision, err := r.Store.Put(ctx, r.unitKey(name), host.Tombstone, unit.revision)
			if err != nil {
				return nil, err
			}
			have[name] = stand{value: host.Tombstone, revision: revision}
			wrote[name] = true
		case unit.answered() && unit.report.Gone:
			_, err := r.Store.Txn(ctx, store.Change{Key: r.unitKey(name), Revision: unit.revision},
				store.Change{Key: r.reportKey(name), Revision: store.Any})
			if err != nil {
				return nil, err
			}
			delete(have, name)
		}
	}
	return wrote, nil
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
