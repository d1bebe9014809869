// SPDX-License-Identifier: Apache-2.0

package testcloud_test

import (
	"slices"
	"strings"
	"testing"

	"bastide.dev/testcloud"
)

// TestAzAD drives the directory with the machine's unmodified az.
func TestAzAD(t *testing.T) {
	c := testcloud.Start(t, "b-ad")
	login(t, c)
	t.Run("users and groups", func(t *testing.T) { azUsersAndGroups(t, c) })
	t.Run("applications", func(t *testing.T) { azApplications(t, c) })
	t.Run("service principal", func(t *testing.T) { azPrincipal(t, c) })
	t.Run("a member", func(t *testing.T) { azMember(t, c) })
	if log := c.Must(t, "directory", "log"); !strings.Contains(log, "Add member to group") || !strings.Contains(log, c.Env["AZURE_CLIENT_ID"]) || strings.Contains(log, "argon2id") {
		t.Errorf("the log says:\n%s", log)
	}
}

type named struct {
	ID                string
	AppID             string
	DisplayName       string
	UserPrincipalName string
}

func shownNames(all []named) []string {
	var found []string
	for _, n := range all {
		found = append(found, n.DisplayName)
	}
	slices.Sort(found)
	return found
}

func azUsersAndGroups(t *testing.T, c *testcloud.Cloud) {
	domain := strings.TrimPrefix(c.Env["BASTIDE_DOMAIN"], ".")
	if domain == "" {
		domain = strings.SplitN(testcloud.JSON[[]named](t, c, "az", "ad", "user", "list")[0].UserPrincipalName, "@", 2)[1]
	}
	alice := testcloud.JSON[named](t, c, "az", "ad", "user", "create", "--display-name", "Alice", "--user-principal-name", "alice@"+domain, "--password", "a long first one")
	if alice.UserPrincipalName != "alice@"+domain {
		t.Errorf("%+v", alice)
	}
	c.Run(t, "az", "ad", "user", "update", "--id", "alice@"+domain, "--display-name", "Alice A.", "--account-enabled", "true")
	if got := testcloud.JSON[named](t, c, "az", "ad", "user", "show", "--id", "alice@"+domain); got.DisplayName != "Alice A." {
		t.Errorf("%+v", got)
	}
	if got := testcloud.JSON[[]named](t, c, "az", "ad", "user", "list", "--filter", "startswith(displayName,'Ali')"); len(got) != 1 {
		t.Errorf("%+v", got)
	}
	inner := testcloud.JSON[named](t, c, "az", "ad", "group", "create", "--display-name", "inner", "--mail-nickname", "inner", "--description", "within")
	c.Run(t, "az", "ad", "group", "create", "--display-name", "outer", "--mail-nickname", "outer")
	c.Run(t, "az", "ad", "group", "member", "add", "-g", "inner", "--member-id", alice.ID)
	c.Run(t, "az", "ad", "group", "member", "add", "-g", "outer", "--member-id", inner.ID)
	c.Run(t, "az", "ad", "group", "owner", "add", "-g", "outer", "--owner-object-id", alice.ID)
	if got := shownNames(testcloud.JSON[[]named](t, c, "az", "ad", "group", "member", "list", "-g", "outer")); !slices.Equal(got, []string{"inner"}) {
		t.Errorf("%v", got)
	}
	if got := shownNames(testcloud.JSON[[]named](t, c, "az", "ad", "group", "owner", "list", "-g", "outer")); !slices.Equal(got, []string{"Alice A."}) {
		t.Errorf("%v", got)
	}
	if got := testcloud.JSON[struct{ Value bool }](t, c, "az", "ad", "group", "member", "check", "-g", "inner", "--member-id", alice.ID); !got.Value {
		t.Error("Alice is in the group, az says no")
	}
	if got := testcloud.JSON[[]named](t, c, "az", "ad", "user", "get-member-groups", "--id", "alice@"+domain); len(got) != 2 {
		t.Errorf("%+v", got)
	}
	c.Run(t, "az", "ad", "group", "member", "remove", "-g", "inner", "--member-id", alice.ID)
	c.Run(t, "az", "ad", "group", "delete", "-g", "outer")
	if _, stderr, err := c.Try(t.Context(), "az", "ad", "group", "show", "-g", "outer"); err == nil {
		t.Errorf("a deleted group is shown: %s", stderr)
	}
}

