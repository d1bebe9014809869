// SPDX-License-Identifier: Apache-2.0

package cluster

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
	"bastide.dev/fault"
	"bastide.dev/host"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// edgeName is the name of the one edge unit of a host.
const edgeName = "edge"

// compileEdge says what the edge should be: the instance's own names, and each
// cluster's name at its public address. A cluster that goes has none.
func (p *Provider) compileEdge(clusters []*arm.Document) (dataplane.Edge, error) {
	edge := dataplane.Edge{Pools: []netip.Prefix{p.PublicPool}, FrontDoor: p.FrontDoor, Names: slices.Clone(p.Names)}
	for _, d := range clusters {
		if d.ProvisioningState == resource.Deleting {
			continue
		}
		var s clusterState
		if err := json.Unmarshal(d.State, &s); err != nil {
			return edge, fmt.Errorf("cluster %s: state: %w", d.ID, err)
		}
		edge.Names = append(edge.Names, dataplane.Name{Name: s.FQDN, Addresses: []netip.Addr{s.Public}})
	}
	slices.SortFunc(edge.Names, func(a, b dataplane.Name) int { return strings.Compare(a.Name, b.Name) })
	return edge, nil
}

// writeEdge stores the edge unit when it isn't what it should be. All clusters
// share it, so that whoever comes second compiles again.
func (p *Provider) writeEdge(ctx context.Context) error {
	key := host.UnitKey(p.Host, host.EdgeUnit, edgeName)
	for {
		stored, err := p.Store.Get(ctx, key)
		if err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
		clusters, _, err := arm.ListDocuments(ctx, p.Store, resource.ID{}, clusterType)
		if err != nil {
			return fmt.Errorf("edge: %w", err)
		}
		edge, err := p.compileEdge(clusters)
		if err != nil {
			return err
		}
		value, err := json.Marshal(edge)
		if err != nil {
			return fmt.Errorf("edge: %w", err)
		}
		if bytes.Equal(stored.Value, value) {
			return nil
		}
		_, err = p.Store.Txn(ctx, store.Change{Key: key, Value: value, Revision: stored.Revision})
		if !raced(err) {
			return err
		}
	}
}

// named tells whether the edge, as its host has it, answers to a name, and
// writes the unit when it doesn't say so yet.
func (p *Provider) named(ctx context.Context, name string, wanted bool) (bool, error) {
	record, err := p.Store.Get(ctx, host.UnitKey(p.Host, host.EdgeUnit, edgeName))
	if err != nil && !fault.Is(err, fault.NotFound) {
		return false, err
	}
	var edge dataplane.Edge
	if err == nil {
		if err := json.Unmarshal(record.Value, &edge); err != nil {
			return false, fmt.Errorf("edge: %w", err)
		}
	}
	has := slices.ContainsFunc(edge.Names, func(n dataplane.Name) bool { return n.Name == name })
	if has != wanted {
		return false, p.writeEdge(ctx)
	}
	answer, err := p.Store.Get(ctx, host.ReportKey(p.Host, host.EdgeUnit, edgeName))
	if fault.Is(err, fault.NotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	var report host.Report
	if err := json.Unmarshal(answer.Value, &report); err != nil {
		return false, fmt.Errorf("edge: report: %w", err)
	}
	return report.Applied && report.Generation >= record.Revision, nil
}
