// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"net/netip"
	"time"

	"bastide.dev/fault"
)

// Flow is a way to a token.
type Flow string

// The flows, as sign-in logs and conditional access name them.
const (
	FlowCode      Flow = "authorizationCode"
	FlowDevice    Flow = "deviceCode"
	FlowPassword  Flow = "ropc" // the legacy one: name and password in one request
	FlowRefresh   Flow = "refreshToken"
	FlowOnBehalf  Flow = "onBehalfOf"
	FlowSecret    Flow = "clientSecret"
	FlowAssertion Flow = "clientAssertion"    // signed with the client's own certificate
	FlowFederated Flow = "federatedAssertion" // signed by an issuer that the client trusts
)

// Methods of authentication, as the claim amr names them.
const (
	MethodPassword = "pwd"
	MethodMFA      = "mfa" // beside the method itself
	MethodOTP      = "otp" // RFC 6238
	MethodPasskey  = "fido"
)

// SignIn is an attempt to get a token: who, through what, for what, from where.
// The token service fills it before a token is issued; whoever isn't known yet
// is left empty.
type SignIn struct {
	ID   string
	Time time.Time
	Flow Flow
	// Origin is, of a refresh, the flow that its tokens began with: what a policy
	// says of a flow holds for all that grows out of it. "" elsewhere.
	Origin Flow
	// Authenticated is when the principal last proved itself: a session's or a
	// refresh token's beginning. Zero means now, except of a refresh, where it means unknown.
	Authenticated time.Time

	Kind      PrincipalKind
	Principal string   // object id
	Name      string   // user principal name or app id, as it was typed when unknown
	Groups    []string // object ids, transitively
	Roles     []string // template ids of directory roles

	ClientID   string // app id
	ResourceID string // app id of what the token is for
	Address    netip.Addr
	UserAgent  string

	Methods     []string // how the principal proved itself, of the methods above
	Credential  string   // id of the secret, certificate or federated credential
	Correlation string
}

// Verdict is what conditional access says of a sign-in.
type Verdict struct {
	Denied   *fault.Error // nil: not denied
	NeedsMFA bool         // a second factor has to be proved first
	// NeedsPasskey says more than NeedsMFA, which is set along: only a passkey will do.
	NeedsPasskey bool
	// Stale: the principal proved itself too long ago and has to do so anew. A
	// flow that can't ask is Denied instead.
	Stale    bool
	Policies []Applied // all that were looked at
}

// Applied is one policy's part in a verdict.
type Applied struct {
	ID     string `json:"id"`
	Name   string `json:"displayName"`
	Result string `json:"result"` // success, failure, notApplied, reportOnlySuccess, reportOnlyFailure, …, as Graph names them
}

// FederatedCredential lets tokens of another issuer stand for a principal.
type FederatedCredential struct {
	ID          string   `json:"id"`
	Name        string   `json:"name"`
	Issuer      string   `json:"issuer"`
	Subject     string   `json:"subject"`
	Audiences   []string `json:"audiences"`
	Description string   `json:"description,omitempty"`
}

// Certificate is a client's own, whose key signs its assertions.
type Certificate struct {
	ID      string    `json:"id"`
	Name    string    `json:"displayName,omitempty"`
	SHA1    []byte    `json:"sha1"` // thumbprint, x5t
	SHA256  []byte    `json:"sha256"`
	DER     []byte    `json:"der"`
	Starts  time.Time `json:"starts"`
	Expires time.Time `json:"expires"`
}
