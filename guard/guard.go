// SPDX-License-Identifier: Apache-2.0

// Package guard answers the webhooks of clusters' API servers: who sends a
// token of the directory, whether the sender may do what they ask for, and what
// a pod has to be given. It stands at guard.<domain>, where an API server comes
// with a secret of its own cluster and learns of no other.
//
// It knows Kubernetes' reviews and Azure's names for what they ask; who a
// principal is and what their roles grant it asks through small interfaces. Only
// cmd and testcloud import it.
package guard

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"
)

// Cluster is what guard knows of a cluster that calls.
type Cluster struct {
	ID       string   // in the request's path
	Resource string   // the ARM id, the scope of roles on all of it
	Secret   [32]byte // SHA-256 of what its API server shows
	// Directory says that its API server takes the directory's tokens, AzureRBAC
	// that roles grant rights inside of it.
	Directory, AzureRBAC bool
}

// Clusters finds clusters. It is called for every request, and answers from memory.
type Clusters interface {
	// Cluster is a NotFound fault for a cluster that isn't there.
	Cluster(ctx context.Context, id string) (Cluster, error)
}

// Config is what a Service needs. All is required but Now.
type Config struct {
	Clusters  Clusters
	Directory Directory
	Roles     Roles
	Log       *slog.Logger
	Now       func() time.Time // nil is time.Now
}

// Service is the handler of all webhooks. It keeps nothing between requests.
type Service struct {
	Config
	mux *http.ServeMux
}

// New checks the config and returns a handler.
func New(config Config) (*Service, error) {
	if config.Clusters == nil || config.Directory == nil || config.Roles == nil || config.Log == nil {
		return nil, errors.New("guard: a dependency is missing in the config")
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	s := &Service{Config: config, mux: http.NewServeMux()}
	s.mux.Handle("POST /clusters/{id}/authenticate", webhook(s, maxReview, s.authenticate))
	s.mux.Handle("POST /clusters/{id}/authorize", webhook(s, maxReview, s.authorize))
	return s, nil
}

func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }
