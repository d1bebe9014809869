// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"bastide.dev/fault"
	"bastide.dev/identity"
)

// object is a directory object in Graph's words.
type object map[string]any

func userObject(u identity.User) object {
	return object{"@odata.type": "#microsoft.graph.user", "id": u.ID, "userPrincipalName": u.Name, "displayName": u.DisplayName,
		"accountEnabled": !u.Disabled, "mail": nil, "mailNickname": strings.Split(u.Name, "@")[0], "givenName": nil, "surname": nil,
		"jobTitle": nil, "mobilePhone": nil, "officeLocation": nil, "preferredLanguage": nil, "businessPhones": []string{}, "createdDateTime": u.Created}
}

func principalObject(p identity.ServicePrincipal, tenant string) object {
	alternative := []string{}
	if p.ResourceID != "" {
		alternative = []string{"isExplicit=False", p.ResourceID}
	}
	return object{"@odata.type": "#microsoft.graph.servicePrincipal", "id": p.ID, "appId": p.AppID, "displayName": p.DisplayName,
		"appDisplayName": p.DisplayName, "accountEnabled": !p.Disabled, "servicePrincipalType": string(p.Type), "servicePrincipalNames": p.Names,
		"alternativeNames": alternative, "appOwnerOrganizationId": tenant, "passwordCredentials": secrets(p.Secrets), "keyCredentials": []any{},
		"appRoles": []any{}, "oauth2PermissionScopes": []any{}, "replyUrls": []string{}, "tags": []string{}, "createdDateTime": p.Created}
}

func applicationObject(a identity.Application) object {
	return object{"@odata.type": "#microsoft.graph.application", "id": a.ID, "appId": a.AppID, "displayName": a.DisplayName,
		"identifierUris": nonNil(a.IdentifierURIs), "passwordCredentials": secrets(a.Secrets), "keyCredentials": []any{},
		"signInAudience": "AzureADMyOrg", "isFallbackPublicClient": a.Public, "createdDateTime": a.Created}
}

func groupObject(g identity.Group) object {
	return object{"@odata.type": "#microsoft.graph.group", "id": g.ID, "displayName": g.DisplayName, "securityEnabled": true,
		"mailEnabled": false, "groupTypes": []string{}, "description": nil, "createdDateTime": g.Created}
}

func secrets(all []identity.Secret) []object {
	found := []object{}
	for _, s := range all {
		found = append(found, object{"keyId": s.ID, "hint": s.Hint, "endDateTime": s.Expires, "secretText": nil, "displayName": nil})
	}
	return found
}

func nonNil(values []string) []string {
	if values == nil {
		return []string{}
	}
	return values
}

func (s *Service) users(ctx context.Context) ([]object, error) {
	found, err := s.directory.Users(ctx)
	return convert(found, userObject), err
}

func (s *Service) principals(ctx context.Context) ([]object, error) {
	tenant, err := s.directory.Tenant(ctx)
	if err != nil {
		return nil, err
	}
	found, err := s.directory.ServicePrincipals(ctx)
	return convert(found, func(p identity.ServicePrincipal) object { return principalObject(p, tenant.ID) }), err
}

func (s *Service) applications(ctx context.Context) ([]object, error) {
	found, err := s.directory.Applications(ctx)
	return convert(found, applicationObject), err
}

func (s *Service) groups(ctx context.Context) ([]object, error) {
	found, err := s.directory.Groups(ctx)
	return convert(found, groupObject), err
}

func (s *Service) organization(ctx context.Context) ([]object, error) {
	t, err := s.directory.Tenant(ctx)
	return []object{{"@odata.type": "#microsoft.graph.organization", "id": t.ID, "displayName": t.DisplayName, "createdDateTime": t.Created,
		"verifiedDomains": []object{{"name": t.Domain, "isDefault": true, "isInitial": true, "type": "Managed"}}}}, err
}

func convert[T any](found []T, form func(T) object) []object {
	objects := make([]object, len(found))
	for i, v := range found {
		objects[i] = form(v)
	}
	return objects
}

// list answers a collection through $filter, $select and $top.
func (s *Service) list(read func(context.Context) ([]object, error), name string) answerer {
	return func(r *request) (any, error) {
		found, err := read(r.Context())
		if err != nil {
			return nil, err
		}
		found, err = query(r.URL.Query(), found)
		return object{"@odata.context": s.context(name), "value": found}, err
	}
}

func (s *Service) context(of string) string {
	return s.directory.Endpoints().Graph + "/v1.0/$metadata#" + of
}

