// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"

	"bastide.dev/fault"
	"bastide.dev/store"
)

// Algorithm of every token: what every client of Entra ID expects, and of the
// two that are asked for the one that verifies faster.
const Algorithm = jose.RS256

// A key signs for a month. It is published a day before, so that whoever caches
// the key set knows it in time, and stays published until its last token ended.
const (
	keyLifetime  = 30 * 24 * time.Hour
	keyLead      = 24 * time.Hour
	keyRetention = 24 * time.Hour
	keyPrefix    = "secrets/identity/keys/"
)

// keyDocument is a signing key as stored, sealed by the store's decorator.
type keyDocument struct {
	Created time.Time `json:"created"`
	PKCS8   []byte    `json:"pkcs8"`
}

type signingKey struct {
	name    string // of the document
	id      string // kid
	created time.Time
	private *rsa.PrivateKey
	signer  jose.Signer
}

func (k *signingKey) expired(now time.Time) bool {
	return now.After(k.created.Add(keyLead + keyLifetime + keyRetention))
}

// keyring is the set of signing keys, oldest first.
type keyring struct {
	store store.Store
	now   func() time.Time

	mu     sync.RWMutex // guards both
	keys   []*signingKey
	loaded time.Time
}

// ensure loads the keys and makes the first or the next one when it is time.
func (r *keyring) ensure(ctx context.Context) error {
	for {
		if err := r.load(ctx); err != nil {
			return err
		}
		r.mu.RLock()
		keys := r.keys
		r.mu.RUnlock()
		sequence := 1
		if len(keys) > 0 {
			newest := keys[len(keys)-1]
			if r.now().Before(newest.created.Add(keyLifetime)) {
				return nil
			}
			if _, err := fmt.Sscanf(newest.name, keyPrefix+"%08d", &sequence); err != nil {
				return fmt.Errorf("signing key %s: %w", newest.name, err)
			}
			sequence++
		}
		// Replicas that rotate at the same moment want the same name: one wins.
		err := r.create(ctx, fmt.Sprintf(keyPrefix+"%08d", sequence))
		if err != nil && !fault.Is(err, fault.Precondition) {
			return err
		}
	}
}

func (r *keyring) create(ctx context.Context, name string) error {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return fmt.Errorf("make signing key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return fmt.Errorf("encode signing key: %w", err)
	}
	data, err := json.Marshal(keyDocument{Created: r.now().UTC(), PKCS8: der})
	if err != nil {
		return fmt.Errorf("encode signing key: %w", err)
	}
	if _, err := r.store.Put(ctx, name, data, store.Absent); err != nil {
		return fmt.Errorf("write signing key: %w", err)
	}
	return nil
}

func (r *keyring) load(ctx context.Context) error {
	records, _, err := r.store.List(ctx, keyPrefix)
	if err != nil {
		return fmt.Errorf("read signing keys: %w", err)
	}
	var keys []*signingKey
	for _, record := range records {
		key, err := parseKey(record)
		if err != nil {
			return err
		}
		if key.expired(r.now()) {
			if err := r.store.Delete(ctx, record.Key, record.Revision); err != nil && !fault.Is(err, fault.Precondition) {
				return fmt.Errorf("delete old signing key: %w", err)
			}
			continue
		}
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b *signingKey) int { return strings.Compare(a.name, b.name) })
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keys, r.loaded = keys, r.now()
	return nil
}

func parseKey(record store.Record) (*signingKey, error) {
	var document keyDocument
	if err := json.Unmarshal(record.Value, &document); err != nil {
		return nil, fmt.Errorf("decode %s: %w", record.Key, err)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(document.PKCS8)
	if err != nil {
		return nil, fmt.Errorf("decode %s: %w", record.Key, err)
	}
	private, ok := parsed.(*rsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s is not an RSA key", record.Key)
	}
	thumbprint := sha256.Sum256(x509.MarshalPKCS1PublicKey(&private.PublicKey))
	key := &signingKey{name: record.Key, id: base64.RawURLEncoding.EncodeToString(thumbprint[:20]), created: document.Created, private: private}
	options := (&jose.SignerOptions{}).WithType("JWT").WithHeader("kid", key.id)
	if key.signer, err = jose.NewSigner(jose.SigningKey{Algorithm: Algorithm, Key: private}, options); err != nil {
		return nil, fmt.Errorf("signer of %s: %w", record.Key, err)
	}
	return key, nil
}

// current is the key to sign with: the newest that has been published long
// enough, or the oldest when there is no such.
func (r *keyring) current(ctx context.Context) (*signingKey, error) {
	r.mu.RLock()
	keys := r.keys
	r.mu.RUnlock()
	if len(keys) == 0 {
		if err := r.ensure(ctx); err != nil {
			return nil, err
		}
		r.mu.RLock()
		keys = r.keys
		r.mu.RUnlock()
	}
	for _, key := range slices.Backward(keys) {
		if !r.now().Before(key.created.Add(keyLead)) {
			return key, nil
		}
	}
	return keys[0], nil
}

// public finds the key that a token names. One that isn't known may be another
// replica's newest: the set is read again, at most every ten seconds.
func (r *keyring) public(ctx context.Context, id string) (*rsa.PublicKey, error) {
	for range 2 {
		r.mu.RLock()
		keys, loaded := r.keys, r.loaded
		r.mu.RUnlock()
		for _, key := range keys {
			if key.id == id && !key.expired(r.now()) {
				return &key.private.PublicKey, nil
			}
		}
		if r.now().Sub(loaded) < 10*time.Second {
			break
		}
		if err := r.load(ctx); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// rotate makes new keys in time until ctx ends.
func (r *keyring) rotate(ctx context.Context, log *slog.Logger) error {
	for ctx.Err() == nil {
		if err := r.ensure(ctx); err != nil && ctx.Err() == nil {
			log.Error("signing keys not rotated", "error", err)
			pause(ctx, 10*time.Second)
			continue
		}
		pause(ctx, time.Hour)
	}
	return nil
}

// KeySet is what whoever verifies tokens has to know.
func (d *Directory) KeySet(ctx context.Context) (jose.JSONWebKeySet, error) {
	if _, err := d.keys.current(ctx); err != nil {
		return jose.JSONWebKeySet{}, err
	}
	d.keys.mu.RLock()
	defer d.keys.mu.RUnlock()
	var set jose.JSONWebKeySet
	for _, key := range d.keys.keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: &key.private.PublicKey, KeyID: key.id, Algorithm: string(Algorithm), Use: "sig"})
	}
	return set, nil
}
