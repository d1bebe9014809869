// SPDX-License-Identifier: Apache-2.0

package federated

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"bastide.dev/fault"
)

// token is an assertion as it was read; nothing of it is true before verify.
type token struct {
	signed    *jose.JSONWebSignature
	algorithm jose.SignatureAlgorithm
	keyID     string

	issuer, subject string
	audiences       []string
	expires         time.Time
	notBefore       time.Time // zero: not said
	issued          time.Time // zero: not said
}

// parse reads a compact JWS of one of the two algorithms.
func parse(assertion string) (*token, error) {
	unreadable := func(cause error) error {
		return fault.New(fault.Unauthorized, CodeUnreadable, "The client assertion isn't a JWT signed with RS256 or ES256.").At("client_assertion").Because(cause)
	}
	if len(assertion) > maxAssertion {
		return nil, unreadable(errors.New("too long"))
	}
	signed, err := jose.ParseSignedCompact(assertion, []jose.SignatureAlgorithm{jose.RS256, jose.ES256})
	if err != nil {
		return nil, unreadable(err)
	}
	header := signed.Signatures[0].Protected // a compact one has exactly one, and nothing unprotected
	if header.KeyID == "" {
		return nil, unreadable(errors.New("no key id"))
	}
	t := &token{signed: signed, algorithm: jose.SignatureAlgorithm(header.Algorithm), keyID: header.KeyID}
	if err := t.claims(signed.UnsafePayloadWithoutVerification()); err != nil {
		return nil, unreadable(err)
	}
	return t, nil
}

// claims reads the registered ones by their exact names: encoding/json would
// take "Sub" for "sub" too.
func (t *token) claims(payload []byte) error {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(payload, &all); err != nil {
		return err
	}
	var errs []error
	text := func(name string, into *string) {
		if raw, ok := all[name]; ok {
			errs = append(errs, json.Unmarshal(raw, into))
		}
	}
	date := func(name string, into *time.Time) {
		raw, ok := all[name]
		if !ok {
			return
		}
		var seconds float64
		err := json.Unmarshal(raw, &seconds)
		if err == nil && (math.Abs(seconds) > 1<<40 || string(raw) == "null") {
			err = errors.New(name + " is no date")
		}
		errs = append(errs, err)
		*into = time.Unix(int64(seconds), 0)
	}
	text("iss", &t.issuer)
	text("sub", &t.subject)
	date("exp", &t.expires)
	date("nbf", &t.notBefore)
	date("iat", &t.issued)
	if raw, ok := all["aud"]; ok {
		if strings.HasPrefix(strings.TrimSpace(string(raw)), "[") {
			errs = append(errs, json.Unmarshal(raw, &t.audiences))
		} else {
			var one string
			errs = append(errs, json.Unmarshal(raw, &one))
			t.audiences = []string{one}
		}
	}
	return errors.Join(errs...)
}

// live tells whether the assertion is good at a time; one that never ends isn't.
func (t *token) live(now time.Time) error {
	switch {
	case t.expires.IsZero(), now.After(t.expires.Add(skew)),
		!t.notBefore.IsZero() && now.Before(t.notBefore.Add(-skew)),
		!t.issued.IsZero() && now.Before(t.issued.Add(-skew)):
		return fault.New(fault.Unauthorized, CodeTime, "Client assertion is not within its valid time range. Current time: %s, expiry time of assertion %s.",
			now.UTC().Format(time.RFC3339), t.expires.UTC().Format(time.RFC3339))
	}
	return nil
}
