// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	aks "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"

	"bastide.dev/arm"
	"bastide.dev/controlplane"
	"bastide.dev/fault"
	"bastide.dev/oidc"
	"bastide.dev/resource"
	"bastide.dev/store"
)

const (
	issuerProfile   = "properties.oidcIssuerProfile"
	issuerEnabled   = issuerProfile + ".enabled"
	workloadEnabled = "properties.securityProfile.workloadIdentity.enabled"
)

func issuerProperties() []Property {
	return []Property{
		{issuerEnabled, Effective, nil, ""},
		{issuerProfile + ".issuerURL", ReadOnly, nil, ""},
		{issuerProfile, Refused, nil, ""},
		{workloadEnabled, Effective, nil, ""},
		{"properties.podIdentityProfile", Refused, nil,
			"pod-managed identity has a successor: set oidcIssuerProfile.enabled and securityProfile.workloadIdentity.enabled, and give the identity federated credentials"},
	}
}

// issuer reads what a body says of the issuer and of workload identity; what it
// leaves out stays.
func (p *parser) issuer(d *Desired, props *aks.ManagedClusterProperties, old *Desired) {
	if old != nil {
		d.Issuer, d.WorkloadIdentity = old.Issuer, old.WorkloadIdentity
	}
	if profile := props.OidcIssuerProfile; profile != nil && profile.Enabled != nil {
		d.Issuer = *profile.Enabled
	}
	if profile := props.SecurityProfile; profile != nil && profile.WorkloadIdentity != nil && profile.WorkloadIdentity.Enabled != nil {
		d.WorkloadIdentity = *profile.WorkloadIdentity.Enabled
	}
}

func (p *parser) validateIssuer(d, old *Desired) {
	if old != nil && old.Issuer && !d.Issuer {
		p.bad("BadRequest", issuerEnabled, "The OIDC issuer can't be disabled once it is enabled.")
		return
	}
	if d.WorkloadIdentity && !d.Issuer {
		p.bad("BadRequest", workloadEnabled, "Workload identity needs the OIDC issuer: set oidcIssuerProfile.enabled, too.")
	}
}

func fillIssuer(body object, d *Desired) {
	set(body, issuerEnabled, d.Issuer)
	if d.WorkloadIdentity || get(body, workloadEnabled) != nil {
		set(body, workloadEnabled, d.WorkloadIdentity)
	}
}

// issuerURL is the name of the cluster's issuer, "" when it has none that others know.
func (p *Provider) issuerURL(s *clusterState) string {
	if !s.Desired.Issuer {
		return ""
	}
	return oidc.IssuerURL("https://oidc."+s.Domain, p.Tenant, s.UID)
}

func (p *Provider) viewIssuer(body object, s *clusterState) {
	if url := p.issuerURL(s); url != "" {
		set(body, issuerProfile+".issuerURL", url)
	}
}

// compileIssuer says who issues the cluster's tokens. The API server's own name
// did so before there was an issuer for others, and its tokens stay good.
func (p *Provider) compileIssuer(spec *controlplane.Spec, s *clusterState, keys secrets) {
	own := "https://" + s.FQDN
	spec.Issuer = own
	spec.Keys.ServiceAccounts = keys.Signers.signing(keys.ServiceAccounts)
	for _, retired := range keys.Signers.Retired {
		spec.Keys.RetiredServiceAccounts = append(spec.Keys.RetiredServiceAccounts, retired.Public)
	}
	if url := p.issuerURL(s); url != "" {
		spec.Issuer, spec.FormerIssuers, spec.KeysURL = url, []string{own}, oidc.KeysURL(url)
	}
	if s.Desired.WorkloadIdentity {
		spec.WorkloadIdentity = &controlplane.WorkloadIdentity{Tenant: p.Tenant, Authority: p.Login + "/", CA: p.InstanceCA()}
	}
}

// issuerDocument is what is published of the cluster's issuer now.
func (p *Provider) issuerDocument(s *clusterState, keys secrets) (oidc.Document, error) {
	publics, err := keys.Signers.publics(keys.ServiceAccounts)
	if err != nil {
		return oidc.Document{}, err
	}
	return oidc.NewDocument(p.issuerURL(s), publics...)
}

