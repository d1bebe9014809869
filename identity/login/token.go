// SPDX-License-Identifier: Apache-2.0

package login

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
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
	credential string                    // the id of the secret it showed
	proved     bool
}

// token answers the token endpoint.
func (s *Service) token(w http.ResponseWriter, c *call) {
	answer, err := s.grant(c)
	if err != nil {
		grant := printable(c.PostForm.Get("grant_type"))
		if e := asOAuth(err); e != nil && e.code != "authorization_pending" {
			s.log.Info("sign-in refused", "grant", grant, "client", printable(c.PostForm.Get("client_id")), "address", c.address(), "code", e.number)
		}
		s.fail(w, c.Request, err)
		return
	}
	w.Header().Set("Pragma", "no-cache")
	writeJSON(w, http.StatusOK, answer)
}

func (s *Service) grant(c *call) (map[string]any, error) {
	if err := readForm(c.Request); err != nil {
		return nil, err
	}
	client, err := s.client(c)
	if err != nil {
		return nil, err
	}
	switch grant := c.PostForm.Get("grant_type"); grant {
	case "client_credentials":
		return s.clientCredentials(c, client)
	case "password":
		return s.password(c, client)
	case "refresh_token":
		return s.refresh(c, client)
	case deviceGrant, "device_code":
		return s.redeemDevice(c, client)
	case "authorization_code":
		return s.redeemCode(c, client)
	case "":
		return nil, refuse("invalid_request", 900144, "The request body must contain the following parameter: 'grant_type'.")
	default:
		return nil, refuse("unsupported_grant_type", 70003, "The app requested an unsupported grant type '%s'.", printable(grant))
	}
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
	id, secret := c.PostForm.Get("client_id"), c.PostForm.Get("client_secret")
	if user, password, ok := c.BasicAuth(); ok {
		if secret != "" {
			return client{}, refuse("invalid_request", 90013, "A client proves itself in one way, not in two.")
		}
		var err1, err2 error
		id, err1 = url.QueryUnescape(user)
		secret, err2 = url.QueryUnescape(password)
		if err1 != nil || err2 != nil {
			return client{}, refuse("invalid_request", 90013, "The Authorization header is malformed.")
		}
	}
	if id == "" {
		return client{}, refuse("invalid_request", 900144, "The request body must contain the following parameter: 'client_id'.")
	}
	if c.PostForm.Has("client_assertion") {
		return client{}, oauthError{"invalid_client", 7000216, http.StatusUnauthorized, "'client_assertion' is not implemented: use 'client_secret'."}
	}
	app, err := s.directory.Application(c.Context(), id)
	if fault.Is(err, fault.NotFound) && secret == "" {
		return client{}, refuse("unauthorized_client", 700016, "Application with identifier '%s' was not found in the directory.", printable(id))
	}
	if err != nil && !fault.Is(err, fault.NotFound) {
		return client{}, err
	}
	if app.Public {
		if secret != "" {
			return client{}, oauthError{"invalid_client", 700025, http.StatusUnauthorized, "Client is public so neither 'client_assertion' nor 'client_secret' should be presented."}
		}
		return client{Application: app}, nil
	}
	if secret == "" {
		return client{}, oauthError{"invalid_client", 7000218, http.StatusUnauthorized, "The request body must contain the following parameter: 'client_assertion' or 'client_secret'."}
	}
	sp, credential, err := s.directory.CheckSecret(c.Context(), id, secret, c.address())
	if err != nil {
		return client{}, err
	}
	return client{Application: app, principal: sp, credential: credential, proved: true}, nil
}

// request is what a token is asked for.
type request struct {
	Resource string `json:"resource"`
	Scope    string `json:"scope"` // as it was sent
	Version  int    `json:"version"`
	Nonce    string `json:"nonce,omitempty"`
}

func (r request) has(scope string) bool { return slices.Contains(strings.Fields(r.Scope), scope) }

