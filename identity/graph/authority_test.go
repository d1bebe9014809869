// SPDX-License-Identifier: Apache-2.0

package graph_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"bastide.dev/identity"
)

// userToken is a user's, through a client.
func (w world) userToken(t *testing.T, id, client string) string {
	t.Helper()
	user, err := w.directory.User(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	app, err := w.directory.Application(t.Context(), client)
	if err != nil {
		t.Fatal(err)
	}
	r, err := w.directory.Resource(t.Context(), "https://graph.test")
	if err != nil {
		t.Fatal(err)
	}
	token, err := w.directory.UserToken(t.Context(), identity.UserGrant{User: user, Client: app, Resource: r, Scopes: []string{"Directory.AccessAsUser.All"}})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// newApp makes an application with a service principal that has Graph's permissions.
func (w world) newApp(t *testing.T, name string, permissions ...string) identity.ServicePrincipal {
	t.Helper()
	sp, _, err := w.directory.CreateApplication(t.Context(), name, 1<<40)
	if err != nil {
		t.Fatal(err)
	}
	resource, err := w.directory.ServicePrincipal(t.Context(), identity.AppGraph)
	if err != nil {
		t.Fatal(err)
	}
	graph, err := w.directory.Application(t.Context(), identity.AppGraph)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range permissions {
		i := slices.IndexFunc(graph.AppRoles, func(r identity.AppRole) bool { return r.Value == p })
		if _, err := w.directory.AssignAppRole(t.Context(), sp.ID, resource.ID, graph.AppRoles[i].ID); err != nil {
			t.Fatal(err)
		}
	}
	return sp
}

// TestAuthority asks everything of everybody: what isn't written here as allowed
// must be refused, and what is refused must change nothing.
func TestAuthority(t *testing.T) {
	w := start(t)
	tokens := map[string]string{}
	for name, role := range map[string]string{"ga": identity.GlobalAdministrator, "ua": identity.UserAdministrator, "gr": identity.GroupsAdministrator,
		"aa": identity.ApplicationAdministrator, "ca": identity.CloudApplicationAdmin, "pr": identity.PrivilegedRoleAdmin,
		"sr": identity.SecurityReader, "rd": identity.GlobalReader, "member": ""} {
		id := w.newUser(t, name)
		if role != "" {
			if _, err := w.directory.AssignRole(t.Context(), id, role); err != nil {
				t.Fatal(err)
			}
		}
		tokens[name] = w.userToken(t, id, identity.AppCLI)
	}
	scoped := w.newApp(t, "scoped client")
	gaID := w.must(t, 200, "GET", "/v1.0/users/ga@test", "")["id"].(string)
	if err := w.directory.Consent(t.Context(), gaID, scoped.AppID, identity.AppGraph, []string{"User.Read"}); err != nil {
		t.Fatal(err)
	}
	tokens["scoped"] = w.userToken(t, gaID, scoped.AppID) // whatever its token says
	apps := map[string]identity.ServicePrincipal{}
	for name, permission := range map[string]string{"none": "", "read": identity.DirectoryReadAll, "write": identity.DirectoryReadWriteAll, "users": identity.UserReadWriteAll,
		"apps": identity.ApplicationReadWriteAll, "owned": identity.ApplicationReadWriteOwned, "assign": identity.AppRoleAssignmentsWrite, "roles": identity.RoleManagementWrite} {
		var permissions []string
		if permission != "" {
			permissions = []string{permission}
		}
		apps[name] = w.newApp(t, "app "+name, permissions...)
		tokens[name] = w.tokenOf(t, apps[name], "https://graph.test")
	}
	plainUser, adminUser := w.newUser(t, "victim"), w.must(t, 200, "GET", "/v1.0/users/"+w.first.Administrator, "")["id"].(string)
	ownerOfAdmin := w.newUser(t, "owner") // owns an application with a role
	group, roleGroup := w.newGroup(t, "plain", ""), w.newGroup(t, "roles", `,"isAssignableToRole":true`)
	object := func(sp identity.ServicePrincipal) string {
		a, err := w.directory.Application(t.Context(), sp.AppID)
		if err != nil {
			t.Fatal(err)
		}
		return a.ID
	}
	plain := w.newApp(t, "plain app")
	plainApp, plainSP := object(plain), plain.ID
	first, err := w.directory.ServicePrincipal(t.Context(), w.first.PrincipalID)
	if err != nil {
		t.Fatal(err)
	}
	adminApp := object(first)
	if err := w.directory.AddOwner(t.Context(), adminApp, ownerOfAdmin); err != nil {
		t.Fatal(err)
	}
	graphSP, err := w.directory.ServicePrincipal(t.Context(), identity.AppGraph)
	if err != nil {
		t.Fatal(err)
	}
	bind := func(id string) string { return `{"@odata.id":"https://x/v1.0/directoryObjects/` + id + `"}` }
	everybody := "ga ua gr aa ca pr sr rd member read write"
	rows := []struct{ method, path, body, allowed string }{
		{"GET", "/v1.0/users", "", everybody + " users"},
		{"GET", "/v1.0/users/" + plainUser, "", everybody + " users"},
		{"GET", "/v1.0/groups/" + group + "/members", "", everybody},
		{"GET", "/v1.0/applications", "", everybody + " apps owned assign"},
		{"GET", "/v1.0/applications/" + plainApp, "", everybody + " apps assign"},
		{"GET", "/v1.0/servicePrincipals/" + apps["none"].ID, "", everybody + " apps assign none"},
		{"GET", "/v1.0/roleManagement/directory/roleAssignments", "", everybody + " roles"},
		{"GET", "/v1.0/me", "", "ga ua gr aa ca pr sr rd member scoped"},
		{"GET", "/v1.0/auditLogs/directoryAudits", "", "ga sr rd"},
		{"GET", "/v1.0/users/" + plainUser + "/authentication/methods", "", "ga ua pr rd"},
		{"PATCH", "/v1.0/users/" + plainUser, `{"jobTitle":"x"}`, "ga ua write users"},
		{"PATCH", "/v1.0/users/" + plainUser, `{"passwordProfile":{"password":"chosen by another"}}`, "ga ua"},
		{"PATCH", "/v1.0/users/" + adminUser, `{"jobTitle":"x"}`, "ga pr"},
		{"PATCH", "/v1.0/users/" + adminUser, `{"passwordProfile":{"password":"chosen by another"}}`, "ga pr"},
		{"PATCH", "/v1.0/users/" + adminUser, `{"accountEnabled":true}`, "ga pr"},
		{"PATCH", "/v1.0/users/" + ownerOfAdmin, `{"passwordProfile":{"password":"chosen by another"}}`, "ga pr"},
		{"POST", "/v1.0/users/" + adminUser + "/revokeSignInSessions", "", "ga pr"},
		{"PATCH", "/v1.0/groups/" + group, `{"description":"x"}`, "ga ua gr write"},
		{"PATCH", "/v1.0/groups/" + roleGroup, `{"description":"x"}`, "ga pr roles"},
		{"DELETE", "/v1.0/groups/" + roleGroup + "/members/" + plainUser + "/$ref", "", "ga pr roles"}, // 404 for whoever may
		{"POST", "/v1.0/groups/" + roleGroup + "/owners/$ref", bind(group), "ga pr roles"},
		{"PATCH", "/v1.0/applications/" + plainApp, `{"notes":"x"}`, "ga aa ca pr write apps"},
		{"POST", "/v1.0/applications/" + plainApp + "/addPassword", `{}`, "ga aa ca pr write apps"},
		{"POST", "/v1.0/servicePrincipals/" + plainSP + "/addPassword", `{}`, "ga aa ca pr write apps"},
		{"PATCH", "/v1.0/applications/" + adminApp, `{"notes":"x"}`, "ga pr"},
		{"POST", "/v1.0/applications/" + adminApp + "/addPassword", `{"passwordCredential":{"displayName":"x"}}`, "ga pr"},
		{"POST", "/v1.0/servicePrincipals/" + first.ID + "/addPassword", `{}`, "ga pr"},
		{"PATCH", "/v1.0/servicePrincipals/" + first.ID, `{"keyCredentials":[]}`, "ga pr"},
		{"POST", "/v1.0/applications/" + adminApp + "/owners/$ref", bind(group), "ga pr"},
		{"POST", "/v1.0/applications/" + adminApp + "/federatedIdentityCredentials", `{"name":"bad"}`, "ga pr"},
		{"POST", "/v1.0/applications/" + object(apps["write"]) + "/addPassword", `{}`, "ga pr"},
		{"POST", "/v1.0/roleManagement/directory/roleAssignments", `{"principalId":"` + group + `","roleDefinitionId":"` + identity.GlobalAdministrator + `","directoryScopeId":"/"}`, "ga pr roles"},
		{"POST", "/v1.0/directoryRoles/" + identity.GlobalAdministrator + "/members/$ref", bind(group), "ga pr roles"},
		{"POST", "/v1.0/servicePrincipals/" + plainSP + "/appRoleAssignments", `{"principalId":"` + plainSP + `","resourceId":"` + graphSP.ID + `","appRoleId":"11111111-1111-4111-8111-111111111111"}`, "ga pr assign"},
		{"POST", "/v1.0/oauth2PermissionGrants", `{"clientId":"` + plainSP + `","consentType":"AllPrincipals","resourceId":"` + graphSP.ID + `","scope":"Directory.AccessAsUser.All nonsense"}`, "ga pr"},
		{"POST", "/v1.0/oauth2PermissionGrants", `{"clientId":"` + plainSP + `","consentType":"AllPrincipals","resourceId":"` + graphSP.ID + `","scope":"User.Read nonsense"}`, "ga aa ca pr"},
		{"POST", "/v1.0/users", `{}`, "ga ua pr write users"},
		{"POST", "/v1.0/groups", `{}`, "ga ua gr write"},
		{"POST", "/v1.0/groups", `{"displayName":"x","mailEnabled":false,"mailNickname":"","securityEnabled":true,"isAssignableToRole":true,"members@odata.bind":["https://x/11111111-1111-4111-8111-111111111111"]}`, "ga"},
		{"POST", "/v1.0/applications", `{"displayName":""}`, "ga aa ca pr write apps owned"},
	}
	cells := 0
	for _, row := range rows {
		for name, token := range tokens {
			status, answer := w.ask(t, row.method, row.path, token, row.body)
			allowed := slices.Contains(strings.Fields(row.allowed), name)
			refused := status == 403 || strings.HasSuffix(row.path, "/me") && status == 400
			if allowed == refused {
				t.Errorf("%s: %s %s %.90s: %d %.200s", name, row.method, row.path, row.body, status, fmt.Sprint(answer))
			}
			cells++
		}
		// What was allowed may have ended sessions: everybody signs in again.
	}
	t.Logf("%d cells", cells)
}

// TestLastAdministrator can't be lost, by any way out.
func TestLastAdministrator(t *testing.T) {
	w := start(t)
	user, err := w.directory.User(t.Context(), w.first.Administrator)
	if err != nil {
		t.Fatal(err)
	}
	w.must(t, 204, "DELETE", "/v1.0/users/"+user.ID, "")
	first, err := w.directory.ServicePrincipal(t.Context(), w.first.PrincipalID)
	if err != nil {
		t.Fatal(err)
	}
	w.must(t, 403, "DELETE", "/v1.0/servicePrincipals/"+first.ID, "")
	w.must(t, 403, "PATCH", "/v1.0/servicePrincipals/"+first.ID, `{"accountEnabled":false}`)
	w.must(t, 403, "DELETE", "/v1.0/directoryRoles/"+identity.GlobalAdministrator+"/members/"+first.ID+"/$ref", "")
}

// TestOwners manages what it owns and nothing else.
func TestOwners(t *testing.T) {
	w := start(t)
	id := w.newUser(t, "owner")
	token := w.userToken(t, id, identity.AppCLI)
	app := w.must(t, 201, "POST", "/v1.0/applications", `{"displayName":"theirs","owners@odata.bind":["https://x/`+id+`"]}`)["id"].(string)
	other := w.must(t, 201, "POST", "/v1.0/applications", `{"displayName":"other"}`)["id"].(string)
	if status, answer := w.ask(t, "POST", "/v1.0/applications/"+app+"/addPassword", token, `{}`); status != 200 {
		t.Errorf("%d %v", status, answer)
	}
	if status, _ := w.ask(t, "POST", "/v1.0/applications/"+other+"/addPassword", token, `{}`); status != 403 {
		t.Errorf("another's: %d", status)
	}
	own := w.newApp(t, "maker", identity.ApplicationReadWriteOwned)
	maker := w.tokenOf(t, own, "https://graph.test")
	status, made := w.ask(t, "POST", "/v1.0/applications", maker, `{"displayName":"made"}`)
	if status != 201 {
		t.Fatalf("%d %v", status, made)
	}
	if status, _ := w.ask(t, "POST", "/v1.0/servicePrincipals", maker, `{"appId":"`+made["appId"].(string)+`"}`); status != 201 {
		t.Errorf("%d", status)
	}
	if status, answer := w.ask(t, "GET", "/v1.0/applications", maker, ""); status != 200 || len(ids(answer)) != 2 { // itself and what it made
		t.Errorf("%d %v", status, answer)
	}
	if status, _ := w.ask(t, "PATCH", "/v1.0/applications/"+other, maker, `{"notes":"x"}`); status != 403 {
		t.Errorf("another's: %d", status)
	}
	if status, _ := w.ask(t, "POST", "/v1.0/users/"+id+"/changePassword", token, `{"currentPassword":"wrong","newPassword":"a fresh long one"}`); status != 400 {
		t.Errorf("a wrong password: %d", status)
	}
	if status, answer := w.ask(t, "POST", "/v1.0/me/changePassword", token, `{"currentPassword":"long enough 1","newPassword":"a fresh long one"}`); status != 204 {
		t.Errorf("%d %v", status, answer)
	}
}