// publish are the changes that bring the published issuer up to date, and end
// keys whose time is over. A key is published before it signs: the document
// comes before the unit in a plan, and the host sees neither without the other.
func (r *runner) publish(ctx context.Context, w *whole) ([]store.Change, error) {
	s := &w.state
	if !s.Desired.Issuer {
		return nil, nil
	}
	keys, err := r.keys(ctx, s.UID)
	if err != nil {
		return nil, err
	}
	var changes []store.Change
	if keys.Signers.expire(r.Now()) {
		change, err := keys.Signers.change(s.UID)
		if err != nil {
			return nil, err
		}
		changes = append(changes, change)
	}
	document, err := r.issuerDocument(s, keys)
	if err != nil {
		return nil, err
	}
	value, err := json.Marshal(document)
	if err != nil {
		return nil, fmt.Errorf("issuer of %s: %w", s.ID, err)
	}
	key := oidc.StoreKey(r.Tenant, s.UID)
	stored, err := r.Store.Get(ctx, key)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return nil, fmt.Errorf("issuer of %s: %w", s.ID, err)
	}
	if string(stored.Value) != string(value) {
		changes = append(changes, store.Change{Key: key, Value: value, Revision: stored.Revision})
	}
	return changes, nil
}

// issuerWaits says what the running API server doesn't do yet as it should:
// issue under the right name, accept the right keys, have pods given theirs.
func (r *runner) issuerWaits(ctx context.Context, w *whole, h *hosted) (string, error) {
	s := &w.state
	report, answered := h.answer(unitKey{controlPlaneKind, s.ID})
	if !s.Desired.Issuer || s.Stopped || !answered || report.ControlPlane == nil {
		return "", nil
	}
	keys, err := r.keys(ctx, s.UID)
	if err != nil {
		return "", err
	}
	var spec controlplane.Spec
	r.compileIssuer(&spec, s, keys)
	ids, err := spec.SigningKeyIDs()
	if err != nil {
		return "", err
	}
	status := report.ControlPlane
	switch {
	case status.Issuer != spec.Issuer:
		return "the API server doesn't issue tokens under its public name yet", nil
	case !slices.Equal(status.SigningKeys, ids):
		return "the API server hasn't its new keys for tokens yet", nil
	case status.WorkloadIdentity != s.Desired.WorkloadIdentity:
		return "workload identity isn't switched yet", nil
	}
	return "", nil
}

// issuerDue is when the next key's time is over; 0: none is to end.
func (r *runner) issuerDue(ctx context.Context, w *whole) (time.Duration, error) {
	if !w.state.Desired.Issuer {
		return 0, nil
	}
	keys, err := r.keys(ctx, w.state.UID)
	if err != nil {
		return 0, err
	}
	var due time.Duration
	for _, retired := range keys.Signers.Retired {
		if left := max(retired.Until.Sub(r.Now()), soon); due == 0 || left < due {
			due = left
		}
	}
	return due, nil
}

// sooner is the shorter of two waits, where 0 is for ever.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 || b > 0 && b < a {
		return b
	}
	return a
}

// rotateSigningKeys gives the cluster a new key for its service accounts'
// tokens. The one so far is accepted for a day more, or until the next rotation.
func (p *Provider) rotateSigningKeys(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	if r.Old == nil {
		return nil, notFound(r.ID)
	}
	w, err := p.load(ctx, r.Old)
	if err != nil {
		return nil, err
	}
	switch {
	case !w.state.Desired.Issuer:
		return nil, fault.New(fault.Invalid, "BadRequest", "The cluster has no OIDC issuer whose keys could be rotated: enable it first (az aks update --enable-oidc-issuer).").At(issuerEnabled)
	case w.state.Stopped:
		return nil, stoppedFault()
	}
	keys, err := p.keys(ctx, w.state.UID)
	if err != nil {
		return nil, err
	}
	if err := keys.Signers.rotate(keys.ServiceAccounts, p.Now()); err != nil {
		return nil, err
	}
	change, err := keys.Signers.change(w.state.UID)
	if err != nil {
		return nil, err
	}
	return &arm.Plan{Document: r.Old, Async: true, State: resource.Updating, Changes: []store.Change{change}}, nil
}
