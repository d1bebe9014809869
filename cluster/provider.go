// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"slices"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/resource"
)

// versionsServed are the API versions of managed clusters: monthly, as AKS
// publishes them, from the oldest profile of az to the newest of the SDKs.
func versionsServed() []resource.APIVersion {
	return resource.MonthlyVersions("2020-11-01", "2026-03-01")
}

// orchestratorVersions are those of the older list of Kubernetes releases; `az
// aks get-versions` 2.45 asks for it.
func orchestratorVersions() []resource.APIVersion {
	return []resource.APIVersion{"2019-08-01", "2019-06-01", "2019-04-01", "2017-09-30"}
}

// ARM returns the provider's rows.
func (p *Provider) ARM() arm.Provider {
	versions := versionsServed()
	return arm.Provider{Namespace: Namespace, Types: append([]arm.Type{
		{
			Name: "managedClusters", Versions: versions, ReadOnly: readOnly(ClusterProperties()),
			Links: []arm.Link{{Path: poolObject + "vnetSubnetID", Action: joinSubnetAction}},
			Put:   p.putCluster, Delete: p.deleteCluster, View: p.viewCluster,
			Actions: p.clusterActions(),
			Beside:  []string{"abort"},
		},
		{
			Name: "managedClusters/agentPools", Versions: versions, ReadOnly: readOnly(PoolProperties()),
			Links: []arm.Link{{Path: "properties.vnetSubnetID", Action: joinSubnetAction}},
			Put:   p.putPool, Delete: p.deletePool, View: p.viewPool,
			Actions: map[string]arm.Hook{
				"upgradeNodeImageVersion": p.upgradeNodeImage,
				"deleteMachines":          p.deleteMachines,
				"abort":                   p.abortPool,
			},
			Beside: []string{"abort"},
		},
		{Name: "managedClusters/upgradeProfiles", Versions: versions, Get: p.clusterUpgrades},
		{Name: "managedClusters/agentPools/machines", Versions: versions, Get: p.machine, List: p.machines},
		{Name: "managedClusters/agentPools/upgradeProfiles", Versions: versions, Get: p.poolUpgrades},
		{Name: "managedClusters/availableAgentPoolVersions", Versions: versions, List: p.poolVersions},
		{
			Name: "managedClusters/accessProfiles", Versions: versions, Get: p.accessProfile,
			Actions: map[string]arm.Hook{"listCredential": p.accessCredential},
		},
		{Name: "locations/orchestrators", Scope: arm.InSubscription, Versions: orchestratorVersions(), List: p.orchestrators},
		{Name: "locations/kubernetesVersions", Scope: arm.InSubscription, Versions: versions, List: p.kubernetesVersions},
	}, slices.Concat(p.maintenanceTypes(versions), p.patchTypes(versions), p.backupTypes(versions))...)}
}

func (p *Provider) clusterActions() map[string]arm.Hook {
	actions := map[string]arm.Hook{
		"listClusterAdminCredential":          p.listCredential(admin()),
		"listClusterUserCredential":           p.listCredential(user()),
		"listClusterMonitoringUserCredential": p.listCredential(monitor()),
		"stop":                                p.power(true),
		"start":                               p.power(false),
		"rotateServiceAccountSigningKeys":     p.rotateSigningKeys,
		"rotateClusterCertificates":           p.rotateCertificates,
		"resetServicePrincipalProfile":        p.resetServicePrincipal,
		"resetAADProfile":                     p.resetDirectory,
		"abort":                               p.abortCluster,
		"patchNodes":                          p.patchNodes,
		"restore":                             p.restoreCluster,
		"lookForPatches":                      p.lookForPatches,
	}
	for _, name := range []string{
		"runCommand",
		"unpinManagedCluster",
	} {
		actions[name] = refuse(name)
	}
	return actions
}

// refuse answers an action that AKS has and Bastide hasn't: by name, with no effect.
func refuse(name string) arm.Hook {
	return func(_ context.Context, r *arm.Request) (*arm.Plan, error) {
		return nil, fault.New(fault.Unsupported, "ActionNotSupported", "The action %s isn't offered.", name).At(name)
	}
}

// power stops or starts a cluster.
func (p *Provider) power(stopped bool) arm.Hook {
	return func(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
		if r.Old == nil {
			return nil, notFound(r.ID)
		}
		w, err := p.load(ctx, r.Old)
		if err != nil {
			return nil, err
		}
		plan := &arm.Plan{Document: r.Old, Async: true, State: resource.Starting}
		if stopped {
			plan.State = resource.Stopping
		}
		if w.state.Stopped == stopped && r.Old.ProvisioningState == resource.Succeeded {
			plan.Async, plan.State = false, ""
			return plan, nil
		}
		w.state.Stopped = stopped
		return plan, setState(r.Old, w.state)
	}
}

func notFound(id resource.ID) error {
	return fault.New(fault.NotFound, "ResourceNotFound", "The Resource '%s' under resource group '%s' was not found.",
		id.Type()+"/"+id.Name(), id.Group())
}
