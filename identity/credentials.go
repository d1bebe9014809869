// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"golang.org/x/crypto/argon2"

	"bastide.dev/fault"
)

// Argon2id's cost: OWASP's second choice, small enough for a laptop that also
// runs clusters.
const (
	argonTime   = 2
	argonMemory = 19 * 1024 // KiB
	argonLanes  = 1
	maxPassword = 256
)

// dummyHash is checked for names that don't exist, so that they take as long as a wrong password.
const dummyHash = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

// Wire codes of failed sign-ins, as Microsoft Entra numbers them.
const (
	CodeWrongPassword   = "AADSTS50126"
	CodeLocked          = "AADSTS50053"
	CodeDisabled        = "AADSTS50057"
	CodeWrongSecret     = "AADSTS7000215"
	CodeExpiredSecret   = "AADSTS7000222"
	CodeUnknownClient   = "AADSTS700016"
	CodeNotPublic       = "AADSTS7000218"
	CodeUnknownResource = "AADSTS500011"
)

// CheckPassword signs a user in from an address. Wrong passwords and unknown
// names are told apart by neither answer nor time.
func (d *Directory) CheckPassword(ctx context.Context, name, password, address string) (User, error) {
	if err := d.passwordLocked(name, address); err != nil {
		return User{}, err
	}
	// The slot is taken before the failures are looked at again, or many at once
	// would all be tried before the first one failed.
	select {
	case d.hashing <- struct{}{}:
		defer func() { <-d.hashing }()
	case <-ctx.Done():
		return User{}, fault.New(fault.Unavailable, "", "Too many sign-ins at once.").Because(ctx.Err())
	}
	if err := d.passwordLocked(name, address); err != nil {
		return User{}, err
	}
	user, err := d.User(ctx, name)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return User{}, err
	}
	hash := user.PasswordHash
	if err != nil || !strings.EqualFold(user.Name, name) {
		hash = dummyHash
	}
	ok, hashErr := verifyPassword(hash, password)
	if hashErr != nil {
		return User{}, hashErr
	}
	if !ok || hash == dummyHash {
		d.guard.failed(name, address)
		return User{}, fault.New(fault.Unauthorized, CodeWrongPassword, "Error validating credentials due to invalid username or password.")
	}
	if user.Disabled {
		return User{}, fault.New(fault.Unauthorized, CodeDisabled, "The user account is disabled.")
	}
	d.guard.succeeded(name, address)
	return user, nil
}

func (d *Directory) passwordLocked(name, address string) error {
	if wait := d.guard.locked(name, address); wait > 0 {
		return fault.New(fault.Unauthorized, CodeLocked, "The account is locked: too many sign-ins with an incorrect user name or password. Try again in %d seconds.", int(wait.Seconds())+1)
	}
	return nil
}

// CheckSecret signs a client in with one of its secrets and returns that secret's id.
func (d *Directory) CheckSecret(ctx context.Context, appID, secret, address string) (ServicePrincipal, string, error) {
	if wait := d.guard.locked(appID, address); wait > 0 {
		return ServicePrincipal{}, "", fault.New(fault.Unauthorized, CodeLocked, "The application is locked: too many wrong secrets. Try again in %d seconds.", int(wait.Seconds())+1)
	}
	sp, err := d.ServicePrincipal(ctx, appID)
	if fault.Is(err, fault.NotFound) || err == nil && !strings.EqualFold(sp.AppID, appID) {
		d.guard.failed(appID, address)
		return ServicePrincipal{}, "", fault.New(fault.Unauthorized, CodeUnknownClient, "Application with identifier '%s' was not found in the directory.", printable(appID))
	}
	if err != nil {
		return ServicePrincipal{}, "", err
	}
	found, matched := d.secret(ctx, sp, func(s Secret) bool { return s.matches(secret) })
	if !matched {
		d.guard.failed(appID, address)
		return ServicePrincipal{}, "", fault.New(fault.Unauthorized, CodeWrongSecret, "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '%s'.", sp.AppID)
	}
	if !d.now().Before(found.Expires) {
		return ServicePrincipal{}, "", fault.New(fault.Unauthorized, CodeExpiredSecret, "The provided client secret keys for app '%s' are expired.", sp.AppID)
	}
	if sp.Disabled {
		return ServicePrincipal{}, "", fault.New(fault.Unauthorized, CodeDisabled, "The application '%s' is disabled.", sp.AppID)
	}
	d.guard.succeeded(appID, address)
	return sp, found.ID, nil
}

