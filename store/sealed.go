// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
)

// SealKey is a key that seals values: 32 bytes, with a short name that is
// written before each value so that keys can be replaced one by one.
type SealKey struct {
	ID  string
	Key []byte
}

// Sealed is a store whose values under some prefixes are encrypted (AES-256-GCM)
// before they reach the store beneath. The document's key is part of what is
// authenticated: a sealed value moved to another place doesn't open.
type Sealed struct {
	base     Store
	prefixes []string
	first    string // the key that new values are sealed with
	ciphers  map[string]cipher.AEAD
}

// NewSealed seals values under prefixes with the first of keys; the others open
// what was sealed before.
func NewSealed(base Store, prefixes []string, keys ...SealKey) (*Sealed, error) {
	if len(keys) == 0 {
		return nil, errors.New("sealed store: no key")
	}
	s := &Sealed{base: base, prefixes: prefixes, first: keys[0].ID, ciphers: map[string]cipher.AEAD{}}
	for _, k := range keys {
		if len(k.Key) != 32 || k.ID == "" || len(k.ID) > 255 {
			return nil, fmt.Errorf("sealed store: key %q needs a name and 32 bytes", k.ID)
		}
		block, err := aes.NewCipher(k.Key)
		if err != nil {
			return nil, fmt.Errorf("sealed store: %w", err)
		}
		if s.ciphers[k.ID], err = cipher.NewGCM(block); err != nil {
			return nil, fmt.Errorf("sealed store: %w", err)
		}
	}
	return s, nil
}

func (s *Sealed) covers(key string) bool {
	for _, prefix := range s.prefixes {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	return false
}

// seal makes: length of the key's name, name, nonce, sealed value.
func (s *Sealed) seal(key string, value []byte) ([]byte, error) {
	if !s.covers(key) {
		return value, nil
	}
	aead := s.ciphers[s.first]
	sealed := append([]byte{byte(len(s.first))}, s.first...)
	nonce := make([]byte, aead.NonceSize())
	if _, err := rand.Read(nonce); err != nil {
		return nil, fmt.Errorf("seal %s: %w", key, err)
	}
	return aead.Seal(append(sealed, nonce...), nonce, value, []byte(key)), nil
}

func (s *Sealed) open(r Record) (Record, error) {
	if !s.covers(r.Key) {
		return r, nil
	}
	id, rest, ok := cutName(r.Value)
	aead := s.ciphers[id]
	if !ok || aead == nil || len(rest) < aead.NonceSize() {
		return r, fmt.Errorf("open %s: it isn't sealed with a known key", r.Key)
	}
	nonce, sealed := rest[:aead.NonceSize()], rest[aead.NonceSize():]
	value, err := aead.Open(nil, nonce, sealed, []byte(r.Key))
	if err != nil {
		return r, fmt.Errorf("open %s: it was changed or moved: %w", r.Key, err)
	}
	if value == nil {
		value = []byte{}
	}
	r.Value = value
	return r, nil
}

func cutName(value []byte) (id string, rest []byte, ok bool) {
	if len(value) == 0 {
		return "", nil, false
	}
	end := 1 + int(value[0])
	if len(value) < end {
		return "", nil, false
	}
	return string(value[1:end]), value[end:], true
}

// Get implements Store.
func (s *Sealed) Get(ctx context.Context, key string) (Record, error) {
	r, err := s.base.Get(ctx, key)
	if err != nil {
		return r, err
	}
	return s.open(r)
}

// List implements Store.
func (s *Sealed) List(ctx context.Context, prefix string) ([]Record, int64, error) {
	records, revision, err := s.base.List(ctx, prefix)
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

// Put implements Store.
func (s *Sealed) Put(ctx context.Context, key string, value []byte, revision int64) (int64, error) {
	sealed, err := s.seal(key, value)
	if err != nil {
		return 0, err
	}
	return s.base.Put(ctx, key, sealed, revision)
}

// Delete implements Store.
func (s *Sealed) Delete(ctx context.Context, key string, revision int64) error {
	return s.base.Delete(ctx, key, revision)
}

// Txn implements Store.
func (s *Sealed) Txn(ctx context.Context, changes ...Change) (int64, error) {
	sealed := make([]Change, len(changes))
	for i, c := range changes {
		if c.Value != nil { // else a deletion, or a check
			var err error
			if c.Value, err = s.seal(c.Key, c.Value); err != nil {
				return 0, err
			}
		}
		sealed[i] = c
	}
	return s.base.Txn(ctx, sealed...)
}

// Watch implements Store. A value that doesn't open ends the channel, as lost
// history does: the List that follows tells the error.
func (s *Sealed) Watch(ctx context.Context, prefix string, after int64) <-chan Event {
	ctx, cancel := context.WithCancel(ctx)
	out := make(chan Event)
	go func() {
		defer cancel()
		defer close(out)
		for event := range s.base.Watch(ctx, prefix, after) {
			if !event.Deleted {
				record, err := s.open(event.Record)
				if err != nil {
					return
				}
				event.Record = record
			}
			select {
			case out <- event:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}
