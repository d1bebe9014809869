// SPDX-License-Identifier: Apache-2.0

package oidc

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"bastide.dev/fault"
	"bastide.dev/store"
)

const (
	discoveryPath = "/.well-known/openid-configuration"
	keysPath      = "/openid/v1/jwks"
	// A key signs from the moment it is published, so whoever keeps the documents
	// for long has to ask again when he meets a key that he doesn't know.
	maxAge = "public, max-age=300"
)

// Config is what a Service needs. Log may be nil.
type Config struct {
	Store  store.Store
	URL    string // https://oidc.<domain>
	Tenant string
	Log    *slog.Logger
}

// Service answers for oidc.<domain>. Safe for concurrent use.
type Service struct {
	store  store.Store
	base   string
	tenant string
	log    *slog.Logger
}

// New makes the service.
func New(c Config) (*Service, error) {
	if c.Store == nil || !strings.HasPrefix(c.URL, "https://") || c.Tenant == "" {
		return nil, fmt.Errorf("oidc: store, https URL and tenant are required")
	}
	return &Service{store: c.Store, base: strings.TrimSuffix(c.URL, "/"), tenant: c.Tenant, log: cmp.Or(c.Log, slog.Default())}, nil
}

var idForm = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// ServeHTTP serves the two documents of each issuer.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	id, document, ok := s.route(r.URL.Path)
	switch {
	case !ok:
		http.NotFound(w, r)
		return
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "only GET and HEAD", http.StatusMethodNotAllowed)
		return
	}
	d, err := s.document(r.Context(), id)
	if fault.Is(err, fault.NotFound) {
		http.NotFound(w, r)
		return
	}
	var body []byte
	if err == nil {
		if document == keysPath {
			body, err = json.Marshal(d.Keys)
		} else {
			body, err = d.discovery()
		}
	}
	if err != nil {
		s.log.ErrorContext(r.Context(), "issuer not readable", "cluster", id, "error", err)
		http.Error(w, "the issuer can't be read now", http.StatusServiceUnavailable)
		return
	}
	sum := sha256.Sum256(body)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", maxAge)
	w.Header().Set("ETag", `"`+hex.EncodeToString(sum[:16])+`"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
}

// route finds the issuer and the document in a path.
func (s *Service) route(path string) (id, document string, ok bool) {
	rest, ours := strings.CutPrefix(path, "/"+s.tenant+"/")
	id, below, _ := strings.Cut(rest, "/")
	document = "/" + below
	return id, document, ours && idForm.MatchString(id) && (document == discoveryPath || document == keysPath)
}

func (s *Service) document(ctx context.Context, id string) (Document, error) {
	var d Document
	record, err := s.store.Get(ctx, StoreKey(s.tenant, id))
	if err != nil {
		return d, err
	}
	if err := json.Unmarshal(record.Value, &d); err != nil {
		return d, fmt.Errorf("issuer %s: %w", id, err)
	}
	return d, nil
}

// KeySet returns the keys of an issuer of this instance. ours is false for
// other issuers; one of a cluster that is gone is ours, and fault.NotFound.
func (s *Service) KeySet(ctx context.Context, issuer string) (keys jose.JSONWebKeySet, ours bool, err error) {
	path, ours := strings.CutPrefix(issuer, s.base+"/")
	if !ours {
		return keys, false, nil
	}
	id, ok := strings.CutPrefix(strings.TrimSuffix(path, "/"), s.tenant+"/")
	if !ok || !idForm.MatchString(id) || issuer != IssuerURL(s.base, s.tenant, id) {
		return keys, true, fault.New(fault.NotFound, "", "The issuer %q isn't one of this instance.", issuer)
	}
	d, err := s.document(ctx, id)
	return d.Keys, true, err
}
