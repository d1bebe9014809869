// SPDX-License-Identifier: Apache-2.0

// Package graph is the part of Microsoft Graph v1.0 that command lines and
// providers read to find themselves and others in the directory. What isn't
// there yet is refused by name.
//
// It answers from package identity and keeps nothing. Only cmd imports it.
package graph

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"

	"bastide.dev/fault"
	"bastide.dev/identity"
)

// Config is what a Service needs.
type Config struct {
	Directory *identity.Directory
	Log       *slog.Logger
}

// Service answers for graph.<domain>.
type Service struct {
	directory *identity.Directory
	log       *slog.Logger
	mux       *http.ServeMux
}

const maxBody = 256 << 10

// New makes the service.
func New(config Config) (*Service, error) {
	if config.Directory == nil {
		return nil, fmt.Errorf("graph: a directory is required")
	}
	s := &Service{directory: config.Directory, log: cmp.Or(config.Log, slog.Default()), mux: http.NewServeMux()}
	for pattern, answer := range map[string]answerer{
		"GET /v1.0/me":                                      s.me,
		"GET /v1.0/users":                                   s.list(s.users, "users"),
		"GET /v1.0/users/{id}":                              s.user,
		"GET /v1.0/servicePrincipals":                       s.list(s.principals, "servicePrincipals"),
		"GET /v1.0/servicePrincipals/{id}":                  s.principal,
		"GET /v1.0/applications":                            s.list(s.applications, "applications"),
		"GET /v1.0/applications/{id}":                       s.application,
		"GET /v1.0/groups":                                  s.list(s.groups, "groups"),
		"GET /v1.0/groups/{id}":                             s.group,
		"GET /v1.0/groups/{id}/members":                     s.members,
		"GET /v1.0/organization":                            s.list(s.organization, "organization"),
		"POST /v1.0/directoryObjects/getByIds":              s.byIDs,
		"POST /v1.0/users/{id}/getMemberGroups":             s.memberGroups,
		"POST /v1.0/me/getMemberGroups":                     s.memberGroups,
		"POST /v1.0/groups/{id}/getMemberGroups":            s.memberGroups,
		"POST /v1.0/servicePrincipals/{id}/getMemberGroups": s.memberGroups,
	} {
		s.mux.HandleFunc(pattern, s.authenticated(answer))
	}
	s.mux.HandleFunc("/", s.authenticated(func(r *request) (any, error) {
		return nil, fault.New(fault.NotFound, "NotImplemented", "Bastide's directory doesn't implement %s %s.", r.Method, r.URL.Path)
	}))
	return s, nil
}

// ServeHTTP answers one request.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	s.mux.ServeHTTP(w, r)
}

type request struct {
	*http.Request
	who identity.Principal
}

type answerer func(*request) (any, error)

// authenticated lets through users and the owners of the subscription. (Entra ID
// lets a member read the directory, and an application only where it was granted.)
func (s *Service) authenticated(answer answerer) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		value, err := s.serve(r, answer)
		if err != nil {
			s.fail(w, r, err)
			return
		}
		writeJSON(w, http.StatusOK, value)
	}
}

func (s *Service) serve(r *http.Request, answer answerer) (any, error) {
	scheme, bearer, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		bearer = ""
	}
	who, err := s.directory.AuthenticateFor(r.Context(), bearer, s.directory.Endpoints().Graph, "https://graph.microsoft.com", identity.AppGraph)
	if err != nil {
		return nil, err
	}
	if who.Kind != identity.UserKind {
		if err := s.mayRead(r.Context(), who); err != nil {
			return nil, err
		}
	}
	return answer(&request{Request: r, who: who})
}

func (s *Service) mayRead(ctx context.Context, who identity.Principal) error {
	tenant, err := s.directory.Tenant(ctx)
	if err != nil {
		return err
	}
	err = s.directory.Authorize(ctx, who, "Microsoft.Authorization/roleAssignments/write", "/subscriptions/"+tenant.SubscriptionID)
	if fault.Is(err, fault.Forbidden) {
		return fault.New(fault.Forbidden, "Authorization_RequestDenied", "Insufficient privileges to complete the operation.")
	}
	return err
}

func (s *Service) fail(w http.ResponseWriter, r *http.Request, err error) {
	f := fault.From(err)
	id := uuid.NewString()
	status, code := http.StatusBadRequest, cmp.Or(f.Code, "Request_BadRequest")
	switch f.Kind {
	case fault.Unauthorized:
		status = http.StatusUnauthorized
		w.Header().Set("WWW-Authenticate", `Bearer realm="", authorization_uri="`+s.directory.Endpoints().Authority+`/common/oauth2/authorize", error="invalid_token"`)
	case fault.Forbidden:
		status = http.StatusForbidden
	case fault.NotFound:
		status = http.StatusNotFound
	case fault.Unavailable:
		status = http.StatusServiceUnavailable
	case fault.Internal:
		status = http.StatusInternalServerError
		s.log.Error("directory request failed", "path", r.URL.Path, "request", id, "error", err)
	}
	if code == "NotImplemented" {
		status = http.StatusNotImplemented
	}
	writeJSON(w, status, map[string]any{"error": map[string]any{"code": code, "message": f.Message,
		"innerError": map[string]any{"date": time.Now().UTC().Format("2006-01-02T15:04:05"), "request-id": id, "client-request-id": id}}})
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
