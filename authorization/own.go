// SPDX-License-Identifier: Apache-2.0

package authorization

import (
	"context"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/rbac"
	"bastide.dev/store"
)

// ownService marks the assignments that the service makes for identities of its clusters.
const ownService = "bastide"

// Assign gives a principal a role on a scope for the service's own ends; a second
// time changes nothing. Unassign takes it back.
func (p *Provider) Assign(ctx context.Context, principalID, role, scope string) error {
	if err := p.feed.load(ctx); err != nil {
		return err
	}
	role = lastSegment(role)
	if p.table.Definition(role) == nil {
		return fault.New(fault.NotFound, codeNoDefinition, "The role definition '%s' does not exist.", printable(role))
	}
	for _, a := range p.table.Of(principalID) {
		if a.Role == role && strings.EqualFold(a.Scope, scope) && a.Condition == "" && a.Expires.IsZero() {
			return nil
		}
	}
	kind := rbac.ServicePrincipal
	if found, err := p.config.Directory.Principal(ctx, principalID); err == nil {
		kind = found.Kind
	}
	// The same assignment has the same id, so that of two writers one wins.
	name := uuid.NewSHA1(uuid.Nil, []byte(strings.ToLower(principalID+" "+role+" "+scope)))
	id, err := AssignmentID(scope, name.String())
	if err != nil {
		return fmt.Errorf("authorization: scope: %w", err)
	}
	d, err := NewAssignment(&rbac.Assignment{ID: id.String(), Scope: scope, PrincipalID: principalID, PrincipalType: kind, Role: role,
		Description: "Made by the service itself.", Service: ownService, Created: p.now().UTC()})
	if err != nil {
		return err
	}
	change, err := arm.PutDocument(d)
	if err != nil {
		return err
	}
	return p.write(ctx, change)
}

// write applies changes and makes them hold at once; that a document is there already is no error.
func (p *Provider) write(ctx context.Context, changes ...store.Change) error {
	revision, err := p.store.Txn(ctx, changes...)
	switch {
	case fault.Is(err, fault.Precondition):
		_, err = p.feed.list(ctx) // what another process wrote
		return err
	case err != nil:
		return fmt.Errorf("write role assignments: %w", err)
	}
	p.feed.written(changes, revision)
	return nil
}

// Unassign takes back what Assign gave to a principal. What others assigned to
// it stays, and shows a principal that isn't known.
func (p *Provider) Unassign(ctx context.Context, principalID string) error {
	return p.takeBack(ctx, principalID, func(*rbac.Assignment) bool { return true })
}

// takeBack removes a principal's assignments that the service made.
func (p *Provider) takeBack(ctx context.Context, principalID string, wanted func(*rbac.Assignment) bool) error {
	if err := p.feed.load(ctx); err != nil {
		return err
	}
	var changes []store.Change
	for _, a := range p.table.Of(principalID) {
		if a.Service != ownService || !wanted(a) {
			continue
		}
		id, err := AssignmentID(a.Scope, lastSegment(a.ID))
		if err != nil {
			return fmt.Errorf("authorization: scope: %w", err)
		}
		changes = append(changes, store.Change{Key: arm.DocumentKey(id), Revision: store.Any})
	}
	if len(changes) == 0 {
		return nil
	}
	return p.write(ctx, changes...)
}

// Revoke takes back a role on a scope that Assign gave; what isn't there is no error.
func (p *Provider) Revoke(ctx context.Context, principalID, role, scope string) error {
	return p.takeBack(ctx, principalID, func(a *rbac.Assignment) bool { return a.Role == lastSegment(role) && strings.EqualFold(a.Scope, scope) })
}

// May tells whether a principal may do an action on a scope, with all groups that it is in.
func (p *Provider) May(ctx context.Context, principalID, action, scope string) (bool, error) {
	decision, err := p.Decide(ctx, rbac.Request{Action: action, Scope: scope,
		Subject: rbac.Subject{ID: principalID, Groups: p.config.Directory.Groups(ctx, principalID)}})
	return decision.Allowed, err
}
