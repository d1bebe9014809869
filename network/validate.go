// SPDX-License-Identifier: Apache-2.0

package network

import (
	"net/netip"

	"bastide.dev/dataplane"
	"bastide.dev/fault"
)

// The properties that faults are about.
const (
	profileTarget = "properties.networkProfile."
	pluginTarget  = profileTarget + "networkPlugin"
	serviceTarget = profileTarget + "serviceCidr"
	podTarget     = profileTarget + "podCidr"
	dnsTarget     = profileTarget + "dnsServiceIP"
	poolTarget    = "properties.agentPoolProfiles"
	subnetTarget  = poolTarget + ".vnetSubnetID"
)

// Kubernetes takes service ranges of at most 20 bits; below 32 addresses AKS
// has no room for its own Services.
const (
	widestServices   = 20
	narrowestService = 5
	serverSubnetBits = 28 // AKS's smallest for API Server VNet Integration
)

// reserved are the ranges that AKS refuses for services, pods and nodes, and
// those that mean something else to every machine.
func reserved() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("172.30.0.0/16"), netip.MustParsePrefix("172.31.0.0/16"),
		netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8"),
		netip.MustParsePrefix("224.0.0.0/3"), netip.PrefixFrom(dataplane.WireServer, 32),
	}
}

// Validate reports every problem of a profile.
func (p *Profile) Validate() []*fault.Error {
	var v problems
	switch {
	case p.Plugin != Kubenet && p.Plugin != Azure:
		v.add(fault.New(fault.Unsupported, "PropertyNotSupported", "The network plugin %q isn't supported: use kubenet or azure.", p.Plugin).At(pluginTarget))
	case p.Plugin == Kubenet && len(p.Pods) == 0:
		v.add(invalid(podTarget, "The network plugin kubenet needs a pod range."))
	case p.Plugin == Azure && len(p.Pods) > 0:
		v.add(invalid(podTarget, "With the network plugin azure pods have addresses of the nodes' subnet: leave podCidr out."))
	}
	v.subnets(p)
	v.services(p)
	for _, pods := range p.Pods {
		if v.form(podTarget, pods) && rangesIn(pods) == 0 {
			v.add(invalid(podTarget, "The pod range %s is too small: a node needs a /%d of it.", pods, nodeRangeBits(pods)))
		}
	}
	v.overlaps(p)
	return v
}

// problems collects what is wrong.
type problems []*fault.Error

func (v *problems) add(f *fault.Error) { *v = append(*v, f) }

// form checks a range by itself.
func (v *problems) form(target string, r netip.Prefix) bool {
	if !r.IsValid() || r != r.Masked() {
		v.add(invalid(target, "The range %s is malformed: an address with no bits beyond its length is needed.", r))
		return false
	}
	return true
}

func (v *problems) subnets(p *Profile) {
	if len(p.VNet) == 0 {
		v.add(invalid(subnetTarget, "The virtual network has no address range."))
	}
	for _, prefix := range p.VNet {
		v.form(subnetTarget, prefix)
	}
	for _, s := range []dataplane.Subnet{p.Nodes, p.Server} {
		if !v.form(subnetTarget, s.Prefix) {
			continue
		}
		inside := false
		for _, prefix := range p.VNet {
			inside = inside || prefix.IsValid() && prefix.Bits() <= s.Prefix.Bits() && prefix.Contains(s.Prefix.Addr())
		}
		if !inside {
			v.add(invalid(subnetTarget, "The subnet %s (%s) isn't in the virtual network's ranges %v.", s.Name, s.Prefix, p.VNet))
		}
		if _, ok := usable(s); !ok {
			v.add(fault.New(fault.Invalid, "InsufficientSubnetSize", "The subnet %s (%s) has no address left beside those that Azure keeps.", s.Name, s.Prefix).At(subnetTarget))
		}
	}
	nodes, server := p.Nodes.Prefix, p.Server.Prefix
	if nodes.IsValid() && server.IsValid() && nodes.Overlaps(server) {
		v.add(invalid(subnetTarget, "The subnets %s (%s) and %s (%s) overlap.", p.Nodes.Name, nodes, p.Server.Name, server))
	}
	if server.IsValid() && server.Addr().BitLen()-server.Bits() < 32-serverSubnetBits {
		v.add(fault.New(fault.Invalid, "InsufficientSubnetSize", "The API server's subnet %s is too small: /%d is the least.", server, serverSubnetBits).At(subnetTarget))
	}
}

func (v *problems) services(p *Profile) {
	if len(p.Services) == 0 {
		v.add(invalid(serviceTarget, "A cluster needs a service range."))
	}
	inside := false
	for _, services := range p.Services {
		if !v.form(serviceTarget, services) {
			return
		}
		if size := services.Addr().BitLen() - services.Bits(); size > widestServices || size < narrowestService {
			v.add(invalid(serviceTarget, "The service range %s must have between 2^%d and 2^%d addresses.", services, narrowestService, widestServices))
		}
		if !services.Contains(p.DNSServiceIP) {
			continue
		}
		inside = true
		first := services.Addr()
		switch p.DNSServiceIP {
		case first, last(services):
			v.add(invalid(dnsTarget, "The DNS service's address %s is the range's own: choose one within %s.", p.DNSServiceIP, services))
		case first.Next():
			v.add(invalid(dnsTarget, "The DNS service's address can't be %s: the first address of a service range is the API server's.", p.DNSServiceIP))
		}
	}
	if len(p.Services) > 0 && !inside {
		v.add(invalid(dnsTarget, "The DNS service's address %s isn't in the service range %v.", p.DNSServiceIP, p.Services))
	}
}

// area is a range and what to say of it.
type area struct {
	target, name string
	prefix       netip.Prefix
}

// overlaps reports every pair of ranges that meet.
func (v *problems) overlaps(p *Profile) {
	var areas []area
	collect := func(target, name string, ranges []netip.Prefix) {
		for _, r := range ranges {
			if r.IsValid() {
				areas = append(areas, area{target, name, r})
			}
		}
	}
	collect(subnetTarget, "virtual network", p.VNet)
	collect(podTarget, "pod", p.Pods)
	collect(serviceTarget, "service", p.Services)
	for i, a := range areas {
		for _, r := range reserved() {
			if a.prefix.Overlaps(r) {
				v.add(invalid(a.target, "The %s range %s meets %s, which is reserved.", a.name, a.prefix, r))
			}
		}
		for _, b := range areas[:i] {
			if !a.prefix.Overlaps(b.prefix) {
				continue
			}
			code := "InvalidParameter"
			if a.target == serviceTarget && b.target == subnetTarget {
				code = "ServiceCidrOverlapExistingSubnetsCidr"
			}
			v.add(fault.New(fault.Invalid, code, "The specified %s range %s overlaps the %s range %s.", a.name, a.prefix, b.name, b.prefix).At(a.target))
		}
	}
}

// Fits reports whether nodes, each with its own number of pods, find room
// beside those that are there.
func (p *Profile) Fits(used []Lease, want []Want) []*fault.Error {
	_, err := p.Allocate(used, want)
	if err == nil {
		return nil
	}
	f := *fault.From(err)
	f.Kind = fault.Invalid
	if f.Code == "SubnetIsFull" {
		f.Code = "InsufficientSubnetSize"
	}
	return []*fault.Error{&f}
}
