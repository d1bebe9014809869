// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"bastide.dev/fault"
)

// Bounds of what an API server sends: a review of a token or of a request is
// small.
const (
	maxReview = 256 << 10
	maxSecret = 256
	// patience is shorter than any API server's own.
	patience = 3 * time.Second
)

// webhook makes a handler of a function that fills in the answer of a review R:
// it has the caller's cluster authenticated, bounds the body, and decodes it.
// An error becomes a status, which an API server takes for "no answer".
func webhook[R any](s *Service, limit int64, answer func(context.Context, Cluster, *R) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cluster, err := s.caller(r)
		if err != nil {
			s.fail(w, r, err)
			return
		}
		var review R
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, limit)).Decode(&review); err != nil {
			s.fail(w, r, unreadable(err))
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), patience)
		defer cancel()
		if err := answer(ctx, cluster, &review); err != nil {
			s.fail(w, r, err)
			return
		}
		reply(w, http.StatusOK, review)
	})
}

// caller is the cluster of the path, if the request shows its secret. Whether
// there is such a cluster isn't told to others, nor by the time it takes.
func (s *Service) caller(r *http.Request) (Cluster, error) {
	refused := fault.New(fault.Unauthorized, "Unauthorized", "The cluster or its secret is unknown.")
	scheme, secret, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || secret == "" || len(secret) > maxSecret {
		return Cluster{}, refused
	}
	shown := sha256.Sum256([]byte(secret))
	cluster, err := s.Clusters.Cluster(r.Context(), r.PathValue("id"))
	if err != nil && !fault.Is(err, fault.NotFound) {
		return Cluster{}, fmt.Errorf("find cluster: %w", err)
	}
	right := subtle.ConstantTimeCompare(shown[:], cluster.Secret[:]) == 1
	if err != nil || !right || cluster.Secret == [32]byte{} {
		return Cluster{}, refused
	}
	return cluster, nil
}

func unreadable(err error) error {
	var tooLong *http.MaxBytesError
	if errors.As(err, &tooLong) {
		return fault.New(fault.TooLarge, "RequestEntityTooLarge", "The review is longer than %d bytes.", tooLong.Limit)
	}
	return fault.New(fault.Invalid, "InvalidReview", "The review can't be read.").Because(err)
}

// fail answers with a status; what isn't the caller's doing is logged.
func (s *Service) fail(w http.ResponseWriter, r *http.Request, err error) {
	f := fault.From(err)
	status := map[fault.Kind]int{fault.Unauthorized: http.StatusUnauthorized, fault.Invalid: http.StatusBadRequest,
		fault.TooLarge: http.StatusRequestEntityTooLarge}[f.Kind]
	if status == 0 {
		status = http.StatusServiceUnavailable // an API server would repeat an internal error, and let the user wait
		s.Log.Error("webhook has no answer", "path", r.URL.Path, "error", err)
	}
	reply(w, status, map[string]any{"error": map[string]string{"code": f.Code, "message": f.Message}})
}

func reply(w http.ResponseWriter, status int, body any) {
	data, err := json.Marshal(body)
	if err != nil {
		status, data = http.StatusInternalServerError, []byte(`{}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(data) // who went away doesn't want it
}
