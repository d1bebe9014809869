// SPDX-License-Identifier: Apache-2.0

package rbac

// generalRoles are the general roles and those of access management.
func generalRoles() []*Definition {
	return []*Definition{
		builtin("8e3af657-a8ff-443c-a75c-2fe8c4bcb635", "Owner", "Everything, granting access to others included.", Permission{
			Actions: []string{"*"},
		}),
		builtin("b24988ac-6180-42a0-ab88-20f7382dd24c", "Contributor", "Everything but access: roles can't be given or taken.", Permission{
			Actions: []string{"*"},
			NotActions: []string{
				"Microsoft.Authorization/*/Delete", "Microsoft.Authorization/*/Write", "Microsoft.Authorization/elevateAccess/Action",
				"Microsoft.Blueprint/blueprintAssignments/write", "Microsoft.Blueprint/blueprintAssignments/delete",
				"Microsoft.Compute/galleries/share/action", "Microsoft.Purview/consents/write", "Microsoft.Purview/consents/delete",
				"Microsoft.Resources/deploymentStacks/manageDenySetting/action", "Microsoft.Subscription/cancel/action",
				"Microsoft.Subscription/enable/action",
			},
		}),
		builtin("acdd72a7-3385-48ef-bd42-f606fba81ae7", "Reader", "All resources can be seen, none changed.", Permission{
			Actions: []string{"*/read"},
		}),
		builtin("18d7d88d-d35e-4fb5-a5c3-7773c20a72d9", "User Access Administrator", "All resources can be seen, and access to them given and taken.", Permission{
			Actions: []string{"*/read", "Microsoft.Authorization/*", "Microsoft.Support/*"},
		}),
		builtin("f58310d9-a9f6-439a-9e8d-f62e7b41a168", "Role Based Access Control Administrator", "Roles can be given and taken; a condition can say which, and to whom.", Permission{
			Actions: []string{
				"Microsoft.Authorization/roleAssignments/write", "Microsoft.Authorization/roleAssignments/delete", "*/read",
				"Microsoft.Support/*",
			},
		}),
		builtin("5d58bcaf-24a5-4b20-bdb6-eed9f69fbe4c", "Management Group Contributor", "Management groups can be made, moved and deleted.", Permission{
			Actions: []string{
				"Microsoft.Management/managementGroups/delete", "Microsoft.Management/managementGroups/read",
				"Microsoft.Management/managementGroups/subscriptions/delete", "Microsoft.Management/managementGroups/subscriptions/write",
				"Microsoft.Management/managementGroups/write", "Microsoft.Management/managementGroups/subscriptions/read",
				"Microsoft.Authorization/*/read",
			},
		}),
		builtin("ac63b705-f282-497d-ac71-919bf39d939d", "Management Group Reader", "Management groups can be seen.", Permission{
			Actions: []string{
				"Microsoft.Management/managementGroups/read", "Microsoft.Management/managementGroups/subscriptions/read",
				"Microsoft.Authorization/*/read",
			},
		}),
	}
}

// overseeingRoles are the roles of governance and security.
func overseeingRoles() []*Definition {
	return []*Definition{
		builtin("4a9ae827-6dc8-4573-8ac7-8239d42aa03f", "Tag Contributor", "Tags can be changed on what can't be read otherwise.", Permission{
			Actions: []string{
				"Microsoft.Authorization/*/read", "Microsoft.Resources/subscriptions/resourceGroups/read",
				"Microsoft.Resources/subscriptions/resourceGroups/resources/read", "Microsoft.Resources/subscriptions/resources/read",
				"Microsoft.Resources/deployments/*", "Microsoft.Insights/alertRules/*", "Microsoft.Support/*", "Microsoft.Resources/tags/*",
			},
		}),
		builtin("36243c78-bf99-498c-9df9-86d9f8d28608", "Resource Policy Contributor", "Policies can be written and assigned.", Permission{
			Actions: []string{
				"*/read", "Microsoft.Authorization/policyassignments/*", "Microsoft.Authorization/policydefinitions/*",
				"Microsoft.Authorization/policyexemptions/*", "Microsoft.Authorization/policyenrollments/*",
				"Microsoft.Authorization/policysetdefinitions/*", "Microsoft.PolicyInsights/*", "Microsoft.Resources/deployments/*",
				"Microsoft.Support/*",
			},
		}),
		builtin("39bc4728-0917-49c7-9d2c-d95423bc2eb4", "Security Reader", "Security findings and policies can be seen.", Permission{
			Actions: []string{
				"Microsoft.Authorization/*/read", "Microsoft.Insights/alertRules/read", "Microsoft.operationalInsights/workspaces/*/read",
				"Microsoft.Resources/deployments/*/read", "Microsoft.Resources/subscriptions/resourceGroups/read",
				"Microsoft.Security/*/read", "Microsoft.IoTSecurity/*/read", "Microsoft.Support/*/read",
				"Microsoft.Security/iotDefenderSettings/packageDownloads/action",
				"Microsoft.Security/iotDefenderSettings/downloadManagerActivation/action",
				"Microsoft.Security/iotSensors/downloadResetPassword/action",
				"Microsoft.IoTSecurity/defenderSettings/packageDownloads/action",
				"Microsoft.IoTSecurity/defenderSettings/downloadManagerActivation/action", "Microsoft.Management/managementGroups/read",
			},
		}),
		builtin("fb1c8493-542b-48eb-b624-b4c8fea62acd", "Security Admin", "Security findings can be seen and dismissed, and policies changed.", Permission{
			Actions: []string{
				"Microsoft.Authorization/*/read", "Microsoft.Authorization/policyAssignments/*",
				"Microsoft.Authorization/policyDefinitions/*", "Microsoft.Authorization/policyExemptions/*",
				"Microsoft.Authorization/policySetDefinitions/*", "Microsoft.Insights/alertRules/*",
				"Microsoft.Management/managementGroups/read", "Microsoft.operationalInsights/workspaces/*/read",
				"Microsoft.Resources/deployments/*", "Microsoft.Resources/subscriptions/resourceGroups/read", "Microsoft.Security/*",
				"Microsoft.IoTSecurity/*", "Microsoft.IoTFirmwareDefense/*", "Microsoft.Support/*",
			},
		}),
	}
}

