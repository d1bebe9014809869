// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/pquerna/otp"
	"github.com/pquerna/otp/hotp"
	"github.com/pquerna/otp/totp"

	"bastide.dev/fault"
	"bastide.dev/store"
)

// Wire codes of second factors.
const (
	CodeWrongOTP  = "AADSTS500121" // authentication failed during strong authentication
	CodeNoFactor  = "AADSTS50079"  // a second factor has to be registered first
	CodeNeedsMFA  = "AADSTS50076"  // a second factor has to be proved
	CodeDuplicate = "InvalidRequest"
)

// factorsPrefix holds each user's second factors, sealed by the store's decorator:
// a one-time password's secret can't be kept as a hash. Ids are never used twice.
const factorsPrefix = "secrets/identity/factors/"

// RFC 6238 as every authenticator app knows it. One step to either side counts.
const (
	otpStep     = 30 * time.Second
	otpWindow   = 1
	otpPending  = 10 * time.Minute // how long a registration may take
	maxPasskeys = 10
	otpFailures = 10
)

// Factors are what a user can prove beside the password.
type Factors struct {
	TOTP     *TOTP     `json:"totp,omitempty"`
	Pending  *TOTP     `json:"pending,omitempty"` // shown, but not proved yet
	Passkeys []Passkey `json:"passkeys,omitempty"`
}

// Any says whether there is one that works.
func (f Factors) Any() bool { return f.TOTP != nil || len(f.Passkeys) > 0 }

// TOTP is a shared secret of RFC 6238.
type TOTP struct {
	ID       string    `json:"id"`
	Secret   string    `json:"secret"` // base32
	LastStep uint64    `json:"lastStep,omitempty"`
	Created  time.Time `json:"created"`
}

// Passkey is a WebAuthn credential; Credential is its record as the library of
// the login site keeps it.
type Passkey struct {
	ID         string          `json:"id"` // base64url of the credential's
	Name       string          `json:"name"`
	Created    time.Time       `json:"created"`
	LastUsed   time.Time       `json:"lastUsed,omitzero"`
	Credential json.RawMessage `json:"credential"`
}

// Factors returns a user's second factors.
func (d *Directory) Factors(ctx context.Context, userID string) (Factors, error) {
	f, _, err := d.readFactors(ctx, userID)
	return f, err
}

func (d *Directory) readFactors(ctx context.Context, userID string) (Factors, int64, error) {
	var f Factors
	if uuid.Validate(userID) != nil {
		return f, 0, notFound(userID)
	}
	record, err := d.config.Store.Get(ctx, factorsPrefix+strings.ToLower(userID))
	if fault.Is(err, fault.NotFound) {
		return f, store.Absent, nil
	}
	if err != nil {
		return f, 0, fmt.Errorf("read factors: %w", err)
	}
	if err := json.Unmarshal(record.Value, &f); err != nil {
		return f, 0, fmt.Errorf("decode factors: %w", err)
	}
	return f, record.Revision, nil
}

// UpdateFactors changes a user's second factors through change, again when
// another writer was first; change's error stops it.
func (d *Directory) UpdateFactors(ctx context.Context, userID string, change func(*Factors) error) error {
	for {
		f, revision, err := d.readFactors(ctx, userID)
		if err != nil {
			return err
		}
		if err := change(&f); err != nil {
			return err
		}
		data, err := json.Marshal(f)
		if err != nil {
			return fmt.Errorf("encode factors: %w", err)
		}
		_, err = d.config.Store.Put(ctx, factorsPrefix+strings.ToLower(userID), data, revision)
		if err == nil {
			return nil
		}
		if !fault.Is(err, fault.Precondition) {
			return fmt.Errorf("write factors: %w", err)
		}
	}
}

// BeginTOTP makes a secret for the user's authenticator app, which counts only
// once ConfirmTOTP saw a code of it. The address is what the app reads.
func (d *Directory) BeginTOTP(ctx context.Context, user User) (*otp.Key, error) {
	tenant, err := d.Tenant(ctx)
	if err != nil {
		return nil, err
	}
	key, err := totp.Generate(totp.GenerateOpts{Issuer: "Bastide " + tenant.Domain, AccountName: user.Name, SecretSize: 20})
	if err != nil {
		return nil, fmt.Errorf("make one-time password: %w", err)
	}
	return key, d.UpdateFactors(ctx, user.ID, func(f *Factors) error {
		f.Pending = &TOTP{ID: uuid.NewString(), Secret: key.Secret(), Created: d.stamp()}
		return nil
	})
}

