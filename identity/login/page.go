// SPDX-License-Identifier: Apache-2.0

package login

import (
	"bytes"
	_ "embed"
	"html/template"
	"net/http"
)

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Parse(pageText))

// page is what the one template shows.
type page struct {
	Title       string
	Application string
	Problem     string
	User        string
	Device      bool   // asks for a code as well
	Code        string // what the user typed, or the link held
	Action      string // where the form goes; "" is this page
	Fields      map[string]string
	Done        bool // nothing left to do
	Fatal       bool // nothing can be done
}

// show writes the page. target is an origin that the form's answer may redirect to.
func (s *Service) show(w http.ResponseWriter, status int, p page, target string) {
	var body bytes.Buffer
	if err := pageTemplate.Execute(&body, p); err != nil {
		s.log.Error("sign-in page not shown", "error", err)
		http.Error(w, "The page can't be shown.", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'; form-action 'self' "+target)
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	w.WriteHeader(status)
	_, _ = w.Write(body.Bytes()) // a client that went away is no error of ours
}

// pageProblem is an error as the user reads it.
func (s *Service) pageProblem(err error, c *call) string {
	e := asOAuth(err)
	if e == nil {
		s.log.Error("sign-in failed", "path", c.URL.Path, "error", err)
		return "The service met an unexpected condition. Please try again."
	}
	s.log.Info("sign-in refused", "grant", "page", "address", c.address(), "code", e.number)
	return e.message
}
