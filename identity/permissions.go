// SPDX-License-Identifier: Apache-2.0

package identity

import "strings"

// Application permissions of Microsoft Graph that the directory's API heeds, by
// the names that its app roles have.
const (
	DirectoryReadAll          = "Directory.Read.All"
	DirectoryReadWriteAll     = "Directory.ReadWrite.All"
	UserReadAll               = "User.Read.All"
	UserReadWriteAll          = "User.ReadWrite.All"
	GroupReadAll              = "Group.Read.All"
	GroupReadWriteAll         = "Group.ReadWrite.All"
	GroupMemberReadWriteAll   = "GroupMember.ReadWrite.All"
	ApplicationReadAll        = "Application.Read.All"
	ApplicationReadWriteAll   = "Application.ReadWrite.All"
	ApplicationReadWriteOwned = "Application.ReadWrite.OwnedBy"
	AppRoleAssignmentsWrite   = "AppRoleAssignment.ReadWrite.All"
	GrantsWrite               = "DelegatedPermissionGrant.ReadWrite.All"
	RoleManagementRead        = "RoleManagement.Read.Directory"
	RoleManagementWrite       = "RoleManagement.ReadWrite.Directory"
	AuditLogReadAll           = "AuditLog.Read.All"
	PolicyReadAll             = "Policy.Read.All"
	PolicyWriteConditional    = "Policy.ReadWrite.ConditionalAccess"
	DirectoryAccessAsUser     = "Directory.AccessAsUser.All" // delegated only
	UserReadOnly              = "User.Read"                  // delegated only: oneself
	UserReadBasicAll          = "User.ReadBasic.All"         // delegated only
)

// graphPermissions are Graph's, with the ids that Microsoft gave them: as an
// application's own (an app role) and as a user's (a scope). "" is: not of that sort.
var graphPermissions = []struct{ value, role, scope string }{
	{DirectoryReadAll, "7ab1d382-f21e-4acd-a863-ba3e13f7da61", "06da0dbc-49e2-44d2-8312-53f166ab848a"},
	{DirectoryReadWriteAll, "19dbc75e-c2e2-444c-a770-ec69d8559fc7", "c5366453-9fb0-48a5-a156-24f0c49a4b84"},
	{UserReadAll, "df021288-bdef-4463-88db-98f22de89214", "a154be20-db9c-4678-8ab7-66f6cc099a59"},
	{UserReadWriteAll, "741f803b-c850-494e-b5df-cde7c675a1ca", "204e0828-b5ca-4ad8-b9f3-f32a958e7cc4"},
	{GroupReadAll, "5b567255-7703-4780-807c-7be8301ae99b", "5f8c59db-677d-491f-a6b8-5f174b11ec1d"},
	{GroupReadWriteAll, "62a82d76-70ea-41e2-9197-370581804d09", "4e46008b-f24c-477d-8fff-7bb4ec7aafe0"},
	{GroupMemberReadWriteAll, "dbaae8cf-10b5-4b86-a4a1-f871c94c6695", ""},
	{ApplicationReadAll, "9a5d68dd-52b0-4cc2-bd40-abcf44ac3a30", "c79f8feb-a9db-4090-85f9-90d820caa0eb"},
	{ApplicationReadWriteAll, "1bfefb4e-e0b5-418b-a88f-73c46d2cc8e9", "bdfbf15f-ee85-4955-8675-146e8e5296b5"},
	{ApplicationReadWriteOwned, "18a4783c-866b-4cc7-a460-3d5e5662c884", ""},
	{AppRoleAssignmentsWrite, "06b708a9-e830-4db3-a914-8e69da51d44f", "84bccea3-f856-4a8a-967b-dbe0a3d53a64"},
	{GrantsWrite, "8e8e4742-1d95-4f68-9d56-6ee75648c72a", "41ce6ca6-6826-4807-84f1-1c82854f7ee5"},
	{RoleManagementRead, "483bed4a-2ad3-4361-a73b-c83ccdbdc53c", "741c54c3-0c1e-44a1-818b-3f97ab4e8c83"},
	{RoleManagementWrite, "9e3f62cf-ca93-4989-b6ce-bf83c28f9fe8", "d01b97e9-cbc0-49fe-810a-750afd5527a3"},
	{AuditLogReadAll, "b0afded3-3588-46d8-8b3d-9842eff778da", "e4c9e354-4dc5-45b8-9e7c-e1393b0b1a20"},
	{PolicyReadAll, "246dd0d5-5bd0-4def-940b-0421030a5b68", "572fea84-0151-49b2-9301-11cb16974376"},
	{PolicyWriteConditional, "01c0a623-fc9b-48e9-b794-0756f8e8f067", "ad902697-1014-4ef5-81ef-2b4301988e8c"},
	{DirectoryAccessAsUser, "", "0e263e50-5827-48a4-b97c-d940288653c7"},
	{UserReadOnly, "", "e1fe6dd8-ba31-4d61-89e7-88639da4683d"},
	{UserReadBasicAll, "", "b340eb25-3456-403f-be2f-af7a0d370277"},
	{"openid", "", "37f7f235-527c-4136-accd-4a02d197296e"},
	{"profile", "", "14dad69e-099b-42c9-810b-d002981feec1"},
	{"email", "", "64a6cdd6-aab1-4aaf-94b8-3cc8405e90d0"},
	{"offline_access", "", "7427e0e9-2fba-42fe-b0c0-848c9e6a8182"},
}

func graphAppRoles() []AppRole {
	var found []AppRole
	for _, p := range graphPermissions {
		if p.role != "" {
			found = append(found, AppRole{ID: p.role, Value: p.value, DisplayName: p.value, Description: "Allows the application " + p.value + ".",
				Enabled: true, Members: []string{"Application"}})
		}
	}
	return found
}

// graphScopes are what users can consent to; whatever reaches beyond themselves
// and the public part of the directory needs an administrator.
func graphScopes() []Scope {
	var found []Scope
	for _, p := range graphPermissions {
		if p.scope == "" {
			continue
		}
		kind := "User"
		if strings.HasSuffix(p.value, ".All") && p.value != UserReadBasicAll || strings.HasPrefix(p.value, "Policy.") || strings.HasPrefix(p.value, "RoleManagement.") {
			kind = "Admin"
		}
		found = append(found, delegated(p.scope, p.value, kind))
	}
	return found
}

func delegated(id, value, kind string) Scope {
	text := "Allows the application " + value + " in the name of the signed-in user."
	return Scope{ID: id, Value: value, Type: kind, Enabled: true, AdminConsentDisplayName: value, AdminConsentDescription: text,
		UserConsentDisplayName: value, UserConsentDescription: text}
}
