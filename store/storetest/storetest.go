// SPDX-License-Identifier: Apache-2.0

// Package storetest is the suite that every implementation of store.Store
// passes, decorators included. Tests import it.
package storetest

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"bastide.dev/fault"
	"bastide.dev/store"
)

// Subject is what is tested.
type Subject struct {
	// New makes an empty store and closes it with the test.
	New func(t *testing.T) store.Store
	// Compact drops the history up to a revision.
	Compact func(t *testing.T, s store.Store, revision int64)
}

// Run runs the suite.
func Run(t *testing.T, subject Subject) {
	for name, test := range map[string]func(*testing.T, store.Store){
		"Get":         testGet,
		"Revisions":   testRevisions,
		"Delete":      testDelete,
		"List":        testList,
		"Txn":         testTxn,
		"TxnCheck":    testTxnCheck,
		"Watch":       testWatch,
		"WatchOrder":  testWatchOrder,
		"WatchEnds":   testWatchEnds,
		"Concurrent":  testConcurrent,
		"EmptyValue":  testEmptyValue,
		"CanceledCtx": testCanceled,
	} {
		t.Run(name, func(t *testing.T) { test(t, subject.New(t)) })
	}
	t.Run("WatchOfLostHistory", func(t *testing.T) {
		s := subject.New(t)
		first := put(t, s, "a", "1", store.Any)
		put(t, s, "a", "2", store.Any)
		last := put(t, s, "a", "3", store.Any)
		subject.Compact(t, s, last)
		select {
		case e, open := <-s.Watch(t.Context(), "", first):
			if open {
				t.Errorf("the watch sent %+v; want a closed channel", e)
			}
		case <-time.After(10 * time.Second):
			t.Error("the watch of lost history didn't close")
		}
	})
}

func testGet(t *testing.T, s store.Store) {
	if _, err := s.Get(t.Context(), "a"); !fault.Is(err, fault.NotFound) {
		t.Errorf("Get of nothing: %v, want NotFound", err)
	}
	revision := put(t, s, "a", "1", store.Absent)
	r, err := s.Get(t.Context(), "a")
	if err != nil || r.Key != "a" || string(r.Value) != "1" || r.Revision != revision {
		t.Errorf("Get = %+v, %v; want a=1 at %d", r, err, revision)
	}
}

func testRevisions(t *testing.T, s store.Store) {
	first := put(t, s, "a", "1", store.Absent)
	wantPrecondition(t, "Put over something with Absent", func() error { _, err := s.Put(t.Context(), "a", []byte("x"), store.Absent); return err })
	second := put(t, s, "a", "2", first)
	if second <= first {
		t.Errorf("revision %d follows %d", second, first)
	}
	wantPrecondition(t, "Put at an old revision", func() error { _, err := s.Put(t.Context(), "a", []byte("x"), first); return err })
	wantPrecondition(t, "Put at a revision of nothing", func() error { _, err := s.Put(t.Context(), "b", []byte("x"), first); return err })
	if third := put(t, s, "b", "1", store.Any); third <= second {
		t.Errorf("another key's revision %d isn't above %d", third, second)
	}
	wantValue(t, s, "a", "2")
}

func testDelete(t *testing.T, s store.Store) {
	if err := s.Delete(t.Context(), "a", store.Any); err != nil {
		t.Errorf("Delete of nothing: %v", err)
	}
	first := put(t, s, "a", "1", store.Absent)
	second := put(t, s, "a", "2", first)
	wantPrecondition(t, "Delete at an old revision", func() error { return s.Delete(t.Context(), "a", first) })
	if err := s.Delete(t.Context(), "a", second); err != nil {
		t.Errorf("Delete: %v", err)
	}
	if _, err := s.Get(t.Context(), "a"); !fault.Is(err, fault.NotFound) {
		t.Errorf("Get after Delete: %v, want NotFound", err)
	}
	put(t, s, "a", "3", store.Absent)
}

func testList(t *testing.T, s store.Store) {
	for _, key := range []string{"b/2", "a/1", "b/10", "b", "bb", "c/1"} {
		put(t, s, key, "v "+key, store.Any)
	}
	records, revision, err := s.List(t.Context(), "b/")
	if err != nil || !slices.Equal(keys(records), []string{"b/10", "b/2"}) || string(records[0].Value) != "v b/10" {
		t.Errorf("List(b/) = %v, %v", records, err)
	}
	all, _, err := s.List(t.Context(), "")
	if err != nil || !slices.Equal(keys(all), []string{"a/1", "b", "b/10", "b/2", "bb", "c/1"}) {
		t.Errorf("List of all = %v, %v", keys(all), err)
	}
	if next := put(t, s, "z", "", store.Any); next <= revision {
		t.Errorf("a write after List has revision %d, List said %d", next, revision)
	}
	if none, _, err := s.List(t.Context(), "nothing/"); err != nil || len(none) != 0 {
		t.Errorf("List of nothing = %v, %v", none, err)
	}
}

func testTxn(t *testing.T, s store.Store) {
	a := put(t, s, "a", "1", store.Absent)
	put(t, s, "b", "1", store.Absent)
	revision, err := s.Txn(t.Context(), store.Change{Key: "a", Value: []byte("2"), Revision: a},
		store.Change{Key: "b", Revision: store.Any}, store.Change{Key: "c", Value: []byte("1"), Revision: store.Absent})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := s.Get(t.Context(), "c"); err != nil || r.Revision != revision {
		t.Errorf("c = %+v, %v; want revision %d", r, err, revision)
	}
	wantPrecondition(t, "Txn with one stale revision", func() error {
		_, err := s.Txn(t.Context(), store.Change{Key: "d", Value: []byte("1"), Revision: store.Absent}, store.Change{Key: "a", Value: []byte("3"), Revision: a})
		return err
	})
	if _, err := s.Get(t.Context(), "d"); !fault.Is(err, fault.NotFound) {
		t.Errorf("a refused Txn wrote d: %v", err)
	}
	wantValue(t, s, "a", "2")
	if _, err := s.Txn(t.Context(), store.Change{Key: "e", Value: []byte("1"), Revision: store.Any}, store.Change{Key: "e", Revision: store.Any}); err == nil {
		t.Error("a Txn that names a key twice was accepted")
	}
}

