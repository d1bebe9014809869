// SPDX-License-Identifier: Apache-2.0

// Package registry is the instance's own OCI image registry, where nodes pull
// from and people push to: the distribution project's registry on a directory,
// behind Bastide's own sign-in. It also holds the client side of
// `bastide image`: Load and List.
//
// Who pulls or writes needs a token of the instance or a password of its
// directory, and the role for it. Images of the service itself anyone who reaches
// the front door may pull, and everybody's when anonymous pulls are on. Only cmd imports it.
package registry

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	"github.com/distribution/distribution/v3/registry/storage"
	"github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
	"github.com/go-jose/go-jose/v4"
	"github.com/sirupsen/logrus"
)

// uploadLifetime is how long an upload that was broken off is kept.
const uploadLifetime = 24 * time.Hour

// Subject is who signed in.
type Subject struct {
	ID   string `json:"id"` // object id in the directory
	Kind string `json:"kind"`
	Name string `json:"name"`
}

// Directory tells who somebody is. It is safe for concurrent use; its refusals
// are faults.
type Directory interface {
	// Basic checks a name and a password sent from an address.
	Basic(ctx context.Context, name, password, address string) (Subject, error)
	// Bearer checks an access token of the instance's token service.
	Bearer(ctx context.Context, token string) (Subject, error)
	// MayRead is nil when the subject still stands and may pull images.
	MayRead(ctx context.Context, subject Subject) error
	// MayWrite is nil when the subject, who may have signed in minutes ago, still
	// stands and may change images.
	MayWrite(ctx context.Context, subject Subject) error
}

// Config is what a Registry needs.
type Config struct {
	Dir       string // where images are kept; made when it isn't there
	URL       string // https://registry.<domain>
	Directory Directory
	// AnonymousPull lets anybody pull any image. Public are the repositories,
	// by prefix, that anybody may pull in any case.
	AnonymousPull bool
	Public        []string
	// Key signs the registry's own short tokens, 32 bytes; every replica needs the
	// same. Empty: a random one, so that a restart lets clients sign in again.
	Key []byte
	Log *slog.Logger
}

// Registry answers for registry.<domain>.
type Registry struct {
	config Config
	log    *slog.Logger
	app    *handlers.App
	signer jose.Signer
}

// New opens the registry. Close it by ending Run's context.
func New(config Config) (registry *Registry, err error) {
	if config.Directory == nil || config.Dir == "" || config.URL == "" {
		return nil, errors.New("registry: a directory of principals, a folder and a URL are required")
	}
	if err := os.MkdirAll(filepath.Join(config.Dir, "docker/registry/v2"), 0o700); err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	if len(config.Key) == 0 {
		config.Key = make([]byte, 32)
		_, _ = rand.Read(config.Key) // never fails
	}
	r := &Registry{config: config, log: cmp.Or(config.Log, slog.Default())}
	if r.signer, err = jose.NewSigner(jose.SigningKey{Algorithm: tokenAlgorithm, Key: config.Key}, nil); err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	// The library logs every 404 as an error, to a global logger; what matters is
	// logged here.
	logrus.SetLevel(logrus.PanicLevel)
	defer func() { // it has no other way to say that its configuration is wrong
		if problem := recover(); problem != nil {
			registry, err = nil, fmt.Errorf("registry: %v", problem)
		}
	}()
	r.app = handlers.NewApp(context.Background(), configure(config))
	return r, nil
}

func configure(config Config) *configuration.Configuration {
	c := &configuration.Configuration{Storage: configuration.Storage{
		"filesystem":  {"rootdirectory": config.Dir, "maxthreads": 64},
		"delete":      {"enabled": true},
		"redirect":    {"disable": true},
		"cache":       {"blobdescriptor": "inmemory", "blobdescriptorsize": 2000},
		"maintenance": {"uploadpurging": map[any]any{"enabled": false}}, // Run does it
	}}
	c.HTTP.RelativeURLs = true // or it believes the client's forwarding headers
	c.HTTP.Secret = fmt.Sprintf("%x", config.Key)
	c.Catalog.MaxEntries = 1000
	return c
}

// Run removes uploads that were broken off until ctx ends, and closes the registry.
func (r *Registry) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	driver := filesystem.New(filesystem.DriverParameters{RootDirectory: r.config.Dir, MaxThreads: 25})
	for {
		// That no upload was ever begun is no problem.
		removed, problems := storage.PurgeUploads(ctx, driver, time.Now().Add(-uploadLifetime), true)
		if len(removed) > 0 {
			r.log.Info("unfinished uploads removed", "count", len(removed))
		}
		if err := errors.Join(problems...); err != nil && ctx.Err() == nil {
			r.log.Debug("unfinished uploads not all removed", "error", err)
		}
		select {
		case <-ctx.Done():
			if err := r.app.Shutdown(); err != nil {
				return fmt.Errorf("close registry: %w", err)
			}
			return nil
		case <-tick.C:
		}
	}
}

// ServeHTTP answers one request.
func (r *Registry) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	switch request.URL.Path {
	case tokenPath:
		r.token(w, request)
		return
	case exchangePath:
		r.exchange(w, request)
		return
	}
	seen := &statusWriter{ResponseWriter: w}
	if !r.admit(seen, request) {
		return
	}
	r.app.ServeHTTP(seen, request)
	if seen.status >= http.StatusInternalServerError {
		r.log.Error("registry failed", "method", request.Method, "path", request.URL.Path, "status", seen.status)
	}
}

// statusWriter remembers the status, and lets the library reach the connection.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
