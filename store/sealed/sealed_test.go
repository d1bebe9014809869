// SPDX-License-Identifier: Apache-2.0

package sealed

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"bastide.dev/store"
	"bastide.dev/store/memory"
	"bastide.dev/store/storetest"
)

func TestStore(t *testing.T) {
	inners := map[store.Store]*memory.Store{}
	storetest.Run(t, storetest.Subject{
		New: func(t *testing.T) store.Store {
			inner := memory.New(0)
			s, err := New(inner, []Key{NewKey()}, "") // everything is sealed
			if err != nil {
				t.Fatal(err)
			}
			inners[s] = inner
			return s
		},
		Compact: func(_ *testing.T, s store.Store, revision int64) { inners[s].Compact(revision) },
	})
}

func sealing(t *testing.T, inner store.Store, keys ...Key) *Store {
	t.Helper()
	s, err := New(inner, keys, "secrets/")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSecretsAreSealedAndBoundToTheirKey(t *testing.T) {
	ctx, inner := t.Context(), memory.New(0)
	s := sealing(t, inner, NewKey())
	for _, key := range []string{"secrets/a", "secrets/b", "open"} {
		if _, err := s.Put(ctx, key, []byte("hush "+key), store.Absent); err != nil {
			t.Fatal(err)
		}
	}
	raw, _ := inner.Get(ctx, "secrets/a")
	if bytes.Contains(raw.Value, []byte("hush")) {
		t.Error("the value is in the store in clear")
	}
	if open, _ := inner.Get(ctx, "open"); string(open.Value) != "hush open" {
		t.Errorf("a value outside of the prefix is %q", open.Value)
	}

	if _, err := inner.Put(ctx, "secrets/b", raw.Value, store.Any); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Get(ctx, "secrets/b"); err == nil {
		t.Errorf("a sealed value moved to another key opened: %q", r.Value)
	}
	if _, _, err := s.List(ctx, "secrets/"); err == nil {
		t.Error("List opened a moved value")
	}
	raw.Value[len(raw.Value)-1] ^= 1
	if _, err := inner.Put(ctx, "secrets/a", raw.Value, store.Any); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(ctx, "secrets/a"); err == nil {
		t.Error("a changed value opened")
	}
	if _, err := inner.Put(ctx, "secrets/a", []byte("plain text, planted"), store.Any); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(ctx, "secrets/a"); err == nil {
		t.Error("a planted plain value was taken")
	}
}

func TestRotation(t *testing.T) {
	ctx, inner := t.Context(), memory.New(0)
	before, after := NewKey(), NewKey()
	if _, err := sealing(t, inner, before).Put(ctx, "secrets/a", []byte("hush"), store.Absent); err != nil {
		t.Fatal(err)
	}
	if _, err := sealing(t, inner, after).Get(ctx, "secrets/a"); err == nil {
		t.Error("another key opened the value")
	}
	if err := sealing(t, inner, after, before).Reseal(ctx); err != nil {
		t.Fatal(err)
	}
	if r, err := sealing(t, inner, after).Get(ctx, "secrets/a"); err != nil || string(r.Value) != "hush" {
		t.Errorf("after Reseal without the old key: %q, %v", r.Value, err)
	}
}

func TestKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	first, err := EnsureKeys(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key file: %v, %v; want mode 0600", info.Mode(), err)
	}
	if err := SaveKeys(path, append([]Key{NewKey()}, first...)); err != nil {
		t.Fatal(err)
	}
	again, err := EnsureKeys(path)
	if err != nil || len(again) != 2 || again[1].ID != first[0].ID || !bytes.Equal(again[1].Secret, first[0].Secret) {
		t.Errorf("keys read back: %d, %v", len(again), err)
	}
	if err := os.WriteFile(path, []byte("short key\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := EnsureKeys(path); err == nil {
		t.Error("a damaged key file was taken, or replaced")
	}
}
