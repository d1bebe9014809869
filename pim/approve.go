// SPDX-License-Identifier: Apache-2.0

package pim

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// review approves or denies a request, as the one stage of its approval. Approval
// and stage have the name of the request.
func (p *Provider) review(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	result, err := parseReview(r.Body)
	if err != nil {
		return nil, err
	}
	request, err := p.requestOf(ctx, r.ID.Parent())
	if err != nil {
		return nil, err
	}
	if request == nil || !strings.EqualFold(r.ID.Name(), request.ID.Name()) {
		return nil, noApproval(r.ID)
	}
	body, state, err := readRequest(request)
	if err != nil {
		return nil, err
	}
	by, rules, err := p.standsOn(ctx, state)
	if err != nil {
		return nil, err
	}
	if !rules.approver(r.Who) {
		return nil, noApproval(r.ID) // who isn't asked doesn't learn that somebody is
	}
	if strings.EqualFold(r.Who.ID, state.Requestor) {
		return nil, fault.New(fault.Forbidden, "ApproverIsRequestor", "Nobody approves a request of their own.")
	}
	if state.Status != pending || !p.now().Before(state.Created.Add(pendingLife)) {
		return nil, fault.New(fault.Conflict, "RoleAssignmentRequestNotPending", "The request waits for approval no longer.")
	}
	d := &arm.Document{}
	d.ID = r.ID
	if r.Old != nil {
		d.Revision = r.Old.Revision
	}
	if d.Body, err = json.Marshal(stage(r.ID, result.Result, "Completed", result.Justification, r.Who)); err != nil {
		return nil, fmt.Errorf("encode %s: %w", r.ID, err)
	}
	var changes []store.Change
	if result.Result == "Approve" {
		changes, err = p.grant(ctx, request, body, &state, by, rules)
	} else {
		state.Status = denied
	}
	if err != nil {
		return nil, err
	}
	if err := writeRequest(request, nil, state); err != nil {
		return nil, err
	}
	written, err := arm.PutDocument(request)
	return &arm.Plan{Document: d, Changes: append(changes, written)}, err
}

// grant puts into being what was approved, if its requestor is still eligible. Its
// time counts from the approval on.
func (p *Provider) grant(ctx context.Context, request *arm.Document, body requestBody, state *requestState, by *schedule, rules rules) ([]store.Change, error) {
	if by == nil || !p.holds(ctx, by, state.Requestor) {
		return nil, fault.New(fault.Conflict, codeNotEligible, "Who asked isn't eligible for this role on this scope any more.")
	}
	var raw map[string]any
	if err := json.Unmarshal(request.Body, &raw); err != nil {
		return nil, fmt.Errorf("decode %s: %w", request.ID, err)
	}
	a, err := parseRequest(request.ID, raw, selfActivate)
	if err != nil {
		return nil, err
	}
	principal, err := p.directory.Principal(ctx, strings.ToLower(body.Properties.PrincipalID))
	if err != nil {
		return nil, fmt.Errorf("principal of request: %w", err)
	}
	s, err := p.activation(ctx, request.ID, a, principal, by, rules)
	if err != nil {
		return nil, err
	}
	changes, err := p.take(s, state.Requestor)
	if err != nil {
		return nil, err
	}
	state.Status, state.Schedule = provisioned, s.id.String()
	if s.Start.After(p.now()) {
		state.Status = scheduled
	}
	there, err := p.scopeThere(ctx, request.ID.Parent())
	return append(append(changes, linkedTo(by)), there...), err
}

// standsOn is the eligibility of a request, nil when it is gone, and its policy.
func (p *Provider) standsOn(ctx context.Context, state requestState) (*schedule, rules, error) {
	id, err := resource.ParseID(state.Eligibility)
	if err != nil {
		return nil, rules{}, fault.New(fault.NotFound, codeNotFound, "The request isn't one that is approved.")
	}
	by, err := p.schedule(ctx, id)
	if err != nil || by == nil {
		return nil, rules{}, err
	}
	found, _, err := p.rules(ctx, id.Parent(), by.Role)
	return by, found, err
}

// holds tells whether a user is eligible by a schedule at this moment.
func (p *Provider) holds(ctx context.Context, by *schedule, user string) bool {
	return by.live(p.now()) && (by.PrincipalID == user || slices.Contains(p.directory.Groups(ctx, user), by.PrincipalID))
}

// requestOf is the request of an approval; nil when there is none.
func (p *Provider) requestOf(ctx context.Context, approval resource.ID) (*arm.Document, error) {
	d, err := arm.GetDocument(ctx, p.store, approval.Parent().Resource(Namespace, "roleAssignmentScheduleRequests", approval.Name()))
	if fault.Is(err, fault.NotFound) {
		return nil, nil
	}
	return d, err
}

func noApproval(id resource.ID) error {
	return fault.New(fault.NotFound, codeNotFound, "The approval '%s' was not found, or isn't yours to review.", id)
}

type reviewed struct{ Result, Justification string }

