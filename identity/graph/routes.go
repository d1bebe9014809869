// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"maps"

	"bastide.dev/identity"
)

// kinds are the kinds of directory objects, made once.
type kinds struct {
	user        *kind[identity.User]
	group       *kind[identity.Group]
	application *kind[identity.Application]
	principal   *kind[actor]
}

func newKinds() kinds {
	return kinds{userKind(), groupKind(), applicationKind(), principalKind()}
}

// routes is every endpoint: method and path in the form that canonical gives it.
func (s *Service) routes() map[string]answerer {
	all := map[string]answerer{}
	for _, part := range []map[string]answerer{s.userRoutes(), s.groupRoutes(), s.applicationRoutes(), s.principalRoutes(), s.roleRoutes(), s.otherRoutes()} {
		maps.Copy(all, part)
	}
	return all
}

// listOf answers a collection and its $count, to whoever may read the area. An
// application without permissions gets of applications what it may see.
func (s *Service) listOf(of area, name string, read func(*request) ([]item, error), counting bool) answerer {
	return func(r *request) (any, error) {
		if of != applicationArea || r.may.user {
			if err := r.mayRead(of); err != nil {
				return nil, err
			}
		} else if !r.may.reads(of) && !r.may.has(identity.ApplicationReadWriteOwned) {
			return nil, denied()
		}
		found, err := read(r)
		if err != nil {
			return nil, err
		}
		if counting {
			return s.count(r, found)
		}
		return s.collection(r, name, found)
	}
}

func (s *Service) userRoutes() map[string]answerer {
	routes := map[string]answerer{
		"GET /v1.0/users":                                    s.listOf(userArea, "users", s.userItems, false),
		"GET /v1.0/users/$count":                             s.listOf(userArea, "users", s.userItems, true),
		"POST /v1.0/users":                                   s.createUser,
		"PATCH /v1.0/users/{id}":                             s.updateUser,
		"DELETE /v1.0/users/{id}":                            s.deleteUser,
		"PUT /v1.0/users/{id}/manager/$ref":                  refused("Bastide's directory has no managers of users."),
		"GET /v1.0/users/{id}/oauth2PermissionGrants":        s.grantsOfUser,
		"GET /v1.0/users/{id}/appRoleAssignments":            s.appRoleList(false),
		"POST /v1.0/users/{id}/appRoleAssignments":           s.assignAppRole,
		"GET /v1.0/users/{id}/appRoleAssignments/{other}":    s.appRoleOne,
		"DELETE /v1.0/users/{id}/appRoleAssignments/{other}": s.unassignAppRole,
	}
	// /me is the caller's own user.
	for _, under := range []string{"/v1.0/users/{id}", "/v1.0/me"} {
		maps.Copy(routes, map[string]answerer{
			"GET " + under:                                     s.getUser,
			"GET " + under + "/manager":                        s.noManager,
			"GET " + under + "/manager/$ref":                   s.noManager,
			"POST " + under + "/changePassword":                s.changePassword,
			"POST " + under + "/revokeSignInSessions":          s.revokeSessions,
			"GET " + under + "/ownedObjects":                   s.related("ownedObjects"),
			"GET " + under + "/ownedObjects/{type}":            s.related("ownedObjects"),
			"GET " + under + "/authentication/methods":         s.methods(""),
			"GET " + under + "/authentication/methods/{other}": s.method(""),
		})
		for segment, kind := range map[string]string{"passwordMethods": "passwordAuthenticationMethod",
			"softwareOathMethods": "softwareOathAuthenticationMethod", "fido2Methods": "fido2AuthenticationMethod"} {
			routes["GET "+under+"/authentication/"+segment] = s.methods(kind)
			routes["GET "+under+"/authentication/"+segment+"/{other}"] = s.method(kind)
			if segment != "passwordMethods" {
				routes["DELETE "+under+"/authentication/"+segment+"/{other}"] = s.deleteMethod(kind)
			}
		}
		maps.Copy(routes, s.membershipRoutes(under))
	}
	return routes
}

// membershipRoutes ask what an object is in.
func (s *Service) membershipRoutes(under string) map[string]answerer {
	return map[string]answerer{
		"GET " + under + "/memberOf":                  s.related("memberOf"),
		"GET " + under + "/memberOf/{type}":           s.related("memberOf"),
		"GET " + under + "/transitiveMemberOf":        s.related("transitiveMemberOf"),
		"GET " + under + "/transitiveMemberOf/{type}": s.related("transitiveMemberOf"),
		"POST " + under + "/getMemberGroups":          s.groupIDs(false, false),
		"POST " + under + "/getMemberObjects":         s.groupIDs(true, false),
		"POST " + under + "/checkMemberGroups":        s.groupIDs(false, true),
		"POST " + under + "/checkMemberObjects":       s.groupIDs(true, true),
	}
}

