// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"

	"bastide.dev/arm"
	"bastide.dev/controlplane"
	"bastide.dev/fault"
	"bastide.dev/pki"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// Bounds of what is given out in an emergency.
const (
	shortestBreakGlass = time.Second
	longestBreakGlass  = 24 * time.Hour
	mostGroups         = 16
)

// breakGlassAction is what the activity log calls it.
const breakGlassAction = clusterType + "/breakGlass/action"

// BreakGlass asks for access to a cluster that ends by itself: for when nobody
// can sign in. Nothing revokes it before its end but a rotation of certificates.
type BreakGlass struct {
	Cluster  resource.ID
	User     string   // how the cluster's own log calls the client
	Groups   []string // system:masters, or the user's own
	Lifetime time.Duration
}

// check lists all that is wrong. Names of Kubernetes' own parts aren't given to people.
func (b *BreakGlass) check() error {
	var wrong []*fault.Error
	bad := func(target, format string, args ...any) {
		wrong = append(wrong, fault.New(fault.Invalid, "InvalidParameter", format, args...).At(target))
	}
	if b.Lifetime < shortestBreakGlass || b.Lifetime > longestBreakGlass {
		bad("lifetime", "The lifetime %s isn't from %s to %s.", b.Lifetime, shortestBreakGlass, longestBreakGlass)
	}
	form := regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:@-]{0,62}$`) // what a certificate's name may hold: 64 characters
	if !form.MatchString(b.User) || strings.HasPrefix(b.User, "system:") {
		bad("user", "The user %q isn't a name of at most 63 letters, digits and . _ : @ - that doesn't begin with system:.", b.User)
	}
	if len(b.Groups) > mostGroups {
		bad("group", "There are %d groups; at most %d are possible.", len(b.Groups), mostGroups)
	}
	for _, group := range b.Groups {
		if !form.MatchString(group) || strings.HasPrefix(group, "system:") && group != controlplane.MastersGroup {
			bad("group", "The group %q isn't %s, nor a name of at most 63 letters, digits and . _ : @ - that doesn't begin with system:.", group, controlplane.MastersGroup)
		}
	}
	return fault.Join(wrong...)
}

// Issue makes the kubeconfig, and writes into the activity log that it did: one
// that isn't on record isn't given out. s is the instance's store, unsealed:
// there is no way here over the network.
func (b *BreakGlass) Issue(ctx context.Context, s store.Store, now time.Time) ([]byte, error) {
	if err := b.check(); err != nil {
		return nil, err
	}
	p := &Provider{Config: Config{Store: s}}
	document, err := arm.GetDocument(ctx, s, b.Cluster)
	if fault.Is(err, fault.NotFound) {
		return nil, notFound(b.Cluster)
	}
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	w, err := p.load(ctx, document)
	if err != nil {
		return nil, err
	}
	keys, err := p.keys(ctx, w.state.UID)
	switch {
	case err != nil:
		return nil, err
	case w.state.Desired.NoLocalAccounts:
		return nil, staticRefused()
	case !keys.Access.hasLocal():
		return nil, fault.New(fault.Conflict, "OperationNotAllowed", "The cluster is being taken over from an older release: try again in a moment.")
	}
	config, err := controlplane.Kubeconfig(controlplane.Credential{
		Cluster: document.Name, User: b.User + "_" + document.ID.Group() + "_" + document.Name,
		Server: "https://" + or(w.privateName(), w.state.FQDN) + ":443", CA: pki.Pair(keys.Access.Local), Trust: keys.trustOf(),
		CommonName: b.User, Organizations: b.Groups, Lifetime: b.Lifetime,
	})
	if err != nil {
		return nil, err
	}
	what := fmt.Sprintf("a certificate of root's on the instance's machine: user %s, groups %s, until %s",
		b.User, or(strings.Join(b.Groups, " "), "none"), now.Add(b.Lifetime).UTC().Format(time.RFC3339))
	if _, err := s.Txn(ctx, arm.NewActivity(now, document.ID, breakGlassAction, what)); err != nil {
		return nil, fmt.Errorf("kubeconfig: activity log: %w", err)
	}
	return config, nil
}
