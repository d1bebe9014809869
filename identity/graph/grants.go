// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"slices"
	"strings"

	"bastide.dev/fault"
	"bastide.dev/identity"
)

func grantObject(g identity.Grant) object {
	kind, principal := "Principal", orNull(g.PrincipalID)
	if g.PrincipalID == "" {
		kind = "AllPrincipals"
	}
	return object{"id": g.ID, "clientId": g.ClientID, "consentType": kind, "principalId": principal, "resourceId": g.ResourceID, "scope": strings.Join(g.Scopes, " ")}
}

func (s *Service) grantList(r *request) (any, error) {
	client := ""
	if r.PathValue("id") != "" {
		sp, err := s.principalOf(r)
		if err != nil {
			return nil, err
		}
		client = sp.ID
	} else if err := r.mayRead(grantArea); err != nil {
		return nil, err
	}
	all, err := s.directory.Grants(r.Context(), client)
	if err != nil {
		return nil, err
	}
	return s.collection(r, "oauth2PermissionGrants", objects(convert(all, grantObject)))
}

// grantsOfUser lists what a user agreed to.
func (s *Service) grantsOfUser(r *request) (any, error) {
	u, err := s.userOf(r)
	if err != nil {
		return nil, err
	}
	all, err := s.directory.Grants(r.Context(), "")
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(g identity.Grant) bool { return g.PrincipalID != u.ID })
	return s.collection(r, "oauth2PermissionGrants", objects(convert(all, grantObject)))
}

func objects(all []object) []item {
	found := make([]item, len(all))
	for i, o := range all {
		found[i] = o
	}
	return found
}

// mayGrant judges a consent in another's name. What reaches into the directory
// beyond the one who signs in is the highest administrators' to give.
func (s *Service) mayGrant(r *request, resourceID string, scopes []string) error {
	if r.may.supreme() || !r.may.user && r.may.has(identity.GrantsWrite) {
		return nil
	}
	administers := r.may.role(identity.ApplicationAdministrator, identity.CloudApplicationAdmin)
	if !r.may.either(administers, identity.GrantsWrite) {
		return denied()
	}
	sp, err := s.directory.ServicePrincipal(r.Context(), resourceID)
	if err != nil || sp.AppID != identity.AppGraph {
		return nil // PutGrant says what is wrong with it
	}
	app, err := s.directory.Application(r.Context(), sp.AppID)
	if err != nil {
		return err
	}
	for _, scope := range app.Scopes {
		if scope.Type == "Admin" && slices.Contains(scopes, scope.Value) {
			return denied()
		}
	}
	return nil
}

func (s *Service) createGrant(r *request) (any, error) {
	var body struct {
		ClientID    string `json:"clientId"`
		Type        string `json:"consentType"`
		PrincipalID string `json:"principalId"`
		ResourceID  string `json:"resourceId"`
		Scope       string `json:"scope"`
	}
	if err := readInto(r, &body, "clientId", "consentType", "principalId", "resourceId", "scope", "startTime", "expiryTime"); err != nil {
		return nil, err
	}
	if body.Type != "AllPrincipals" && body.Type != "Principal" || (body.Type == "Principal") != (body.PrincipalID != "") {
		return nil, badProperty("consentType", "The consentType is AllPrincipals, or Principal with a principalId.")
	}
	g := identity.Grant{ClientID: strings.ToLower(body.ClientID), PrincipalID: strings.ToLower(body.PrincipalID), ResourceID: strings.ToLower(body.ResourceID),
		Scopes: strings.Fields(body.Scope)}
	if err := s.mayGrant(r, g.ResourceID, g.Scopes); err != nil {
		return nil, err
	}
	have, err := s.directory.Grants(r.Context(), g.ClientID)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(have, func(o identity.Grant) bool { return o.PrincipalID == g.PrincipalID && o.ResourceID == g.ResourceID }) {
		return nil, fault.New(fault.Conflict, "Request_BadRequest", "Permission entry already exists.")
	}
	g, err = s.directory.PutGrant(r.Context(), g, false)
	return created{grantObject(g)}, err
}

