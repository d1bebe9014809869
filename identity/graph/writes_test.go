// SPDX-License-Identifier: Apache-2.0

package graph_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"bastide.dev/identity"
)

// must asks as the owner and demands a status.
func (w world) must(t *testing.T, want int, method, path, body string) map[string]any {
	t.Helper()
	status, answer := w.ask(t, method, path, w.token, body)
	if status != want {
		t.Fatalf("%s %s %s: %d %v, want %d", method, path, body, status, answer, want)
	}
	return answer
}

func (w world) newUser(t *testing.T, name string) string {
	t.Helper()
	return w.must(t, 201, "POST", "/v1.0/users", fmt.Sprintf(`{"accountEnabled":true,"displayName":%q,"mailNickname":%q,"userPrincipalName":"%s@test",
		"passwordProfile":{"password":"long enough 1","forceChangePasswordNextSignIn":true}}`, name, name, name))["id"].(string)
}

func (w world) newGroup(t *testing.T, name, more string) string {
	t.Helper()
	return w.must(t, 201, "POST", "/v1.0/groups", fmt.Sprintf(`{"displayName":%q,"mailEnabled":false,"mailNickname":%q,"securityEnabled":true%s}`, name, name, more))["id"].(string)
}

func ids(answer map[string]any) []string {
	found := []string{}
	values, _ := answer["value"].([]any)
	for _, v := range values {
		if o, ok := v.(map[string]any); ok {
			found = append(found, o["id"].(string))
		} else {
			found = append(found, v.(string))
		}
	}
	return found
}

func ref(id string) string {
	return `{"@odata.id":"https://graph.microsoft.com/v1.0/directoryObjects/` + id + `"}`
}

func TestUserLife(t *testing.T) {
	w := start(t)
	id := w.newUser(t, "alice")
	got := w.must(t, 200, "GET", "/v1.0/users/alice@test", "")
	if got["id"] != id || got["mailNickname"] != "alice" || got["accountEnabled"] != true || got["passwordProfile"] != nil {
		t.Errorf("%v", got)
	}
	w.must(t, 204, "PATCH", "/v1.0/users/"+id, `{"jobTitle":"Mason","businessPhones":["1"],"otherMails":null,"userPrincipalName":"alicia@test","onPremisesImmutableId":null}`)
	got = w.must(t, 200, "GET", "/beta/users('alicia@test')?$select=jobTitle,businessPhones", "")
	if got["jobTitle"] != "Mason" || got["displayName"] != nil {
		t.Errorf("%v", got)
	}
	if status, _ := w.ask(t, "GET", "/v1.0/users/alice@test", w.token, ""); status != 404 {
		t.Errorf("the old name: %d", status)
	}
	w.newUser(t, "alice") // the name is free again
	status, answer := w.ask(t, "POST", "/v1.0/users", w.token, `{"displayName":"x","userPrincipalName":"x@elsewhere","shoeSize":44,"userType":"Guest","passwordProfile":{"password":"short"}}`)
	text := fmt.Sprint(answer)
	for _, problem := range []string{"accountEnabled", "mailNickname", "shoeSize", "userType"} {
		if status != 400 || !strings.Contains(text, problem) {
			t.Errorf("%s isn't named: %d %s", problem, status, text)
		}
	}
	for body, target := range map[string]string{
		`{"userPrincipalName":"alice@test"}`:               "userPrincipalName",
		`{"userPrincipalName":"x@other"}`:                  "userPrincipalName",
		`{"displayName":""}`:                               "displayName",
		`{"displayName":7}`:                                "displayName",
		`{"jobTitle":"a\u0000b"}`:                          "jobTitle",
		`{"id":"7"}`:                                       "id",
		`{"passwordProfile":{"password":"x"}}`:             "passwordProfile.password",
		`{"jobTitle":"` + strings.Repeat("x", 2000) + `"}`: "jobTitle",
	} {
		status, answer := w.ask(t, "PATCH", "/v1.0/users/"+id, w.token, body)
		if status != 400 || answer["error"].(map[string]any)["target"] != target {
			t.Errorf("%.60s: %d %v", body, status, answer)
		}
	}
	w.must(t, 204, "DELETE", "/v1.0/users/"+id, "")
	w.must(t, 404, "GET", "/v1.0/users/"+id, "")
	w.must(t, 404, "DELETE", "/v1.0/users/"+id, "")
}

