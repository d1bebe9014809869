// SPDX-License-Identifier: Apache-2.0

package login

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"bastide.dev/fault"
	"bastide.dev/identity"
	"bastide.dev/store"
)

// A browser has two cookies, both for this host alone and out of reach of
// scripts. One names the browser, so that forms can be tied to it before anybody
// signed in; the other is the session of who did.
const (
	browserCookie = "__Host-bastide-browser"
	sessionCookie = "__Host-bastide-session"

	sessionLifetime = 8 * time.Hour
	// What is asked for anew with each request (prompt=login) counts as answered for this long.
	settledFor = 10 * time.Minute
	// Changing how one signs in needs a sign-in not older than this.
	recentFor = 10 * time.Minute
)

// session is a signed-in browser. Its secret changes whenever its rights grow.
type session struct {
	Secret  []byte    `json:"secret"` // SHA-256
	UserID  string    `json:"userId"`
	Methods []string  `json:"methods"`
	At      time.Time `json:"at"` // of the last proof
	Expires time.Time `json:"expires"`
	// Settled names the request for which the user signed in or chose the account last.
	Settled []byte `json:"settled,omitempty"`
	Asked   bool   `json:"asked,omitempty"` // they signed in for it, not only chose
}

// visit is a browser's request.
type visit struct {
	*call
	w       http.ResponseWriter
	browser string
	known   bool // the browser brought its cookie along
	id      string
	value   string   // of the session's cookie
	session *session // nil: nobody is signed in
	user    identity.User
}

// visit finds out which browser this is and who is signed in with it.
func (s *Service) visit(w http.ResponseWriter, c *call) (*visit, error) {
	v := &visit{call: c, w: w}
	if cookie, err := c.Cookie(browserCookie); err == nil && len(cookie.Value) == 43 {
		v.browser, v.known = cookie.Value, true
	} else {
		v.browser = identity.Random(43)
		v.setCookie(browserCookie, v.browser, 0)
	}
	cookie, err := c.Cookie(sessionCookie)
	if err != nil {
		return v, nil
	}
	id, secret, _ := strings.Cut(cookie.Value, ".")
	if len(id) != 22 || strings.Contains(id, "/") {
		return v, nil
	}
	var found session
	_, err = s.get(c.Context(), sessions+id, &found)
	if fault.Is(err, fault.NotFound) {
		return v, nil
	}
	if err != nil {
		return nil, err
	}
	if !same(digest(secret), found.Secret) || !s.now().Before(found.Expires) {
		return v, nil
	}
	user, err := s.standing(c.Context(), found.UserID, found.At)
	var ended oauthError
	if err != nil && !errors.As(err, &ended) {
		return nil, err
	}
	if err == nil {
		v.id, v.value, v.session, v.user = id, cookie.Value, &found, user
	}
	return v, nil
}

func (v *visit) setCookie(name, value string, age int) {
	http.SetCookie(v.w, &http.Cookie{Name: name, Value: value, Path: "/", MaxAge: age, Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode})
}

// token ties a form to this browser and to who is signed in with it now.
func (v *visit) token() string {
	sum := sha256.Sum256([]byte("form\x00" + v.browser + "\x00" + v.value))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// ours says whether a form came from a page that this browser got from us.
func (s *Service) ours(v *visit) error {
	if s.origins.Check(v.Request) != nil {
		return refuse("invalid_request", 90014, "A form on another site can't sign you in.")
	}
	if err := readForm(v.Request); err != nil {
		return err
	}
	if !v.known || !same([]byte(v.PostForm.Get("csrf")), []byte(v.token())) {
		return refuse("invalid_request", 165000, "This page was open for too long, or cookies are switched off. Please try again.")
	}
	return nil
}

// signIn gives the browser a new session, in place of the one it had: a session
// that somebody else put there is of no use to them.
func (s *Service) signIn(v *visit, user identity.User, methods []string, request []byte) error {
	at := s.now().UTC()
	next := session{UserID: user.ID, Methods: methods, At: at, Expires: at.Add(sessionLifetime), Settled: request, Asked: true}
	return s.replaceSession(v, user, next)
}

// prove adds methods to the session, which gets a new secret for it.
func (s *Service) prove(v *visit, methods ...string) error {
	next := *v.session
	next.Methods = slices.Clone(next.Methods)
	for _, m := range append(methods, identity.MethodMFA) {
		if !slices.Contains(next.Methods, m) {
			next.Methods = append(next.Methods, m)
		}
	}
	next.At = s.now().UTC()
	return s.replaceSession(v, v.user, next)
}

func (s *Service) replaceSession(v *visit, user identity.User, next session) error {
	if err := s.endSession(v); err != nil {
		return err
	}
	id, secret := identity.Random(22), identity.Random(43)
	next.Secret = digest(secret)
	if err := s.put(v.Context(), sessions+id, next, store.Absent); err != nil {
		return err
	}
	v.id, v.value, v.session, v.user = id, id+"."+secret, &next, user
	v.setCookie(sessionCookie, v.value, 0)
	return nil
}

// settle remembers that a request's question was answered; nil forgets it.
func (s *Service) settle(v *visit, request []byte) error {
	next := *v.session
	next.Settled, next.Asked = request, false
	if err := s.put(v.Context(), sessions+v.id, next, store.Any); err != nil {
		return err
	}
	v.session = &next
	return nil
}

// endSession signs the browser out.
func (s *Service) endSession(v *visit) error {
	if v.session == nil {
		return nil
	}
	if err := s.store.Delete(v.Context(), sessions+v.id, store.Any); err != nil && !fault.Is(err, fault.NotFound) {
		return err
	}
	v.id, v.value, v.session, v.user = "", "", nil, identity.User{}
	v.setCookie(sessionCookie, "", -1)
	return nil
}

// proof is what grows out of the session.
func (v *visit) proof(flow identity.Flow) proof {
	return proof{UserID: v.session.UserID, Methods: v.session.Methods, At: v.session.At, Session: v.id, Flow: flow}
}
