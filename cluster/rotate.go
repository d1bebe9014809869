// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"bastide.dev/arm"
	"bastide.dev/controlplane"
	"bastide.dev/fault"
	"bastide.dev/node"
	"bastide.dev/pki"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// credentialLife is how long nodes' shared client certificates last; they reach
// running nodes long before they end.
const credentialLife = 365 * 24 * time.Hour

// awayAfter is how long a node isn't ready until nothing waits for it.
const awayAfter = time.Minute

// Rotation of a cluster's authorities. The request draws new ones and destroys
// the old ones' keys in one transaction: what the new ones sign is believed by
// everyone at once, since the old ones vouched for them. What is left is to
// replace what the old ones had signed, and then to believe them no more:
//
//	replaced set     the control plane shows and signs with the new, believes both;
//	                 nodes turn to the new one after another
//	distrust set     no node has anything of the old: the control plane ends its trust
//	neither          done
type turning struct {
	// Generation counts rotations. A node whose own is lower has the old credentials.
	Generation int64     `json:"generation,omitempty"`
	Replaced   *replaced `json:"replaced,omitempty"`
	Distrust   bool      `json:"distrust,omitempty"`
	// Asked counts who asked again for a rotation whose operation had failed.
	Asked int64 `json:"asked,omitempty"`
}

// replaced is what nodes have that haven't turned yet.
type replaced struct {
	CA     []byte   `json:"ca"` // PEM
	Proxy  pki.Pair `json:"proxy"`
	Policy pki.Pair `json:"policy,omitzero"`
}

// believed are the keys with all authorities that count now.
func (s *secrets) believed() controlplane.Keys {
	keys := s.Keys
	keys.LocalCA = s.Access.Local
	if !s.Access.hasLocal() {
		keys.Former.LocalCA = nil // nothing of theirs counts, the former's least
	}
	return keys
}

// nodeCredentials is what one node is given.
func (s *secrets) nodeCredentials(n allotted) replaced {
	if s.Replaced != nil && n.Authority < s.Generation {
		return *s.Replaced
	}
	return replaced{CA: pki.First(s.CA.Certificate), Proxy: s.Proxy, Policy: s.Policy}
}

// nodeAuthority names whom a node's kubelet has its certificates from; a
// cluster's first authority has no name there.
func (s *secrets) nodeAuthority(n allotted) string {
	if s.Generation == 0 || s.Replaced != nil && n.Authority < s.Generation {
		return ""
	}
	return pki.Name(s.CA.Certificate)
}

// issueShared makes the client certificates that nodes share.
func (s *secrets) issueShared() error {
	ca, err := pki.OpenCA(pki.Pair(s.CA))
	if err != nil {
		return fmt.Errorf("cluster keys: %w", err)
	}
	for _, c := range s.shared() {
		if *c.pair, err = ca.Issue(c.request); err != nil {
			return fmt.Errorf("cluster keys: %w", err)
		}
	}
	return nil
}

type sharedCredential struct {
	pair    *pki.Pair
	request pki.Request
}

func (s *secrets) shared() []sharedCredential {
	return []sharedCredential{
		{&s.Proxy, pki.Request{CommonName: controlplane.ProxyUser, Client: true, Lifetime: credentialLife}},
		{&s.Policy, pki.Request{CommonName: node.PolicyUser, Client: true, Lifetime: credentialLife}},
	}
}

// renewShared makes those anew that are due, or that last longer than they
// should: a former release's did. It tells whether there were any.
func (s *secrets) renewShared(now time.Time) (bool, error) {
	ca, err := pki.OpenCA(pki.Pair(s.CA))
	if err != nil {
		return false, fmt.Errorf("cluster keys: %w", err)
	}
	renewed := false
	for _, c := range s.shared() {
		if ca.Current(*c.pair, c.request, now) && pki.Ends(c.pair.Certificate).Before(now.Add(2*credentialLife)) {
			continue
		}
		if *c.pair, err = ca.Issue(c.request); err != nil {
			return false, fmt.Errorf("cluster keys: %w", err)
		}
		renewed = true
	}
	return renewed, nil
}

