// SPDX-License-Identifier: Apache-2.0

package pim

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/resource"
)

// What a policy can ask for.
const (
	needsMFA           = "MultiFactorAuthentication"
	needsJustification = "Justification"
	needsTicket        = "Ticketing"
)

// The rules that have an effect, by Azure's ids.
const (
	ruleActivationTime  = "Expiration_EndUser_Assignment"
	ruleActivationNeeds = "Enablement_EndUser_Assignment"
	ruleApproval        = "Approval_EndUser_Assignment"
	ruleEligibleTime    = "Expiration_Admin_Eligibility"
	ruleAssignedTime    = "Expiration_Admin_Assignment"
	ruleAssignedNeeds   = "Enablement_Admin_Assignment"
)

// rules are the policy of a role on a scope. They aren't inherited from scope to scope.
type rules struct {
	ActivationMost  time.Duration `json:"activationMost"`
	ActivationNeeds []string      `json:"activationNeeds"`
	Approval        bool          `json:"approval,omitempty"`
	Approvers       []approver    `json:"approvers,omitempty"`
	EligibilityEnds bool          `json:"eligibilityEnds"`
	EligibilityMost time.Duration `json:"eligibilityMost"`
	AssignmentEnds  bool          `json:"assignmentEnds"`
	AssignmentMost  time.Duration `json:"assignmentMost"`
	AssignmentNeeds []string      `json:"assignmentNeeds"`

	ModifiedBy string    `json:"modifiedBy,omitempty"`
	Modified   time.Time `json:"modified,omitzero"`
}

// approver is a user, or a group whose members are asked.
type approver struct {
	ID   string `json:"id"`
	Type string `json:"userType"` // User, Group
	Name string `json:"description,omitempty"`
}

// defaults are Azure's.
func defaults() rules {
	const day = 24 * time.Hour
	return rules{ActivationMost: 8 * time.Hour, ActivationNeeds: []string{needsJustification}, EligibilityEnds: true, EligibilityMost: 365 * day,
		AssignmentEnds: true, AssignmentMost: 180 * day, AssignmentNeeds: []string{needsJustification}}
}

// user judges an activation.
func (r rules) user(a asked, who arm.Principal) error { return needs(r.ActivationNeeds, a, who) }

// admin judges an assignment by an administrator.
func (r rules) admin(a asked, who arm.Principal) error { return needs(r.AssignmentNeeds, a, who) }

func needs(all []string, a asked, who arm.Principal) error {
	var failed []string
	for _, need := range all {
		met := need == needsJustification && strings.TrimSpace(a.Justification) != "" || need == needsTicket && a.Ticket ||
			need == needsMFA && (slices.Contains(who.Methods, "mfa") || slices.Contains(who.Methods, "fido") || who.Kind != "User")
		if !met {
			failed = append(failed, need+"Rule")
		}
	}
	if len(failed) == 0 {
		return nil
	}
	text, err := json.Marshal(failed)
	if err != nil {
		return fmt.Errorf("encode rules: %w", err)
	}
	return fault.New(fault.Invalid, codePolicy, "The following policy rules failed: %s", text)
}

// approver tells whether somebody is asked.
func (r rules) approver(who arm.Principal) bool {
	return r.Approval && who.Kind == "User" && slices.ContainsFunc(r.Approvers, func(a approver) bool {
		return a.Type == "User" && strings.EqualFold(a.ID, who.ID) || a.Type == "Group" && slices.Contains(who.Groups, strings.ToLower(a.ID))
	})
}

// policyName is the name of a role's policy on a scope.
func policyName(scope, role string) string { return named("pim policy", scope, role) }

func policyID(scope resource.ID, role string) resource.ID {
	return scope.Resource(Namespace, "roleManagementPolicies", policyName(scope.String(), role))
}