func TestGroupLife(t *testing.T) {
	w := start(t)
	alice, bob := w.newUser(t, "alice"), w.newUser(t, "bob")
	inner := w.newGroup(t, "inner", `,"members@odata.bind":["https://graph.microsoft.com/v1.0/directoryObjects/`+alice+`"],"owners@odata.bind":["https://x/v1.0/users('`+bob+`')"]`)
	outer := w.newGroup(t, "outer", "")
	w.must(t, 204, "POST", "/v1.0/groups/"+outer+"/members/$ref", ref(inner))
	w.must(t, 204, "POST", "/v1.0/groups/"+inner+"/members/$ref", ref(outer)) // a circle
	w.must(t, 400, "POST", "/v1.0/groups/"+outer+"/members/$ref", ref(inner))
	w.must(t, 400, "POST", "/v1.0/groups/"+outer+"/members/$ref", ref(outer))
	w.must(t, 400, "POST", "/v1.0/groups/"+outer+"/members/$ref", ref("11111111-1111-4111-8111-111111111111"))
	w.must(t, 400, "POST", "/v1.0/groups/"+outer+"/members/$ref", `{"@odata.id":"https://x/../../etc"}`)
	for path, want := range map[string][]string{
		"/v1.0/groups/" + outer + "/members":                                                {inner},
		"/v1.0/groups/" + inner + "/members/microsoft.graph.user":                           {alice},
		"/v1.0/groups/" + inner + "/owners":                                                 {bob},
		"/v1.0/groups/" + outer + "/transitiveMembers/microsoft.graph.user":                 {alice},
		"/v1.0/users/" + alice + "/memberOf":                                                {inner},
		"/v1.0/users/" + alice + "/transitiveMemberOf?$select=id&$orderby=displayName desc": {outer, inner},
		"/v1.0/users/" + bob + "/ownedObjects":                                              {inner},
	} {
		path = strings.ReplaceAll(path, " ", "%20")
		if got := ids(w.must(t, 200, "GET", path, "")); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %v, want %v", path, got, want)
		}
	}
	if got := ids(w.must(t, 200, "POST", "/v1.0/users/"+alice+"/checkMemberGroups", `{"groupIds":["`+outer+`","`+bob+`"]}`)); fmt.Sprint(got) != fmt.Sprint([]string{outer}) {
		t.Errorf("checkMemberGroups: %v", got)
	}
	expanded := w.must(t, 200, "GET", "/v1.0/groups/"+inner+"?$expand=members($select=id),owners", "")
	if len(expanded["members"].([]any)) != 2 || len(expanded["owners"].([]any)) != 1 {
		t.Errorf("%v", expanded)
	}
	w.must(t, 204, "DELETE", "/v1.0/groups/"+outer+"/members/"+inner+"/$ref", "")
	w.must(t, 404, "DELETE", "/v1.0/groups/"+outer+"/members/"+inner+"/$ref", "")
	w.must(t, 204, "PATCH", "/v1.0/groups/"+outer, `{"description":"d","members@odata.bind":["https://x/v1.0/directoryObjects/`+alice+`","https://x/v1.0/directoryObjects/`+bob+`"]}`)
	w.must(t, 204, "DELETE", "/v1.0/users/"+alice, "")
	if got := ids(w.must(t, 200, "GET", "/v1.0/groups/"+outer+"/members", "")); fmt.Sprint(got) != fmt.Sprint([]string{bob}) {
		t.Errorf("a deleted user's membership stays: %v", got)
	}
	for _, body := range []string{`{"groupTypes":["Unified"]}`, `{"mailEnabled":true}`, `{"isAssignableToRole":true}`, `{"membershipRule":"user.x"}`, `{"securityEnabled":false}`, `{"visibility":"HiddenMembership"}`} {
		w.must(t, 400, "PATCH", "/v1.0/groups/"+outer, body)
	}
	w.must(t, 204, "DELETE", "/v1.0/groups/"+outer, "")
}

