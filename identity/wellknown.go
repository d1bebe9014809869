// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"slices"
	"strings"

	"github.com/google/uuid"

	"bastide.dev/fault"
)

// Applications that Microsoft's tools name by id; the public clients among them
// have loopback redirects only.
const (
	AppCLI             = "04b07795-8ddb-461a-bbee-02f9e1bf7b46"
	AppPowerShell      = "1950a258-227b-4e31-a9cf-717495945fc2"
	AppKubernetesUser  = "80faf920-1908-4b52-b5ef-a8e7bedfc67a" // kubelogin's client
	AppKubernetes      = "6dae42f8-4368-4678-94ff-3960e28e3630" // the audience of every cluster
	AppResourceManager = "797f4846-ba00-4fd7-ba43-dac1f8f63013"
	AppGraph           = "00000003-0000-0000-c000-000000000000"
	AppRegistry        = "6a0ec4d3-30cb-4a83-91c0-ae56bc0e3d26"
)

func (d *Directory) wellKnown() []Application {
	e := d.config.Endpoints
	local := []string{"http://localhost", "http://127.0.0.1"}
	impersonate := []Scope{delegated("41094075-9dad-400e-a0bd-54e686782033", "user_impersonation", "User")}
	apps := []Application{
		{AppID: AppCLI, DisplayName: "Microsoft Azure CLI", Public: true, RedirectURIs: local},
		{AppID: AppPowerShell, DisplayName: "Microsoft Azure PowerShell", Public: true, RedirectURIs: local},
		{AppID: AppKubernetesUser, DisplayName: "Azure Kubernetes Service AAD Client", Public: true, RedirectURIs: local},
		{AppID: AppKubernetes, DisplayName: "Azure Kubernetes Service AAD Server", Scopes: []Scope{delegated("34a47c2f-cd0d-47b4-a93c-2c41130c671c", "user.read", "User")}},
		{AppID: AppResourceManager, DisplayName: "Azure Resource Manager", IdentifierURIs: d.armAudiences(), Scopes: impersonate},
		{AppID: AppGraph, DisplayName: "Microsoft Graph", IdentifierURIs: []string{e.Graph, "https://graph.microsoft.com"},
			AppRoles: graphAppRoles(), Scopes: graphScopes()},
	}
	if e.Registry != "" {
		apps = append(apps, Application{AppID: AppRegistry, DisplayName: "Azure Container Registry", Scopes: impersonate,
			IdentifierURIs: []string{e.Registry, "https://containerregistry.azure.net"}})
	}
	return apps
}

// KnownApplication says whether an application is one that every tenant has.
func (d *Directory) KnownApplication(appID string) bool {
	return slices.ContainsFunc(d.known, func(a Application) bool { return strings.EqualFold(a.AppID, appID) })
}

// firstParty are the service principals of those: computed, and the same in each process.
func (d *Directory) firstParty(tenant Tenant) []ServicePrincipal {
	found := make([]ServicePrincipal, len(d.known))
	for i, a := range d.known {
		id := uuid.NewSHA1(uuid.NameSpaceOID, []byte(tenant.ID+" "+a.AppID)).String()
		found[i] = ServicePrincipal{ID: id, AppID: a.AppID, DisplayName: a.DisplayName, Type: ApplicationPrincipal, Names: append([]string{a.AppID}, a.IdentifierURIs...),
			ValidFrom: tenant.Created, Created: tenant.Created, FirstParty: true}
	}
	return found
}

func (d *Directory) firstPartyPrincipal(ctx context.Context, id string) (ServicePrincipal, error) {
	tenant, err := d.Tenant(ctx)
	if err != nil {
		return ServicePrincipal{}, err
	}
	for _, sp := range d.firstParty(tenant) {
		if strings.EqualFold(sp.ID, id) || strings.EqualFold(sp.AppID, id) {
			return sp, nil
		}
	}
	return ServicePrincipal{}, notFound(id)
}

func (d *Directory) armAudiences() []string {
	return []string{d.config.Endpoints.ResourceManager, "https://management.azure.com", "https://management.core.windows.net"}
}

// Resource is what a token is for.
type Resource struct {
	Application Application
	Audience    string // as it was asked for: Entra ID repeats it in v1 tokens
}

// Resource finds what is asked for by identifier URI or app id.
func (d *Directory) Resource(ctx context.Context, name string) (Resource, error) {
	if err := d.objects.load(ctx); err != nil {
		return Resource{}, err
	}
	bare := strings.ToLower(strings.TrimRight(name, "/"))
	id := strings.TrimPrefix(strings.TrimPrefix(bare, "spn:"), "api://")
	for _, a := range d.known {
		same := func(uri string) bool { return strings.EqualFold(uri, bare) }
		if strings.EqualFold(a.AppID, id) || slices.ContainsFunc(a.IdentifierURIs, same) {
			return Resource{Application: a, Audience: name}, nil
		}
	}
	d.objects.mu.RLock()
	defer d.objects.mu.RUnlock()
	for _, key := range []string{d.objects.appKeys[id], d.objects.uris[bare], d.objects.uris[bare+"/"]} {
		if a, ok := d.objects.values[key].(*Application); ok {
			return Resource{Application: *a, Audience: name}, nil
		}
	}
	return Resource{}, fault.New(fault.Invalid, CodeUnknownResource, "The resource principal named %s was not found in the tenant.", printable(name)).At("resource")
}