func (s *Service) getGrant(r *request) (any, error) {
	if err := r.mayRead(grantArea); err != nil {
		return nil, err
	}
	g, err := s.directory.Grant(r.Context(), r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	return s.one(r, grantObject(g), "oauth2PermissionGrants")
}

func (s *Service) updateGrant(r *request) (any, error) {
	g, err := s.directory.Grant(r.Context(), r.PathValue("id"))
	if err != nil {
		return nil, s.hidden(r, grantArea, err)
	}
	var body struct {
		Scope *string `json:"scope"`
	}
	if err := readInto(r, &body, "scope"); err != nil {
		return nil, err
	}
	if body.Scope == nil {
		return nil, badProperty("scope", "A value is required for property 'scope'.")
	}
	g.Scopes = strings.Fields(*body.Scope)
	if err := s.mayGrant(r, g.ResourceID, g.Scopes); err != nil {
		return nil, err
	}
	_, err = s.directory.PutGrant(r.Context(), g, false)
	return nil, err
}

func (s *Service) deleteGrant(r *request) (any, error) {
	g, err := s.directory.Grant(r.Context(), r.PathValue("id"))
	if err != nil {
		return nil, s.hidden(r, grantArea, err)
	}
	if err := s.mayGrant(r, g.ResourceID, nil); err != nil {
		return nil, err
	}
	return nil, s.directory.DeleteGrant(r.Context(), g.ID)
}

// assignedObject is an app role's assignment, with the names that clients show.
func (s *Service) assignedObject(r *request, a identity.AppRoleAssignment) object {
	o := object{"@odata.type": "#microsoft.graph.appRoleAssignment", "id": a.ID, "appRoleId": a.AppRoleID, "principalId": a.PrincipalID, "resourceId": a.ResourceID,
		"createdDateTime": moment(a.Created), "deletedDateTime": nil, "principalDisplayName": nil, "principalType": nil, "resourceDisplayName": nil}
	if v, err := s.directory.Object(r.Context(), a.PrincipalID); err == nil {
		i := s.itemOf(r, v)
		name, _ := i.get("displayName")
		kind := strings.TrimPrefix(typeOf(i), "#microsoft.graph.")
		o["principalDisplayName"], o["principalType"] = name, strings.ToUpper(kind[:1])+kind[1:]
	}
	if sp, err := s.directory.ServicePrincipal(r.Context(), a.ResourceID); err == nil {
		o["resourceDisplayName"] = sp.DisplayName
	}
	return o
}

// appRoleList lists what the object of a path has, or who has what of it.
func (s *Service) appRoleList(to bool) answerer {
	return func(r *request) (any, error) {
		v, err := s.subject(r)
		if err != nil {
			return nil, err
		}
		if !r.may.reads(applicationArea) && idOf(v) != r.who.ID {
			return nil, denied()
		}
		principal, resource := idOf(v), ""
		if to {
			principal, resource = "", principal
		}
		all, err := s.directory.AppRoleAssignments(r.Context(), principal, resource)
		if err != nil {
			return nil, err
		}
		return s.collection(r, "appRoleAssignments", objects(convert(all, func(a identity.AppRoleAssignment) object { return s.assignedObject(r, a) })))
	}
}

func (s *Service) appRoleOne(r *request) (any, error) {
	v, err := s.subject(r)
	if err != nil {
		return nil, err
	}
	a, err := s.directory.AppRoleAssignment(r.Context(), r.PathValue("other"))
	if err != nil || a.PrincipalID != idOf(v) && a.ResourceID != idOf(v) {
		return nil, joined(err, missing(r.PathValue("other")))
	}
	return s.one(r, s.assignedObject(r, a), "appRoleAssignments")
}

// mayAssignAppRole judges the assignment of an app role. Permissions of the
// directory itself are the highest administrators' to give.
func (s *Service) mayAssignAppRole(r *request, resourceID string) error {
	if r.may.supreme() || !r.may.user && r.may.has(identity.AppRoleAssignmentsWrite) {
		return nil
	}
	sp, err := s.directory.ServicePrincipal(r.Context(), resourceID)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return err
	}
	administers := r.may.role(identity.ApplicationAdministrator, identity.CloudApplicationAdmin) || r.may.user && slices.Contains(sp.Owners, r.may.id)
	return allow(r.may.either(administers, identity.AppRoleAssignmentsWrite) && !sp.FirstParty)
}

func (s *Service) assignAppRole(r *request) (any, error) {
	var body struct {
		PrincipalID string `json:"principalId"`
		ResourceID  string `json:"resourceId"`
		AppRoleID   string `json:"appRoleId"`
	}
	var v any
	var err error
	if v, err = s.subject(r); err != nil {
		return nil, err
	}
	if err := readInto(r, &body, "principalId", "resourceId", "appRoleId"); err != nil {
		return nil, err
	}
	if id := idOf(v); !strings.EqualFold(body.PrincipalID, id) && !strings.EqualFold(body.ResourceID, id) {
		return nil, badProperty("principalId", "The assignment is of neither this principal nor this resource: '%s'.", id)
	}
	if err := s.mayAssignAppRole(r, body.ResourceID); err != nil {
		return nil, err
	}
	a, err := s.directory.AssignAppRole(r.Context(), body.PrincipalID, body.ResourceID, body.AppRoleID)
	if err != nil {
		return nil, err
	}
	return created{s.assignedObject(r, a)}, nil
}