// ownerRoutes are those of whoever has owners.
func (s *Service) ownerRoutes(under string) map[string]answerer {
	return map[string]answerer{
		"GET " + under + "/owners":                 s.related("owners"),
		"GET " + under + "/owners/$ref":            s.related("owners"),
		"GET " + under + "/owners/$count":          s.related("owners"),
		"GET " + under + "/owners/{type}":          s.related("owners"),
		"POST " + under + "/owners/$ref":           s.addOwner,
		"GET " + under + "/owners/{other}/$ref":    s.relatedOne("owners"),
		"DELETE " + under + "/owners/{other}/$ref": s.removeOwner,
	}
}

func (s *Service) groupRoutes() map[string]answerer {
	const under = "/v1.0/groups/{id}"
	routes := map[string]answerer{
		"GET /v1.0/groups":                                s.listOf(groupArea, "groups", s.groupItems, false),
		"GET /v1.0/groups/$count":                         s.listOf(groupArea, "groups", s.groupItems, true),
		"POST /v1.0/groups":                               s.createGroup,
		"GET " + under:                                    s.getGroup,
		"PATCH " + under:                                  s.updateGroup,
		"DELETE " + under:                                 s.deleteGroup,
		"GET " + under + "/members":                       s.related("members"),
		"GET " + under + "/members/$ref":                  s.related("members"),
		"GET " + under + "/members/$count":                s.related("members"),
		"GET " + under + "/members/{type}":                s.related("members"),
		"POST " + under + "/members/$ref":                 s.addMember,
		"GET " + under + "/members/{other}/$ref":          s.relatedOne("members"),
		"DELETE " + under + "/members/{other}/$ref":       s.removeMember,
		"GET " + under + "/transitiveMembers":             s.related("transitiveMembers"),
		"GET " + under + "/transitiveMembers/$count":      s.related("transitiveMembers"),
		"GET " + under + "/transitiveMembers/{type}":      s.related("transitiveMembers"),
		"GET " + under + "/appRoleAssignments":            s.appRoleList(false),
		"POST " + under + "/appRoleAssignments":           s.assignAppRole,
		"GET " + under + "/appRoleAssignments/{other}":    s.appRoleOne,
		"DELETE " + under + "/appRoleAssignments/{other}": s.unassignAppRole,
	}
	maps.Copy(routes, s.membershipRoutes(under))
	maps.Copy(routes, s.ownerRoutes(under))
	return routes
}

func (s *Service) applicationRoutes() map[string]answerer {
	const under = "/v1.0/applications/{id}"
	const federated = under + "/federatedIdentityCredentials"
	routes := map[string]answerer{
		"GET /v1.0/applications":              s.listOf(applicationArea, "applications", s.applicationItems, false),
		"GET /v1.0/applications/$count":       s.listOf(applicationArea, "applications", s.applicationItems, true),
		"POST /v1.0/applications":             s.createApplication,
		"GET " + under:                        s.getApplication,
		"PATCH " + under:                      s.updateApplication,
		"DELETE " + under:                     s.deleteApplication,
		"POST " + under + "/addPassword":      s.addPassword(false),
		"POST " + under + "/removePassword":   s.removePassword(false),
		"POST " + under + "/addKey":           refused("addKey is not implemented: certificates are written as keyCredentials of the application."),
		"POST " + under + "/removeKey":        refused("removeKey is not implemented: certificates are written as keyCredentials of the application."),
		"GET " + federated:                    s.federatedList,
		"POST " + federated:                   s.createFederated,
		"GET " + federated + "/{other}":       s.federatedOne,
		"PATCH " + federated + "/{other}":     s.updateFederated,
		"DELETE " + federated + "/{other}":    s.deleteFederated,
		"GET /v1.0/applicationTemplates":      refused("Application templates are not implemented: there is no gallery."),
		"GET /v1.0/applicationTemplates/{id}": refused("Application templates are not implemented: there is no gallery."),
	}
	maps.Copy(routes, s.ownerRoutes(under))
	return routes
}

