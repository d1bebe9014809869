// SPDX-License-Identifier: Apache-2.0

package network

import (
	"net/netip"
	"slices"
	"strings"

	"bastide.dev/dataplane"
	"bastide.dev/resource"
)

// The service tags that mean something else in each virtual network.
const (
	tagVirtualNetwork = "virtualnetwork"
	tagInternet       = "internet"
	tagLoadBalancer   = "azureloadbalancer"
)

// frontDoorTags are the services that answer at the instance's front door.
func frontDoorTags() []string {
	return []string{"azureresourcemanager", "azureactivedirectory", "azurecontainerregistry", "microsoftcontainerregistry"}
}

// unrouted are the ranges that are nobody's outside a virtual network: neither
// the Internet's nor, unless a network has them, anything's.
func unrouted() []netip.Prefix {
	var all []netip.Prefix
	for _, text := range []string{"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "168.63.129.16/32",
		"169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16", "224.0.0.0/3"} {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

// tags are the service tags that are the same everywhere on the instance, by
// lower-case name.
type tags struct {
	builtIn map[string][]netip.Prefix
	own     map[string]*item          // the operator's
	merged  map[string][]netip.Prefix // of those of the operator's that were asked for
}

// instanceTags are AzureCloud (the front door and every API server's public
// address), the services of the front door, each also in its form for the
// instance's region, and the operator's own.
func instanceTags(s settings, inv *inventory) *tags {
	t := &tags{own: map[string]*item{}, merged: map[string][]netip.Prefix{}, builtIn: map[string][]netip.Prefix{
		tagLoadBalancer: {netip.PrefixFrom(dataplane.WireServer, dataplane.WireServer.BitLen())}}}
	var door []netip.Prefix
	if s.FrontDoor.IsValid() {
		door = append(door, netip.PrefixFrom(s.FrontDoor, s.FrontDoor.BitLen()))
	}
	cloud := slices.Clone(door)
	for _, server := range inv.servers {
		if server.Public.IsValid() {
			cloud = append(cloud, netip.PrefixFrom(server.Public, server.Public.BitLen()))
		}
	}
	regional := "." + strings.ToLower(s.Location)
	add := func(name string, prefixes []netip.Prefix) {
		t.builtIn[name], t.builtIn[name+regional] = prefixes, prefixes
	}
	add("azurecloud", merged(cloud))
	for _, name := range frontDoorTags() {
		add(name, door)
	}
	for i := range all[ServiceTag](inv, typeServiceTag) {
		t.own[strings.ToLower(i.doc.ID.Name())] = i
	}
	return t
}

// find resolves a tag of the instance, and says which document it comes from,
// if any. A built-in one of another region has no addresses here.
func (t *tags) find(name string) ([]netip.Prefix, *item, bool) {
	name = strings.ToLower(name)
	if prefixes, known := t.builtIn[name]; known {
		return prefixes, nil, true
	}
	if i := t.own[name]; i != nil {
		if _, done := t.merged[name]; !done {
			t.merged[name] = merged(i.model.(*ServiceTag).prefixes())
		}
		return t.merged[name], i, true
	}
	base, region, regional := strings.Cut(name, ".")
	if !regional || base == tagLoadBalancer {
		return nil, nil, false
	}
	_, place := resource.FindLocation(region)
	_, known := t.builtIn[base]
	return nil, nil, known && place
}

// shown are all tags with their names as Azure or the operator spells them.
func (t *tags) shown() map[string][]netip.Prefix {
	found := map[string][]netip.Prefix{}
	for key, prefixes := range t.builtIn {
		base, region, regional := strings.Cut(key, ".")
		for _, name := range []string{"AzureCloud", "AzureLoadBalancer", "AzureResourceManager", "AzureActiveDirectory", "AzureContainerRegistry", "MicrosoftContainerRegistry"} {
			if strings.EqualFold(name, base) {
				base = name
			}
		}
		if regional {
			base += "." + region
		}
		found[base] = prefixes
	}
	for key, i := range t.own {
		found[i.doc.ID.Name()], _, _ = t.find(key)
	}
	return found
}

// complement is every IPv4 address that isn't in prefixes.
func complement(prefixes []netip.Prefix) []netip.Prefix {
	var spans []span
	for _, p := range prefixes {
		if p.Addr().Is4() {
			spans = append(spans, spanOf(p))
		}
	}
	everything := spanOf(netip.PrefixFrom(netip.IPv4Unspecified(), 0))
	var all []netip.Prefix
	for _, s := range without([]span{everything}, spans) {
		all = append(all, s.prefixes()...)
	}
	return all
}
