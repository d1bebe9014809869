// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"bastide.dev/fault"
)

const (
	tokenPath      = "/oauth2/token"
	tokenLifetime  = 5 * time.Minute
	tokenAlgorithm = jose.HS256
)

// access is what a token allows, in the form of the distribution specification.
type access struct {
	Type    string   `json:"type"`
	Name    string   `json:"name"`
	Actions []string `json:"actions"`
}

// claims of the registry's own tokens, which live for minutes and are only ever read here.
type claims struct {
	Audience string   `json:"aud"`
	Expires  int64    `json:"exp"`
	Subject  Subject  `json:"sub_info,omitzero"` // empty: anonymous
	Refresh  bool     `json:"refresh,omitempty"` // it only buys others (exchange.go)
	Access   []access `json:"access"`
}

// repositoryForm finds the repository in a path; its last match is the name's end.
var repositoryForm = regexp.MustCompile(`^/v2/(.+)/(?:manifests|blobs|tags)/`)

// scopeForm is a scope that a client asks for.
var scopeForm = regexp.MustCompile(`^repository:([a-z0-9]+(?:[._/-]+[a-z0-9]+)*):([a-z*,]+)$`)

// admit lets reads of images through and asks who wants anything else. It has
// answered when it returns false.
func (r *Registry) admit(w http.ResponseWriter, request *http.Request) bool {
	read := request.Method == http.MethodGet || request.Method == http.MethodHead
	name := ""
	if m := repositoryForm.FindStringSubmatch(request.URL.Path); m != nil {
		name = m[1]
	}
	needed := access{Type: "repository", Name: name, Actions: []string{"pull"}}
	switch {
	case name == "" && request.URL.Path == "/v2/_catalog":
		needed = access{Type: "registry", Name: "catalog", Actions: []string{"*"}}
	case name == "":
		needed = access{} // only to sign in, as clients do first
	case !read && request.Method == http.MethodDelete:
		needed.Actions = []string{"delete"}
	case !read:
		needed.Actions = []string{"pull", "push"}
	}
	if request.Header.Get("Authorization") == "" && read && name != "" && r.open(name) {
		return true
	}
	if err := r.authorize(request, needed); err != nil {
		r.refuse(w, request, needed, err)
		return false
	}
	return true
}

func (r *Registry) authorize(request *http.Request, needed access) error {
	subject, granted, err := r.who(request)
	if err != nil {
		return err
	}
	if granted != nil && !covers(granted, needed) {
		return unauthorized("The token is for something else.")
	}
	pull := slices.Equal(needed.Actions, []string{"pull"})
	switch {
	case needed.Type == "", pull && r.open(needed.Name):
		return nil
	case subject.ID == "":
		return unauthorized("Sign in first.")
	case pull:
		return r.config.Directory.MayRead(request.Context(), subject)
	}
	return r.config.Directory.MayWrite(request.Context(), subject)
}