// sharedDue is when the next of them is to be renewed.
func (s *secrets) sharedDue() time.Time {
	due := time.Time{}
	for _, c := range s.shared() {
		if at := pki.RenewAt(c.pair.Certificate); due.IsZero() || at.Before(due) {
			due = at
		}
	}
	return due
}

// turn draws new authorities. The old ones vouch for them, and their keys go.
func (s *secrets) turn() error {
	former := controlplane.Trusted{LocalCA: pki.First(s.Access.Local.Certificate)}
	old := replaced{CA: pki.First(s.CA.Certificate), Proxy: s.Proxy, Policy: s.Policy}
	next := max(s.Generation, 1) + 1 // the first was made with the cluster
	for _, a := range []struct {
		name   string
		pair   *controlplane.KeyPair
		former *[]byte
	}{{"cluster-ca", &s.CA, &former.CA}, {"front-proxy-ca", &s.FrontProxyCA, &former.FrontProxy}, {"etcd-ca", &s.EtcdCA, &former.Etcd}} {
		*a.former = pki.First(a.pair.Certificate)
		made, err := succeed(pki.Pair(*a.pair), fmt.Sprintf("%s-%d", a.name, next))
		if err != nil {
			return err
		}
		*a.pair = controlplane.KeyPair(made)
	}
	if s.Access.hasLocal() { // nobody but the API server believes it
		made, err := pki.NewRoot(fmt.Sprintf("local-accounts-%d", next), caLifetime)
		if err != nil {
			return fmt.Errorf("local accounts: %w", err)
		}
		s.Access.Local = controlplane.KeyPair(made)
	}
	s.Generation, s.Replaced, s.Former = next, &old, former
	return s.issueShared()
}

func succeed(pair pki.Pair, name string) (pki.Pair, error) {
	ca, err := pki.OpenCA(pair)
	if err != nil {
		return pki.Pair{}, fmt.Errorf("rotate certificates: %w", err)
	}
	next, err := ca.Succeed(name, caLifetime)
	if errors.Is(err, pki.ErrNoSuccessor) {
		return pki.Pair{}, fault.New(fault.Unsupported, "OperationNotAllowed",
			"The certificates of this cluster can't be rotated: it is older than rotation, and its authorities may not vouch for others. Clusters that are made now have ones that may.").Because(err)
	}
	return next, err
}

// change writes the keys.
func (s *secrets) change(uid string) (store.Change, error) {
	value, err := json.Marshal(s)
	if err != nil {
		return store.Change{}, fmt.Errorf("keys of cluster %s: can't be encoded", uid) // no cause: it could quote a secret
	}
	return store.Change{Key: keysKey(uid), Value: value, Revision: s.revision}, nil
}

// rotateCertificates answers az aks rotate-certs.
func (p *Provider) rotateCertificates(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	if r.Old == nil {
		return nil, notFound(r.ID)
	}
	w, err := p.load(ctx, r.Old)
	if err != nil {
		return nil, err
	}
	if w.state.Stopped {
		return nil, stoppedFault()
	}
	keys, err := p.keys(ctx, w.state.UID)
	if err != nil {
		return nil, err
	}
	_, revision, err := p.access(ctx, w.state.UID)
	if err != nil {
		return nil, err
	}
	if keys.Replaced != nil || keys.Distrust {
		keys.Asked++ // the operation before failed; there is no way back, so this one goes on
	} else if err := keys.turn(); err != nil {
		return nil, err
	}
	change, err := keys.change(w.state.UID)
	if err != nil {
		return nil, err
	}
	access, err := keys.Access.change(w.state.UID, revision)
	if err != nil {
		return nil, err
	}
	w.state.Authority = keys.Generation
	if err := setState(r.Old, w.state); err != nil {
		return nil, err
	}
	return &arm.Plan{Document: r.Old, Async: true, State: resource.Updating, Changes: []store.Change{change, access}}, nil
}

