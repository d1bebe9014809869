// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"bastide.dev/machine"
)

var poolNameForm = regexp.MustCompile(`^[a-z][a-z0-9]{0,11}$`)

// systemTaint is the taint that AKS's system pools may have: every add-on tolerates it.
const systemTaint = "CriticalAddonsOnly=true:NoSchedule"

// validatePools checks the pools of a cluster's body, and them together.
func (p *parser) validatePools(d *Desired, old *Desired) {
	const target = "properties.agentPoolProfiles"
	if len(d.Pools) == 0 {
		p.bad("InvalidParameter", target, "A cluster needs at least one agent pool.")
		return
	}
	for i, pool := range d.Pools {
		p.validatePool(d, pool, fmt.Sprintf("%s[%d].", target, i), old)
	}
	p.validateTogether(d, old, target)
}

// validateTogether checks what concerns all pools of a cluster.
func (p *parser) validateTogether(d, old *Desired, target string) {
	if len(d.Pools) > maxPools {
		p.bad("InvalidParameter", target, "A cluster can have at most %d agent pools; these are %d.", maxPools, len(d.Pools))
	}
	if n := d.nodes(); n > maxNodes {
		p.bad("InvalidParameter", target, "A cluster can have at most %d nodes; these are %d.", maxNodes, n)
	}
	if !hasSystem(d.Pools) {
		p.bad("InvalidParameter", target, "There has to be at least one agent pool of mode System.")
	}
	p.validateRoom(d, target)
	p.validateSubnets(d, old, target)
}

// validateRoom refuses more nodes than the pod range has blocks for, before any is made.
func (p *parser) validateRoom(d *Desired, target string) {
	if !d.podsInSubnet() && d.PodCIDR.IsValid() && d.PodCIDR.Bits() <= kubenetPodBits {
		if room := 1 << (kubenetPodBits - d.PodCIDR.Bits()); d.nodes() > room {
			p.bad("InsufficientSubnetSize", target, "The pod range %s has room for %d nodes; these are %d. Use fewer nodes or a larger podCidr.", d.PodCIDR, room, d.nodes())
		}
	}
}

// validatePool checks one pool; target is where its properties stand.
func (p *parser) validatePool(d *Desired, pool Pool, target string, old *Desired) {
	if !poolNameForm.MatchString(pool.Name) {
		p.bad("InvalidParameter", target+"name", "The value of parameter agentPoolProfile.name is invalid: %q must be 1 to 12 lowercase letters and digits, and begin with a letter.", pool.Name)
	}
	least := 0
	if pool.Mode == systemMode {
		least = 1
	}
	if pool.Count < least || pool.Count > maxPerPool {
		p.bad("InvalidParameter", target+"count", "The value of parameter agentPoolProfile.count is invalid: a pool of mode %s has %d to %d nodes, not %d.", pool.Mode, least, maxPerPool, pool.Count)
	}
	if pool.MaxPods < minPods || pool.MaxPods > maxPodsEver {
		p.bad("InvalidParameter", target+"maxPods", "The value of parameter agentPoolProfile.maxPods is invalid: a node has %d to %d pods, not %d.", minPods, maxPodsEver, pool.MaxPods)
	}
	if _, known := machine.SizeByName(pool.Size); !known {
		p.bad("VMSizeNotSupported", target+"vmSize", "The VM size of %s is not available. Sizes that are: %s.", pool.Size, sizeNames())
	}
	p.validateScaling(pool, least, target)
	p.validateSkew(d, pool, target)
	p.validateLabels(pool, target)
	p.validateTaints(pool, target)
	var was Pool
	var exists bool
	if old != nil {
		was, exists = old.pool(pool.Name)
	}
	if pool.Version != was.Version {
		p.poolSupported(pool.Version, d.Version, target+"orchestratorVersion")
	}
	if exists {
		p.fixed(strings.EqualFold(pool.Size, was.Size), target+"vmSize")
		p.fixed(pool.MaxPods == was.MaxPods, target+"maxPods")
		p.fixed(pool.Subnet.Equal(was.Subnet), target+"vnetSubnetID")
		// The kubelet gives its Node labels and taints when it registers; changing them later needs more.
		p.fixed(maps.Equal(pool.Labels, was.Labels), target+"nodeLabels")
		p.fixed(sameTexts(pool.Taints, was.Taints), target+"nodeTaints")
		p.poolUpgradable(pool.Version, was.Version, target+"orchestratorVersion")
	}
}

func (p *parser) validateSkew(d *Desired, pool Pool, target string) {
	if d.Version == (Version{}) || pool.Version == d.Version {
		return
	}
	switch {
	case pool.Version.Compare(d.Version) > 0:
		p.bad("NodePoolMcVersionIncompatible", target+"orchestratorVersion",
			"Node pool version %s and control plane version %s are incompatible: a pool can't be newer than its control plane.", pool.Version, d.Version)
	case pool.Version.Major != d.Version.Major || pool.Version.Minor < d.Version.Minor-skew:
		p.bad("NodePoolMcVersionIncompatible", target+"orchestratorVersion",
			"Node pool version %s and control plane version %s are incompatible: a pool is at most %d minor versions behind.", pool.Version, d.Version, skew)
	}
}

// reservedLabel tells whether a label's prefix is Kubernetes' or AKS's own: a
// kubelet may not set the one, and the other is the service's.
func reservedLabel(key string) bool {
	prefix, _, found := strings.Cut(key, "/")
	if !found {
		return key == "agentpool"
	}
	for _, domain := range []string{"kubernetes.azure.com", "kubernetes.io", "k8s.io"} {
		if prefix == domain || strings.HasSuffix(prefix, "."+domain) {
			return prefix != "node.kubernetes.io" || key == "node.kubernetes.io/instance-type"
		}
	}
	return false
}

func (p *parser) validateLabels(pool Pool, target string) {
	for _, key := range slices.Sorted(maps.Keys(pool.Labels)) {
		reasons := slices.Concat(validation.IsQualifiedName(key), validation.IsValidLabelValue(pool.Labels[key]))
		if reservedLabel(key) {
			reasons = append(reasons, "its name is reserved")
		}
		if len(reasons) > 0 {
			p.bad("InvalidParameter", target+"nodeLabels", "The node label %q=%q is invalid: %s.", key, pool.Labels[key], strings.Join(reasons, "; "))
		}
	}
}

func (p *parser) validateTaints(pool Pool, target string) {
	for _, taint := range pool.Taints {
		keyValue, effect, _ := strings.Cut(taint, ":")
		key, val, _ := strings.Cut(keyValue, "=")
		reasons := slices.Concat(validation.IsQualifiedName(key), validation.IsValidLabelValue(val))
		if !slices.Contains([]string{"NoSchedule", "PreferNoSchedule", "NoExecute"}, effect) {
			reasons = append(reasons, "its effect must be NoSchedule, PreferNoSchedule or NoExecute")
		}
		if len(reasons) > 0 {
			p.bad("InvalidParameter", target+"nodeTaints", "The node taint %q is invalid: %s.", taint, strings.Join(reasons, "; "))
		} else if pool.Mode == systemMode && effect != "PreferNoSchedule" && taint != systemTaint {
			p.bad("InvalidParameter", target+"nodeTaints", "The node taint %q can't be on a pool of mode System: only %s and taints of effect PreferNoSchedule can.", taint, systemTaint)
		}
	}
}

func sizeNames() string {
	var names []string
	for _, size := range machine.Sizes() {
		names = append(names, size.Name)
	}
	return strings.Join(names, ", ")
}

// sameTexts compares two lists, order aside.
func sameTexts(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}
