// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// former is an identity that a cluster had, until nothing runs as it any more.
type former struct {
	Principal string `json:"principal,omitempty"`
	// Resource is what the cluster made it for; "": it is the user's.
	Resource string `json:"resource,omitempty"`
}

// reidentify notes what a cluster was before it becomes another. The roles of
// what it becomes are given by the reconciler.
func (s *clusterState) reidentify(cluster resource.ID, d *Desired) {
	old := &s.Desired
	if old.Identity != d.Identity || old.ClientID != d.ClientID || old.User != d.User {
		f := former{Principal: s.PrincipalID}
		if old.Identity == systemAssigned {
			f.Resource = cluster.String()
		}
		s.Former, s.PrincipalID, s.Granted = append(s.Former, f), "", false
	}
	made := func(d *Desired) bool { return d.Identity != byPrincipal && d.Kubelet.none() }
	if made(old) != made(d) || old.Kubelet != d.Kubelet {
		if made(old) {
			s.Former = append(s.Former, former{Principal: s.KubeletPrincipal, Resource: kubeletIdentityID(cluster, old).String()})
		}
		s.KubeletPrincipal, s.KubeletClient, s.Granted = "", "", false
	}
}

// identities gives a cluster the identities it acts as, and their roles; made
// ones are found again.
func (r *runner) identities(ctx context.Context, w *whole) (bool, error) {
	s := &w.state
	if s.Granted {
		return false, nil
	}
	var err error
	d := &s.Desired
	switch d.Identity {
	case systemAssigned:
		s.PrincipalID, _, err = r.Directory.CreateManagedIdentity(ctx, w.doc.Name, w.doc.ID.String())
	case userAssigned:
		s.PrincipalID = d.User.PrincipalID
	default:
		s.PrincipalID, err = r.Directory.PrincipalOf(ctx, d.ClientID)
	}
	if err != nil {
		return false, fmt.Errorf("identity of cluster: %w", err)
	}
	switch {
	case d.Identity == byPrincipal: // its nodes pull as it, too
	case !d.Kubelet.none():
		s.KubeletPrincipal, s.KubeletClient = d.Kubelet.PrincipalID, d.Kubelet.ClientID
	default:
		kubelet := kubeletIdentityID(w.doc.ID, d)
		if s.KubeletPrincipal, s.KubeletClient, err = r.Directory.CreateManagedIdentity(ctx, kubelet.Name(), kubelet.String()); err != nil {
			return false, fmt.Errorf("identity of kubelets: %w", err)
		}
	}
	if err := r.Directory.Assign(ctx, s.PrincipalID, contributorRole, w.group().String()); err != nil {
		return false, fmt.Errorf("role of cluster: %w", err)
	}
	if d.Identity != userAssigned { // such a one has its role on the network from the user
		for _, subnet := range w.desired().subnets() {
			if err := r.Directory.Assign(ctx, s.PrincipalID, networkRole, subnet.Parent().String()); err != nil {
				return false, fmt.Errorf("role of cluster: %w", err)
			}
		}
	}
	s.Granted = true
	return true, nil
}

// retire ends what a cluster was, now that nothing runs as it any more: made
// identities are deleted, the user's lose their role on the node resource group.
func (r *runner) retire(ctx context.Context, w *whole) ([]store.Change, error) {
	s := &w.state
	if len(s.Former) == 0 {
		return nil, nil
	}
	for _, f := range s.Former {
		principal := f.Principal
		if principal == "" && f.Resource != "" { // a kill kept it from being written down
			var err error
			id := resource.MustParseID(f.Resource)
			if principal, _, err = r.Directory.CreateManagedIdentity(ctx, id.Name(), f.Resource); err != nil {
				return nil, fmt.Errorf("former identity: %w", err)
			}
		}
		if principal == "" || principal == s.PrincipalID || principal == s.KubeletPrincipal {
			continue // never used, or in use again
		}
		var err error
		if f.Resource != "" {
			err = r.Directory.DeletePrincipal(ctx, principal)
		} else {
			err = r.Roles.Revoke(ctx, principal, contributorRole, w.group().String())
		}
		if err != nil {
			return nil, fmt.Errorf("former identity: %w", err)
		}
	}
	s.Former = nil
	var changes []store.Change
	if s.Desired.Identity != byPrincipal {
		changes = append(changes, store.Change{Key: principalKey(s.UID), Revision: store.Any})
	}
	return stateChange(changes, w.doc, w.state)
}

