// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"bastide.dev/fault"
	"bastide.dev/store"
)

// A secret of the service's own is replaced halfway through its life; the one
// before stays good until its end, so that whoever runs with it isn't cut off.
const (
	platformSecrets = "secrets/identity/platform/"
	platformLife    = 10 * 365 * 24 * time.Hour
)

// platformSecret is a client secret as stored, sealed by the store's decorator.
type platformSecret struct {
	Secret  string    `json:"secret"`
	Expires time.Time `json:"expires"`
}

// PlatformSecret returns the client id of a service principal or managed
// identity, and a client secret of it that only the service itself uses, for
// what it runs under that identity. It makes one when there is none yet and
// else returns the same; it ends with the principal.
func (d *Directory) PlatformSecret(ctx context.Context, principalID string) (clientID, secret string, err error) {
	sp, err := d.ServicePrincipal(ctx, principalID)
	if err != nil {
		return "", "", err
	}
	kept, err := d.keptSecret(ctx, platformSecrets+sp.ID)
	if err != nil {
		return "", "", err
	}
	known := func(sp *ServicePrincipal) bool {
		for _, s := range sp.Platform {
			if s.matches(kept.Secret) {
				return true
			}
		}
		return false
	}
	if known(&sp) {
		return sp.AppID, kept.Secret, nil
	}
	salt := random(16)
	entry := Secret{ID: uuid.NewString(), Salt: salt, Hash: saltedHash(salt, kept.Secret), Expires: kept.Expires}
	err = d.UpdateServicePrincipal(ctx, sp.ID, func(sp *ServicePrincipal) {
		if known(sp) { // another replica was first
			return
		}
		living := []Secret{entry}
		for _, s := range sp.Platform {
			if d.now().Before(s.Expires) {
				living = append(living, s)
			}
		}
		sp.Platform = living
	})
	return sp.AppID, kept.Secret, err
}

// keptSecret reads the secret under a key, and makes one when there is none or
// it is half used up. Of several that make one, one wins.
func (d *Directory) keptSecret(ctx context.Context, key string) (platformSecret, error) {
	for {
		var kept platformSecret
		revision := store.Absent
		record, err := d.config.Store.Get(ctx, key)
		switch {
		case err == nil:
			if err := json.Unmarshal(record.Value, &kept); err != nil {
				return kept, fmt.Errorf("decode %s: %w", key, err)
			}
			if d.now().Before(kept.Expires.Add(-platformLife / 2)) {
				return kept, nil
			}
			revision = record.Revision
		case !fault.Is(err, fault.NotFound):
			return kept, fmt.Errorf("read %s: %w", key, err)
		}
		kept = platformSecret{Secret: Random(40), Expires: d.stamp().Add(platformLife)}
		data, err := json.Marshal(kept)
		if err != nil {
			return kept, fmt.Errorf("encode %s: %w", key, err)
		}
		_, err = d.config.Store.Put(ctx, key, data, revision)
		if !fault.Is(err, fault.Precondition) {
			if err != nil {
				err = fmt.Errorf("write %s: %w", key, err)
			}
			return kept, err
		}
	}
}
