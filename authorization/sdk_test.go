// SPDX-License-Identifier: Apache-2.0

package authorization_test

import (
	"context"
	"errors"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	sdkarm "github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	auth "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/authorization/armauthorization/v2"
	groups "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/managementgroups/armmanagementgroups"

	"bastide.dev/rbac"
)

// token is an SDK credential of one of the directory's people.
type token string

func (t token) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: string(t), ExpiresOn: time.Now().Add(time.Hour)}, nil
}

// options point the Azure SDK at the front door.
func (w *world) options() *sdkarm.ClientOptions {
	w.t.Helper()
	server := httptest.NewTLSServer(w.front)
	w.t.Cleanup(server.Close)
	return &sdkarm.ClientOptions{ClientOptions: policy.ClientOptions{Transport: server.Client(), Retry: policy.RetryOptions{MaxRetries: -1}, Cloud: cloud.Configuration{
		ActiveDirectoryAuthorityHost: server.URL,
		Services:                     map[cloud.ServiceName]cloud.ServiceConfiguration{cloud.ResourceManager: {Endpoint: server.URL, Audience: server.URL}}}}}
}

// escaped is a filter as these clients want it: they put it into the address as it is.
func escaped(filter string) *string { return to.Ptr(url.PathEscape(filter)) }

func wantCode(t *testing.T, err error, code string) {
	t.Helper()
	var refused *azcore.ResponseError
	if !errors.As(err, &refused) || refused.ErrorCode != code {
		t.Errorf("error %v, want %s", err, code)
	}
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// all reads a pager to its end.
func all[T, V any](t *testing.T, pager *runtime.Pager[T], values func(T) []*V) []*V {
	t.Helper()
	var found []*V
	for pager.More() {
		page, err := pager.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, values(page)...)
	}
	return found
}

func TestSDKRoleAssignments(t *testing.T) {
	w := newWorld(t)
	options := w.options()
	client := must(auth.NewRoleAssignmentsClient(subID, token(admin), options))(t)
	role := "/subscriptions/" + subID + "/providers/Microsoft.Authorization/roleDefinitions/" + rbac.ReaderRole
	parameters := auth.RoleAssignmentCreateParameters{Properties: &auth.RoleAssignmentProperties{PrincipalID: to.Ptr(devs), RoleDefinitionID: &role}}
	made := must(client.Create(t.Context(), rg1, guid(1), parameters, nil))(t)
	if *made.Properties.PrincipalType != auth.PrincipalTypeGroup || *made.Properties.Scope != rg1 || made.Properties.CreatedOn.IsZero() {
		t.Errorf("made %+v", made.Properties)
	}
	_, err := client.Create(t.Context(), rg1, guid(2), parameters, nil)
	wantCode(t, err, "RoleAssignmentExists")
	got := must(client.GetByID(t.Context(), strings.TrimPrefix(*made.ID, "/"), nil))(t)
	if *got.Properties.RoleDefinitionID != role {
		t.Errorf("role %s", *got.Properties.RoleDefinitionID)
	}
	thing := rg1 + "/providers/Microsoft.Test/things/a"
	w.do(admin, "PUT", thing+v, `{"location":"eastus"}`).want(t, 201)
	parameters.Properties.PrincipalID = to.Ptr(alice)
	must(client.Create(t.Context(), thing, guid(3), parameters, nil))(t)
	must(client.Create(t.Context(), thing+"/namespaces/one", guid(4), parameters, nil))(t)

	count := func(want int, what string, found []*auth.RoleAssignment) {
		t.Helper()
		if len(found) != want {
			t.Errorf("%s: %d, want %d", what, len(found), want)
		}
	}
	scope := func(scope, filter string) []*auth.RoleAssignment {
		return all(t, client.NewListForScopePager(scope, &auth.RoleAssignmentsClientListForScopeOptions{Filter: escaped(filter)}),
			func(p auth.RoleAssignmentsClientListForScopeResponse) []*auth.RoleAssignment { return p.Value })
	}
	count(5, "of the subscription", all(t, client.NewListForSubscriptionPager(nil), func(p auth.RoleAssignmentsClientListForSubscriptionResponse) []*auth.RoleAssignment { return p.Value }))
	count(5, "of the group", all(t, client.NewListForResourceGroupPager("rg1", nil), func(p auth.RoleAssignmentsClientListForResourceGroupResponse) []*auth.RoleAssignment { return p.Value }))
	count(5, "of the thing", all(t, client.NewListForResourcePager("rg1", "Microsoft.Test", "things", "a", nil), func(p auth.RoleAssignmentsClientListForResourceResponse) []*auth.RoleAssignment { return p.Value }))
	count(2, "of another group", scope(rg10, ""))
	count(3, "at the group", scope(rg1, "atScope()"))
	count(2, "of alice", scope(sub, "principalId eq '"+alice+"'"))
	count(1, "assigned to carol", scope(sub, "assignedTo('"+carol+"')"))
	count(1, "assigned to bob at the group", scope(rg1, "atScope() and assignedTo('"+bob+"')"))
	count(0, "of bob himself", scope(sub, "principalId eq '"+bob+"'"))
	pager := client.NewListForScopePager(sub, &auth.RoleAssignmentsClientListForScopeOptions{Filter: escaped("roleName eq 'x' or 1 eq 1")})
	_, err = pager.NextPage(t.Context())
	wantCode(t, err, "InvalidFilterInQueryString")

	for range 2 {
		must(client.Delete(t.Context(), rg1, guid(1), nil))(t)
	}
	_, err = client.Get(t.Context(), rg1, guid(1), nil)
	wantCode(t, err, "ResourceNotFound")
	strangers := must(auth.NewRoleAssignmentsClient(subID, token(bob), options))(t)
	_, err = strangers.NewListForSubscriptionPager(nil).NextPage(t.Context())
	wantCode(t, err, "AuthorizationFailed")
}

