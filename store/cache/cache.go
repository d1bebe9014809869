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

// remembered is how many deletions stay in mind. A write or a read that was
// under way when its document was deleted may come back after the watch has
// shown the deletion, and must not bring the document back.
const remembered = 4096

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
	listed   int64                   // at which everything was listed
	keys     []string                // sorted, of entries that aren't deleted
	entries  map[string]store.Record // Value nil: deleted at Revision
	graves   []grave                 // the deleted ones, the oldest first
	listing  bool                    // between its begin and ready: what is listed may be older than
	early    []store.Record          // what was written or shown meanwhile
}

type grave struct {
	key      string
	revision int64
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
	s.begin()
	defer s.unload()
	records, revision, err := s.inner.List(ctx, "")
	if err != nil {
		return err
	}
	s.load(records, revision)
	for e := range s.inner.Watch(ctx, "", revision) {
		s.observe(e)
	}
	return nil
}

func (s *Store) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listing = true
}

func (s *Store) load(records []store.Record, revision int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys, s.entries, s.graves = nil, make(map[string]store.Record, len(records)), nil
	s.revision, s.listed, s.ready = revision, revision, true
	for _, r := range records {
		s.keys = append(s.keys, r.Key)
		s.entries[r.Key] = r
	}
	for _, r := range s.early {
		s.set(r)
	}
	s.listing, s.early = false, nil
}

// take takes a record that this process wrote or was shown; the caller holds mu.
func (s *Store) take(r store.Record) {
	switch {
	case s.ready:
		s.set(r)
	case s.listing:
		s.early = append(s.early, r)
	}
}

func (s *Store) unload() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ready, s.keys, s.entries, s.graves = false, nil, nil, nil
	s.listing, s.early = false, nil
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
}

// set takes a record unless a newer one is held; the caller holds mu.
func (s *Store) set(r store.Record) {
	held, known := s.entries[r.Key]
	if (known && held.Revision >= r.Revision) || (!known && r.Revision <= s.listed) {
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
	if r.Value == nil {
		s.bury(grave{r.Key, r.Revision})
	}
}

// bury keeps a deletion in mind, and forgets the oldest of too many.
func (s *Store) bury(g grave) {
	s.graves = append(s.graves, g)
	if len(s.graves) <= remembered {
		return
	}
	oldest := s.graves[0]
	s.graves = s.graves[1:]
	if held := s.entries[oldest.key]; held.Value == nil && held.Revision == oldest.revision {
		delete(s.entries, oldest.key)
	}
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
	for _, c := range changes {
		if !c.Check {
			s.take(store.Record{Key: c.Key, Value: slices.Clone(c.Value), Revision: revision})
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
	r := e.Record
	if e.Deleted {
		r.Value = nil
	}
	s.take(r)
}
