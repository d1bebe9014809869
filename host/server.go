// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"bastide.dev/fault"
	"bastide.dev/store"
)

// maxReports bounds one POST of reports; a host with thousands of machines fits.
const maxReports = 16 << 20

// Server is serve's side of the contract: it streams a host its units and keeps
// what the host reports. It holds no state of its own. Its listener must demand
// and verify client certificates.
type Server struct {
	store store.Store
	log   *slog.Logger
	mux   *http.ServeMux
}

// NewServer returns the handler for hosts.
func NewServer(s store.Store, log *slog.Logger) *Server {
	srv := &Server{store: s, log: log, mux: http.NewServeMux()}
	srv.mux.HandleFunc("GET "+UnitsPath, srv.own(srv.units))
	srv.mux.HandleFunc("POST "+ReportsPath, srv.own(srv.reports))
	return srv
}

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// own lets a host at its own path only: the name is its certificate's.
func (s *Server) own(next func(http.ResponseWriter, *http.Request, string)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
			http.Error(w, "a host certificate is needed", http.StatusUnauthorized)
			return
		}
		name := r.PathValue("host")
		if subject := r.TLS.VerifiedChains[0][0].Subject; subject.CommonName != HostSubject(name) {
			s.log.Warn("host refused", "path", name, "subject", subject.CommonName, "address", r.RemoteAddr)
			http.Error(w, "this certificate is another host's", http.StatusForbidden)
			return
		}
		next(w, r, name)
	}
}

// HostSubject is the common name of a host's certificate.
func HostSubject(name string) string { return "host:" + name }

func (s *Server) units(w http.ResponseWriter, r *http.Request, name string) {
	prefix := "hosts/" + name + "/units/"
	records, revision, err := s.store.List(r.Context(), prefix)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/json-seq")
	out := json.NewEncoder(w)
	for _, record := range records {
		if err := out.Encode(unitOf(prefix, record, false)); err != nil {
			return
		}
	}
	if err := out.Encode(Unit{Synced: true}); err != nil {
		return
	}
	flush := http.NewResponseController(w)
	_ = flush.Flush()
	for event := range s.store.Watch(r.Context(), prefix, revision) {
		if out.Encode(unitOf(prefix, event.Record, event.Deleted)) != nil || flush.Flush() != nil {
			return
		}
	}
}

// unitOf reads a stored unit. A document that was deleted outright counts as a
// tombstone: the host then removes what it has.
func unitOf(prefix string, record store.Record, deleted bool) Unit {
	kind, name, _ := strings.Cut(strings.TrimPrefix(record.Key, prefix), "/")
	unit := Unit{Kind: Kind(kind), Name: name, Generation: record.Revision}
	if deleted || bytes.Equal(record.Value, Tombstone) {
		unit.Deleted = true
	} else {
		unit.Spec = record.Value
	}
	return unit
}

func (s *Server) reports(w http.ResponseWriter, r *http.Request, name string) {
	var reports []Report
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxReports)).Decode(&reports); err != nil {
		http.Error(w, "reports: "+err.Error(), http.StatusBadRequest)
		return
	}
	for _, report := range reports {
		if err := s.keep(r.Context(), name, report); err != nil {
			s.fail(w, r, err)
			return
		}
	}
	w.WriteHeader(http.StatusNoContent)
}

// keep stores a report, unless its unit's documents are already gone: a late
// report must not bring a deleted unit's record back.
func (s *Server) keep(ctx context.Context, name string, report Report) error {
	unit, err := s.store.Get(ctx, UnitKey(name, report.Kind, report.Name))
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("report of %s %s: %w", report.Kind, report.Name, err)
	}
	value, err := json.Marshal(report)
	if err != nil {
		return fmt.Errorf("report of %s %s: %w", report.Kind, report.Name, err)
	}
	// A unit that changed meanwhile gets a newer report anyway; one that was
	// deleted must stay deleted.
	_, err = s.store.Txn(ctx,
		store.Change{Key: unit.Key, Revision: unit.Revision, Check: true},
		store.Change{Key: ReportKey(name, report.Kind, report.Name), Value: value, Revision: store.Any})
	if fault.Is(err, fault.Precondition) {
		return nil
	}
	return err
}

func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		return
	}
	s.log.Error("host request failed", "path", r.URL.Path, "error", err)
	http.Error(w, "the service's store can't be reached", http.StatusServiceUnavailable)
}
