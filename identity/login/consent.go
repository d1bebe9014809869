// SPDX-License-Identifier: Apache-2.0

package login

import (
	"slices"

	"bastide.dev/identity"
)

func (s *Service) wantedScopes(v *visit, a authorization) (identity.Resource, []string, error) {
	resource, err := s.directory.Resource(v.Context(), a.asked.Resource)
	if err != nil {
		return resource, nil, err
	}
	granted, missing, err := s.permissions(v.Context(), v.user, a.app, resource, a.asked)
	if err == nil {
		err = s.mayUse(v.Context(), v.user.ID, resource.Application)
	}
	if err == nil && !s.directory.KnownApplication(a.app.AppID) {
		err = s.mayUse(v.Context(), v.user.ID, a.app)
	}
	if slices.Contains(a.prompt, "consent") && !s.directory.KnownApplication(a.app.AppID) {
		missing = append(missing, granted...)
	}
	return resource, missing, err
}

// consent asks the person for what the application may do in their name, and
// remembers the answer; nil when nothing is left to be asked.
func (s *Service) consent(v *visit, a authorization) (*page, error) {
	resource, missing, err := s.wantedScopes(v, a)
	if err != nil || len(missing) == 0 {
		return nil, err
	}
	step := "" // what was posted has passed identify, which checked where it came from
	if v.PostForm != nil {
		step = v.PostForm.Get("step")
	}
	may := s.mayConsent(v.user, resource.Application, missing)
	switch step {
	case stepDecline:
		return nil, refuse("access_denied", 65004, "User declined to consent to access the app.")
	case stepConsent:
		if !may {
			return nil, refuse("access_denied", 90094, "An administrator has to consent to what the application asks for.")
		}
		user := v.user.ID
		if v.PostForm.Get("everybody") == "yes" && s.isAdministrator(v.user.ID) {
			user = ""
		}
		if err := s.directory.Consent(v.Context(), user, a.app.AppID, resource.Application.AppID, missing); err != nil {
			return nil, err
		}
		s.log.Info("consent given", "user", v.user.ID, "everybody", user == "", "client", a.app.AppID, "resource", resource.Application.AppID, "scopes", missing)
		return nil, nil
	}
	shown := a.want.page
	shown.View, shown.Title, shown.AdminOnly, shown.Admin = "consent", "Permission requested", !may, s.isAdministrator(v.user.ID)
	for _, name := range missing {
		i := slices.IndexFunc(resource.Application.Scopes, func(p identity.Scope) bool { return p.Value == name })
		if i < 0 {
			shown.Scopes = append(shown.Scopes, identity.Scope{Value: name, UserConsentDisplayName: protocolScope(name)})
			continue
		}
		shown.Scopes = append(shown.Scopes, resource.Application.Scopes[i])
	}
	return &shown, nil
}

// protocolScope says what OpenID Connect's own scopes mean to a person.
func protocolScope(name string) string {
	switch name {
	case "openid":
		return "Sign you in"
	case "profile":
		return "View your basic profile"
	case "email":
		return "View your email address"
	case "offline_access":
		return "Maintain access to data you have given it access to"
	}
	return name
}
