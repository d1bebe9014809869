// SPDX-License-Identifier: Apache-2.0

package login

import (
	"crypto/sha256"
	"encoding/base64"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"bastide.dev/fault"
	"bastide.dev/identity"
	"bastide.dev/store"
)

const codeLifetime = 5 * time.Minute

// challengeForm is a base64url SHA-256, all that RFC 7636's S256 can be.
var challengeForm = regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`)

// code is an authorisation code. Once used it stays until it expires, so that a
// second use is seen: then the tokens of the first end as well.
type code struct {
	Secret    []byte    `json:"secret"` // SHA-256
	UserID    string    `json:"userId"`
	ClientID  string    `json:"clientId"`
	Redirect  string    `json:"redirect"`
	Challenge string    `json:"challenge"`
	Asked     request   `json:"asked"`
	Family    string    `json:"family,omitempty"` // set when used
	Expires   time.Time `json:"expires"`
}

// authorization is a checked request of the authorisation endpoint.
type authorization struct {
	app       identity.Application
	redirect  *url.URL
	formPost  bool
	state     string
	challenge string
	asked     request
}

// authorize shows the sign-in page and, once the user proved themselves, sends a
// code to the application. What is wrong with application or redirect is shown
// to the user and never sent anywhere.
func (s *Service) authorize(w http.ResponseWriter, c *call) {
	a, err := s.parseAuthorization(c)
	if err != nil {
		s.show(w, http.StatusBadRequest, page{Title: "Sign in", Problem: s.pageProblem(err, c), Fatal: true}, "")
		return
	}
	if err := s.checkAuthorization(c, &a); err != nil {
		e := asOAuth(err)
		if e == nil {
			s.fail(w, c.Request, err)
			return
		}
		s.redirect(w, a, url.Values{"error": {e.code}, "error_description": {e.message}})
		return
	}
	form := page{Title: "Sign in", Application: a.app.DisplayName, Action: c.URL.RequestURI(), User: printable(c.URL.Query().Get("login_hint"))}
	origin := a.redirect.Scheme + "://" + a.redirect.Host
	if c.Method == http.MethodGet {
		s.show(w, http.StatusOK, form, origin)
		return
	}
	if err := s.origins.Check(c.Request); err != nil {
		http.Error(w, "A form on another site can't sign you in.", http.StatusForbidden)
		return
	}
	value, err := s.signIn(c, a)
	if err != nil {
		form.Problem, form.User = s.pageProblem(err, c), printable(c.PostForm.Get("username"))
		s.show(w, http.StatusBadRequest, form, origin)
		return
	}
	s.redirect(w, a, url.Values{"code": {value}})
}

func (s *Service) signIn(c *call, a authorization) (string, error) {
	if err := readForm(c.Request); err != nil {
		return "", err
	}
	user, err := s.directory.CheckPassword(c.Context(), c.PostForm.Get("username"), c.PostForm.Get("password"), c.address())
	if err != nil {
		return "", err
	}
	id, secret := identity.Random(22), identity.Random(43)
	document := code{Secret: digest(secret), UserID: user.ID, ClientID: a.app.AppID, Redirect: a.redirect.String(),
		Challenge: a.challenge, Asked: a.asked, Expires: s.expiry(codeLifetime)}
	return id + "." + secret, s.put(c.Context(), codes+id, document, store.Absent)
}

// parseAuthorization checks what decides where an answer may be sent.
func (s *Service) parseAuthorization(c *call) (authorization, error) {
	q := c.URL.Query()
	app, err := s.directory.Application(c.Context(), q.Get("client_id"))
	if fault.Is(err, fault.NotFound) {
		return authorization{}, refuse("unauthorized_client", 700016, "Application with identifier '%s' was not found in the directory.", printable(q.Get("client_id")))
	}
	if err != nil {
		return authorization{}, err
	}
	redirect, err := url.Parse(q.Get("redirect_uri"))
	if err != nil || redirect.Fragment != "" || redirect.User != nil || !registered(app, redirect) {
		return authorization{}, refuse("invalid_request", 50011, "The redirect URI '%s' specified in the request does not match the redirect URIs configured for the application '%s'.", printable(q.Get("redirect_uri")), app.AppID)
	}
	return authorization{app: app, redirect: redirect, state: q.Get("state"), formPost: q.Get("response_mode") == "form_post"}, nil
}

// registered compares with the application's redirects: exactly or, for a
// loopback one, with any port and path (RFC 8252, section 7.3).
func registered(app identity.Application, redirect *url.URL) bool {
	return slices.ContainsFunc(app.RedirectURIs, func(known string) bool {
		if known == redirect.String() {
			return true
		}
		u, err := url.Parse(known)
		return err == nil && u.Scheme == "http" && loopback(u.Hostname()) && redirect.Scheme == "http" && redirect.Hostname() == u.Hostname()
	})
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// checkAuthorization checks the rest, whose problems the application is told.
func (s *Service) checkAuthorization(c *call, a *authorization) error {
	q := c.URL.Query()
	if kind := q.Get("response_type"); kind != "code" {
		return refuse("unsupported_response_type", 700051, "The response type '%s' is not supported: use 'code'.", printable(kind))
	}
	if mode := q.Get("response_mode"); mode != "" && mode != "query" && mode != "form_post" {
		return refuse("invalid_request", 70007, "'%s' is not a supported value of 'response_mode': use 'query' or 'form_post'.", printable(mode))
	}
	a.challenge = q.Get("code_challenge")
	if q.Get("code_challenge_method") != "S256" || !challengeForm.MatchString(a.challenge) {
		return refuse("invalid_request", 9002325, "Proof Key for Code Exchange with method S256 is required.")
	}
	if q.Get("prompt") == "none" {
		return refuse("login_required", 50058, "Session information is not sufficient for single-sign-on.")
	}
	var err error
	a.asked, err = s.parseRequest(c, q)
	return err
}

// redirect sends an answer to the application, whose address was checked before.
func (s *Service) redirect(w http.ResponseWriter, a authorization, values url.Values) {
	if a.state != "" {
		values.Set("state", a.state)
	}
	if a.formPost {
		fields := map[string]string{}
		for name := range values {
			fields[name] = values.Get(name)
		}
		s.show(w, http.StatusOK, page{Title: "Continue", Action: a.redirect.String(), Fields: fields}, a.redirect.Scheme+"://"+a.redirect.Host)
		return
	}
	to := *a.redirect
	q := to.Query()
	for name := range values {
		q.Set(name, values.Get(name))
	}
	to.RawQuery = q.Encode()
	w.Header().Set("Location", to.String())
	w.WriteHeader(http.StatusFound)
}

// redeemCode exchanges a code for tokens, once.
func (s *Service) redeemCode(c *call, client client) (map[string]any, error) {
	bad := refuse("invalid_grant", 70000, "Provided grant is invalid or malformed.")
	id, secret, _ := strings.Cut(c.PostForm.Get("code"), ".")
	if len(id) != 22 || strings.Contains(id, "/") {
		return nil, bad
	}
	var document code
	revision, err := s.get(c.Context(), codes+id, &document)
	if fault.Is(err, fault.NotFound) {
		return nil, bad
	}
	if err != nil {
		return nil, err
	}
	if !same(digest(secret), document.Secret) || !strings.EqualFold(document.ClientID, client.AppID) || !s.now().Before(document.Expires) {
		return nil, bad
	}
	if document.Family != "" {
		if err := s.store.Delete(c.Context(), families+document.Family, store.Any); err != nil && !fault.Is(err, fault.NotFound) {
			return nil, err
		}
		s.log.Warn("authorisation code used twice, its tokens have ended", "user", document.UserID, "address", c.address())
		return nil, refuse("invalid_grant", 54005, "OAuth2 Authorization code was already redeemed.")
	}
	if c.PostForm.Get("redirect_uri") != document.Redirect {
		return nil, refuse("invalid_grant", 50011, "The redirect URI does not match the one of the authorisation request.")
	}
	sum := sha256.Sum256([]byte(c.PostForm.Get("code_verifier")))
	if !same([]byte(base64.RawURLEncoding.EncodeToString(sum[:])), []byte(document.Challenge)) {
		return nil, refuse("invalid_grant", 501481, "The Code_Verifier does not match the code_challenge supplied in the authorization request.")
	}
	document.Family = identity.Random(22)
	if err := s.put(c.Context(), codes+id, document, revision); err != nil {
		if fault.Is(err, fault.Precondition) {
			return nil, bad
		}
		return nil, err
	}
	return s.codeTokens(c, client, document)
}

func (s *Service) codeTokens(c *call, client client, document code) (map[string]any, error) {
	user, err := s.directory.User(c.Context(), document.UserID)
	if err != nil || user.Disabled {
		return nil, refuse("invalid_grant", 50057, "The user account is disabled or gone.")
	}
	refresh := ""
	if document.Asked.Version == 1 || document.Asked.has("offline_access") {
		if refresh, err = s.newFamily(c.Context(), user.ID, client.AppID, document.Family); err != nil {
			return nil, err
		}
	}
	return s.userAnswer(c, "authorization_code", user, client.Application, document.Asked, refresh)
}
