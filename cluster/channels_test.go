// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"testing"

	"bastide.dev/resource"
)

func mustVersions(t *testing.T, texts ...string) Versions {
	t.Helper()
	vs, err := NewVersions(texts)
	if err != nil {
		t.Fatal(err)
	}
	return vs
}

func version(t *testing.T, text string) Version {
	t.Helper()
	v, err := ParseVersion(text)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// The examples of AKS's own documents among others.
func TestWhereChannelsLead(t *testing.T) {
	aks := []string{"1.17.7", "1.17.9", "1.18.4", "1.18.6", "1.19.1"}
	for _, c := range []struct {
		channel, from, to string
		built             []string
	}{
		{patchUpgrades, "1.17.7", "1.17.9", aks},
		{patchUpgrades, "1.17.9", "", aks},
		{stableUpgrades, "1.17.7", "1.18.6", aks},
		{stableUpgrades, "1.18.6", "", aks},
		{stableUpgrades, "1.19.0", "1.19.1", aks}, // ahead of its channel: patches, and no way back
		{rapidUpgrades, "1.17.7", "1.18.6", aks},  // one minor at a time
		{rapidUpgrades, "1.18.6", "1.19.1", aks},
		{rapidUpgrades, "1.19.1", "", aks},
		{"", "1.17.7", "", aks},
		{imageUpgrades, "1.17.7", "", aks},
		{stableUpgrades, "1.36.3", "", []string{"1.36.3"}},
		{rapidUpgrades, "1.34.4", "", []string{"1.34.4", "1.36.3"}}, // none that isn't skipped to
		{patchUpgrades, "1.34.4", "", nil},
	} {
		to, is := mustVersions(t, c.built...).channelVersion(c.channel, version(t, c.from))
		if got := to.String(); is != (c.to != "") || is && got != c.to {
			t.Errorf("%s leads from %s to %s (%v), want %q", c.channel, c.from, got, is, c.to)
		}
	}
}

func TestPoolsComeAlong(t *testing.T) {
	vs := mustVersions(t, "1.33.1", "1.34.4", "1.35.4", "1.36.3")
	pool := func(name, v string) Pool { return Pool{Name: name, Version: version(t, v)} }
	u, is := vs.channelUpgrade(rapidUpgrades, version(t, "1.35.4"), []Pool{pool("a", "1.35.4"), pool("b", "1.34.4")})
	if !is || u.ControlPlane != version(t, "1.36.3") || len(u.Pools) != 2 || u.Pools[1].Version != version(t, "1.36.3") {
		t.Errorf("the upgrade is %+v", u)
	}
	// A pool that was left behind is brought to the control plane's version.
	u, is = vs.channelUpgrade(stableUpgrades, version(t, "1.35.4"), []Pool{pool("a", "1.35.4"), pool("b", "1.34.4")})
	if !is || u.ControlPlane != (Version{}) || len(u.Pools) != 1 || u.Pools[0].Name != "b" || u.Pools[0].Version != version(t, "1.35.4") {
		t.Errorf("the upgrade is %+v", u)
	}
	// So is one, first, whose kubelets would be four minors behind.
	u, is = vs.channelUpgrade(rapidUpgrades, version(t, "1.35.4"), []Pool{pool("a", "1.35.4"), pool("b", "1.32.0")})
	if !is || u.ControlPlane != (Version{}) || len(u.Pools) != 1 || u.Pools[0].Version != version(t, "1.35.4") {
		t.Errorf("the upgrade is %+v", u)
	}
	if u, is = vs.channelUpgrade(rapidUpgrades, version(t, "1.36.3"), []Pool{pool("a", "1.36.3")}); is {
		t.Errorf("what is current is upgraded: %+v", u)
	}
}

func TestChannelsOfRequests(t *testing.T) {
	const id = "/subscriptions/0b1f6471-1bf0-4dda-aec3-cb9272f09590/resourceGroups/rg1/providers/Microsoft.ContainerService/managedClusters/c1"
	for _, c := range []struct {
		name    string
		version resource.APIVersion
		profile object
		old     *Desired
		want    Channels
	}{
		{"an older client's new cluster has none", "2022-11-01", nil, nil, Channels{}},
		{"a newer one's gets node images", "2023-06-01", nil, nil, Channels{NodeOS: nodeImages}},
		{"none is none", "2025-02-01", object{"upgradeChannel": "none", "nodeOSUpgradeChannel": "None"}, nil, Channels{}},
		{"the values' own spelling", "2025-02-01", object{"upgradeChannel": "RAPID", "nodeOSUpgradeChannel": "unmanaged"}, nil, Channels{rapidUpgrades, unmanagedPatches}},
		{"node-image brings NodeImage along", "2022-11-01", object{"upgradeChannel": "node-image"}, nil, Channels{imageUpgrades, nodeImages}},
		{"what is left out stays", "2025-02-01", object{"upgradeChannel": "patch"}, &Desired{Channels: Channels{stableUpgrades, securityPatches}}, Channels{patchUpgrades, securityPatches}},
		{"an older client changes nothing", "2022-11-01", nil, &Desired{Channels: Channels{stableUpgrades, securityPatches}}, Channels{stableUpgrades, securityPatches}},
		{"node-image takes the place of what was", "2025-02-01", object{"upgradeChannel": "node-image"}, &Desired{Channels: Channels{stableUpgrades, securityPatches}}, Channels{imageUpgrades, nodeImages}},
	} {
		t.Run(c.name, func(t *testing.T) {
			ps := parser{versions: mustVersions(t, "1.35.4", "1.36.3"), location: "eastus", version: c.version}
			body := object{"location": "eastus", "identity": object{"type": "SystemAssigned"}, "properties": object{"dnsPrefix": "c1"}}
			if c.profile != nil {
				set(body, "properties.autoUpgradeProfile", c.profile)
			}
			d := ps.cluster(body, resource.MustParseID(id), c.old)
			if d.Channels != c.want || len(ps.problems) > 0 {
				t.Errorf("channels %+v, want %+v; problems %v", d.Channels, c.want, ps.problems)
			}
			fillChannels(body, &d)
			again := parser{versions: ps.versions, location: "eastus", version: c.version}
			if read := again.cluster(body, resource.MustParseID(id), nil); read.Channels != c.want {
				t.Errorf("what is shown reads as %+v", read.Channels)
			}
		})
	}
}
