// SPDX-License-Identifier: Apache-2.0

package login

import (
	"bytes"
	_ "embed"
	"html/template"
	"net/http"

	"bastide.dev/identity"
)

//go:embed page.html
var pageText string

//go:embed passkey.js
var passkeyScript []byte

//go:embed page.css
var pageStyle []byte

var pageTemplate = template.Must(template.New("page").Parse(pageText))

// page is what the one template shows; View is the step that its form is about.
type page struct {
	View        string
	Title       string
	Application string
	Problem     string
	Action      string            // where the form goes
	Token       string            // csrf
	Hidden      map[string]string // what else its forms carry along
	User        string            // who is signed in, or who is expected to
	Target      string            // an origin that the form's answer may redirect to

	Code      string            // a device's
	Fields    map[string]string // of an answer that is posted to an application
	Scopes    []identity.Scope  // to consent to
	AdminOnly bool              // and not for this user to give
	Admin     bool              // who may consent for everybody

	Step      string // of a passkey ceremony
	Options   string // its options, JSON
	Challenge string
	Secret    string // of a new one-time password
	Address   template.URL
	Picture   template.URL
	HasTOTP   *identity.TOTP
	Passkeys  []identity.Passkey
	Notice    string
}

// show writes the page.
func (s *Service) show(w http.ResponseWriter, status int, p page) {
	var body bytes.Buffer
	if err := pageTemplate.Execute(&body, p); err != nil {
		s.log.Error("sign-in page not shown", "error", err)
		http.Error(w, "The page can't be shown.", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; base-uri 'none'; frame-ancestors 'none'; form-action 'self' "+p.Target)
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	w.WriteHeader(status)
	_, _ = w.Write(body.Bytes()) // a client that went away is no error of ours
}

// asset serves one of the page's own files.
func asset(kind string, data []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		w.Header().Set("Cache-Control", "max-age=3600")
		_, _ = w.Write(data) // a client that went away is no error of ours
	}
}

// pageProblem is an error as the user reads it.
func (s *Service) pageProblem(err error, c *call) string {
	e := asOAuth(err)
	if e == nil {
		s.log.Error("sign-in failed", "path", c.URL.Path, "error", err)
		return "The service met an unexpected condition. Please try again."
	}
	return e.message
}
