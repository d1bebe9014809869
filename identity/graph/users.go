// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"encoding/json"
	"slices"
	"strings"

	"bastide.dev/fault"
	"bastide.dev/identity"
)

func userKind() *kind[identity.User] {
	type u = identity.User
	list := []property[u]{
		shown("id", func(v *u) any { return v.ID }),
		text("userPrincipalName", func(v *u) *string { return &v.Name }),
		text("displayName", func(v *u) *string { return &v.DisplayName }),
		flag("accountEnabled", func(v *u) *bool { return &v.Disabled }, true),
		text("givenName", func(v *u) *string { return &v.GivenName }),
		text("surname", func(v *u) *string { return &v.Surname }),
		text("mail", func(v *u) *string { return &v.Mail }),
		mailNickname(),
		texts("otherMails", func(v *u) *[]string { return &v.OtherMails }),
		text("jobTitle", func(v *u) *string { return &v.JobTitle }),
		text("department", func(v *u) *string { return &v.Department }),
		text("companyName", func(v *u) *string { return &v.CompanyName }),
		text("officeLocation", func(v *u) *string { return &v.OfficeLocation }),
		texts("businessPhones", func(v *u) *[]string { return &v.BusinessPhones }),
		text("mobilePhone", func(v *u) *string { return &v.MobilePhone }),
		text("faxNumber", func(v *u) *string { return &v.FaxNumber }),
		text("streetAddress", func(v *u) *string { return &v.StreetAddress }),
		text("city", func(v *u) *string { return &v.City }),
		text("state", func(v *u) *string { return &v.State }),
		text("postalCode", func(v *u) *string { return &v.PostalCode }),
		text("country", func(v *u) *string { return &v.Country }),
		text("usageLocation", func(v *u) *string { return &v.UsageLocation }),
		text("preferredLanguage", func(v *u) *string { return &v.PreferredLanguage }),
		text("employeeId", func(v *u) *string { return &v.EmployeeID }),
		text("employeeType", func(v *u) *string { return &v.EmployeeType }),
		shown("createdDateTime", func(v *u) any { return moment(v.Created) }),
		shown("lastPasswordChangeDateTime", func(v *u) any { return moment(v.PasswordSet) }),
		shown("signInSessionsValidFromDateTime", func(v *u) any { return moment(v.ValidFrom) }),
		only[u]("userType", "Member", "the directory has no guests."),
		passwordPolicies(),
		only[u]("showInAddressList", true, "there is no address list."),
		fixed[u]("creationType", nil), fixed[u]("passwordProfile", nil), fixed[u]("ageGroup", nil), fixed[u]("consentProvidedForMinor", nil),
		fixed[u]("externalUserState", nil), fixed[u]("onPremisesSyncEnabled", nil), fixed[u]("onPremisesImmutableId", nil),
		fixed[u]("onPremisesDistinguishedName", nil), fixed[u]("onPremisesDomainName", nil), fixed[u]("onPremisesSamAccountName", nil),
		fixed[u]("onPremisesSecurityIdentifier", nil), fixed[u]("onPremisesUserPrincipalName", nil), fixed[u]("employeeHireDate", nil),
		fixed[u]("employeeOrgData", nil), fixed[u]("proxyAddresses", []string{}), fixed[u]("imAddresses", []string{}), fixed[u]("identities", []object{}),
		fixed[u]("deletedDateTime", nil),
	}
	return newKind("user", "User", "users", list)
}

// passwordPolicies can say of passwords what is so anyway: they don't expire.
func passwordPolicies() property[identity.User] {
	p := text("passwordPolicies", func(v *identity.User) *string { return &v.PasswordPolicies })
	write := p.write
	p.write = func(v *identity.User, raw json.RawMessage) error {
		if err := write(v, raw); err != nil {
			return err
		}
		if !slices.Contains([]string{"", "None", "DisablePasswordExpiration"}, v.PasswordPolicies) {
			return badProperty("passwordPolicies", "The passwordPolicies are None or DisablePasswordExpiration: weaker passwords aren't let in.")
		}
		return nil
	}
	return p
}

