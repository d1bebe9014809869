// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"strings"
	"time"

	aks "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"

	"bastide.dev/arm"
	"bastide.dev/controlplane"
	"bastide.dev/fault"
	"bastide.dev/pki"
	"bastide.dev/resource"
)

// credentialLifetime is that of AKS's client certificates.
const credentialLifetime = 2 * 365 * 24 * time.Hour

// masterClient is the common name in AKS's certificates for local accounts.
const masterClient = "masterclient"

// access is a kind of credential: how AKS names it, its user entry, and who it
// makes a client in the cluster.
type access struct {
	name, entry  string
	user, groups string
}

// The three of AKS. Without directory integration a cluster user has the local
// administrator's rights, as on AKS; the monitoring user may read health and metrics.
func admin() access {
	return access{"clusterAdmin", "clusterAdmin", masterClient, controlplane.MastersGroup}
}

func user() access {
	return access{"clusterUser", "clusterUser", masterClient, controlplane.MastersGroup}
}

func monitor() access {
	return access{"clusterMonitoringUser", "clusterMonitoringUser", "clusterMonitoringUser", "system:monitoring"}
}

// listCredential answers the three actions that give out a kubeconfig.
func (p *Provider) listCredential(a access) arm.Hook {
	return func(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
		if format := r.Query.Get("format"); format != "" && !strings.EqualFold(format, "azure") && !strings.EqualFold(format, "exec") {
			return nil, fault.New(fault.Invalid, "InvalidParameter", "The format %q isn't one of azure or exec.", format).At("format")
		}
		config, err := p.kubeconfig(ctx, r.Old, a, strings.EqualFold(r.Query.Get("server-fqdn"), "public"), r.Query.Get("format"))
		if err != nil {
			return nil, err
		}
		return &arm.Plan{Answer: aks.CredentialResults{Kubeconfigs: []*aks.CredentialResult{{Name: ptr(a.name), Value: config}}}}, nil
	}
}

// staticRefused is AKS's answer when local accounts are disabled.
func staticRefused() error {
	return fault.New(fault.Invalid, "BadRequest", "Getting static credential is not allowed because this cluster is set to disable local accounts.")
}

// kubeconfig issues a credential for the cluster's endpoint: of a private cluster
// under its private name, unless there is none or the public one is asked for.
func (p *Provider) kubeconfig(ctx context.Context, document *arm.Document, a access, public bool, format string) ([]byte, error) {
	if document == nil {
		return nil, fault.New(fault.NotFound, "ResourceNotFound", "The cluster was not found.")
	}
	w, err := p.load(ctx, document)
	if err != nil {
		return nil, err
	}
	keys, err := p.keys(ctx, w.state.UID)
	if err != nil {
		return nil, err
	}
	name := or(w.privateName(), w.state.FQDN)
	if public {
		if name = w.publicName(); name == "" {
			return nil, fault.New(fault.Invalid, "InvalidParameter", "The cluster has no public name: enablePrivateClusterPublicFQDN is off.").At("server-fqdn")
		}
	}
	c := controlplane.Credential{
		Cluster: document.Name, User: a.entry + "_" + document.ID.Group() + "_" + document.Name,
		Server: "https://" + name + ":443", CA: pki.Pair(keys.Access.Local), Trust: keys.trustOf(),
		CommonName: a.user, Organizations: []string{a.groups}, Lifetime: credentialLifetime,
	}
	switch {
	case a.name == user().name && w.state.Desired.Integration.Enabled:
		return p.directoryKubeconfig(c, format)
	case w.state.Desired.NoLocalAccounts:
		return nil, staticRefused()
	case !keys.Access.hasLocal():
		return nil, fault.New(fault.Conflict, "OperationNotAllowed", "The cluster is being taken over from an older release: try again in a moment.")
	}
	return controlplane.Kubeconfig(c)
}

// directoryKubeconfig is a credential without a secret: kubelogin signs in with
// the service's own authority. The format "azure" is the one that kubectl had a
// plug-in for itself until 1.25; kubelogin converts it.
func (p *Provider) directoryKubeconfig(c controlplane.Credential, format string) ([]byte, error) {
	if strings.EqualFold(format, "azure") {
		return controlplane.PluginKubeconfig(c, map[string]any{"auth-provider": map[string]any{"name": "azure", "config": map[string]any{
			"apiserver-id": serverApp, "client-id": clientApp, "config-mode": "1", "environment": "AzurePublicCloud", "tenant-id": p.Tenant}}})
	}
	return controlplane.PluginKubeconfig(c, map[string]any{"exec": map[string]any{
		"apiVersion": "client.authentication.k8s.io/v1beta1",
		"command":    "kubelogin",
		"args": []string{"get-token", "--environment", "AzurePublicCloud", "--server-id", serverApp, "--client-id", clientApp,
			"--tenant-id", p.Tenant, "--login", "devicecode",
			// The authority isn't one that Microsoft knows, and AZURE_CLIENT_ID of the
			// surroundings isn't kubelogin's.
			"--authority-host", p.Login + "/", "--disable-instance-discovery", "--disable-environment-override"},
		"env":                nil,
		"installHint":        installHint,
		"provideClusterInfo": false,
	}})
}

const installHint = `kubelogin is not installed, which is required to connect to a cluster with Microsoft Entra integration.
On the machine of the instance: eval "$(bastide env)". Elsewhere: https://azure.github.io/kubelogin/`

// accessProfile answers GET …/accessProfiles/{role}: what the profile is, not its secret.
func (p *Provider) accessProfile(_ context.Context, r *arm.Request) (any, error) {
	return p.profileOf(r, nil)
}

// accessCredential answers POST …/accessProfiles/{role}/listCredential.
func (p *Provider) accessCredential(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	for _, a := range []access{admin(), user(), monitor()} {
		if strings.EqualFold(a.name, r.ID.Name()) {
			config, err := p.kubeconfig(ctx, r.Parent, a, false, "")
			if err != nil {
				return nil, err
			}
			answer, err := p.profileOf(r, config)
			return &arm.Plan{Answer: answer}, err
		}
	}
	return nil, notFound(r.ID)
}

func (p *Provider) profileOf(r *arm.Request, config []byte) (any, error) {
	if r.Parent == nil {
		return nil, notFound(r.ID.Parent())
	}
	for _, a := range []access{admin(), user(), monitor()} {
		if strings.EqualFold(a.name, r.ID.Name()) {
			return aks.ManagedClusterAccessProfile{
				ID: ptr(r.ID.String()), Name: ptr(a.name), Type: ptr(clusterType + "/accessProfiles"),
				Location: ptr(resource.NormalizeLocation(r.Parent.Location)), Properties: &aks.AccessProfile{KubeConfig: config},
			}, nil
		}
	}
	return nil, notFound(r.ID)
}
