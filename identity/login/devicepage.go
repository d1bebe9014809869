// SPDX-License-Identifier: Apache-2.0

package login

import (
	"net/http"

	"bastide.dev/fault"
	"bastide.dev/identity"
)

// devicePage is where a user enters the code of a device, signs in and says that
// it is theirs. The sign-in itself is never skipped silently: the last question
// names the application, or a code in a message would be enough to be robbed.
func (s *Service) devicePage(w http.ResponseWriter, r *http.Request) {
	c, v, err := s.open(w, r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.begin(c, identity.FlowDevice)
	form := page{Title: "Sign in to a device", View: "device", Action: "/device"}
	typed := r.URL.Query().Get("user_code")
	if r.Method == http.MethodPost {
		if err := s.ours(v); err != nil {
			s.deviceProblem(v, form, err)
			return
		}
		typed = v.PostForm.Get("user_code")
	}
	form.Code = cleanCode(typed)
	if r.Method == http.MethodGet || form.Code == "" && typed == "" {
		s.complete(v, &form)
		s.show(w, http.StatusOK, form)
		return
	}
	d, revision, err := s.waiting(c, form.Code)
	if err != nil {
		s.deviceProblem(v, form, err)
		return
	}
	app, err := s.directory.Application(c.Context(), d.ClientID)
	if err != nil {
		s.deviceProblem(v, form, err)
		return
	}
	resource, err := s.directory.Resource(c.Context(), d.Asked.Resource)
	if err != nil {
		s.deviceProblem(v, form, err)
		return
	}
	form.Application, form.Hidden = app.DisplayName, map[string]string{"user_code": form.Code}
	wanted := want{flow: identity.FlowDevice, app: app, resource: resource.Application.AppID, page: form, request: digest("device\x00" + form.Code)}
	if !s.identify(v, wanted) {
		return
	}
	s.confirmDevice(v, wanted, d, revision)
}

// open starts a page that is under no tenant's path.
func (s *Service) open(w http.ResponseWriter, r *http.Request) (*call, *visit, error) {
	tenant, err := s.directory.Tenant(r.Context())
	if err != nil {
		return nil, nil, err
	}
	c := &call{Request: r, tenant: tenant, segment: tenant.ID, version: 2}
	v, err := s.visit(w, c)
	return c, v, err
}

func (s *Service) deviceProblem(v *visit, form page, err error) {
	form.View, form.Problem, form.Hidden = "device", s.pageProblem(err, v.call), nil
	s.complete(v, &form)
	s.show(v.w, http.StatusBadRequest, form)
}

// waiting finds a device by its user code. Wrong codes count: whoever tries many
// hopes for a stranger's.
func (s *Service) waiting(c *call, userCode string) (device, int64, error) {
	wrong := refuse("invalid_grant", 70018, "That code isn't right, or it has expired. Begin again on your device.")
	if err := s.limits.guess(c.address()); err != nil {
		return device{}, 0, err
	}
	if userCode == "" {
		return device{}, 0, wrong
	}
	var d device
	revision, err := s.get(c.Context(), devices+userCode, &d)
	if fault.Is(err, fault.NotFound) {
		return device{}, 0, wrong
	}
	if err != nil {
		return device{}, 0, err
	}
	if d.UserID != "" || d.Declined || !s.now().Before(d.Expires) {
		return device{}, 0, wrong
	}
	return d, revision, nil
}

// confirmDevice asks whether the device is theirs, and binds the user to it.
func (s *Service) confirmDevice(v *visit, wanted want, d device, revision int64) {
	form := wanted.page
	switch v.PostForm.Get("step") {
	case "approve":
		d.proof = v.proof(identity.FlowDevice)
		form.View, form.Title = "done", "You are signed in"
	case stepDecline:
		d.Declined = true
		form.View, form.Title, form.Problem = "fatal", "Cancelled", "The device was not signed in. You may close this window."
	default:
		form.View = "approve"
		s.complete(v, &form)
		s.show(v.w, http.StatusOK, form)
		return
	}
	if err := s.put(v.Context(), devices+form.Code, d, revision); err != nil {
		s.deviceProblem(v, form, err)
		return
	}
	s.log.Info("device code answered", "approved", !d.Declined, "user", v.user.ID, "client", d.ClientID, "address", v.address())
	s.complete(v, &form)
	s.show(v.w, http.StatusOK, form)
}
