// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// Endpoints are the instance's addresses, as /metadata/endpoints tells them.
// URLs are absolute https; suffixes have no leading dot.
type Endpoints struct {
	CloudName       string // "AzureCloud" when clients are told nothing else
	ResourceManager string // "https://management.<domain>"
	Login           string // "https://login.<domain>"
	LoginADFS       bool   // clients of 2015-01-01 are sent to /adfs, where MSAL looks up no authority
	Graph           string
	Portal          string   // "" when there is none
	Audiences       []string // of tokens for the resource manager; the first is the preferred one
	RegistrySuffix  string
	VaultSuffix     string
	StorageSuffix   string
}

func (e *Endpoints) check() error {
	for _, address := range []string{e.ResourceManager, e.Login} {
		u, err := url.Parse(address)
		if err != nil || u.Scheme != "https" || u.Host == "" {
			return fmt.Errorf("arm: endpoint %q isn't an absolute https URL", address)
		}
	}
	if len(e.Audiences) == 0 {
		e.Audiences = []string{e.base()}
	}
	if e.CloudName == "" {
		e.CloudName = "AzureCloud"
	}
	return nil
}

func (e *Endpoints) base() string { return strings.TrimSuffix(e.ResourceManager, "/") }

func (e *Endpoints) login() string {
	login := strings.TrimSuffix(e.Login, "/")
	if e.LoginADFS {
		return login + "/adfs"
	}
	return login
}

// serveEndpoints answers without asking who asks: clients come here before they can log in.
func (h *Handler) serveEndpoints(w http.ResponseWriter, c *call) error {
	if c.request.Method != http.MethodGet {
		return notAllowed(c)
	}
	switch version := c.param("api-version"); {
	case version < "2018-05-01": // Azure Stack's form
		return respond(w, http.StatusOK, h.oldEndpoints())
	case version < "2022-09-01":
		return respond(w, http.StatusOK, []any{h.endpoints()})
	}
	return respond(w, http.StatusOK, h.endpoints())
}

func (h *Handler) oldEndpoints() map[string]any {
	e := &h.config.Endpoints
	return map[string]any{
		"galleryEndpoint": e.base() + "/",
		"graphEndpoint":   e.Graph,
		"portalEndpoint":  e.Portal,
		"authentication":  map[string]any{"loginEndpoint": e.login(), "audiences": e.Audiences},
	}
}

func (h *Handler) endpoints() map[string]any {
	e := &h.config.Endpoints
	identityProvider, tenant := "AAD", "common"
	if e.LoginADFS {
		identityProvider, tenant = "ADFS", "adfs"
	}
	all := map[string]any{
		"name":                     e.CloudName,
		"resourceManager":          e.base() + "/",
		"portal":                   e.Portal,
		"graph":                    e.Graph,
		"graphAudience":            e.Graph,
		"microsoftGraphResourceId": e.Graph,
		"gallery":                  e.base() + "/",
		"authentication": map[string]any{"loginEndpoint": e.login(), "audiences": e.Audiences,
			"tenant": tenant, "identityProvider": identityProvider},
		"suffixes": map[string]string{"acrLoginServer": e.RegistrySuffix, "keyVaultDns": e.VaultSuffix, "storage": e.StorageSuffix},
	}
	// Services that this instance doesn't have: clients want the names to be there.
	for _, none := range []string{"media", "batch", "vmImageAliasDoc", "activeDirectoryDataLake", "sqlManagement",
		"logAnalyticsResourceId", "ossrDbmsResourceId", "synapseAnalyticsResourceId", "appInsightsResourceId",
		"appInsightsTelemetryChannelResourceId", "attestationResourceId"} {
		all[none] = ""
	}
	return all
}
