// SPDX-License-Identifier: Apache-2.0

package pim

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/rbac"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// What a request can ask for, and how it can stand.
const (
	adminAssign    = "AdminAssign"
	adminUpdate    = "AdminUpdate"
	adminRemove    = "AdminRemove"
	selfActivate   = "SelfActivate"
	selfDeactivate = "SelfDeactivate"

	provisioned = "Provisioned"
	scheduled   = "ScheduleCreated" // its start is ahead
	revoked     = "Revoked"
	pending     = "PendingApproval"
	denied      = "Denied"
	canceled    = "Canceled"
	timedOut    = "TimedOut"
)

// asked is a request's body, read.
type asked struct {
	Type          string
	PrincipalID   string
	Role          string
	Justification string
	Ticket        bool
	Linked        string
	Start         time.Time // zero: now
	End           time.Time // AfterDateTime
	Duration      time.Duration
	Permanent     bool // NoExpiration
	Bounded       bool // an expiration was given
}

// requestState is what the service knows of a request beside its body.
type requestState struct {
	Status        string    `json:"status"`
	Requestor     string    `json:"requestor"`
	PrincipalType string    `json:"principalType"`
	Created       time.Time `json:"created"`
	Schedule      string    `json:"schedule,omitempty"`
	// Eligibility is what a request that waits for approval stands on.
	Eligibility string `json:"eligibility,omitempty"`
}

// requestBody is the wire form of what both kinds of requests have.
type requestBody struct {
	Properties struct {
		PrincipalID                     string `json:"principalId"`
		RequestType                     string `json:"requestType"`
		RoleDefinitionID                string `json:"roleDefinitionId"`
		Condition                       string `json:"condition"`
		ConditionVersion                string `json:"conditionVersion"`
		Justification                   string `json:"justification"`
		LinkedRoleEligibilityScheduleID string `json:"linkedRoleEligibilityScheduleId"`
		TicketInfo                      struct {
			TicketNumber string `json:"ticketNumber"`
		} `json:"ticketInfo"`
		ScheduleInfo struct {
			StartDateTime time.Time `json:"startDateTime"`
			Expiration    struct {
				Type        string    `json:"type"`
				EndDateTime time.Time `json:"endDateTime"`
				Duration    string    `json:"duration"`
			} `json:"expiration"`
		} `json:"scheduleInfo"`
	} `json:"properties"`
}

// parseRequest reads a body and reports all that is wrong with it.
func parseRequest(id resource.ID, body map[string]any, types ...string) (asked, error) {
	var wire requestBody
	raw, err := json.Marshal(body)
	if err == nil {
		err = json.Unmarshal(raw, &wire)
	}
	if err != nil {
		return asked{}, fault.New(fault.Invalid, "InvalidRequestContent", "The request content isn't of the expected form.").Because(err)
	}
	in := wire.Properties
	a := asked{Type: in.RequestType, PrincipalID: strings.ToLower(in.PrincipalID), Justification: in.Justification,
		Ticket: in.TicketInfo.TicketNumber != "", Linked: in.LinkedRoleEligibilityScheduleID, Start: in.ScheduleInfo.StartDateTime.UTC()}
	var problems []*fault.Error
	if uuid.Validate(id.Name()) != nil || len(id.Name()) != 36 {
		problems = append(problems, bad("name", "The name of a schedule request must be a GUID."))
	}
	if !slices.Contains(types, a.Type) {
		problems = append(problems, fault.New(fault.Unsupported, codeInvalid, "The request type '%.50s' isn't possible here: %s are.", a.Type, strings.Join(types, ", ")).At("properties.requestType"))
	}
	if uuid.Validate(a.PrincipalID) != nil || len(a.PrincipalID) != 36 {
		problems = append(problems, bad("properties.principalId", "The principalId must be a GUID, the object id of a user, group or service principal."))
	}
	role, err := resource.ParseID(in.RoleDefinitionID)
	if err != nil || !role.IsType(Namespace+"/roleDefinitions") || uuid.Validate(role.Name()) != nil {
		problems = append(problems, bad("properties.roleDefinitionId", "The roleDefinitionId must have the form …/providers/Microsoft.Authorization/roleDefinitions/GUID."))
	}
	a.Role = strings.ToLower(role.Name())
	if in.Condition != "" || in.ConditionVersion != "" {
		problems = append(problems, fault.New(fault.Unsupported, codeInvalid, "A condition isn't supported in schedule requests.").At("properties.condition"))
	}
	if len(a.Justification) > maxJustification {
		problems = append(problems, bad("properties.justification", "The justification is longer than %d bytes.", maxJustification))
	}
	if f := a.expiration(in.ScheduleInfo.Expiration.Type, in.ScheduleInfo.Expiration.Duration, in.ScheduleInfo.Expiration.EndDateTime.UTC()); f != nil {
		problems = append(problems, f)
	}
	return a, fault.Join(problems...)
}