// rotate moves a rotation on by what the reports say, and renews what nodes
// share. It returns the pools that it changed.
func (r *runner) rotate(ctx context.Context, w *whole, h *hosted) ([]*poolDoc, []store.Change, error) {
	keys, err := r.keys(ctx, w.state.UID)
	if err != nil {
		return nil, nil, err
	}
	var pools []*poolDoc
	changed := false
	switch plane := settled(w, h, &keys); {
	case w.state.Stopped:
	case keys.Replaced != nil && plane != nil:
		turned, whole := w.turnNodes(&keys, plane, r.Now())
		if pools = turned; whole {
			keys.Replaced, keys.Former, keys.Distrust, changed = nil, controlplane.Trusted{}, true, true
		}
	case keys.Distrust && plane != nil && slices.Equal(plane.Authorities.Clients, believedNames(&keys)):
		keys.Distrust, changed = false, true
	case keys.Replaced == nil:
		if changed, err = keys.renewShared(r.Now()); err != nil {
			return nil, nil, err
		}
	}
	if !changed {
		return pools, nil, nil
	}
	change, err := keys.change(w.state.UID)
	return pools, []store.Change{change}, err
}

func believedNames(keys *secrets) []string {
	believed := keys.believed()
	return believed.ClientNames()
}

// settled is the report of a control plane that runs with the authorities that
// it should; nil as long as it doesn't.
func settled(w *whole, h *hosted, keys *secrets) *controlplane.Status {
	report, answered := h.answer(unitKey{controlPlaneKind, w.state.ID})
	if !answered || !report.Applied || report.ControlPlane == nil {
		return nil
	}
	status := report.ControlPlane
	believed := keys.believed()
	if status.Phase != planeReady || status.Authorities == nil || status.Authorities.Running != believed.Digest() ||
		status.Authorities.Server != pki.Name(keys.CA.Certificate) {
		return nil
	}
	return status
}

// turnNodes gives the next nodes the new credentials, a tenth of them at a time:
// their kubelets start anew, and pods look unready for a moment. A node that is
// away isn't waited for: it turns when it is back. It returns the pools that it
// changed, and whether all nodes have turned.
func (w *whole) turnNodes(keys *secrets, plane *controlplane.Status, now time.Time) ([]*poolDoc, bool) {
	present := map[string]bool{}
	for _, n := range plane.Nodes {
		// A kubelet that starts anew says for a moment that it isn't ready.
		present[n.Name] = n.Ready || !n.NotReadySince.IsZero() && now.Sub(n.NotReadySince) < awayAfter
	}
	live, pending := 0, 0
	for _, pool := range w.pools {
		for _, n := range pool.Nodes {
			if n.Removed {
				continue
			}
			live++
			if n.Authority == keys.Generation && present[n.Name] && plane.Authorities.Kubelet(n.Name) != pki.Name(keys.CA.Certificate) {
				pending++
			}
		}
	}
	room, done := max(1, live/10)-pending, pending == 0
	var changed []*poolDoc
	for _, pool := range w.pools {
		for i := range pool.Nodes {
			n := &pool.Nodes[i]
			if n.Removed || n.Authority == keys.Generation {
				continue
			}
			done = false
			if present[n.Name] && room <= 0 {
				continue
			}
			if present[n.Name] {
				room--
			}
			n.Authority = keys.Generation
			if !slices.Contains(changed, pool) {
				changed = append(changed, pool)
			}
		}
	}
	return changed, done
}

// rotationWaits says what a rotation waits for; "" when none goes on. next is
// when certificates are due.
func (r *runner) rotationWaits(ctx context.Context, w *whole) (waits string, next time.Duration, err error) {
	keys, err := r.keys(ctx, w.state.UID)
	if err != nil {
		return "", 0, err
	}
	switch {
	case w.state.Stopped:
	case keys.Replaced != nil:
		waits = "not everything has a certificate of the new authorities yet"
	case keys.Distrust:
		waits = "the old authorities are still believed"
	}
	if waits != "" {
		return waits, awayAfter / 4, nil // time decides whether a node is away
	}
	return waits, max(keys.sharedDue().Sub(r.Now()), time.Minute), nil
}

// trustOf is what clients of a cluster are told to believe.
func (s *secrets) trustOf() []byte {
	believed := s.believed()
	return bytes.Clone(believed.Trust().CA)
}
