// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// soon is when to look again after a write of one's own.
const soon = time.Millisecond

// reconcile brings one cluster a step nearer to what its documents say. Each
// step reads everything anew and ends in one conditional transaction, so that a
// kill between any two leaves nothing half done.
func (r *runner) reconcile(ctx context.Context, key string) (time.Duration, error) {
	id, err := resource.ParseID("/" + key)
	if err != nil {
		return 0, err
	}
	notes := r.notes(key)
	doc, err := arm.GetDocument(ctx, r.Store, id)
	if fault.Is(err, fault.NotFound) {
		r.settled(key, notes)
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	w, err := r.load(ctx, doc)
	if err != nil {
		return 0, err
	}
	h, err := r.hosted(ctx, &w.state)
	if err != nil {
		return 0, err
	}
	step := r.keep
	if doc.ProvisioningState == resource.Deleting {
		step = r.tearDown
		if _, err := r.keepProgress(ctx, key, nil); err != nil {
			return 0, err
		}
	}
	again, err := step(ctx, w, h)
	if raced(err) {
		return soon, nil
	}
	return again, err
}

// keep makes a cluster as it should be, and ends its operations.
func (r *runner) keep(ctx context.Context, w *whole, h *hosted) (time.Duration, error) {
	changes, err := r.plan(ctx, w, h)
	if fault.Is(err, fault.Exhausted) && w.grown {
		return r.hold(w), nil
	}
	if err != nil {
		return r.failed(ctx, w, err)
	}
	if len(changes) > 0 {
		return soon, r.write(ctx, w.doc, changes)
	}
	waiting, err := r.Network.Waiting(ctx, w.state.ServerSubnet.Parent())
	if err != nil {
		return 0, err
	}
	if waiting == "" {
		if waiting, err = r.routesMissing(ctx, w); err != nil {
			return 0, err
		}
	}
	if waiting == "" {
		if waiting, err = r.issuerWaits(ctx, w, h); err != nil {
			return 0, err
		}
	}
	rotates, renews, err := r.rotationWaits(ctx, w)
	if err != nil {
		return 0, err
	}
	waiting = first(w.restores(h), waiting, rotates)
	o := observe(w, h, waiting)
	if o.waiting == "" {
		if changes, err = r.retire(ctx, w); err != nil {
			return 0, err
		}
		if len(changes) > 0 {
			return soon, r.write(ctx, w.doc, changes)
		}
	}
	untold, err := r.tell(ctx, w, o)
	if err != nil {
		return 0, err
	}
	again, err := r.conclude(ctx, w, o)
	if err != nil {
		return 0, err
	}
	again = sooner(sooner(again, untold), renews)
	if err := r.concludeAsked(ctx, w); err != nil {
		return 0, err
	}
	again = sooner(again, w.tended)
	due, err := r.issuerDue(ctx, w)
	if err != nil {
		return 0, err
	}
	next, err := r.maintain(ctx, w)
	return sooner(sooner(sooner(again, due), next), w.again), err
}

// routesMissing tells which node's pods others can't reach yet: with kubenet the
// cloud-controller-manager has to write its route first.
func (r *runner) routesMissing(ctx context.Context, w *whole) (string, error) {
	if w.state.Desired.Plugin != kubenet || r.Cloud == "" || w.state.Stopped {
		return "", nil
	}
	doc, err := arm.GetDocument(ctx, r.Store, w.routeTable())
	if err != nil {
		return "", fmt.Errorf("route table: %w", err)
	}
	var table struct {
		Properties struct {
			Routes []struct {
				Properties struct{ AddressPrefix, NextHopIPAddress string }
			}
		}
	}
	if err := json.Unmarshal(doc.Body, &table); err != nil {
		return "", fmt.Errorf("route table: %w", err)
	}
	routes := map[string]string{}
	for _, route := range table.Properties.Routes {
		routes[route.Properties.AddressPrefix] = route.Properties.NextHopIPAddress
	}
	for _, pool := range w.pools {
		for _, n := range pool.Nodes {
			if !n.Removed && len(n.Pods) > 0 && routes[n.Pods[0].String()] != n.Address.String() {
				return "the route to the pods of node " + n.Name + " hasn't been written", nil
			}
		}
	}
	return "", nil
}

// plan are the changes that the cluster's documents and units need now.
func (r *runner) plan(ctx context.Context, w *whole, h *hosted) ([]store.Change, error) {
	docChanged, err := r.identities(ctx, w)
	if err != nil {
		return nil, err
	}
	if w.subnets, err = r.Provider.subnets(ctx, w.places()); err != nil {
		return nil, err
	}
	moved, followed, rotated, err := r.advance(ctx, w, h)
	if err != nil {
		return nil, err
	}
	backups, noted, err := r.backups(ctx, w, h)
	if err != nil {
		return nil, err
	}
	unrestored, ended := w.endRestore()
	allotted, err := r.allot(ctx, w)
	if err != nil {
		return nil, err
	}
	changes := append(allotted.changes, rotated...) // first, to be in one transaction with what they are for
	changes = append(append(changes, backups...), unrestored...)
	if docChanged || followed || allotted.state || noted || ended || w.endOrder(h) {
		if changes, err = stateChange(changes, w.doc, w.state); err != nil {
			return nil, err
		}
	}
	written := map[string]bool{}
	for _, pool := range append(moved, allotted.pools...) {
		if written[pool.Name] {
			continue
		}
		written[pool.Name] = true
		if changes, err = stateChange(changes, pool.Document, pool.poolState); err != nil {
			return nil, err
		}
	}
	documents, err := r.ensure(ctx, w)
	if err != nil {
		return nil, err
	}
	recorded, err := r.recordPatches(ctx, w, h)
	if err != nil {
		return nil, err
	}
	documents = append(documents, recorded...)
	access, err := r.ensureAccess(ctx, w)
	if err != nil {
		return nil, err
	}
	changes = append(append(changes, documents...), access...)
	if !w.state.Server.IsValid() {
		return changes, nil
	}
	server, err := r.Network.Serve(ctx, w.doc.ID, w.server())
	if err != nil {
		return nil, err
	}
	published, err := r.publish(ctx, w)
	if err != nil {
		return nil, err
	}
	changes = append(append(changes, server...), published...)
	units, err := r.units(ctx, w)
	if err != nil {
		return nil, err
	}
	difference, err := h.difference(w.state.Host, units)
	if err != nil {
		return nil, err
	}
	return append(changes, difference...), nil
}

// advance goes on with all that is under way in a cluster: its control plane's
// version, repairs, reboots, works on nodes, the rotation of its certificates. It
// returns the pools that it changed, and whether it changed the cluster's own state.
func (r *runner) advance(ctx context.Context, w *whole, h *hosted) (pools []*poolDoc, state bool, changes []store.Change, err error) {
	followed, pools, err := w.follow(h)
	if err != nil {
		return nil, false, nil, err
	}
	pools = append(pools, forget(w, h)...)
	tended, err := r.tend(w, h)
	if err != nil {
		return nil, false, nil, err
	}
	rebooted, coordinated, err := r.coordinate(ctx, w, h)
	if err != nil {
		return nil, false, nil, err
	}
	worked, err := r.works(ctx, w, h)
	if err != nil {
		return nil, false, nil, err
	}
	turned, changes, err := r.rotate(ctx, w, h)
	if err != nil {
		return nil, false, nil, err
	}
	return slices.Concat(pools, tended, rebooted, worked, turned), followed || coordinated, changes, nil
}

// server is the API server's place in the network.
func (w *whole) server() *Server {
	s := &w.state
	a := &s.Desired.Access
	return &Server{Namespace: s.ID, Subnet: s.ServerSubnet, Address: s.Server, Public: s.Public, Port: apiServerPort,
		Private: a.Private, Restricted: a.Restricted, Allowed: a.Ranges, FQDN: w.publicName(), PrivateFQDN: w.privateName()}
}

// places are the subnets that a cluster is in.
func (w *whole) places() []resource.ID {
	all := []resource.ID{w.ownSubnet(), w.state.ServerSubnet}
	for _, pool := range w.pools {
		all = append(all, pool.Pool.Subnet)
	}
	return all
}

// units are what the host should run for the cluster now.
func (r *runner) units(ctx context.Context, w *whole) ([]unit, error) {
	keys, err := r.keys(ctx, w.state.UID)
	if err != nil {
		return nil, err
	}
	if keys.Cloud, err = r.credential(ctx, &w.state); err != nil {
		return nil, err
	}
	return r.compile(w, keys)
}

func stateChange(changes []store.Change, d *arm.Document, state any) ([]store.Change, error) {
	if err := setState(d, state); err != nil {
		return nil, err
	}
	change, err := arm.PutDocument(d)
	return append(changes, change), err
}

// The roles that a cluster's identity has: over all in its node resource group,
// and over the network that it is in.
const (
	contributorRole = "b24988ac-6180-42a0-ab88-20f7382dd24c"
	networkRole     = "4d97b98b-1d4f-4787-a291-c67834d212e7"
)

// forget drops the removed nodes of which nothing is left: no machine, and no
// Node in Kubernetes. It returns the pools it changed.
func forget(w *whole, h *hosted) []*poolDoc {
	plane, answered := h.answer(unitKey{controlPlaneKind, w.state.ID})
	if !answered || plane.ControlPlane == nil || !plane.Applied {
		return nil
	}
	present := map[string]bool{}
	for _, n := range plane.ControlPlane.Nodes {
		present[n.Name] = true
	}
	var changed []*poolDoc
	for _, pool := range w.pools {
		kept := pool.Nodes[:0:0]
		for _, n := range pool.Nodes {
			_, machine := h.units[unitKey{machineKind, n.Machine}]
			if !n.Removed || machine || present[n.Name] || plane.ControlPlane.Phase != planeReady {
				kept = append(kept, n)
			}
		}
		if len(kept) != len(pool.Nodes) {
			pool.Nodes = kept
			changed = append(changed, pool)
		}
	}
	return changed
}

// failed ends the operations of a cluster that can't even be planned: at once
// when the reason is one that time won't mend, else at their deadline.
func (r *runner) failed(ctx context.Context, w *whole, cause error) (time.Duration, error) {
	if raced(cause) {
		return 0, cause
	}
	lasting := fault.Is(cause, fault.Exhausted) || fault.Is(cause, fault.Invalid) || fault.Is(cause, fault.Unsupported)
	for _, operation := range operations(w) {
		left, err := r.timeLeft(ctx, operation, r.CreateDeadline)
		if err != nil {
			return 0, err
		}
		if lasting || left <= 0 {
			if err := r.finish(ctx, operation, fault.From(cause)); err != nil {
				return 0, err
			}
		}
	}
	if lasting {
		return 0, nil
	}
	return 0, cause
}

// operations are those that run on a cluster or on any of its pools.
func operations(w *whole) []string {
	var ids []string
	seen := map[string]bool{"": true}
	add := func(id string) {
		if !seen[id] {
			seen[id] = true
			ids = append(ids, id)
		}
	}
	add(w.doc.Operation)
	for _, pool := range w.pools {
		add(pool.Operation)
	}
	return ids
}
