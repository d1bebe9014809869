// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"

	aks "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/resource"
)

// orchestratorList is the answer of the older list of releases. The SDK has no
// model of it any more; az 2.45 asks for nothing else.
type orchestratorList struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	Type       string `json:"type"`
	Properties struct {
		Orchestrators []orchestrator `json:"orchestrators"`
	} `json:"properties"`
}

type orchestrator struct {
	Type     string         `json:"orchestratorType"`
	Version  string         `json:"orchestratorVersion"`
	Default  bool           `json:"default,omitempty"`
	Upgrades []orchestrator `json:"upgrades,omitempty"`
}

// orchestrators answers GET …/locations/{location}/orchestrators.
func (p *Provider) orchestrators(_ context.Context, r *arm.Request) (any, error) {
	versions, err := p.inLocation(r)
	if err != nil {
		return nil, err
	}
	list := orchestratorList{ID: r.ID.String() + "/orchestrators", Name: "default", Type: Namespace + "/locations/orchestrators"}
	def, _ := versions.Default()
	for _, v := range versions.supported() {
		o := orchestrator{Type: "Kubernetes", Version: v.String(), Default: v == def}
		for _, u := range versions.upgrades(v) {
			o.Upgrades = append(o.Upgrades, orchestrator{Type: "Kubernetes", Version: u.String()})
		}
		list.Properties.Orchestrators = append(list.Properties.Orchestrators, o)
	}
	return list, nil
}

// inLocation are the releases, if the request is about the instance's location.
func (p *Provider) inLocation(r *arm.Request) (Versions, error) {
	if location := resource.NormalizeLocation(r.ID.Name()); location != p.Location {
		return nil, fault.New(fault.Invalid, "NoRegisteredProviderFound",
			"No registered resource provider found for location '%s'. The location that is available: %s.", r.ID.Name(), p.Location).At("location")
	}
	return p.versions()
}

// kubernetesVersions answers GET …/locations/{location}/kubernetesVersions: by minor.
func (p *Provider) kubernetesVersions(_ context.Context, r *arm.Request) (any, error) {
	versions, err := p.inLocation(r)
	if err != nil {
		return nil, err
	}
	def, _ := versions.Default()
	list := aks.KubernetesVersionListResult{Values: []*aks.KubernetesVersion{}}
	for _, minor := range versions.supported().minors() {
		patches := map[string]*aks.KubernetesPatchVersion{}
		for _, v := range versions {
			if v.MinorString() == minor.MinorString() {
				patches[v.String()] = &aks.KubernetesPatchVersion{Upgrades: pointers(versions.upgrades(v))}
			}
		}
		list.Values = append(list.Values, &aks.KubernetesVersion{
			Version: ptr(minor.MinorString()), IsDefault: ptr(minor == def), IsPreview: ptr(false), PatchVersions: patches,
			Capabilities: &aks.KubernetesVersionCapabilities{SupportPlan: []*aks.KubernetesSupportPlan{ptr(aks.KubernetesSupportPlanKubernetesOfficial)}},
		})
	}
	return list, nil
}

// clusterUpgrades answers GET …/upgradeProfiles/default: what the control plane
// may become next, and what each pool may under it as it is.
func (p *Provider) clusterUpgrades(ctx context.Context, r *arm.Request) (any, error) {
	w, err := p.loadParent(ctx, r, r.Parent)
	if err != nil {
		return nil, err
	}
	versions, err := p.versions()
	if err != nil {
		return nil, err
	}
	own := func(name *string, v Version, to []Version) *aks.ManagedClusterPoolUpgradeProfile {
		profile := &aks.ManagedClusterPoolUpgradeProfile{Name: name, KubernetesVersion: ptr(v.String()), OSType: ptr(aks.OSTypeLinux)}
		for _, u := range to {
			profile.Upgrades = append(profile.Upgrades, &aks.ManagedClusterPoolUpgradeProfileUpgradesItem{KubernetesVersion: ptr(u.String()), IsPreview: ptr(false)})
		}
		return profile
	}
	server := w.state.Desired.Version
	profile := aks.ManagedClusterUpgradeProfile{
		ID: ptr(r.ID.String()), Name: ptr("default"), Type: ptr(clusterType + "/upgradeProfiles"),
		Properties: &aks.ManagedClusterUpgradeProfileProperties{
			ControlPlaneProfile: own(nil, server, versions.upgrades(server)),
			AgentPoolProfiles:   []*aks.ManagedClusterPoolUpgradeProfile{},
		},
	}
	for _, pool := range w.pools {
		v := pool.Pool.Version
		profile.Properties.AgentPoolProfiles = append(profile.Properties.AgentPoolProfiles, own(ptr(pool.Pool.Name), v, versions.poolUpgrades(v, server)))
	}
	return profile, nil
}

