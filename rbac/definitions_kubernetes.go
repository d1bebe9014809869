// SPDX-License-Identifier: Apache-2.0

package rbac

// inClusters puts actions below those of clusters.
func inClusters(actions ...string) []string {
	full := make([]string, len(actions))
	for i, a := range actions {
		full[i] = "Microsoft.ContainerService/managedClusters/" + a
	}
	return full
}

// kubernetesRoles are the roles of Azure Kubernetes Service: over clusters as resources, and inside of them.
func kubernetesRoles() []*Definition {
	return []*Definition{
		builtin("ed7f3fbd-7b88-4dd4-9017-9adb7ce333f8", "Azure Kubernetes Service Contributor Role", "Clusters can be read and written as resources.", Permission{
			Actions: []string{
				"Microsoft.Authorization/*/read", "Microsoft.ContainerService/locations/*", "Microsoft.ContainerService/managedClusters/*",
				"Microsoft.ContainerService/managedclustersnapshots/*", "Microsoft.ContainerService/snapshots/*",
				"Microsoft.Insights/alertRules/*", "Microsoft.Resources/deployments/*",
				"Microsoft.Resources/subscriptions/resourceGroups/read", "Microsoft.ContainerService/deploymentSafeguards/*",
			},
		}),
		builtin("0ab0b1a8-8aac-4efd-b8c2-3ee1fb270be8", "Azure Kubernetes Service Cluster Admin Role", "Administrators' credentials of clusters can be had.", Permission{
			Actions: []string{
				"Microsoft.ContainerService/managedClusters/listClusterAdminCredential/action",
				"Microsoft.ContainerService/managedClusters/accessProfiles/listCredential/action",
				"Microsoft.ContainerService/managedClusters/read", "Microsoft.ContainerService/managedClusters/runcommand/action",
			},
		}),
		builtin("4abbcc35-e782-43d8-92c5-2d3f1bd2253f", "Azure Kubernetes Service Cluster User Role", "Users' credentials of clusters can be had.", Permission{
			Actions: []string{
				"Microsoft.ContainerService/managedClusters/listClusterUserCredential/action",
				"Microsoft.ContainerService/managedClusters/read",
			},
		}),
		builtin("1afdec4b-e479-420e-99e7-f82237c7c5e6", "Azure Kubernetes Service Cluster Monitoring User", "Monitoring users' credentials of clusters can be had.", Permission{
			Actions: []string{
				"Microsoft.ContainerService/managedClusters/listClusterMonitoringUserCredential/action",
				"Microsoft.ContainerService/managedClusters/read",
			},
		}),
		builtin("7f6c6a51-bcf8-42ba-9220-52d62157d7db", "Azure Kubernetes Service RBAC Reader", "Most objects in a namespace can be read; secrets, roles and role bindings can't.", Permission{
			Actions: []string{
				"Microsoft.Authorization/*/read", "Microsoft.Resources/subscriptions/operationresults/read",
				"Microsoft.Resources/subscriptions/read", "Microsoft.Resources/subscriptions/resourceGroups/read",
			},
			DataActions: inClusters(
				"apps/controllerrevisions/read", "apps/daemonsets/read", "apps/deployments/read", "apps/replicasets/read",
				"apps/statefulsets/read", "autoscaling/horizontalpodautoscalers/read", "batch/cronjobs/read", "batch/jobs/read",
				"configmaps/read", "discovery.k8s.io/endpointslices/read", "endpoints/read", "events.k8s.io/events/read", "events/read",
				"extensions/daemonsets/read", "extensions/deployments/read", "extensions/ingresses/read", "extensions/networkpolicies/read",
				"extensions/replicasets/read", "limitranges/read", "metrics.k8s.io/pods/read", "metrics.k8s.io/nodes/read", "namespaces/read",
				"networking.k8s.io/ingresses/read", "networking.k8s.io/networkpolicies/read", "persistentvolumeclaims/read", "pods/read",
				"policy/poddisruptionbudgets/read", "replicationcontrollers/read", "resourcequotas/read", "serviceaccounts/read",
				"services/read",
			),
		}),
		builtin("a7ffa36f-339b-4b5c-8bdf-e2c188b2c0eb", "Azure Kubernetes Service RBAC Writer", "Most objects in a namespace can be read and written, secrets included; roles and role bindings can't.", Permission{
			Actions: []string{
				"Microsoft.Authorization/*/read", "Microsoft.Resources/subscriptions/operationresults/read",
				"Microsoft.Resources/subscriptions/read", "Microsoft.Resources/subscriptions/resourceGroups/read",
			},
			DataActions: inClusters(
				"apps/controllerrevisions/read", "apps/daemonsets/*", "apps/deployments/*", "apps/replicasets/*", "apps/statefulsets/*",
				"autoscaling/horizontalpodautoscalers/*", "batch/cronjobs/*", "coordination.k8s.io/leases/read",
				"coordination.k8s.io/leases/write", "coordination.k8s.io/leases/delete", "discovery.k8s.io/endpointslices/read",
				"batch/jobs/*", "configmaps/*", "endpoints/*", "events.k8s.io/events/read", "events/*", "extensions/daemonsets/*",
				"extensions/deployments/*", "extensions/ingresses/*", "extensions/networkpolicies/*", "extensions/replicasets/*",
				"limitranges/read", "metrics.k8s.io/pods/read", "metrics.k8s.io/nodes/read", "namespaces/read",
				"networking.k8s.io/ingresses/*", "networking.k8s.io/networkpolicies/*", "persistentvolumeclaims/*", "pods/*",
				"policy/poddisruptionbudgets/*", "replicationcontrollers/*", "resourcequotas/read", "secrets/*", "serviceaccounts/*",
				"services/*",
			),
		}),
		builtin("3498e952-d568-435e-9b2c-8d77e338d7f7", "Azure Kubernetes Service RBAC Admin", "Everything in a cluster or namespace, but writing quotas and namespaces themselves.", Permission{
			Actions: []string{
				"Microsoft.Authorization/*/read", "Microsoft.Resources/subscriptions/operationresults/read",
				"Microsoft.Resources/subscriptions/read", "Microsoft.Resources/subscriptions/resourceGroups/read",
				"Microsoft.ContainerService/managedClusters/listClusterUserCredential/action",
			},
			DataActions:    inClusters("*"),
			NotDataActions: inClusters("resourcequotas/write", "resourcequotas/delete", "namespaces/write", "namespaces/delete"),
		}),
		builtin("b1ff04bb-8a4e-4dc4-8eb5-8693973ce19b", "Azure Kubernetes Service RBAC Cluster Admin", "Everything in a cluster.", Permission{
			Actions: []string{
				"Microsoft.Authorization/*/read", "Microsoft.Resources/subscriptions/operationresults/read",
				"Microsoft.Resources/subscriptions/read", "Microsoft.Resources/subscriptions/resourceGroups/read",
				"Microsoft.ContainerService/managedClusters/listClusterUserCredential/action",
			},
			DataActions: inClusters("*"),
		}),
	}
}
