// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"slices"
	"strings"

	aks "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"

	"bastide.dev/fault"
	"bastide.dev/resource"
)

const subnetType = "Microsoft.Network/virtualNetworks/subnets"

// pools reads the pools of a cluster's body. A body without any leaves the
// pools as they are; one that leaves out a pool that exists is refused, because
// a pool goes by a DELETE of its own.
func (p *parser) pools(d *Desired, profiles []*aks.ManagedClusterAgentPoolProfile, old *Desired) {
	const target = "properties.agentPoolProfiles"
	if profiles == nil && old != nil {
		d.Pools = slices.Clone(old.Pools)
		return
	}
	for i, profile := range profiles {
		if profile == nil {
			p.bad("InvalidParameter", fmt.Sprintf("%s[%d]", target, i), "An agent pool is null.")
			continue
		}
		name := value(profile.Name)
		if _, twice := d.pool(name); twice {
			p.bad("InvalidParameter", fmt.Sprintf("%s[%d].name", target, i), "The agent pool name %q is used twice.", name)
			continue
		}
		d.Pools = append(d.Pools, p.pool(d, name, fmt.Sprintf("%s[%d].", target, i), poolFields{
			count: profile.Count, size: profile.VMSize, mode: profile.Mode, version: profile.OrchestratorVersion,
			maxPods: profile.MaxPods, labels: profile.NodeLabels, taints: profile.NodeTaints, subnet: profile.VnetSubnetID, tags: profile.Tags, upgrade: profile.UpgradeSettings,
			auto: profile.EnableAutoScaling, min: profile.MinCount, max: profile.MaxCount,
		}, old))
	}
	if old == nil {
		return
	}
	for _, was := range old.Pools {
		if _, still := d.pool(was.Name); !still {
			p.bad("InvalidParameter", target, "The agent pool %s exists but isn't in the request: list it, or delete it with az aks nodepool delete.", was.Name)
		}
	}
}

// poolFields are the properties that a pool has in either resource.
type poolFields struct {
	count   *int32
	size    *string
	mode    *aks.AgentPoolMode
	version *string
	maxPods *int32
	labels  map[string]*string
	taints  []*string
	subnet  *string
	tags    map[string]*string
	upgrade *aks.AgentPoolUpgradeSettings
	auto    *bool
	min     *int32
	max     *int32
}

// agentPool reads the body of an agentPools resource of cluster d.
func (p *parser) agentPool(body map[string]any, name string, d *Desired) Pool {
	var model aks.AgentPool
	if err := decode(body, &model); err != nil {
		p.problems = append(p.problems, fault.From(err))
		return Pool{}
	}
	props := model.Properties
	if props == nil {
		props = &aks.ManagedClusterAgentPoolProfileProperties{}
	}
	return p.pool(d, name, "properties.", poolFields{
		count: props.Count, size: props.VMSize, mode: props.Mode, version: props.OrchestratorVersion,
		maxPods: props.MaxPods, labels: props.NodeLabels, taints: props.NodeTaints, subnet: props.VnetSubnetID, tags: props.Tags, upgrade: props.UpgradeSettings,
		auto: props.EnableAutoScaling, min: props.MinCount, max: props.MaxCount,
	}, d)
}

// pool reads one pool; old, when not nil, may hold what it was.
func (p *parser) pool(d *Desired, name, target string, f poolFields, old *Desired) Pool {
	var was Pool
	var exists bool
	if old != nil {
		was, exists = old.pool(name)
	}
	pool := Pool{Name: name, Size: value(f.size), Mode: string(value(f.mode)), MaxPods: int(value(f.maxPods)), Count: int(value(f.count))}
	if exists {
		pool.Size, pool.Mode = or(pool.Size, was.Size), or(pool.Mode, was.Mode)
		if f.maxPods == nil || pool.MaxPods == 0 {
			pool.MaxPods = was.MaxPods
		}
		if f.count == nil {
			pool.Count = was.Count
		}
	}
	pool.Size = or(pool.Size, defaultSize)
	pool.Mode = p.mode(pool.Mode, target, old == nil && len(d.Pools) == 0)
	pool.MaxPods = defaultPods(pool.MaxPods, d)
	pool.Subnet = was.Subnet
	if text := value(f.subnet); text != "" {
		id, err := resource.ParseID(text)
		if err != nil || !id.IsType(subnetType) {
			p.bad("LinkedInvalidPropertyId", target+"vnetSubnetID", "Property id '%s' at path '%svnetSubnetID' is invalid: it isn't the id of a subnet.", text, target)
		}
		pool.Subnet = id
	} else if !exists && len(d.Pools) > 0 {
		pool.Subnet = d.Pools[0].Subnet // a later pool is where the first one is
	}
	if f.count == nil && !exists {
		pool.Count = 1
	}
	p.scaling(&pool, f, was, exists, target)
	pool.Version = p.poolVersion(value(f.version), target+"orchestratorVersion", d.Version, was, exists)
	pool.Upgrade = p.upgradeSettings(f.upgrade, was.Upgrade, target)
	pool.Image = p.image(f.tags, was, target)
	pool.Labels, pool.Taints = was.Labels, was.Taints
	if f.labels != nil {
		pool.Labels = texts(f.labels)
	}
	if f.taints != nil {
		pool.Taints = nil
		for _, taint := range f.taints {
			pool.Taints = append(pool.Taints, value(taint))
		}
	}
	return pool
}

// mode normalises a pool's mode; the first pool of a new cluster is a system
// pool unless it says otherwise, every other one a user pool.
func (p *parser) mode(mode, target string, first bool) string {
	switch strings.ToLower(mode) {
	case "system":
		return systemMode
	case "user":
		return userMode
	case "":
		if first {
			return systemMode
		}
		return userMode
	}
	p.bad("InvalidParameter", target+"mode", "The mode %q isn't one of System or User.", mode)
	return userMode
}

func defaultPods(pods int, d *Desired) int {
	switch {
	case pods != 0:
		return pods
	case d.Overlay:
		return overlayPods
	case d.Plugin == azureCNI:
		return azurePods
	}
	return kubenetPods
}

// poolVersion resolves a pool's version: its API server's unless it says otherwise.
func (p *parser) poolVersion(text, target string, server Version, was Pool, exists bool) Version {
	if exists && (text == "" || text == was.Version.MinorString() || text == was.Version.String()) {
		return was.Version
	}
	if text == "" || text == server.MinorString() || text == server.String() {
		return server
	}
	found, ok := p.versions.Find(text)
	if !ok {
		f := p.versions.unknown(text, p.location, target)
		f.Code = "AgentPoolK8sVersionNotSupported"
		p.problems = append(p.problems, f)
		return server
	}
	return found
}

func texts(m map[string]*string) map[string]string {
	if len(m) == 0 {
		return nil
	}
	out := make(map[string]string, len(m))
	for k, v := range m {
		out[k] = value(v)
	}
	return out
}
