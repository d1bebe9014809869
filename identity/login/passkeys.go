// SPDX-License-Identifier: Apache-2.0

package login

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"

	"bastide.dev/fault"
	"bastide.dev/identity"
	"bastide.dev/store"
)

const challengeLifetime = 5 * time.Minute

// challenge is a passkey ceremony that was begun in a browser.
type challenge struct {
	Browser []byte               `json:"browser"` // SHA-256 of its name
	Kind    string               `json:"kind"`    // the step that ends it
	UserID  string               `json:"userId,omitempty"`
	Data    webauthn.SessionData `json:"data"`
	Expires time.Time            `json:"expires"`
}

// newRelyingParty makes this site one: its host's name is what passkeys belong to.
// At a bare address there can't be any: nil.
func newRelyingParty(authority string) (*webauthn.WebAuthn, error) {
	u, err := url.Parse(authority)
	if err != nil {
		return nil, fmt.Errorf("login: authority: %w", err)
	}
	if net.ParseIP(u.Hostname()) != nil {
		return nil, nil
	}
	rp, err := webauthn.New(&webauthn.Config{RPID: u.Hostname(), RPDisplayName: "Bastide", RPOrigins: []string{authority},
		AttestationPreference: protocol.PreferNoAttestation,
		AuthenticatorSelection: protocol.AuthenticatorSelection{
			ResidentKey: protocol.ResidentKeyRequirementRequired, UserVerification: protocol.VerificationRequired}})
	if err != nil {
		return nil, fmt.Errorf("login: passkeys: %w", err)
	}
	return rp, nil
}

// holder is a user as the library sees them.
type holder struct {
	user identity.User
	keys []webauthn.Credential
}

func (h holder) WebAuthnID() []byte                         { return []byte(h.user.ID) }
func (h holder) WebAuthnName() string                       { return h.user.Name }
func (h holder) WebAuthnDisplayName() string                { return h.user.DisplayName }
func (h holder) WebAuthnCredentials() []webauthn.Credential { return h.keys }

func (s *Service) holder(v *visit, user identity.User) (holder, error) {
	h := holder{user: user}
	factors, err := s.directory.Factors(v.Context(), user.ID)
	if err != nil {
		return h, err
	}
	for _, key := range factors.Passkeys {
		var credential webauthn.Credential
		if err := json.Unmarshal(key.Credential, &credential); err != nil {
			return h, fmt.Errorf("decode passkey: %w", err)
		}
		h.keys = append(h.keys, credential)
	}
	return h, nil
}

// beginPasskey starts a ceremony: kind "register" for whoever is signed in,
// "factor" for their second factor, "passkey" for whoever comes.
func (s *Service) beginPasskey(v *visit, kind string) (options, id string, err error) {
	if s.relying == nil {
		return "", "", refuse("invalid_request", 135011, "Passkeys need this service to have a name, not only an address.")
	}
	if err := s.limits.begin(v.address()); err != nil {
		return "", "", err
	}
	var asked any
	var data *webauthn.SessionData
	began := challenge{Browser: digest(v.browser), Kind: kind, Expires: s.expiry(challengeLifetime)}
	if kind == "passkey" {
		asked, data, err = s.relying.BeginDiscoverableLogin(webauthn.WithUserVerification(protocol.VerificationRequired))
	} else {
		var h holder
		if h, err = s.holder(v, v.user); err != nil {
			return "", "", err
		}
		began.UserID = v.user.ID
		if kind == "register" {
			asked, data, err = s.relying.BeginRegistration(h, webauthn.WithExclusions(webauthn.Credentials(h.keys).CredentialDescriptors()))
		} else {
			asked, data, err = s.relying.BeginLogin(h, webauthn.WithUserVerification(protocol.VerificationRequired))
		}
	}
	if err != nil {
		return "", "", fmt.Errorf("begin passkey: %w", err)
	}
	began.Data = *data
	text, err := json.Marshal(asked)
	if err != nil {
		return "", "", fmt.Errorf("encode passkey: %w", err)
	}
	id = identity.Random(22)
	return string(text), id, s.put(v.Context(), challenges+id, began, store.Absent)
}

