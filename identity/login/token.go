// SPDX-License-Identifier: Apache-2.0

package login

import (
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"bastide.dev/fault"
	"bastide.dev/identity"
)

// deviceGrant is RFC 8628's name; older clients say device_code.
const deviceGrant = "urn:ietf:params:oauth:grant-type:device_code"

// client is who asks for a token.
type client struct {
	identity.Application
	principal  identity.ServicePrincipal // of a client that proved itself
	credential string                    // the id of what it showed
	flow       identity.Flow             // how it did
	proved     bool
}

// acr is how the client proved itself, as tokens say it.
func (c client) acr() string {
	switch {
	case !c.proved:
		return identity.ClientPublic
	case c.flow == identity.FlowSecret:
		return identity.ClientSecret
	}
	return identity.ClientCertificate
}

// token answers the token endpoint.
func (s *Service) token(w http.ResponseWriter, c *call) {
	answer, err := s.grant(c)
	s.record(c, err)
	s.allowOrigin(w, c)
	if err != nil {
		s.fail(w, c.Request, err)
		return
	}
	w.Header().Set("Pragma", "no-cache")
	writeJSON(w, http.StatusOK, answer)
}

// flows says which way to a token a grant is, and what answers it. What the
// client itself asks for is known by how it proves itself.
func (s *Service) grants() map[string]struct {
	flow   identity.Flow
	answer func(*call, client) (map[string]any, error)
} {
	type row = struct {
		flow   identity.Flow
		answer func(*call, client) (map[string]any, error)
	}
	return map[string]row{
		"client_credentials": {identity.FlowSecret, s.clientCredentials},
		"password":           {identity.FlowPassword, s.password},
		"refresh_token":      {identity.FlowRefresh, s.refresh},
		deviceGrant:          {identity.FlowDevice, s.redeemDevice},
		"device_code":        {identity.FlowDevice, s.redeemDevice},
		"authorization_code": {identity.FlowCode, s.redeemCode},
		onBehalfGrant:        {identity.FlowOnBehalf, s.onBehalf},
	}
}

func (s *Service) grant(c *call) (map[string]any, error) {
	s.begin(c, "")
	if err := readForm(c.Request); err != nil {
		return nil, err
	}
	grant := c.PostForm.Get("grant_type")
	row, known := s.grants()[grant]
	c.attempt.Flow = row.flow
	if grant == "client_credentials" && c.PostForm.Has("client_assertion") {
		c.attempt.Flow = identity.FlowAssertion
	}
	client, err := s.client(c)
	if err != nil {
		return nil, err
	}
	switch {
	case grant == "":
		return nil, refuse("invalid_request", 900144, "The request body must contain the following parameter: 'grant_type'.")
	case !known:
		return nil, refuse("unsupported_grant_type", 70003, "The app requested an unsupported grant type '%s'.", printable(grant))
	}
	return row.answer(c, client)
}

// readForm takes parameters from the body alone, each once.
func readForm(r *http.Request) error {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/x-www-form-urlencoded" {
		return refuse("invalid_request", 90014, "The body must be of type application/x-www-form-urlencoded.")
	}
	if err := r.ParseForm(); err != nil {
		return refuse("invalid_request", 90013, "The body is not a valid form.")
	}
	for name, values := range r.PostForm {
		if len(values) > 1 {
			return refuse("invalid_request", 90013, "The parameter '%s' is there more than once.", printable(name))
		}
	}
	return nil
}

// client finds out which application asks and, unless it is a public one, lets it prove itself.
func (s *Service) client(c *call) (client, error) {
	id, secret, err := clientForm(c)
	if err != nil {
		return client{}, err
	}
	c.attempt.ClientID = printable(id)
	assertion := c.PostForm.Get("client_assertion")
	app, err := s.directory.Application(c.Context(), id)
	if fault.Is(err, fault.NotFound) && secret == "" && assertion == "" {
		return client{}, refuse("unauthorized_client", 700016, "Application with identifier '%s' was not found in the directory.", printable(id))
	}
	if err != nil && !fault.Is(err, fault.NotFound) {
		return client{}, err
	}
	if app.Public {
		if secret != "" || assertion != "" {
			return client{}, oauthError{code: "invalid_client", number: 700025, status: http.StatusUnauthorized, message: "Client is public so neither 'client_assertion' nor 'client_secret' should be presented."}
		}
		return client{Application: app}, nil
	}
	proved := client{Application: app, proved: true}
	switch {
	case assertion != "":
		proved.principal, proved.credential, proved.flow, err = s.checkAssertion(c, id, assertion)
	case secret != "":
		proved.flow = identity.FlowSecret
		proved.principal, proved.credential, err = s.directory.CheckSecret(c.Context(), id, secret, c.address())
	case mayBePublic(app, c.PostForm.Get("grant_type")):
		return client{Application: app}, nil
	default:
		err = oauthError{code: "invalid_client", number: 7000218, status: http.StatusUnauthorized, message: "The request body must contain the following parameter: 'client_assertion' or 'client_secret'."}
	}
	if err != nil {
		s.isClient(c, proved)
		return client{}, err
	}
	s.isClient(c, proved)
	return proved, nil
}