func TestSDKRoleDefinitions(t *testing.T) {
	w := newWorld(t)
	client := must(auth.NewRoleDefinitionsClient(token(admin), w.options()))(t)
	list := func(filter string) []*auth.RoleDefinition {
		return all(t, client.NewListPager(sub, &auth.RoleDefinitionsClientListOptions{Filter: &filter}), func(p auth.RoleDefinitionsClientListResponse) []*auth.RoleDefinition { return p.Value })
	}
	if n := len(list("")); n != len(rbac.Builtin()) {
		t.Errorf("%d definitions", n)
	}
	if found := list("roleName eq 'owner'"); len(found) != 1 || *found[0].Name != rbac.OwnerRole || *found[0].Properties.RoleType != "BuiltInRole" {
		t.Errorf("owner: %v", found)
	}
	definition := auth.RoleDefinition{Properties: &auth.RoleDefinitionProperties{RoleName: to.Ptr("Poker"), Description: to.Ptr("pokes"), RoleType: to.Ptr("CustomRole"),
		AssignableScopes: []*string{to.Ptr(rg1)}, Permissions: []*auth.Permission{{Actions: []*string{to.Ptr("Microsoft.Test/things/*/action"), to.Ptr("*/read")}, NotActions: []*string{to.Ptr("Microsoft.Test/things/parts/read")}}}}}
	made := must(client.CreateOrUpdate(t.Context(), sub, guid(50), definition, nil))(t)
	must(client.CreateOrUpdate(t.Context(), rg1, guid(50), definition, nil))(t) // the same one from elsewhere
	if got := must(client.GetByID(t.Context(), strings.TrimPrefix(*made.ID, "/"), nil))(t); *got.Properties.RoleName != "Poker" || *got.Properties.RoleType != "CustomRole" {
		t.Errorf("made %+v", got.Properties)
	}
	if found := list("type eq 'CustomRole'"); len(found) != 1 {
		t.Errorf("%d custom roles", len(found))
	}
	_, err := client.CreateOrUpdate(t.Context(), sub, guid(51), definition, nil)
	wantCode(t, err, "RoleDefinitionWithSameNameExists")
	_, err = client.CreateOrUpdate(t.Context(), sub, rbac.ReaderRole, definition, nil)
	wantCode(t, err, "RoleDefinitionIsBuiltIn")
	wrong := auth.RoleDefinition{Properties: &auth.RoleDefinitionProperties{RoleName: to.Ptr("x"), AssignableScopes: []*string{to.Ptr("/")}, Permissions: []*auth.Permission{{Actions: []*string{to.Ptr("a b")}}}}}
	_, err = client.CreateOrUpdate(t.Context(), sub, guid(52), wrong, nil)
	if err == nil || !strings.Contains(err.Error(), "InvalidAssignableScope") || !strings.Contains(err.Error(), "InvalidActionOrNotAction") {
		t.Errorf("all problems at once: %v", err)
	}

	thing := rg1 + "/providers/Microsoft.Test/things/a"
	w.do(admin, "PUT", thing+v, `{"location":"eastus"}`).want(t, 201)
	w.do(admin, "PUT", thing+"/parts/p"+v, `{}`).want(t, 201)
	w.assign(admin, guid(1), sub, alice, guid(50), "").wantError(t, 400, "RoleAssignmentScopeNotAssignableToRoleDefinition")
	w.assign(admin, guid(1), thing, alice, guid(50), "").want(t, 201)
	w.do(alice, "GET", thing+v, "").want(t, 200)
	w.do(alice, "POST", thing+"/poke"+v, "").want(t, 200)
	w.do(alice, "GET", thing+"/parts/p"+v, "").wantError(t, 403, "AuthorizationFailed")
	w.do(alice, "PUT", thing+v, `{"location":"eastus"}`).wantError(t, 403, "AuthorizationFailed")
	_, err = client.Delete(t.Context(), sub, guid(50), nil)
	wantCode(t, err, "RoleDefinitionHasAssignments")

	// A changed role holds at once, and a role is written by those who have a say wherever it is.
	definition.Properties.Permissions[0].Actions = []*string{to.Ptr("Microsoft.Test/things/write")}
	must(client.CreateOrUpdate(t.Context(), sub, guid(50), definition, nil))(t)
	w.do(alice, "PUT", thing+v, `{"location":"eastus"}`).want(t, 200)
	w.do(alice, "GET", thing+v, "").wantError(t, 403, "AuthorizationFailed")
	w.assign(admin, guid(2), rg10, bob, rbac.OwnerRole, "").want(t, 201)
	body := `{"properties":{"roleName":"Poker","assignableScopes":["` + rg10 + `"],"permissions":[{"actions":["*"]}]}}`
	w.do(bob, "PUT", rg10+"/providers/Microsoft.Authorization/roleDefinitions/"+guid(50)+v, body).wantError(t, 403, "LinkedAuthorizationFailed")
	w.do(bob, "PUT", rg10+"/providers/Microsoft.Authorization/roleDefinitions/"+guid(53)+v, strings.ReplaceAll(strings.ReplaceAll(body, "Poker", "Mine"), rg10+`"`, rg10+`","`+rg1+`"`)).wantError(t, 403, "LinkedAuthorizationFailed")
	w.do(bob, "PUT", rg10+"/providers/Microsoft.Authorization/roleDefinitions/"+guid(53)+v, strings.ReplaceAll(body, "Poker", "Mine")).want(t, 201)
	w.do(carol, "GET", "/providers/Microsoft.Authorization/roleDefinitions/"+guid(53)+v, "").wantError(t, 404, "RoleDefinitionDoesNotExist")
	w.do(carol, "GET", "/providers/Microsoft.Authorization/roleDefinitions/"+rbac.OwnerRole+v, "").want(t, 200)
	w.do(admin, "DELETE", assignmentPath(thing, guid(1)), "").want(t, 204)
	must(client.Delete(t.Context(), sub, guid(50), nil))(t)
	must(client.Delete(t.Context(), sub, guid(50), nil))(t)
}