func (a *asked) expiration(kind, duration string, end time.Time) *fault.Error {
	const target = "properties.scheduleInfo.expiration"
	a.Bounded = kind != ""
	switch kind {
	case "":
		if duration != "" || !end.IsZero() {
			return bad(target+".type", "The expiration's type must be AfterDuration, AfterDateTime or NoExpiration.")
		}
	case "NoExpiration":
		a.Permanent = true
	case "AfterDateTime":
		if end.IsZero() {
			return bad(target+".endDateTime", "With AfterDateTime there must be an endDateTime.")
		}
		a.End = end
	case "AfterDuration":
		d, err := parseDuration(duration)
		if err != nil {
			return bad(target+".duration", "The duration '%.50s' must be one of ISO 8601 such as PT8H or P30D, from 5 minutes to 10 years.", duration)
		}
		a.Duration = d
	default:
		return bad(target+".type", "The expiration's type '%.50s' must be AfterDuration, AfterDateTime or NoExpiration.", kind)
	}
	return nil
}

// span is when what is asked for would begin and end. limit is the policy's
// longest time, used also when none was asked for; 0 means any.
func (a *asked) span(now time.Time, limit time.Duration, endless bool) (start, end time.Time, err error) {
	const target = "properties.scheduleInfo"
	start = now
	if a.Start.After(now) {
		start = a.Start
	}
	switch {
	case a.Permanent:
		if !endless {
			return start, end, fault.New(fault.Invalid, codePolicy, "The following policy rules failed: [\"ExpirationRule\"]: it must end.").At(target + ".expiration")
		}
		return start, end, nil
	case !a.End.IsZero():
		end = a.End
	case a.Duration > 0:
		end = start.Add(a.Duration)
	default:
		end = start.Add(limit)
	}
	if !end.After(start) || !end.After(now) {
		return start, end, bad(target+".expiration", "The end lies before the start, or in the past.")
	}
	if limit > 0 && end.Sub(start) > limit && !(endless && a.Bounded) {
		return start, end, fault.New(fault.Invalid, codePolicy, "The following policy rules failed: [\"ExpirationRule\"]: at most %s is possible.", isoDuration(limit)).At(target + ".expiration")
	}
	return start, end, nil
}

var durationForm = regexp.MustCompile(`^P(?:(\d{1,5})Y)?(?:(\d{1,5})M)?(?:(\d{1,5})W)?(?:(\d{1,5})D)?(?:T(?:(\d{1,5})H)?(?:(\d{1,5})M)?(?:(\d{1,5})S)?)?$`)

// parseDuration reads a duration of ISO 8601; a year has 365 days and a month 30.
func parseDuration(text string) (time.Duration, error) {
	m := durationForm.FindStringSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("%q is no duration", text)
	}
	const day = 24 * time.Hour
	var d time.Duration
	for i, unit := range []time.Duration{365 * day, 30 * day, 7 * day, day, time.Hour, time.Minute, time.Second} {
		n, _ := strconv.Atoi("0" + m[i+1]) // at most five digits
		if n > int(10*365*day/unit) {
			return 0, fmt.Errorf("%q is too long", text)
		}
		d += time.Duration(n) * unit
	}
	if d < 5*time.Minute || d > 10*365*day {
		return 0, fmt.Errorf("%q is out of range", text)
	}
	return d, nil
}

