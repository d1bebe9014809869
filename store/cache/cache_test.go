// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"bastide.dev/fault"
	"bastide.dev/store"
	"bastide.dev/store/memory"
	"bastide.dev/store/storetest"
)

// running is a cache that has listed the store behind.
func running(t *testing.T, inner store.Store) *Store {
	t.Helper()
	s := New(inner, nil)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() { stop(); <-done })
	eventually(t, "the cache lists the store", func() bool {
		s.mu.RLock()
		defer s.mu.RUnlock()
		return s.ready
	})
	return s
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it never happens that " + what)
		}
	}
}

func TestStore(t *testing.T) {
	inners := map[store.Store]*memory.Store{}
	storetest.Run(t, storetest.Subject{
		New: func(t *testing.T) store.Store {
			inner := memory.New(0)
			s := running(t, inner)
			inners[s] = inner
			return s
		},
		Compact: func(_ *testing.T, s store.Store, revision int64) { inners[s].Compact(revision) },
	})
}

func TestStoreBeforeItHasListed(t *testing.T) {
	inners := map[store.Store]*memory.Store{}
	storetest.Run(t, storetest.Subject{
		New: func(*testing.T) store.Store {
			inner := memory.New(0)
			s := New(inner, nil)
			inners[s] = inner
			return s
		},
		Compact: func(_ *testing.T, s store.Store, revision int64) { inners[s].Compact(revision) },
	})
}

// deaf is a store whose watches tell nothing, as one that lags behind for ever.
type deaf struct {
	store.Store
	gets int
}

func (d *deaf) Watch(ctx context.Context, _ string, _ int64) <-chan store.Event {
	silent := make(chan store.Event)
	context.AfterFunc(ctx, func() { close(silent) })
	return silent
}

func (d *deaf) Get(ctx context.Context, key string) (store.Record, error) {
	d.gets++
	return d.Store.Get(ctx, key)
}

func TestOwnWritesShowWithoutTheWatch(t *testing.T) {
	ctx, inner := t.Context(), &deaf{Store: memory.New(0)}
	s := running(t, inner)
	first, err := s.Put(ctx, "a", []byte("1"), store.Absent)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := s.Get(ctx, "a"); err != nil || string(r.Value) != "1" || inner.gets != 0 {
		t.Errorf("Get = %q, %v with %d reads behind", r.Value, err, inner.gets)
	}
	if err := s.Delete(ctx, "a", first); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(ctx, "a"); !fault.Is(err, fault.NotFound) {
		t.Errorf("Get after Delete: %v", err)
	}
	s.observe(store.Event{Record: store.Record{Key: "a", Value: []byte("1"), Revision: first}}) // the watch, late
	if records, _, _ := s.List(ctx, ""); len(records) != 0 {
		t.Errorf("a late event brought back what was deleted: %v", records)
	}
}

func TestStaleRevisionsAreReadAnew(t *testing.T) {
	ctx, inner := t.Context(), &deaf{Store: memory.New(0)}
	s := running(t, inner)
	for _, key := range []string{"changed", "gone"} {
		if _, err := s.Put(ctx, key, []byte("1"), store.Absent); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := inner.Put(ctx, "changed", []byte("2"), store.Any); err != nil { // another process
		t.Fatal(err)
	}
	if err := inner.Delete(ctx, "gone", store.Any); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{"changed": "2", "gone": ""} {
		stale, err := s.Get(ctx, key)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Put(ctx, key, []byte("x"), stale.Revision); !fault.Is(err, fault.Precondition) {
			t.Errorf("Put of %s at a stale revision: %v", key, err)
		}
		if r, err := s.Get(ctx, key); string(r.Value) != want || (want == "" && !fault.Is(err, fault.NotFound)) {
			t.Errorf("%s = %q, %v after the refused Put; want %q", key, r.Value, err, want)
		}
	}
}

func TestOthersWritesShow(t *testing.T) {
	ctx, inner := t.Context(), memory.New(0)
	s := running(t, inner)
	for i := range 100 {
		if _, err := inner.Put(ctx, fmt.Sprintf("k%d", i%10), []byte{byte(i)}, store.Any); err != nil {
			t.Fatal(err)
		}
	}
	if err := inner.Delete(ctx, "k0", store.Any); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the cache shows what another wrote", func() bool {
		records, _, err := s.List(ctx, "k")
		return err == nil && len(records) == 9 && records[8].Value[0] == 99
	})
}

// broken is a store that can't be listed at first.
type broken struct {
	store.Store
	left int
}

func (b *broken) List(ctx context.Context, prefix string) ([]store.Record, int64, error) {
	if b.left--; b.left >= 0 {
		return nil, 0, errors.New("not yet")
	}
	return b.Store.List(ctx, prefix)
}

func TestLostHistoryIsListedAgain(t *testing.T) {
	inner := memory.New(0)
	s := running(t, &broken{Store: inner, left: 1})
	if _, err := inner.Put(t.Context(), "a", []byte("1"), store.Any); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the cache shows a", func() bool {
		records, _, err := s.List(t.Context(), "a")
		return err == nil && len(records) == 1
	})
}