func TestSDKReads(t *testing.T) {
	w := newWorld(t)
	options := w.options()
	w.assign(admin, guid(1), rg1, alice, rbac.NetworkContributorRole, "").want(t, 201)
	permissions := must(auth.NewPermissionsClient(subID, token(alice), options))(t)
	found := all(t, permissions.NewListForResourceGroupPager("rg1", nil), func(p auth.PermissionsClientListForResourceGroupResponse) []*auth.Permission { return p.Value })
	if len(found) != 1 || !slices.ContainsFunc(found[0].Actions, func(a *string) bool { return *a == "Microsoft.Network/*" }) {
		t.Errorf("permissions %v", found)
	}
	operations := must(auth.NewProviderOperationsMetadataClient(token(carol), options))(t)
	one := must(operations.Get(t.Context(), "microsoft.test", nil))(t)
	if *one.Name != "Microsoft.Test" || len(one.ResourceTypes) != 2 || !slices.ContainsFunc(one.ResourceTypes[0].Operations, func(o *auth.ProviderOperation) bool { return *o.Name == "Microsoft.Test/things/poke/action" }) {
		t.Errorf("operations %+v", one)
	}
	if n := len(all(t, operations.NewListPager(nil), func(p auth.ProviderOperationsMetadataClientListResponse) []*auth.ProviderOperationsMetadata {
		return p.Value
	})); n != 3 {
		t.Errorf("%d providers", n)
	}
	denied := must(auth.NewDenyAssignmentsClient(subID, token(admin), options))(t)
	if n := len(all(t, denied.NewListPager(nil), func(p auth.DenyAssignmentsClientListResponse) []*auth.DenyAssignment { return p.Value })); n != 0 {
		t.Errorf("%d deny assignments", n)
	}
	classic := must(auth.NewClassicAdministratorsClient(subID, token(admin), options))(t)
	if n := len(all(t, classic.NewListPager(nil), func(p auth.ClassicAdministratorsClientListResponse) []*auth.ClassicAdministrator { return p.Value })); n != 0 {
		t.Errorf("%d classic administrators", n)
	}
}