func parseReview(body map[string]any) (reviewed, error) {
	var problems []*fault.Error
	properties, _ := body["properties"].(map[string]any)
	var out reviewed
	for name, value := range properties {
		text, isText := value.(string)
		switch name {
		case "reviewResult":
			out.Result = text
		case "justification":
			out.Justification = text
			if !isText && value != nil || len(text) > maxJustification {
				problems = append(problems, bad("properties.justification", "The justification must be a text of at most %d bytes.", maxJustification))
			}
		case "displayName", "assignedToMe", "status", "reviewedBy", "reviewedDateTime": // the service's own
		default:
			problems = append(problems, bad("properties", "The property '%.50s' is unknown.", name))
		}
	}
	if out.Result != "Approve" && out.Result != "Deny" {
		problems = append(problems, bad("properties.reviewResult", "The reviewResult must be 'Approve' or 'Deny'."))
	}
	if out.Justification == "" {
		problems = append(problems, bad("properties.justification", "A review needs a justification."))
	}
	return out, fault.Join(problems...)
}

// stage is a stage on the wire.
func stage(id resource.ID, result, status, justification string, by arm.Principal) map[string]any {
	properties := map[string]any{"displayName": "", "reviewResult": result, "status": status, "justification": justification, "assignedToMe": status != "Completed"}
	if by.ID != "" {
		properties["reviewedBy"] = map[string]any{"principalId": by.ID, "principalType": "user", "principalName": by.Name}
	}
	return map[string]any{"id": id.String(), "name": id.Name(), "type": typeStage, "properties": properties}
}

func viewBody(_ context.Context, d *arm.Document, _ resource.APIVersion) (any, error) {
	var body map[string]any
	err := json.Unmarshal(d.Body, &body)
	return body, err
}

// reviewable is the request of an approval that the caller may review.
func (p *Provider) reviewable(ctx context.Context, who arm.Principal, approval resource.ID) (*arm.Document, error) {
	request, err := p.requestOf(ctx, approval)
	if err != nil || request == nil {
		return nil, cmpNil(err, noApproval(approval))
	}
	_, state, err := readRequest(request)
	if err != nil {
		return nil, err
	}
	by, rules, err := p.standsOn(ctx, state)
	if err != nil || by == nil || !rules.approver(who) || strings.EqualFold(who.ID, state.Requestor) {
		return nil, cmpNil(err, noApproval(approval))
	}
	return request, nil
}

func cmpNil(err, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
}

func (p *Provider) getApproval(ctx context.Context, r *arm.Request) (any, error) {
	request, err := p.reviewable(ctx, r.Who, r.ID)
	if err != nil {
		return nil, err
	}
	return p.showApproval(ctx, request)
}

func (p *Provider) showApproval(ctx context.Context, request *arm.Document) (any, error) {
	id := request.ID.Parent().Resource(Namespace, "roleAssignmentApprovals", request.ID.Name())
	at, err := p.showStage(ctx, request)
	return map[string]any{"id": id.String(), "name": id.Name(), "type": typeApproval, "properties": map[string]any{"stages": []any{at}}}, err
}

func (p *Provider) showStage(ctx context.Context, request *arm.Document) (any, error) {
	_, state, err := readRequest(request)
	if err != nil {
		return nil, err
	}
	id := request.ID.Parent().Resource(Namespace, "roleAssignmentApprovals", request.ID.Name()).Child("stages", request.ID.Name())
	d, err := arm.GetDocument(ctx, p.store, id)
	if err == nil {
		return viewBody(ctx, d, "")
	}
	if !fault.Is(err, fault.NotFound) {
		return nil, err
	}
	status := "InProgress"
	if state.Status != pending {
		status = "Expired"
	}
	return stage(id, "NotReviewed", status, "", arm.Principal{}), nil
}

func (p *Provider) listApprovals(ctx context.Context, r *arm.Request) (any, error) {
	documents, err := p.documents(ctx, typeActiveRequest)
	if err != nil {
		return nil, err
	}
	values := []any{}
	for _, d := range documents {
		_, state, err := readRequest(d)
		if err != nil {
			return nil, err
		}
		if state.Status != pending {
			continue
		}
		if _, err := p.reviewable(ctx, r.Who, d.ID.Parent().Resource(Namespace, "roleAssignmentApprovals", d.ID.Name())); err != nil {
			if fault.Is(err, fault.NotFound) {
				continue
			}
			return nil, err
		}
		shown, err := p.showApproval(ctx, d)
		if err != nil {
			return nil, err
		}
		values = append(values, shown)
	}
	return map[string]any{"value": values}, nil
}

func (p *Provider) getStage(ctx context.Context, r *arm.Request) (any, error) {
	request, err := p.reviewable(ctx, r.Who, r.ID.Parent())
	if err != nil {
		return nil, err
	}
	if !strings.EqualFold(request.ID.Name(), r.ID.Name()) {
		return nil, noApproval(r.ID)
	}
	return p.showStage(ctx, request)
}

func (p *Provider) listStages(ctx context.Context, r *arm.Request) (any, error) {
	request, err := p.reviewable(ctx, r.Who, r.ID)
	if err != nil {
		return nil, err
	}
	at, err := p.showStage(ctx, request)
	return map[string]any{"value": []any{at}}, err
}
