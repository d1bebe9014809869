// SPDX-License-Identifier: Apache-2.0

package rbac

// serviceRoles are the roles of networks and machines.
func serviceRoles() []*Definition {
	return []*Definition{
		builtin("4d97b98b-1d4f-4787-a291-c67834d212e7", "Network Contributor", "Networks can be managed, access to them can't.", Permission{
			Actions: []string{
				"Microsoft.Authorization/*/read", "Microsoft.Insights/alertRules/*", "Microsoft.Network/*",
				"Microsoft.ResourceHealth/availabilityStatuses/read", "Microsoft.Resources/deployments/*",
				"Microsoft.Resources/subscriptions/resourceGroups/read", "Microsoft.Support/*",
			},
		}),
		builtin("b12aa53e-6015-4669-85d0-8515ebb3ae7f", "Private DNS Zone Contributor", "Private DNS zones can be managed, the networks that they are linked to can't.", Permission{
			Actions: []string{
				"Microsoft.Insights/alertRules/*", "Microsoft.Resources/deployments/*",
				"Microsoft.Resources/subscriptions/resourceGroups/read", "Microsoft.Support/*", "Microsoft.Network/privateDnsZones/*",
				"Microsoft.Network/privateDnsOperationResults/*", "Microsoft.Network/privateDnsOperationStatuses/*",
				"Microsoft.Network/virtualNetworks/read", "Microsoft.Network/virtualNetworks/join/action", "Microsoft.Authorization/*/read",
			},
		}),
		builtin("9980e02c-c2be-4d73-94e8-173b1dc7cf3c", "Virtual Machine Contributor", "Virtual machines can be managed; their networks and access can't.", Permission{
			Actions: []string{
				"Microsoft.Authorization/*/read", "Microsoft.Compute/availabilitySets/*", "Microsoft.Compute/locations/*",
				"Microsoft.Compute/virtualMachines/*", "Microsoft.Compute/virtualMachineScaleSets/*", "Microsoft.Compute/cloudServices/*",
				"Microsoft.Compute/disks/write", "Microsoft.Compute/disks/read", "Microsoft.Compute/disks/delete",
				"Microsoft.Compute/hostgroups/write", "Microsoft.Compute/hostgroups/hosts/write", "Microsoft.DevTestLab/schedules/*",
				"Microsoft.Insights/alertRules/*", "Microsoft.Network/applicationGateways/backendAddressPools/join/action",
				"Microsoft.Network/loadBalancers/backendAddressPools/join/action",
				"Microsoft.Network/loadBalancers/inboundNatPools/join/action", "Microsoft.Network/loadBalancers/inboundNatRules/join/action",
				"Microsoft.Network/loadBalancers/probes/join/action", "Microsoft.Network/loadBalancers/read", "Microsoft.Network/locations/*",
				"Microsoft.Network/networkInterfaces/*", "Microsoft.Network/networkSecurityGroups/join/action",
				"Microsoft.Network/networkSecurityGroups/read", "Microsoft.Network/publicIPAddresses/join/action",
				"Microsoft.Network/publicIPAddresses/read", "Microsoft.Network/virtualNetworks/read",
				"Microsoft.Network/virtualNetworks/subnets/join/action", "Microsoft.RecoveryServices/locations/*",
				"Microsoft.RecoveryServices/Vaults/backupFabrics/backupProtectionIntent/write",
				"Microsoft.RecoveryServices/Vaults/backupFabrics/protectionContainers/protectedItems/*/read",
				"Microsoft.RecoveryServices/Vaults/backupFabrics/protectionContainers/protectedItems/read",
				"Microsoft.RecoveryServices/Vaults/backupFabrics/protectionContainers/protectedItems/write",
				"Microsoft.RecoveryServices/Vaults/backupPolicies/read", "Microsoft.RecoveryServices/Vaults/backupPolicies/write",
				"Microsoft.RecoveryServices/Vaults/read", "Microsoft.RecoveryServices/Vaults/usages/read",
				"Microsoft.RecoveryServices/Vaults/write", "Microsoft.ResourceHealth/availabilityStatuses/read",
				"Microsoft.Resources/deployments/*", "Microsoft.Resources/subscriptions/resourceGroups/read",
				"Microsoft.SerialConsole/serialPorts/connect/action", "Microsoft.SqlVirtualMachine/*",
				"Microsoft.Storage/storageAccounts/listKeys/action", "Microsoft.Storage/storageAccounts/read", "Microsoft.Support/*",
			},
		}),
		builtin("1c0163c0-47e6-4577-8991-ea5c82e286e4", "Virtual Machine Administrator Login", "Virtual machines can be seen and logged into as administrator.", Permission{
			Actions: []string{
				"Microsoft.Network/publicIPAddresses/read", "Microsoft.Network/virtualNetworks/read", "Microsoft.Network/loadBalancers/read",
				"Microsoft.Network/networkInterfaces/read", "Microsoft.Compute/virtualMachines/*/read",
				"Microsoft.HybridCompute/machines/*/read", "Microsoft.HybridConnectivity/endpoints/listCredentials/action",
			},
			DataActions: []string{
				"Microsoft.Compute/virtualMachines/login/action", "Microsoft.Compute/virtualMachines/loginAsAdmin/action",
				"Microsoft.HybridCompute/machines/login/action", "Microsoft.HybridCompute/machines/loginAsAdmin/action",
			},
		}),
		builtin("fb879df8-f326-4884-b1cf-06f3ad86be52", "Virtual Machine User Login", "Virtual machines can be seen and logged into as an ordinary user.", Permission{
			Actions: []string{
				"Microsoft.Network/publicIPAddresses/read", "Microsoft.Network/virtualNetworks/read", "Microsoft.Network/loadBalancers/read",
				"Microsoft.Network/networkInterfaces/read", "Microsoft.Compute/virtualMachines/*/read",
				"Microsoft.HybridCompute/machines/*/read", "Microsoft.HybridConnectivity/endpoints/listCredentials/action",
			},
			DataActions: []string{"Microsoft.Compute/virtualMachines/login/action", "Microsoft.HybridCompute/machines/login/action"},
		}),
	}
}