// dropIdentities removes what identities made, also when a kill kept it from
// being written down: asked again, the directory names the one it made.
func (r *runner) dropIdentities(ctx context.Context, w *whole) error {
	s := &w.state
	d := &s.Desired
	gone := s.Former
	if d.Identity == systemAssigned {
		gone = append(gone, former{s.PrincipalID, w.doc.ID.String()})
	}
	if d.Identity != byPrincipal && d.Kubelet.none() {
		gone = append(gone, former{s.KubeletPrincipal, kubeletIdentityID(w.doc.ID, d).String()})
	}
	for _, f := range gone {
		if f.Resource == "" {
			continue // the user's own; its roles in the group go with the group
		}
		principal := f.Principal
		if principal == "" {
			var err error
			if principal, _, err = r.Directory.CreateManagedIdentity(ctx, resource.MustParseID(f.Resource).Name(), f.Resource); err != nil {
				return fmt.Errorf("delete identity: %w", err)
			}
		}
		if err := r.Directory.DeletePrincipal(ctx, principal); err != nil {
			return fmt.Errorf("delete identity: %w", err)
		}
	}
	return nil
}

// kubelet is the identity that nodes act as; none with a service principal.
func (w *whole) kubelet() Assigned {
	s := &w.state
	if s.Desired.Identity == byPrincipal || s.KubeletPrincipal == "" {
		return Assigned{}
	}
	if id := s.Desired.Kubelet; !id.none() {
		return id
	}
	return Assigned{ID: kubeletIdentityID(w.doc.ID, &s.Desired), PrincipalID: s.KubeletPrincipal, ClientID: s.KubeletClient}
}

// identityDocs is the made kubelet identity as a resource like anybody's.
func (p *Provider) identityDocs(w *whole) []azureDoc {
	k := w.kubelet()
	if k.none() || !w.state.Desired.Kubelet.none() {
		return nil
	}
	properties := object{"tenantId": p.Tenant, "principalId": k.PrincipalID, "clientId": k.ClientID}
	return []azureDoc{{id: k.ID, location: w.state.Desired.Location, body: object{"properties": properties},
		merge: func(body object) bool {
			if get(body, "properties.principalId") == k.PrincipalID && get(body, "properties.clientId") == k.ClientID {
				return false
			}
			body["properties"] = properties
			return true
		}}}
}

// nodeIdentity is what scale sets say of identities; nil when they have none.
func (w *whole) nodeIdentity() object {
	k := w.kubelet()
	if k.none() {
		return nil
	}
	return object{"type": userAssigned, "userAssignedIdentities": object{
		k.ID.String(): object{"principalId": k.PrincipalID, "clientId": k.ClientID}}}
}

// mergeIdentity brings a scale set's identity to what it should be and tells whether that changed it.
func (w *whole) mergeIdentity(body object) bool {
	wanted := w.nodeIdentity()
	have, _ := body["identity"].(object)
	a, errA := json.Marshal(have)
	b, errB := json.Marshal(wanted)
	if errA == nil && errB == nil && bytes.Equal(a, b) {
		return false
	}
	delete(body, "identity")
	if wanted != nil {
		body["identity"] = wanted
	}
	return true
}

