// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"bastide.dev/arm"
	"bastide.dev/dataplane"
	"bastide.dev/host"
	"bastide.dev/machine"
	"bastide.dev/network"
	"bastide.dev/node"
	"bastide.dev/resource"
	"bastide.dev/store"
	"bastide.dev/why"
)

// world gathers what decides about packets: the units as they are stored, what
// hosts reported of them, and people's names for all of it.
func (d *diagnostics) world(ctx context.Context) (*why.World, error) {
	w := &why.World{Instance: d.instance, Health: map[string]dataplane.Health{}, Digests: map[string]string{}, VNets: map[string]string{}}
	for _, gather := range []func(context.Context, *why.World) error{d.networks, d.reports, d.names, d.clusters, d.nodes} {
		if err := gather(ctx, w); err != nil {
			return nil, fmt.Errorf("what decides about packets: %w", err)
		}
	}
	return w, nil
}

// units reads the specs of a kind's units that aren't to be removed.
func units[T any](ctx context.Context, s store.Store, machine string, kind host.Kind) ([]T, error) {
	records, _, err := s.List(ctx, host.UnitKey(machine, kind, ""))
	if err != nil {
		return nil, err
	}
	var all []T
	for _, r := range records {
		if bytes.Equal(r.Value, host.Tombstone) {
			continue
		}
		var spec T
		if err := json.Unmarshal(r.Value, &spec); err != nil {
			return nil, fmt.Errorf("unit %s: %w", r.Key, err)
		}
		all = append(all, spec)
	}
	return all, nil
}

// networks are in the order in which hosts sum them up.
func (d *diagnostics) networks(ctx context.Context, w *why.World) (err error) {
	edges, err := units[dataplane.Edge](ctx, d.store, d.host, host.EdgeUnit)
	if err != nil {
		return err
	}
	if len(edges) > 0 {
		w.Config.Edge = edges[0]
	}
	if w.Config.VNets, err = units[dataplane.VNet](ctx, d.store, d.host, host.VNetUnit); err != nil {
		return err
	}
	slices.SortFunc(w.Config.VNets, func(a, b dataplane.VNet) int { return strings.Compare(a.ID, b.ID) })
	return nil
}

func (d *diagnostics) reports(ctx context.Context, w *why.World) error {
	for i := range w.Config.VNets {
		v := &w.Config.VNets[i]
		records, _, err := d.store.List(ctx, host.ReportKey(d.host, host.VNetUnit, v.ID))
		if err != nil {
			return err
		}
		for _, r := range records {
			var report host.Report
			if err := json.Unmarshal(r.Value, &report); err != nil {
				return fmt.Errorf("report %s: %w", r.Key, err)
			}
			if report.Name == v.ID && report.VNet != nil {
				w.Health[v.ID], w.Digests[v.ID] = why.HealthOf(v, report.VNet), report.VNet.Digest
			}
		}
	}
	return nil
}

// names are those of resources that stand in the data plane under short IDs.
func (d *diagnostics) names(ctx context.Context, w *why.World) error {
	documents, _, err := arm.ListDocuments(ctx, d.store, resource.ID{}, "")
	if err != nil {
		return err
	}
	for _, doc := range documents {
		id := doc.ID
		switch {
		case id.IsType("Microsoft.Network/virtualNetworks"):
			w.VNets[network.VNetID(id)] = id.Group() + "/" + id.Name()
		case id.IsType(terminalType):
			w.Terminals = append(w.Terminals, why.Terminal{Group: id.Group(), Name: id.Name(), ID: network.TerminalID(id)})
		case id.IsType("Microsoft.Compute/virtualMachines"):
			var state network.InterfaceState
			if len(doc.State) > 0 {
				if err := json.Unmarshal(doc.State, &state); err != nil {
					return fmt.Errorf("state of %s: %w", id, err)
				}
			}
			w.VMs = append(w.VMs, why.VM{Group: id.Group(), Name: id.Name(), Machine: state.Machine})
		}
	}
	return nil
}

func (d *diagnostics) clusters(ctx context.Context, w *why.World) error {
	servers, err := d.provider.Servers(ctx)
	if err != nil {
		return err
	}
	for _, s := range servers {
		w.Clusters = append(w.Clusters, why.Cluster{Group: s.Cluster.Group(), Name: s.Cluster.Name(), ControlPlane: s.Namespace,
			FQDN: s.FQDN, Server: s.Address, Port: s.Port})
	}
	return nil
}

// nodes are the clusters' machines, by the configuration that each is started with.
func (d *diagnostics) nodes(ctx context.Context, w *why.World) error {
	machines, err := units[machine.Spec](ctx, d.store, d.host, host.MachineUnit)
	if err != nil {
		return err
	}
	for _, m := range machines {
		at := slices.IndexFunc(w.Clusters, func(c why.Cluster) bool { return strings.HasPrefix(m.ID, c.ControlPlane+"-") })
		file := slices.IndexFunc(m.Files, func(f machine.File) bool { return f.Path == node.ConfigPath })
		if at < 0 || file < 0 {
			continue
		}
		var c node.Config
		if err := json.Unmarshal(m.Files[file].Data, &c); err != nil {
			return fmt.Errorf("configuration of machine %s: %w", m.ID, err)
		}
		w.Clusters[at].Nodes = append(w.Clusters[at].Nodes, why.Node{Name: c.Hostname, Machine: m.ID, Address: c.Address,
			Pods: c.Network.Pods, Inside: slices.Concat(c.Network.VNet, c.ClusterCIDR), Local: c.ClusterCIDR, Services: c.ServiceCIDR, Enforces: c.Enforces()})
	}
	return nil
}

// objects asks a cluster's control plane for what decides inside it.
func (d *diagnostics) objects(ctx context.Context, w *why.World, controlPlane string) error {
	raw, err := d.ask(ctx, host.Query{Objects: &host.ObjectsQuery{ControlPlane: controlPlane}})
	if err != nil {
		return fmt.Errorf("objects of %s: %w", controlPlane, err)
	}
	var lists host.Objects
	if err := json.Unmarshal(raw, &lists); err != nil {
		return fmt.Errorf("objects of %s: %w", controlPlane, err)
	}
	for i := range w.Clusters {
		if w.Clusters[i].ControlPlane == controlPlane {
			w.Clusters[i].Objects, err = why.ReadObjects(lists)
		}
	}
	return err
}

// terminalAt is the terminal with an address; any, when there is no address.
func terminalAt(w *why.World, a netip.Addr) (why.Terminal, bool) {
	for _, t := range w.Config.Edge.Terminals {
		for _, named := range w.Terminals {
			if named.ID == t.ID && (!a.IsValid() || a == t.Address) {
				return named, true
			}
		}
	}
	return why.Terminal{}, false
}
