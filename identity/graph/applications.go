// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"bastide.dev/fault"
	"bastide.dev/identity"
)

func applicationKind() *kind[identity.Application] {
	type a = identity.Application
	list := []property[a]{
		shown("id", func(v *a) any { return v.ID }),
		shown("appId", func(v *a) any { return v.AppID }),
		text("displayName", func(v *a) *string { return &v.DisplayName }),
		text("description", func(v *a) *string { return &v.Description }),
		text("notes", func(v *a) *string { return &v.Notes }),
		texts("identifierUris", func(v *a) *[]string { return &v.IdentifierURIs }),
		flag("isFallbackPublicClient", func(v *a) *bool { return &v.Public }, false),
		only[a]("signInAudience", "AzureADMyOrg", "an instance is one tenant: AzureADMyOrg is the only audience."),
		text("groupMembershipClaims", func(v *a) *string { return &v.GroupClaims }),
		texts("tags", func(v *a) *[]string { return &v.Tags }),
		apiProperty(), webProperty(),
		redirects("spa", func(v *a) *[]string { return &v.SPARedirectURIs }),
		redirects("publicClient", func(v *a) *[]string { return &v.RedirectURIs }),
		listed("appRoles", func(v *a) *[]identity.AppRole { return &v.AppRoles }, appRoleObject, "id", "value", "displayName", "description", "isEnabled", "allowedMemberTypes", "origin"),
		listed("requiredResourceAccess", func(v *a) *[]identity.RequiredAccess { return &v.Required }, requiredObject, "resourceAppId", "resourceAccess"),
		shown("passwordCredentials", func(v *a) any { return secrets(v.Secrets) }),
		keyProperty(func(v *a) *[]identity.Certificate { return &v.Certificates }),
		shown("createdDateTime", func(v *a) any { return moment(v.Created) }),
		only[a]("parentalControlSettings", object{"countriesBlockedForMinors": []string{}, "legalAgeGroupRule": "Allow"}, "the directory knows no ages."),
		fixed[a]("info", object{"logoUrl": nil, "marketingUrl": nil, "privacyStatementUrl": nil, "supportUrl": nil, "termsOfServiceUrl": nil}),
		fixed[a]("optionalClaims", nil), fixed[a]("addIns", []object{}), fixed[a]("applicationTemplateId", nil), fixed[a]("defaultRedirectUri", nil),
		fixed[a]("disabledByMicrosoftStatus", nil), fixed[a]("isDeviceOnlyAuthSupported", nil), fixed[a]("publisherDomain", nil),
		fixed[a]("samlMetadataUrl", nil), fixed[a]("serviceManagementReference", nil), fixed[a]("tokenEncryptionKeyId", nil),
		fixed[a]("oauth2RequirePostResponse", false), fixed[a]("certification", nil), fixed[a]("uniqueName", nil), fixed[a]("deletedDateTime", nil),
		fixed[a]("verifiedPublisher", object{"displayName": nil, "verifiedPublisherId": nil, "addedDateTime": nil}),
	}
	return newKind("application", "Application", "applications", list)
}

// member reads one member of an object in a body, if it is there.
func member(inner map[string]json.RawMessage, name string, into any) error {
	if raw, named := inner[name]; named && string(raw) != "null" {
		return json.Unmarshal(raw, into)
	}
	return nil
}

func inner(raw json.RawMessage, under string, known ...string) (map[string]json.RawMessage, error) {
	members := map[string]json.RawMessage{}
	if string(raw) == "null" {
		return members, nil
	}
	if err := json.Unmarshal(raw, &members); err != nil {
		return nil, err
	}
	for name, value := range members {
		if !slices.Contains(known, name) && !empty(value) {
			return nil, badProperty(under+"."+name, "Property '%s.%s' of resource 'Application' is not implemented by Bastide's directory.", under, clip(name))
		}
	}
	return members, nil
}