// parseRequest finds the one resource that scopes (version 2) or the resource
// parameter (version 1) are about; /adfs takes both.
func (s *Service) parseRequest(c *call, form url.Values) (request, error) {
	asked := request{Resource: form.Get("resource"), Scope: form.Get("scope"), Version: c.version, Nonce: form.Get("nonce")}
	if c.version == 2 && asked.Resource != "" {
		return request{}, refuse("invalid_request", 901002, "The 'resource' request parameter is not supported.")
	}
	for _, scope := range strings.Fields(asked.Scope) {
		if slices.Contains([]string{"openid", "profile", "email", "offline_access"}, scope) {
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
	_, err := s.directory.Resource(c.Context(), asked.Resource)
	return asked, err
}

func (s *Service) clientCredentials(c *call, client client) (map[string]any, error) {
	if !client.proved {
		return nil, refuse("unauthorized_client", 7000218, "A public client can't use the grant 'client_credentials'.")
	}
	asked, err := s.parseRequest(c, c.PostForm)
	if err != nil {
		return nil, err
	}
	if c.version == 2 && !slices.ContainsFunc(strings.Fields(asked.Scope), func(scope string) bool { return strings.HasSuffix(scope, "/.default") }) {
		return nil, refuse("invalid_scope", 1002012, "The provided value for scope %s is not valid. Client credential flows must have a scope value with /.default suffixed to the resource identifier (application ID URI).", printable(asked.Scope))
	}
	resource, err := s.directory.Resource(c.Context(), asked.Resource)
	if err != nil {
		return nil, err
	}
	token, err := s.directory.PrincipalToken(c.Context(), client.principal, resource, client.credential)
	if err != nil {
		return nil, err
	}
	s.log.Info("signed in", "grant", "client_credentials", "principal", client.principal.ID, "address", c.address())
	return s.answer(c, asked, token), nil
}

func (s *Service) password(c *call, client client) (map[string]any, error) {
	asked, err := s.parseRequest(c, c.PostForm)
	if err != nil {
		return nil, err
	}
	user, err := s.directory.CheckPassword(c.Context(), c.PostForm.Get("username"), c.PostForm.Get("password"), c.address())
	if err != nil {
		return nil, err
	}
	return s.userAnswer(c, "password", user, client.Application, asked, "")
}

// userAnswer is the answer for a user who just signed in. refresh is the
// refresh token to send, "" makes a new family of them.
func (s *Service) userAnswer(c *call, grant string, user identity.User, app identity.Application, asked request, refresh string) (map[string]any, error) {
	if refresh == "" && (asked.Version == 1 || asked.has("offline_access")) {
		var err error
		if refresh, err = s.newFamily(c.Context(), user.ID, app.AppID, ""); err != nil {
			return nil, err
		}
	}
	answer, err := s.userTokens(c, user, app, asked)
	if err != nil {
		return nil, err
	}
	if refresh != "" {
		answer["refresh_token"] = refresh
	}
	s.log.Info("signed in", "grant", grant, "user", user.ID, "client", app.AppID, "address", c.address())
	return answer, nil
}

func (s *Service) userTokens(c *call, user identity.User, app identity.Application, asked request) (map[string]any, error) {
	resource, err := s.directory.Resource(c.Context(), asked.Resource)
	if err != nil {
		return nil, err
	}
	grant := identity.UserGrant{User: user, Client: app, ClientACR: identity.ClientPublic, Resource: resource, Scopes: []string{"user_impersonation"},
		Methods: []string{identity.MethodPassword}, AuthTime: s.now(), Address: c.address()}
	token, err := s.directory.UserToken(c.Context(), grant)
	if err != nil {
		return nil, err
	}
	answer := s.answer(c, asked, token)
	answer["scope"] = asked.Scope
	if asked.Version == 1 || asked.has("openid") {
		if answer["id_token"], err = s.directory.IDToken(c.Context(), grant, asked.Nonce, "", asked.Version); err != nil {
			return nil, err
		}
	}
	info, err := json.Marshal(map[string]string{"uid": user.ID, "utid": c.tenant.ID})
	if err != nil {
		return nil, fmt.Errorf("encode client_info: %w", err)
	}
	answer["client_info"] = base64.RawURLEncoding.EncodeToString(info)
	return answer, nil
}

// answer is what all grants have in common. Version 1 sends its numbers as text.
func (s *Service) answer(c *call, asked request, token string) map[string]any {
	seconds := int(identity.TokenLifetime.Seconds()) - 1
	a := map[string]any{"token_type": "Bearer", "access_token": token, "expires_in": seconds, "ext_expires_in": seconds}
	if c.version == 1 && c.segment != "adfs" {
		now := s.now().Unix()
		a["expires_in"], a["ext_expires_in"] = strconv.Itoa(seconds), strconv.Itoa(seconds)
		a["expires_on"], a["not_before"] = strconv.FormatInt(now+int64(seconds), 10), strconv.FormatInt(now, 10)
		a["resource"] = asked.Resource
	}
	return a
}
