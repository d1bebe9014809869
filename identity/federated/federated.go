// SPDX-License-Identifier: Apache-2.0

// Package federated checks assertions that another issuer signed for one of the
// directory's principals: what makes a workload's own token stand for an
// application or a managed identity, with no secret anywhere.
//
// Which issuers are trusted is said by federated credentials alone: nobody is
// asked for keys whom no credential of the client names. Issuers of this
// instance are known without a network trip, others are found by OpenID Connect
// Discovery. Only cmd imports it; the token service calls it by an interface.
package federated

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"bastide.dev/fault"
	"bastide.dev/identity"
)

// Wire codes of refused assertions, as Microsoft Entra numbers them.
const (
	CodeNoMatch    = "AADSTS70021"  // the assertion lacks what would be matched
	CodeIssuer     = "AADSTS700211" // no credential names the issuer
	CodeAudience   = "AADSTS700212"
	CodeSubject    = "AADSTS700213"
	CodeTime       = "AADSTS700024"
	CodeSignature  = "AADSTS50013"
	CodeUnreadable = "AADSTS50027" // not a JWT that could be one
	CodeDiscovery  = "AADSTS50166" // the issuer's documents can't be had
)

const (
	maxAssertion = 16 << 10
	skew         = 5 * time.Minute // Entra's tolerance between clocks
	minRSA       = 2048
)

// Directory knows the principals. *identity.Directory is one.
type Directory interface {
	ServicePrincipal(ctx context.Context, id string) (identity.ServicePrincipal, error)
	Application(ctx context.Context, appID string) (identity.Application, error)
}

// Local knows the keys of this instance's own issuers. ours is false for others;
// an own issuer that doesn't exist is fault.NotFound.
type Local interface {
	KeySet(ctx context.Context, issuer string) (keys jose.JSONWebKeySet, ours bool, err error)
}

// Config is what a Checker needs. Directory and Local are required.
type Config struct {
	Directory Directory
	Local     Local
	// Roots signs for other issuers; nil: the system's.
	Roots *x509.CertPool
	// TLS is how to reach other issuers, instead of Roots, where those are replaced
	// while the service runs.
	TLS *tls.Config
	// Reachable tells whether an issuer at an address may be asked; nil: neither
	// this machine nor its links.
	Reachable func(netip.Addr) bool
	Log       *slog.Logger
	Now       func() time.Time
}

// Checker checks assertions. Safe for concurrent use; it keeps issuers' keys.
type Checker struct {
	directory Directory
	local     Local
	remote    *remote
	log       *slog.Logger
	now       func() time.Time
}

