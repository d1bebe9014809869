// SPDX-License-Identifier: Apache-2.0

package login

import (
	"encoding/json"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"bastide.dev/fault"
	"bastide.dev/identity"
	"bastide.dev/store"
)

// challengeForm is a base64url SHA-256, all that RFC 7636's S256 can be.
var challengeForm = regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`)

// maxQuery bounds what a request of this endpoint is.
const maxQuery = 16 << 10

// The kinds of redirects: what may redeem a code that was sent there.
const (
	redirectNative = "native" // a program on the user's machine: a public client
	redirectPage   = "spa"    // a script in the user's browser: a public client
	redirectWeb    = "web"    // a server, which has a secret
)

// authorization is a checked request of the authorisation endpoint.
type authorization struct {
	app       identity.Application
	redirect  *url.URL
	kind      string // of the redirect
	mode      string // how the answer is sent
	state     string
	challenge string
	prompt    []string
	asked     request
	want      want
}

// authorize leads a person through the sign-in and sends a code to the
// application. What is wrong with application or redirect is shown to the person
// and never sent anywhere.
func (s *Service) authorize(w http.ResponseWriter, c *call) {
	a, err := s.parseAuthorization(c)
	if err != nil {
		s.show(w, http.StatusBadRequest, page{Title: "Sign in", View: "fatal", Problem: s.pageProblem(err, c)})
		return
	}
	if err := s.checkAuthorization(c, &a); err != nil {
		s.redirectError(w, c, a, err)
		return
	}
	v, err := s.visit(w, c)
	if err != nil {
		s.fail(w, c.Request, err)
		return
	}
	if slices.Contains(a.prompt, "none") {
		s.authorizeSilently(v, a)
		return
	}
	if !s.identify(v, a.want) {
		return
	}
	shown, err := s.consent(v, a)
	if err != nil {
		s.record(v.call, err)
		s.redirectError(w, c, a, err)
		return
	}
	if shown != nil {
		s.complete(v, shown)
		s.show(w, http.StatusOK, *shown)
		return
	}
	s.sendCode(v, a)
}

// authorizeSilently answers prompt=none: at once, or with what would have to be asked.
func (s *Service) authorizeSilently(v *visit, a authorization) {
	s.begin(v.call, identity.FlowCode)
	v.attempt.ClientID, v.attempt.ResourceID = a.app.AppID, a.want.resource
	if v.Method != http.MethodGet {
		s.redirectError(v.w, v.call, a, refuse("invalid_request", 90014, "prompt=none has no forms."))
		return
	}
	next, err := s.missing(v, a.want)
	switch {
	case err != nil:
	case next == stepPassword || next == stepAccount:
		err = refuse("login_required", 50058, "A silent sign-in request was sent but no user is signed in.")
	case next == viewDenied:
		err = refuse("access_denied", 53003, "Access has been blocked by Conditional Access policies.")
	case next != "":
		err = refuse("interaction_required", 50076, "A silent sign-in request was sent, but the user has to do something first.")
	default:
		if _, missing, problem := s.wantedScopes(v, a); problem != nil {
			err = problem
		} else if len(missing) > 0 {
			err = refuse("consent_required", 65001, "The user or administrator has not consented to use the application with ID '%s'.", a.app.AppID)
		}
	}
	if err != nil {
		s.redirectError(v.w, v.call, a, err)
		return
	}
	s.sendCode(v, a)
}

// sendCode gives the application what it came for.
func (s *Service) sendCode(v *visit, a authorization) {
	if v.session.Settled != nil { // what was asked for anew is asked for anew the next time
		if err := s.settle(v, nil); err != nil {
			s.fail(v.w, v.Request, err)
			return
		}
	}
	id, secret := identity.Random(22), identity.Random(43)
	document := code{Secret: digest(secret), ClientID: a.app.AppID, Redirect: a.redirect.String(), Kind: a.kind,
		Challenge: a.challenge, Asked: a.asked, proof: v.proof(identity.FlowCode), Expires: s.expiry(codeLifetime)}
	if err := s.put(v.Context(), codes+id, document, store.Absent); err != nil {
		s.fail(v.w, v.Request, err)
		return
	}
	s.redirect(v.w, a, url.Values{"code": {id + "." + secret}})
}

// parseAuthorization checks what decides where an answer may be sent.
func (s *Service) parseAuthorization(c *call) (authorization, error) {
	if len(c.URL.RawQuery) > maxQuery {
		return authorization{}, refuse("invalid_request", 90013, "The request is too long.")
	}
	q, err := url.ParseQuery(c.URL.RawQuery)
	if err != nil {
		return authorization{}, refuse("invalid_request", 90013, "The request's query is malformed.")
	}
	for name, values := range q {
		if len(values) > 1 {
			return authorization{}, refuse("invalid_request", 90013, "The parameter '%s' is there more than once.", printable(name))
		}
	}
	app, err := s.directory.Application(c.Context(), q.Get("client_id"))
	if fault.Is(err, fault.NotFound) {
		return authorization{}, refuse("unauthorized_client", 700016, "Application with identifier '%s' was not found in the directory.", printable(q.Get("client_id")))
	}
	if err != nil {
		return authorization{}, err
	}
	redirect, err := url.Parse(q.Get("redirect_uri"))
	kind := ""
	if err == nil && redirect.Fragment == "" && redirect.User == nil && redirect.String() == q.Get("redirect_uri") {
		kind = redirectKind(app, redirect)
	}
	if kind == "" {
		return authorization{}, refuse("invalid_request", 50011, "The redirect URI '%s' specified in the request does not match the redirect URIs configured for the application '%s'.", printable(q.Get("redirect_uri")), app.AppID)
	}
	return authorization{app: app, redirect: redirect, kind: kind, state: q.Get("state"), mode: q.Get("response_mode")}, nil
}

// redirectKind compares with the application's redirects: exactly or, for a
// native one on the loopback address, with any port and path (RFC 8252, section 7.3).
func redirectKind(app identity.Application, redirect *url.URL) string {
	text := redirect.String()
	switch {
	case slices.Contains(app.WebRedirectURIs, text) && safeTarget(redirect):
		return redirectWeb
	case slices.Contains(app.SPARedirectURIs, text) && safeTarget(redirect):
		return redirectPage
	case slices.Contains(app.RedirectURIs, text) && !slices.Contains([]string{"javascript", "data", "vbscript", "file", "blob"}, redirect.Scheme):
		return redirectNative
	case slices.ContainsFunc(app.RedirectURIs, func(known string) bool {
		u, err := url.Parse(known)
		return err == nil && u.Scheme == "http" && loopback(u.Hostname()) && redirect.Scheme == "http" && redirect.Hostname() == u.Hostname()
	}):
		return redirectNative
	}
	return ""
}

// safeTarget is https, or a developer's own machine.
func safeTarget(u *url.URL) bool {
	return u.Scheme == "https" && u.Host != "" || u.Scheme == "http" && loopback(u.Hostname())
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// checkAuthorization checks the rest, whose problems the application is told.
func (s *Service) checkAuthorization(c *call, a *authorization) error {
	q := c.URL.Query()
	switch a.mode {
	case "", "query", "form_post", "fragment":
	default:
		mode := a.mode
		a.mode = "" // the refusal itself goes the usual way
		return refuse("invalid_request", 70007, "'%s' is not a supported value of 'response_mode': use 'query', 'fragment' or 'form_post'.", printable(mode))
	}
	if kind := q.Get("response_type"); kind != "code" {
		return refuse("unsupported_response_type", 700051, "The response type '%s' is not supported: use 'code'.", printable(kind))
	}
	if len(a.state) > maxScope {
		a.state = ""
		return refuse("invalid_request", 90013, "The parameter 'state' is too long.")
	}
	a.challenge = q.Get("code_challenge")
	method := q.Get("code_challenge_method")
	bySecret := a.challenge == "" && method == "" && a.kind == redirectWeb && !a.app.Public
	if !bySecret && (method != "S256" || !challengeForm.MatchString(a.challenge)) {
		return refuse("invalid_request", 9002325, "Proof Key for Code Exchange with method S256 is required.")
	}
	var err error
	if a.asked, err = s.parseRequest(c, q); err != nil {
		return err
	}
	resource, err := s.directory.Resource(c.Context(), a.asked.Resource)
	if err != nil {
		return err
	}
	a.want = want{flow: identity.FlowCode, app: a.app, resource: resource.Application.AppID, request: digest(c.URL.RawQuery),
		page: page{Title: "Sign in", Application: a.app.DisplayName, Action: c.URL.RequestURI(), User: printable(q.Get("login_hint")), Target: origin(a.redirect)}}
	return s.checkDemands(a, q)
}

// origin is what a content security policy calls the place of a redirect.
func origin(u *url.URL) string {
	if u.Host == "" {
		return u.Scheme + ":"
	}
	return u.Scheme + "://" + u.Host
}

// checkDemands reads what the application asks of the sign-in itself.
func (s *Service) checkDemands(a *authorization, q url.Values) error {
	a.prompt = strings.Fields(q.Get("prompt"))
	for _, p := range a.prompt {
		switch p {
		case "login":
			a.want.login = true
		case "select_account":
			a.want.choose = true
		case "none":
			if len(a.prompt) > 1 {
				return refuse("invalid_request", 90013, "prompt=none stands alone.")
			}
		case "consent":
		default:
			return refuse("invalid_request", 90023, "'%s' is not a supported value of 'prompt'.", printable(p))
		}
	}
	if text := q.Get("max_age"); text != "" {
		seconds, err := strconv.Atoi(text)
		if err != nil || seconds < 0 || seconds > 1<<30 {
			return refuse("invalid_request", 90013, "'max_age' must be a number of seconds.")
		}
		a.want.aged, a.want.maxAge = true, time.Duration(seconds)*time.Second
	}
	for _, value := range strings.Fields(q.Get("acr_values")) {
		if value == identity.MethodMFA || value == "possessionorinherence" {
			a.want.mfa = true
		}
	}
	mfa, err := claimsDemandMFA(q.Get("claims"))
	a.want.mfa = a.want.mfa || mfa
	return err
}

// claimsDemandMFA reads OpenID Connect's parameter of that name: the one claim
// that can be demanded is amr with mfa; an essential one of another kind is refused.
func claimsDemandMFA(text string) (bool, error) {
	if text == "" {
		return false, nil
	}
	type demand struct {
		Essential bool     `json:"essential"`
		Value     any      `json:"value"`
		Values    []string `json:"values"`
	}
	var asked map[string]map[string]*demand
	if err := json.Unmarshal([]byte(text), &asked); err != nil {
		return false, refuse("invalid_request", 50087, "The parameter 'claims' is not valid.")
	}
	mfa := false
	for _, of := range asked {
		for name, d := range of {
			switch {
			case d == nil:
			case name == "amr" && (d.Value == identity.MethodMFA || slices.Contains(d.Values, identity.MethodMFA)):
				mfa = true
			case d.Essential && (d.Value != nil || d.Values != nil):
				return false, refuse("invalid_request", 50087, "The claim '%s' can't be demanded with a value.", printable(name))
			}
		}
	}
	return mfa, nil
}

// redirectError tells the application what went wrong.
func (s *Service) redirectError(w http.ResponseWriter, c *call, a authorization, err error) {
	e := asOAuth(err)
	if e == nil {
		s.fail(w, c.Request, err)
		return
	}
	s.redirect(w, a, url.Values{"error": {e.code}, "error_description": {"AADSTS" + strconv.Itoa(e.number) + ": " + e.message}})
}

// redirect sends an answer to the application, whose address was checked before.
func (s *Service) redirect(w http.ResponseWriter, a authorization, values url.Values) {
	if a.state != "" {
		values.Set("state", a.state)
	}
	if a.mode == "form_post" {
		fields := map[string]string{}
		for name := range values {
			fields[name] = values.Get(name)
		}
		s.show(w, http.StatusOK, page{View: "fields", Title: "Continue", Action: a.redirect.String(), Fields: fields, Target: origin(a.redirect)})
		return
	}
	to := *a.redirect
	if a.mode == "fragment" {
		w.Header().Set("Location", to.String()+"#"+values.Encode())
	} else {
		q := to.Query()
		for name := range values {
			q.Set(name, values.Get(name))
		}
		to.RawQuery = q.Encode()
		w.Header().Set("Location", to.String())
	}
	w.Header().Set("Referrer-Policy", "no-referrer")
	w.WriteHeader(http.StatusFound)
}
