// SPDX-License-Identifier: Apache-2.0

package pim

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/rbac"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// schedule says that a principal is eligible for a role on a scope, or has it,
// for a time. It is a document under the scope, and goes with it. Its name
// follows from principal, role and scope: there is one of each.
type schedule struct {
	PrincipalID   string    `json:"principalId"`
	PrincipalType string    `json:"principalType"`
	Role          string    `json:"role"`
	Start         time.Time `json:"start"`
	End           time.Time `json:"end,omitzero"` // zero: none
	Created       time.Time `json:"created"`
	Updated       time.Time `json:"updated"`
	Request       string    `json:"request"`
	// Linked is, of an activation, the eligibility that it stands on: they end together.
	Linked string `json:"linked,omitempty"`
	// Assignment is the role assignment of an active one, "" before its start.
	Assignment string `json:"assignment,omitempty"`

	id       resource.ID
	revision int64
}

func (s *schedule) scope() string { return s.id.Parent().String() }

// live tells whether the schedule's time is now.
func (s *schedule) live(now time.Time) bool { return !now.Before(s.Start) && !s.over(now) }

func (s *schedule) over(now time.Time) bool { return !s.End.IsZero() && !now.Before(s.End) }

func named(parts ...string) string {
	return uuid.NewSHA1(uuid.Nil, []byte(strings.ToLower(strings.Join(parts, " ")))).String()
}

func assignmentName(principal, role, scope string) string {
	return named("pim assignment", principal, role, scope)
}

// scheduleID is where the schedule of a type for principal, role and scope stands.
func scheduleID(typ string, scope resource.ID, principal, role string) resource.ID {
	return scope.Resource(Namespace, strings.TrimPrefix(typ, Namespace+"/"), named(typ, principal, role, scope.String()))
}

// write is the change that writes the schedule if it is as it was read.
func (s *schedule) write() (store.Change, error) {
	body, err := json.Marshal(s)
	if err != nil {
		return store.Change{}, fmt.Errorf("encode %s: %w", s.id, err)
	}
	d := &arm.Document{Revision: s.revision}
	d.ID, d.Name, d.Type, d.Body = s.id, s.id.Name(), s.id.Type(), body
	d.ProvisioningState, d.Etag, d.Generation = resource.Succeeded, uuid.NewString(), 1
	d.SystemData = resource.SystemData{CreatedBy: nameOfService, CreatedByType: "Application", CreatedAt: s.Created,
		LastModifiedBy: nameOfService, LastModifiedByType: "Application", LastModifiedAt: s.Updated}
	return arm.PutDocument(d)
}

// end are the changes that take a schedule away, and the assignment that it made.
func (s *schedule) end() ([]store.Change, error) {
	changes := []store.Change{{Key: arm.DocumentKey(s.id), Revision: s.revision}}
	if s.Assignment != "" {
		id, err := resource.ParseID(s.Assignment)
		if err != nil {
			return nil, fmt.Errorf("assignment of %s: %w", s.id, err)
		}
		changes = append(changes, store.Change{Key: arm.DocumentKey(id), Revision: store.Any})
	}
	return changes, nil
}

// begin is the change that writes the role assignment of an active schedule, whose start has come.
func (p *Provider) begin(s *schedule, by string) (store.Change, error) {
	id := s.id.Parent().Resource(Namespace, "roleAssignments", assignmentName(s.PrincipalID, s.Role, s.scope()))
	d, err := p.roles.Grant(&rbac.Assignment{ID: id.String(), Scope: s.scope(), PrincipalID: s.PrincipalID, PrincipalType: s.PrincipalType, Role: s.Role,
		Description: "By Privileged Identity Management, request " + s.Request + ".", Expires: s.End, Created: p.now().UTC(), CreatedBy: by, UpdatedBy: by})
	if err != nil {
		return store.Change{}, fmt.Errorf("role assignment: %w", err)
	}
	s.Assignment = id.String()
	change, err := arm.PutDocument(d)
	change.Revision = store.Any // what an earlier activation may have left is replaced
	return change, err
}

func readSchedule(d *arm.Document) (*schedule, error) {
	s := &schedule{id: d.ID, revision: d.Revision}
	if err := json.Unmarshal(d.Body, s); err != nil {
		return nil, fmt.Errorf("decode %s: %w", d.ID, err)
	}
	return s, nil
}

// schedule reads one; nil when there is none.
func (p *Provider) schedule(ctx context.Context, id resource.ID) (*schedule, error) {
	d, err := arm.GetDocument(ctx, p.store, id)
	if fault.Is(err, fault.NotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", id, err)
	}
	return readSchedule(d)
}

// documents are all documents of a type, wherever they stand.
func (p *Provider) documents(ctx context.Context, typ string) ([]*arm.Document, error) {
	records, _, err := p.store.List(ctx, arm.DocumentPrefix)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", typ, err)
	}
	part := "/providers/" + strings.ToLower(typ) + "/"
	if short := arm.DocumentPrefix + part[1:]; len(records) > 0 && strings.HasPrefix(records[0].Key, short) {
		part = part[1:] // on the root itself
	}
	var found []*arm.Document
	for _, r := range records {
		if !strings.Contains(r.Key, part) {
			continue
		}
		d, err := arm.DecodeDocument(r)
		if err != nil {
			return nil, err
		}
		if d.ID.IsType(typ) {
			found = append(found, d)
		}
	}
	return found, nil
}

// schedules are all schedules of a type.
func (p *Provider) schedules(ctx context.Context, typ string) ([]*schedule, error) {
	documents, err := p.documents(ctx, typ)
	if err != nil {
		return nil, err
	}
	var found []*schedule
	for _, d := range documents {
		s, err := readSchedule(d)
		if err != nil {
			return nil, err
		}
		found = append(found, s)
	}
	return found, nil
}

// eligibility finds the schedule by which a user may activate a role on a scope at
// this moment: at the scope or above it, for the user or a group they are in.
// linked, when it is set, is the one they name.
func (p *Provider) eligibility(ctx context.Context, user, role, scope, linked string) (*schedule, error) {
	all, err := p.schedules(ctx, typeEligible)
	if err != nil {
		return nil, err
	}
	holders := append(p.directory.Groups(ctx, user), user)
	var best *schedule
	for _, s := range all {
		fits := s.Role == role && s.live(p.now()) && rbac.Within(scope, s.scope()) && slices.Contains(holders, s.PrincipalID) &&
			(linked == "" || strings.EqualFold(lastSegment(linked), s.id.Name()))
		// The nearest one rules, and of those on one scope the user's own.
		if fits && (best == nil || len(s.scope()) > len(best.scope()) || len(s.scope()) == len(best.scope()) && s.PrincipalID == user) {
			best = s
		}
	}
	return best, nil
}

func lastSegment(id string) string { return strings.ToLower(id[strings.LastIndexByte(id, '/')+1:]) }