// rules are those of a role on a scope, and the document that keeps them, nil when nobody changed them.
func (p *Provider) rules(ctx context.Context, scope resource.ID, role string) (rules, *arm.Document, error) {
	d, err := arm.GetDocument(ctx, p.store, policyID(scope, role))
	if fault.Is(err, fault.NotFound) {
		return defaults(), nil, nil
	}
	if err != nil {
		return rules{}, nil, fmt.Errorf("read policy: %w", err)
	}
	found, _, err := readPolicy(d)
	return found, d, err
}

// policyBody is the stored form.
type policyBody struct {
	Role  string `json:"role"`
	Rules rules  `json:"rules"`
}

func readPolicy(d *arm.Document) (rules, string, error) {
	var body policyBody
	if err := json.Unmarshal(d.Body, &body); err != nil {
		return rules{}, "", fmt.Errorf("decode %s: %w", d.ID, err)
	}
	return body.Rules, body.Role, nil
}

// patchPolicy changes some rules of a policy.
func (p *Provider) patchPolicy(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	scope := r.ID.Parent()
	role, err := p.roleOf(ctx, scope, r.ID.Name())
	if err != nil {
		return nil, err
	}
	current, _, err := p.rules(ctx, scope, role)
	if err != nil {
		return nil, err
	}
	var body struct {
		Properties struct {
			Rules []map[string]any `json:"rules"`
		} `json:"properties"`
	}
	raw, err := json.Marshal(r.Body)
	if err == nil {
		err = json.Unmarshal(raw, &body)
	}
	if err != nil {
		return nil, fault.New(fault.Invalid, "InvalidRequestContent", "The request content isn't of the expected form.").Because(err)
	}
	if len(body.Properties.Rules) == 0 {
		return nil, bad("properties.rules", "There must be rules to change.")
	}
	var problems []*fault.Error
	for _, one := range body.Properties.Rules {
		problems = append(problems, current.apply(one)...)
	}
	found, err := p.checkApprovers(ctx, current)
	if err != nil {
		return nil, err
	}
	if err := fault.Join(append(problems, found...)...); err != nil {
		return nil, err
	}
	current.Modified, current.ModifiedBy = p.now().UTC(), r.Who.Name
	d := &arm.Document{}
	if r.Old != nil {
		*d = *r.Old
	}
	d.ID = r.ID
	d.Body, err = json.Marshal(policyBody{role, current})
	return &arm.Plan{Document: d}, err
}

// apply takes one rule of a body.
func (r *rules) apply(rule map[string]any) []*fault.Error {
	id, _ := rule["id"].(string)
	at := "properties.rules[" + id + "]"
	switch id {
	case ruleActivationTime:
		endless, f := duration(at, rule, &r.ActivationMost, 24*time.Hour)
		if endless {
			return append(f, bad(at+".isExpirationRequired", "An activation always ends."))
		}
		return f
	case ruleEligibleTime:
		endless, f := duration(at, rule, &r.EligibilityMost, 0)
		r.EligibilityEnds = !endless
		return f
	case ruleAssignedTime:
		endless, f := duration(at, rule, &r.AssignmentMost, 0)
		r.AssignmentEnds = !endless
		return f
	case ruleActivationNeeds:
		return enabled(at, rule, &r.ActivationNeeds, needsMFA, needsJustification, needsTicket)
	case ruleAssignedNeeds:
		return enabled(at, rule, &r.AssignmentNeeds, needsMFA, needsJustification)
	case ruleApproval:
		return r.applyApproval(at, rule)
	}
	known := []string{ruleActivationTime, ruleActivationNeeds, ruleApproval, ruleEligibleTime, ruleAssignedTime, ruleAssignedNeeds}
	return []*fault.Error{fault.New(fault.Unsupported, codeInvalid, "The rule '%.60s' would have no effect here: %s have.", id, strings.Join(known, ", ")).At(at)}
}