func TestSDKManagementGroups(t *testing.T) {
	w := newWorld(t)
	options := w.options()
	ctx := t.Context()
	client := must(groups.NewClient(token(admin), options))(t)
	members := must(groups.NewManagementGroupSubscriptionsClient(token(admin), options))(t)
	create := func(name, parent string) error {
		request := groups.CreateManagementGroupRequest{Properties: &groups.CreateManagementGroupProperties{DisplayName: to.Ptr("The " + name)}}
		if parent != "" {
			request.Properties.Details = &groups.CreateManagementGroupDetails{Parent: &groups.CreateParentGroupInfo{ID: to.Ptr("/providers/Microsoft.Management/managementGroups/" + parent)}}
		}
		poller, err := client.BeginCreateOrUpdate(ctx, name, request, nil)
		if err == nil {
			_, err = poller.PollUntilDone(ctx, &runtime.PollUntilDoneOptions{Frequency: time.Second})
		}
		return err
	}
	wantCode(t, create("top", ""), "AuthorizationFailed") // an Owner of the subscription has no say above it
	must(must(auth.NewGlobalAdministratorClient(token(admin), options))(t).ElevateAccess(ctx, nil))(t)
	must(must(auth.NewGlobalAdministratorClient(token(admin), options))(t).ElevateAccess(ctx, nil))(t)
	_, err := must(auth.NewGlobalAdministratorClient(token(robot), options))(t).ElevateAccess(ctx, nil)
	wantCode(t, err, "AuthorizationFailed")
	w.assign(admin, guid(1), "/", admin, rbac.OwnerRole, "").want(t, 201)
	for _, edge := range [][2]string{{"top", ""}, {"inner", "top"}, {"beside", "top"}} {
		if err := create(edge[0], edge[1]); err != nil {
			t.Fatal(err)
		}
	}
	wantCode(t, create("top", "inner"), "InvalidParent")
	wantCode(t, create("lost", "nowhere"), "InvalidParent")
	w.do(admin, "GET", "/subscriptions?api-version=2020-01-01", "").want(t, 200)

	// Roles on a management group hold in what stands in it.
	const inner = "/providers/Microsoft.Management/managementGroups/inner"
	w.assign(admin, guid(2), inner, alice, rbac.ContributorRole, "").want(t, 201)
	w.do(alice, "GET", rg1+"?api-version=2021-04-01", "").wantError(t, 403, "AuthorizationFailed")
	must(members.Create(ctx, "inner", subID, nil))(t)
	w.do(alice, "GET", rg1+"?api-version=2021-04-01", "").want(t, 200)
	if got := must(client.Get(ctx, "inner", nil))(t); *got.Properties.Details.Parent.Name != "top" || len(got.Properties.Children) != 1 || *got.Properties.DisplayName != "The inner" {
		t.Errorf("inner %+v", got.Properties)
	}
	must(members.Create(ctx, "beside", subID, nil))(t)
	w.do(alice, "GET", rg1+"?api-version=2021-04-01", "").wantError(t, 403, "AuthorizationFailed")
	if n := len(must(client.Get(ctx, "inner", nil))(t).Properties.Children); n != 0 {
		t.Errorf("inner has %d children left", n)
	}
	must(client.Update(ctx, "beside", groups.PatchManagementGroupRequest{ParentGroupID: to.Ptr(inner)}, nil))(t)
	w.do(alice, "GET", rg1+"?api-version=2021-04-01", "").want(t, 200)
	_, err = client.BeginDelete(ctx, "inner", nil)
	wantCode(t, err, "ManagementGroupHasChildren")
	w.do(alice, "PUT", "/providers/Microsoft.Management/managementGroups/beside/subscriptions/"+subID+"?api-version=2021-04-01", "{}").wantError(t, 403, "AuthorizationFailed")

	// carol manages inner, and can't reach out of it.
	w.assign(admin, guid(3), inner, carol, "5d58bcaf-24a5-4b20-bdb6-eed9f69fbe4c", "").want(t, 201)
	if names := w.do(carol, "GET", "/providers/Microsoft.Management/managementGroups?api-version=2021-04-01", "").want(t, 200).names(); !slices.Equal(names, []string{"beside", "inner"}) {
		t.Errorf("carol sees %v", names)
	}
	w.do(carol, "PUT", "/providers/Microsoft.Management/managementGroups/beside?api-version=2021-04-01", `{"properties":{"details":{"parent":{"id":"/providers/Microsoft.Management/managementGroups/top"}}}}`).wantError(t, 403, "LinkedAuthorizationFailed")
	w.do(carol, "PUT", "/providers/Microsoft.Management/managementGroups/other?api-version=2021-04-01", `{"properties":{"details":{"parent":{"id":"`+inner+`"}}}}`).wantError(t, 403, "AuthorizationFailed")

	must(members.Delete(ctx, "beside", subID, nil))(t)
	for _, name := range []string{"beside", "inner", "top"} {
		poller := must(client.BeginDelete(ctx, name, nil))(t)
		must(poller.PollUntilDone(ctx, &runtime.PollUntilDoneOptions{Frequency: time.Second}))(t)
	}
	w.do(alice, "GET", rg1+"?api-version=2021-04-01", "").wantError(t, 403, "AuthorizationFailed")
	_, err = client.BeginDelete(ctx, tenant, nil)
	wantCode(t, err, "RootManagementGroupCannotBeDeleted")
}
