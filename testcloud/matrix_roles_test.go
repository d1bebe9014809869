// SPDX-License-Identifier: Apache-2.0

package testcloud_test

// matrixRole is what Azure's definition of a role promises, in the words of the
// matrix's probes. It is written from Azure's documents, not from package rbac.
type matrixRole struct {
	name, id string
	allows   []string
}

func matrixRoles() []matrixRole {
	reads := []string{"cluster read", "group read", "rules read", "assignments read"}
	rules := []string{"rules read", "rules write", "rules delete"}
	credentials := []string{"user credential", "admin credential"}
	// What roles for one kind of thing may see around it.
	around := []string{"group read", "assignments read"}
	namespaceReads := []string{"pods read", "namespaces read"}
	namespaceWrites := join(namespaceReads, []string{"secrets read", "configmaps write", "deployments delete", "pods exec"})
	return []matrixRole{
		{"Owner", "8e3af657-a8ff-443c-a75c-2fe8c4bcb635", join(reads, rules, credentials, []string{"cluster write", "assign"})},
		{"Contributor", "b24988ac-6180-42a0-ab88-20f7382dd24c", join(reads, rules, credentials, []string{"cluster write"})},
		{"Reader", "acdd72a7-3385-48ef-bd42-f606fba81ae7", reads},
		{"User Access Administrator", "18d7d88d-d35e-4fb5-a5c3-7773c20a72d9", join(reads, []string{"assign"})},
		{"Role Based Access Control Administrator", "f58310d9-a9f6-439a-9e8d-f62e7b41a168", join(reads, []string{"assign"})},
		{"Network Contributor", "4d97b98b-1d4f-4787-a291-c67834d212e7", join(around, rules)},
		{"Managed Identity Operator", "f1a07417-d97a-45cb-824c-7a7467783830", around},
		{"AKS Contributor Role", "ed7f3fbd-7b88-4dd4-9017-9adb7ce333f8", join(around, credentials, []string{"cluster read", "cluster write"})},
		{"AKS Cluster Admin Role", "0ab0b1a8-8aac-4efd-b8c2-3ee1fb270be8", []string{"cluster read", "admin credential"}},
		{"AKS Cluster User Role", "4abbcc35-e782-43d8-92c5-2d3f1bd2253f", []string{"cluster read", "user credential"}},
		{"AKS RBAC Reader", "7f6c6a51-bcf8-42ba-9220-52d62157d7db", join(around, namespaceReads)},
		{"AKS RBAC Writer", "a7ffa36f-339b-4b5c-8bdf-e2c188b2c0eb", join(around, namespaceWrites)},
		{"AKS RBAC Admin", "3498e952-d568-435e-9b2c-8d77e338d7f7", join(around, namespaceWrites, []string{"user credential", "bindings write", "nodes read"})},
		{"AKS RBAC Cluster Admin", "b1ff04bb-8a4e-4dc4-8eb5-8693973ce19b", join(around, namespaceWrites,
			[]string{"user credential", "bindings write", "nodes read", "quotas write", "namespaces write"})},
	}
}

func join(lists ...[]string) []string {
	var all []string
	for _, l := range lists {
		all = append(all, l...)
	}
	return all
}