func duration(at string, rule map[string]any, most *time.Duration, limit time.Duration) (endless bool, problems []*fault.Error) {
	required, isBool := rule["isExpirationRequired"].(bool)
	if text, ok := rule["maximumDuration"].(string); ok {
		d, err := parseDuration(text)
		if err != nil || limit > 0 && d > limit {
			problems = append(problems, bad(at+".maximumDuration", "The maximumDuration '%.50s' must be a duration of ISO 8601, of at most a day for activations.", text))
		} else {
			*most = d
		}
	}
	return isBool && !required, problems
}

func enabled(at string, rule map[string]any, into *[]string, possible ...string) []*fault.Error {
	list, ok := rule["enabledRules"].([]any)
	if !ok {
		return []*fault.Error{bad(at+".enabledRules", "The enabledRules must be a list of %s.", strings.Join(possible, ", "))}
	}
	found := []string{}
	for _, v := range list {
		name, _ := v.(string)
		if !slices.Contains(possible, name) {
			return []*fault.Error{bad(at+".enabledRules", "The rule '%.50s' is none of %s.", name, strings.Join(possible, ", "))}
		}
		if !slices.Contains(found, name) {
			found = append(found, name)
		}
	}
	*into = found
	return nil
}

func (r *rules) applyApproval(at string, rule map[string]any) []*fault.Error {
	var wire struct {
		Setting struct {
			IsApprovalRequired             bool   `json:"isApprovalRequired"`
			IsApprovalRequiredForExtension bool   `json:"isApprovalRequiredForExtension"`
			ApprovalMode                   string `json:"approvalMode"`
			ApprovalStages                 []struct {
				PrimaryApprovers    []wireApprover `json:"primaryApprovers"`
				EscalationApprovers []wireApprover `json:"escalationApprovers"`
				IsEscalationEnabled bool           `json:"isEscalationEnabled"`
			} `json:"approvalStages"`
		} `json:"setting"`
	}
	raw, err := json.Marshal(rule)
	if err == nil {
		err = json.Unmarshal(raw, &wire)
	}
	in := wire.Setting
	var problems []*fault.Error
	switch {
	case err != nil:
		return []*fault.Error{bad(at, "The approval's setting isn't of the expected form.")}
	case in.IsApprovalRequiredForExtension:
		problems = append(problems, fault.New(fault.Unsupported, codeInvalid, "'isApprovalRequiredForExtension' would have no effect here.").At(at+".setting"))
	case in.ApprovalMode != "" && in.ApprovalMode != "SingleStage" && in.ApprovalMode != "NoApproval", len(in.ApprovalStages) > 1:
		problems = append(problems, fault.New(fault.Unsupported, codeInvalid, "One stage of approval is possible, of the mode 'SingleStage'.").At(at+".setting"))
	}
	r.Approval, r.Approvers = in.IsApprovalRequired, nil
	for _, s := range in.ApprovalStages {
		if s.IsEscalationEnabled || len(s.EscalationApprovers) > 0 {
			problems = append(problems, fault.New(fault.Unsupported, codeInvalid, "Escalation would have no effect here.").At(at+".setting.approvalStages"))
		}
		for _, a := range s.PrimaryApprovers {
			r.Approvers = append(r.Approvers, approver{strings.ToLower(a.ID), a.UserType, a.Description})
		}
	}
	return problems
}

type wireApprover struct {
	ID          string `json:"id"`
	UserType    string `json:"userType"`
	Description string `json:"description"`
}

func (p *Provider) checkApprovers(ctx context.Context, r rules) ([]*fault.Error, error) {
	const target = "properties.rules[" + ruleApproval + "].setting.approvalStages"
	if r.Approval && len(r.Approvers) == 0 || len(r.Approvers) > 50 {
		return []*fault.Error{bad(target, "There must be 1 to 50 approvers when approval is required.")}, nil
	}
	var problems []*fault.Error
	for _, a := range r.Approvers {
		found, err := p.directory.Principal(ctx, a.ID)
		if err != nil && !fault.Is(err, fault.NotFound) {
			return nil, fmt.Errorf("approver: %w", err)
		}
		if uuid.Validate(a.ID) != nil || err != nil || found.Kind != a.Type {
			problems = append(problems, bad(target, "The approver '%.60s' isn't a user or group of the directory, of the type '%.20s'.", a.ID, a.Type))
		}
	}
	return problems, nil
}