func azApplications(t *testing.T, c *testcloud.Cloud) {
	app := testcloud.JSON[named](t, c, "az", "ad", "app", "create", "--display-name", "site", "--web-redirect-uris", "https://site.test/back", "--identifier-uris", "api://site")
	got := testcloud.JSON[struct {
		ID             string
		IdentifierURIs []string
		Web            struct{ RedirectURIs []string }
	}](t, c, "az", "ad", "app", "show", "--id", "api://site")
	if got.ID != app.ID || !slices.Equal(got.Web.RedirectURIs, []string{"https://site.test/back"}) {
		t.Errorf("%+v", got)
	}
	c.Run(t, "az", "ad", "app", "update", "--id", app.AppID, "--display-name", "shop", "--public-client-redirect-uris", "http://localhost")
	secret := testcloud.JSON[struct{ Password string }](t, c, "az", "ad", "app", "credential", "reset", "--id", app.AppID, "--append", "--display-name", "second")
	if len(secret.Password) < 30 {
		t.Error("no secret")
	}
	if got := testcloud.JSON[[]struct{ DisplayName, KeyID string }](t, c, "az", "ad", "app", "credential", "list", "--id", app.AppID); len(got) != 1 || got[0].DisplayName != "second" {
		t.Errorf("%+v", got)
	} else {
		c.Run(t, "az", "ad", "app", "credential", "delete", "--id", app.AppID, "--key-id", got[0].KeyID)
	}
	c.Run(t, "az", "ad", "app", "federated-credential", "create", "--id", app.AppID, "--parameters",
		`{"name":"pod-1","issuer":"https://oidc.test/","subject":"system:serviceaccount:a:b","audiences":["api://AzureADTokenExchange"]}`)
	if got := testcloud.JSON[[]struct{ Name string }](t, c, "az", "ad", "app", "federated-credential", "list", "--id", app.AppID); len(got) != 1 || got[0].Name != "pod-1" {
		t.Errorf("%+v", got)
	}
	c.Run(t, "az", "ad", "app", "federated-credential", "delete", "--id", app.AppID, "--federated-credential-id", "pod-1")
	c.Run(t, "az", "ad", "app", "permission", "add", "--id", app.AppID, "--api", "00000003-0000-0000-c000-000000000000", "--api-permissions", "e1fe6dd8-ba31-4d61-89e7-88639da4683d=Scope")
	if got := testcloud.JSON[[]struct{ ResourceAppID string }](t, c, "az", "ad", "app", "permission", "list", "--id", app.AppID); len(got) != 1 {
		t.Errorf("%+v", got)
	}
	c.Run(t, "az", "ad", "sp", "create", "--id", app.AppID)
	c.Run(t, "az", "ad", "app", "permission", "grant", "--id", app.AppID, "--api", "00000003-0000-0000-c000-000000000000", "--scope", "User.Read")
	if got := testcloud.JSON[[]struct{ Scope string }](t, c, "az", "ad", "app", "permission", "list-grants", "--id", app.AppID); len(got) != 1 || !strings.Contains(got[0].Scope, "User.Read") {
		t.Errorf("%+v", got)
	}
	c.Run(t, "az", "ad", "app", "delete", "--id", app.AppID)
	if got := testcloud.JSON[[]named](t, c, "az", "ad", "sp", "list", "--display-name", "shop"); len(got) != 0 {
		t.Errorf("the service principal stays: %+v", got)
	}
}

func azPrincipal(t *testing.T, c *testcloud.Cloud) {
	made := testcloud.JSON[struct{ AppID, Password, Tenant string }](t, c, "az", "ad", "sp", "create-for-rbac", "--name", "runner")
	if made.AppID == "" || made.Password == "" {
		t.Fatalf("%+v", made)
	}
	got := testcloud.JSON[named](t, c, "az", "ad", "sp", "show", "--id", made.AppID)
	if got.DisplayName != "runner" {
		t.Errorf("%+v", got)
	}
	c.Run(t, "az", "ad", "sp", "update", "--id", made.AppID, "--set", "tags=[\"a\"]")
	renewed := testcloud.JSON[struct{ Password string }](t, c, "az", "ad", "sp", "credential", "reset", "--id", made.AppID)
	if renewed.Password == made.Password {
		t.Error("the same secret again")
	}
	c.Run(t, "az", "ad", "sp", "delete", "--id", made.AppID)
}

// azMember signs in as Alice, who may read and no more.
func azMember(t *testing.T, c *testcloud.Cloud) {
	users := testcloud.JSON[[]named](t, c, "az", "ad", "user", "list", "--filter", "startswith(displayName,'Ali')")
	c.Run(t, "az", "login", "-u", users[0].UserPrincipalName, "-p", "a long first one", "--allow-no-subscriptions")
	if got := testcloud.JSON[named](t, c, "az", "ad", "signed-in-user", "show"); got.ID != users[0].ID {
		t.Errorf("%+v", got)
	}
	c.Run(t, "az", "ad", "group", "list")
	if _, stderr, err := c.Try(t.Context(), "az", "ad", "group", "create", "--display-name", "mine", "--mail-nickname", "mine"); err == nil || !strings.Contains(stderr, "Insufficient privileges") {
		t.Errorf("a member writes: %v %s", err, stderr)
	}
}
