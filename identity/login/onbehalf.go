// SPDX-License-Identifier: Apache-2.0

package login

import (
	"slices"

	"bastide.dev/fault"
	"bastide.dev/identity"
)

// onBehalfGrant is RFC 7523's name, which Entra ID uses for a service that calls
// the next one in its caller's name.
const onBehalfGrant = "urn:ietf:params:oauth:grant-type:jwt-bearer"

// onBehalf gives a service a token for another resource in the name of the user
// whose token it was called with. That token has to be meant for the service
// itself, and the user must have consented to what it asks for: the chain never
// grows wider than that.
func (s *Service) onBehalf(c *call, client client) (map[string]any, error) {
	if !client.proved {
		return nil, refuse("unauthorized_client", 7000218, "A public client can't act on behalf of a user.")
	}
	if use := c.PostForm.Get("requested_token_use"); use != "on_behalf_of" {
		return nil, refuse("invalid_request", 900144, "The parameter 'requested_token_use' must be 'on_behalf_of'.")
	}
	asked, err := s.parseRequest(c, c.PostForm)
	if err != nil {
		return nil, err
	}
	bad := refuse("invalid_grant", 500131, "Assertion audience does not match the Client app presenting the assertion, or the assertion is not a valid access token.")
	audiences := append(slices.Clone(client.IdentifierURIs), client.AppID, "api://"+client.AppID)
	p, err := s.directory.AuthenticateFor(c.Context(), c.PostForm.Get("assertion"), audiences...)
	if fault.Is(err, fault.Unauthorized) {
		return nil, bad
	}
	if err != nil {
		return nil, err
	}
	if p.Kind != identity.UserKind {
		return nil, refuse("invalid_grant", 50034, "On behalf of an application nothing can be asked for: the assertion has to be a user's.")
	}
	user, err := s.directory.User(c.Context(), p.ID)
	if err != nil {
		return nil, err
	}
	proved := proof{UserID: user.ID, Methods: p.Methods, At: p.AuthTime, Flow: identity.FlowOnBehalf}
	return s.userAnswer(c, grantee{proof: proved, user: user, client: client, asked: asked}, "", "")
}
