// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"
	"fmt"

	"bastide.dev/arm"
	"bastide.dev/resource"
)

// renamedTiers is the first API version with the SKU names of today.
const renamedTiers = resource.APIVersion("2023-02-01")

// viewCluster is a cluster as a client sees it: its own body, what was
// allotted, and the pools.
func (p *Provider) viewCluster(ctx context.Context, d *arm.Document, version resource.APIVersion) (any, error) {
	body, err := arm.ViewBase(d)
	if err != nil {
		return nil, err
	}
	w, err := p.load(ctx, d)
	if err != nil {
		return nil, err
	}
	s := &w.state
	if name := w.publicName(); name != "" {
		set(body, "properties.fqdn", name)
	}
	if name := w.privateName(); name != "" {
		set(body, "properties.privateFQDN", name)
	}
	w.viewOutbound(body)
	for path, value := range map[string]any{
		"properties.azurePortalFQDN":          s.FQDN,
		"properties.maxAgentPools":            maxPools,
		"properties.resourceUID":              s.UID,
		"properties.powerState":               powerState(s.Stopped),
		"properties.currentKubernetesVersion": s.running().String(),
	} {
		set(body, path, value)
	}
	p.viewIssuer(body, s)
	w.viewAutoScaler(body)
	if err := p.viewIdentity(ctx, body, w); err != nil {
		return nil, err
	}
	tierNames(body, version)
	profiles := make([]any, 0, len(w.pools))
	for _, pool := range w.pools {
		properties, err := pool.properties(s.Stopped)
		if err != nil {
			return nil, err
		}
		properties["name"] = pool.Name
		profiles = append(profiles, properties)
	}
	set(body, "properties.agentPoolProfiles", profiles)
	return body, nil
}

// tierNames says an SKU in the words of the request's API version: until 2023
// it was Basic with Free or Paid, since then Base with Free or Standard.
func tierNames(body object, version resource.APIVersion) {
	if version == "" || version.AtLeast(renamedTiers) {
		set(body, "sku.name", "Base")
		if get(body, "sku.tier") == "Paid" {
			set(body, "sku.tier", "Standard")
		}
		return
	}
	set(body, "sku.name", "Basic")
	if get(body, "sku.tier") == "Standard" {
		set(body, "sku.tier", "Paid")
	}
}

// viewPool is an agent pool as a client sees it.
func (p *Provider) viewPool(ctx context.Context, d *arm.Document, _ resource.APIVersion) (any, error) {
	parent, err := arm.GetDocument(ctx, p.Store, d.ID.Parent())
	if err != nil {
		return nil, fmt.Errorf("cluster of pool %s: %w", d.ID, err)
	}
	var cluster clusterState
	if err := json.Unmarshal(parent.State, &cluster); err != nil {
		return nil, fmt.Errorf("cluster %s: state: %w", parent.ID, err)
	}
	pool := &poolDoc{Document: d}
	if err := json.Unmarshal(d.State, &pool.poolState); err != nil {
		return nil, fmt.Errorf("pool %s: state: %w", d.ID, err)
	}
	pool.adopt()
	properties, err := pool.properties(cluster.Stopped)
	if err != nil {
		return nil, err
	}
	return object{"id": d.ID.String(), "name": d.Name, "type": poolType, "properties": properties}, nil
}

// properties are a pool's own with what is computed, in either resource.
func (pool *poolDoc) properties(stopped bool) (object, error) {
	body, err := arm.ViewBase(pool.Document)
	if err != nil {
		return nil, err
	}
	properties := body["properties"].(object)
	properties["currentOrchestratorVersion"] = pool.current().String()
	properties["powerState"] = powerState(stopped)
	properties["count"] = pool.Pool.Count // which may have followed what runs
	if image := pool.image(); image != "" {
		properties["nodeImageVersion"] = image
	}
	if pool.Etag != "" {
		properties["eTag"] = pool.Etag
	}
	return properties, nil
}

// current is the version that all of the pool's nodes have at least.
func (s *poolState) current() Version {
	oldest := s.Pool.Version
	for _, n := range s.Nodes {
		if !n.Removed && n.Version.Compare(oldest) < 0 {
			oldest = n.Version
		}
	}
	return oldest
}

// image is the node image that the pool's nodes have: as long as not all have
// the newer one, the former. Without nodes it is what new ones will have.
func (s *poolState) image() string {
	image := s.Target.Image
	for _, n := range s.Nodes {
		if !n.Removed && n.Parts.Image != s.Target.Image {
			image = n.Parts.Image
		}
	}
	return imageVersion(image)
}

// imageVersion is a node image's version as AKS shows such.
func imageVersion(image string) string {
	if image == "" {
		return ""
	}
	return "Debian-" + image
}

func powerState(stopped bool) object {
	if stopped {
		return object{"code": "Stopped"}
	}
	return object{"code": "Running"}
}

// viewOutbound shows the public addresses that nodes leave by.
func (w *whole) viewOutbound(body object) {
	profile := map[string]string{byLoadBalancer: "loadBalancerProfile", byManagedNAT: "natGatewayProfile"}[w.state.Desired.Outbound.Type]
	if profile == "" {
		return
	}
	effective := []any{}
	for _, f := range w.frontEnds() {
		effective = append(effective, ref(f.id))
	}
	set(body, "properties.networkProfile."+profile+".effectiveOutboundIPs", effective)
}