// roleOf finds the role whose policy on a scope has a name.
func (p *Provider) roleOf(ctx context.Context, scope resource.ID, name string) (string, error) {
	all, err := p.roles.Definitions(ctx)
	if err != nil {
		return "", err
	}
	for _, d := range all {
		if strings.EqualFold(policyName(scope.String(), d.ID), name) {
			return d.ID, nil
		}
	}
	return "", fault.New(fault.NotFound, codeNotFound, "The role management policy '%.60s' was not found on '%s'.", name, scope)
}

func (p *Provider) showPolicy(ctx context.Context, scope resource.ID, role string) (map[string]any, error) {
	found, _, err := p.rules(ctx, scope, role)
	if err != nil {
		return nil, err
	}
	return policyObject(policyID(scope, role), found), nil
}

func policyObject(id resource.ID, r rules) map[string]any {
	properties := map[string]any{"scope": id.Parent().String(), "displayName": nil, "description": nil, "isOrganizationDefault": r.Modified.IsZero(), "rules": r.show(), "effectiveRules": r.show()}
	if !r.Modified.IsZero() {
		properties["lastModifiedDateTime"], properties["lastModifiedBy"] = r.Modified, map[string]any{"displayName": r.ModifiedBy}
	}
	return map[string]any{"id": id.String(), "name": id.Name(), "type": typePolicy, "properties": properties}
}

func (r rules) show() []any {
	target := func(caller, level string) map[string]any {
		return map[string]any{"caller": caller, "operations": []string{"All"}, "level": level, "targetObjects": nil, "inheritableSettings": nil, "enforcedSettings": nil}
	}
	rule := func(id, kind, caller, level string, more map[string]any) any {
		o := map[string]any{"id": id, "ruleType": kind, "target": target(caller, level)}
		maps.Copy(o, more)
		return o
	}
	const expiration, enablement = "RoleManagementPolicyExpirationRule", "RoleManagementPolicyEnablementRule"
	approvers := []any{}
	for _, a := range r.Approvers {
		approvers = append(approvers, map[string]any{"id": a.ID, "userType": a.Type, "description": a.Name, "isBackup": false})
	}
	mode := "SingleStage"
	return []any{
		rule(ruleEligibleTime, expiration, "Admin", "Eligibility", map[string]any{"isExpirationRequired": r.EligibilityEnds, "maximumDuration": isoDuration(r.EligibilityMost)}),
		rule(ruleAssignedTime, expiration, "Admin", "Assignment", map[string]any{"isExpirationRequired": r.AssignmentEnds, "maximumDuration": isoDuration(r.AssignmentMost)}),
		rule(ruleAssignedNeeds, enablement, "Admin", "Assignment", map[string]any{"enabledRules": r.AssignmentNeeds}),
		rule(ruleActivationTime, expiration, "EndUser", "Assignment", map[string]any{"isExpirationRequired": true, "maximumDuration": isoDuration(r.ActivationMost)}),
		rule(ruleActivationNeeds, enablement, "EndUser", "Assignment", map[string]any{"enabledRules": r.ActivationNeeds}),
		rule(ruleApproval, "RoleManagementPolicyApprovalRule", "EndUser", "Assignment", map[string]any{"setting": map[string]any{
			"isApprovalRequired": r.Approval, "isApprovalRequiredForExtension": false, "isRequestorJustificationRequired": slices.Contains(r.ActivationNeeds, needsJustification),
			"approvalMode": mode, "approvalStages": []any{map[string]any{"approvalStageTimeOutInDays": 1, "isApproverJustificationRequired": true,
				"escalationTimeInMinutes": 0, "isEscalationEnabled": false, "primaryApprovers": approvers, "escalationApprovers": []any{}}}}}),
	}
}

