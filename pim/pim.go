// SPDX-License-Identifier: Apache-2.0

// Package pim is Privileged Identity Management of Azure roles: principals that
// are eligible for a role and activate it for a while, with a justification, a
// second factor or another's approval as the role's policy asks. It is the part of
// Microsoft.Authorization that packages authorization and rbac don't have.
//
// An activation is a role assignment with an end, written in the transaction of
// the request: rbac refuses it from its end on, whether or not Run has removed it
// yet. Nothing is in tokens. It imports no provider: cmd/bastide supplies roles and directory.
package pim

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/authorization/armauthorization/v2"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/rbac"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// The namespace and the types.
const (
	Namespace = "Microsoft.Authorization"

	typeAssignment       = Namespace + "/roleAssignments"
	typeEligible         = Namespace + "/roleEligibilitySchedules"
	typeActive           = Namespace + "/roleAssignmentSchedules"
	typeEligibleInstance = Namespace + "/roleEligibilityScheduleInstances"
	typeActiveInstance   = Namespace + "/roleAssignmentScheduleInstances"
	typeEligibleRequest  = Namespace + "/roleEligibilityScheduleRequests"
	typeActiveRequest    = Namespace + "/roleAssignmentScheduleRequests"
	typePolicy           = Namespace + "/roleManagementPolicies"
	typePolicyAssignment = Namespace + "/roleManagementPolicyAssignments"
	typeApproval         = Namespace + "/roleAssignmentApprovals"
	typeStage            = typeApproval + "/stages"
	actionAssign         = typeAssignment + "/write"
	actionRevoke         = typeAssignment + "/delete"
	requestsKept         = 30 * 24 * time.Hour
	pendingLife          = 24 * time.Hour // of a request that waits for approval
	lookEvery            = time.Second
	maxJustification     = 1024
	nameOfService        = "Bastide"
	codeInvalid          = "InvalidRoleAssignmentRequest"
	codeNotEligible      = "RoleEligibilityNotFound"
	codeExists           = "RoleAssignmentExists"
	codeMissing          = "RoleAssignmentDoesNotExist"
	codePolicy           = "RoleAssignmentRequestPolicyValidationFailed"
	codeNotFound         = "ResourceNotFound"
)

// Principal is an object of the directory.
type Principal struct {
	ID   string
	Kind string // rbac.User, rbac.Group or rbac.ServicePrincipal
	Name string
}

// Directory says who principals are. It is safe for concurrent use and answers from memory.
type Directory interface {
	// Principal finds a user, group or service principal by object id; fault.NotFound when there is none.
	Principal(ctx context.Context, id string) (Principal, error)
	// Groups are the object ids of the groups that a principal is in, transitively, at this moment.
	Groups(ctx context.Context, id string) []string
}

// Roles decides on roles and knows the form of their assignments. It is safe for concurrent use.
type Roles interface {
	Decide(ctx context.Context, r rbac.Request) (rbac.Decision, error)
	// Definition finds a role by its GUID; fault.NotFound when there is none.
	Definition(ctx context.Context, id string) (*rbac.Definition, error)
	Definitions(ctx context.Context) ([]*rbac.Definition, error)
	// Grant is the document that, once written, is the assignment.
	Grant(a *rbac.Assignment) (*arm.Document, error)
	// Committed makes what this process wrote hold from the next decision on.
	Committed(changes []store.Change, revision int64)
}

// Config is what a Provider needs. Log and Now may be nil.
type Config struct {
	Store     store.Store
	Roles     Roles
	Directory Directory
	Log       *slog.Logger
	Now       func() time.Time
}

// Provider is PIM's part of the namespace. It is safe for concurrent use, before and beside Run.
type Provider struct {
	store     store.Store
	roles     Roles
	directory Directory
	log       *slog.Logger
	now       func() time.Time
}

