// SPDX-License-Identifier: Apache-2.0

package graph_test

import (
	"net/http/httptest"
	"testing"

	"github.com/hashicorp/go-retryablehttp"
	"github.com/manicminer/hamilton/environments"
	"github.com/manicminer/hamilton/msgraph"
	"github.com/manicminer/hamilton/odata"
	"golang.org/x/oauth2"

	"bastide.dev/identity"
)

// bearer is the client's authorizer.
type bearer string

func (b bearer) Token() (*oauth2.Token, error) {
	return &oauth2.Token{AccessToken: string(b), TokenType: "Bearer"}, nil
}
func (b bearer) AuxiliaryTokens() ([]*oauth2.Token, error) { return nil, nil }

// TestHamilton is the client of the azuread provider's second generation, which
// nobody here wrote: beta, the tenant in the path, and bodies full of nulls.
func TestHamilton(t *testing.T) {
	w := start(t)
	server := httptest.NewServer(w.service)
	defer server.Close()
	ctx, tenant := t.Context(), w.first.Tenant.ID
	base := func(c *msgraph.Client) {
		c.Endpoint, c.Authorizer, c.RetryableClient = environments.ApiEndpoint(server.URL), bearer(w.token), retryablehttp.NewClient()
		c.RetryableClient.RetryMax, c.RetryableClient.Logger = 0, nil
	}
	ok := func(status int, err error) {
		t.Helper()
		if err != nil || status > 299 {
			t.Fatalf("%d %v", status, err)
		}
	}
	users, groups, apps, sps := msgraph.NewUsersClient(tenant), msgraph.NewGroupsClient(tenant), msgraph.NewApplicationsClient(tenant), msgraph.NewServicePrincipalsClient(tenant)
	roles, grants, assigned := msgraph.NewDirectoryRolesClient(tenant), msgraph.NewDelegatedPermissionGrantsClient(tenant), msgraph.NewServicePrincipalsAppRoleAssignmentsClient(tenant)
	for _, c := range []*msgraph.Client{&users.BaseClient, &groups.BaseClient, &apps.BaseClient, &sps.BaseClient, &roles.BaseClient, &grants.BaseClient, &assigned.BaseClient} {
		base(c)
	}
	user, status, err := users.Create(ctx, msgraph.User{AccountEnabled: new(true), DisplayName: new("Alice"), MailNickname: new("alice"), UserPrincipalName: new("alice@test"),
		PasswordProfile: &msgraph.UserPasswordProfile{Password: new("a long first one"), ForceChangePasswordNextSignIn: new(false)}})
	ok(status, err)
	user.JobTitle = msgraph.NullableString("Mason")
	status, err = users.Update(ctx, msgraph.User{DirectoryObject: msgraph.DirectoryObject{ID: user.ID}, JobTitle: msgraph.NullableString("Mason"), ShowInAddressList: new(true)})
	ok(status, err)
	found, status, err := users.List(ctx, odata.Query{Filter: "jobTitle eq 'Mason'"})
	if ok(status, err); len(*found) != 1 {
		t.Errorf("%v", *found)
	}
	owner := msgraph.DirectoryObject{ID: user.ID, ODataId: (*odata.Id)(new(server.URL + "/v1.0/directoryObjects/" + *user.ID))}
	group, status, err := groups.Create(ctx, msgraph.Group{DisplayName: new("masons"), MailEnabled: new(false), MailNickname: new("masons"), SecurityEnabled: new(true),
		Owners: &msgraph.Owners{owner}, Members: &msgraph.Members{owner}})
	ok(status, err)
	_, status, err = groups.GetMember(ctx, *group.ID, *user.ID)
	ok(status, err)
	status, err = groups.RemoveMembers(ctx, *group.ID, &[]string{*user.ID})
	ok(status, err)
	group.Members = &msgraph.Members{owner}
	status, err = groups.AddMembers(ctx, group)
	ok(status, err)
	members, status, err := groups.ListMembers(ctx, *group.ID)
	if ok(status, err); len(*members) != 1 || (*members)[0] != *user.ID {
		t.Errorf("%v", *members)
	}
	app, status, err := apps.Create(ctx, msgraph.Application{DisplayName: new("site"), Owners: &msgraph.Owners{owner}, SignInAudience: new("AzureADMyOrg"),
		Web: &msgraph.ApplicationWeb{RedirectUris: &[]string{"https://site.test/"}, ImplicitGrantSettings: &msgraph.ImplicitGrantSettings{}}, Api: &msgraph.ApplicationApi{}})
	ok(status, err)
	secret, status, err := apps.AddPassword(ctx, *app.ID, msgraph.PasswordCredential{DisplayName: new("one")})
	if ok(status, err); secret.SecretText == nil || *secret.SecretText == "" {
		t.Error("no secret")
	}
	status, err = apps.RemovePassword(ctx, *app.ID, *secret.KeyId)
	ok(status, err)
	_, status, err = apps.GetOwner(ctx, *app.ID, *user.ID)
	ok(status, err)
	fic, status, err := apps.CreateFederatedIdentityCredential(ctx, *app.ID, msgraph.FederatedIdentityCredential{Audiences: &[]string{"api://AzureADTokenExchange"},
		Issuer: new("https://oidc.test/"), Name: new("pod-1"), Subject: new("system:serviceaccount:a:b"), Description: msgraph.NullableString("d")})
	ok(status, err)
	fic.Description = msgraph.NullableString("")
	status, err = apps.UpdateFederatedIdentityCredential(ctx, *app.ID, *fic)
	ok(status, err)
	sp, status, err := sps.Create(ctx, msgraph.ServicePrincipal{AppId: app.AppId, AccountEnabled: new(true), Tags: &[]string{"a"}, AppRoleAssignmentRequired: new(false)})
	ok(status, err)
	graphs, status, err := sps.List(ctx, odata.Query{Filter: "appId eq '" + identity.AppGraph + "'"})
	if ok(status, err); len(*graphs) != 1 {
		t.Fatalf("%v", *graphs)
	}
	graph := (*graphs)[0]
	_, status, err = assigned.Assign(ctx, *sp.ID, *graph.ID, "df021288-bdef-4463-88db-98f22de89214")
	ok(status, err)
	grant, status, err := grants.Create(ctx, msgraph.DelegatedPermissionGrant{ClientId: sp.ID, ResourceId: graph.ID, ConsentType: new("AllPrincipals"), Scopes: &[]string{"openid", "User.Read"}})
	ok(status, err)
	status, err = grants.Delete(ctx, *grant.Id)
	ok(status, err)
	role, status, err := roles.GetByTemplateId(ctx, identity.DirectoryReaders)
	ok(status, err)
	role.Members = &msgraph.Members{owner}
	status, err = roles.AddMembers(ctx, role)
	ok(status, err)
	status, err = roles.RemoveMembers(ctx, *role.ID, &[]string{*user.ID})
	ok(status, err)
	status, err = apps.Delete(ctx, *app.ID)
	ok(status, err)
	if _, status, err = sps.Get(ctx, *sp.ID, odata.Query{}); status != 404 || err == nil {
		t.Errorf("the service principal stays: %d %v", status, err)
	}
}