func isoDuration(d time.Duration) string {
	if d%(24*time.Hour) == 0 {
		return fmt.Sprintf("P%dD", d/(24*time.Hour))
	}
	text := "PT"
	if h := d / time.Hour; h > 0 {
		text += fmt.Sprintf("%dH", h)
	}
	if m := d % time.Hour / time.Minute; m > 0 {
		text += fmt.Sprintf("%dM", m)
	}
	if s := d % time.Minute / time.Second; s > 0 {
		text += fmt.Sprintf("%dS", s)
	}
	return text
}

// named checks role, principal and scope of a request against what is there. The
// changes demand that the scope still is when the request is written.
func (p *Provider) named(ctx context.Context, r *arm.Request, a asked) (Principal, []store.Change, error) {
	if r.Old != nil {
		return Principal{}, nil, fault.New(fault.Conflict, "RoleAssignmentRequestExists", "A request of the name '%s' is there already: each request has a new GUID.", r.ID.Name())
	}
	scope := r.ID.Parent()
	definition, err := p.roles.Definition(ctx, a.Role)
	if fault.Is(err, fault.NotFound) {
		return Principal{}, nil, fault.New(fault.NotFound, "RoleDefinitionDoesNotExist", "The specified role definition with ID '%s' does not exist.", a.Role).At("properties.roleDefinitionId")
	}
	if err != nil {
		return Principal{}, nil, err
	}
	if !slices.ContainsFunc(definition.AssignableScopes, func(s string) bool { return s == "/" || rbac.Within(scope.String(), s) }) {
		return Principal{}, nil, bad("properties.roleDefinitionId", "The scope '%s' isn't within the assignable scopes of the role '%s'.", scope, definition.Name)
	}
	principal, err := p.directory.Principal(ctx, a.PrincipalID)
	if fault.Is(err, fault.NotFound) && a.Type == adminRemove {
		principal, err = Principal{ID: a.PrincipalID, Kind: rbac.User}, nil // who is gone can lose what they had
	}
	if fault.Is(err, fault.NotFound) {
		return Principal{}, nil, fault.New(fault.Invalid, "PrincipalNotFound", "The principal '%s' doesn't exist in the directory.", a.PrincipalID).At("properties.principalId")
	}
	if err != nil {
		return Principal{}, nil, fmt.Errorf("principal of request: %w", err)
	}
	there, err := p.scopeThere(ctx, scope)
	return principal, there, err
}

// scopeThere demands that a resource, or the one that the scope is a part of, is there.
func (p *Provider) scopeThere(ctx context.Context, scope resource.ID) ([]store.Change, error) {
	for at := scope; !at.IsRoot() && !at.IsType(resource.TypeSubscription) && !at.IsType(resource.TypeGroup); at = at.Parent() {
		d, err := arm.GetDocument(ctx, p.store, at)
		if fault.Is(err, fault.NotFound) {
			if at.IsChild() {
				continue // a part without a document of its own, such as a cluster's namespace
			}
			return nil, fault.New(fault.NotFound, codeNotFound, "The resource '%s' was not found.", at)
		}
		if err != nil {
			return nil, err
		}
		return []store.Change{{Key: arm.DocumentKey(at), Revision: d.Revision, Check: true}}, nil
	}
	return nil, nil
}

// document is the request as it is kept.
func (a *asked) document(r *arm.Request, state requestState) (*arm.Document, error) {
	d := &arm.Document{}
	d.ID = r.ID
	return d, writeRequest(d, r.Body, state)
}

func writeRequest(d *arm.Document, body map[string]any, state requestState) error {
	var err error
	if body != nil {
		if d.Body, err = json.Marshal(body); err != nil {
			return fmt.Errorf("encode %s: %w", d.ID, err)
		}
	}
	if d.State, err = json.Marshal(state); err != nil {
		return fmt.Errorf("encode state of %s: %w", d.ID, err)
	}
	return nil
}

func readRequest(d *arm.Document) (requestBody, requestState, error) {
	var body requestBody
	var state requestState
	if err := json.Unmarshal(d.Body, &body); err != nil {
		return body, state, fmt.Errorf("decode %s: %w", d.ID, err)
	}
	if err := json.Unmarshal(d.State, &state); err != nil {
		return body, state, fmt.Errorf("decode state of %s: %w", d.ID, err)
	}
	return body, state, nil
}
