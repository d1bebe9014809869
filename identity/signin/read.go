// SPDX-License-Identifier: Apache-2.0

package signin

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"bastide.dev/identity"
	"bastide.dev/store"
)

// The kinds of sign-ins as Graph's signInEventTypes names them.
const (
	InteractiveUser    = "interactiveUser"
	NonInteractiveUser = "nonInteractiveUser"
	ServicePrincipal   = "servicePrincipal"
	ManagedIdentity    = "managedIdentity"
)

// EventType is the kind of an entry. Nobody knows what a name that doesn't
// exist would have been: it counts as a person unless a client tried its own secret.
func (e *Entry) EventType() string {
	switch {
	case e.Kind == identity.ManagedIdentityKind:
		return ManagedIdentity
	case e.Kind == identity.ServicePrincipalKind,
		e.Kind == "" && slices.Contains([]identity.Flow{identity.FlowSecret, identity.FlowAssertion, identity.FlowFederated}, e.Flow):
		return ServicePrincipal
	case e.Flow == identity.FlowRefresh || e.Flow == identity.FlowOnBehalf:
		return NonInteractiveUser
	}
	return InteractiveUser
}

// ClientApp is how the client signed in, in Graph's words.
func (e *Entry) ClientApp() string {
	switch e.Flow {
	case identity.FlowPassword:
		return "Other clients"
	case identity.FlowCode:
		return "Browser"
	case identity.FlowDevice, identity.FlowRefresh, identity.FlowOnBehalf, identity.FlowSecret, identity.FlowAssertion, identity.FlowFederated:
	}
	return "Mobile Apps and Desktop clients"
}

// Protocol is the way to the token, in Graph's words.
func (e *Entry) Protocol() string {
	switch e.Flow {
	case identity.FlowDevice:
		return "deviceCode"
	case identity.FlowPassword:
		return "ropc"
	case identity.FlowCode, identity.FlowRefresh, identity.FlowOnBehalf, identity.FlowSecret, identity.FlowAssertion, identity.FlowFederated:
	}
	return "oAuth2"
}

// Times is how many sign-ins an entry stands for.
func (e *Entry) Times() int { return max(e.Count, 1) }

// SignIns lists the attempts since a time that match, the newest first.
func (s *Service) SignIns(ctx context.Context, since time.Time, match func(*Entry) bool) ([]Entry, error) {
	if err := s.Flush(ctx); err != nil {
		return nil, err
	}
	return ReadSignIns(ctx, s.store, since, match)
}

// ReadSignIns is SignIns for who has a store and no Service.
func ReadSignIns(ctx context.Context, from store.Store, since time.Time, match func(*Entry) bool) ([]Entry, error) {
	records, _, err := from.List(ctx, logPrefix)
	if err != nil {
		return nil, fmt.Errorf("list sign-ins: %w", err)
	}
	found := []Entry{}
	for _, r := range records {
		if b, ok := parseKey(r.Key); ok && b.written.Before(since) {
			continue // an entry is never written before it happens
		}
		var entries []Entry
		if err := json.Unmarshal(r.Value, &entries); err != nil {
			return nil, fmt.Errorf("decode %s: %w", r.Key, err)
		}
		for i := range entries {
			if !entries[i].Time.Before(since) && (match == nil || match(&entries[i])) {
				found = append(found, entries[i])
			}
		}
	}
	slices.SortFunc(found, func(a, b Entry) int {
		return cmp.Or(b.Time.Compare(a.Time), strings.Compare(a.ID, b.ID))
	})
	return found, nil
}

// Failures are the failed attempts of one name from one address.
type Failures struct {
	Name    string    `json:"name"`
	Address string    `json:"address"`
	Count   int       `json:"count"`
	Last    time.Time `json:"last"`
	Reason  string    `json:"reason"` // of the last
	Code    int       `json:"code"`
}

// CountFailures puts failed attempts together by name and address, the most first.
func CountFailures(entries []Entry) []Failures {
	type key struct{ name, address string }
	by := map[key]*Failures{}
	for i := range entries {
		e := &entries[i]
		if e.Code == 0 {
			continue
		}
		k := key{strings.ToLower(cmp.Or(e.Name, e.ClientID)), e.Address}
		f := by[k]
		if f == nil {
			f = &Failures{Name: cmp.Or(e.Name, e.ClientID), Address: e.Address}
			by[k] = f
		}
		f.Count += e.Times()
		if e.Time.After(f.Last) {
			f.Last, f.Reason, f.Code = e.Time, e.Reason, e.Code
		}
	}
	found := []Failures{}
	for _, f := range by {
		found = append(found, *f)
	}
	slices.SortFunc(found, func(a, b Failures) int {
		return cmp.Or(b.Count-a.Count, strings.Compare(a.Name+"\x00"+a.Address, b.Name+"\x00"+b.Address))
	})
	return found
}
