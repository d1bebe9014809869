// SPDX-License-Identifier: Apache-2.0

package pim

import (
	"context"
	"regexp"
	"slices"
	"strings"
	"time"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/rbac"
	"bastide.dev/resource"
)

// filter is a $filter over schedules and requests.
type filter struct {
	principal string // principalId
	assigned  string // assignedTo(): the principal, or a group it is in
	role      string // GUID
	status    string
	target    bool // asTarget(): the caller's own
	requestor bool // asRequestor()
	approver  bool // asApprover()
	atScope   bool // nothing below the scope
}

var clauseForm = regexp.MustCompile(`^(?i:(atScope|asTarget|asRequestor|asApprover)\(\)|assignedTo\('([^']*)'\)|(\w+)\s+eq\s+'([^']*)')$`)

// parseFilter reads clauses joined by "and"; possible are the properties that can be compared.
func parseFilter(text string, possible ...string) (filter, error) {
	var f filter
	unclear := fault.New(fault.Invalid, "InvalidFilter", "The $filter '%.200s' isn't supported: atScope(), asTarget(), asRequestor(), asApprover(), assignedTo('ID') and %s eq '…' are, joined by 'and'.",
		text, strings.Join(possible, ", ")).At("$filter")
	if len(text) > 1000 {
		return f, unclear
	}
	if strings.TrimSpace(text) == "" {
		return f, nil
	}
	for clause := range strings.SplitSeq(text, " and ") {
		m := clauseForm.FindStringSubmatch(strings.TrimSpace(clause))
		switch {
		case m == nil:
			return f, unclear
		case m[1] != "":
			switch strings.ToLower(m[1]) {
			case "atscope":
				f.atScope = true
			case "astarget":
				f.target = true
			case "asrequestor":
				f.requestor = true
			case "asapprover":
				f.approver = true
			}
		case m[2] != "":
			f.assigned = strings.ToLower(m[2])
		case !slices.Contains(possible, m[3]):
			return f, unclear
		case m[3] == "principalId":
			f.principal = strings.ToLower(m[4])
		case m[3] == "roleDefinitionId":
			f.role = lastSegment(m[4])
		case m[3] == "status":
			f.status = m[4]
		}
	}
	return f, nil
}

// concerns tells whether something on scope is shown at a scope: there, above it,
// and unless the filter says otherwise below.
func (f filter) concerns(scope, at string) bool {
	return rbac.Within(at, scope) || !f.atScope && rbac.Within(scope, at)
}

// mine tells whether a schedule is of the caller, himself or through a group.
func mine(who arm.Principal, principal string) bool {
	return strings.EqualFold(who.ID, principal) || slices.Contains(who.Groups, principal)
}

func (p *Provider) listSchedules(typ, shown string) func(context.Context, *arm.Request) (any, error) {
	return func(ctx context.Context, r *arm.Request) (any, error) {
		f, err := parseFilter(r.Query.Get("$filter"), "principalId", "roleDefinitionId", "status")
		if err != nil {
			return nil, err
		}
		all, err := p.schedules(ctx, typ)
		if err != nil {
			return nil, err
		}
		values := []any{}
		for _, s := range all {
			if s.over(p.now()) || shown != typ && !s.live(p.now()) || !f.concerns(s.scope(), r.ID.String()) ||
				f.principal != "" && f.principal != s.PrincipalID || f.role != "" && f.role != s.Role || f.target && !mine(r.Who, s.PrincipalID) ||
				f.assigned != "" && f.assigned != s.PrincipalID && !slices.Contains(p.directory.Groups(ctx, f.assigned), s.PrincipalID) ||
				f.status != "" && !strings.EqualFold(f.status, s.status(p.now())) {
				continue
			}
			may, err := p.maySee(ctx, r.Who, s, shown)
			if err != nil {
				return nil, err
			}
			if may {
				values = append(values, p.showSchedule(ctx, s, shown))
			}
		}
		return map[string]any{"value": values}, nil
	}
}

// maySee: one's own everybody, others' who may read there.
func (p *Provider) maySee(ctx context.Context, who arm.Principal, s *schedule, typ string) (bool, error) {
	if mine(who, s.PrincipalID) {
		return true, nil
	}
	return p.reads(ctx, who, typ, s.scope())
}