// mailNickname is the part before @ unless it was given.
func mailNickname() property[identity.User] {
	p := text("mailNickname", func(v *identity.User) *string { return &v.MailNickname })
	p.read = func(v *identity.User) any {
		if v.MailNickname == "" {
			local, _, _ := strings.Cut(v.Name, "@")
			return local
		}
		return v.MailNickname
	}
	return p
}

// passwordProfile is what a body says of a password.
type passwordProfile struct {
	Password      string `json:"password"`
	MustChange    bool   `json:"forceChangePasswordNextSignIn"`
	MustChangeMFA bool   `json:"forceChangePasswordNextSignInWithMfa"`
}

func readProfile(body map[string]json.RawMessage) (*passwordProfile, error) {
	raw, named := body["passwordProfile"]
	if !named || empty(raw) {
		return nil, nil
	}
	var inner map[string]json.RawMessage
	if err := json.Unmarshal(raw, &inner); err != nil {
		return nil, badProperty("passwordProfile", "The passwordProfile is not an object.").Because(err)
	}
	p := &passwordProfile{}
	if err := decode(inner, p, "password", "forceChangePasswordNextSignIn", "forceChangePasswordNextSignInWithMfa"); err != nil {
		return nil, err
	}
	if p.MustChangeMFA {
		return nil, badProperty("passwordProfile.forceChangePasswordNextSignInWithMfa", "forceChangePasswordNextSignInWithMfa is not implemented: a conditional access policy demands a second factor.")
	}
	if p.Password == "" {
		return nil, badProperty("passwordProfile.password", "A passwordProfile has a password: forceChangePasswordNextSignIn alone isn't implemented.")
	}
	return p, nil
}

func (s *Service) userItems(r *request) ([]item, error) {
	found, err := s.directory.Users(r.Context())
	return items(s.kinds.user, found), err
}

func items[T any](k *kind[T], values []T) []item {
	found := make([]item, len(values))
	for i := range values {
		found[i] = entity[T]{k, &values[i]}
	}
	return found
}

// userOf finds the user of a path: by id or name, or the caller of /me. Who may
// not read users may read oneself.
func (s *Service) userOf(r *request) (identity.User, error) {
	id := r.PathValue("id")
	if id == "" {
		if !r.may.user {
			return identity.User{}, fault.New(fault.Invalid, "BadRequest", "/me request is only valid with delegated authentication flow.")
		}
		id = r.who.ID
	}
	if !r.may.reads(userArea) && !strings.EqualFold(id, r.who.ID) && !strings.EqualFold(id, r.who.Name) {
		return identity.User{}, denied()
	}
	u, err := s.directory.User(r.Context(), id)
	if fault.Is(err, fault.NotFound) {
		err = missing(id)
	}
	return u, err
}

func (s *Service) getUser(r *request) (any, error) {
	u, err := s.userOf(r)
	if err != nil {
		return nil, err
	}
	return s.one(r, entity[identity.User]{s.kinds.user, &u}, "users")
}

func (s *Service) createUser(r *request) (any, error) {
	if err := s.mayWriteUser(r, "", false); err != nil {
		return nil, err
	}
	body, err := readBody(r)
	if err != nil {
		return nil, err
	}
	var u identity.User
	profile, err := readProfile(body)
	problems := []error{err, s.kinds.user.apply(&u, body, "passwordProfile")}
	for _, name := range []string{"accountEnabled", "displayName", "mailNickname", "passwordProfile", "userPrincipalName"} {
		if _, named := body[name]; !named {
			problems = append(problems, badProperty(name, "A value is required for property '%s' of resource 'User'.", name))
		}
	}
	if err := joined(problems...); err != nil {
		return nil, err
	}
	if profile == nil {
		return nil, badProperty("passwordProfile", "A value is required for property 'passwordProfile' of resource 'User'.")
	}
	u.MustChange = profile.MustChange
	u, err = s.directory.AddUser(r.Context(), u, profile.Password)
	return s.made(entity[identity.User]{s.kinds.user, &u}, "users"), err
}