func certificate(t *testing.T, bits int) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "client"},
		NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}, &x509.Certificate{SerialNumber: big.NewInt(1)}, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(der)
}

func TestApplicationLife(t *testing.T) {
	w := start(t)
	// As the azuread provider sends it: most of it says nothing.
	app := w.must(t, 201, "POST", "/v1.0/applications", `{"displayName":"web","signInAudience":"AzureADMyOrg","identifierUris":["api://web"],
		"api":{"acceptMappedClaims":null,"knownClientApplications":[],"oauth2PermissionScopes":[{"id":"11111111-1111-4111-8111-111111111111","value":"use","type":"User","isEnabled":true,"adminConsentDisplayName":"Use","adminConsentDescription":"Use it"}],"requestedAccessTokenVersion":2},
		"appRoles":[{"id":"22222222-2222-4222-8222-222222222222","value":"writer","displayName":"Writer","description":"Writes","isEnabled":true,"allowedMemberTypes":["User","Application"]}],
		"web":{"homePageUrl":null,"redirectUris":["https://web.test/back"],"implicitGrantSettings":{"enableAccessTokenIssuance":false,"enableIdTokenIssuance":false}},
		"spa":{"redirectUris":[]},"publicClient":{"redirectUris":["http://localhost"]},"isDeviceOnlyAuthSupported":null,"oauth2RequirePostResponse":false,"optionalClaims":{"accessToken":[],"idToken":[],"saml2Token":[]},
		"requiredResourceAccess":[{"resourceAppId":"00000003-0000-0000-c000-000000000000","resourceAccess":[{"id":"e1fe6dd8-ba31-4d61-89e7-88639da4683d","type":"Scope"}]}],"tags":["a"]}`)
	id, appID := app["id"].(string), app["appId"].(string)
	byKey := w.must(t, 200, "GET", "/v1.0/applications(appId='"+appID+"')", "")
	if byKey["id"] != id || byKey["api"].(map[string]any)["requestedAccessTokenVersion"] != 2.0 || len(byKey["appRoles"].([]any)) != 1 {
		t.Errorf("%v", byKey)
	}
	if got := ids(w.must(t, 200, "GET", "/v1.0/applications/"+id+"/owners", "")); len(got) != 0 {
		t.Errorf("an administrator's application has owners: %v", got)
	}
	sp := w.must(t, 201, "POST", "/v1.0/servicePrincipals", `{"appId":"`+appID+`","accountEnabled":true}`)
	spID := sp["id"].(string)
	w.must(t, 409, "POST", "/v1.0/servicePrincipals", `{"appId":"`+appID+`"}`)
	w.must(t, 400, "POST", "/v1.0/servicePrincipals", `{"appId":"33333333-3333-4333-8333-333333333333"}`)
	w.must(t, 204, "PATCH", "/v1.0/applications/"+id, `{"displayName":"site"}`)
	if got := w.must(t, 200, "GET", "/v1.0/servicePrincipals/"+spID, ""); got["displayName"] != "site" || len(got["appRoles"].([]any)) != 1 {
		t.Errorf("%v", got)
	}
	secret := w.must(t, 200, "POST", "/v1.0/applications/"+id+"/addPassword", `{"passwordCredential":{"displayName":"rbac","endDateTime":"2029-01-01T00:00:00Z"}}`)
	if _, _, err := w.directory.CheckSecret(t.Context(), appID, secret["secretText"].(string), ""); err != nil {
		t.Error(err)
	}
	if got := fmt.Sprint(w.must(t, 200, "GET", "/v1.0/applications/"+id, "")); strings.Contains(got, secret["secretText"].(string)) {
		t.Error("a secret is shown again")
	}
	w.must(t, 400, "POST", "/v1.0/applications/"+id+"/addPassword", `{"passwordCredential":{"endDateTime":"2020-01-01T00:00:00Z"}}`)
	w.must(t, 204, "POST", "/v1.0/applications/"+id+"/removePassword", `{"keyId":"`+secret["keyId"].(string)+`"}`)
	if _, _, err := w.directory.CheckSecret(t.Context(), appID, secret["secretText"].(string), ""); err == nil {
		t.Error("a removed secret is good")
	}
	w.must(t, 204, "PATCH", "/v1.0/applications/"+id, `{"keyCredentials":[{"type":"AsymmetricX509Cert","usage":"Verify","key":"`+certificate(t, 2048)+`"}]}`)
	if a, err := w.directory.Application(t.Context(), appID); err != nil || len(a.Certificates) != 1 || a.Certificates[0].Name != "CN=client" {
		t.Errorf("%v %v", a.Certificates, err)
	}
	w.must(t, 400, "PATCH", "/v1.0/applications/"+id, `{"keyCredentials":[{"type":"Symmetric","usage":"Sign","key":"AAAA"}]}`)
	w.must(t, 400, "PATCH", "/v1.0/applications/"+id, `{"keyCredentials":[{"type":"AsymmetricX509Cert","usage":"Verify","key":"`+certificate(t, 1024)+`"}]}`)
	for _, body := range []string{
		`{"signInAudience":"AzureADMultipleOrgs"}`, `{"web":{"redirectUris":["http://web.test"]}}`, `{"web":{"redirectUris":["https://*.test"]}}`,
		`{"publicClient":{"redirectUris":["javascript:alert(1)"]}}`, `{"spa":{"redirectUris":["https://u@web.test/"]}}`, `{"web":{"implicitGrantSettings":{"enableIdTokenIssuance":true}}}`,
		`{"identifierUris":["https://management.test"]}`, `{"identifierUris":["https://management.azure.com"]}`, `{"identifierUris":["https://example.com"]}`, `{"identifierUris":["api://a","api://a"]}`,
		`{"identifierUris":["api://11111111-1111-4111-8111-111111111111"]}`,
		`{"optionalClaims":{"accessToken":[{"name":"email"}]}}`, `{"passwordCredentials":[{"secretText":"mine"}]}`, `{"appRoles":[{"id":"x","value":"v","displayName":"d","allowedMemberTypes":["User"]}]}`,
		`{"groupMembershipClaims":"Everything"}`, `{"appId":"33333333-3333-4333-8333-333333333333"}`,
	} {
		if status, answer := w.ask(t, "PATCH", "/v1.0/applications/"+id, w.token, body); status != 400 {
			t.Errorf("%s: %d %v", body, status, answer)
		}
	}
	other := w.must(t, 201, "POST", "/v1.0/applications", `{"displayName":"other"}`)
	w.must(t, 400, "PATCH", "/v1.0/applications/"+other["id"].(string), `{"identifierUris":["api://WEB"]}`)
	w.must(t, 204, "DELETE", "/v1.0/applications/"+id, "")
	w.must(t, 404, "GET", "/v1.0/servicePrincipals/"+spID, "")
	w.must(t, 204, "PATCH", "/v1.0/applications/"+other["id"].(string), `{"identifierUris":["api://web"]}`) // free again
}