func (s *Service) principalRoutes() map[string]answerer {
	const under = "/v1.0/servicePrincipals/{id}"
	routes := map[string]answerer{
		"GET /v1.0/servicePrincipals":                     s.listOf(applicationArea, "servicePrincipals", s.principalItems, false),
		"GET /v1.0/servicePrincipals/$count":              s.listOf(applicationArea, "servicePrincipals", s.principalItems, true),
		"POST /v1.0/servicePrincipals":                    s.createPrincipal,
		"GET " + under:                                    s.getPrincipal,
		"PATCH " + under:                                  s.updatePrincipal,
		"DELETE " + under:                                 s.deletePrincipal,
		"POST " + under + "/addPassword":                  s.addPassword(true),
		"POST " + under + "/removePassword":               s.removePassword(true),
		"GET " + under + "/ownedObjects":                  s.related("ownedObjects"),
		"GET " + under + "/ownedObjects/{type}":           s.related("ownedObjects"),
		"GET " + under + "/oauth2PermissionGrants":        s.grantList,
		"GET " + under + "/appRoleAssignments":            s.appRoleList(false),
		"POST " + under + "/appRoleAssignments":           s.assignAppRole,
		"GET " + under + "/appRoleAssignments/{other}":    s.appRoleOne,
		"DELETE " + under + "/appRoleAssignments/{other}": s.unassignAppRole,
		"GET " + under + "/appRoleAssignedTo":             s.appRoleList(true),
		"POST " + under + "/appRoleAssignedTo":            s.assignAppRole,
		"GET " + under + "/appRoleAssignedTo/{other}":     s.appRoleOne,
		"DELETE " + under + "/appRoleAssignedTo/{other}":  s.unassignAppRole,
	}
	maps.Copy(routes, s.membershipRoutes(under))
	maps.Copy(routes, s.ownerRoutes(under))
	return routes
}

func (s *Service) roleRoutes() map[string]answerer {
	const roles, management = "/v1.0/directoryRoles", "/v1.0/roleManagement/directory"
	template := func(_ string, role identity.DirectoryRole) object { return templateObject(role) }
	definition := func(_ string, role identity.DirectoryRole) object { return definitionObject(role) }
	return map[string]answerer{
		"GET " + roles:                                   s.roleList("directoryRoles", roleObject),
		"POST " + roles:                                  s.activateRole,
		"GET " + roles + "/{id}":                         s.roleOne("directoryRoles", roleObject),
		"GET " + roles + "/{id}/members":                 s.roleMembers,
		"GET " + roles + "/{id}/members/{type}":          s.roleMembers,
		"POST " + roles + "/{id}/members/$ref":           s.addRoleMember,
		"DELETE " + roles + "/{id}/members/{other}/$ref": s.removeRoleMember,
		"GET " + roles + "/{id}/members/{other}/$ref":    s.roleMember,
		"GET /v1.0/directoryRoleTemplates":               s.roleList("directoryRoleTemplates", template),
		"GET /v1.0/directoryRoleTemplates/{id}":          s.roleOne("directoryRoleTemplates", template),
		"GET " + management + "/roleDefinitions":         s.roleList("roleManagement/directory/roleDefinitions", definition),
		"GET " + management + "/roleDefinitions/{id}":    s.roleOne("roleManagement/directory/roleDefinitions", definition),
		"POST " + management + "/roleDefinitions":        refused("Custom directory roles are not implemented: the built-in ones are."),
		"GET " + management + "/roleAssignments":         s.roleAssignments,
		"POST " + management + "/roleAssignments":        s.assignRole,
		"GET " + management + "/roleAssignments/{id}":    s.roleAssignment,
		"DELETE " + management + "/roleAssignments/{id}": s.unassignRole,
	}
}

func (s *Service) otherRoutes() map[string]answerer {
	return map[string]answerer{
		"GET /v1.0/organization":                              s.ofTenant("organization", organizationObject),
		"GET /v1.0/organization/{id}":                         s.ofTenant("organization", organizationObject),
		"GET /v1.0/domains":                                   s.ofTenant("domains", domainObject),
		"GET /v1.0/domains/{id}":                              s.ofTenant("domains", domainObject),
		"GET /v1.0/directoryObjects/{id}":                     s.getObject,
		"DELETE /v1.0/directoryObjects/{id}":                  s.deleteObject,
		"POST /v1.0/directoryObjects/getByIds":                s.byIDs,
		"POST /v1.0/directoryObjects/{id}/getMemberGroups":    s.groupIDs(false, false),
		"POST /v1.0/directoryObjects/{id}/getMemberObjects":   s.groupIDs(true, false),
		"POST /v1.0/directoryObjects/{id}/checkMemberGroups":  s.groupIDs(false, true),
		"POST /v1.0/directoryObjects/{id}/checkMemberObjects": s.groupIDs(true, true),
		"GET /v1.0/oauth2PermissionGrants":                    s.grantList,
		"POST /v1.0/oauth2PermissionGrants":                   s.createGrant,
		"GET /v1.0/oauth2PermissionGrants/{id}":               s.getGrant,
		"PATCH /v1.0/oauth2PermissionGrants/{id}":             s.updateGrant,
		"DELETE /v1.0/oauth2PermissionGrants/{id}":            s.deleteGrant,
		"GET /v1.0/auditLogs/directoryAudits":                 s.audits,
		"GET /v1.0/auditLogs/directoryAudits/{id}":            s.audit,
		"GET /v1.0/directory/deletedItems/{type}":             refused("Deleted objects are not kept: a deletion is final."),
	}
}