func (p *Provider) getSchedule(typ, shown string) func(context.Context, *arm.Request) (any, error) {
	return func(ctx context.Context, r *arm.Request) (any, error) {
		s, err := p.schedule(ctx, r.ID.Parent().Resource(Namespace, strings.TrimPrefix(typ, Namespace+"/"), r.ID.Name()))
		if err != nil {
			return nil, err
		}
		may := false
		if s != nil && !s.over(p.now()) && (shown == typ || s.live(p.now())) {
			if may, err = p.maySee(ctx, r.Who, s, shown); err != nil {
				return nil, err
			}
		}
		if !may { // what one may not see isn't there
			return nil, fault.New(fault.NotFound, codeNotFound, "The resource '%s' was not found.", r.ID)
		}
		return p.showSchedule(ctx, s, shown), nil
	}
}

func (s *schedule) status(now time.Time) string {
	if s.live(now) {
		return provisioned
	}
	return scheduled
}

// showSchedule is a schedule, or its instance, on the wire.
func (p *Provider) showSchedule(ctx context.Context, s *schedule, typ string) any {
	scope := s.id.Parent()
	properties := map[string]any{"scope": scope.String(), "principalId": s.PrincipalID, "principalType": s.PrincipalType,
		"roleDefinitionId": definitionID(scope, s.Role), "status": s.status(p.now()), "startDateTime": s.Start, "endDateTime": nil, "createdOn": s.Created,
		"memberType": "Direct", "condition": nil, "conditionVersion": nil, "expandedProperties": p.expanded(ctx, scope, s.PrincipalID, s.PrincipalType, s.Role)}
	if !s.End.IsZero() {
		properties["endDateTime"] = s.End
	}
	kind := "Assigned"
	if s.Linked != "" {
		kind = "Activated"
		properties["linkedRoleEligibilityScheduleId"] = s.Linked
	}
	switch typ {
	case typeEligible:
		properties["roleEligibilityScheduleRequestId"], properties["updatedOn"] = s.Request, s.Updated
	case typeActive:
		properties["roleAssignmentScheduleRequestId"], properties["updatedOn"], properties["assignmentType"] = s.Request, s.Updated, kind
	case typeEligibleInstance:
		properties["roleEligibilityScheduleId"] = s.id.String()
	case typeActiveInstance:
		properties["roleAssignmentScheduleId"], properties["assignmentType"], properties["originRoleAssignmentId"] = s.id.String(), kind, s.Assignment
		if s.Linked != "" {
			properties["linkedRoleEligibilityScheduleInstanceId"] = strings.Replace(s.Linked, "/roleEligibilitySchedules/", "/roleEligibilityScheduleInstances/", 1)
		}
	}
	id := scope.Resource(Namespace, strings.TrimPrefix(typ, Namespace+"/"), s.id.Name())
	return map[string]any{"id": id.String(), "name": id.Name(), "type": typ, "properties": properties}
}

// expanded are the names of what a schedule or request is about.
func (p *Provider) expanded(ctx context.Context, scope resource.ID, principal, kind, role string) any {
	name := ""
	if found, err := p.directory.Principal(ctx, principal); err == nil {
		name = found.Name
	}
	roleName := ""
	if d, err := p.roles.Definition(ctx, role); err == nil {
		roleName = d.Name
	}
	return map[string]any{"scope": map[string]any{"id": scope.String(), "displayName": scope.Name(), "type": scope.Type()},
		"roleDefinition": map[string]any{"id": definitionID(scope, role), "displayName": roleName, "type": "BuiltInRole"},
		"principal":      map[string]any{"id": principal, "displayName": name, "type": kind}}
}

func (p *Provider) listRequests(typ string) func(context.Context, *arm.Request) (any, error) {
	return func(ctx context.Context, r *arm.Request) (any, error) {
		f, err := parseFilter(r.Query.Get("$filter"), "principalId", "roleDefinitionId", "status")
		if err != nil {
			return nil, err
		}
		documents, err := p.documents(ctx, typ)
		if err != nil {
			return nil, err
		}
		values := []any{}
		for _, d := range documents {
			body, state, err := readRequest(d)
			if err != nil {
				return nil, err
			}
			principal, role := strings.ToLower(body.Properties.PrincipalID), lastSegment(body.Properties.RoleDefinitionID)
			if !f.concerns(d.ID.Parent().String(), r.ID.String()) || f.principal != "" && f.principal != principal || f.role != "" && f.role != role ||
				f.target && !mine(r.Who, principal) || f.assigned != "" && f.assigned != principal || f.requestor && !strings.EqualFold(state.Requestor, r.Who.ID) ||
				f.status != "" && !strings.EqualFold(f.status, state.Status) {
				continue
			}
			may, err := p.maySeeRequest(ctx, r.Who, d, principal, state, f.approver)
			if err != nil {
				return nil, err
			}
			if may {
				values = append(values, p.showRequest(ctx, d, body, state))
			}
		}
		return map[string]any{"value": values}, nil
	}
}

