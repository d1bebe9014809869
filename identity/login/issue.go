// SPDX-License-Identifier: Apache-2.0

package login

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"

	"bastide.dev/fault"
	"bastide.dev/identity"
)

// proof is how and when a person proved who they are; it goes with everything
// that grows out of a sign-in.
type proof struct {
	UserID  string        `json:"userId"`
	Methods []string      `json:"methods"`
	At      time.Time     `json:"at"`
	Session string        `json:"session,omitempty"` // id of the browser's
	Flow    identity.Flow `json:"flow"`              // that it began with
}

// grantee is a person to whom a token is about to be issued, through a client.
type grantee struct {
	proof
	user   identity.User
	client client
	asked  request
}

// judge asks the gate, right before anything is issued.
func (s *Service) judge(c *call) error {
	verdict, err := s.gate.Judge(c.Context(), c.attempt)
	c.verdict = verdict
	if err != nil {
		return fmt.Errorf("judge sign-in: %w", err)
	}
	if verdict.Denied != nil {
		return verdict.Denied
	}
	if verdict.Stale {
		return interaction(70043, "The sign-in is too old for a policy of sign-in frequency: sign in again.")
	}
	if need := unproved(verdict, c.attempt.Methods); need != "" {
		factors, err := s.directory.Factors(c.Context(), c.attempt.Principal)
		if err == nil && !factors.Any() {
			return interaction(50079, "Due to a configuration change made by your administrator, you must enroll in multi-factor authentication to access '%s': sign in with a browser.", c.attempt.ResourceID)
		}
		return interaction(50076, "Due to a configuration change made by your administrator, you must use multi-factor authentication to access '%s'.", c.attempt.ResourceID)
	}
	return nil
}

// unproved is the method that a verdict asks for beyond those shown, "" when none.
func unproved(v identity.Verdict, methods []string) string {
	switch {
	case v.NeedsPasskey && !slices.Contains(methods, identity.MethodPasskey):
		return identity.MethodPasskey
	case v.NeedsMFA && !slices.Contains(methods, identity.MethodMFA):
		return identity.MethodMFA
	}
	return ""
}

// interaction is a refusal that a person can do something about.
func interaction(number int, format string, args ...any) oauthError {
	e := refuse("invalid_grant", number, format, args...)
	e.sub = "basic_action"
	return e
}

// begin names what is about to be tried, for gate and journal.
func (s *Service) begin(c *call, flow identity.Flow) {
	address, _ := netip.ParseAddr(c.address())
	correlation := c.Header.Get("client-request-id")
	if uuid.Validate(correlation) != nil {
		correlation = uuid.NewString()
	}
	c.attempt = identity.SignIn{ID: uuid.NewString(), Time: s.now().UTC(), Flow: flow, Address: address.Unmap(),
		UserAgent: printable(c.UserAgent()), Correlation: correlation}
}

// isUser completes the attempt with a person who proved themselves.
func (s *Service) isUser(c *call, user identity.User, p proof) {
	c.attempt.Kind, c.attempt.Principal, c.attempt.Name = identity.UserKind, user.ID, user.Name
	c.attempt.Groups, c.attempt.Methods, c.attempt.Authenticated = s.directory.GroupsOf(user.ID), p.Methods, p.At
	c.attempt.Roles = s.directoryRoles(user.ID)
}

// record ends an attempt. A poll that goes on waiting is none.
func (s *Service) record(c *call, err error) {
	if e := asOAuth(err); e != nil && (e.code == "authorization_pending" || e.code == "slow_down") {
		return
	}
	s.journal.Record(c.attempt, c.verdict, public(err))
}

// public is an error as others see it: a fault with Entra's code, and for what is
// nobody's fault but ours none of its insides.
func public(err error) error {
	if err == nil {
		return nil
	}
	e := asOAuth(err)
	if e == nil {
		return fault.New(fault.Internal, "AADSTS90033", "A transient error has occurred. Please try again.").Because(err)
	}
	return fault.New(fault.Unauthorized, "AADSTS"+strconv.Itoa(e.number), "%s", e.message)
}

// userAnswer judges and issues what a person asked for. refresh is the refresh
// token to send, "" makes a new family of them under the name of family.
func (s *Service) userAnswer(c *call, g grantee, refresh, family string) (map[string]any, error) {
	answer, err := s.userTokens(c, g)
	if err != nil {
		return nil, err
	}
	if refresh == "" && (g.asked.Version == 1 || g.asked.has("offline_access")) {
		if refresh, err = s.newFamily(c.Context(), g, family); err != nil {
			return nil, err
		}
	}
	if refresh != "" {
		answer["refresh_token"] = refresh
	}
	return answer, nil
}

