// SPDX-License-Identifier: Apache-2.0

// Package cache is a store that answers reads from memory, kept fresh by a
// watch on the store behind it: front doors read far more than they write.
//
// A process reads its own writes at once, and one transaction's documents
// together; writes of other processes show after the watch's few milliseconds.
// A revision that turns out stale is read anew, so loops of read and
// put-if-match end. While the watch is broken, reads go to the store behind.
package cache

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"bastide.dev/fault"
	"bastide.dev/store"
)

// retryAfter is the pause after the store behind couldn't be listed.
const retryAfter = time.Second

// Store is a store.Store over another one. Until Run has listed that one, it passes everything through.
type Store struct {
	inner store.Store
	log   *slog.Logger

	// writing is held, shared, from before a write reaches the store behind until
	// its documents are in entries.
	writing sync.RWMutex

	mu       sync.RWMutex // guards all below
	ready    bool
	revision int64                   // up to which the watch has come
	keys     []string                // sorted, of entries that aren't deleted
	entries  map[string]store.Record // Value nil: deleted by us at Revision, which the watch hasn't reached
}

var _ store.Store = (*Store)(nil)

// New makes a cache over inner; log may be nil.
func New(inner store.Store, log *slog.Logger) *Store {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Store{inner: inner, log: log}
}

// Run keeps the cache fresh until ctx ends.
func (s *Store) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := s.follow(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("cache: list", "error", err)
			select {
			case <-time.After(retryAfter):
			case <-ctx.Done():
			}
		}
	}
	return nil
}

// follow lists everything and follows the changes until the watch ends.
func (s *Store) follow(ctx context.Context) error {
	records, revision, err := s.inner.List(ctx, "")
	if err != nil {
		return err
	}
	s.load(records, revision)
	defer s.unload()
	for e := range s.inner.Watch(ctx, "", revision) {
		s.observe(e)
	}
	return nil
}

func (s *Store) load(records []store.Record, revision int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys, s.entries, s.revision, s.ready = nil, make(map[string]store.Record, len(records)), revision, true
	for _, r := range records {
		s.keys = append(s.keys, r.Key)
		s.entries[r.Key] = r
	}
}

func (s *Store) unload() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ready, s.keys, s.entries = false, nil, nil
}

// observe takes a change that the watch saw.
func (s *Store) observe(e store.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revision = e.Revision
	r := e.Record
	if e.Deleted {
		r.Value = nil
	}
	s.set(r)
	if held, ok := s.entries[r.Key]; ok && held.Value == nil && held.Revision <= s.revision {
		delete(s.entries, r.Key) // the watch has come past the deletion: nothing older can follow
	}
}

// set takes a record unless a newer one is held; the caller holds mu.
func (s *Store) set(r store.Record) {
	held, known := s.entries[r.Key]
	if (known && held.Revision >= r.Revision) || (!known && r.Value == nil) {
		return
	}
	at, listed := slices.BinarySearch(s.keys, r.Key)
	switch {
	case r.Value != nil && !listed:
		s.keys = slices.Insert(s.keys, at, r.Key)
	case r.Value == nil && listed:
		s.keys = slices.Delete(s.keys, at, at+1)
	}
	s.entries[r.Key] = r
}

// Get implements store.Store. What isn't held may have come to be elsewhere a moment ago: it is asked for.
func (s *Store) Get(ctx context.Context, key string) (store.Record, error) {
	if err := ctx.Err(); err != nil {
		return store.Record{}, err
	}
	s.mu.RLock()
	r, ok := s.entries[key]
	s.mu.RUnlock()
	if !ok || r.Value == nil {
		return s.inner.Get(ctx, key)
	}
	r.Value = slices.Clone(r.Value)
	return r, nil
}

// List implements store.Store. Documents may be newer than the revision, never
// older: a watch from there on shows some changes twice, and misses none.
func (s *Store) List(ctx context.Context, prefix string) ([]store.Record, int64, error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, err
	}
	found, revision, ready := s.list(prefix)
	if !ready {
		return s.inner.List(ctx, prefix)
	}
	return found, revision, nil
}

func (s *Store) list(prefix string) ([]store.Record, int64, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	first, _ := slices.BinarySearch(s.keys, prefix)
	var found []store.Record
	for _, key := range s.keys[first:] {
		if !strings.HasPrefix(key, prefix) {
			break
		}
		r := s.entries[key]
		r.Value = slices.Clone(r.Value)
		found = append(found, r)
	}
	return found, s.revision, s.ready
}

// Put implements store.Store.
func (s *Store) Put(ctx context.Context, key string, value []byte, revision int64) (int64, error) {
	if value == nil {
		value = []byte{}
	}
	return s.Txn(ctx, store.Change{Key: key, Value: value, Revision: revision})
}

// Delete implements store.Store.
func (s *Store) Delete(ctx context.Context, key string, revision int64) error {
	_, err := s.Txn(ctx, store.Change{Key: key, Revision: revision})
	return err
}

// Txn implements store.Store.
func (s *Store) Txn(ctx context.Context, changes ...store.Change) (int64, error) {
	s.writing.RLock()
	defer s.writing.RUnlock()
	revision, err := s.inner.Txn(ctx, changes...)
	if err != nil {
		if fault.Is(err, fault.Precondition) {
			s.refresh(ctx, changes)
		}
		return revision, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ready {
		return revision, nil
	}
	for _, c := range changes {
		if !c.Check && (c.Value != nil || revision > s.revision) {
			s.set(store.Record{Key: c.Key, Value: slices.Clone(c.Value), Revision: revision})
		}
	}
	return revision, nil
}

// refresh reads anew what a refused transaction took for granted.
func (s *Store) refresh(ctx context.Context, changes []store.Change) {
	for _, c := range changes {
		if c.Revision == store.Any {
			continue
		}
		r, err := s.inner.Get(ctx, c.Key)
		s.mu.Lock()
		switch {
		case !s.ready:
		case err == nil:
			s.set(r)
		case fault.Is(err, fault.NotFound):
			if held, ok := s.entries[c.Key]; ok && held.Value != nil {
				s.set(store.Record{Key: c.Key, Revision: held.Revision + 1})
			}
		}
		s.mu.Unlock()
	}
}

// Watch implements store.Store. Reads never lag behind an event: whoever is
// woken by one finds the document, and all that was written with it.
func (s *Store) Watch(ctx context.Context, prefix string, after int64) <-chan store.Event {
	ctx, cancel := context.WithCancel(ctx)
	out := make(chan store.Event)
	go func() {
		defer cancel()
		defer close(out)
		for e := range s.inner.Watch(ctx, prefix, after) {
			s.settle(e)
			select {
			case out <- e:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// settle waits for the writes of this process that are on their way, of which
// the event may be one, and takes what the event shows.
func (s *Store) settle(e store.Event) {
	s.writing.Lock()
	s.writing.Unlock() //nolint:staticcheck // an empty section: only the wait matters
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ready || e.Revision <= s.revision {
		return
	}
	r := e.Record
	if e.Deleted {
		r.Value = nil
	}
	s.set(r)
}
