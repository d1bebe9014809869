// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"

	"github.com/google/uuid"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// putCluster creates or replaces a cluster. All that is allotted to a new one
// is written in the one transaction that accepts it: nothing can be left over.
func (p *Provider) putCluster(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	w, old, err := p.before(ctx, r.Old)
	if err != nil {
		return nil, err
	}
	d, err := p.decide(ctx, r, old)
	if err != nil {
		return nil, err
	}
	if d.Secret != "" {
		if err := p.checkPrincipal(ctx, d.ClientID, d.Secret, "properties.servicePrincipalProfile"); err != nil {
			return nil, err
		}
	}
	plan := &arm.Plan{}
	if old == nil {
		w, err = p.found(ctx, r, &d, plan)
	} else if !sameAccess(old, &d) {
		plan.Changes, err = p.changeAccess(ctx, w, &d)
	}
	if err != nil {
		return nil, err
	}
	changed := old == nil || w.doc.ProvisioningState != resource.Succeeded || !sameCluster(w.state.Desired, d)
	if old != nil {
		w.state.reidentify(r.ID, &d)
		if err := p.checkDeprecated(ctx, w, &d); err != nil {
			return nil, err
		}
		plan.State = w.upgrading(&d)
	}
	w.state.Desired = d
	pools, err := p.planPools(r, w, &d)
	if err != nil {
		return nil, err
	}
	plan.Children, plan.Async = pools, changed || len(pools) > 0
	if w.state.Stopped && plan.Async {
		return nil, stoppedFault()
	}
	if d.Secret != "" {
		change, err := principalChange(w.state.UID, d.ClientID, d.Secret)
		if err != nil {
			return nil, err
		}
		plan.Changes = append(plan.Changes, change)
	}
	plan.Document, err = p.document(r, w, &d)
	return plan, err
}

// before reads what a cluster was; all nil when it is new.
func (p *Provider) before(ctx context.Context, doc *arm.Document) (*whole, *Desired, error) {
	if doc == nil {
		return nil, nil, nil
	}
	w, err := p.load(ctx, doc)
	if err != nil {
		return nil, nil, err
	}
	return w, w.desired(), nil
}

// decide turns a request into a complete desired state, or all its problems.
func (p *Provider) decide(ctx context.Context, r *arm.Request, old *Desired) (Desired, error) {
	versions, err := p.versions()
	if err != nil {
		return Desired{}, err
	}
	ps := parser{versions: versions, hasImage: p.Catalogue.HasImage, location: p.Location, domain: p.Domain, tenant: p.Tenant, guard: p.Guard, version: r.Version, problems: Judge(r.Body, ClusterProperties())}
	d := ps.cluster(r.Body, r.ID, old)
	if ps.subnets, err = p.subnets(ctx, d.subnets()); err != nil {
		return Desired{}, err
	}
	if ps.overlays, err = p.overlays(ctx, r.ID, &d); err != nil {
		return Desired{}, err
	}
	if err := p.findIdentities(ctx, &ps, r, &d, old); err != nil {
		return Desired{}, err
	}
	// What couldn't even be read has no further problems.
	if !slices.ContainsFunc(ps.problems, func(f *fault.Error) bool { return f.Code == "InvalidRequestContent" }) {
		ps.validate(&d, r.ID, old)
	}
	return d, fault.Join(ps.problems...)
}

func sameCluster(a, b Desired) bool {
	a.Pools, b.Pools, a.Secret, b.Secret = nil, nil, "", ""
	return reflect.DeepEqual(a, b)
}

func (p *Provider) document(r *arm.Request, w *whole, d *Desired) (*arm.Document, error) {
	doc, err := r.New()
	if err != nil {
		return nil, fault.New(fault.Invalid, "InvalidRequestContent", "The request content can't be kept.").Because(err)
	}
	body, err := fillCluster(r.Body, d)
	if err != nil {
		return nil, err
	}
	fillIntegration(body, d, p.Tenant)
	doc.Location, doc.Type = d.Location, clusterType
	if err := doc.SetBody(body); err != nil {
		return nil, err
	}
	return doc, setState(doc, w.state)
}

// found draws a new cluster's names and takes its addresses, keys and node
// resource group, as changes of the plan.
func (p *Provider) found(ctx context.Context, r *arm.Request, d *Desired, plan *arm.Plan) (*whole, error) {
	parts, err := p.Catalogue.Parts(d.Version.String())
	if err != nil {
		return nil, err
	}
	uid := uuid.NewString()
	state := clusterState{UID: uid, ID: shortID(uid), Host: p.Host, Etcd: parts.Etcd,
		FQDN: fqdn(d.DNSPrefix, uid, p.Location, p.Domain), Domain: p.Domain}
	public, changes, err := p.Network.PublicAddress(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	state.Public = public
	keys, err := newKeys()
	if err != nil {
		return nil, err
	}
	secret, err := json.Marshal(keys)
	if err != nil {
		return nil, fmt.Errorf("keys of cluster %s: %w", uid, err)
	}
	group, err := p.nodeGroupChange(ctx, r.ID, d)
	if err != nil {
		return nil, err
	}
	access, err := p.foundAccess(uid, r.ID.String(), d)
	if err != nil {
		return nil, err
	}
	changes = append(changes, access...)
	plan.Changes = append(changes, group, store.Change{Key: keysKey(uid), Value: secret, Revision: store.Absent})
	return &whole{doc: &arm.Document{}, state: state}, nil
}

// nodeGroupChange makes the resource group for what belongs to the cluster.
func (p *Provider) nodeGroupChange(ctx context.Context, id resource.ID, d *Desired) (store.Change, error) {
	group := resource.GroupID(id.Subscription(), d.NodeGroup)
	_, err := p.Store.Get(ctx, arm.DocumentKey(group))
	if err == nil {
		return store.Change{}, fault.New(fault.Conflict, "NodeResourceGroupAlreadyExists",
			"The node resource group %s exists already: choose another name for it, or delete it.", d.NodeGroup).At("properties.nodeResourceGroup")
	}
	if !fault.Is(err, fault.NotFound) {
		return store.Change{}, err
	}
	body, err := json.Marshal(object{"managedBy": id.String()})
	if err != nil {
		return store.Change{}, err
	}
	now := p.Now().UTC()
	return arm.PutDocument(&arm.Document{Envelope: resource.Envelope{
		ID: group, Type: resource.TypeGroup, Name: d.NodeGroup, Location: d.Location, Etag: uuid.NewString(),
		ProvisioningState: resource.Succeeded, Generation: 1, Body: body,
		SystemData: resource.SystemData{CreatedBy: Namespace, CreatedByType: "Application", CreatedAt: now, LastModifiedAt: now},
	}})
}

func stoppedFault() error {
	return fault.New(fault.Conflict, "OperationNotAllowed", "The cluster is stopped: start it before changing it (az aks start).")
}

// deleteCluster lets the reconciler tear the cluster down.
func (p *Provider) deleteCluster(context.Context, *arm.Request) (*arm.Plan, error) {
	return &arm.Plan{Async: true}, nil
}