func apiProperty() property[identity.Application] {
	return property[identity.Application]{name: "api",
		read: func(v *identity.Application) any {
			allowed := []object{}
			for _, p := range v.PreAuthorized {
				allowed = append(allowed, object{"appId": p.AppID, "delegatedPermissionIds": nonNil(p.ScopeIDs)})
			}
			var version any
			if v.TokenVersion != 0 {
				version = v.TokenVersion
			}
			return object{"acceptMappedClaims": nil, "knownClientApplications": []string{}, "requestedAccessTokenVersion": version,
				"oauth2PermissionScopes": convert(v.Scopes, scopeObject), "preAuthorizedApplications": allowed}
		},
		write: func(v *identity.Application, raw json.RawMessage) error {
			api, err := inner(raw, "api", "oauth2PermissionScopes", "preAuthorizedApplications", "requestedAccessTokenVersion")
			if err != nil {
				return err
			}
			if scopes, named := api["oauth2PermissionScopes"]; named {
				if v.Scopes, err = list[identity.Scope](scopes, "api.oauth2PermissionScopes", "id", "value", "type", "isEnabled", "adminConsentDescription",
					"adminConsentDisplayName", "userConsentDescription", "userConsentDisplayName", "origin"); err != nil {
					return err
				}
			}
			if allowed, named := api["preAuthorizedApplications"]; named {
				if v.PreAuthorized, err = list[identity.PreAuthorized](allowed, "api.preAuthorizedApplications", "appId", "delegatedPermissionIds", "permissionIds"); err != nil {
					return err
				}
			}
			if raw, named := api["requestedAccessTokenVersion"]; named {
				v.TokenVersion = 0
				if err := json.Unmarshal(raw, &v.TokenVersion); err != nil {
					return err
				}
				if v.TokenVersion < 0 || v.TokenVersion > 2 {
					return badProperty("api.requestedAccessTokenVersion", "The requestedAccessTokenVersion is 1, 2 or null.")
				}
			}
			return nil
		}}
}

func webProperty() property[identity.Application] {
	return property[identity.Application]{name: "web",
		read: func(v *identity.Application) any {
			return object{"homePageUrl": orNull(v.HomePage), "logoutUrl": orNull(v.LogoutURL), "redirectUris": nonNil(v.WebRedirectURIs),
				"redirectUriSettings":   redirectSettings(v.WebRedirectURIs),
				"implicitGrantSettings": object{"enableAccessTokenIssuance": false, "enableIdTokenIssuance": false}}
		},
		write: func(v *identity.Application, raw json.RawMessage) error {
			web, err := inner(raw, "web", "homePageUrl", "logoutUrl", "redirectUris", "redirectUriSettings")
			if err != nil {
				return err
			}
			if string(web["homePageUrl"]) == "null" {
				v.HomePage = ""
			}
			if string(web["logoutUrl"]) == "null" {
				v.LogoutURL = ""
			}
			if err := joined(member(web, "homePageUrl", &v.HomePage), member(web, "logoutUrl", &v.LogoutURL), member(web, "redirectUris", &v.WebRedirectURIs)); err != nil {
				return err
			}
			return checkLogout(v.LogoutURL)
		}}
}

func checkLogout(address string) error {
	if address != "" && !strings.HasPrefix(address, "https://") {
		return badProperty("web.logoutUrl", "The logoutUrl is an https URL.")
	}
	return nil
}

func redirectSettings(uris []string) []object {
	found := []object{}
	for _, uri := range uris {
		found = append(found, object{"uri": uri, "index": nil})
	}
	return found
}

func redirects(name string, at func(*identity.Application) *[]string) property[identity.Application] {
	return property[identity.Application]{name: name,
		read: func(v *identity.Application) any { return object{"redirectUris": nonNil(*at(v))} },
		write: func(v *identity.Application, raw json.RawMessage) error {
			members, err := inner(raw, name, "redirectUris")
			if err != nil {
				return err
			}
			return member(members, "redirectUris", at(v))
		}}
}

// list reads a list of objects, each with known properties only.
func list[E any](raw json.RawMessage, under string, known ...string) ([]E, error) {
	var elements []map[string]json.RawMessage
	if err := json.Unmarshal(raw, &elements); err != nil {
		return nil, err
	}
	var found []E
	for _, element := range elements {
		var e E
		if err := decode(element, &e, known...); err != nil {
			return nil, located(err, under)
		}
		found = append(found, e)
	}
	return found, nil
}

func listed[T, E any](name string, at func(*T) *[]E, form func(E) object, known ...string) property[T] {
	return property[T]{name: name,
		read: func(v *T) any { return convert(*at(v), form) },
		write: func(v *T, raw json.RawMessage) error {
			found, err := list[E](raw, name, known...)
			*at(v) = found
			return err
		}}
}