func TestFederatedCredentials(t *testing.T) {
	w := start(t)
	app := w.must(t, 201, "POST", "/v1.0/applications", `{"displayName":"web"}`)
	under := "/v1.0/applications/" + app["id"].(string) + "/federatedIdentityCredentials"
	body := `{"name":"fic-1","issuer":"https://oidc.test/","subject":"system:serviceaccount:a:b","audiences":["api://AzureADTokenExchange"]}`
	first := w.must(t, 201, "POST", under, body)
	w.must(t, 409, "POST", under, body)
	w.must(t, 204, "PATCH", under+"/"+first["id"].(string), `{"subject":"system:serviceaccount:a:c","description":"d"}`)
	w.must(t, 201, "PATCH", under+"(name='fic-2')", `{"issuer":"https://oidc.test/","subject":"s","audiences":["x"]}`)
	w.must(t, 204, "PATCH", under+"(name='fic-2')", `{"issuer":"https://oidc.test/","subject":"t","audiences":["x"]}`)
	got := w.must(t, 200, "GET", under+"/fic-2", "")
	if got["subject"] != "t" || len(ids(w.must(t, 200, "GET", under, ""))) != 2 {
		t.Errorf("%v", got)
	}
	for _, bad := range []string{`{"name":"x y z","issuer":"https://i","subject":"s","audiences":["a"]}`, `{"name":"fic-3","issuer":"http://i","subject":"s","audiences":["a"]}`,
		`{"name":"fic-3","issuer":"https://i","subject":"","audiences":["a"]}`, `{"name":"fic-3","issuer":"https://i","subject":"s","audiences":["a","b"]}`} {
		w.must(t, 400, "POST", under, bad)
	}
	w.must(t, 204, "DELETE", under+"/"+first["id"].(string), "")
	w.must(t, 404, "GET", under+"/"+first["id"].(string), "")
}

