// SPDX-License-Identifier: Apache-2.0

package signin

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"bastide.dev/store"
)

// When each credential was last used stands under
// credentialuse/<principal's object id>/<credential's id, or "any">, as a time
// of RFC 3339. It may be an hour late: so often is it written at most.
const (
	UsePrefix = "credentialuse/"
	AnyUse    = "any" // a sign-in that named no credential: a password, a passkey
	useGrain  = time.Hour
	useKept   = 2 * 365 * 24 * time.Hour
)

func useKey(principal, credential string) string {
	if credential == "" {
		credential = AnyUse
	}
	return UsePrefix + plain(principal) + "/" + plain(credential)
}

// plain keeps a name from reaching into other keys.
func plain(name string) string { return strings.ReplaceAll(strings.ToLower(name), "/", "_") }

// writeUses writes what wasn't within the last hour; s.flushing is held.
func (s *Service) writeUses(ctx context.Context) error {
	var problems []error
	for key, at := range s.uses {
		if at.Sub(s.lastWritten(ctx, key)) < useGrain {
			delete(s.uses, key)
			continue
		}
		if _, err := s.store.Put(ctx, key, []byte(at.UTC().Format(time.RFC3339)), store.Any); err != nil {
			problems = append(problems, fmt.Errorf("write use of credential: %w", err))
			continue
		}
		s.used[key] = at
		delete(s.uses, key)
	}
	return errors.Join(problems...)
}

// lastWritten is what stands under key, zero when nothing does: a restart
// doesn't write everything anew. s.flushing is held.
func (s *Service) lastWritten(ctx context.Context, key string) time.Time {
	at, known := s.used[key]
	if known {
		return at
	}
	if record, err := s.store.Get(ctx, key); err == nil {
		if at, err = time.Parse(time.RFC3339, string(record.Value)); err == nil {
			s.used[key] = at
		}
	}
	return at
}

// sweepUses forgets credentials that weren't used for so long that nobody asks.
func (s *Service) sweepUses(ctx context.Context) error {
	records, _, err := s.store.List(ctx, UsePrefix)
	if err != nil {
		return fmt.Errorf("list uses of credentials: %w", err)
	}
	var problems []error
	for _, r := range records {
		at, err := time.Parse(time.RFC3339, string(r.Value))
		if err == nil && s.now().Sub(at) <= useKept {
			continue
		}
		if err := s.store.Delete(ctx, r.Key, r.Revision); err != nil {
			problems = append(problems, fmt.Errorf("delete %s: %w", r.Key, err))
		}
		s.flushing.Lock()
		delete(s.used, r.Key)
		s.flushing.Unlock()
	}
	return errors.Join(problems...)
}

// LastUses says when each credential of a principal was last used, by the
// credential's id; AnyUse stands for sign-ins that named none.
func (s *Service) LastUses(ctx context.Context, principalID string) (map[string]time.Time, error) {
	if err := s.Flush(ctx); err != nil {
		return nil, err
	}
	return ReadUses(ctx, s.store, principalID)
}

// ReadUses is LastUses for who has a store and no Service.
func ReadUses(ctx context.Context, from store.Store, principalID string) (map[string]time.Time, error) {
	under := UsePrefix + plain(principalID) + "/"
	records, _, err := from.List(ctx, under)
	if err != nil {
		return nil, fmt.Errorf("list uses of credentials: %w", err)
	}
	found := map[string]time.Time{}
	for _, r := range records {
		at, err := time.Parse(time.RFC3339, string(r.Value))
		if err != nil {
			return nil, fmt.Errorf("decode %s: %w", r.Key, err)
		}
		found[strings.TrimPrefix(r.Key, under)] = at
	}
	return found, nil
}