func (s *Service) userTokens(c *call, g grantee) (map[string]any, error) {
	resource, err := s.directory.Resource(c.Context(), g.asked.Resource)
	if err != nil {
		return nil, err
	}
	s.isUser(c, g.user, g.proof)
	c.attempt.ResourceID = resource.Application.AppID
	if err := s.judge(c); err != nil {
		return nil, err
	}
	scopes, missing, err := s.permissions(c.Context(), g.user, g.client.Application, resource, g.asked)
	if err != nil {
		return nil, err
	}
	if len(missing) > 0 {
		e := interaction(65001, "The user or administrator has not consented to use the application with ID '%s' named '%s'. Send an interactive authorization request for this user and resource.", g.client.AppID, g.client.DisplayName)
		e.sub = "consent_required"
		return nil, e
	}
	if err := s.mayUse(c.Context(), g.user.ID, resource.Application); err != nil {
		return nil, err
	}
	grant := identity.UserGrant{User: g.user, Client: g.client.Application, ClientACR: g.client.acr(), Resource: resource,
		Scopes: scopes, Methods: g.Methods, AuthTime: g.At, Address: c.address()}
	token, err := s.directory.UserToken(c.Context(), grant)
	if err != nil {
		return nil, err
	}
	answer := s.answer(c, g.asked, token)
	answer["scope"] = g.asked.Scope
	if g.asked.Version == 1 || g.asked.has("openid") {
		if answer["id_token"], err = s.directory.IDToken(c.Context(), grant, g.asked.Nonce, g.Session, g.asked.Version); err != nil {
			return nil, err
		}
	}
	info, err := json.Marshal(map[string]string{"uid": g.user.ID, "utid": c.tenant.ID})
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

// clientCredentials is a client that asks for itself.
func (s *Service) clientCredentials(c *call, client client) (map[string]any, error) {
	if !client.proved {
		return nil, refuse("unauthorized_client", 7000218, "A public client can't use the grant 'client_credentials'.")
	}
	asked, err := s.parseRequest(c, c.PostForm)
	if err != nil {
		return nil, err
	}
	if c.version == 2 && !asked.isDefault() {
		return nil, refuse("invalid_scope", 1002012, "The provided value for scope %s is not valid. Client credential flows must have a scope value with /.default suffixed to the resource identifier (application ID URI).", printable(asked.Scope))
	}
	resource, err := s.directory.Resource(c.Context(), asked.Resource)
	if err != nil {
		return nil, err
	}
	c.attempt.ResourceID = resource.Application.AppID
	if err := s.judge(c); err != nil {
		return nil, err
	}
	if err := s.mayUse(c.Context(), client.principal.ID, resource.Application); err != nil {
		return nil, err
	}
	token, err := s.directory.PrincipalToken(c.Context(), client.principal, resource, client.credential)
	if err != nil {
		return nil, err
	}
	return s.answer(c, asked, token), nil
}

// password is the legacy flow: name and password in one request.
func (s *Service) password(c *call, client client) (map[string]any, error) {
	asked, err := s.parseRequest(c, c.PostForm)
	if err != nil {
		return nil, err
	}
	name := c.PostForm.Get("username")
	c.attempt.Kind, c.attempt.Name = identity.UserKind, printable(name)
	user, err := s.checkPassword(c, name, c.PostForm.Get("password"))
	if err != nil {
		return nil, err
	}
	if user.MustChange {
		return nil, interaction(50055, "The password is expired: sign in with a browser and change it.")
	}
	p := proof{UserID: user.ID, Methods: []string{identity.MethodPassword}, At: s.now().UTC(), Flow: identity.FlowPassword}
	return s.userAnswer(c, grantee{proof: p, user: user, client: client, asked: asked}, "", "")
}

// checkPassword bounds how often passwords are tried at all, right ones too.
func (s *Service) checkPassword(c *call, name, password string) (identity.User, error) {
	if err := s.limits.password(c.address(), name); err != nil {
		return identity.User{}, err
	}
	return s.directory.CheckPassword(c.Context(), name, password, c.address())
}

// tooMany is the answer to whoever comes too often.
func tooMany() oauthError {
	return oauthError{code: "temporarily_unavailable", number: 50196, status: http.StatusTooManyRequests, message: "Too many requests: try again in a moment."}
}
