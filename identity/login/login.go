// SPDX-License-Identifier: Apache-2.0

// Package login is the token service of an instance: OAuth 2.0 and OpenID
// Connect as Microsoft Entra ID speaks them, versions 1 and 2, under the
// tenant's path and under /adfs, with a plain sign-in page for people.
//
// It keeps what it must remember between two requests (codes, device codes,
// refresh tokens) in the store, as hashes, so that any replica can answer. Who
// someone is, it asks package identity. Only cmd imports it.
package login

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-webauthn/webauthn/webauthn"

	"bastide.dev/fault"
	"bastide.dev/identity"
	"bastide.dev/store"
)

// Config is what a Service needs. Log and Now may be nil, and Federation, too:
// then assertions of other issuers are refused.
type Config struct {
	Directory  *identity.Directory
	Store      store.Store
	Gate       Gate
	Journal    Journal
	Federation Federation
	Log        *slog.Logger
	Now        func() time.Time
}

// Service answers for login.<domain>.
type Service struct {
	directory  *identity.Directory
	store      store.Store
	gate       Gate
	journal    Journal
	federation Federation
	log        *slog.Logger
	now        func() time.Time
	mux        *http.ServeMux
	origins    *http.CrossOriginProtection
	limits     *limits
	relying    *webauthn.WebAuthn
}

// maxBody bounds a form that is read.
const maxBody = 64 << 10

// New makes the service.
func New(config Config) (*Service, error) {
	if config.Directory == nil || config.Store == nil || config.Gate == nil || config.Journal == nil {
		return nil, fmt.Errorf("login: a directory, a store, a gate and a journal are required")
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	s := &Service{directory: config.Directory, store: config.Store, gate: config.Gate, journal: config.Journal, federation: config.Federation, log: cmp.Or(config.Log, slog.Default()),
		now: config.Now, mux: http.NewServeMux(), origins: http.NewCrossOriginProtection(), limits: newLimits(config.Now)}
	var err error
	if s.relying, err = newRelyingParty(config.Directory.Endpoints().Authority); err != nil {
		return nil, err
	}
	s.routes()
	return s, nil
}

func (s *Service) routes() {
	for version, segment := range map[int]string{1: "", 2: "/v2.0"} {
		s.mux.HandleFunc("GET /{tenant}"+segment+"/.well-known/openid-configuration", s.inTenant(version, s.discovery))
		s.mux.HandleFunc("GET /{tenant}/discovery"+segment+"/keys", s.inTenant(version, s.keys))
		s.mux.HandleFunc("POST /{tenant}/oauth2"+segment+"/token", s.inTenant(version, s.token))
		s.mux.HandleFunc("POST /{tenant}/oauth2"+segment+"/devicecode", s.inTenant(version, s.deviceCode))
		s.mux.HandleFunc("GET /{tenant}/oauth2"+segment+"/authorize", s.inTenant(version, s.authorize))
		s.mux.HandleFunc("POST /{tenant}/oauth2"+segment+"/authorize", s.inTenant(version, s.authorize))
		s.mux.HandleFunc("OPTIONS /{tenant}/oauth2"+segment+"/token", s.inTenant(version, s.preflight))
		s.mux.HandleFunc("GET /{tenant}/oauth2"+segment+"/logout", s.inTenant(version, s.logout))
		s.mux.HandleFunc("POST /{tenant}/oauth2"+segment+"/logout", s.inTenant(version, s.logout))
	}
	s.mux.HandleFunc("GET /common/userrealm/{user}", s.userRealm)
	s.mux.HandleFunc("GET /common/UserRealm/{user}", s.userRealm) // as MSAL for Go writes it
	s.mux.HandleFunc("GET /common/discovery/instance", s.instance)
	s.mux.HandleFunc("GET /device", s.devicePage)
	s.mux.HandleFunc("POST /device", s.devicePage)
	s.mux.HandleFunc("GET /security", s.security)
	s.mux.HandleFunc("POST /security", s.security)
	s.mux.HandleFunc("GET /assets/page.css", asset("text/css; charset=utf-8", pageStyle))
	s.mux.HandleFunc("GET /assets/passkey.js", asset("text/javascript; charset=utf-8", passkeyScript))
}

// ServeHTTP answers one request.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Strict-Transport-Security", "max-age=31536000")
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	s.mux.ServeHTTP(w, r)
}

// Run forgets what has expired until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := s.Sweep(ctx); err != nil && ctx.Err() == nil {
				s.log.Warn("expired sign-ins not swept", "error", err)
			}
		}
	}
}

// Sweep forgets what has expired, once.
func (s *Service) Sweep(ctx context.Context) error {
	records, _, err := s.store.List(ctx, storePrefix)
	if err != nil {
		return fmt.Errorf("list sign-ins: %w", err)
	}
	for _, record := range records {
		var document struct {
			Expires time.Time `json:"expires"`
		}
		if err := json.Unmarshal(record.Value, &document); err != nil {
			return fmt.Errorf("decode %s: %w", record.Key, err)
		}
		if s.now().Before(document.Expires) {
			continue
		}
		if err := s.store.Delete(ctx, record.Key, record.Revision); err != nil && !fault.Is(err, fault.Precondition) && !fault.Is(err, fault.NotFound) {
			return fmt.Errorf("delete %s: %w", record.Key, err)
		}
	}
	return nil
}

// call is one request under a tenant's path.
type call struct {
	*http.Request
	tenant  identity.Tenant
	segment string // "adfs", "common", or what else the path began with
	version int

	attempt identity.SignIn // what gate and journal hear
	verdict identity.Verdict
}

func (c *call) address() string {
	host, _, err := net.SplitHostPort(c.RemoteAddr)
	if err != nil {
		return c.RemoteAddr
	}
	return host
}

// inTenant lets through what names our tenant, by its id, its domain, or one of
// the words that stand for any tenant.
func (s *Service) inTenant(version int, next func(http.ResponseWriter, *call)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		tenant, err := s.directory.Tenant(r.Context())
		if err != nil {
			s.fail(w, r, err)
			return
		}
		segment := strings.ToLower(r.PathValue("tenant"))
		names := []string{tenant.ID, strings.ToLower(tenant.Domain), "adfs", "common", "organizations"}
		if !slices.Contains(names, segment) {
			s.fail(w, r, refuse("invalid_request", 90002, "Tenant '%s' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud.", printable(segment)))
			return
		}
		next(w, &call{Request: r, tenant: tenant, segment: segment, version: version})
	}
}

func writeJSON(w http.ResponseWriter, status int, value any) {
	data, err := json.Marshal(value)
	if err != nil {
		http.Error(w, "encoding failed", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(data) // a client that went away is no error of ours
}
