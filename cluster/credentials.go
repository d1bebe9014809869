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
		config, err := p.kubeconfig(ctx, r.Old, a, strings.EqualFold(r.Query.Get("server-fqdn"), "public"))
		if err != nil {
			return nil, err
		}
		return &arm.Plan{Answer: aks.CredentialResults{Kubeconfigs: []*aks.CredentialResult{{Name: ptr(a.name), Value: config}}}}, nil
	}
}

// kubeconfig issues a credential for the cluster's endpoint: of a private cluster
// under its private name, unless there is none or the public one is asked for.
func (p *Provider) kubeconfig(ctx context.Context, document *arm.Document, a access, public bool) ([]byte, error) {
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
	return controlplane.Kubeconfig(controlplane.Credential{
		Cluster: document.Name, User: a.entry + "_" + document.ID.Group() + "_" + document.Name,
		Server: "https://" + name + ":443", CA: pki.Pair(keys.CA),
		CommonName: a.user, Organizations: []string{a.groups}, Lifetime: credentialLifetime,
	})
}

// accessProfile answers GET …/accessProfiles/{role}: what the profile is, not its secret.
func (p *Provider) accessProfile(_ context.Context, r *arm.Request) (any, error) {
	return p.profileOf(r, nil)
}

// accessCredential answers POST …/accessProfiles/{role}/listCredential.
func (p *Provider) accessCredential(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	for _, a := range []access{admin(), user(), monitor()} {
		if strings.EqualFold(a.name, r.ID.Name()) {
			config, err := p.kubeconfig(ctx, r.Parent, a, false)
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
