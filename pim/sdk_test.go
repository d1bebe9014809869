// SPDX-License-Identifier: Apache-2.0

package pim_test

import (
	"context"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	sdkarm "github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	auth "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/authorization/armauthorization/v2"
	"github.com/google/uuid"
)

// token is an SDK credential of one of the directory's people.
type token string

func (t token) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: string(t), ExpiresOn: time.Now().Add(time.Hour)}, nil
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

// TestSDK goes a person's way with Azure's own clients: made eligible, activated
// with an approval, looked at, ended.
func TestSDK(t *testing.T) {
	w := newWorld(t)
	server := httptest.NewTLSServer(w.front)
	defer server.Close()
	options := &sdkarm.ClientOptions{ClientOptions: policy.ClientOptions{Transport: server.Client(), Retry: policy.RetryOptions{MaxRetries: -1}, Cloud: cloud.Configuration{
		ActiveDirectoryAuthorityHost: server.URL,
		Services:                     map[cloud.ServiceName]cloud.ServiceConfiguration{cloud.ResourceManager: {Endpoint: server.URL, Audience: server.URL}}}}}
	role := to.Ptr(sub + provider + "roleDefinitions/" + contributor)
	query := func(filter string) *string { return to.Ptr(filter) }

	eligibilities := must(auth.NewRoleEligibilityScheduleRequestsClient(token(admin), options))(t)
	made := must(eligibilities.Create(t.Context(), rg1, uuid.NewString(), auth.RoleEligibilityScheduleRequest{Properties: &auth.RoleEligibilityScheduleRequestProperties{
		PrincipalID: to.Ptr(alice), RoleDefinitionID: role, RequestType: to.Ptr(auth.RequestTypeAdminAssign), Justification: to.Ptr("on call"),
		ScheduleInfo: &auth.RoleEligibilityScheduleRequestPropertiesScheduleInfo{StartDateTime: to.Ptr(w.now()),
			Expiration: &auth.RoleEligibilityScheduleRequestPropertiesScheduleInfoExpiration{Type: to.Ptr(auth.TypeAfterDuration), Duration: to.Ptr("P30D")}}}}, nil))(t)
	if *made.Properties.Status != auth.StatusProvisioned || *made.Properties.ExpandedProperties.RoleDefinition.DisplayName != "Contributor" {
		t.Errorf("%+v", made.Properties)
	}

	instances := must(auth.NewRoleEligibilityScheduleInstancesClient(token(alice), options))(t)
	mine := must(instances.NewListForScopePager(sub, &auth.RoleEligibilityScheduleInstancesClientListForScopeOptions{Filter: query("asTarget()")}).NextPage(t.Context()))(t)
	if len(mine.Value) != 1 || *mine.Value[0].Properties.Scope != rg1 {
		t.Fatalf("%+v", mine.Value)
	}
	strangers := must(auth.NewRoleEligibilityScheduleInstancesClient(token(carol), options))(t)
	if theirs := must(strangers.NewListForScopePager(sub, nil).NextPage(t.Context()))(t); len(theirs.Value) != 0 {
		t.Errorf("a stranger sees %d", len(theirs.Value))
	}

	assignments := must(auth.NewRoleManagementPolicyAssignmentsClient(token(admin), options))(t)
	found := must(assignments.NewListForScopePager(rg1, nil).NextPage(t.Context()))(t)
	policyName := ""
	for _, a := range found.Value {
		if strings.EqualFold(*a.Properties.RoleDefinitionID, *role) {
			policyName = (*a.Properties.PolicyID)[strings.LastIndexByte(*a.Properties.PolicyID, '/')+1:]
		}
	}
	policies := must(auth.NewRoleManagementPoliciesClient(token(admin), options))(t)
	if got := must(policies.Get(t.Context(), rg1, policyName, nil))(t); len(got.Properties.Rules) != 6 {
		t.Errorf("%d rules", len(got.Properties.Rules))
	}
	changed := must(policies.Update(t.Context(), rg1, policyName, auth.RoleManagementPolicy{Properties: &auth.RoleManagementPolicyProperties{Rules: []auth.RoleManagementPolicyRuleClassification{
		&auth.RoleManagementPolicyExpirationRule{ID: to.Ptr("Expiration_EndUser_Assignment"), RuleType: to.Ptr(auth.RoleManagementPolicyRuleTypeRoleManagementPolicyExpirationRule), MaximumDuration: to.Ptr("PT2H")},
	}}}, nil))(t)
	if len(changed.Properties.EffectiveRules) != 6 {
		t.Errorf("%+v", changed.Properties)
	}

	requests := must(auth.NewRoleAssignmentScheduleRequestsClient(token(alice), options))(t)
	ask := func(kind auth.RequestType, duration string) (auth.RoleAssignmentScheduleRequestsClientCreateResponse, error) {
		return requests.Create(t.Context(), rg1, uuid.NewString(), auth.RoleAssignmentScheduleRequest{Properties: &auth.RoleAssignmentScheduleRequestProperties{
			PrincipalID: to.Ptr(alice), RoleDefinitionID: role, RequestType: to.Ptr(kind), Justification: to.Ptr("incident 7"), LinkedRoleEligibilityScheduleID: mine.Value[0].Properties.RoleEligibilityScheduleID,
			ScheduleInfo: &auth.RoleAssignmentScheduleRequestPropertiesScheduleInfo{Expiration: &auth.RoleAssignmentScheduleRequestPropertiesScheduleInfoExpiration{
				Type: to.Ptr(auth.TypeAfterDuration), Duration: to.Ptr(duration)}}}}, nil)
	}
	_, err := ask(auth.RequestTypeSelfActivate, "PT3H")
	var refused *azcore.ResponseError
	if !errors.As(err, &refused) || refused.ErrorCode != "RoleAssignmentRequestPolicyValidationFailed" {
		t.Errorf("longer than the policy lets: %v", err)
	}
	if active := must(ask(auth.RequestTypeSelfActivate, "PT1H"))(t); *active.Properties.Status != auth.StatusProvisioned {
		t.Errorf("%+v", active.Properties)
	}
	activeInstances := must(auth.NewRoleAssignmentScheduleInstancesClient(token(alice), options))(t)
	list := must(activeInstances.NewListForScopePager(rg1, &auth.RoleAssignmentScheduleInstancesClientListForScopeOptions{Filter: query("asTarget()")}).NextPage(t.Context()))(t)
	if len(list.Value) != 1 || *list.Value[0].Properties.AssignmentType != auth.AssignmentTypeActivated || !list.Value[0].Properties.EndDateTime.Equal(w.now().Add(time.Hour)) || !w.can(alice, rg1) {
		t.Errorf("%+v", list.Value)
	}
	must(ask(auth.RequestTypeSelfDeactivate, "PT1H"))(t)
	if w.can(alice, rg1) {
		t.Error("deactivated, and active")
	}
	all := must(requests.NewListForScopePager(rg1, &auth.RoleAssignmentScheduleRequestsClientListForScopeOptions{Filter: query("asRequestor()")}).NextPage(t.Context()))(t)
	if len(all.Value) != 2 {
		t.Errorf("%d requests", len(all.Value))
	}
	schedules := must(auth.NewRoleEligibilitySchedulesClient(token(admin), options))(t)
	one := must(schedules.Get(t.Context(), rg1, *mine.Value[0].Name, nil))(t)
	if *one.Properties.RoleEligibilityScheduleRequestID != *made.ID {
		t.Errorf("%+v", one.Properties)
	}
	if _, err := requests.Cancel(t.Context(), rg1, *all.Value[0].Name, nil); err == nil {
		t.Error("what is done was canceled")
	}
}
