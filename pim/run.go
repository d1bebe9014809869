// SPDX-License-Identifier: Apache-2.0

package pim

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// Run begins what was asked for later, and ends what has run out or lost its
// ground, until ctx ends. What has run out counts for nothing before that: a
// role assignment knows its own end.
func (p *Provider) Run(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		if err := p.Look(ctx); err != nil && ctx.Err() == nil {
			p.log.Error("schedules of roles not kept", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Look goes over all schedules and requests once. It can be repeated at any time, by any replica.
func (p *Provider) Look(ctx context.Context) error {
	eligible, err := p.schedules(ctx, typeEligible)
	if err != nil {
		return err
	}
	active, err := p.schedules(ctx, typeActive)
	if err != nil {
		return err
	}
	by := map[string]*schedule{}
	var problems []error
	for _, s := range eligible {
		by[s.id.Key()] = s
		if s.over(p.now()) {
			problems = append(problems, p.finish(ctx, s, "its time is over"))
		}
	}
	for _, s := range active {
		problems = append(problems, p.keep(ctx, s, by))
	}
	return errors.Join(append(problems, p.tidy(ctx))...)
}

// keep makes one active schedule as it should be at this moment.
func (p *Provider) keep(ctx context.Context, s *schedule, eligible map[string]*schedule) error {
	if s.over(p.now()) {
		return p.finish(ctx, s, "its time is over")
	}
	if s.Linked != "" {
		id, err := resource.ParseID(s.Linked)
		if err != nil {
			return fmt.Errorf("eligibility of %s: %w", s.id, err)
		}
		if by := eligible[id.Key()]; by == nil || !p.holds(ctx, by, s.PrincipalID) {
			return p.finish(ctx, s, "its eligibility has ended")
		}
	}
	if s.Assignment == "" {
		if !s.live(p.now()) {
			return nil
		}
		changes, err := p.take(s, s.PrincipalID)
		if err != nil {
			return err
		}
		return p.commit(ctx, s, "its time has come", typeAssignment+"/write", changes...)
	}
	id, err := resource.ParseID(s.Assignment)
	if err != nil {
		return fmt.Errorf("assignment of %s: %w", s.id, err)
	}
	if _, err := arm.GetDocument(ctx, p.store, id); fault.Is(err, fault.NotFound) { // somebody took it away
		return p.finish(ctx, s, "its role assignment was removed")
	} else if err != nil {
		return fmt.Errorf("read %s: %w", id, err)
	}
	return nil
}

func (p *Provider) finish(ctx context.Context, s *schedule, why string) error {
	changes, err := s.end()
	if err != nil {
		return err
	}
	return p.commit(ctx, s, why, actionRevoke, changes...)
}

// commit writes what follows from time alone, with a record in the activity log.
// When somebody else changed the schedule meanwhile, the next look sees what to do.
func (p *Provider) commit(ctx context.Context, s *schedule, why, action string, changes ...store.Change) error {
	at := s.id
	if s.Assignment != "" {
		id, err := resource.ParseID(s.Assignment)
		if err != nil {
			return fmt.Errorf("assignment of %s: %w", s.id, err)
		}
		at = id
	}
	changes = append(changes, arm.NewActivity(p.now(), at, action, why))
	revision, err := p.store.Txn(ctx, changes...)
	if fault.Is(err, fault.Precondition) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", s.id, err)
	}
	p.roles.Committed(changes, revision)
	p.log.Info("schedule of a role", "schedule", s.id.String(), "principal", s.PrincipalID, "role", s.Role, "why", why)
	return nil
}

// tidy ends requests that nobody approved in time, and forgets old ones.
func (p *Provider) tidy(ctx context.Context) error {
	var problems []error
	for _, typ := range []string{typeEligibleRequest, typeActiveRequest} {
		documents, err := p.documents(ctx, typ)
		if err != nil {
			return err
		}
		for _, d := range documents {
			problems = append(problems, p.tidyRequest(ctx, d))
		}
	}
	return errors.Join(problems...)
}

func (p *Provider) tidyRequest(ctx context.Context, d *arm.Document) error {
	_, state, err := readRequest(d)
	if err != nil {
		return err
	}
	age := p.now().Sub(state.Created)
	var changes []store.Change
	switch {
	case state.Status == pending && age >= pendingLife:
		state.Status = timedOut
		if err := writeRequest(d, nil, state); err != nil {
			return err
		}
		change, err := arm.PutDocument(d)
		if err != nil {
			return err
		}
		changes = append(changes, change)
	case age > requestsKept:
		stage := d.ID.Parent().Resource(Namespace, "roleAssignmentApprovals", d.ID.Name()).Child("stages", d.ID.Name())
		changes = append(changes, store.Change{Key: arm.DocumentKey(d.ID), Revision: d.Revision}, store.Change{Key: arm.DocumentKey(stage), Revision: store.Any})
	default:
		return nil
	}
	if _, err := p.store.Txn(ctx, changes...); err != nil && !fault.Is(err, fault.Precondition) {
		return fmt.Errorf("tidy %s: %w", strings.TrimPrefix(d.ID.String(), "/"), err)
	}
	return nil
}