func (s *Service) made(i item, of string) created {
	o := i.object()
	o["@odata.context"] = s.context(of + "/$entity")
	return created{o}
}

// joined is one fault of all problems.
func joined(problems ...error) error {
	var all []*fault.Error
	for _, p := range problems {
		if p == nil {
			continue
		}
		f := fault.From(p)
		if f.Kind == fault.Internal {
			return p
		}
		if len(f.Details) > 0 {
			all = append(all, f.Details...)
		} else {
			all = append(all, f)
		}
	}
	return fault.Join(all...)
}

func (s *Service) updateUser(r *request) (any, error) {
	target, err := s.directory.User(r.Context(), r.PathValue("id"))
	if err != nil {
		return nil, s.hidden(r, userArea, err)
	}
	body, err := readBody(r)
	if err != nil {
		return nil, err
	}
	profile, err := readProfile(body)
	if err != nil {
		return nil, err
	}
	if err := s.mayWriteUser(r, target.ID, profile != nil); err != nil {
		return nil, err
	}
	// Judged before the password changes, and again where it is written.
	draft := target
	if err := s.kinds.user.apply(&draft, body, "passwordProfile"); err != nil {
		return nil, err
	}
	if _, named := body["passwordProfile"]; len(body) > 1 || !named {
		if err := s.directory.EditUser(r.Context(), target.ID, func(u *identity.User) error { return s.kinds.user.apply(u, body, "passwordProfile") }); err != nil {
			return nil, err
		}
	}
	if profile != nil {
		return nil, s.directory.ResetPassword(r.Context(), target.ID, profile.Password, profile.MustChange)
	}
	return nil, nil
}

// hidden is the answer when an object isn't there: who may not read the area
// isn't told.
func (s *Service) hidden(r *request, of area, err error) error {
	if fault.Is(err, fault.NotFound) && !r.may.reads(of) {
		return denied()
	}
	return err
}

func (s *Service) deleteUser(r *request) (any, error) {
	target, err := s.directory.User(r.Context(), r.PathValue("id"))
	if err != nil {
		return nil, s.hidden(r, userArea, err)
	}
	if err := s.mayWriteUser(r, target.ID, false); err != nil {
		return nil, err
	}
	return nil, s.directory.DeleteUser(r.Context(), target.ID)
}

// changePassword is of the caller alone.
func (s *Service) changePassword(r *request) (any, error) {
	u, err := s.userOf(r)
	if err != nil {
		return nil, err
	}
	if !r.may.user || !r.may.anything || u.ID != r.who.ID {
		return nil, denied()
	}
	var body struct {
		Current string `json:"currentPassword"`
		New     string `json:"newPassword"`
	}
	if err := readInto(r, &body, "currentPassword", "newPassword"); err != nil {
		return nil, err
	}
	return nil, s.directory.ChangePassword(r.Context(), u.ID, body.Current, body.New, remote(r.Request))
}

func (s *Service) revokeSessions(r *request) (any, error) {
	u, err := s.userOf(r)
	if err != nil {
		return nil, err
	}
	if !r.may.user || !r.may.anything || u.ID != r.who.ID {
		if err := s.mayWriteUser(r, u.ID, false); err != nil {
			return nil, err
		}
	}
	return object{"@odata.context": s.context("Edm.Boolean"), "value": true}, s.directory.RevokeSessions(r.Context(), u.ID)
}

func (s *Service) noManager(r *request) (any, error) {
	u, err := s.userOf(r)
	if err != nil {
		return nil, err
	}
	return nil, fault.New(fault.NotFound, "Request_ResourceNotFound", "Resource 'manager' does not exist or one of its queried reference-property objects are not present: the user '%s' has none.", u.ID)
}

func missing(id string) error {
	return fault.New(fault.NotFound, "Request_ResourceNotFound", "Resource '%s' does not exist or one of its queried reference-property objects are not present.", clip(id))
}
