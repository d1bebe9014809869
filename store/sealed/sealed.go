// SPDX-License-Identifier: Apache-2.0

// Package sealed is a store whose values under given prefixes are encrypted,
// with a key that isn't in the store: who gets hold of the store's files or
// its backup learns no secret.
//
// A sealed value is a format byte, the sealing key's id, a nonce and AES-256-GCM's
// output; the document's key is authenticated with it, so that a sealed value
// moved to another key doesn't open.
package sealed

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"

	"bastide.dev/fault"
	"bastide.dev/store"
)

const (
	format    = 1
	nonceSize = 12
	header    = 1 + keyIDSize + nonceSize
)

// Store seals and opens around another store.
type Store struct {
	inner    store.Store
	prefixes []string
	current  string
	ciphers  map[string]cipher.AEAD
}

var _ store.Store = (*Store)(nil)

// New seals values under prefixes with the first key.
func New(inner store.Store, keys []Key, prefixes ...string) (*Store, error) {
	if len(keys) == 0 || len(prefixes) == 0 {
		return nil, errors.New("sealed: a key and a prefix are required")
	}
	s := &Store{inner: inner, prefixes: prefixes, current: keys[0].ID, ciphers: map[string]cipher.AEAD{}}
	for _, k := range keys {
		block, err := aes.NewCipher(k.Secret)
		if err != nil {
			return nil, fmt.Errorf("sealed: key %s: %w", k.ID, err)
		}
		if s.ciphers[k.ID], err = cipher.NewGCM(block); err != nil {
			return nil, fmt.Errorf("sealed: key %s: %w", k.ID, err)
		}
	}
	return s, nil
}

func (s *Store) sealed(key string) bool {
	for _, prefix := range s.prefixes {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	return false
}

func (s *Store) seal(key string, value []byte) []byte {
	out := make([]byte, header, header+len(value)+16)
	out[0] = format
	copy(out[1:], s.current)
	nonce := out[1+keyIDSize : header]
	_, _ = rand.Read(nonce) // never fails: it ends the process instead
	return s.ciphers[s.current].Seal(out, nonce, value, additional(out, key))
}

// open returns the record with its value opened.
func (s *Store) open(r store.Record) (store.Record, error) {
	if !s.sealed(r.Key) {
		return r, nil
	}
	damaged := func(why string) error {
		return fault.New(fault.Internal, "", "A secret of the service can't be read.").Because(fmt.Errorf("sealed: document %s: %s", r.Key, why))
	}
	if len(r.Value) < header || r.Value[0] != format {
		return r, damaged("it isn't sealed")
	}
	id := string(r.Value[1 : 1+keyIDSize])
	aead := s.ciphers[id]
	if aead == nil {
		return r, damaged("its key isn't in the key file")
	}
	value, err := aead.Open([]byte{}, r.Value[1+keyIDSize:header], r.Value[header:], additional(r.Value, r.Key))
	if err != nil {
		return r, damaged("it was changed, or sealed for another document")
	}
	r.Value = value
	return r, nil
}

// additional is what is authenticated beside the value: format, key id, and the document's key.
func additional(sealed []byte, key string) []byte {
	return append(append([]byte{}, sealed[:1+keyIDSize]...), key...)
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, key string) (store.Record, error) {
	r, err := s.inner.Get(ctx, key)
	if err != nil {
		return r, err
	}
	return s.open(r)
}

// List implements store.Store.
func (s *Store) List(ctx context.Context, prefix string) ([]store.Record, int64, error) {
	records, revision, err := s.inner.List(ctx, prefix)
	if err != nil {
		return nil, 0, err
	}
	for i := range records {
		if records[i], err = s.open(records[i]); err != nil {
			return nil, 0, err
		}
	}
	return records, revision, nil
}

// Put implements store.Store.
func (s *Store) Put(ctx context.Context, key string, value []byte, revision int64) (int64, error) {
	if s.sealed(key) {
		value = s.seal(key, value)
	}
	return s.inner.Put(ctx, key, value, revision)
}

// Delete implements store.Store.
func (s *Store) Delete(ctx context.Context, key string, revision int64) error {
	return s.inner.Delete(ctx, key, revision)
}

// Txn implements store.Store.
func (s *Store) Txn(ctx context.Context, changes ...store.Change) (int64, error) {
	out := make([]store.Change, len(changes))
	for i, c := range changes {
		if c.Value != nil && !c.Check && s.sealed(c.Key) {
			c.Value = s.seal(c.Key, c.Value)
		}
		out[i] = c
	}
	return s.inner.Txn(ctx, out...)
}

// Watch implements store.Store. A value that can't be opened ends the watch; List then says why.
func (s *Store) Watch(ctx context.Context, prefix string, after int64) <-chan store.Event {
	out := make(chan store.Event)
	ctx, stop := context.WithCancel(ctx)
	in := s.inner.Watch(ctx, prefix, after)
	go func() {
		defer close(out)
		defer stop()
		for e := range in {
			if !e.Deleted {
				var err error
				if e.Record, err = s.open(e.Record); err != nil {
					return
				}
			}
			select {
			case out <- e:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// Reseal writes every value that an older key sealed again, under the current one.
func (s *Store) Reseal(ctx context.Context) error {
	for _, prefix := range s.prefixes {
		records, _, err := s.inner.List(ctx, prefix)
		if err != nil {
			return err
		}
		for _, r := range records {
			opened, err := s.open(r)
			if err != nil {
				return err
			}
			if string(r.Value[1:1+keyIDSize]) == s.current {
				continue
			}
			if _, err := s.Put(ctx, r.Key, opened.Value, r.Revision); err != nil && !fault.Is(err, fault.Precondition) {
				return err // of a lost race nothing is owed: the other writer sealed it anew
			}
		}
	}
	return nil
}
