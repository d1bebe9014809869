// SPDX-License-Identifier: Apache-2.0

package pim_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"bastide.dev/rbac"
	"bastide.dev/resource"
)

const contributor = rbac.ContributorRole

func TestActivationEndsByItself(t *testing.T) {
	w := newWorld(t)
	w.eligible(alice, contributor, rg1)
	if w.can(alice, rg1) {
		t.Error("who is eligible has the role already")
	}
	w.activate(alice, contributor, rg1, "PT2H").want(t, 201, "")
	if !w.can(alice, rg1) || w.can(alice, rg2) {
		t.Error("activated: nothing, or too much")
	}
	w.activate(alice, contributor, rg1, "PT2H").want(t, 409, "RoleAssignmentExists")
	w.pass(2*time.Hour - time.Second)
	if !w.can(alice, rg1) {
		t.Error("ended too early")
	}
	w.pass(time.Second)
	if w.can(alice, rg1) { // nobody has looked
		t.Error("goes on after its end")
	}
	w.activate(alice, contributor, rg1, "PT1H").want(t, 201, "") // over what Run hasn't removed yet
	w.open()
	if !w.can(alice, rg1) {
		t.Error("lost by a restart")
	}
	w.pass(time.Hour)
	w.open()
	if w.can(alice, rg1) {
		t.Error("a restart gave back what had ended")
	}
	w.look()
	if a := w.do(admin, "GET", rg1+provider+"roleAssignments?api-version=2022-04-01&$filter=principalId eq '"+alice+"'", ""); a.count() != 0 {
		t.Errorf("left behind: %v", a.body)
	}
	w.pass(40 * 24 * time.Hour)
	w.activate(alice, contributor, rg1, "PT1H").want(t, 403, "RoleEligibilityNotFound")
}

func TestOnlyWhoIsEligible(t *testing.T) {
	w := newWorld(t)
	w.eligible(alice, contributor, rg1)
	w.activate(bob, contributor, rg1, "PT1H").want(t, 403, "RoleEligibilityNotFound")
	w.activate(alice, contributor, rg2, "PT1H").want(t, 403, "RoleEligibilityNotFound")
	w.activate(alice, contributor, sub, "PT1H").want(t, 403, "RoleEligibilityNotFound")
	w.do(admin, "PUT", rg1+"0?api-version=2021-04-01", `{"location":"eastus"}`).want(t, 201, "")
	w.activate(alice, contributor, rg1+"0", "PT1H").want(t, 403, "RoleEligibilityNotFound")
	w.activate(alice, rbac.OwnerRole, rg1, "PT1H").want(t, 403, "RoleEligibilityNotFound")
	w.ask(bob, "Assignment", rg1, "SelfActivate", alice, contributor, "").want(t, 403, "InsufficientPermissions")
	w.ask(alice, "Assignment", rg1, "SelfDeactivate", bob, contributor, "").want(t, 403, "InsufficientPermissions")
	w.ask(alice, "Assignment", rg1, "AdminAssign", alice, contributor, "").want(t, 403, "AuthorizationFailed")
	w.ask(alice, "Eligibility", rg1, "AdminAssign", alice, rbac.OwnerRole, "").want(t, 403, "AuthorizationFailed")
	w.ask(alice, "Assignment", rg1, "SelfExtend", alice, contributor, "").want(t, 400, "InvalidRoleAssignmentRequest")
	for _, scope := range []string{rg1, sub} {
		if w.can(alice, rg1) || w.can(bob, rg1) {
			t.Errorf("somebody got something on %s", scope)
		}
	}
	// A Contributor who activated may assign roles by PIM no more than without.
	w.activate(alice, contributor, rg1, "PT1H").want(t, 201, "")
	w.ask(alice, "Eligibility", rg1, "AdminAssign", alice, rbac.OwnerRole, "").want(t, 403, "AuthorizationFailed")
	w.ask(alice, "Assignment", rg1, "AdminAssign", alice, rbac.OwnerRole, "").want(t, 403, "AuthorizationFailed")
	w.do(alice, "PATCH", rg1+provider+"roleManagementPolicies/"+uuid.NewString()+v, `{"properties":{"rules":[]}}`).want(t, 403, "AuthorizationFailed")
}

