// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"testing"

	"bastide.dev/store"
	"bastide.dev/store/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, storetest.Subject{
		New:     func(*testing.T) store.Store { return New(0) },
		Compact: func(_ *testing.T, s store.Store, revision int64) { s.(*Store).Compact(revision) },
	})
}

func TestHistoryIsBounded(t *testing.T) {
	s := New(3)
	for range 10 {
		if _, err := s.Put(t.Context(), "a", []byte("x"), store.Any); err != nil {
			t.Fatal(err)
		}
	}
	if e, open := <-s.Watch(t.Context(), "", 1); open {
		t.Errorf("a watch from before the history got %+v", e)
	}
	if e := <-s.Watch(t.Context(), "", 7); e.Revision != 8 {
		t.Errorf("the oldest event kept is %d, want 8", e.Revision)
	}
}
