// SPDX-License-Identifier: Apache-2.0

package login

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"bastide.dev/fault"
	"bastide.dev/identity"
	"bastide.dev/store"
)

const codeLifetime = 5 * time.Minute

// code is an authorisation code. Once used it stays until it expires, so that a
// second use is seen: then the tokens of the first end as well.
type code struct {
	proof
	Secret    []byte    `json:"secret"` // SHA-256
	ClientID  string    `json:"clientId"`
	Redirect  string    `json:"redirect"`
	Kind      string    `json:"kind"`
	Challenge string    `json:"challenge,omitempty"`
	Asked     request   `json:"asked"`
	Family    string    `json:"family,omitempty"` // set when used
	Expires   time.Time `json:"expires"`
}

// redeemCode exchanges a code for tokens, once.
func (s *Service) redeemCode(c *call, client client) (map[string]any, error) {
	document, revision, err := s.findCode(c, client)
	if err != nil {
		return nil, err
	}
	if err := checkRedeemer(c, client, document); err != nil {
		return nil, err
	}
	document.Family = identity.Random(22)
	if err := s.put(c.Context(), codes+codeID(c), document, revision); err != nil {
		if fault.Is(err, fault.Precondition) {
			return nil, refuse("invalid_grant", 70000, "Provided grant is invalid or malformed.")
		}
		return nil, err
	}
	user, err := s.standing(c.Context(), document.UserID, document.At)
	if err != nil {
		return nil, err
	}
	return s.userAnswer(c, grantee{proof: document.proof, user: user, client: client, asked: document.Asked}, "", document.Family)
}

func codeID(c *call) string {
	id, _, _ := strings.Cut(c.PostForm.Get("code"), ".")
	return id
}

func (s *Service) findCode(c *call, client client) (document code, revision int64, err error) {
	bad := refuse("invalid_grant", 70000, "Provided grant is invalid or malformed.")
	id, secret, _ := strings.Cut(c.PostForm.Get("code"), ".")
	if len(id) != 22 || strings.Contains(id, "/") {
		return document, 0, bad
	}
	revision, err = s.get(c.Context(), codes+id, &document)
	if fault.Is(err, fault.NotFound) {
		return document, 0, bad
	}
	if err != nil {
		return document, 0, err
	}
	if !same(digest(secret), document.Secret) || !strings.EqualFold(document.ClientID, client.AppID) || !s.now().Before(document.Expires) {
		return document, 0, bad
	}
	if document.Family != "" {
		// The mark keeps its family from beginning after this.
		ended := family{Expires: s.expiry(codeLifetime)}
		if err := s.put(c.Context(), families+document.Family, ended, store.Any); err != nil {
			return document, 0, err
		}
		s.log.Warn("authorisation code used twice, its tokens have ended", "user", document.UserID, "address", c.address())
		return document, 0, refuse("invalid_grant", 54005, "OAuth2 Authorization code was already redeemed.")
	}
	return document, revision, nil
}

// checkRedeemer demands that a code comes back from where it was sent.
func checkRedeemer(c *call, client client, document code) error {
	if c.PostForm.Get("redirect_uri") != document.Redirect {
		return refuse("invalid_grant", 50011, "The redirect URI does not match the one of the authorisation request.")
	}
	if document.Kind == redirectWeb && !client.proved && !client.Public {
		return badAssertion(7000218, "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.")
	}
	if document.Kind == redirectPage && !client.proved {
		u, err := url.Parse(document.Redirect)
		if err != nil || c.Header.Get("Origin") != origin(u) {
			return refuse("invalid_request", 9002327, "Tokens issued for the 'Single-Page Application' client-type may only be redeemed via cross-origin requests.")
		}
	}
	verifier := c.PostForm.Get("code_verifier")
	if document.Challenge == "" {
		if verifier != "" {
			return refuse("invalid_grant", 501481, "A Code_Verifier was sent, but the authorization request had no code_challenge.")
		}
		return nil
	}
	sum := sha256.Sum256([]byte(verifier))
	if !same([]byte(base64.RawURLEncoding.EncodeToString(sum[:])), []byte(document.Challenge)) {
		return refuse("invalid_grant", 501481, "The Code_Verifier does not match the code_challenge supplied in the authorization request.")
	}
	return nil
}

// allowOrigin lets the scripts of single-page applications read the answer.
func (s *Service) allowOrigin(w http.ResponseWriter, c *call) {
	from := c.Header.Get("Origin")
	if from == "" {
		return
	}
	app, err := s.directory.Application(c.Context(), c.PostForm.Get("client_id"))
	if err == nil && slices.ContainsFunc(app.SPARedirectURIs, func(redirect string) bool {
		u, err := url.Parse(redirect)
		return err == nil && origin(u) == from
	}) {
		w.Header().Set("Access-Control-Allow-Origin", from)
		w.Header().Add("Vary", "Origin")
	}
}

// preflight lets scripts send what the token endpoint takes; whether they may
// read the answer is said with it.
func (s *Service) preflight(w http.ResponseWriter, c *call) {
	if from := c.Header.Get("Origin"); from != "" {
		w.Header().Set("Access-Control-Allow-Origin", from)
		w.Header().Set("Access-Control-Allow-Methods", "POST")
		w.Header().Set("Access-Control-Allow-Headers", "content-type, client-request-id, x-client-sku, x-client-ver, x-client-os, x-client-cpu")
		w.Header().Set("Access-Control-Max-Age", "600")
		w.Header().Add("Vary", "Origin")
	}
	w.WriteHeader(http.StatusNoContent)
}
