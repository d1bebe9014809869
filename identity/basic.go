// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	lru "github.com/hashicorp/golang-lru/v2"

	"bastide.dev/fault"
)

// TokenUser is the name under which an access token stands in for a password.
const TokenUser = "00000000-0000-0000-0000-000000000000"

// basicFor is how long a password that was checked isn't hashed again.
const basicFor = 5 * time.Minute

// basicCache remembers names and passwords that were right, as a MAC under a
// key of this process, with what they had to match: a push makes dozens of
// requests, each with the same password.
type basicCache struct {
	key     []byte
	entries *lru.Cache[[32]byte, basicEntry]
}

type basicEntry struct {
	hash  string // the user's password hash that it matched
	until time.Time
}

func newBasicCache() (*basicCache, error) {
	entries, err := lru.New[[32]byte, basicEntry](256)
	if err != nil {
		return nil, fmt.Errorf("password cache: %w", err)
	}
	return &basicCache{key: random(32), entries: entries}, nil
}

func (c *basicCache) sum(name, password string) [32]byte {
	mac := hmac.New(sha256.New, c.key)
	_, _ = fmt.Fprintf(mac, "%d:%s%s", len(name), name, password)
	return [32]byte(mac.Sum(nil))
}

// AuthenticateBasic tells who sent a name and a password: a user's, a service
// principal's app id and secret, or TokenUser and an access token for the
// registry or Resource Manager.
func (d *Directory) AuthenticateBasic(ctx context.Context, name, password, address string) (Principal, error) {
	if name == TokenUser {
		return d.AuthenticateRegistry(ctx, password)
	}
	tenant, err := d.Tenant(ctx)
	if err != nil {
		return Principal{}, err
	}
	if uuid.Validate(name) == nil {
		sp, _, err := d.CheckSecret(ctx, name, password, address)
		if err != nil {
			return Principal{}, err
		}
		return Principal{Kind: ServicePrincipalKind, ID: sp.ID, TenantID: tenant.ID, AppID: sp.AppID, Name: sp.AppID}, nil
	}
	if !strings.Contains(name, "@") {
		name += "@" + tenant.Domain
	}
	user, err := d.checkPasswordCached(ctx, name, password, address)
	if err != nil {
		return Principal{}, err
	}
	return Principal{Kind: UserKind, ID: user.ID, TenantID: tenant.ID, Name: user.Name}, nil
}

// AuthenticateRegistry tells who sent a bearer token that the registry accepts.
func (d *Directory) AuthenticateRegistry(ctx context.Context, bearer string) (Principal, error) {
	audiences := append(d.armAudiences(), AppResourceManager, AppRegistry, "https://containerregistry.azure.net")
	if d.config.Endpoints.Registry != "" {
		audiences = append(audiences, d.config.Endpoints.Registry)
	}
	return d.AuthenticateFor(ctx, bearer, audiences...)
}

func (d *Directory) checkPasswordCached(ctx context.Context, name, password, address string) (User, error) {
	sum := d.basic.sum(strings.ToLower(name), password)
	if entry, ok := d.basic.entries.Get(sum); ok && d.now().Before(entry.until) {
		if user, err := d.User(ctx, name); err == nil && !user.Disabled && user.PasswordHash == entry.hash {
			return user, nil
		}
	}
	user, err := d.CheckPassword(ctx, name, password, address)
	if err == nil {
		d.basic.entries.Add(sum, basicEntry{hash: user.PasswordHash, until: d.now().Add(basicFor)})
	}
	return user, err
}

// Standing tells whether a principal that signed in before is still there and enabled.
func (d *Directory) Standing(ctx context.Context, p Principal) error {
	claims := Claims{OID: p.ID, TenantID: p.TenantID, IDType: "app", IssuedAt: d.now().Unix()}
	if p.Kind == UserKind {
		claims.IDType = "user"
	}
	_, err := d.standing(ctx, claims)
	if fault.Is(err, fault.Unauthorized) {
		return fault.New(fault.Unauthorized, CodeDisabled, "The account is deleted or disabled.")
	}
	return err
}
