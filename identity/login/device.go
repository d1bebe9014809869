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
	Code     []byte    `json:"code"` // SHA-256 of the device code's secret
	ClientID string    `json:"clientId"`
	Asked    request   `json:"asked"`
	UserID   string    `json:"userId,omitempty"` // who signed in
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
	if d.UserID == "" {
		return nil, refuse("authorization_pending", 70016, "OAuth 2.0 device flow error. Authorization is pending. Continue polling.")
	}
	if err := s.store.Delete(c.Context(), devices+userCode, revision); err != nil {
		if fault.Is(err, fault.Precondition) || fault.Is(err, fault.NotFound) {
			return nil, bad // another poll has it
		}
		return nil, fmt.Errorf("end device code: %w", err)
	}
	user, err := s.directory.User(c.Context(), d.UserID)
	if err != nil || user.Disabled {
		return nil, bad
	}
	return s.userAnswer(c, "device_code", user, client.Application, d.Asked, "")
}

// devicePage is where a user enters the code.
func (s *Service) devicePage(w http.ResponseWriter, r *http.Request) {
	s.show(w, http.StatusOK, page{Title: "Sign in to a device", Device: true, Code: cleanCode(r.URL.Query().Get("user_code"))}, "")
}

// deviceSignIn takes code, name and password. There is no session and so nothing
// that a foreign page could use; a post from one is refused all the same.
func (s *Service) deviceSignIn(w http.ResponseWriter, r *http.Request) {
	if err := s.origins.Check(r); err != nil {
		http.Error(w, "A form on another site can't sign you in.", http.StatusForbidden)
		return
	}
	c := &call{Request: r}
	form := page{Title: "Sign in to a device", Device: true}
	if err := readForm(r); err != nil {
		form.Problem = "The form can't be read."
		s.show(w, http.StatusBadRequest, form, "")
		return
	}
	form.User, form.Code = printable(r.PostForm.Get("username")), printable(r.PostForm.Get("user_code"))
	user, err := s.directory.CheckPassword(r.Context(), r.PostForm.Get("username"), r.PostForm.Get("password"), c.address())
	if err == nil {
		form.Application, err = s.approve(c, cleanCode(r.PostForm.Get("user_code")), user)
	}
	if err != nil {
		form.Problem = s.pageProblem(err, c)
		s.show(w, http.StatusBadRequest, form, "")
		return
	}
	s.show(w, http.StatusOK, page{Title: "You are signed in", Application: form.Application, Done: true}, "")
}

// approve binds the user to the waiting device and says which application it runs.
func (s *Service) approve(c *call, userCode string, user identity.User) (string, error) {
	wrong := refuse("invalid_grant", 70018, "That code isn't right, or it has expired. Begin again on your device.")
	if userCode == "" {
		return "", wrong
	}
	var d device
	revision, err := s.get(c.Context(), devices+userCode, &d)
	if fault.Is(err, fault.NotFound) {
		return "", wrong
	}
	if err != nil {
		return "", err
	}
	if d.UserID != "" || !s.now().Before(d.Expires) {
		return "", wrong
	}
	d.UserID = user.ID
	if err := s.put(c.Context(), devices+userCode, d, revision); err != nil {
		return "", err
	}
	app, err := s.directory.Application(c.Context(), d.ClientID)
	return app.DisplayName, err
}