// New makes a checker.
func New(c Config) (*Checker, error) {
	if c.Directory == nil || c.Local == nil {
		return nil, errors.New("federated: directory and local issuers are required")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Reachable == nil {
		c.Reachable = elsewhere
	}
	if c.TLS == nil {
		c.TLS = &tls.Config{RootCAs: c.Roots, MinVersion: tls.VersionTLS12}
	}
	remote, err := newRemote(c.TLS, c.Reachable, c.Now)
	if err != nil {
		return nil, err
	}
	return &Checker{directory: c.Directory, local: c.Local, remote: remote, log: cmp.Or(c.Log, slog.Default()), now: c.Now}, nil
}

// CheckFederated returns the principal of the client appID and the id of its
// federated credential that the assertion matches. The same assertion may be
// shown again as long as it lives, as Entra ID has it.
func (c *Checker) CheckFederated(ctx context.Context, appID, assertion string) (identity.ServicePrincipal, string, error) {
	token, err := parse(assertion)
	if err != nil {
		return identity.ServicePrincipal{}, "", err
	}
	sp, trusted, err := c.credentials(ctx, appID)
	if err != nil {
		return identity.ServicePrincipal{}, "", err
	}
	credential, err := match(trusted, token)
	if err != nil {
		return identity.ServicePrincipal{}, "", err
	}
	if err := c.verify(ctx, token); err != nil {
		return identity.ServicePrincipal{}, "", err
	}
	if err := token.live(c.now()); err != nil {
		return identity.ServicePrincipal{}, "", err
	}
	if sp.Disabled {
		return identity.ServicePrincipal{}, "", fault.New(fault.Unauthorized, identity.CodeDisabled, "The application '%s' is disabled.", sp.AppID)
	}
	return sp, credential.ID, nil
}

// credentials are the client's: an application's stand with the application, a
// managed identity's with the identity.
func (c *Checker) credentials(ctx context.Context, appID string) (identity.ServicePrincipal, []identity.FederatedCredential, error) {
	unknown := fault.New(fault.Unauthorized, identity.CodeUnknownClient, "Application with identifier '%s' was not found in the directory.", printable(appID))
	sp, err := c.directory.ServicePrincipal(ctx, appID)
	if fault.Is(err, fault.NotFound) || err == nil && !strings.EqualFold(sp.AppID, appID) {
		return sp, nil, unknown
	}
	if err != nil {
		return sp, nil, err
	}
	if sp.Type == identity.ManagedIdentity {
		return sp, sp.Federated, nil
	}
	app, err := c.directory.Application(ctx, appID)
	if fault.Is(err, fault.NotFound) {
		return sp, nil, unknown
	}
	return sp, app.Federated, err
}

// match finds the credential that an assertion is meant for: issuer and subject
// letter by letter, and one of the audiences. A refusal says what didn't match.
func match(trusted []identity.FederatedCredential, t *token) (identity.FederatedCredential, error) {
	refuse := func(code, what, value string) (identity.FederatedCredential, error) {
		return identity.FederatedCredential{}, fault.New(fault.Unauthorized, code,
			"No matching federated identity record found for presented assertion %s '%s'. Check the federated identity credential's %s.", what, printable(value), what)
	}
	if t.issuer == "" || t.subject == "" || len(t.audiences) == 0 {
		return identity.FederatedCredential{}, fault.New(fault.Unauthorized, CodeNoMatch,
			"No matching federated identity record found for presented assertion: it needs an issuer, a subject and an audience.")
	}
	issuer, subject := false, false
	for _, credential := range trusted {
		if credential.Issuer != t.issuer {
			continue
		}
		issuer = true
		if credential.Subject != t.subject {
			continue
		}
		subject = true
		if slices.ContainsFunc(t.audiences, func(a string) bool { return slices.Contains(credential.Audiences, a) }) {
			return credential, nil
		}
	}
	switch {
	case !issuer:
		return refuse(CodeIssuer, "issuer", t.issuer)
	case !subject:
		return refuse(CodeSubject, "subject", t.subject)
	}
	return refuse(CodeAudience, "audience", strings.Join(t.audiences, ", "))
}

// verify checks the signature by a key that the issuer publishes.
func (c *Checker) verify(ctx context.Context, t *token) error {
	keys, ours, err := c.local.KeySet(ctx, t.issuer)
	switch {
	case ours && fault.Is(err, fault.NotFound):
		return fault.New(fault.Unauthorized, CodeSignature, "Assertion failed signature validation. [Reason - The issuer doesn't exist any more.]").Because(err)
	case err != nil:
		return err
	case !ours:
		if keys, err = c.remote.keySet(ctx, t.issuer, t.keyID); err != nil {
			return fault.New(fault.Unauthorized, CodeDiscovery, "Request to external OIDC endpoint failed: the documents of issuer '%s' can't be read.", printable(t.issuer)).Because(err)
		}
	}
	found := false
	for _, key := range keys.Keys {
		if key.KeyID != t.keyID || !usable(key, t.algorithm) {
			continue
		}
		found = true
		if _, err := t.signed.Verify(key.Key); err == nil {
			return nil
		}
	}
	reason := "The key was not found."
	if found {
		reason = "Key was found, but use of the key to verify the signature failed."
	}
	return fault.New(fault.Unauthorized, CodeSignature, "Assertion failed signature validation. [Reason - %s, Key identifier: '%s']", reason, printable(t.keyID))
}

// usable tells whether a published key may have signed with an algorithm: the
// key says which, never the assertion alone.
func usable(key jose.JSONWebKey, algorithm jose.SignatureAlgorithm) bool {
	if key.Use != "" && key.Use != "sig" || key.Algorithm != "" && key.Algorithm != string(algorithm) {
		return false
	}
	switch public := key.Key.(type) {
	case *rsa.PublicKey:
		return algorithm == jose.RS256 && public.N.BitLen() >= minRSA
	case *ecdsa.PublicKey:
		return algorithm == jose.ES256 && public.Curve == elliptic.P256()
	}
	return false
}

// printable makes foreign text fit for a message.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '\'' {
			return '?'
		}
		return r
	}, s[:min(len(s), 200)])
	return s
}