func scopeObject(s identity.Scope) object {
	return object{"id": s.ID, "value": s.Value, "type": s.Type, "isEnabled": s.Enabled, "adminConsentDescription": orNull(s.AdminConsentDescription),
		"adminConsentDisplayName": orNull(s.AdminConsentDisplayName), "userConsentDescription": orNull(s.UserConsentDescription),
		"userConsentDisplayName": orNull(s.UserConsentDisplayName)}
}

func appRoleObject(r identity.AppRole) object {
	return object{"id": r.ID, "value": orNull(r.Value), "displayName": r.DisplayName, "description": orNull(r.Description), "isEnabled": r.Enabled,
		"allowedMemberTypes": nonNil(r.Members), "origin": "Application"}
}

func requiredObject(r identity.RequiredAccess) object {
	access := []object{}
	for _, p := range r.Access {
		access = append(access, object{"id": p.ID, "type": p.Type})
	}
	return object{"resourceAppId": r.ResourceAppID, "resourceAccess": access}
}

func secrets(all []identity.Secret) []object {
	found := []object{}
	for _, s := range all {
		found = append(found, secretObject(s, nil))
	}
	return found
}

func secretObject(s identity.Secret, text any) object {
	return object{"keyId": s.ID, "hint": s.Hint, "startDateTime": moment(s.Starts), "endDateTime": moment(s.Expires), "secretText": text,
		"displayName": orNull(s.Name), "customKeyIdentifier": nil}
}

// keyProperty are certificates. What is listed with its key is added, what is
// listed by its keyId alone stays, what isn't listed goes.
func keyProperty[T any](at func(*T) *[]identity.Certificate) property[T] {
	return property[T]{name: "keyCredentials",
		read: func(v *T) any { return convert(*at(v), keyObject) },
		write: func(v *T, raw json.RawMessage) error {
			wanted, err := list[keyCredential](raw, "keyCredentials", "keyId", "key", "displayName", "type", "usage", "startDateTime", "endDateTime", "customKeyIdentifier")
			if err != nil {
				return err
			}
			var next []identity.Certificate
			for _, k := range wanted {
				c, err := k.certificate(*at(v))
				if err != nil {
					return err
				}
				next = append(next, c)
			}
			*at(v) = next
			return nil
		}}
}

type keyCredential struct {
	ID      string     `json:"keyId"`
	Key     string     `json:"key"`
	Name    string     `json:"displayName"`
	Type    string     `json:"type"`
	Usage   string     `json:"usage"`
	Starts  *time.Time `json:"startDateTime"`
	Expires *time.Time `json:"endDateTime"`
}

func (k keyCredential) certificate(have []identity.Certificate) (identity.Certificate, error) {
	if k.Key == "" {
		i := slices.IndexFunc(have, func(c identity.Certificate) bool { return strings.EqualFold(c.ID, k.ID) })
		if i < 0 {
			return identity.Certificate{}, badProperty("keyCredentials.key", "New credential must have a key: there is none with keyId '%s' yet.", clip(k.ID))
		}
		return have[i], nil
	}
	if k.Type != "" && k.Type != "AsymmetricX509Cert" || k.Usage != "" && k.Usage != "Verify" {
		return identity.Certificate{}, badProperty("keyCredentials", "A keyCredential is an AsymmetricX509Cert for Verify.")
	}
	der, err := base64.StdEncoding.DecodeString(k.Key)
	if err != nil {
		return identity.Certificate{}, badProperty("keyCredentials.key", "The key is not base64.").Because(err)
	}
	c, err := identity.NewCertificate(der, k.ID, k.Name)
	if err != nil {
		return c, err
	}
	if k.Expires != nil && !k.Expires.IsZero() && k.Expires.Before(c.Expires) {
		c.Expires = k.Expires.UTC()
	}
	if k.Starts != nil && k.Starts.After(c.Starts) {
		c.Starts = k.Starts.UTC()
	}
	return c, nil
}

func keyObject(c identity.Certificate) object {
	return object{"keyId": c.ID, "displayName": orNull(c.Name), "type": "AsymmetricX509Cert", "usage": "Verify", "key": nil,
		"customKeyIdentifier": strings.ToUpper(hexOf(c.SHA1)), "startDateTime": moment(c.Starts), "endDateTime": moment(c.Expires)}
}