// viewIdentity shows who a cluster and its nodes are, and what is wrong with the
// service principal that it acts as.
func (p *Provider) viewIdentity(ctx context.Context, body object, w *whole) error {
	s := &w.state
	switch {
	case s.Desired.Identity == systemAssigned && s.PrincipalID != "":
		set(body, "identity.principalId", s.PrincipalID)
		set(body, "identity.tenantId", p.Tenant)
	case s.Desired.Identity == userAssigned:
		identity, _ := get(body, "identity").(object)
		identity["userAssignedIdentities"] = object{s.Desired.User.ID.String(): object{
			"principalId": s.Desired.User.PrincipalID, "clientId": s.Desired.User.ClientID}}
	case s.Desired.Identity == byPrincipal:
		problem, err := p.principalProblem(ctx, s)
		if err != nil {
			return err
		}
		if problem != nil {
			set(body, "properties.status.provisioningError", object{"code": problem.Code, "message": problem.Message})
		}
	}
	if k := w.kubelet(); !k.none() {
		set(body, "properties.identityProfile."+kubeletProfile, object{
			"resourceId": k.ID.String(), "clientId": k.ClientID, "objectId": k.PrincipalID})
	}
	return nil
}

// principalProblem says why a cluster's service principal is no good any more; nil when it is.
func (p *Provider) principalProblem(ctx context.Context, s *clusterState) (*fault.Error, error) {
	credential, err := p.credential(ctx, s)
	if fault.Is(err, fault.NotFound) {
		return nil, nil // the cluster is being deleted
	}
	if err != nil {
		return nil, err
	}
	ends, err := p.SecretEnd(ctx, credential.ClientID, credential.Secret)
	const advice = "Give the cluster another: az aks update-credentials --reset-service-principal."
	switch {
	case fault.Is(err, fault.NotFound):
		return fault.New(fault.Invalid, "ServicePrincipalNotFound", "The service principal %s, or the secret that the cluster has of it, is gone. %s", credential.ClientID, advice), nil
	case err != nil:
		return nil, err
	case !p.Now().Before(ends):
		return fault.New(fault.Invalid, "ServicePrincipalSecretExpired", "The secret that the cluster has of service principal %s expired on %s: its controllers can't act any more. %s",
			credential.ClientID, ends.UTC().Format("2006-01-02"), advice), nil
	}
	return nil, nil
}

// resetServicePrincipal gives a cluster another service principal or secret.
func (p *Provider) resetServicePrincipal(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	if r.Old == nil {
		return nil, notFound(r.ID)
	}
	w, err := p.load(ctx, r.Old)
	if err != nil {
		return nil, err
	}
	if w.state.Desired.Identity != byPrincipal {
		return nil, fault.New(fault.Invalid, "OperationNotAllowed", "The cluster has a managed identity: it has no service principal to reset.")
	}
	if w.state.Stopped {
		return nil, stoppedFault()
	}
	clientID, _ := get(r.Body, "clientId").(string)
	secret, _ := get(r.Body, "secret").(string)
	var problems []*fault.Error
	for name, given := range map[string]string{"clientId": clientID, "secret": secret} {
		if given == "" || len(given) > 1024 {
			problems = append(problems, fault.New(fault.Invalid, "InvalidParameter", "The property %s is required, of at most 1024 characters.", name).At(name))
		}
	}
	if err := fault.Join(problems...); err != nil {
		return nil, err
	}
	if err := p.checkPrincipal(ctx, clientID, secret, ""); err != nil {
		return nil, err
	}
	d := w.state.Desired
	d.ClientID = clientID
	w.state.reidentify(r.ID, &d)
	w.state.Desired = d
	change, err := principalChange(w.state.UID, clientID, secret)
	if err != nil {
		return nil, fmt.Errorf("service principal of %s: %w", r.ID, err)
	}
	doc := *r.Old
	if _, err := p.mergeBody(&doc, func(body object) bool {
		set(body, "properties.servicePrincipalProfile.clientId", clientID)
		return true
	}); err != nil {
		return nil, err
	}
	return &arm.Plan{Document: &doc, Changes: []store.Change{change}, Async: true, State: resource.Updating}, setState(&doc, w.state)
}

// checkPrincipal refuses a service principal whose secret is wrong.
func (p *Provider) checkPrincipal(ctx context.Context, clientID, secret, prefix string) error {
	if err := p.CheckSecret(ctx, clientID, secret); err != nil {
		return fault.New(fault.Invalid, "ServicePrincipalValidationClientError",
			"The credentials in servicePrincipalProfile were invalid: the service principal or its secret is wrong.").At(prefix).Because(err)
	}
	return nil
}