// takeChallenge ends a ceremony: it can be answered once, in the browser that began it.
func (s *Service) takeChallenge(v *visit, kind string) (challenge, error) {
	late := refuse("invalid_request", 135004, "The passkey took too long. Please try again.")
	id := v.PostForm.Get("challenge")
	if len(id) != 22 || strings.Contains(id, "/") {
		return challenge{}, late
	}
	var began challenge
	revision, err := s.get(v.Context(), challenges+id, &began)
	if fault.Is(err, fault.NotFound) {
		return challenge{}, late
	}
	if err != nil {
		return challenge{}, err
	}
	if err := s.store.Delete(v.Context(), challenges+id, revision); err != nil {
		if fault.Is(err, fault.Precondition) || fault.Is(err, fault.NotFound) {
			return challenge{}, late
		}
		return challenge{}, fmt.Errorf("end passkey: %w", err)
	}
	signedIn := ""
	if v.session != nil && kind != "passkey" {
		signedIn = v.user.ID
	}
	if !same(began.Browser, digest(v.browser)) || began.Kind != kind || began.UserID != signedIn || !s.now().Before(began.Expires) {
		return challenge{}, late
	}
	return began, nil
}

func badPasskey(err error) error {
	return fault.New(fault.Unauthorized, "AADSTS135011", "The passkey was not accepted.").Because(err)
}

// passkeySignIn checks what a browser answered to kind "passkey" or "factor".
func (s *Service) passkeySignIn(v *visit, kind string) (identity.User, error) {
	began, err := s.takeChallenge(v, kind)
	if err != nil {
		return identity.User{}, err
	}
	parsed, err := protocol.ParseCredentialRequestResponseBytes([]byte(v.PostForm.Get("credential")))
	if err != nil {
		return identity.User{}, badPasskey(err)
	}
	user := v.user
	var used *webauthn.Credential
	if kind == "factor" {
		h, err := s.holder(v, user)
		if err != nil {
			return user, err
		}
		used, err = s.relying.ValidateLogin(h, began.Data, parsed)
		if err != nil {
			return user, badPasskey(err)
		}
	} else {
		find := func(_, handle []byte) (webauthn.User, error) {
			found, err := s.directory.User(v.Context(), string(handle))
			if err != nil || found.ID != string(handle) {
				return nil, fmt.Errorf("no such user: %w", err)
			}
			user = found
			return s.holder(v, found)
		}
		if _, used, err = s.relying.ValidatePasskeyLogin(find, began.Data, parsed); err != nil {
			return user, badPasskey(err)
		}
	}
	if user.Disabled {
		return user, fault.New(fault.Unauthorized, identity.CodeDisabled, "The user account is disabled.")
	}
	return user, s.countPasskey(v, user, used)
}

// countPasskey keeps the signature counter, which must have grown: if not, there
// is a copy of the passkey somewhere.
func (s *Service) countPasskey(v *visit, user identity.User, used *webauthn.Credential) error {
	id := base64.RawURLEncoding.EncodeToString(used.ID)
	return s.directory.UsePasskey(v.Context(), user.ID, id, func(raw json.RawMessage) (json.RawMessage, error) {
		var stored webauthn.Credential
		if err := json.Unmarshal(raw, &stored); err != nil {
			return nil, fmt.Errorf("decode passkey: %w", err)
		}
		count := used.Authenticator.SignCount
		if used.Authenticator.CloneWarning || count != 0 && count <= stored.Authenticator.SignCount {
			s.log.Warn("passkey's counter went back: there may be a copy of it", "user", user.ID, "passkey", id, "address", v.address())
			return nil, badPasskey(nil)
		}
		return json.Marshal(used)
	})
}

// registerPasskey takes in a new one.
func (s *Service) registerPasskey(v *visit) error {
	began, err := s.takeChallenge(v, "register")
	if err != nil {
		return err
	}
	parsed, err := protocol.ParseCredentialCreationResponseBytes([]byte(v.PostForm.Get("credential")))
	if err != nil {
		return badPasskey(err)
	}
	h, err := s.holder(v, v.user)
	if err != nil {
		return err
	}
	credential, err := s.relying.CreateCredential(h, began.Data, parsed)
	if err != nil {
		return badPasskey(err)
	}
	raw, err := json.Marshal(credential)
	if err != nil {
		return fmt.Errorf("encode passkey: %w", err)
	}
	name := printable(strings.TrimSpace(v.PostForm.Get("name")))
	if name == "" {
		name = "Passkey"
	}
	return s.directory.AddPasskey(v.Context(), v.user.ID, identity.Passkey{ID: base64.RawURLEncoding.EncodeToString(credential.ID), Name: name[:min(len(name), 50)], Credential: raw})
}