// TestConditionsOnTheAdministratorHold: who may assign some roles only may assign only those by PIM, too.
func TestConditionsOnTheAdministratorHold(t *testing.T) {
	w := newWorld(t)
	condition := `((!(ActionMatches{'Microsoft.Authorization/roleAssignments/write'})) OR (@Request[Microsoft.Authorization/roleAssignments:RoleDefinitionId] ForAnyOfAnyValues:GuidEquals {` + rbac.ReaderRole + `}))`
	w.do(admin, "PUT", sub+provider+"roleAssignments/"+uuid.NewString()+"?api-version=2022-04-01", fmt.Sprintf(`{"properties":{"principalId":"%s","roleDefinitionId":"%s","condition":%q,"conditionVersion":"2.0"}}`,
		bob, sub+provider+"roleDefinitions/"+rbac.UserAccessAdministratorRole, condition)).want(t, 201, "")
	w.ask(bob, "Assignment", rg1, "AdminAssign", bob, rbac.OwnerRole, "").want(t, 403, "AuthorizationFailed")
	w.ask(bob, "Eligibility", rg1, "AdminAssign", bob, rbac.OwnerRole, "").want(t, 403, "AuthorizationFailed")
	w.ask(bob, "Assignment", rg1, "AdminAssign", carol, rbac.ReaderRole, `"justification":"x","scheduleInfo":{"expiration":{"type":"AfterDuration","duration":"P1D"}}`).want(t, 201, "")
}

func TestPolicy(t *testing.T) {
	w := newWorld(t)
	w.eligible(alice, contributor, rg1)
	w.ask(alice, "Assignment", rg1, "SelfActivate", alice, contributor, `"scheduleInfo":{"expiration":{"type":"AfterDuration","duration":"PT1H"}}`).want(t, 400, "RoleAssignmentRequestPolicyValidationFailed")
	w.activate(alice, contributor, rg1, "PT9H").want(t, 400, "RoleAssignmentRequestPolicyValidationFailed")
	w.ask(alice, "Assignment", rg1, "SelfActivate", alice, contributor, `"justification":"x","scheduleInfo":{"expiration":{"type":"NoExpiration"}}`).want(t, 400, "RoleAssignmentRequestPolicyValidationFailed")
	w.ask(alice, "Assignment", rg1, "SelfActivate", alice, contributor, `"justification":"x","scheduleInfo":{"expiration":{"type":"AfterDateTime","endDateTime":"2020-01-01T00:00:00Z"}}`).want(t, 400, "InvalidRoleAssignmentRequest")
	w.ask(alice, "Assignment", rg1, "SelfActivate", alice, contributor, `"justification":"x","scheduleInfo":{"startDateTime":"2020-01-01T00:00:00Z","expiration":{"type":"AfterDateTime","endDateTime":"2026-08-02T12:00:00Z"}}`).want(t, 400, "RoleAssignmentRequestPolicyValidationFailed")

	w.policy(rg1, contributor, `{"id":"Enablement_EndUser_Assignment","ruleType":"RoleManagementPolicyEnablementRule","enabledRules":["MultiFactorAuthentication","Ticketing"]}`,
		`{"id":"Expiration_EndUser_Assignment","ruleType":"RoleManagementPolicyExpirationRule","isExpirationRequired":true,"maximumDuration":"PT30M"}`).want(t, 200, "")
	ticket := `"ticketInfo":{"ticketNumber":"7"}`
	w.ask(alice, "Assignment", rg1, "SelfActivate", alice, contributor, ticket).want(t, 400, "RoleAssignmentRequestPolicyValidationFailed")
	w.d.methods = []string{"pwd", "mfa"}
	w.ask(alice, "Assignment", rg1, "SelfActivate", alice, contributor, `"justification":"no ticket"`).want(t, 400, "RoleAssignmentRequestPolicyValidationFailed")
	w.ask(alice, "Assignment", rg1, "SelfActivate", alice, contributor, ticket).want(t, 201, "")
	w.pass(30 * time.Minute)
	if w.can(alice, rg1) {
		t.Error("longer than the policy's longest time")
	}
	for rule, code := range map[string]int{
		`{"id":"Notification_Admin_Admin_Eligibility","ruleType":"RoleManagementPolicyNotificationRule"}`:                     400,
		`{"id":"Expiration_EndUser_Assignment","ruleType":"RoleManagementPolicyExpirationRule","isExpirationRequired":false}`: 400,
		`{"id":"Expiration_EndUser_Assignment","ruleType":"RoleManagementPolicyExpirationRule","maximumDuration":"P30D"}`:     400,
		`{"id":"Enablement_EndUser_Assignment","ruleType":"RoleManagementPolicyEnablementRule","enabledRules":["Prayer"]}`:    400,
		approvalBy("User", uuid.NewString()): 400, approvalBy("Group", alice): 400,
		`{"id":"Approval_EndUser_Assignment","ruleType":"RoleManagementPolicyApprovalRule","setting":{"isApprovalRequired":true,"approvalStages":[]}}`: 400,
	} {
		if a := w.policy(rg1, contributor, rule); a.status != code {
			t.Errorf("%s: %d %v", rule, a.status, a.body)
		}
	}
	w.ask(admin, "Eligibility", rg1, "AdminAssign", bob, contributor, `"scheduleInfo":{"expiration":{"type":"NoExpiration"}}`).want(t, 400, "RoleAssignmentRequestPolicyValidationFailed")
	w.ask(admin, "Eligibility", rg1, "AdminAssign", bob, contributor, `"scheduleInfo":{"expiration":{"type":"AfterDuration","duration":"P400D"}}`).want(t, 400, "RoleAssignmentRequestPolicyValidationFailed")
	w.policy(rg1, contributor, `{"id":"Expiration_Admin_Eligibility","ruleType":"RoleManagementPolicyExpirationRule","isExpirationRequired":false}`).want(t, 200, "")
	w.ask(admin, "Eligibility", rg1, "AdminAssign", bob, contributor, `"scheduleInfo":{"expiration":{"type":"NoExpiration"}}`).want(t, 201, "")
}