// poolUpgrades answers GET …/agentPools/{pool}/upgradeProfiles/default.
func (p *Provider) poolUpgrades(ctx context.Context, r *arm.Request) (any, error) {
	if r.ID.Name() != "default" || r.Parent == nil {
		return nil, notFound(r.ID)
	}
	document, err := arm.GetDocument(ctx, p.Store, r.Parent.ID.Parent())
	if err != nil {
		return nil, err
	}
	w, err := p.load(ctx, document)
	if err != nil {
		return nil, err
	}
	pool := w.pool(r.Parent.Name)
	if pool == nil {
		return nil, notFound(r.Parent.ID)
	}
	versions, err := p.versions()
	if err != nil {
		return nil, err
	}
	newest, err := p.parts(pool.Pool)
	if err != nil {
		return nil, err
	}
	properties := &aks.AgentPoolUpgradeProfileProperties{
		KubernetesVersion: ptr(pool.Pool.Version.String()), OSType: ptr(aks.OSTypeLinux), LatestNodeImageVersion: ptr(imageVersion(newest.Image))}
	for _, u := range versions.poolUpgrades(pool.Pool.Version, w.state.Desired.Version) {
		properties.Upgrades = append(properties.Upgrades, &aks.AgentPoolUpgradeProfilePropertiesUpgradesItem{KubernetesVersion: ptr(u.String()), IsPreview: ptr(false)})
	}
	return aks.AgentPoolUpgradeProfile{ID: ptr(r.ID.String()), Name: ptr("default"), Type: ptr(poolType + "/upgradeProfiles"), Properties: properties}, nil
}

// poolVersions answers GET …/availableAgentPoolVersions: what a new pool may run.
func (p *Provider) poolVersions(ctx context.Context, r *arm.Request) (any, error) {
	w, err := p.listed(ctx, r)
	if err != nil {
		return nil, err
	}
	versions, err := p.versions()
	if err != nil {
		return nil, err
	}
	list := aks.AgentPoolAvailableVersions{
		ID: ptr(w.doc.ID.String() + "/availableAgentPoolVersions"), Name: ptr("default"), Type: ptr(clusterType + "/availableAgentPoolVersions"),
		Properties: &aks.AgentPoolAvailableVersionsProperties{AgentPoolVersions: []*aks.AgentPoolAvailableVersionsPropertiesAgentPoolVersionsItem{}},
	}
	for _, v := range versions.newPool(w.state.Desired.Version) {
		list.Properties.AgentPoolVersions = append(list.Properties.AgentPoolVersions, &aks.AgentPoolAvailableVersionsPropertiesAgentPoolVersionsItem{
			KubernetesVersion: ptr(v.String()), Default: ptr(v == w.state.Desired.Version), IsPreview: ptr(false)})
	}
	return list, nil
}

// listed reads the cluster whose computed children are asked for: a list's id is
// the cluster's own.
func (p *Provider) listed(ctx context.Context, r *arm.Request) (*whole, error) {
	if r.Parent != nil {
		return p.load(ctx, r.Parent)
	}
	document, err := arm.GetDocument(ctx, p.Store, r.ID)
	if fault.Is(err, fault.NotFound) {
		return nil, notFound(r.ID)
	}
	if err != nil {
		return nil, err
	}
	return p.load(ctx, document)
}

// loadParent reads the cluster that a computed child of it is asked for.
func (p *Provider) loadParent(ctx context.Context, r *arm.Request, parent *arm.Document) (*whole, error) {
	if parent == nil {
		return nil, notFound(r.ID.Parent())
	}
	if r.ID.IsType(clusterType+"/upgradeProfiles") && r.ID.Name() != "default" {
		return nil, notFound(r.ID)
	}
	return p.load(ctx, parent)
}

func ptr[T any](v T) *T { return &v }

func pointers(versions []Version) []*string {
	list := make([]*string, len(versions))
	for i, v := range versions {
		list[i] = ptr(v.String())
	}
	return list
}
