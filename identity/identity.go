// SPDX-License-Identifier: Apache-2.0

// Package identity is the instance's directory (tenant, users, groups,
// applications, service principals, managed identities) and everything that
// depends on its secrets: checking passwords, signing tokens, verifying them.
//
// It speaks no HTTP: identity/login is its token service, identity/graph its
// directory API. Every replica keeps the whole directory in memory, fed by the
// store's watch, so that a token is verified without a round trip and a deleted
// principal is refused at once. Only front doors and cmd import it.
package identity

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/errgroup"

	"bastide.dev/store"
)

// Endpoints are the public addresses that appear in tokens.
type Endpoints struct {
	Authority       string // https://login.<domain>
	ResourceManager string // https://management.<domain>
	Graph           string // https://graph.<domain>
	Registry        string // https://registry.<domain>; may be empty
}

// Config is what a Directory needs. Now may be nil.
type Config struct {
	// Store keeps the directory, with hashes only, and the signing keys under
	// "secrets/", which the store must seal.
	Store     store.Store
	Endpoints Endpoints
	Log       *slog.Logger
	Now       func() time.Time
}

// Directory answers who someone is and what they may do. It is safe for
// concurrent use, before and beside Run.
type Directory struct {
	config   Config
	log      *slog.Logger
	now      func() time.Time
	objects  *objects
	keys     *keyring
	guard    *guard
	hashing  chan struct{} // bounds the memory that concurrent password checks take
	verified *lru.Cache[[32]byte, verified]
	basic    *basicCache
	known    []Application // wellKnown's
}

// New makes a Directory over what the store holds; call Bootstrap before the first use.
func New(config Config) (*Directory, error) {
	for _, endpoint := range []string{config.Endpoints.Authority, config.Endpoints.ResourceManager, config.Endpoints.Graph} {
		u, err := url.Parse(endpoint)
		if err != nil || u.Scheme != "https" || u.Host == "" || strings.HasSuffix(endpoint, "/") {
			return nil, fmt.Errorf("identity: endpoint %q is not an https URL without trailing slash", endpoint)
		}
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	config.Log = cmp.Or(config.Log, slog.Default())
	cache, err := lru.New[[32]byte, verified](4096)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	basic, err := newBasicCache()
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	d := &Directory{
		config: config, log: config.Log, now: config.Now,
		objects: newObjects(config.Store), keys: &keyring{store: config.Store, now: config.Now},
		guard: newGuard(config.Now), hashing: make(chan struct{}, 2), verified: cache, basic: basic,
	}
	d.known = d.wellKnown()
	return d, nil
}

// Run follows the store and rotates signing keys until ctx ends.
func (d *Directory) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return d.objects.follow(ctx, d.log) })
	group.Go(func() error { return d.keys.rotate(ctx, d.log) })
	group.Go(func() error { return d.sweepAudit(ctx, d.log) })
	return group.Wait()
}

// Endpoints are the addresses this directory was made for.
func (d *Directory) Endpoints() Endpoints { return d.config.Endpoints }
