// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/resource"
)

// upgradingImage is the state of a pool whose nodes get another image, in AKS's words.
const upgradingImage resource.State = "UpgradingNodeImageVersion"

// upgrade is what shall become of a cluster's versions, all at once: the control
// plane goes first, pools follow.
type upgrade struct {
	// ControlPlane is its version to be; zero leaves it.
	ControlPlane Version
	Pools        []poolUpgrade
}

// poolUpgrade is the same of one pool.
type poolUpgrade struct {
	Name string
	// Version is the nodes' to be; zero leaves it.
	Version Version
	// Image brings the nodes to the newest node image; another Version does so anyway.
	Image bool
}

// planUpgrade is the plan of an upgrade that nobody asked for by a PUT, for
// arm.Operations.Begin, after the same checks; nil when there is nothing to do. Of a stopped cluster, one that is
// being deleted, or one in an operation it is a fault.Conflict.
func (p *Provider) planUpgrade(ctx context.Context, w *whole, u upgrade) (*arm.Plan, error) {
	if err := w.idle(); err != nil {
		return nil, err
	}
	old := w.desired()
	next, err := p.upgraded(old, u)
	if err != nil {
		return nil, err
	}
	if err := p.checkDeprecated(ctx, w, next); err != nil {
		return nil, err
	}
	plan := &arm.Plan{Async: true, State: resource.Upgrading}
	images := map[string]bool{}
	for _, pool := range u.Pools {
		images[pool.Name] = pool.Image
	}
	for _, pool := range next.Pools {
		document, err := p.retarget(w.pool(pool.Name), pool, images[pool.Name])
		if err != nil {
			return nil, err
		}
		if document != nil {
			plan.Children = append(plan.Children, document)
		}
	}
	if len(plan.Children) == 0 && next.Version == old.Version {
		return nil, nil
	}
	document := *w.doc
	if err := edit(&document, "properties.kubernetesVersion", next.Version.String()); err != nil {
		return nil, err
	}
	state := w.state
	state.Desired.Version = next.Version
	plan.Document = &document
	return plan, setState(&document, state)
}

// upgraded is a cluster as an upgrade would make it, or all that speaks against it.
func (p *Provider) upgraded(old *Desired, u upgrade) (*Desired, error) {
	versions, err := p.versions()
	if err != nil {
		return nil, err
	}
	next := *old
	next.Pools = append([]Pool(nil), old.Pools...)
	if u.ControlPlane != (Version{}) {
		next.Version = u.ControlPlane
	}
	ps := parser{versions: versions, location: p.Location}
	ps.upgradable(next.Version, old, "properties.kubernetesVersion")
	for _, change := range u.Pools {
		found := false
		for i := range next.Pools {
			pool := &next.Pools[i]
			if pool.Name != change.Name {
				continue
			}
			found = true
			if change.Version != (Version{}) {
				pool.Version = change.Version
			}
		}
		if !found {
			ps.bad("AgentPoolNotFound", "properties.agentPoolProfiles", "There is no agent pool %s.", change.Name)
		}
	}
	for _, pool := range next.Pools {
		target := "properties.agentPoolProfiles[" + pool.Name + "]."
		ps.validateSkew(&next, pool, target)
		was, _ := old.pool(pool.Name)
		ps.poolUpgradable(pool.Version, was.Version, target+"orchestratorVersion")
		if _, known := versions.Find(pool.Version.String()); !known && pool.Version != was.Version {
			ps.problems = append(ps.problems, versions.unknown(pool.Version.String(), p.Location, target+"orchestratorVersion"))
		}
	}
	return &next, fault.Join(ps.problems...)
}

// retarget is a pool's document with another version, or the newest image; nil
// when it has both.
func (p *Provider) retarget(was *poolDoc, pool Pool, image bool) (*arm.Document, error) {
	if !image && pool.Version == was.Pool.Version {
		return nil, nil
	}
	parts, err := p.parts(pool)
	if err != nil {
		return nil, err
	}
	if pool.Version == was.Pool.Version && parts.sameNode(was.Target) {
		return nil, nil
	}
	document, state := *was.Document, was.poolState
	state.Target, state.Pool = parts, pool
	if err := edit(&document, "properties.orchestratorVersion", pool.Version.String()); err != nil {
		return nil, err
	}
	return &document, setState(&document, state)
}

// idle refuses what can't begin now.
func (w *whole) idle() error {
	documents := []*arm.Document{w.doc}
	for _, pool := range w.pools {
		documents = append(documents, pool.Document)
	}
	for _, d := range documents {
		if d.Operation != "" || d.ProvisioningState == resource.Deleting {
			return fault.New(fault.Conflict, "OperationNotAllowed", "Another operation (%s) on '%s' is in progress.", d.ProvisioningState, d.ID)
		}
	}
	if w.state.Stopped {
		return stoppedFault()
	}
	return nil
}

// upgradeNodeImage brings a pool's nodes to the newest node image. A pool that
// has it is accepted too, as AKS does: its operation ends at once.
func (p *Provider) upgradeNodeImage(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	pool, err := p.poolAsked(ctx, r)
	if err != nil {
		return nil, err
	}
	parts, err := p.parts(pool.Pool)
	if err != nil {
		return nil, err
	}
	document, state := *pool.Document, pool.poolState
	state.Target = parts
	return &arm.Plan{Document: &document, Async: true, State: upgradingImage}, setState(&document, state)
}

// upgrading is the state of a pool while a PUT is carried out: AKS's word when
// it changes the version or the image, else the front door's.
func upgrading(was *poolDoc, pool Pool) resource.State {
	if was != nil && (was.Pool.Version != pool.Version || was.Pool.Image != pool.Image) {
		return resource.Upgrading
	}
	return ""
}

// upgrading is the same of a cluster and its pools.
func (w *whole) upgrading(d *Desired) resource.State {
	if d.Version != w.state.Desired.Version {
		return resource.Upgrading
	}
	for _, pool := range d.Pools {
		if state := upgrading(w.pool(pool.Name), pool); state != "" {
			return state
		}
	}
	return ""
}

// poolOutput is a pool as the final answer of an action shows it.
func (p *Provider) poolOutput(ctx context.Context, id resource.ID) (json.RawMessage, error) {
	document, err := arm.GetDocument(ctx, p.Store, id)
	if err != nil {
		return nil, err
	}
	document.ProvisioningState = resource.Succeeded
	view, err := p.viewPool(ctx, document, "")
	if err != nil {
		return nil, err
	}
	return json.Marshal(view)
}
