// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"bastide.dev/fault"
	"bastide.dev/pki"
	"bastide.dev/store"
)

// keyOverlap is how long AKS accepts tokens of a key after its rotation.
const keyOverlap = 24 * time.Hour

func signersKey(uid string) string { return keysKey(uid) + "/signers" }

// signers are the keys of service-account tokens, from the first rotation on;
// before, the cluster's first key signs.
type signers struct {
	Created time.Time    `json:"created"`
	Private []byte       `json:"private"` // PEM; empty: the first key
	Retired []retiredKey `json:"retired,omitempty"`

	revision int64 // of the document; store.Absent when there is none
}

// retiredKey is a key that signs no more, of which only the public half is kept.
type retiredKey struct {
	Public  []byte    `json:"public"` // PEM
	Created time.Time `json:"created,omitzero"`
	Until   time.Time `json:"until"`
}

func (p *Provider) signers(ctx context.Context, uid string) (signers, error) {
	var s signers
	record, err := p.Store.Get(ctx, signersKey(uid))
	if fault.Is(err, fault.NotFound) {
		return s, nil
	}
	if err != nil {
		return s, fmt.Errorf("signing keys of cluster %s: %w", uid, err)
	}
	if err := json.Unmarshal(record.Value, &s); err != nil {
		return s, fmt.Errorf("signing keys of cluster %s: unreadable", uid) // no cause: it could quote a secret
	}
	s.revision = record.Revision
	return s, nil
}

// signing is the key that signs; first is the cluster's first one.
func (s *signers) signing(first []byte) []byte {
	if len(s.Private) == 0 {
		return first
	}
	return s.Private
}

// publics are the public halves of all keys whose tokens are good, the one that signs first.
func (s *signers) publics(first []byte) ([][]byte, error) {
	public, err := pki.PublicPEM(s.signing(first))
	if err != nil {
		return nil, err
	}
	all := [][]byte{public}
	for _, retired := range s.Retired {
		all = append(all, retired.Public)
	}
	return all, nil
}

// rotate draws a new key. One former key is kept, as on AKS: whoever rotates
// twice has ended the tokens of the key before at once.
func (s *signers) rotate(first []byte, now time.Time) error {
	public, err := pki.PublicPEM(s.signing(first))
	if err != nil {
		return err
	}
	private, err := pki.NewSigningKey()
	if err != nil {
		return err
	}
	s.Retired = []retiredKey{{Public: public, Created: s.Created, Until: now.Add(keyOverlap)}}
	s.Private, s.Created = private, now
	return nil
}

// expire forgets the keys whose time is over, and tells whether there were any.
func (s *signers) expire(now time.Time) bool {
	var kept []retiredKey
	for _, retired := range s.Retired {
		if now.Before(retired.Until) {
			kept = append(kept, retired)
		}
	}
	changed := len(kept) != len(s.Retired)
	s.Retired = kept
	return changed
}

func (s *signers) change(uid string) (store.Change, error) {
	value, err := json.Marshal(s)
	if err != nil {
		return store.Change{}, fmt.Errorf("signing keys of cluster %s: %w", uid, err)
	}
	return store.Change{Key: signersKey(uid), Value: value, Revision: s.revision}, nil
}