func (s *Service) unassignAppRole(r *request) (any, error) {
	v, err := s.subject(r)
	if err != nil {
		return nil, err
	}
	a, err := s.directory.AppRoleAssignment(r.Context(), r.PathValue("other"))
	if err != nil || a.PrincipalID != idOf(v) && a.ResourceID != idOf(v) {
		return nil, joined(err, missing(r.PathValue("other")))
	}
	if err := s.mayAssignAppRole(r, a.ResourceID); err != nil {
		return nil, err
	}
	return nil, s.directory.UnassignAppRole(r.Context(), a.ID)
}

func federatedObject(f identity.FederatedCredential) object {
	return object{"id": f.ID, "name": f.Name, "issuer": f.Issuer, "subject": f.Subject, "audiences": nonNil(f.Audiences), "description": orNull(f.Description)}
}

func (s *Service) federatedList(r *request) (any, error) {
	a, err := s.applicationOf(r)
	if err != nil {
		return nil, err
	}
	return s.collection(r, "applications('"+a.ID+"')/federatedIdentityCredentials", objects(convert(a.Federated, federatedObject)))
}

// federatedOf finds a path's credential by id, name or (name='NAME').
func federatedOf(r *request, a identity.Application) (identity.FederatedCredential, error) {
	key := r.PathValue("other")
	if name := keyed(key, "name"); name != "" {
		key = name
	}
	i := slices.IndexFunc(a.Federated, func(f identity.FederatedCredential) bool { return f.ID == key || strings.EqualFold(f.Name, key) })
	if i < 0 {
		return identity.FederatedCredential{Name: key}, missing(key)
	}
	return a.Federated[i], nil
}

func (s *Service) federatedOne(r *request) (any, error) {
	a, err := s.applicationOf(r)
	if err != nil {
		return nil, err
	}
	f, err := federatedOf(r, a)
	if err != nil {
		return nil, err
	}
	return s.one(r, federatedObject(f), "applications('"+a.ID+"')/federatedIdentityCredentials")
}

func readFederated(r *request, f *identity.FederatedCredential) error {
	body, err := readBody(r)
	if err != nil {
		return err
	}
	id := f.ID
	delete(body, "id")
	err = decode(body, f, "name", "issuer", "subject", "audiences", "description")
	if raw, named := body["description"]; named && string(raw) == "null" {
		f.Description = ""
	}
	f.ID = id
	return err
}

func (s *Service) createFederated(r *request) (any, error) {
	a, err := s.applicationOf(r)
	if err != nil {
		return nil, err
	}
	if err := s.mayWriteApplication(r, a.AppID, a.Owners); err != nil {
		return nil, err
	}
	var f identity.FederatedCredential
	if err := readFederated(r, &f); err != nil {
		return nil, err
	}
	f, err = s.directory.PutFederated(r.Context(), a.ID, f, true)
	return created{federatedObject(f)}, err
}

// updateFederated changes one, or makes it when the path is (name='NAME').
func (s *Service) updateFederated(r *request) (any, error) {
	a, err := s.applicationOf(r)
	if err != nil {
		return nil, err
	}
	if err := s.mayWriteApplication(r, a.AppID, a.Owners); err != nil {
		return nil, err
	}
	f, err := federatedOf(r, a)
	fresh := fault.Is(err, fault.NotFound) && keyed(r.PathValue("other"), "name") != ""
	if err != nil && !fresh {
		return nil, err
	}
	name := f.Name
	if err := readFederated(r, &f); err != nil {
		return nil, err
	}
	if !strings.EqualFold(f.Name, name) {
		return nil, badProperty("name", "The name of a federatedIdentityCredential can't be changed.")
	}
	f, err = s.directory.PutFederated(r.Context(), a.ID, f, fresh)
	if fresh {
		return created{federatedObject(f)}, err
	}
	return nil, err
}

func (s *Service) deleteFederated(r *request) (any, error) {
	a, err := s.applicationOf(r)
	if err != nil {
		return nil, err
	}
	if err := s.mayWriteApplication(r, a.AppID, a.Owners); err != nil {
		return nil, err
	}
	f, err := federatedOf(r, a)
	if err != nil {
		return nil, err
	}
	return nil, s.directory.DeleteFederated(r.Context(), a.ID, f.ID)
}