func TestPages(t *testing.T) {
	w := start(t)
	for i := range 7 {
		w.newGroup(t, fmt.Sprintf("g%d", i), "")
	}
	var seen []string
	target := "/v1.0/groups?$top=3&$count=true&$orderby=displayName%20desc&$select=id,displayName"
	for pages := 0; target != ""; pages++ {
		answer := w.must(t, 200, "GET", target, "")
		if answer["@odata.count"] != 7.0 || pages > 3 {
			t.Fatalf("%v", answer)
		}
		for _, v := range answer["value"].([]any) {
			seen = append(seen, v.(map[string]any)["displayName"].(string))
		}
		next, _ := answer["@odata.nextLink"].(string)
		u, err := url.Parse(next)
		if err != nil || next != "" && u.Host != "graph.test" {
			t.Fatalf("%q: %v", next, err)
		}
		if target = ""; next != "" {
			target = u.RequestURI()
		}
	}
	if strings.Join(seen, " ") != "g6 g5 g4 g3 g2 g1 g0" {
		t.Errorf("%v", seen)
	}
	if got := ids(w.must(t, 200, "GET", "/v1.0/groups?$search="+url.QueryEscape(`"displayName:G3"`), "")); len(got) != 1 {
		t.Errorf("%v", got)
	}
	for _, bad := range []string{"$top=0", "$top=1000", "$skiptoken=!", "$orderby=a%20b%20c", "$search=x", "$expand=shoes", "$count=perhaps", "$top=1&$top=2"} {
		w.must(t, 400, "GET", "/v1.0/groups?"+bad, "")
	}
}

