// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"bastide.dev/fault"
	"bastide.dev/identity"
)

// passwordMethod is the id that Graph gives every user's password.
const passwordMethod = "28c10230-6103-485e-b985-444c60001490"

// What a user proves sign-ins with. Registration is the login site's; here they
// are listed, and taken away from who lost them.
func (s *Service) methods(kind string) answerer {
	return func(r *request) (any, error) {
		u, err := s.userOf(r)
		if err != nil {
			return nil, err
		}
		if err := s.mayReadMethods(r, u); err != nil {
			return nil, err
		}
		all, err := s.methodItems(r, u)
		if err != nil {
			return nil, err
		}
		var found []item
		for _, m := range all {
			if of := m["@odata.type"]; kind == "" || of == "#microsoft.graph."+kind {
				found = append(found, m)
			}
		}
		return s.collection(r, "users('"+u.ID+"')/authentication/methods", found)
	}
}

// mayReadMethods lets users see their own, and administrators of users everybody's.
func (s *Service) mayReadMethods(r *request, u identity.User) error {
	if r.may.user && r.may.anything && u.ID == r.who.ID {
		return nil
	}
	return allow(r.may.either(r.may.role(identity.GlobalAdministrator, identity.UserAdministrator, identity.GlobalReader, identity.PrivilegedRoleAdmin)))
}

func (s *Service) methodItems(r *request, u identity.User) ([]object, error) {
	factors, err := s.directory.Factors(r.Context(), u.ID)
	if err != nil {
		return nil, err
	}
	found := []object{{"@odata.type": "#microsoft.graph.passwordAuthenticationMethod", "id": passwordMethod, "password": nil, "createdDateTime": moment(u.PasswordSet)}}
	if factors.TOTP != nil {
		found = append(found, object{"@odata.type": "#microsoft.graph.softwareOathAuthenticationMethod", "id": factors.TOTP.ID, "secretKey": nil,
			"createdDateTime": moment(factors.TOTP.Created)})
	}
	for _, k := range factors.Passkeys {
		found = append(found, object{"@odata.type": "#microsoft.graph.fido2AuthenticationMethod", "id": k.ID, "displayName": k.Name,
			"createdDateTime": moment(k.Created), "aaGuid": nil, "model": nil, "attestationCertificates": []string{}, "attestationLevel": nil})
	}
	return found, nil
}

func (s *Service) method(kind string) answerer {
	return func(r *request) (any, error) {
		u, err := s.userOf(r)
		if err != nil {
			return nil, err
		}
		if err := s.mayReadMethods(r, u); err != nil {
			return nil, err
		}
		found, err := s.methodOf(r, u, kind)
		if err != nil {
			return nil, err
		}
		return s.one(r, found, "users('"+u.ID+"')/authentication/"+kind)
	}
}

func (s *Service) methodOf(r *request, u identity.User, kind string) (object, error) {
	all, err := s.methodItems(r, u)
	if err != nil {
		return nil, err
	}
	for _, m := range all {
		if m["id"] == r.PathValue("other") && (kind == "" || m["@odata.type"] == "#microsoft.graph."+kind) {
			return m, nil
		}
	}
	return nil, missing(r.PathValue("other"))
}

func (s *Service) deleteMethod(kind string) answerer {
	return func(r *request) (any, error) {
		u, err := s.userOf(r)
		if err != nil {
			return nil, err
		}
		// As with a password: a stolen token must not take the second factor away.
		if err := s.mayWriteUser(r, u.ID, true); err != nil {
			return nil, err
		}
		if _, err := s.methodOf(r, u, kind); err != nil {
			return nil, err
		}
		if err := s.directory.RemoveFactor(r.Context(), u.ID, r.PathValue("other")); err != nil {
			return nil, err
		}
		return nil, s.directory.Note(r.Context(), "Delete authentication method", identity.CategoryUser, u.ID)
	}
}

func refused(format string, args ...any) answerer {
	return func(*request) (any, error) {
		return nil, fault.New(fault.NotFound, "NotImplemented", format, args...)
	}
}
