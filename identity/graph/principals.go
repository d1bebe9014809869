// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"bastide.dev/fault"
	"bastide.dev/identity"
)

func hexOf(b []byte) string { return hex.EncodeToString(b) }

// actor is a service principal with what its application says of it.
type actor struct {
	identity.ServicePrincipal
	app    identity.Application
	tenant string
}

// microsoft is the tenant that owns the applications which every tenant has.
const microsoft = "f8cdef31-a31e-4b4a-93e4-5f571e91255a"

func principalKind() *kind[actor] {
	type p = actor
	list := []property[p]{
		shown("id", func(v *p) any { return v.ID }),
		shown("appId", func(v *p) any { return v.AppID }),
		shown("displayName", func(v *p) any { return v.DisplayName }),
		shown("appDisplayName", func(v *p) any { return v.DisplayName }),
		flag("accountEnabled", func(v *p) *bool { return &v.Disabled }, true),
		flag("appRoleAssignmentRequired", func(v *p) *bool { return &v.AssignmentRequired }, false),
		text("description", func(v *p) *string { return &v.Description }),
		text("notes", func(v *p) *string { return &v.Notes }),
		texts("tags", func(v *p) *[]string { return &v.Tags }),
		shown("servicePrincipalType", func(v *p) any { return string(v.Type) }),
		shown("servicePrincipalNames", func(v *p) any { return principalNames(v) }),
		shown("alternativeNames", func(v *p) any {
			if v.ResourceID == "" {
				return []string{}
			}
			explicit := "False"
			if strings.Contains(strings.ToLower(v.ResourceID), "/microsoft.managedidentity/") {
				explicit = "True"
			}
			return []string{"isExplicit=" + explicit, v.ResourceID}
		}),
		shown("appOwnerOrganizationId", func(v *p) any {
			if v.FirstParty {
				return microsoft
			}
			return v.tenant
		}),
		shown("appRoles", func(v *p) any { return convert(v.app.AppRoles, appRoleObject) }),
		shown("oauth2PermissionScopes", func(v *p) any { return convert(v.app.Scopes, scopeObject) }),
		shown("replyUrls", func(v *p) any {
			return append(append(append([]string{}, v.app.WebRedirectURIs...), v.app.SPARedirectURIs...), v.app.RedirectURIs...)
		}),
		shown("homepage", func(v *p) any { return orNull(v.app.HomePage) }),
		shown("logoutUrl", func(v *p) any { return orNull(v.app.LogoutURL) }),
		shown("passwordCredentials", func(v *p) any { return secrets(v.Secrets) }),
		keyProperty(func(v *p) *[]identity.Certificate { return &v.Certificates }),
		shown("createdDateTime", func(v *p) any { return moment(v.Created) }),
		fixed[p]("signInAudience", "AzureADMyOrg"), fixed[p]("appDescription", nil), fixed[p]("applicationTemplateId", nil), fixed[p]("loginUrl", nil),
		fixed[p]("preferredSingleSignOnMode", nil), fixed[p]("preferredTokenSigningKeyThumbprint", nil), fixed[p]("samlSingleSignOnSettings", nil),
		fixed[p]("notificationEmailAddresses", []string{}), fixed[p]("resourceSpecificApplicationPermissions", []object{}), fixed[p]("addIns", []object{}),
		fixed[p]("disabledByMicrosoftStatus", nil), fixed[p]("tokenEncryptionKeyId", nil), fixed[p]("deletedDateTime", nil),
		fixed[p]("info", object{"logoUrl": nil, "marketingUrl": nil, "privacyStatementUrl": nil, "supportUrl": nil, "termsOfServiceUrl": nil}),
		fixed[p]("verifiedPublisher", object{"displayName": nil, "verifiedPublisherId": nil, "addedDateTime": nil}),
	}
	return newKind("servicePrincipal", "ServicePrincipal", "servicePrincipals", list)
}

func principalNames(v *actor) []string {
	names := slices.Clone(v.Names)
	for _, uri := range v.app.IdentifierURIs {
		if !slices.Contains(names, uri) {
			names = append(names, uri)
		}
	}
	return nonNil(names)
}

func (s *Service) actor(r *request, sp identity.ServicePrincipal) actor {
	a := actor{ServicePrincipal: sp, tenant: r.who.TenantID}
	if app, err := s.directory.Application(r.Context(), sp.AppID); err == nil { // a managed identity has none
		a.app = app
	}
	return a
}

func (s *Service) principalItems(r *request) ([]item, error) {
	found, err := s.directory.ServicePrincipals(r.Context())
	if err != nil {
		return nil, err
	}
	var actors []actor
	for _, sp := range found {
		if r.seesApplication(sp.AppID, sp.Owners) {
			actors = append(actors, s.actor(r, sp))
		}
	}
	return items(s.kinds.principal, actors), nil
}

// principalOf finds the service principal of a path, by object id or (appId='ID').
func (s *Service) principalOf(r *request) (identity.ServicePrincipal, error) {
	id := r.PathValue("id")
	appID := keyed(id, "appId")
	if appID != "" {
		id = appID
	}
	sp, err := s.directory.ServicePrincipal(r.Context(), id)
	if fault.Is(err, fault.NotFound) || err == nil && appID == "" && !strings.EqualFold(sp.ID, id) {
		err = missing(r.PathValue("id"))
	}
	if err != nil {
		return sp, s.hidden(r, applicationArea, err)
	}
	return sp, allow(r.seesApplication(sp.AppID, sp.Owners))
}

func (s *Service) getPrincipal(r *request) (any, error) {
	sp, err := s.principalOf(r)
	if err != nil {
		return nil, err
	}
	a := s.actor(r, sp)
	return s.one(r, entity[actor]{s.kinds.principal, &a}, "servicePrincipals")
}