func TestApproval(t *testing.T) {
	w := newWorld(t)
	w.d.join(alice, bob)
	w.eligible(alice, contributor, sub)
	w.policy(sub, contributor, approvalBy("Group", devs)).want(t, 200, "")
	// On a scope below, the approval of the eligibility's scope isn't gone around.
	request := w.activate(alice, contributor, rg1, "PT1H").want(t, 201, "")
	if request.property("status") != "PendingApproval" || w.can(alice, rg1) {
		t.Fatalf("%v", request.body)
	}
	w.activate(alice, contributor, rg1, "PT1H").want(t, 409, "PendingRoleAssignmentRequest")
	approval, _ := request.property("approvalId").(string)
	stage := approval + "/stages/" + approval[strings.LastIndexByte(approval, '/')+1:] + "?api-version=2021-01-01-preview"
	yes := `{"properties":{"reviewResult":"Approve","justification":"fine"}}`
	w.do(alice, "PATCH", stage, yes).want(t, 403, "ApproverIsRequestor")
	w.do(carol, "PATCH", stage, yes).want(t, 404, "ResourceNotFound")
	w.do(admin, "PATCH", stage, yes).want(t, 404, "ResourceNotFound")
	w.do(robot, "PATCH", stage, yes).want(t, 404, "ResourceNotFound")
	w.do(bob, "PATCH", stage, `{"properties":{"reviewResult":"Approve"}}`).want(t, 400, "InvalidRoleAssignmentRequest")
	if a := w.do(carol, "GET", sub+provider+"roleAssignmentScheduleRequests"+v, ""); a.status != 200 || a.count() != 0 {
		t.Errorf("a stranger sees requests: %v", a.body)
	}
	if a := w.do(bob, "GET", sub+provider+"roleAssignmentScheduleRequests"+v+"&$filter=asApprover()", ""); a.count() != 1 {
		t.Errorf("the approver sees nothing: %v", a.body)
	}
	if a := w.do(bob, "GET", approval+"/stages?api-version=2021-01-01-preview", ""); a.count() != 1 {
		t.Errorf("stages: %v", a.body)
	}
	w.pass(10 * time.Minute)
	w.do(bob, "PATCH", stage, yes).want(t, 200, "")
	if !w.can(alice, rg1) || w.can(alice, rg2) {
		t.Error("approved: nothing, or too much")
	}
	w.do(bob, "PATCH", stage, `{"properties":{"reviewResult":"Deny","justification":"no"}}`).want(t, 409, "RoleAssignmentRequestNotPending")
	w.pass(time.Hour)
	if w.can(alice, rg1) {
		t.Error("goes on after its end")
	}

	denied := w.activate(alice, contributor, rg2, "PT1H").want(t, 201, "")
	approval, _ = denied.property("approvalId").(string)
	stage = approval + "/stages/" + approval[strings.LastIndexByte(approval, '/')+1:] + "?api-version=2021-01-01-preview"
	w.do(bob, "PUT", stage, `{"properties":{"reviewResult":"Deny","justification":"no"}}`).want(t, 201, "")
	w.do(bob, "PATCH", stage, yes).want(t, 409, "RoleAssignmentRequestNotPending")
	if w.can(alice, rg2) {
		t.Error("denied, and active")
	}

	// What waits too long, or lost its ground, is approved no more.
	late := w.activate(alice, contributor, rg2, "PT1H").want(t, 201, "")
	approval, _ = late.property("approvalId").(string)
	stage = approval + "/stages/" + approval[strings.LastIndexByte(approval, '/')+1:] + "?api-version=2021-01-01-preview"
	w.ask(admin, "Eligibility", sub, "AdminRemove", alice, contributor, "").want(t, 201, "")
	w.do(bob, "PATCH", stage, yes).want(t, 404, "ResourceNotFound")
	if w.can(alice, rg2) {
		t.Error("approved without eligibility")
	}
	w.pass(25 * time.Hour)
	w.look()
	id, _ := late.body["id"].(string)
	if a := w.do(alice, "GET", id+v, ""); a.property("status") != "TimedOut" {
		t.Errorf("%v", a.body)
	}
}