// New makes a Provider over what the store holds.
func New(c Config) (*Provider, error) {
	if c.Store == nil || c.Roles == nil || c.Directory == nil {
		return nil, errors.New("pim: Store, Roles and Directory are required")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Provider{store: c.Store, roles: c.Roles, directory: c.Directory, log: c.Log, now: c.Now}, nil
}

// Types are the rows of the front door, of the namespace Microsoft.Authorization.
func (p *Provider) Types() []arm.Type {
	row := func(name string, t arm.Type) arm.Type {
		t.Name, t.Scope, t.Versions, t.Untracked = strings.TrimPrefix(name, Namespace+"/"), arm.OnAny, versions(), true
		return t
	}
	readOnly := []string{"properties.scope", "properties.status", "properties.principalType", "properties.createdOn", "properties.requestorId",
		"properties.approvalId", "properties.expandedProperties"}
	return []arm.Type{
		row(typeEligibleRequest, arm.Type{Model: func() any { return &armauthorization.RoleEligibilityScheduleRequest{} }, ReadOnly: readOnly, PutStatus: 201,
			Put: p.putEligibility, Patch: noPatch, Delete: cascadeOnly, Actions: map[string]arm.Hook{"cancel": p.cancel}, Get: p.getRequest, List: p.listRequests(typeEligibleRequest),
			Audit: auditRequest, View: p.viewRequest}),
		row(typeActiveRequest, arm.Type{Model: func() any { return &armauthorization.RoleAssignmentScheduleRequest{} }, ReadOnly: readOnly, PutStatus: 201,
			Put: p.putActivation, Patch: noPatch, Delete: cascadeOnly, Actions: map[string]arm.Hook{"cancel": p.cancel}, Get: p.getRequest, List: p.listRequests(typeActiveRequest),
			Audit: auditRequest, View: p.viewRequest}),
		row(typeEligible, arm.Type{Put: notWritten, Patch: noPatch, Delete: cascadeOnly, Get: p.getSchedule(typeEligible, typeEligible), List: p.listSchedules(typeEligible, typeEligible)}),
		row(typeActive, arm.Type{Put: notWritten, Patch: noPatch, Delete: cascadeOnly, Get: p.getSchedule(typeActive, typeActive), List: p.listSchedules(typeActive, typeActive)}),
		row(typeEligibleInstance, arm.Type{Get: p.getSchedule(typeEligible, typeEligibleInstance), List: p.listSchedules(typeEligible, typeEligibleInstance)}),
		row(typeActiveInstance, arm.Type{Get: p.getSchedule(typeActive, typeActiveInstance), List: p.listSchedules(typeActive, typeActiveInstance)}),
		row(typePolicy, arm.Type{Model: func() any { return &armauthorization.RoleManagementPolicy{} }, Implicit: true, Put: notWritten, Patch: p.patchPolicy,
			Get: p.getPolicy, List: p.listPolicies, View: p.viewPolicy, Audit: auditPolicy}),
		row(typePolicyAssignment, arm.Type{Get: p.getPolicyAssignment, List: p.listPolicyAssignments}),
		row(typeApproval, arm.Type{Get: p.getApproval, List: p.listApprovals}),
		row(typeStage, arm.Type{Implicit: true, Put: p.review, Patch: p.review, Delete: cascadeOnly, Get: p.getStage, List: p.listStages, View: viewBody}),
	}
}

func versions() []resource.APIVersion {
	return []resource.APIVersion{"2020-10-01", "2020-10-01-preview", "2021-01-01-preview", "2022-04-01-preview", "2024-02-01-preview", "2024-09-01-preview"}
}

// SelfService tells whether an action at a scope is one that the front door shall
// leave to this package, which judges by eligibility and approvers: whoever is
// eligible has no role yet. What others may see or change is judged here, too.
func SelfService(action string, scope resource.ID) bool {
	for _, typ := range []string{typeActiveRequest, typeEligible, typeActive, typeEligibleInstance, typeActiveInstance, typeEligibleRequest, typeApproval, typeStage} {
		if strings.EqualFold(action, typ+"/read") {
			return true
		}
	}
	own := func(typ, verb string) bool { return scope.IsType(typ) && strings.EqualFold(action, typ+verb) }
	return own(typeActiveRequest, "/write") || own(typeActiveRequest, "/cancel/action") || own(typeStage, "/write")
}

// notWritten refuses to write what follows from requests.
func notWritten(_ context.Context, r *arm.Request) (*arm.Plan, error) {
	return nil, fault.New(fault.NotAllowed, "MethodNotAllowed", "The method PUT isn't possible on '%s': it follows from schedule requests, or is changed by PATCH.", r.ID)
}

func noPatch(_ context.Context, r *arm.Request) (*arm.Plan, error) {
	return nil, fault.New(fault.NotAllowed, "MethodNotAllowed", "The method PATCH isn't possible on '%s'.", r.ID)
}

// cascadeOnly lets go what stands on a scope that is deleted, and nothing else.
func cascadeOnly(_ context.Context, r *arm.Request) (*arm.Plan, error) {
	if r.Cascade {
		return &arm.Plan{}, nil
	}
	return nil, fault.New(fault.NotAllowed, "MethodNotAllowed", "'%s' can't be deleted: send a schedule request of type AdminRemove or SelfDeactivate.", r.ID)
}

func bad(target, format string, args ...any) *fault.Error {
	return fault.New(fault.Invalid, codeInvalid, format, args...).At(target)
}

// manages is nil when the caller may give and take this role to and from this
// principal on the scope: the same question, conditions and all, as for a role
// assignment itself.
func (p *Provider) manages(ctx context.Context, who arm.Principal, action string, scope resource.ID, principal Principal, role string) error {
	source := rbac.OfRequest
	if action == actionRevoke {
		source = rbac.OfResource
	}
	at := scope.Resource(Namespace, "roleAssignments", assignmentName(principal.ID, role, scope.String())).String()
	d, err := p.roles.Decide(ctx, rbac.Request{Subject: rbac.Subject{ID: who.ID, Groups: who.Groups}, Action: action, Scope: at, Now: p.now(), Attributes: map[string][]string{
		rbac.Attribute(source, rbac.AssignedRole): {role}, rbac.Attribute(source, rbac.AssignedPrincipal): {principal.ID}, rbac.Attribute(source, rbac.AssignedType): {principal.Kind}}})
	if err != nil || d.Allowed {
		return err
	}
	return fault.New(fault.Forbidden, "AuthorizationFailed",
		"The client '%s' with object id '%s' does not have authorization to perform action '%s' over scope '%s' or the scope is invalid. If access was recently granted, please refresh your credentials.",
		who.Name, who.ID, action, scope)
}

// reads tells whether the caller may see what others have at a scope.
func (p *Provider) reads(ctx context.Context, who arm.Principal, typ, scope string) (bool, error) {
	d, err := p.roles.Decide(ctx, rbac.Request{Subject: rbac.Subject{ID: who.ID, Groups: who.Groups}, Action: typ + "/read", Scope: scope, Now: p.now()})
	return d.Allowed, err
}
