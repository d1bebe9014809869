// SPDX-License-Identifier: Apache-2.0

package rbac

import "slices"

// The GUIDs of Azure's built-in roles that Bastide itself names.
const (
	OwnerRole                   = "8e3af657-a8ff-443c-a75c-2fe8c4bcb635"
	ContributorRole             = "b24988ac-6180-42a0-ab88-20f7382dd24c"
	ReaderRole                  = "acdd72a7-3385-48ef-bd42-f606fba81ae7"
	UserAccessAdministratorRole = "18d7d88d-d35e-4fb5-a5c3-7773c20a72d9"
	AccessAdministratorRole     = "f58310d9-a9f6-439a-9e8d-f62e7b41a168" // Role Based Access Control Administrator
	NetworkContributorRole      = "4d97b98b-1d4f-4787-a291-c67834d212e7"
	ManagedIdentityOperatorRole = "f1a07417-d97a-45cb-824c-7a7467783830"
	AcrPullRole                 = "7f951dda-4ed3-4680-a7ca-43fe172d538d"
	AcrPushRole                 = "8311e382-0749-4cb8-b61a-304f252e45ec"
	ClusterUserRole             = "4abbcc35-e782-43d8-92c5-2d3f1bd2253f"
	ClusterAdminRole            = "0ab0b1a8-8aac-4efd-b8c2-3ee1fb270be8"
	KubernetesReaderRole        = "7f6c6a51-bcf8-42ba-9220-52d62157d7db"
	KubernetesWriterRole        = "a7ffa36f-339b-4b5c-8bdf-e2c188b2c0eb"
	KubernetesAdminRole         = "3498e952-d568-435e-9b2c-8d77e338d7f7"
	KubernetesClusterAdminRole  = "b1ff04bb-8a4e-4dc4-8eb5-8693973ce19b"
)

// Builtin are Azure's built-in definitions for the services that there are, with
// Azure's GUIDs, names and permissions (Azure's documents "Azure built-in roles", August 2026).
func Builtin() []*Definition {
	return slices.Concat(generalRoles(), overseeingRoles(), monitoringRoles(), serviceRoles(), identityRoles(), kubernetesRoles())
}

func builtin(id, name, description string, permissions ...Permission) *Definition {
	return &Definition{ID: id, Name: name, Description: description, Permissions: permissions, AssignableScopes: []string{"/"}}
}