// one answers a single object through $select.
func (s *Service) one(r *request, o object, of string) (any, error) {
	values := r.URL.Query()
	if values.Has("$filter") || values.Has("$top") {
		return nil, badQuery("A single object takes neither $filter nor $top.")
	}
	found, err := query(values, []object{o})
	if err != nil {
		return nil, err
	}
	found[0]["@odata.context"] = s.context(of + "/$entity")
	return found[0], nil
}

func (s *Service) me(r *request) (any, error) {
	if r.who.Kind != identity.UserKind {
		return nil, fault.New(fault.Invalid, "BadRequest", "/me request is only valid with delegated authentication flow.")
	}
	u, err := s.directory.User(r.Context(), r.who.ID)
	if err != nil {
		return nil, err
	}
	return s.one(r, userObject(u), "users")
}

func (s *Service) user(r *request) (any, error) {
	u, err := s.directory.User(r.Context(), r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	return s.one(r, userObject(u), "users")
}

func (s *Service) principal(r *request) (any, error) {
	p, err := s.directory.ServicePrincipal(r.Context(), r.PathValue("id"))
	if err != nil || !strings.EqualFold(p.ID, r.PathValue("id")) { // by its object id only
		return nil, missing(r.PathValue("id"), err)
	}
	return s.one(r, principalObject(p, r.who.TenantID), "servicePrincipals")
}

func (s *Service) application(r *request) (any, error) {
	found, err := s.directory.Applications(r.Context())
	if err != nil {
		return nil, err
	}
	for _, a := range found {
		if strings.EqualFold(a.ID, r.PathValue("id")) {
			return s.one(r, applicationObject(a), "applications")
		}
	}
	return nil, missing(r.PathValue("id"), nil)
}

func (s *Service) group(r *request) (any, error) {
	g, err := s.directory.Group(r.Context(), r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	return s.one(r, groupObject(g), "groups")
}

func (s *Service) members(r *request) (any, error) {
	g, err := s.directory.Group(r.Context(), r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	found, err := s.find(r, g.Members)
	if err != nil {
		return nil, err
	}
	found, err = query(r.URL.Query(), found)
	return object{"@odata.context": s.context("directoryObjects"), "value": found}, err
}

// find turns ids into objects; an id of nothing is left out.
func (s *Service) find(r *request, ids []string) ([]object, error) {
	found := []object{}
	for _, read := range []func(context.Context) ([]object, error){s.users, s.principals, s.groups, s.applications} {
		objects, err := read(r.Context())
		if err != nil {
			return nil, err
		}
		for _, o := range objects {
			if slices.ContainsFunc(ids, func(id string) bool { return strings.EqualFold(id, o["id"].(string)) }) {
				found = append(found, o)
			}
		}
	}
	return found, nil
}

func (s *Service) byIDs(r *request) (any, error) {
	var body struct {
		IDs   []string `json:"ids"`
		Types []string `json:"types"`
	}
	if err := readBody(r, &body); err != nil {
		return nil, err
	}
	if len(body.IDs) > 1000 {
		return nil, badQuery("At most 1000 ids are looked up at once.")
	}
	found, err := s.find(r, body.IDs)
	if len(body.Types) > 0 {
		found = slices.DeleteFunc(found, func(o object) bool {
			kind := strings.TrimPrefix(o["@odata.type"].(string), "#microsoft.graph.")
			return !slices.ContainsFunc(body.Types, func(t string) bool { return strings.EqualFold(t, kind) || strings.EqualFold(t, "directoryObject") })
		})
	}
	return object{"@odata.context": s.context("directoryObjects"), "value": found}, err
}

func (s *Service) memberGroups(r *request) (any, error) {
	var body struct {
		SecurityEnabledOnly bool `json:"securityEnabledOnly"`
	}
	if err := readBody(r, &body); err != nil {
		return nil, err
	}
	id := r.PathValue("id")
	if id == "" {
		id = r.who.ID
	}
	if strings.Contains(id, "@") {
		u, err := s.directory.User(r.Context(), id)
		if err != nil {
			return nil, err
		}
		id = u.ID
	}
	return object{"@odata.context": s.context("Collection(Edm.String)"), "value": s.directory.GroupsOf(strings.ToLower(id))}, nil
}

func readBody(r *request, into any) error {
	if err := json.NewDecoder(r.Body).Decode(into); err != nil {
		return badQuery("The body is not valid JSON.").Because(err)
	}
	return nil
}

func missing(id string, err error) error {
	if err != nil {
		return err
	}
	return fault.New(fault.NotFound, "Request_ResourceNotFound", "Resource '%s' does not exist or one of its queried reference-property objects are not present.", id)
}