// open tells whether anybody may pull from a repository.
func (r *Registry) open(name string) bool {
	return r.config.AnonymousPull || slices.ContainsFunc(r.config.Public, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}

// who finds the sender by a token of the registry, a token of the instance, or a
// name and a password. The accesses are nil unless a token of the registry limits them.
func (r *Registry) who(request *http.Request) (Subject, []access, error) {
	if name, password, ok := request.BasicAuth(); ok {
		s, err := r.basic(request, name, password)
		return s, nil, err
	}
	scheme, bearer, _ := strings.Cut(request.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || bearer == "" {
		return Subject{}, nil, unauthorized("Sign in first.")
	}
	if c, ok := r.ownToken(bearer); ok && !c.Refresh {
		return c.Subject, append([]access{}, c.Access...), nil
	}
	s, err := r.config.Directory.Bearer(request.Context(), bearer)
	return s, nil, err
}

// ownToken reads a token that this registry has signed.
func (r *Registry) ownToken(bearer string) (claims, bool) {
	var c claims
	token, err := jwt.ParseSigned(bearer, []jose.SignatureAlgorithm{tokenAlgorithm})
	if err != nil || token.Claims(r.config.Key, &c) != nil {
		return claims{}, false
	}
	return c, c.Audience == r.config.URL && time.Now().Unix() < c.Expires
}

func covers(granted []access, needed access) bool {
	if needed.Type == "" {
		return true
	}
	return slices.ContainsFunc(granted, func(g access) bool {
		return g.Type == needed.Type && g.Name == needed.Name && !slices.ContainsFunc(needed.Actions, func(a string) bool { return !slices.Contains(g.Actions, a) })
	})
}

// token exchanges a name and a password, or nothing, for a token that allows
// what was asked for as far as the sender may.
func (r *Registry) token(w http.ResponseWriter, request *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	request.Body = http.MaxBytesReader(w, request.Body, 64<<10)
	subject, scopes, err := r.signIn(request)
	if err != nil {
		r.refuse(w, request, access{}, err)
		return
	}
	c := claims{Audience: r.config.URL, Expires: time.Now().Add(tokenLifetime).Unix(), Subject: subject, Access: []access{}}
	for _, scope := range scopes {
		if a, ok := r.grant(request.Context(), subject, scope); ok {
			c.Access = append(c.Access, a)
		}
	}
	signed, err := jwt.Signed(r.signer).Claims(c).Serialize()
	if err != nil {
		r.refuse(w, request, access{}, fmt.Errorf("sign token: %w", err))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"token": signed, "access_token": signed, "token_type": "Bearer", // a client that went away is no error of ours
		"expires_in": int(tokenLifetime.Seconds()), "issued_at": time.Now().UTC().Format(time.RFC3339)})
}

func (r *Registry) signIn(request *http.Request) (Subject, []string, error) {
	switch request.Method {
	case http.MethodGet:
		scopes := splitScopes(request.URL.Query()["scope"])
		if request.Header.Get("Authorization") == "" {
			return Subject{}, scopes, nil
		}
		s, _, err := r.who(request)
		return s, scopes, err
	case http.MethodPost:
		if err := request.ParseForm(); err != nil {
			return Subject{}, nil, fault.New(fault.Invalid, "UNSUPPORTED", "The form can't be read.")
		}
		scopes := splitScopes(request.PostForm["scope"])
		switch request.PostForm.Get("grant_type") {
		case "password":
			s, err := r.basic(request, request.PostForm.Get("username"), request.PostForm.Get("password"))
			return s, scopes, err
		case "refresh_token":
			s, err := r.refreshed(request.PostForm.Get("refresh_token"))
			return s, scopes, err
		}
		return Subject{}, nil, fault.New(fault.Invalid, "UNSUPPORTED", "The grant_type must be 'password' or 'refresh_token'.")
	}
	return Subject{}, nil, fault.New(fault.NotAllowed, "UNSUPPORTED", "Use GET or POST.")
}

func splitScopes(values []string) []string {
	return strings.Fields(strings.Join(values, " "))
}

func (r *Registry) grant(ctx context.Context, subject Subject, scope string) (access, bool) {
	mayWrite := subject.ID != "" && r.config.Directory.MayWrite(ctx, subject) == nil
	mayRead := func(name string) bool {
		return r.open(name) || mayWrite || subject.ID != "" && r.config.Directory.MayRead(ctx, subject) == nil
	}
	if scope == "registry:catalog:*" {
		return access{Type: "registry", Name: "catalog", Actions: []string{"*"}}, mayWrite
	}
	m := scopeForm.FindStringSubmatch(scope)
	if m == nil {
		return access{}, false
	}
	a := access{Type: "repository", Name: m[1]}
	for _, action := range strings.Split(m[2], ",") {
		if action == "pull" && mayRead(m[1]) || mayWrite && (action == "push" || action == "delete") {
			a.Actions = append(a.Actions, action)
		}
	}
	return a, len(a.Actions) > 0
}

// refuse answers with the specification's error body and says how to sign in.
func (r *Registry) refuse(w http.ResponseWriter, request *http.Request, needed access, err error) {
	f := fault.From(err)
	status, code := http.StatusInternalServerError, "UNKNOWN"
	switch f.Kind {
	case fault.Unauthorized:
		status, code = http.StatusUnauthorized, "UNAUTHORIZED"
		challenge := fmt.Sprintf("Bearer realm=%q,service=%q", r.config.URL+tokenPath, hostOf(r.config.URL))
		if needed.Type != "" && !strings.ContainsAny(needed.Name, `"\`) {
			challenge += fmt.Sprintf(",scope=%q", needed.Type+":"+needed.Name+":"+strings.Join(needed.Actions, ","))
		}
		w.Header().Set("WWW-Authenticate", challenge)
	case fault.Forbidden:
		status, code = http.StatusForbidden, "DENIED"
	case fault.Invalid:
		status, code = http.StatusBadRequest, f.Code
	case fault.NotAllowed:
		status, code = http.StatusMethodNotAllowed, f.Code
	case fault.Unavailable:
		status = http.StatusServiceUnavailable
	default:
		r.log.Error("registry request failed", "path", request.URL.Path, "error", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"errors": []any{map[string]any{"code": code, "message": f.Message}}}) // as above
}

func unauthorized(message string) error {
	return fault.New(fault.Unauthorized, "UNAUTHORIZED", "%s", message)
}

func address(request *http.Request) string {
	host, _, err := net.SplitHostPort(request.RemoteAddr)
	if err != nil {
		return request.RemoteAddr
	}
	return host
}

func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return address
	}
	return u.Host
}