// clientForm is the client's id and secret, from body or header but not both.
func clientForm(c *call) (id, secret string, err error) {
	id, secret = c.PostForm.Get("client_id"), c.PostForm.Get("client_secret")
	if user, password, ok := c.BasicAuth(); ok {
		var err1, err2 error
		id, err1 = url.QueryUnescape(user)
		basic, err2 := url.QueryUnescape(password)
		if err1 != nil || err2 != nil {
			return "", "", refuse("invalid_request", 90013, "The Authorization header is malformed.")
		}
		if secret != "" || c.PostForm.Has("client_assertion") {
			return "", "", refuse("invalid_request", 90013, "A client proves itself in one way, not in two.")
		}
		if sent := c.PostForm.Get("client_id"); sent != "" && !strings.EqualFold(sent, id) {
			return "", "", refuse("invalid_request", 90013, "The Authorization header names another client than the body.")
		}
		secret = basic
	}
	if secret != "" && c.PostForm.Has("client_assertion") {
		return "", "", refuse("invalid_request", 90013, "A client proves itself in one way, not in two.")
	}
	if id == "" && !c.PostForm.Has("client_assertion") {
		return "", "", refuse("invalid_request", 900144, "The request body must contain the following parameter: 'client_id'.")
	}
	if id == "" { // RFC 7521: the assertion's subject says it, and is checked against it
		id = assertionSubject(c.PostForm.Get("client_assertion"))
		c.PostForm.Set("client_id", id)
	}
	return id, secret, nil
}

// mayBePublic says whether an application with native or single-page redirects
// may come without a secret: what it redeems has to come from such a redirect.
func mayBePublic(app identity.Application, grant string) bool {
	return (grant == "authorization_code" || grant == "refresh_token") && len(app.RedirectURIs)+len(app.SPARedirectURIs) > 0
}

// isClient completes the attempt with a client that asks for itself.
func (s *Service) isClient(c *call, client client) {
	if c.PostForm.Get("grant_type") != "client_credentials" {
		return
	}
	sp := client.principal
	c.attempt.Flow, c.attempt.Kind, c.attempt.Principal, c.attempt.Name = client.flow, identity.ServicePrincipalKind, sp.ID, c.attempt.ClientID
	if sp.Type == identity.ManagedIdentity {
		c.attempt.Kind = identity.ManagedIdentityKind
	}
	if sp.ID != "" {
		c.attempt.Groups, c.attempt.Roles, c.attempt.Credential = s.directory.GroupsOf(sp.ID), s.directoryRoles(sp.ID), client.credential
	}
}

// maxScope bounds what is kept of a request.
const maxScope = 4096

// request is what a token is asked for.
type request struct {
	Resource string `json:"resource"`
	Scope    string `json:"scope"` // as it was sent
	Version  int    `json:"version"`
	Nonce    string `json:"nonce,omitempty"`
}

func (r request) has(scope string) bool { return slices.Contains(strings.Fields(r.Scope), scope) }

// oidcScopes are about the answer, not about a resource.
func oidcScopes() []string { return []string{"openid", "profile", "email", "offline_access"} }

// names are the permissions asked for, without the resource that each begins with.
func (r request) names() []string {
	var names []string
	for _, scope := range strings.Fields(r.Scope) {
		if !slices.Contains(oidcScopes(), scope) {
			names = append(names, scope[strings.LastIndexByte(scope, '/')+1:])
		}
	}
	return names
}

// isDefault says that all permissions are asked for which are consented to.
func (r request) isDefault() bool { return slices.Contains(r.names(), ".default") }

// parseRequest finds the one resource that scopes (version 2) or the resource
// parameter (version 1) are about; /adfs takes both.
func (s *Service) parseRequest(c *call, form url.Values) (request, error) {
	asked := request{Resource: form.Get("resource"), Scope: form.Get("scope"), Version: c.version, Nonce: form.Get("nonce")}
	if c.version == 2 && asked.Resource != "" {
		return request{}, refuse("invalid_request", 901002, "The 'resource' request parameter is not supported.")
	}
	for _, scope := range strings.Fields(asked.Scope) {
		if slices.Contains(oidcScopes(), scope) {
			continue
		}
		resource := s.directory.Endpoints().Graph // a bare scope such as User.Read is Graph's
		if cut := strings.LastIndexByte(scope, '/'); cut > 0 {
			resource = scope[:cut]
		}
		if asked.Resource != "" && !strings.EqualFold(strings.TrimRight(asked.Resource, "/"), strings.TrimRight(resource, "/")) {
			return request{}, refuse("invalid_scope", 28000, "The scopes '%s' are about more than one resource.", printable(asked.Scope))
		}
		if asked.Resource == "" {
			asked.Resource = resource
		}
	}
	if asked.Resource == "" {
		asked.Resource = s.directory.Endpoints().Graph
	}
	if len(asked.Scope) > maxScope || len(asked.Nonce) > maxScope || len(asked.Resource) > maxScope {
		return request{}, refuse("invalid_request", 90013, "The request is too long.")
	}
	_, err := s.directory.Resource(c.Context(), asked.Resource)
	return asked, err
}