// monitoringRoles are the roles of monitoring and logs.
func monitoringRoles() []*Definition {
	return []*Definition{
		builtin("43d0d8ad-25c7-4714-9337-8ba259a9fe05", "Monitoring Reader", "All monitoring data can be read.", Permission{
			Actions: []string{"*/read", "Microsoft.OperationalInsights/workspaces/search/action", "Microsoft.Support/*"},
		}),
		builtin("749f88d5-cbae-40b8-bcfc-e573ddc772fa", "Monitoring Contributor", "All monitoring data can be read, and monitoring settings changed.", Permission{
			Actions: []string{
				"*/read", "Microsoft.AlertsManagement/alerts/*", "Microsoft.AlertsManagement/alertsSummary/*",
				"Microsoft.AlertsManagement/issues/*", "Microsoft.Insights/actiongroups/*", "Microsoft.Insights/activityLogAlerts/*",
				"Microsoft.Insights/AlertRules/*", "Microsoft.Insights/components/*", "Microsoft.Insights/createNotifications/*",
				"Microsoft.Insights/dataCollectionEndpoints/*", "Microsoft.Insights/dataCollectionRules/*",
				"Microsoft.Insights/dataCollectionRuleAssociations/*", "Microsoft.Insights/DiagnosticSettings/*",
				"Microsoft.Insights/eventtypes/*", "Microsoft.Insights/LogDefinitions/*", "Microsoft.Insights/metricalerts/*",
				"Microsoft.Insights/MetricDefinitions/*", "Microsoft.Insights/Metrics/*", "Microsoft.Insights/notificationStatus/*",
				"Microsoft.Insights/Register/Action", "Microsoft.Insights/scheduledqueryrules/*", "Microsoft.Insights/webtests/*",
				"Microsoft.Insights/workbooks/*", "Microsoft.Insights/workbooktemplates/*", "Microsoft.Insights/privateLinkScopes/*",
				"Microsoft.Insights/privateLinkScopeOperationStatuses/*", "Microsoft.Monitor/accounts/*", "Microsoft.Monitor/settings/*",
				"Microsoft.OperationalInsights/workspaces/write", "Microsoft.OperationalInsights/workspaces/intelligencepacks/*",
				"Microsoft.OperationalInsights/workspaces/savedSearches/*", "Microsoft.OperationalInsights/workspaces/search/action",
				"Microsoft.OperationalInsights/workspaces/sharedKeys/action", "Microsoft.OperationalInsights/workspaces/sharedKeys/read",
				"Microsoft.OperationalInsights/workspaces/storageinsightconfigs/*",
				"Microsoft.OperationalInsights/locations/workspaces/failover/action",
				"Microsoft.OperationalInsights/workspaces/failback/action", "Microsoft.Support/*",
				"Microsoft.AlertsManagement/smartDetectorAlertRules/*", "Microsoft.AlertsManagement/actionRules/*",
				"Microsoft.AlertsManagement/smartGroups/*", "Microsoft.AlertsManagement/migrateFromSmartDetection/*",
				"Microsoft.AlertsManagement/investigations/*", "Microsoft.AlertsManagement/prometheusRuleGroups/*",
				"Microsoft.Monitor/investigations/*", "Microsoft.Resources/deployments/*",
			},
		}),
		builtin("73c42c96-874c-492b-b04d-ab87d138a893", "Log Analytics Reader", "Logs and monitoring settings can be read and searched.", Permission{
			Actions: []string{
				"*/read", "Microsoft.OperationalInsights/workspaces/analytics/query/action",
				"Microsoft.OperationalInsights/workspaces/search/action", "Microsoft.Support/*",
			},
			NotActions:  []string{"Microsoft.OperationalInsights/workspaces/sharedKeys/read"},
			DataActions: []string{"Microsoft.OperationalInsights/workspaces/jobs/export/action"},
		}),
		builtin("92aaf0da-9dab-42b6-94a3-d43ce8d16293", "Log Analytics Contributor", "Logs can be read, and their collection changed.", Permission{
			Actions: []string{
				"*/read", "Microsoft.ClassicCompute/virtualMachines/extensions/*", "Microsoft.ClassicStorage/storageAccounts/listKeys/action",
				"Microsoft.Compute/virtualMachines/extensions/*", "Microsoft.HybridCompute/machines/extensions/write",
				"Microsoft.Insights/alertRules/*", "Microsoft.Insights/diagnosticSettings/*", "Microsoft.OperationalInsights/*",
				"Microsoft.OperationsManagement/*", "Microsoft.Resources/deployments/*",
				"Microsoft.Resources/subscriptions/resourcegroups/deployments/*", "Microsoft.Storage/storageAccounts/listKeys/action",
				"Microsoft.Support/*",
			},
			DataActions: []string{"Microsoft.OperationalInsights/workspaces/jobs/export/action"},
		}),
	}
}
