// SPDX-License-Identifier: Apache-2.0

package login

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"bastide.dev/fault"
	"bastide.dev/identity"
	"bastide.dev/store"
)

const (
	deviceLifetime = 15 * time.Minute
	codeLetters    = "BCDFGHJKLMNPQRSTVWXZ23456789" // none that is mistaken for another, none that makes words
	codeLength     = 9
)

// device is a sign-in that waits for its user, kept under its user code.
type device struct {
	proof              // of who signed in; its user is "" until then
	Code     []byte    `json:"code"` // SHA-256 of the device code's secret
	ClientID string    `json:"clientId"`
	Asked    request   `json:"asked"`
	Declined bool      `json:"declined,omitempty"`
	Expires  time.Time `json:"expires"`
}

// deviceCode begins the flow of RFC 8628. Version 1's clients send theirs in the query as well.
func (s *Service) deviceCode(w http.ResponseWriter, c *call) {
	answer, err := s.beginDevice(c)
	if err != nil {
		s.fail(w, c.Request, err)
		return
	}
	writeJSON(w, http.StatusOK, answer)
}

func (s *Service) beginDevice(c *call) (map[string]any, error) {
	if err := readForm(c.Request); err != nil {
		return nil, err
	}
	app, err := s.directory.Application(c.Context(), c.PostForm.Get("client_id"))
	if fault.Is(err, fault.NotFound) || err == nil && !app.Public {
		return nil, refuse("unauthorized_client", 700016, "No public client with identifier '%s' was found in the directory.", printable(c.PostForm.Get("client_id")))
	}
	if err != nil {
		return nil, err
	}
	asked, err := s.parseRequest(c, c.PostForm)
	if err != nil {
		return nil, err
	}
	if err := s.limits.begin(c.address()); err != nil {
		return nil, err
	}
	userCode, secret := newUserCode(), identity.Random(43)
	d := device{Code: digest(secret), ClientID: app.AppID, Asked: asked, Expires: s.expiry(deviceLifetime)}
	if err := s.put(c.Context(), devices+userCode, d, store.Absent); err != nil {
		return nil, err
	}
	page := s.directory.Endpoints().Authority + "/device"
	return map[string]any{
		"user_code": userCode, "device_code": userCode + "." + secret, "verification_uri": page, "verification_url": page,
		"verification_uri_complete": page + "?" + url.Values{"user_code": {userCode}}.Encode(),
		"expires_in":                int(deviceLifetime.Seconds()), "interval": 1,
		"message": fmt.Sprintf("To sign in, use a web browser to open the page %s and enter the code %s to authenticate.", page, userCode),
	}, nil
}

func newUserCode() string {
	code := make([]byte, 0, codeLength)
	for len(code) < codeLength {
		var b [1]byte
		_, _ = rand.Read(b[:])                                      // never fails
		if limit := 256 - 256%len(codeLetters); int(b[0]) < limit { // each letter equally often
			code = append(code, codeLetters[int(b[0])%len(codeLetters)])
		}
	}
	return string(code)
}

// cleanCode is a code as people type it; "" when it can't be one.
func cleanCode(typed string) string {
	code := strings.ToUpper(strings.NewReplacer(" ", "", "-", "").Replace(typed))
	if len(code) != codeLength || strings.Trim(code, codeLetters) != "" {
		return ""
	}
	return code
}

// redeemDevice is the poll of the device: pending until the user signed in, then tokens, once.
func (s *Service) redeemDevice(c *call, client client) (map[string]any, error) {
	bad := refuse("invalid_grant", 70000, "Provided grant is invalid or malformed.")
	sent := c.PostForm.Get("device_code")
	if sent == "" {
		sent = c.PostForm.Get("code") // version 1's name
	}
	userCode, secret, _ := strings.Cut(sent, ".")
	if userCode = cleanCode(userCode); userCode == "" {
		return nil, bad
	}
	var d device
	revision, err := s.get(c.Context(), devices+userCode, &d)
	if fault.Is(err, fault.NotFound) {
		return nil, bad
	}
	if err != nil {
		return nil, err
	}
	if !same(digest(secret), d.Code) || !strings.EqualFold(d.ClientID, client.AppID) {
		return nil, bad
	}
	if !s.now().Before(d.Expires) {
		return nil, refuse("expired_token", 70020, "The provided value for the input parameter 'device_code' is not valid. The device code has expired.")
	}
	if d.Declined {
		return nil, refuse("authorization_declined", 70015, "The user declined the sign-in.")
	}
	if d.UserID == "" {
		return nil, refuse("authorization_pending", 70016, "OAuth 2.0 device flow error. Authorization is pending. Continue polling.")
	}
	if err := s.store.Delete(c.Context(), devices+userCode, revision); err != nil {
		if fault.Is(err, fault.Precondition) || fault.Is(err, fault.NotFound) {
			return nil, bad // another poll has it
		}
		return nil, fmt.Errorf("end device code: %w", err)
	}
	user, err := s.standing(c.Context(), d.UserID, d.At)
	if err != nil {
		return nil, err
	}
	return s.userAnswer(c, grantee{proof: d.proof, user: user, client: client, asked: d.Asked}, "", "")
}
