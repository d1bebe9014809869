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
type tags map[string][]netip.Prefix

// instanceTags are AzureCloud (the front door and every API server's public
// address), the services of the front door, and the operator's own. Each also
// has its form for the instance's region.
func instanceTags(s settings, servers []Server) tags {
	t := tags{tagLoadBalancer: {netip.PrefixFrom(dataplane.WireServer, dataplane.WireServer.BitLen())}}
	var door []netip.Prefix
	if s.FrontDoor.IsValid() {
		door = append(door, netip.PrefixFrom(s.FrontDoor, s.FrontDoor.BitLen()))
	}
	cloud := slices.Clone(door)
	for _, server := range servers {
		if server.Public.IsValid() {
			cloud = append(cloud, netip.PrefixFrom(server.Public, server.Public.BitLen()))
		}
	}
	regional := "." + strings.ToLower(s.Location)
	add := func(name string, prefixes []netip.Prefix) { t[name], t[name+regional] = prefixes, prefixes }
	add("azurecloud", merged(cloud))
	for _, name := range frontDoorTags() {
		add(name, door)
	}
	for name, prefixes := range s.Tags {
		t[strings.ToLower(name)] = merged(prefixes)
	}
	return t
}

// find resolves a tag of the instance. One of another region has no addresses here.
func (t tags) find(name string) ([]netip.Prefix, bool) {
	name = strings.ToLower(name)
	if prefixes, known := t[name]; known {
		return prefixes, true
	}
	base, region, regional := strings.Cut(name, ".")
	if !regional || base == tagLoadBalancer {
		return nil, false
	}
	_, place := resource.FindLocation(region)
	_, known := t[base]
	return nil, known && place
}

// knownTag tells whether a security rule may name the service tag.
func (p *Provider) knownTag(name string) bool {
	switch strings.ToLower(name) {
	case tagVirtualNetwork, tagInternet, tagLoadBalancer:
		return true
	}
	_, known := instanceTags(p.settings(), nil).find(name)
	return known
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