// slow is a store whose writers hear of a commit long after its watchers.
type slow struct{ store.Store }

func (s slow) Txn(ctx context.Context, changes ...store.Change) (int64, error) {
	revision, err := s.Store.Txn(ctx, changes...)
	time.Sleep(20 * time.Millisecond)
	return revision, err
}

func TestReadsNeverLagBehindAnEvent(t *testing.T) {
	base := memory.New(0)
	c := New(slow{base}, nil)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	defer func() { cancel(); <-done }()
	put := func(value string) {
		t.Helper()
		if _, err := c.Txn(t.Context(), store.Change{Key: "a", Value: []byte(value), Revision: store.Any}, store.Change{Key: "b", Value: []byte(value), Revision: store.Any}); err != nil {
			t.Error(err)
		}
	}
	put("0")
	_, revision, err := base.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	events := c.Watch(ctx, "a", revision)
	for n := range 20 {
		want := strconv.Itoa(n + 1)
		written := make(chan struct{})
		go func() { defer close(written); put(want) }()
		<-events
		for _, key := range []string{"a", "b"} {
			if r, err := c.Get(t.Context(), key); err != nil || string(r.Value) != want {
				t.Fatalf("after the event, %s is %q (%v), want %s", key, r.Value, err, want)
			}
		}
		<-written
	}
}

// late is a store whose answer to one transaction waits until it is let go.
type late struct {
	store.Store
	committed, letGo chan struct{}
}

func (l late) Txn(ctx context.Context, changes ...store.Change) (int64, error) {
	revision, err := l.Store.Txn(ctx, changes...)
	if changes[0].Key == "late" && changes[0].Value != nil {
		close(l.committed)
		<-l.letGo
	}
	return revision, err
}

func TestLateWriterDoesNotBringADeletedDocumentBack(t *testing.T) {
	inner := late{memory.New(0), make(chan struct{}), make(chan struct{})}
	s := running(t, inner)
	written := make(chan error, 1)
	go func() {
		_, err := s.Put(t.Context(), "late", []byte("1"), store.Absent)
		written <- err
	}()
	<-inner.committed
	if err := s.Delete(t.Context(), "late", store.Any); err != nil {
		t.Fatal(err)
	}
	// The watch, too, has shown the deletion once it shows what came after it.
	last, err := inner.Put(t.Context(), "other", []byte("1"), store.Absent)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the watch has come past the deletion", func() bool {
		s.mu.RLock()
		defer s.mu.RUnlock()
		return s.revision >= last
	})
	close(inner.letGo)
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	if records, _, err := s.List(t.Context(), "late"); err != nil || len(records) != 0 {
		t.Errorf("deleted, and back: %v %v", records, err)
	}
}

func TestDeletionsInMindAreBounded(t *testing.T) {
	s := running(t, memory.New(0))
	for n := range remembered + 10 {
		key := strconv.Itoa(n)
		if _, err := s.Put(t.Context(), key, []byte("1"), store.Any); err != nil {
			t.Fatal(err)
		}
		if err := s.Delete(t.Context(), key, store.Any); err != nil {
			t.Fatal(err)
		}
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if len(s.entries) > remembered || len(s.graves) > remembered {
		t.Errorf("%d entries, %d deletions", len(s.entries), len(s.graves))
	}
}

// slowList is a store whose listing of everything is on its way for as long as
// a test wants.
type slowList struct {
	store.Store
	listed, release chan struct{}
}

func (s slowList) List(ctx context.Context, prefix string) ([]store.Record, int64, error) {
	records, revision, err := s.Store.List(ctx, prefix)
	if prefix == "" {
		s.listed <- struct{}{}
		<-s.release
	}
	return records, revision, err
}

// Watch is late: it brings nothing.
func (s slowList) Watch(ctx context.Context, _ string, _ int64) <-chan store.Event {
	out := make(chan store.Event)
	go func() { <-ctx.Done(); close(out) }()
	return out
}

// TestWritesDuringListing: what is written while everything is listed is read
// afterwards, though the listing is older and the watch hasn't brought it.
func TestWritesDuringListing(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	inner := slowList{memory.New(0), make(chan struct{}), make(chan struct{})}
	revision, err := inner.Put(ctx, "a", []byte("old"), store.Absent)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := inner.Put(ctx, "b", []byte("old"), store.Absent); err != nil {
		t.Fatal(err)
	}
	s := New(inner, nil)
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	<-inner.listed
	if _, err := s.Put(ctx, "a", []byte("new"), revision); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(ctx, "b", store.Any); err != nil {
		t.Fatal(err)
	}
	close(inner.release)
	eventually(t, "the cache has listed the store", func() bool {
		s.mu.RLock()
		defer s.mu.RUnlock()
		return s.ready
	})
	if r, err := s.Get(ctx, "a"); err != nil || string(r.Value) != "new" {
		t.Errorf("read %q %v after writing it", r.Value, err)
	}
	if all, _, err := s.List(ctx, ""); err == nil && len(all) != 1 {
		t.Errorf("listed %v", all)
	}
	stop()
	<-done
}
