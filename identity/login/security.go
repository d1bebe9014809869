// SPDX-License-Identifier: Apache-2.0

package login

import (
	"net/http"
	"net/url"
	"slices"

	"bastide.dev/identity"
)

// security is where users see and change how they sign in. Whatever changes it
// needs a recent sign-in, with the second factor of whoever has one.
func (s *Service) security(w http.ResponseWriter, r *http.Request) {
	c, v, err := s.open(w, r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	recent := want{flow: identity.FlowCode, page: page{Title: "Security", Action: "/security"}, request: digest("security"), aged: true, maxAge: recentFor}
	if v.session != nil {
		factors, err := s.directory.Factors(c.Context(), v.user.ID)
		if err != nil {
			s.fail(w, r, err)
			return
		}
		recent.mfa = factors.Any()
	}
	before := v.session
	if !s.identify(v, recent) {
		return
	}
	if before == nil || r.Method != http.MethodPost { // what they came with was a sign-in, or nothing
		s.showSecurity(v, recent.page, nil)
		return
	}
	s.changeSecurity(v, recent)
}

func (s *Service) changeSecurity(v *visit, wanted want) {
	shown := wanted.page
	var err error
	switch step := v.PostForm.Get("step"); step {
	case stepBegin + stepConfirm, stepBegin + stepRegister:
		if err = s.prepare(v, &shown, step[len(stepBegin):]); err == nil {
			s.complete(v, &shown)
			s.show(v.w, http.StatusOK, shown)
			return
		}
	case "remove":
		if err = s.mayEnrol(v); err == nil {
			err = s.directory.RemoveFactor(v.Context(), v.user.ID, v.PostForm.Get("id"))
		}
		if err == nil {
			shown.Notice = "Removed."
			s.log.Info("second factor removed", "user", v.user.ID, "address", v.address())
		}
	case "end":
		if err = s.directory.EndSessions(v.Context(), v.user.ID); err == nil {
			err = s.endSession(v)
		}
		if err == nil {
			s.show(v.w, http.StatusOK, page{View: "fatal", Title: "Signed out", Notice: "You are signed out everywhere."})
			return
		}
	case stepConfirm, stepRegister, stepChange:
		shown.Notice = "Done."
	}
	s.showSecurity(v, shown, err)
}

func (s *Service) showSecurity(v *visit, shown page, err error) {
	shown.View = "security"
	status := http.StatusOK
	if err != nil {
		shown.Problem, status = s.pageProblem(err, v.call), http.StatusBadRequest
	}
	s.complete(v, &shown)
	s.show(v.w, status, shown)
}

// logout ends the browser's session, after asking when another site sent it here:
// a foreign page signs nobody out. Where it goes next must be registered.
func (s *Service) logout(w http.ResponseWriter, c *call) {
	v, err := s.visit(w, c)
	if err != nil {
		s.fail(w, c.Request, err)
		return
	}
	next, err := s.afterLogout(c)
	if err != nil {
		s.showProblem(v, page{Title: "Sign out"}, err)
		return
	}
	form := page{View: "logout", Title: "Sign out", Action: c.URL.RequestURI()}
	if next != nil {
		form.Target = origin(next)
	}
	if c.Method == http.MethodPost {
		if err := s.ours(v); err != nil {
			form.Problem = s.pageProblem(err, c)
		} else if err := s.endSession(v); err != nil {
			s.fail(w, c.Request, err)
			return
		}
	}
	if v.session != nil {
		s.complete(v, &form)
		s.show(w, http.StatusOK, form)
		return
	}
	if next == nil {
		s.show(w, http.StatusOK, page{View: "fatal", Title: "Signed out", Notice: "You are signed out."})
		return
	}
	w.Header().Set("Location", next.String())
	w.WriteHeader(http.StatusFound)
}

// afterLogout is the address to go to, nil for none: one of the redirects of the
// application that the hint or client_id names, or its registered logout address.
func (s *Service) afterLogout(c *call) (*url.URL, error) {
	text := c.URL.Query().Get("post_logout_redirect_uri")
	if text == "" {
		return nil, nil
	}
	bad := refuse("invalid_request", 50011, "The address to go to after signing out isn't registered for the application.")
	to, err := url.Parse(text)
	if err != nil || to.User != nil || to.Fragment != "" || !safeTarget(to) {
		return nil, bad
	}
	app, err := s.directory.Application(c.Context(), s.hintedClient(c))
	if err != nil {
		return nil, bad
	}
	if slices.Contains([]string{app.LogoutURL}, text) || redirectKind(app, to) != "" {
		if query := c.URL.Query().Get("state"); query != "" && len(query) <= maxScope {
			q := to.Query()
			q.Set("state", query)
			to.RawQuery = q.Encode()
		}
		return to, nil
	}
	return nil, bad
}

// hintedClient is the application that asks for the sign-out.
func (s *Service) hintedClient(c *call) string {
	if id := c.URL.Query().Get("client_id"); id != "" {
		return id
	}
	return s.directory.HintedClient(c.Context(), c.URL.Query().Get("id_token_hint"))
}