func (s *Service) createPrincipal(r *request) (any, error) {
	body, err := readBody(r)
	if err != nil {
		return nil, err
	}
	var appID string
	if err := json.Unmarshal(body["appId"], &appID); err != nil || appID == "" {
		return nil, badProperty("appId", "A value is required for property 'appId' of resource 'ServicePrincipal'.")
	}
	app, err := s.directory.Application(r.Context(), appID)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return nil, err
	}
	if err := s.mayWriteApplication(r, app.AppID, app.Owners); err != nil {
		return nil, err
	}
	var a actor
	owners, errO := s.bound(body, "owners")
	kind := s.kinds.principal
	if err := joined(errO, noSecrets(body), kind.apply(&a, body, "appId", "owners@odata.bind", "displayName", "servicePrincipalType", "passwordCredentials")); err != nil {
		return nil, err
	}
	sp := a.ServicePrincipal
	sp.AppID, sp.Owners = appID, owners
	if !r.may.user && r.may.has(identity.ApplicationReadWriteOwned) {
		sp.Owners = append(sp.Owners, r.who.ID)
	}
	if sp, err = s.directory.AddServicePrincipal(r.Context(), sp); err != nil {
		return nil, err
	}
	a = s.actor(r, sp)
	return s.made(entity[actor]{kind, &a}, "servicePrincipals"), nil
}

// managed refuses writes of what isn't the directory's to change.
func managed(sp identity.ServicePrincipal, deleting bool) error {
	switch {
	case sp.FirstParty:
		return fault.New(fault.Forbidden, "Authorization_RequestDenied", "The service principal of an application that every tenant has can't be changed.")
	case sp.Type == identity.ManagedIdentity && deleting:
		return fault.New(fault.Forbidden, "Authorization_RequestDenied", "A managed identity is deleted with its resource: %s.", sp.ResourceID)
	}
	return nil
}

func (s *Service) updatePrincipal(r *request) (any, error) {
	sp, err := s.principalOf(r)
	if err != nil {
		return nil, err
	}
	body, err := readBody(r)
	if err != nil {
		return nil, err
	}
	_, keys := body["keyCredentials"]
	if err := joined(s.mayWriteApplication(r, sp.AppID, sp.Owners), managed(sp, keys), noSecrets(body)); err != nil {
		return nil, err
	}
	return nil, s.directory.EditServicePrincipal(r.Context(), sp.ID, func(next *identity.ServicePrincipal) error {
		a := s.actor(r, *next)
		err := s.kinds.principal.apply(&a, body, "passwordCredentials")
		*next = a.ServicePrincipal
		return err
	})
}

func (s *Service) deletePrincipal(r *request) (any, error) {
	sp, err := s.principalOf(r)
	if err != nil {
		return nil, err
	}
	kept := true
	if sp.Type == identity.ManagedIdentity && s.gone != nil {
		gone, err := s.gone(r.Context(), sp.ResourceID)
		if err != nil {
			return nil, err
		}
		kept = !gone
	}
	if err := joined(s.mayWriteApplication(r, sp.AppID, sp.Owners), managed(sp, kept)); err != nil {
		return nil, err
	}
	return nil, s.directory.DeletePrincipal(r.Context(), sp.ID)
}

// credentialTarget is the object whose secrets a path is about, which the caller may manage.
func (s *Service) credentialTarget(r *request, principal bool) (string, error) {
	if principal {
		sp, err := s.principalOf(r)
		if err != nil {
			return "", err
		}
		return sp.ID, joined(s.mayWriteApplication(r, sp.AppID, sp.Owners), managed(sp, sp.Type == identity.ManagedIdentity))
	}
	a, err := s.applicationOf(r)
	if err != nil {
		return "", err
	}
	return a.ID, s.mayWriteApplication(r, a.AppID, a.Owners)
}

func (s *Service) addPassword(principal bool) answerer {
	return func(r *request) (any, error) {
		id, err := s.credentialTarget(r, principal)
		if err != nil {
			return nil, err
		}
		body, err := readBody(r)
		if err != nil {
			return nil, err
		}
		var wanted struct {
			Name    string     `json:"displayName"`
			Starts  *time.Time `json:"startDateTime"`
			Expires *time.Time `json:"endDateTime"`
		}
		fields := map[string]json.RawMessage{}
		if raw, named := body["passwordCredential"]; named && string(raw) != "null" {
			if err := json.Unmarshal(raw, &fields); err != nil {
				return nil, badProperty("passwordCredential", "The passwordCredential is not an object.").Because(err)
			}
		}
		if err := decode(fields, &wanted, "displayName", "startDateTime", "endDateTime"); err != nil {
			return nil, err
		}
		now := time.Now()
		if wanted.Starts != nil && wanted.Starts.After(now.Add(5*time.Minute)) {
			return nil, badProperty("startDateTime", "A secret that starts later is not implemented: add it then.")
		}
		if wanted.Expires == nil {
			end := now.AddDate(2, 0, 0)
			wanted.Expires = &end
		}
		secret, plain, err := s.directory.NewSecret(r.Context(), id, wanted.Name, *wanted.Expires)
		if err != nil {
			return nil, err
		}
		answer := secretObject(secret, plain)
		answer["@odata.context"] = s.context("microsoft.graph.passwordCredential")
		return answer, nil
	}
}

func (s *Service) removePassword(principal bool) answerer {
	return func(r *request) (any, error) {
		id, err := s.credentialTarget(r, principal)
		if err != nil {
			return nil, err
		}
		var body struct {
			KeyID string `json:"keyId"`
		}
		if err := readInto(r, &body, "keyId"); err != nil {
			return nil, err
		}
		return nil, s.directory.RemoveSecret(r.Context(), id, body.KeyID)
	}
}
