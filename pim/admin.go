// SPDX-License-Identifier: Apache-2.0

package pim

import (
	"context"
	"strings"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/store"
)

// putEligibility makes, changes or ends an eligibility; it is for those who may
// assign the role itself.
func (p *Provider) putEligibility(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	a, err := parseRequest(r.ID, r.Body, adminAssign, adminUpdate, adminRemove)
	if err != nil {
		return nil, err
	}
	return p.administer(ctx, r, a, typeEligible)
}

// administer carries out what those who may assign a role ask for.
func (p *Provider) administer(ctx context.Context, r *arm.Request, a asked, typ string) (*arm.Plan, error) {
	principal, changes, err := p.named(ctx, r, a)
	if err != nil {
		return nil, err
	}
	scope, action := r.ID.Parent(), actionAssign
	if a.Type == adminRemove {
		action = actionRevoke
	}
	if err := p.manages(ctx, r.Who, action, scope, principal, a.Role); err != nil {
		return nil, err
	}
	held, err := p.schedule(ctx, scheduleID(typ, scope, a.PrincipalID, a.Role))
	if err != nil {
		return nil, err
	}
	there := held != nil && !held.over(p.now())
	switch {
	case a.Type == adminAssign && there:
		return nil, fault.New(fault.Conflict, codeExists, "The role assignment already exists: it is the schedule '%s'.", held.id)
	case a.Type != adminAssign && !there:
		return nil, fault.New(fault.NotFound, codeMissing, "The role assignment does not exist: there is no schedule of this principal, role and scope.")
	case a.Type == adminRemove:
		return p.remove(ctx, r, a, held, changes)
	}
	if principal.Kind == "Group" && typ == typeActive && a.Linked != "" {
		return nil, bad("properties.linkedRoleEligibilityScheduleId", "An assignment by an administrator isn't linked to an eligibility.")
	}
	made, err := p.assigned(ctx, r, a, typ, principal, held)
	if err != nil {
		return nil, err
	}
	return p.provision(r, a, made, requestState{Requestor: r.Who.ID, PrincipalType: principal.Kind, Created: p.now().UTC()}, changes)
}

// assigned is the schedule that an administrator asks for, within the role's policy.
func (p *Provider) assigned(ctx context.Context, r *arm.Request, a asked, typ string, principal Principal, held *schedule) (*schedule, error) {
	scope, now := r.ID.Parent(), p.now().UTC()
	rules, _, err := p.rules(ctx, scope, a.Role)
	if err != nil {
		return nil, err
	}
	limit, required := rules.EligibilityMost, rules.EligibilityEnds
	if typ == typeActive {
		limit, required = rules.AssignmentMost, rules.AssignmentEnds
		if err := rules.admin(a, r.Who); err != nil {
			return nil, err
		}
	}
	start, end, err := a.span(now, limit, !required)
	if err != nil {
		return nil, err
	}
	s := &schedule{PrincipalID: principal.ID, PrincipalType: principal.Kind, Role: a.Role, Start: start, End: end, Created: now, Updated: now,
		Request: r.ID.String(), id: scheduleID(typ, scope, principal.ID, a.Role)}
	if held != nil {
		s.revision = held.revision
		if a.Type == adminUpdate {
			s.Created, s.Start = held.Created, held.Start
		}
	}
	return s, nil
}

// remove ends a schedule, and with an eligibility every activation that stands on it.
func (p *Provider) remove(ctx context.Context, r *arm.Request, a asked, held *schedule, changes []store.Change) (*arm.Plan, error) {
	ended, err := held.end()
	if err != nil {
		return nil, err
	}
	changes = append(changes, ended...)
	if held.id.IsType(typeEligible) {
		active, err := p.schedules(ctx, typeActive)
		if err != nil {
			return nil, err
		}
		for _, s := range active {
			if !strings.EqualFold(s.Linked, held.id.String()) {
				continue
			}
			ended, err := s.end()
			if err != nil {
				return nil, err
			}
			changes = append(changes, ended...)
		}
	}
	d, err := a.document(r, requestState{Status: revoked, Requestor: r.Who.ID, PrincipalType: held.PrincipalType, Created: p.now().UTC(), Schedule: held.id.String()})
	return &arm.Plan{Document: d, Changes: changes}, err
}

// provision writes a request with the schedule that it makes and, when its time
// has come, the role assignment.
func (p *Provider) provision(r *arm.Request, a asked, s *schedule, state requestState, changes []store.Change) (*arm.Plan, error) {
	made, err := p.take(s, state.Requestor)
	if err != nil {
		return nil, err
	}
	state.Status, state.Schedule = provisioned, s.id.String()
	if s.Start.After(p.now()) {
		state.Status = scheduled
	}
	d, err := a.document(r, state)
	return &arm.Plan{Document: d, Changes: append(changes, made...)}, err
}

// take are the changes that put a schedule into being.
func (p *Provider) take(s *schedule, by string) ([]store.Change, error) {
	var changes []store.Change
	if s.id.IsType(typeActive) && s.live(p.now()) {
		assignment, err := p.begin(s, by)
		if err != nil {
			return nil, err
		}
		changes = append(changes, assignment)
	}
	written, err := s.write()
	return append(changes, written), err
}

// cancel takes back a request that waits for approval.
func (p *Provider) cancel(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	body, state, err := readRequest(r.Old)
	if err != nil {
		return nil, err
	}
	if state.Requestor != r.Who.ID {
		principal := Principal{ID: strings.ToLower(body.Properties.PrincipalID), Kind: state.PrincipalType}
		if err := p.manages(ctx, r.Who, actionRevoke, r.ID.Parent(), principal, lastSegment(body.Properties.RoleDefinitionID)); err != nil {
			return nil, err
		}
	}
	if state.Status != pending {
		return nil, fault.New(fault.Conflict, "RoleAssignmentRequestCannotBeCanceled", "The request is %s: only one that waits for approval can be canceled.", state.Status)
	}
	state.Status = canceled
	d := *r.Old
	return &arm.Plan{Document: &d}, writeRequest(&d, nil, state)
}

// linkedTo is a change that demands that an eligibility is as it was read.
func linkedTo(s *schedule) store.Change {
	return store.Change{Key: arm.DocumentKey(s.id), Revision: s.revision, Check: true}
}