// secret finds a secret of the principal or of its application; every one is
// looked at, so that the time doesn't tell which matched.
func (d *Directory) secret(ctx context.Context, sp ServicePrincipal, match func(Secret) bool) (Secret, bool) {
	all := append(sp.Secrets[:len(sp.Secrets):len(sp.Secrets)], sp.Platform...)
	if app, err := d.Application(ctx, sp.AppID); err == nil {
		all = append(all[:len(all):len(all)], app.Secrets...)
	}
	var found Secret
	var matched bool
	for _, s := range all {
		if match(s) {
			found, matched = s, true
		}
	}
	return found, matched
}

// SetPassword replaces a user's password; older tokens and grants are refused from now on.
func (d *Directory) SetPassword(ctx context.Context, id, password string) error {
	hash, err := d.hashPassword(ctx, password)
	if err != nil {
		return err
	}
	now := d.stamp()
	return d.UpdateUser(ctx, id, func(u *User) { u.PasswordHash, u.ValidFrom, u.PasswordSet, u.MustChange = hash, now, now, false })
}

// EndSessions refuses whatever grew out of the user's sign-ins until now.
func (d *Directory) EndSessions(ctx context.Context, id string) error {
	now := d.stamp()
	return d.UpdateUser(ctx, id, func(u *User) { u.ValidFrom = now })
}

func (d *Directory) hashPassword(ctx context.Context, password string) (string, error) {
	if len(password) < 8 || len(password) > maxPassword {
		return "", fault.New(fault.Invalid, "Request_BadRequest", "A password has 8 to %d characters.", maxPassword).At("passwordProfile.password")
	}
	salt := random(16)
	select {
	case d.hashing <- struct{}{}:
		defer func() { <-d.hashing }()
	case <-ctx.Done():
		return "", fault.New(fault.Unavailable, "", "Too many sign-ins at once.").Because(ctx.Err())
	}
	hash := argon(password, salt)
	return fmt.Sprintf("$argon2id$v=19$m=%d,t=%d,p=%d$%s$%s", argonMemory, argonTime, argonLanes,
		base64.RawStdEncoding.EncodeToString(salt), base64.RawStdEncoding.EncodeToString(hash)), nil
}

func verifyPassword(stored, password string) (bool, error) {
	parts := strings.Split(stored, "$")
	if len(parts) != 6 || parts[1] != "argon2id" || parts[3] != fmt.Sprintf("m=%d,t=%d,p=%d", argonMemory, argonTime, argonLanes) {
		return false, fmt.Errorf("stored password hash has an unknown form")
	}
	salt, err := base64.RawStdEncoding.DecodeString(parts[4])
	if err != nil {
		return false, fmt.Errorf("stored password hash: %w", err)
	}
	want, err := base64.RawStdEncoding.DecodeString(parts[5])
	if err != nil {
		return false, fmt.Errorf("stored password hash: %w", err)
	}
	if len(password) > maxPassword {
		password = password[:maxPassword] + "!" // can't match, takes the same time
	}
	return subtle.ConstantTimeCompare(argon(password, salt), want) == 1, nil
}

func argon(password string, salt []byte) []byte {
	return argon2.IDKey([]byte(password), salt, argonTime, argonMemory, argonLanes, 32)
}

// newSecret makes a client secret and what is kept of it.
func newSecret(expires time.Time) (string, Secret) {
	plain := Random(40)
	salt := random(16)
	return plain, Secret{ID: uuid.NewString(), Hint: plain[:3], Salt: salt, Hash: saltedHash(salt, plain), Expires: expires}
}

// Random returns n characters of 64 kinds, six random bits each. No shell treats
// one of them, and the first is none that looks like a flag.
func Random(n int) string {
	for {
		text := base64.RawURLEncoding.EncodeToString(random(n*3/4 + 1))[:n]
		if text[0] != '-' && text[0] != '_' {
			return text
		}
	}
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails: it ends the process instead
	return b
}

// printable makes foreign text fit for a message.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
	return s[:min(len(s), 100)]
}