// maySeeRequest: who sent it, whom it is about, who is asked to approve it, and who may read there.
func (p *Provider) maySeeRequest(ctx context.Context, who arm.Principal, d *arm.Document, principal string, state requestState, approverOnly bool) (bool, error) {
	approval := d.ID.Parent().Resource(Namespace, "roleAssignmentApprovals", d.ID.Name())
	_, err := p.reviewable(ctx, who, approval)
	switch asks := err == nil && d.ID.IsType(typeActiveRequest); {
	case err != nil && !fault.Is(err, fault.NotFound):
		return false, err
	case asks || approverOnly:
		return asks, nil
	case strings.EqualFold(who.ID, state.Requestor) || mine(who, principal):
		return true, nil
	}
	return p.reads(ctx, who, d.ID.Type(), d.ID.Parent().String())
}

func (p *Provider) getRequest(ctx context.Context, r *arm.Request) (any, error) {
	d, err := arm.GetDocument(ctx, p.store, r.ID)
	if fault.Is(err, fault.NotFound) {
		return nil, fault.New(fault.NotFound, codeNotFound, "The resource '%s' was not found.", r.ID)
	}
	if err != nil {
		return nil, err
	}
	body, state, err := readRequest(d)
	if err != nil {
		return nil, err
	}
	may, err := p.maySeeRequest(ctx, r.Who, d, strings.ToLower(body.Properties.PrincipalID), state, false)
	if err != nil {
		return nil, err
	}
	if !may {
		return nil, fault.New(fault.NotFound, codeNotFound, "The resource '%s' was not found.", r.ID)
	}
	return p.showRequest(ctx, d, body, state), nil
}

func (p *Provider) viewRequest(ctx context.Context, d *arm.Document, _ resource.APIVersion) (any, error) {
	body, state, err := readRequest(d)
	if err != nil {
		return nil, err
	}
	return p.showRequest(ctx, d, body, state), nil
}

// showRequest is a request on the wire.
func (p *Provider) showRequest(ctx context.Context, d *arm.Document, body requestBody, state requestState) any {
	in, scope := body.Properties, d.ID.Parent()
	expiration := map[string]any{"type": in.ScheduleInfo.Expiration.Type, "duration": in.ScheduleInfo.Expiration.Duration, "endDateTime": nil}
	if !in.ScheduleInfo.Expiration.EndDateTime.IsZero() {
		expiration["endDateTime"] = in.ScheduleInfo.Expiration.EndDateTime
	}
	start := in.ScheduleInfo.StartDateTime
	if start.IsZero() {
		start = state.Created
	}
	properties := map[string]any{"scope": scope.String(), "principalId": strings.ToLower(in.PrincipalID), "principalType": state.PrincipalType,
		"roleDefinitionId": definitionID(scope, lastSegment(in.RoleDefinitionID)), "requestType": in.RequestType, "status": state.Status, "requestorId": state.Requestor,
		"createdOn": state.Created, "justification": in.Justification, "condition": nil, "conditionVersion": nil, "approvalId": nil,
		"ticketInfo":         map[string]any{"ticketNumber": in.TicketInfo.TicketNumber},
		"scheduleInfo":       map[string]any{"startDateTime": start, "expiration": expiration},
		"expandedProperties": p.expanded(ctx, scope, strings.ToLower(in.PrincipalID), state.PrincipalType, lastSegment(in.RoleDefinitionID))}
	target := "targetRoleEligibilityScheduleId"
	if d.ID.IsType(typeActiveRequest) {
		target = "targetRoleAssignmentScheduleId"
		if in.LinkedRoleEligibilityScheduleID != "" || state.Eligibility != "" {
			properties["linkedRoleEligibilityScheduleId"] = state.Eligibility
		}
		if state.Status == pending || state.Status == denied {
			properties["approvalId"] = scope.Resource(Namespace, "roleAssignmentApprovals", d.ID.Name()).String()
		}
	}
	if state.Schedule != "" {
		properties[target] = state.Schedule
	}
	return map[string]any{"id": d.ID.String(), "name": d.ID.Name(), "type": d.ID.Type(), "properties": properties}
}

// auditRequest is what the activity log keeps of a request: who for whom, and why.
func auditRequest(d *arm.Document) any {
	body, state, err := readRequest(d)
	if err != nil {
		return nil
	}
	in := body.Properties
	return map[string]any{"requestType": in.RequestType, "principalId": in.PrincipalID, "roleDefinitionId": in.RoleDefinitionID, "status": state.Status,
		"justification": in.Justification, "ticketNumber": in.TicketInfo.TicketNumber}
}