// identityRoles are the roles of managed identities and registries.
func identityRoles() []*Definition {
	return []*Definition{
		builtin("e40ec5ca-96e0-45a2-b4ff-59039f2c2b59", "Managed Identity Contributor", "User-assigned identities can be made, changed and deleted.", Permission{
			Actions: []string{
				"Microsoft.ManagedIdentity/userAssignedIdentities/read", "Microsoft.ManagedIdentity/userAssignedIdentities/write",
				"Microsoft.ManagedIdentity/userAssignedIdentities/delete",
				"Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials/read",
				"Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials/write",
				"Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials/delete",
				"Microsoft.ManagedIdentity/userAssignedIdentities/revokeTokens/action", "Microsoft.Authorization/*/read",
				"Microsoft.Insights/alertRules/*", "Microsoft.Resources/subscriptions/resourceGroups/read",
				"Microsoft.Resources/deployments/*", "Microsoft.Support/*",
			},
		}),
		builtin("f1a07417-d97a-45cb-824c-7a7467783830", "Managed Identity Operator", "User-assigned identities can be read and assigned.", Permission{
			Actions: []string{
				"Microsoft.ManagedIdentity/userAssignedIdentities/*/read", "Microsoft.ManagedIdentity/userAssignedIdentities/*/assign/action",
				"Microsoft.Authorization/*/read", "Microsoft.Insights/alertRules/*", "Microsoft.Resources/subscriptions/resourceGroups/read",
				"Microsoft.Resources/deployments/*", "Microsoft.Support/*",
			},
		}),
		builtin("7f951dda-4ed3-4680-a7ca-43fe172d538d", "AcrPull", "Images can be pulled.", Permission{
			Actions: []string{"Microsoft.ContainerRegistry/registries/pull/read"},
		}),
		builtin("8311e382-0749-4cb8-b61a-304f252e45ec", "AcrPush", "Images can be pulled and pushed.", Permission{
			Actions: []string{"Microsoft.ContainerRegistry/registries/pull/read", "Microsoft.ContainerRegistry/registries/push/write"},
		}),
		builtin("c2f4ef07-c644-48eb-af81-4b1b4947fb11", "AcrDelete", "Repositories, tags and manifests can be deleted.", Permission{
			Actions: []string{"Microsoft.ContainerRegistry/registries/artifacts/delete"},
		}),
		builtin("6cef56e8-d556-48e5-a04f-b8e64114680f", "AcrImageSigner", "Images can be signed for content trust.", Permission{
			Actions:     []string{"Microsoft.ContainerRegistry/registries/sign/write"},
			DataActions: []string{"Microsoft.ContainerRegistry/registries/trustedCollections/write"},
		}),
	}
}
