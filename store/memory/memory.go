// SPDX-License-Identifier: Apache-2.0

// Package memory is a store in the process's memory: for tests, and for tools
// that need a store's meaning without its durability.
//
// It keeps a bounded history for watches, so that a watcher that is too far
// behind meets the same closed channel that a compacted etcd gives it.
package memory

import (
	"context"
	"slices"
	"strings"
	"sync"

	"bastide.dev/store"
)

// DefaultHistory is how many events a watch can look back on.
const DefaultHistory = 10_000

// Store is a store.Store in memory. The zero Store isn't ready; call New.
type Store struct {
	history int

	mu       sync.Mutex // guards all below
	revision int64
	records  map[string]store.Record
	events   []store.Event // the newest events, oldest first
	dropped  int64         // revision of the newest event that is no longer in events
	changed  chan struct{} // closed and replaced at each change
}

// New makes an empty store that remembers the given number of events; 0 is DefaultHistory.
func New(history int) *Store {
	if history <= 0 {
		history = DefaultHistory
	}
	return &Store{history: history, records: map[string]store.Record{}, changed: make(chan struct{})}
}

var _ store.Store = (*Store)(nil)

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, key string) (store.Record, error) {
	if err := ctx.Err(); err != nil {
		return store.Record{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.records[key]
	if !ok {
		return store.Record{}, store.NotFound(key)
	}
	return clone(r), nil
}

// List implements store.Store.
func (s *Store) List(ctx context.Context, prefix string) ([]store.Record, int64, error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []store.Record
	for key, r := range s.records {
		if strings.HasPrefix(key, prefix) {
			found = append(found, clone(r))
		}
	}
	slices.SortFunc(found, func(a, b store.Record) int { return strings.Compare(a.Key, b.Key) })
	return found, s.revision, nil
}

// Put implements store.Store.
func (s *Store) Put(ctx context.Context, key string, value []byte, revision int64) (int64, error) {
	return s.Txn(ctx, store.Change{Key: key, Value: notNil(value), Revision: revision})
}

// Delete implements store.Store.
func (s *Store) Delete(ctx context.Context, key string, revision int64) error {
	_, err := s.Txn(ctx, store.Change{Key: key, Revision: revision})
	return err
}

// Txn implements store.Store.
func (s *Store) Txn(ctx context.Context, changes ...store.Change) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if err := store.CheckChanges(changes); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range changes {
		if c.Revision != store.Any && s.records[c.Key].Revision != c.Revision {
			return 0, store.Mismatch(c.Key)
		}
	}
	s.apply(changes)
	return s.revision, nil
}

// apply makes the changes under one new revision, as etcd does; the caller holds mu.
func (s *Store) apply(changes []store.Change) {
	next, wrote := s.revision+1, false
	for _, c := range changes {
		if c.Check {
			continue
		}
		if c.Value == nil {
			if _, ok := s.records[c.Key]; !ok {
				continue
			}
			delete(s.records, c.Key)
			s.events = append(s.events, store.Event{Record: store.Record{Key: c.Key, Revision: next}, Deleted: true})
		} else {
			r := store.Record{Key: c.Key, Value: slices.Clone(c.Value), Revision: next}
			s.records[c.Key] = r
			s.events = append(s.events, store.Event{Record: r})
		}
		wrote = true
	}
	if !wrote {
		return
	}
	s.revision = next
	for len(s.events) > s.history {
		s.dropped = s.events[0].Revision
		s.events = s.events[1:]
	}
	close(s.changed)
	s.changed = make(chan struct{})
}

// Watch implements store.Store.
func (s *Store) Watch(ctx context.Context, prefix string, after int64) <-chan store.Event {
	out := make(chan store.Event)
	go func() {
		defer close(out)
		for {
			events, upTo, changed, gone := s.since(prefix, after)
			if gone {
				return
			}
			for _, e := range events {
				select {
				case out <- e:
				case <-ctx.Done():
					return
				}
			}
			after = upTo
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// since returns the events under prefix after a revision, the revision up to
// which they reach, a channel that closes at the next change, and whether history is gone.
func (s *Store) since(prefix string, after int64) ([]store.Event, int64, <-chan struct{}, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if after < s.dropped {
		return nil, 0, nil, true
	}
	first, _ := slices.BinarySearchFunc(s.events, after+1, func(e store.Event, r int64) int { return int(e.Revision - r) })
	var found []store.Event
	for _, e := range s.events[first:] {
		if strings.HasPrefix(e.Key, prefix) {
			found = append(found, store.Event{Record: clone(e.Record), Deleted: e.Deleted})
		}
	}
	return found, max(s.revision, after), s.changed, false
}

func clone(r store.Record) store.Record {
	r.Value = slices.Clone(r.Value)
	return r
}

func notNil(value []byte) []byte {
	if value == nil {
		return []byte{}
	}
	return value
}

// Compact drops the history up to and with a revision.
func (s *Store) Compact(revision int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropped = max(s.dropped, revision)
	s.events = slices.DeleteFunc(s.events, func(e store.Event) bool { return e.Revision <= revision })
}