func testTxnCheck(t *testing.T, s store.Store) {
	a := put(t, s, "a", "1", store.Absent)
	txn := func(check int64) error {
		_, err := s.Txn(t.Context(), store.Change{Key: "a", Revision: check, Check: true}, store.Change{Key: "b", Value: []byte("1"), Revision: store.Any})
		return err
	}
	if err := txn(a); err != nil {
		t.Errorf("Txn with a check that holds: %v", err)
	}
	if r, err := s.Get(t.Context(), "a"); err != nil || r.Revision != a {
		t.Errorf("the check changed a: %+v, %v", r, err)
	}
	wantPrecondition(t, "Txn with a check that fails", func() error { return txn(a + 100) })
}

func testWatch(t *testing.T, s store.Store) {
	_, start, err := s.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, "w/a", "1", store.Any) // before the watch: it must still come
	events := s.Watch(t.Context(), "w/", start)
	put(t, s, "other", "1", store.Any)
	put(t, s, "w/a", "2", store.Any)
	if err := s.Delete(t.Context(), "w/a", store.Any); err != nil {
		t.Fatal(err)
	}
	var last int64
	for _, want := range []struct {
		value   string
		deleted bool
	}{{"1", false}, {"2", false}, {"", true}} {
		e := next(t, events)
		if e.Key != "w/a" || string(e.Value) != want.value || e.Deleted != want.deleted || e.Revision <= last {
			t.Errorf("event %+v, want w/a=%q deleted=%v after %d", e, want.value, want.deleted, last)
		}
		if e.Deleted && e.Value != nil {
			t.Error("a deletion's Value isn't nil")
		}
		last = e.Revision
	}
}

func testWatchOrder(t *testing.T, s store.Store) {
	_, start, err := s.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	const n = 200
	one, two := s.Watch(t.Context(), "", start), s.Watch(t.Context(), "", start)
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() { put(t, s, "k"+strconv.Itoa(i%7), strconv.Itoa(i), store.Any) })
	}
	var last int64
	for range n {
		a, b := next(t, one), next(t, two)
		if a.Key != b.Key || a.Revision != b.Revision {
			t.Fatalf("two watches differ: %+v and %+v", a, b)
		}
		if a.Revision <= last {
			t.Fatalf("revision %d follows %d", a.Revision, last)
		}
		last = a.Revision
	}
	group.Wait()
}

func testWatchEnds(t *testing.T, s store.Store) {
	ctx, stop := context.WithCancel(t.Context())
	events := s.Watch(ctx, "", 0)
	stop()
	deadline := time.After(10 * time.Second)
	for {
		select {
		case _, open := <-events:
			if !open {
				return
			}
		case <-deadline:
			t.Fatal("the channel is open after its context ended")
		}
	}
}

func testConcurrent(t *testing.T, s store.Store) {
	put(t, s, "n", "0", store.Absent)
	const workers, each = 8, 10
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for range each {
				if err := increment(t.Context(), s); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	wantValue(t, s, "n", fmt.Sprint(workers*each))
}

func increment(ctx context.Context, s store.Store) error {
	for {
		r, err := s.Get(ctx, "n")
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(string(r.Value))
		if err != nil {
			return err
		}
		if _, err = s.Put(ctx, "n", []byte(strconv.Itoa(n+1)), r.Revision); !fault.Is(err, fault.Precondition) {
			return err
		}
	}
}

func testEmptyValue(t *testing.T, s store.Store) {
	if _, err := s.Put(t.Context(), "a", nil, store.Absent); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Get(t.Context(), "a"); err != nil || r.Value == nil || len(r.Value) != 0 {
		t.Errorf("Get of an empty document = %+v, %v", r, err)
	}
}

func testCanceled(t *testing.T, s store.Store) {
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if _, err := s.Put(ctx, "a", []byte("1"), store.Any); err == nil {
		t.Error("a Put under a canceled context succeeded")
	}
}

func put(t *testing.T, s store.Store, key, value string, revision int64) int64 {
	t.Helper()
	got, err := s.Put(t.Context(), key, []byte(value), revision)
	if err != nil {
		t.Errorf("Put %s: %v", key, err)
	}
	return got
}

func next(t *testing.T, events <-chan store.Event) store.Event {
	t.Helper()
	select {
	case e, open := <-events:
		if !open {
			t.Fatal("the watch ended")
		}
		return e
	case <-time.After(20 * time.Second):
		t.Fatal("no event came")
	}
	return store.Event{}
}

func wantValue(t *testing.T, s store.Store, key, want string) {
	t.Helper()
	r, err := s.Get(t.Context(), key)
	if err != nil || string(r.Value) != want {
		t.Errorf("%s = %q, %v; want %q", key, r.Value, err, want)
	}
}

func wantPrecondition(t *testing.T, what string, call func() error) {
	t.Helper()
	if err := call(); !fault.Is(err, fault.Precondition) {
		t.Errorf("%s: %v, want Precondition", what, err)
	}
}

func keys(records []store.Record) []string {
	var all []string
	for _, r := range records {
		all = append(all, r.Key)
	}
	return all
}