func (p *Provider) getPolicy(ctx context.Context, r *arm.Request) (any, error) {
	role, err := p.roleOf(ctx, r.ID.Parent(), r.ID.Name())
	if err != nil {
		return nil, err
	}
	return p.showPolicy(ctx, r.ID.Parent(), role)
}

func (p *Provider) viewPolicy(_ context.Context, d *arm.Document, _ resource.APIVersion) (any, error) {
	found, _, err := readPolicy(d)
	return policyObject(d.ID, found), err
}

// auditPolicy is what the activity log keeps of a policy before and after a write.
func auditPolicy(d *arm.Document) any {
	found, role, err := readPolicy(d)
	if err != nil {
		return nil
	}
	return map[string]any{"roleDefinitionId": role, "rules": found.show()}
}

func (p *Provider) listPolicies(ctx context.Context, r *arm.Request) (any, error) {
	return p.eachRole(ctx, func(role string) (any, error) { return p.showPolicy(ctx, r.ID, role) })
}

func (p *Provider) eachRole(ctx context.Context, show func(role string) (any, error)) (any, error) {
	all, err := p.roles.Definitions(ctx)
	if err != nil {
		return nil, err
	}
	values := []any{}
	for _, d := range all {
		shown, err := show(d.ID)
		if err != nil {
			return nil, err
		}
		values = append(values, shown)
	}
	return map[string]any{"value": values}, nil
}

func (p *Provider) showPolicyAssignment(ctx context.Context, scope resource.ID, role string) (any, error) {
	found, _, err := p.rules(ctx, scope, role)
	policy := policyID(scope, role)
	name := policy.Name() + "_" + role
	return map[string]any{"id": scope.Resource(Namespace, "roleManagementPolicyAssignments", name).String(), "name": name, "type": typePolicyAssignment,
		"properties": map[string]any{"scope": scope.String(), "roleDefinitionId": definitionID(scope, role), "policyId": policy.String(), "effectiveRules": found.show()}}, err
}

func (p *Provider) getPolicyAssignment(ctx context.Context, r *arm.Request) (any, error) {
	policy, role, _ := strings.Cut(strings.ToLower(r.ID.Name()), "_")
	scope := r.ID.Parent()
	if found, err := p.roleOf(ctx, scope, policy); err != nil || found != role {
		return nil, cmpNil(err, fault.New(fault.NotFound, codeNotFound, "The role management policy assignment '%.100s' was not found.", r.ID.Name()))
	}
	return p.showPolicyAssignment(ctx, scope, role)
}

func (p *Provider) listPolicyAssignments(ctx context.Context, r *arm.Request) (any, error) {
	match, err := parseFilter(r.Query.Get("$filter"), "roleDefinitionId")
	if err != nil {
		return nil, err
	}
	return p.matching(ctx, match, func(role string) (any, error) { return p.showPolicyAssignment(ctx, r.ID, role) })
}

// matching is eachRole for the role that a filter names, or all.
func (p *Provider) matching(ctx context.Context, f filter, show func(role string) (any, error)) (any, error) {
	if f.role == "" {
		return p.eachRole(ctx, show)
	}
	if _, err := p.roles.Definition(ctx, f.role); err != nil {
		if fault.Is(err, fault.NotFound) {
			return map[string]any{"value": []any{}}, nil
		}
		return nil, err
	}
	shown, err := show(f.role)
	return map[string]any{"value": []any{shown}}, err
}

func definitionID(scope resource.ID, role string) string {
	return scope.SubscriptionID().Resource(Namespace, "roleDefinitions", role).String()
}
