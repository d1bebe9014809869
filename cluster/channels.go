// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"slices"
	"strings"

	aks "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"

	"bastide.dev/resource"
)

// Channels are what a cluster does by itself to stay current. "" is none, as in
// documents of before there were any.
type Channels struct {
	Cluster string `json:"cluster,omitempty"` // patch, stable, rapid or node-image
	NodeOS  string `json:"nodeOS,omitempty"`  // Unmanaged, SecurityPatch or NodeImage
}

// The channels, in AKS's words.
const (
	noUpgrades       = string(aks.UpgradeChannelNone)
	patchUpgrades    = string(aks.UpgradeChannelPatch)
	stableUpgrades   = string(aks.UpgradeChannelStable)
	rapidUpgrades    = string(aks.UpgradeChannelRapid)
	imageUpgrades    = string(aks.UpgradeChannelNodeImage)
	noPatches        = string(aks.NodeOSUpgradeChannelNone)
	unmanagedPatches = string(aks.NodeOSUpgradeChannelUnmanaged)
	securityPatches  = string(aks.NodeOSUpgradeChannelSecurityPatch)
	nodeImages       = string(aks.NodeOSUpgradeChannelNodeImage)
)

// nodeImageSince is the first API version whose new clusters get newer node
// images by themselves; of older ones they don't, as on AKS.
const nodeImageSince = resource.APIVersion("2023-06-01")

// channels reads a cluster's auto-upgrade profile; what it leaves out stays.
func (p *parser) channels(d *Desired, profile *aks.ManagedClusterAutoUpgradeProfile, old *Desired) {
	const target = "properties.autoUpgradeProfile."
	if old != nil {
		d.Channels = old.Channels
	} else if p.version != "" && p.version.AtLeast(nodeImageSince) {
		d.Channels.NodeOS = nodeImages
	}
	if profile == nil {
		profile = &aks.ManagedClusterAutoUpgradeProfile{}
	}
	os := string(value(profile.NodeOSUpgradeChannel))
	if channel := string(value(profile.UpgradeChannel)); channel != "" {
		d.Channels.Cluster = p.oneOf(target+"upgradeChannel", channel, noUpgrades, patchUpgrades, stableUpgrades, rapidUpgrades, imageUpgrades)
	}
	if os != "" {
		d.Channels.NodeOS = p.oneOf(target+"nodeOSUpgradeChannel", os, noPatches, unmanagedPatches, securityPatches, nodeImages)
	}
	if d.Channels.Cluster != imageUpgrades || d.Channels.NodeOS == nodeImages {
		return
	}
	// The channel node-image is NodeImage by its older name: it can't be beside another.
	if os != "" {
		p.bad("InvalidParameter", target+"nodeOSUpgradeChannel",
			"The upgrade channel %s brings node images, so that the node OS upgrade channel can only be %s, not %s.", imageUpgrades, nodeImages, or(d.Channels.NodeOS, noPatches))
		return
	}
	d.Channels.NodeOS = nodeImages
}

// oneOf finds a value in its own spelling; the first stands for "".
func (p *parser) oneOf(target, text string, values ...string) string {
	i := slices.IndexFunc(values, func(v string) bool { return strings.EqualFold(v, text) })
	switch {
	case i < 0:
		p.bad("InvalidParameter", target, "The value %q isn't one of %s.", cut(text), strings.Join(values, ", "))
		return ""
	case i == 0:
		return ""
	}
	return values[i]
}

// fillChannels completes a cluster's body with its channels.
func fillChannels(body object, d *Desired) {
	set(body, "properties.autoUpgradeProfile", object{
		"upgradeChannel": or(d.Channels.Cluster, noUpgrades), "nodeOSUpgradeChannel": or(d.Channels.NodeOS, noPatches)})
}

// channelVersion is the version that a channel leads a control plane of version v
// to next; false: it is where the channel leads. A cluster that is ahead of its
// channel's minor gets patches of its own minor; none ever goes back, and none
// skips a minor.
func (vs Versions) channelVersion(channel string, v Version) (Version, bool) {
	minors := vs.minors()
	if len(minors) == 0 {
		return Version{}, false
	}
	most := v.Minor
	switch channel {
	case patchUpgrades:
	case stableUpgrades:
		most = max(most, minors[max(0, len(minors)-2)].Minor)
	case rapidUpgrades:
		most = max(most, minors[len(minors)-1].Minor)
	default:
		return Version{}, false
	}
	var to Version
	for _, u := range vs.upgrades(v) {
		if u.Minor <= most {
			to = u // the last is the newest
		}
	}
	return to, to != Version{}
}

// channelUpgrade is what a channel of versions would do with a cluster now; false
// is nothing. Pools come along. Kubelets that would fall too far behind a newer
// API server are brought to the present one first.
func (vs Versions) channelUpgrade(channel string, server Version, pools []Pool) (upgrade, bool) {
	if channel == "" || channel == imageUpgrades {
		return upgrade{}, false
	}
	to, newer := vs.channelVersion(channel, server)
	if newer && slices.ContainsFunc(pools, func(p Pool) bool { return p.Version.Minor < to.Minor-skew }) {
		newer = false
	}
	u := upgrade{}
	if newer {
		u.ControlPlane = to
	} else {
		to = server
	}
	for _, p := range pools {
		if p.Version.Compare(to) < 0 && slices.Contains(vs, to) {
			u.Pools = append(u.Pools, poolUpgrade{Name: p.Name, Version: to})
		}
	}
	return u, newer || len(u.Pools) > 0
}

// imageUpgrade brings the pools that have an older node image, or older parts
// beside it, to what is newest; false: none has.
func imageUpgrade(pools []*poolDoc, newest func(Pool) (Parts, error)) (upgrade, bool, error) {
	var u upgrade
	for _, pool := range pools {
		parts, err := newest(pool.Pool)
		if err != nil {
			return u, false, err
		}
		if !parts.sameNode(pool.Target) {
			u.Pools = append(u.Pools, poolUpgrade{Name: pool.Pool.Name, Image: true})
		}
	}
	return u, len(u.Pools) > 0, nil
}
