// SPDX-License-Identifier: Apache-2.0

package signin

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"bastide.dev/fault"
	"bastide.dev/identity"
	"bastide.dev/store"
)

// LockedOut says which policies keep every Global Administrator from changing
// policies, wherever they sign in from; nil when one of them can still do it.
func (s *Service) LockedOut(ctx context.Context) ([]Policy, error) {
	b, err := s.current(ctx)
	if err != nil || !b.active {
		return nil, err
	}
	people, err := s.administrators(ctx)
	if err != nil {
		return nil, err
	}
	var guilty []string
	for _, id := range people {
		blockers, free, err := s.blockers(ctx, b, id)
		if err != nil || free {
			return nil, err
		}
		guilty = append(guilty, blockers...)
	}
	var found []Policy
	for _, p := range b.policies {
		if slices.Contains(guilty, p.ID) {
			found = append(found, p)
		}
	}
	return found, nil
}

// administrators are the people who are Global Administrators, also as members
// of a group: a service principal is nobody who could look why.
func (s *Service) administrators(ctx context.Context) ([]string, error) {
	holders, err := s.directory.HoldersOf(ctx, identity.GlobalAdministrator)
	if err != nil {
		return nil, fmt.Errorf("read administrators: %w", err)
	}
	var people []string
	for _, id := range holders {
		members := []string{id}
		g, err := s.directory.Group(ctx, id)
		if err == nil {
			members = g.Members
		} else if !fault.Is(err, fault.NotFound) {
			return nil, err
		}
		for _, member := range members {
			u, err := s.directory.User(ctx, member)
			if fault.Is(err, fault.NotFound) || err == nil && u.Disabled {
				continue
			}
			if err != nil {
				return nil, err
			}
			people = append(people, u.ID)
		}
	}
	return people, nil
}

// blockers tries the ways that an administrator has to Graph: one that is open is enough.
func (s *Service) blockers(ctx context.Context, b *book, user string) (policies []string, free bool, err error) {
	now := s.now()
	for _, from := range b.places() {
		a, err := s.attempt(ctx, identity.SignIn{Time: now, Flow: identity.FlowCode, Kind: identity.UserKind, Principal: user, ClientID: identity.AppCLI,
			ResourceID: identity.AppGraph, Address: from, Methods: []string{identity.MethodPassword, identity.MethodPasskey, identity.MethodMFA}, Authenticated: now})
		if err != nil {
			return nil, false, err
		}
		v := judge(b.policies, b.locations, a)
		if v.Denied == nil {
			return nil, true, nil
		}
		for _, applied := range v.Policies {
			if applied.Result == "failure" {
				policies = append(policies, applied.ID)
			}
		}
	}
	return policies, false, nil
}

// places is an address in each named range, and one in none.
func (b *book) places() []netip.Addr {
	found := []netip.Addr{{}}
	for _, l := range b.locations {
		for _, r := range l.Ranges {
			found = append(found, r.Addr())
		}
	}
	return found
}

// SwitchOff disables a policy, by id or name, straight in the store: for the
// machine's own administrator, when nobody gets a token any more.
// identity.By says in the context who did it.
func SwitchOff(ctx context.Context, to store.Store, idOrName string, now time.Time) (Policy, error) {
	for range attempts {
		b, err := readBook(ctx, to)
		if err != nil {
			return Policy{}, err
		}
		matches := slices.DeleteFunc(slices.Clone(b.policies), func(p Policy) bool {
			return !strings.EqualFold(p.ID, idOrName) && !strings.EqualFold(p.Name, idOrName)
		})
		if len(matches) != 1 {
			return Policy{}, fault.New(fault.NotFound, "ResourceNotFound", "There are %d conditional access policies '%.100s': name one by its id.", len(matches), idOrName)
		}
		next := matches[0]
		next.State, next.Modified = Disabled, now.UTC()
		err = commit(ctx, to, now, policyPrefix+next.ID, b.version,
			change{"Update conditional access policy", identity.AuditTarget{Type: "Policy", ID: next.ID, Name: next.Name}, matches[0], next})
		if !fault.Is(err, fault.Precondition) {
			return next, err
		}
	}
	return Policy{}, fault.New(fault.Conflict, "Conflict", "The policies were changed by others at the same moment. Try again.")
}

// ReadPolicies lists the policies of a store, by name.
func ReadPolicies(ctx context.Context, from store.Store) ([]Policy, error) {
	b, err := readBook(ctx, from)
	if err != nil {
		return nil, err
	}
	return b.policies, nil
}