func (s *Service) applicationItems(r *request) ([]item, error) {
	found, err := s.directory.Applications(r.Context())
	if err != nil {
		return nil, err
	}
	return items(s.kinds.application, slices.DeleteFunc(found, func(a identity.Application) bool { return !r.seesApplication(a.AppID, a.Owners) })), nil
}

// seesApplication lets an application without permissions see itself, and one
// that manages its own see those.
func (r *request) seesApplication(appID string, owners []string) bool {
	return r.may.reads(applicationArea) || !r.may.user && appID == r.who.AppID ||
		r.may.has(identity.ApplicationReadWriteOwned) && slices.Contains(owners, r.who.ID)
}

// keyed is the value of a path's key such as appId='ID'; "" when it isn't one.
func keyed(segment, name string) string {
	key, value, found := strings.Cut(segment, "=")
	if !found || !strings.EqualFold(key, name) {
		return ""
	}
	return strings.Trim(value, "'") // some clients leave the quotes out
}

// applicationOf finds the application of a path, by object id or (appId='ID').
func (s *Service) applicationOf(r *request) (identity.Application, error) {
	segment := r.PathValue("id")
	var a identity.Application
	var err error
	if appID := keyed(segment, "appId"); appID != "" {
		a, err = s.directory.Application(r.Context(), appID)
		if err == nil && s.directory.KnownApplication(a.AppID) {
			err = missing(segment)
		}
	} else {
		a, err = s.directory.ApplicationObject(r.Context(), segment)
	}
	if fault.Is(err, fault.NotFound) {
		err = missing(segment)
	}
	if err != nil {
		return a, s.hidden(r, applicationArea, err)
	}
	return a, allow(r.seesApplication(a.AppID, a.Owners))
}

func (s *Service) getApplication(r *request) (any, error) {
	a, err := s.applicationOf(r)
	if err != nil {
		return nil, err
	}
	return s.one(r, entity[identity.Application]{s.kinds.application, &a}, "applications")
}

func (s *Service) createApplication(r *request) (any, error) {
	if err := s.mayWriteApplication(r, "", nil); err != nil {
		return nil, err
	}
	body, err := readBody(r)
	if err != nil {
		return nil, err
	}
	var a identity.Application
	owners, errO := s.bound(body, "owners")
	problems := []error{errO, s.kinds.application.apply(&a, body, "owners@odata.bind", "passwordCredentials"), noSecrets(body)}
	if err := joined(problems...); err != nil {
		return nil, err
	}
	a.Owners = append(owners, r.who.ID)
	if !r.may.user && !r.may.has(identity.ApplicationReadWriteOwned) {
		a.Owners = owners
	}
	a, err = s.directory.AddApplication(r.Context(), a)
	return s.made(entity[identity.Application]{s.kinds.application, &a}, "applications"), err
}

// noSecrets refuses secrets in a body: they are made here, by addPassword, and
// shown once. Those that are there may be left out in an update, which ends them.
func noSecrets(body map[string]json.RawMessage) error {
	if raw, named := body["passwordCredentials"]; named && !empty(raw) {
		return badProperty("passwordCredentials", "Secrets are added by addPassword and removed by removePassword.")
	}
	return nil
}

func (s *Service) updateApplication(r *request) (any, error) {
	a, err := s.applicationOf(r)
	if err != nil {
		return nil, err
	}
	if err := s.mayWriteApplication(r, a.AppID, a.Owners); err != nil {
		return nil, err
	}
	body, err := readBody(r)
	if err != nil {
		return nil, err
	}
	if err := noSecrets(body); err != nil {
		return nil, err
	}
	return nil, s.directory.EditApplication(r.Context(), a.ID, func(a *identity.Application) error {
		if _, named := body["passwordCredentials"]; named {
			a.Secrets = nil
		}
		return s.kinds.application.apply(a, body, "passwordCredentials")
	})
}

func (s *Service) deleteApplication(r *request) (any, error) {
	a, err := s.applicationOf(r)
	if err != nil {
		return nil, err
	}
	if err := s.mayWriteApplication(r, a.AppID, a.Owners); err != nil {
		return nil, err
	}
	return nil, s.directory.DeleteApplication(r.Context(), a.ID)
}
