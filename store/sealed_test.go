// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"bytes"
	"testing"

	"bastide.dev/store"
	"bastide.dev/store/memory"
	"bastide.dev/store/storetest"
)

func key(b byte) store.SealKey {
	return store.SealKey{ID: string('a' + rune(b)), Key: bytes.Repeat([]byte{b}, 32)}
}

func sealed(t *testing.T, base store.Store, keys ...store.SealKey) *store.Sealed {
	t.Helper()
	s, err := store.NewSealed(base, []string{"", "secrets/"}, keys...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// inner keeps the store beneath reachable for the suite's compaction.
type inner struct {
	store.Store
	base *memory.Store
}

func TestSealedIsAStore(t *testing.T) {
	storetest.Run(t, storetest.Subject{
		New: func(t *testing.T) store.Store {
			base := memory.New(0)
			return inner{sealed(t, base, key(1)), base}
		},
		Compact: func(_ *testing.T, s store.Store, revision int64) { s.(inner).base.Compact(revision) },
	})
}

func TestSealedHidesValues(t *testing.T) {
	base := memory.New(0)
	s := sealed(t, base, key(1))
	if _, err := s.Put(t.Context(), "secrets/a", []byte("the password"), store.Any); err != nil {
		t.Fatal(err)
	}
	raw, err := base.Get(t.Context(), "secrets/a")
	if err != nil || bytes.Contains(raw.Value, []byte("password")) {
		t.Errorf("beneath: %q %v", raw.Value, err)
	}
	if r, err := s.Get(t.Context(), "secrets/a"); err != nil || string(r.Value) != "the password" {
		t.Errorf("above: %q %v", r.Value, err)
	}
}

func TestSealedValueOpensInItsPlaceOnly(t *testing.T) {
	base := memory.New(0)
	s := sealed(t, base, key(1))
	if _, err := s.Put(t.Context(), "secrets/mine", []byte("x"), store.Any); err != nil {
		t.Fatal(err)
	}
	raw, err := base.Get(t.Context(), "secrets/mine")
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(raw.Value)
	flipped[len(flipped)-1] ^= 1
	for place, value := range map[string][]byte{"secrets/yours": raw.Value, "secrets/changed": flipped, "secrets/plain": []byte("x"), "secrets/empty": {}, "secrets/long": bytes.Repeat([]byte{255}, 300)} {
		if _, err := base.Put(t.Context(), place, value, store.Any); err != nil {
			t.Fatal(err)
		}
		if r, err := s.Get(t.Context(), place); err == nil {
			t.Errorf("%s opened: %q", place, r.Value)
		}
	}
}

func TestSealKeysAreReplaced(t *testing.T) {
	base := memory.New(0)
	if _, err := sealed(t, base, key(1)).Put(t.Context(), "secrets/a", []byte("x"), store.Any); err != nil {
		t.Fatal(err)
	}
	both := sealed(t, base, key(2), key(1))
	if r, err := both.Get(t.Context(), "secrets/a"); err != nil || string(r.Value) != "x" {
		t.Errorf("the old key's: %q %v", r.Value, err)
	}
	if _, err := both.Put(t.Context(), "secrets/a", []byte("y"), store.Any); err != nil {
		t.Fatal(err)
	}
	if _, err := sealed(t, base, key(1)).Get(t.Context(), "secrets/a"); err == nil {
		t.Error("the old key still opens what the new one sealed")
	}
}
