// SPDX-License-Identifier: Apache-2.0

package login

import (
	"net/http"
	"net/url"

	"bastide.dev/identity"
)

// discovery is the OpenID configuration. MSAL wants endpoints under the path it
// asked for, and an issuer whose first segment is the tenant's id, also in /adfs.
func (s *Service) discovery(w http.ResponseWriter, c *call) {
	segment := c.tenant.ID
	if c.segment == "adfs" {
		segment = "adfs"
	}
	authority := s.directory.Endpoints().Authority
	base, v2 := authority+"/"+segment, ""
	if c.version == 2 {
		v2 = "/v2.0"
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"issuer":                                           s.directory.Issuer(c.tenant.ID, c.version),
		"authorization_endpoint":                           base + "/oauth2" + v2 + "/authorize",
		"token_endpoint":                                   base + "/oauth2" + v2 + "/token",
		"device_authorization_endpoint":                    base + "/oauth2" + v2 + "/devicecode",
		"jwks_uri":                                         base + "/discovery" + v2 + "/keys",
		"response_modes_supported":                         []string{"query", "fragment", "form_post"},
		"response_types_supported":                         []string{"code"},
		"grant_types_supported":                            []string{"authorization_code", "client_credentials", "password", "refresh_token", deviceGrant, onBehalfGrant},
		"code_challenge_methods_supported":                 []string{"S256"},
		"subject_types_supported":                          []string{"pairwise"},
		"id_token_signing_alg_values_supported":            []string{string(identity.Algorithm)},
		"token_endpoint_auth_methods_supported":            []string{"client_secret_post", "client_secret_basic", "private_key_jwt"},
		"token_endpoint_auth_signing_alg_values_supported": []string{"PS256", "RS256"},
		"end_session_endpoint":                             base + "/oauth2" + v2 + "/logout",
		"claims_parameter_supported":                       true,
		"prompt_values_supported":                          []string{"none", "login", "consent", "select_account"},
		"scopes_supported":                                 []string{"openid", "profile", "email", "offline_access"},
		"claims_supported": []string{"sub", "iss", "aud", "exp", "iat", "nonce", "preferred_username", "name", "tid", "oid",
			"upn", "unique_name", "groups", "roles", "amr", "auth_time", "sid"},
		"tenant_region_scope": nil, "cloud_instance_name": hostOf(authority),
		"msgraph_host": hostOf(s.directory.Endpoints().Graph),
	})
}

func (s *Service) keys(w http.ResponseWriter, c *call) {
	set, err := s.directory.KeySet(c.Context())
	if err != nil {
		s.fail(w, c.Request, err)
		return
	}
	w.Header().Set("Cache-Control", "max-age=3600")
	writeJSON(w, http.StatusOK, set)
}

// userRealm tells a client that passwords are checked here, for any name, so
// that it doesn't tell which names exist.
func (s *Service) userRealm(w http.ResponseWriter, r *http.Request) {
	tenant, err := s.directory.Tenant(r.Context())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"ver": "1.0", "account_type": "Managed", "domain_name": tenant.Domain,
		"cloud_instance_name": hostOf(s.directory.Endpoints().Authority), "cloud_audience_urn": "urn:federation:MicrosoftOnline",
	})
}

// instance answers MSAL's question whether this host is an authority.
func (s *Service) instance(w http.ResponseWriter, r *http.Request) {
	authority := s.directory.Endpoints().Authority
	host := hostOf(authority)
	asked, err := url.Parse(r.URL.Query().Get("authorization_endpoint"))
	if err != nil || asked.Scheme != "https" || asked.Host != host {
		s.fail(w, r, refuse("invalid_instance", 50049, "Unknown or invalid instance."))
		return
	}
	tenant, err := s.directory.Tenant(r.Context())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"tenant_discovery_endpoint": authority + "/" + tenant.ID + "/v2.0/.well-known/openid-configuration", "api-version": "1.1",
		"metadata": []map[string]any{{"preferred_network": host, "preferred_cache": host, "aliases": []string{host}}},
	})
}

func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Host
}
