// SPDX-License-Identifier: Apache-2.0

package login

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"bastide.dev/fault"
	"bastide.dev/identity"
	"bastide.dev/store"
)

// Where the service keeps what it remembers.
const (
	storePrefix = "signin/"
	families    = storePrefix + "families/"
	devices     = storePrefix + "devices/"
	codes       = storePrefix + "codes/"
	sessions    = storePrefix + "sessions/"
	challenges  = storePrefix + "challenges/"
	assertions  = storePrefix + "assertions/"
)

// A refresh token lives 90 days after its last use. The one before the newest is
// accepted for half a minute more, without a new one: two processes that share a
// token cache may refresh at the same moment.
const (
	refreshLifetime = 90 * 24 * time.Hour
	refreshGrace    = 30 * time.Second
)

// family is the refresh tokens that grew out of one sign-in; only one is valid.
type family struct {
	proof
	ClientID string    `json:"clientId"`
	Created  time.Time `json:"created"`
	Expires  time.Time `json:"expires"`
	Current  []byte    `json:"current"`            // SHA-256
	Previous []byte    `json:"previous,omitempty"` // SHA-256
	Rotated  time.Time `json:"rotated,omitzero"`
	// Proved: the client had proved itself, and has to each time.
	Proved bool `json:"proved,omitempty"`
}

func digest(secret string) []byte {
	sum := sha256.Sum256([]byte(secret))
	return sum[:]
}

func same(a, b []byte) bool { return subtle.ConstantTimeCompare(a, b) == 1 }

// newFamily makes a first refresh token. id is a name for the family, "" for a random one.
func (s *Service) newFamily(ctx context.Context, g grantee, id string) (string, error) {
	if id == "" {
		id = identity.Random(22)
	}
	secret, now := identity.Random(43), s.now().UTC()
	f := family{proof: g.proof, ClientID: g.client.AppID, Created: now, Expires: now.Add(refreshLifetime), Current: digest(secret), Proved: g.client.proved}
	err := s.put(ctx, families+id, f, store.Absent)
	if fault.Is(err, fault.Precondition) { // the code was used again meanwhile
		return "", refuse("invalid_grant", 54005, "OAuth2 Authorization code was already redeemed.")
	}
	if err != nil {
		return "", err
	}
	return id + "." + secret, nil
}

// refresh answers the grant of that name. A token that was used before means
// that somebody else has it: the whole family ends.
func (s *Service) refresh(c *call, client client) (map[string]any, error) {
	asked, err := s.parseRequest(c, c.PostForm)
	if err != nil {
		return nil, err
	}
	bad := refuse("invalid_grant", 70000, "Provided grant is invalid or malformed.")
	id, secret, ok := strings.Cut(c.PostForm.Get("refresh_token"), ".")
	if !ok || len(id) != 22 || strings.ContainsAny(id, "/") {
		return nil, bad
	}
	var f family
	revision, err := s.get(c.Context(), families+id, &f)
	if fault.Is(err, fault.NotFound) {
		return nil, bad
	}
	if err != nil {
		return nil, err
	}
	if !strings.EqualFold(f.ClientID, client.AppID) {
		return nil, bad
	}
	if f.Proved && !client.proved {
		return nil, badAssertion(7000218, "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.")
	}
	if !s.now().Before(f.Expires) {
		return nil, refuse("invalid_grant", 700082, "The refresh token has expired due to inactivity.")
	}
	user, err := s.standing(c.Context(), f.UserID, f.Created)
	if err != nil {
		return nil, err
	}
	c.attempt.Origin = f.Flow
	g := grantee{proof: f.proof, user: user, client: client, asked: asked}
	sum := digest(secret)
	switch {
	case same(sum, f.Current):
	case same(sum, f.Previous) && s.now().Sub(f.Rotated) <= refreshGrace:
		return s.userTokens(c, g)
	default:
		if err := s.store.Delete(c.Context(), families+id, store.Any); err != nil {
			return nil, fmt.Errorf("end refresh tokens: %w", err)
		}
		s.log.Warn("refresh token used twice, its family has ended", "user", f.UserID, "client", f.ClientID, "address", c.address())
		return nil, refuse("invalid_grant", 70000, "Provided grant is invalid: the token was used before. Sign in again.")
	}
	// What is refused costs nothing: the token stays as it is.
	answer, err := s.userTokens(c, g)
	if err != nil {
		return nil, err
	}
	next := identity.Random(43)
	f.Previous, f.Current, f.Rotated, f.Expires = f.Current, digest(next), s.now().UTC(), s.expiry(refreshLifetime)
	err = s.put(c.Context(), families+id, f, revision)
	if err != nil && !fault.Is(err, fault.Precondition) {
		return nil, err
	}
	if err == nil { // else the same token came at the same moment: the other one got the new one
		answer["refresh_token"] = id + "." + next
	}
	return answer, nil
}

// standing is a user who signed in at some time, and must still be there, enabled
// and not signed out everywhere since.
func (s *Service) standing(ctx context.Context, userID string, since time.Time) (identity.User, error) {
	user, err := s.directory.User(ctx, userID)
	if fault.Is(err, fault.NotFound) {
		return user, refuse("invalid_grant", 50034, "The user account does not exist in the directory.")
	}
	if err != nil {
		return user, err
	}
	if user.Disabled {
		return user, refuse("invalid_grant", 50057, "The user account is disabled.")
	}
	if since.Before(user.ValidFrom) {
		return user, refuse("invalid_grant", 50173, "The provided grant has expired due to it being revoked, a fresh auth token is needed. The user might have changed or reset their password.")
	}
	return user, nil
}

func (s *Service) put(ctx context.Context, key string, value any, revision int64) error {
	data, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("encode sign-in: %w", err)
	}
	if _, err := s.store.Put(ctx, key, data, revision); err != nil {
		return fmt.Errorf("write sign-in: %w", err)
	}
	return nil
}

func (s *Service) get(ctx context.Context, key string, value any) (int64, error) {
	record, err := s.store.Get(ctx, key)
	if err != nil {
		return 0, fmt.Errorf("read sign-in: %w", err)
	}
	if err := json.Unmarshal(record.Value, value); err != nil {
		return 0, fmt.Errorf("decode sign-in: %w", err)
	}
	return record.Revision, nil
}
