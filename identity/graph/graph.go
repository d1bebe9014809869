// SPDX-License-Identifier: Apache-2.0

// Package graph is the part of Microsoft Graph v1.0 through which command lines
// and providers read and write the directory. What isn't there is refused by name.
//
// It answers from package identity and keeps nothing; who may do what is judged
// here, by the directory as it is now (authority.go). Only cmd imports it.
package graph

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"

	"bastide.dev/fault"
	"bastide.dev/identity"
	"bastide.dev/identity/signin"
)

// Config is what a Service needs.
type Config struct {
	Directory *identity.Directory
	SignIns   *signin.Service // nil: conditional access and the log of sign-ins aren't there
	Log       *slog.Logger
	// Gone tells whether the resource of a managed identity isn't there any more: then
	// it may be deleted here. nil: each goes with its resource alone.
	Gone func(ctx context.Context, resourceID string) (bool, error)
}

// Service answers for graph.<domain>.
type Service struct {
	directory *identity.Directory
	signIns   *signin.Service
	gone      func(context.Context, string) (bool, error)
	log       *slog.Logger
	mux       *http.ServeMux
	kinds     kinds
}

const maxBody = 1 << 20

// New makes the service.
func New(config Config) (*Service, error) {
	if config.Directory == nil {
		return nil, fmt.Errorf("graph: a directory is required")
	}
	s := &Service{directory: config.Directory, signIns: config.SignIns, gone: config.Gone, log: cmp.Or(config.Log, slog.Default()), mux: http.NewServeMux(), kinds: newKinds()}
	for pattern, answer := range s.routes() {
		s.mux.HandleFunc(pattern, s.authenticated(answer))
	}
	if s.signIns != nil {
		for pattern, answer := range s.accessRoutes() {
			s.mux.HandleFunc(pattern, s.authenticated(answer))
		}
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
	next := r.Clone(r.Context())
	next.URL.RawPath = ""
	next.URL.Path = canonical(r.URL.Path)
	s.mux.ServeHTTP(w, next)
}

// canonical brings the forms in which clients write a path to one: /beta is what
// v1.0 is, the tenant may stand behind the version, and a key in parentheses,
// users('ID') or applications(appId='ID'), is a segment of its own.
func canonical(path string) string {
	segments := strings.Split(strings.Trim(path, "/"), "/")
	if strings.EqualFold(segments[0], "beta") || strings.EqualFold(segments[0], "v1.0") {
		segments[0] = "v1.0"
	}
	if len(segments) > 2 && segments[0] == "v1.0" && (uuid.Validate(segments[1]) == nil || strings.EqualFold(segments[1], "myorganization")) {
		segments = append(segments[:1], segments[2:]...)
	}
	var found []string
	for _, segment := range segments {
		name, key, keyed := strings.Cut(segment, "(")
		if !keyed || !strings.HasSuffix(key, ")") || name == "" {
			found = append(found, segment)
			continue
		}
		key = strings.TrimSuffix(key, ")")
		if len(key) > 1 && strings.HasPrefix(key, "'") && strings.HasSuffix(key, "'") {
			key = key[1 : len(key)-1]
		}
		if found = append(found, name); key != "" {
			found = append(found, key)
		}
	}
	return "/" + strings.Join(found, "/")
}

type request struct {
	*http.Request
	who identity.Principal
	may authority
}

// answerer answers with a value (200), created (201), plain text, or nil (204).
type answerer func(*request) (any, error)

// created is an answer of 201.
type created struct{ value any }

// plain is an answer of text.
type plain string

func (s *Service) authenticated(answer answerer) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		value, err := s.serve(r, answer)
		switch v := value.(type) {
		case nil:
			if err != nil {
				s.fail(w, r, err)
				return
			}
			w.WriteHeader(http.StatusNoContent)
		case plain:
			w.Header().Set("Content-Type", "text/plain")
			_, _ = w.Write([]byte(v)) // a client that went away is no error of ours
		case created:
			writeJSON(w, http.StatusCreated, v.value)
		default:
			writeJSON(w, http.StatusOK, value)
		}
	}
}

// serve authenticates a request and answers it; an error leaves no value.
func (s *Service) serve(r *http.Request, answer answerer) (any, error) {
	scheme, bearer, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		bearer = ""
	}
	who, err := s.directory.AuthenticateFor(r.Context(), bearer, s.directory.Endpoints().Graph, "https://graph.microsoft.com", identity.AppGraph)
	if err != nil {
		return nil, err
	}
	may, err := s.authority(r.Context(), who)
	if err != nil {
		return nil, err
	}
	r = r.WithContext(identity.ByPrincipal(r.Context(), who, remote(r)))
	value, err := answer(&request{Request: r, who: who, may: may})
	if err != nil {
		return nil, err
	}
	return value, nil
}

// remote is the address of who asks.
func remote(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
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
	case fault.Conflict:
		status = http.StatusConflict
	case fault.Unavailable:
		status = http.StatusServiceUnavailable
	case fault.Internal:
		status = http.StatusInternalServerError
		s.log.Error("directory request failed", "path", r.URL.Path, "request", id, "error", err)
	}
	if code == "NotImplemented" {
		status = http.StatusNotImplemented
	}
	answer := map[string]any{"code": code, "message": f.Message,
		"innerError": map[string]any{"date": time.Now().UTC().Format("2006-01-02T15:04:05"), "request-id": id, "client-request-id": cmp.Or(clientID(r), id)}}
	if f.Target != "" {
		answer["target"] = f.Target
	}
	if len(f.Details) > 0 {
		details := []map[string]any{}
		for _, d := range f.Details {
			details = append(details, map[string]any{"code": d.Code, "message": d.Message, "target": d.Target})
		}
		answer["details"] = details
	}
	writeJSON(w, status, map[string]any{"error": answer})
}

// clientID is the id that a client gave its request, if it is one.
func clientID(r *http.Request) string {
	id := r.Header.Get("client-request-id")
	if uuid.Validate(id) != nil {
		return ""
	}
	return id
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
