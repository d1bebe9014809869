// SPDX-License-Identifier: Apache-2.0

package pim

import (
	"context"
	"strings"
	"time"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/rbac"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// putActivation activates or deactivates what the caller is eligible for, or
// assigns a role for a time.
func (p *Provider) putActivation(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	a, err := parseRequest(r.ID, r.Body, selfActivate, selfDeactivate, adminAssign, adminUpdate, adminRemove)
	if err != nil {
		return nil, err
	}
	switch a.Type {
	case selfActivate:
		return p.activate(ctx, r, a)
	case selfDeactivate:
		return p.deactivate(ctx, r, a)
	}
	return p.administer(ctx, r, a, typeActive)
}

func (p *Provider) activate(ctx context.Context, r *arm.Request, a asked) (*arm.Plan, error) {
	if err := himself(r.Who, a); err != nil {
		return nil, err
	}
	// Eligibility comes first: who has none learns nothing of scopes and roles.
	scope := r.ID.Parent()
	by, err := p.eligibility(ctx, r.Who.ID, a.Role, scope.String(), a.Linked)
	if err != nil {
		return nil, err
	}
	if by == nil {
		return nil, notEligible()
	}
	principal, changes, err := p.named(ctx, r, a)
	if err != nil {
		return nil, err
	}
	// The policy is that of the scope of the eligibility: on a scope below it
	// nobody gets around an approval.
	rules, _, err := p.rules(ctx, by.id.Parent(), a.Role)
	if err != nil {
		return nil, err
	}
	if err := rules.user(a, r.Who); err != nil {
		return nil, err
	}
	s, err := p.activation(ctx, r.ID, a, principal, by, rules)
	if err != nil {
		return nil, err
	}
	state := requestState{Requestor: r.Who.ID, PrincipalType: principal.Kind, Created: p.now().UTC(), Eligibility: by.id.String()}
	changes = append(changes, linkedTo(by))
	if rules.Approval {
		return p.await(ctx, r, a, state, changes)
	}
	return p.provision(r, a, s, state, changes)
}

func notEligible() error {
	return fault.New(fault.Forbidden, codeNotEligible, "You aren't eligible for this role on this scope, or not at this time.")
}

// himself refuses requests in another's name. Applications can't be asked for a
// reason or a second factor: they activate nothing.
func himself(who arm.Principal, a asked) error {
	if who.Kind != rbac.User || !strings.EqualFold(who.ID, a.PrincipalID) {
		return fault.New(fault.Forbidden, "InsufficientPermissions", "A %s request is a user's own: its principalId must be the caller's.", a.Type).At("properties.principalId")
	}
	return nil
}

// activation is the schedule of an activation that would begin now, or later as asked for.
func (p *Provider) activation(ctx context.Context, request resource.ID, a asked, principal Principal, by *schedule, rules rules) (*schedule, error) {
	now := p.now().UTC()
	start, end, err := a.span(now, rules.ActivationMost, false)
	if err != nil {
		return nil, err
	}
	if !by.End.IsZero() && end.After(by.End) {
		end = by.End
	}
	if !end.After(start) {
		return nil, notEligible()
	}
	s := &schedule{PrincipalID: principal.ID, PrincipalType: principal.Kind, Role: a.Role, Start: start, End: end, Created: now, Updated: now,
		Request: request.String(), Linked: by.id.String(), id: scheduleID(typeActive, request.Parent(), principal.ID, a.Role)}
	held, err := p.schedule(ctx, s.id)
	if err != nil {
		return nil, err
	}
	if held != nil {
		if !held.over(now) {
			return nil, fault.New(fault.Conflict, codeExists, "The Role assignment already exists: it is active until %s.", held.End.Format(time.RFC3339))
		}
		s.revision = held.revision
	}
	return s, nil
}

// await keeps a request for approval: one of a user for a role on a scope at a time.
func (p *Provider) await(ctx context.Context, r *arm.Request, a asked, state requestState, changes []store.Change) (*arm.Plan, error) {
	documents, err := p.documents(ctx, typeActiveRequest)
	if err != nil {
		return nil, err
	}
	for _, d := range documents {
		body, other, err := readRequest(d)
		if err != nil {
			return nil, err
		}
		if other.Status == pending && other.Requestor == r.Who.ID && d.ID.Parent().Equal(r.ID.Parent()) && lastSegment(body.Properties.RoleDefinitionID) == a.Role &&
			p.now().Before(other.Created.Add(pendingLife)) {
			return nil, fault.New(fault.Conflict, "PendingRoleAssignmentRequest", "The request '%s' for this role waits for approval.", d.ID.Name())
		}
	}
	state.Status = pending
	d, err := a.document(r, state)
	return &arm.Plan{Document: d, Changes: changes}, err
}

func (p *Provider) deactivate(ctx context.Context, r *arm.Request, a asked) (*arm.Plan, error) {
	if err := himself(r.Who, a); err != nil {
		return nil, err
	}
	held, err := p.schedule(ctx, scheduleID(typeActive, r.ID.Parent(), a.PrincipalID, a.Role))
	if err != nil {
		return nil, err
	}
	if held == nil || held.Linked == "" || held.over(p.now()) {
		return nil, fault.New(fault.NotFound, codeMissing, "The role assignment does not exist: there is nothing to deactivate.")
	}
	if _, _, err := p.named(ctx, r, a); err != nil {
		return nil, err
	}
	return p.remove(ctx, r, a, held, nil)
}
