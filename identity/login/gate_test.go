// SPDX-License-Identifier: Apache-2.0

package login_test

import (
	"context"

	"bastide.dev/fault"
	"bastide.dev/identity"
)

// recorded is what the journal was told.
type recorded struct {
	identity.SignIn
	err error
}

// Judge says what the test set, and lets all through when it set nothing.
func (w *world) Judge(_ context.Context, attempt identity.SignIn) (identity.Verdict, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.judge == nil {
		return identity.Verdict{}, nil
	}
	return w.judge(attempt), nil
}

// Record keeps an attempt.
func (w *world) Record(attempt identity.SignIn, _ identity.Verdict, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.recorded = append(w.recorded, recorded{attempt, err})
}

// CheckFederated trusts the one assertion that the test set.
func (w *world) CheckFederated(ctx context.Context, appID, assertion string) (identity.ServicePrincipal, string, error) {
	if w.federated == "" || assertion != w.federated {
		return identity.ServicePrincipal{}, "", fault.New(fault.Unauthorized, "AADSTS700211", "No matching federated identity record found for presented assertion issuer.")
	}
	sp, err := w.directory.ServicePrincipal(ctx, appID)
	return sp, "federated-1", err
}

// policy sets what the gate says from now on.
func (w *world) policy(judge func(identity.SignIn) identity.Verdict) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.judge = judge
}

// attempts are those recorded since the last call.
func (w *world) attempts() []recorded {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.recorded
	w.recorded = nil
	return all
}