func TestEndsWithItsGround(t *testing.T) {
	w := newWorld(t)
	w.d.join(alice)
	w.eligible(devs, contributor, rg1)
	w.activate(bob, contributor, rg1, "PT1H").want(t, 403, "RoleEligibilityNotFound")
	w.activate(alice, contributor, rg1, "PT1H").want(t, 201, "")
	w.d.join() // alice leaves the group
	w.look()
	if w.can(alice, rg1) {
		t.Error("who left the group keeps the role")
	}
	w.d.join(alice)
	w.activate(alice, contributor, rg1, "PT1H").want(t, 201, "")
	w.ask(admin, "Eligibility", rg1, "AdminRemove", devs, contributor, "").want(t, 201, "")
	if w.can(alice, rg1) { // nobody has looked
		t.Error("the eligibility is gone, its activation isn't")
	}
	w.eligible(alice, contributor, rg1)
	w.activate(alice, contributor, rg1, "PT1H").want(t, 201, "")
	w.ask(alice, "Assignment", rg1, "SelfDeactivate", alice, contributor, "").want(t, 201, "")
	if w.can(alice, rg1) {
		t.Error("deactivated, and active")
	}
	w.ask(alice, "Assignment", rg1, "SelfDeactivate", alice, contributor, "").want(t, 404, "RoleAssignmentDoesNotExist")
	// An assignment that somebody deletes doesn't come back.
	w.activate(alice, contributor, rg1, "PT1H").want(t, 201, "")
	list := w.do(admin, "GET", rg1+provider+"roleAssignments?api-version=2022-04-01&$filter=principalId eq '"+alice+"'", "")
	id, _ := list.body["value"].([]any)[0].(map[string]any)["id"].(string)
	w.do(admin, "DELETE", id+"?api-version=2022-04-01", "").want(t, 204, "")
	w.look()
	w.look()
	if w.can(alice, rg1) {
		t.Error("came back")
	}
	// An activation ends with the eligibility's own time.
	w.ask(admin, "Eligibility", rg1, "AdminUpdate", alice, contributor, `"scheduleInfo":{"expiration":{"type":"AfterDuration","duration":"PT30M"}}`).want(t, 201, "")
	w.activate(alice, contributor, rg1, "PT1H").want(t, 201, "")
	w.pass(30 * time.Minute)
	if w.can(alice, rg1) {
		t.Error("outlives the eligibility")
	}
}

func TestLater(t *testing.T) {
	w := newWorld(t)
	w.eligible(alice, contributor, rg1)
	a := w.ask(alice, "Assignment", rg1, "SelfActivate", alice, contributor, `"justification":"tonight","scheduleInfo":{"startDateTime":"2026-08-01T20:00:00Z","expiration":{"type":"AfterDuration","duration":"PT1H"}}`).want(t, 201, "")
	if a.property("status") != "ScheduleCreated" || w.can(alice, rg1) {
		t.Errorf("before its time: %v", a.body)
	}
	w.look()
	w.pass(8 * time.Hour)
	w.open()
	w.look()
	if !w.can(alice, rg1) {
		t.Error("its time has come")
	}
	w.pass(time.Hour)
	if w.can(alice, rg1) {
		t.Error("goes on after its end")
	}
}

// TestScopeGoesWithAllOnIt: what was on a group mustn't wait for the next one of its name.
func TestScopeGoesWithAllOnIt(t *testing.T) {
	w := newWorld(t)
	w.eligible(alice, contributor, rg1)
	id, err := resource.ParseID(rg1)
	if err != nil {
		t.Fatal(err)
	}
	stop := w.run()
	if a := w.do(admin, "DELETE", id.String()+"?api-version=2021-04-01", ""); a.status/100 != 2 {
		t.Fatalf("%v", a)
	}
	for range 100 {
		if w.do(admin, "GET", rg1+"?api-version=2021-04-01", "").status == 404 {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	stop()
	w.do(admin, "PUT", rg1+"?api-version=2021-04-01", `{"location":"eastus"}`).want(t, 201, "")
	w.activate(alice, contributor, rg1, "PT1H").want(t, 403, "RoleEligibilityNotFound")
}

func TestActivityLog(t *testing.T) {
	w := newWorld(t)
	w.eligible(alice, contributor, rg1)
	w.activate(alice, contributor, rg1, "PT1H").want(t, 201, "")
	w.pass(time.Hour)
	w.look()
	records, _, err := w.store.List(t.Context(), "activity/")
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, r := range records {
		all.Write(r.Value)
	}
	for _, want := range []string{"incident 7", "its time is over", "roleAssignmentScheduleRequests/write"} {
		if !strings.Contains(all.String(), want) {
			t.Errorf("the activity log doesn't say %q", want)
		}
	}
}
