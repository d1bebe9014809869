// SPDX-License-Identifier: Apache-2.0

// Package signin judges sign-ins and remembers them: conditional access
// policies and named locations, the log of all attempts, and when each
// credential was last used.
//
// The token service asks it right before a token is issued and tells it what
// became of each attempt; identity/graph shows and changes what it keeps. The
// evaluation itself (policy.go) is pure. Only identity/graph and cmd import it.
package signin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"bastide.dev/fault"
	"bastide.dev/identity"
	"bastide.dev/store"
)

// Codes of refusals.
const (
	CodeBlocked = "AADSTS53003" // a policy blocks
	CodeStale   = "AADSTS70043" // a policy wants a fresh sign-in, and this flow can't ask
)

// Directory is what policies refer to. It is safe for concurrent use, and
// answers from memory: it is asked for each token.
type Directory interface {
	Application(ctx context.Context, appID string) (identity.Application, error)
	ServicePrincipal(ctx context.Context, id string) (identity.ServicePrincipal, error)
	User(ctx context.Context, idOrName string) (identity.User, error)
	Group(ctx context.Context, id string) (identity.Group, error)
	GroupsOf(id string) []string
	// RolesOf lists the template ids of the directory roles that a principal has, also through groups.
	RolesOf(principalID string) []string
	// HoldersOf lists the object ids of those who have a role, by its template id.
	HoldersOf(ctx context.Context, role string) ([]string, error)
}

// Config is what a Service needs. Log and Now may be nil.
type Config struct {
	Store     store.Store
	Directory Directory
	Log       *slog.Logger
	Now       func() time.Time
	// Limits of the log; zero values mean the defaults.
	Limits Limits
}

// Service is safe for concurrent use, before and beside Run.
type Service struct {
	store     store.Store
	directory Directory
	log       *slog.Logger
	now       func() time.Time
	limits    Limits

	mu   sync.Mutex // guards book
	book *book

	queue    chan note
	lost     atomic.Int64
	written  atomic.Int64 // entries, since the last sweep
	flushing sync.Mutex   // held while notes are written; guards the three below
	pending  []Entry
	uses     map[string]time.Time // by key, not written yet
	used     map[string]time.Time // by key, as written
}

// New makes a Service over what the store holds.
func New(config Config) (*Service, error) {
	if config.Store == nil || config.Directory == nil {
		return nil, errors.New("signin: a store and a directory are required")
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	return &Service{store: config.Store, directory: config.Directory,
		log: cmp.Or(config.Log, slog.Default()), now: config.Now, limits: config.Limits.withDefaults(), book: &book{},
		queue: make(chan note, queued), uses: map[string]time.Time{}, used: map[string]time.Time{}}, nil
}

// Run writes the log, and forgets what is too old, until ctx ends; then it
// writes what is left.
func (s *Service) Run(ctx context.Context) error {
	write, sweep := time.NewTicker(flushEvery), time.NewTicker(sweepEvery)
	defer write.Stop()
	defer sweep.Stop()
	s.report(s.Sweep(ctx), "old sign-ins not removed")
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastFlush)
			defer cancel()
			s.report(s.Flush(last), "sign-ins not recorded")
			return nil
		case <-write.C:
			s.report(s.Flush(ctx), "sign-ins not recorded yet")
			if s.written.Load() > sweepAfter {
				s.report(s.Sweep(ctx), "old sign-ins not removed")
			}
		case <-sweep.C:
			s.report(s.Sweep(ctx), "old sign-ins not removed")
		}
	}
}

func (s *Service) report(err error, what string) {
	if err != nil && !errors.Is(err, context.Canceled) {
		s.log.Warn(what, "error", err)
	}
}

// Judge says what conditional access makes of an attempt; it is asked for each
// token. An error means that nothing may be issued.
func (s *Service) Judge(ctx context.Context, in identity.SignIn) (identity.Verdict, error) {
	b, err := s.current(ctx)
	if err != nil {
		return identity.Verdict{}, err
	}
	if !b.active {
		return identity.Verdict{}, nil
	}
	a, err := s.attempt(ctx, in)
	if err != nil {
		return identity.Verdict{}, err
	}
	return judge(b.policies, b.locations, a), nil
}

// attempt completes a sign-in with what the directory knows at this moment:
// what the caller says of groups and roles can only add to it.
func (s *Service) attempt(ctx context.Context, in identity.SignIn) (attempt, error) {
	if in.Time.IsZero() {
		in.Time = s.now()
	}
	in.Principal, in.ClientID, in.ResourceID = strings.ToLower(in.Principal), strings.ToLower(in.ClientID), strings.ToLower(in.ResourceID)
	a := attempt{SignIn: in, client: NativeClient}
	if in.Kind != identity.UserKind {
		return a, nil
	}
	a.Roles = slices.Concat(in.Roles, s.directory.RolesOf(in.Principal))
	a.Groups = slices.Concat(in.Groups, s.directory.GroupsOf(in.Principal))
	app, err := s.directory.Application(ctx, in.ClientID)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return a, fmt.Errorf("read application: %w", err)
	}
	switch {
	case a.flow() == identity.FlowPassword:
		a.client = LegacyClient
	case err == nil && (!app.Public || len(app.RedirectURIs) == 0 && len(app.SPARedirectURIs) > 0):
		a.client = BrowserClient
	}
	return a, nil
}