func TestRolesAndGrants(t *testing.T) {
	w := start(t)
	alice := w.newUser(t, "alice")
	roles := w.must(t, 200, "GET", "/v1.0/directoryRoles?$filter="+url.QueryEscape("roleTemplateId eq '"+identity.GlobalReader+"'"), "")
	role := ids(roles)[0]
	w.must(t, 204, "POST", "/v1.0/directoryRoles/"+role+"/members/$ref", ref(alice))
	w.must(t, 400, "POST", "/v1.0/directoryRoles/"+role+"/members/$ref", ref(alice))
	if got := ids(w.must(t, 200, "GET", "/v1.0/directoryRoles(roleTemplateId='"+identity.GlobalReader+"')/members", "")); fmt.Sprint(got) != fmt.Sprint([]string{alice}) {
		t.Errorf("%v", got)
	}
	assigned := w.must(t, 200, "GET", "/v1.0/roleManagement/directory/roleAssignments?$filter="+url.QueryEscape("principalId eq '"+alice+"' and roleDefinitionId eq '"+identity.GlobalReader+"'"), "")
	w.must(t, 204, "DELETE", "/v1.0/roleManagement/directory/roleAssignments/"+ids(assigned)[0], "")
	if held := w.directory.RolesOf(alice); len(held) != 0 {
		t.Errorf("%v", held)
	}
	w.must(t, 400, "POST", "/v1.0/roleManagement/directory/roleAssignments", `{"principalId":"`+alice+`","roleDefinitionId":"`+identity.GlobalReader+`","directoryScopeId":"/administrativeUnits/1"}`)

	graphSP := w.must(t, 200, "GET", "/v1.0/servicePrincipals(appId='"+identity.AppGraph+"')", "")["id"].(string)
	w.must(t, 403, "PATCH", "/v1.0/servicePrincipals/"+graphSP, `{"accountEnabled":false}`)
	w.must(t, 403, "POST", "/v1.0/servicePrincipals/"+graphSP+"/addPassword", `{}`)
	app := w.must(t, 201, "POST", "/v1.0/applications", `{"displayName":"web"}`)
	sp := w.must(t, 201, "POST", "/v1.0/servicePrincipals", `{"appId":"`+app["appId"].(string)+`"}`)["id"].(string)
	body := `{"principalId":"` + sp + `","resourceId":"` + graphSP + `","appRoleId":"7ab1d382-f21e-4acd-a863-ba3e13f7da61"}`
	given := w.must(t, 201, "POST", "/v1.0/servicePrincipals/"+sp+"/appRoleAssignments", body)
	w.must(t, 400, "POST", "/v1.0/servicePrincipals/"+sp+"/appRoleAssignments", body)
	if got, err := w.directory.AppRolesOf(t.Context(), sp, identity.AppGraph); err != nil || fmt.Sprint(got) != "[Directory.Read.All]" {
		t.Errorf("%v %v", got, err)
	}
	if got := ids(w.must(t, 200, "GET", "/v1.0/servicePrincipals/"+graphSP+"/appRoleAssignedTo", "")); len(got) != 1 {
		t.Errorf("%v", got)
	}
	w.must(t, 204, "DELETE", "/v1.0/servicePrincipals/"+sp+"/appRoleAssignments/"+given["id"].(string), "")

	grant := w.must(t, 201, "POST", "/v1.0/oauth2PermissionGrants", `{"clientId":"`+sp+`","consentType":"AllPrincipals","resourceId":"`+graphSP+`","scope":"User.Read openid"}`)
	if got, err := w.directory.Consented(t.Context(), alice, app["appId"].(string), identity.AppGraph); err != nil || fmt.Sprint(got) != "[User.Read openid]" {
		t.Errorf("%v %v", got, err)
	}
	w.must(t, 400, "PATCH", "/v1.0/oauth2PermissionGrants/"+grant["id"].(string), `{"scope":"Mind.Read"}`)
	w.must(t, 204, "PATCH", "/v1.0/oauth2PermissionGrants/"+grant["id"].(string), `{"scope":"User.Read"}`)
	w.must(t, 204, "DELETE", "/v1.0/servicePrincipals/"+sp, "")
	if got := ids(w.must(t, 200, "GET", "/v1.0/oauth2PermissionGrants", "")); len(got) != 0 {
		t.Errorf("a deleted client's consent stays: %v", got)
	}
}

func TestAuditLog(t *testing.T) {
	w := start(t)
	id := w.newUser(t, "alice")
	w.must(t, 204, "PATCH", "/v1.0/users/"+id, `{"jobTitle":"Mason","passwordProfile":{"password":"another long one"}}`)
	answer := w.must(t, 200, "GET", "/v1.0/auditLogs/directoryAudits?$filter="+url.QueryEscape("activityDateTime ge "+time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)+
		" and activityDisplayName eq 'Update user' and initiatedBy/app/servicePrincipalId eq '"+w.first.PrincipalID+"'"), "")
	if len(ids(answer)) != 1 {
		t.Fatalf("%v", answer)
	}
	data, err := json.Marshal(answer)
	if err != nil || !strings.Contains(string(data), `"newValue":"\"Mason\""`) || !strings.Contains(string(data), "198.51.100.7") {
		t.Errorf("%s %v", data, err)
	}
	all, err := json.Marshal(w.must(t, 200, "GET", "/v1.0/auditLogs/directoryAudits", ""))
	if err != nil || strings.Contains(string(all), "argon2id") || strings.Contains(string(all), "another long one") || !strings.Contains(string(all), "Reset user password") {
		t.Errorf("%s %v", all, err)
	}
	status, _ := w.ask(t, http.MethodGet, "/v1.0/auditLogs/directoryAudits", w.userToken(t, id, identity.AppCLI), "")
	if status != 403 {
		t.Errorf("anybody reads the log: %d", status)
	}
}