// ConfirmTOTP puts the secret that BeginTOTP made into effect, in place of the one before.
func (d *Directory) ConfirmTOTP(ctx context.Context, userID, code string) error {
	return d.boundedOTP(userID, func() error {
		return d.UpdateFactors(ctx, userID, func(f *Factors) error {
			if f.Pending == nil || d.now().After(f.Pending.Created.Add(otpPending)) {
				return fault.New(fault.Unauthorized, CodeWrongOTP, "The registration took too long. Begin again.")
			}
			if err := f.Pending.use(code, d.now()); err != nil {
				return err
			}
			f.TOTP, f.Pending = f.Pending, nil
			return nil
		})
	})
}

// CheckTOTP takes a one-time password, each only once.
func (d *Directory) CheckTOTP(ctx context.Context, userID, code string) error {
	return d.boundedOTP(userID, func() error {
		return d.UpdateFactors(ctx, userID, func(f *Factors) error {
			if f.TOTP == nil {
				return wrongOTP()
			}
			return f.TOTP.use(code, d.now())
		})
	})
}

// boundedOTP counts failures by user, wherever they come from: whoever gets to
// ask for a code knew the password already, and six digits are soon guessed.
func (d *Directory) boundedOTP(userID string, check func() error) error {
	key := "\x00otp\x00" + strings.ToLower(userID)
	if wait := d.guard.tryKey(key, otpFailures); wait > 0 {
		return fault.New(fault.Unauthorized, CodeLocked, "Too many wrong codes. Try again in %d seconds.", int(wait.Seconds())+1)
	}
	err := check()
	if err == nil {
		d.guard.clear(key)
	}
	return err
}

// use finds the step that a code belongs to and remembers it, so that neither it
// nor an older one is good for a second time.
func (t *TOTP) use(code string, now time.Time) error {
	code = strings.ReplaceAll(code, " ", "")
	step := uint64(now.Unix()) / uint64(otpStep.Seconds())
	var found uint64
	for at := step - otpWindow; at <= step+otpWindow; at++ {
		want, err := hotp.GenerateCode(t.Secret, at)
		if err != nil {
			return fmt.Errorf("one-time password: %w", err)
		}
		if subtle.ConstantTimeCompare([]byte(want), []byte(code)) == 1 && at > t.LastStep {
			found = at
		}
	}
	if found == 0 {
		return wrongOTP()
	}
	t.LastStep = found
	return nil
}

func wrongOTP() error {
	return fault.New(fault.Unauthorized, CodeWrongOTP, "The code isn't right, or it was used before. Wait for the next one.")
}

// AddPasskey registers a passkey that the login site has verified.
func (d *Directory) AddPasskey(ctx context.Context, userID string, key Passkey) error {
	return d.UpdateFactors(ctx, userID, func(f *Factors) error {
		if len(f.Passkeys) >= maxPasskeys {
			return fault.New(fault.Invalid, CodeDuplicate, "A user has at most %d passkeys: remove one first.", maxPasskeys)
		}
		if slices.ContainsFunc(f.Passkeys, func(k Passkey) bool { return k.ID == key.ID }) {
			return fault.New(fault.Conflict, CodeDuplicate, "That passkey is registered already.")
		}
		key.Created = d.stamp()
		f.Passkeys = append(f.Passkeys, key)
		return nil
	})
}

// UsePasskey keeps what a sign-in changed of a passkey's record, judged by
// change on the newest one, so that two at once can't both pass.
func (d *Directory) UsePasskey(ctx context.Context, userID, id string, change func(json.RawMessage) (json.RawMessage, error)) error {
	return d.UpdateFactors(ctx, userID, func(f *Factors) error {
		for i := range f.Passkeys {
			if f.Passkeys[i].ID != id {
				continue
			}
			next, err := change(f.Passkeys[i].Credential)
			if err != nil {
				return err
			}
			f.Passkeys[i].Credential, f.Passkeys[i].LastUsed = next, d.stamp()
			return nil
		}
		return notFound(id)
	})
}

// RemoveFactor takes a one-time password or a passkey away, by its id.
func (d *Directory) RemoveFactor(ctx context.Context, userID, id string) error {
	return d.UpdateFactors(ctx, userID, func(f *Factors) error {
		if f.TOTP != nil && f.TOTP.ID == id {
			f.TOTP = nil
			return nil
		}
		before := len(f.Passkeys)
		if f.Passkeys = slices.DeleteFunc(f.Passkeys, func(k Passkey) bool { return k.ID == id }); len(f.Passkeys) == before {
			return notFound(id)
		}
		return nil
	})
}

// ForgetFactors removes all of them; whoever deletes a user calls it.
func (d *Directory) ForgetFactors(ctx context.Context, userID string) error {
	err := d.config.Store.Delete(ctx, factorsPrefix+strings.ToLower(userID), store.Any)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return fmt.Errorf("delete factors: %w", err)
	}
	return nil
}
