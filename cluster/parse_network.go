// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	aks "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"

	"bastide.dev/fault"
	"bastide.dev/resource"
)

func (p *parser) network(d *Desired, profile *aks.NetworkProfile, old *Desired) {
	if profile == nil {
		profile = &aks.NetworkProfile{}
	}
	const prefix = "properties.networkProfile."
	d.Plugin = strings.ToLower(string(value(profile.NetworkPlugin)))
	d.Overlay = strings.EqualFold(string(value(profile.NetworkPluginMode)), "overlay")
	d.Policy = strings.ToLower(string(value(profile.NetworkPolicy)))
	if d.Policy == "none" {
		d.Policy = ""
	}
	service := one(p, prefix+"serviceCidr", value(profile.ServiceCidr), profile.ServiceCidrs)
	pods := one(p, prefix+"podCidr", value(profile.PodCidr), profile.PodCidrs)
	d.ServiceCIDR = p.prefix(prefix+"serviceCidr", service)
	d.PodCIDR = p.prefix(prefix+"podCidr", pods)
	if dns := value(profile.DNSServiceIP); dns != "" {
		address, err := netip.ParseAddr(dns)
		if err != nil || !address.Is4() {
			p.bad("InvalidParameter", prefix+"dnsServiceIP", "The value of parameter networkProfile.dnsServiceIP is invalid: %q isn't an IPv4 address.", dns)
		} else {
			d.DNS = address
		}
	}
	p.networkDefaults(d, profile, old, service, pods)
}

// networkDefaults fills what the request left out: what was, else what AKS takes.
func (p *parser) networkDefaults(d *Desired, profile *aks.NetworkProfile, old *Desired, service, pods string) {
	if old != nil {
		d.Plugin = or(d.Plugin, old.Plugin)
		if profile.NetworkPluginMode == nil {
			d.Overlay = old.Overlay
		}
		if profile.NetworkPolicy == nil {
			d.Policy = old.Policy
		}
		if service == "" {
			d.ServiceCIDR = old.ServiceCIDR
		}
		if pods == "" {
			d.PodCIDR = old.PodCIDR
		}
		if !d.DNS.IsValid() {
			d.DNS = old.DNS
		}
	}
	d.Plugin = or(d.Plugin, kubenet)
	if service == "" && !d.ServiceCIDR.IsValid() {
		d.ServiceCIDR = defaultServiceCIDR()
	}
	if !d.podsInSubnet() && pods == "" && !d.PodCIDR.IsValid() {
		d.PodCIDR = defaultPodCIDR()
	}
	// AKS takes the tenth address of the service range.
	if !d.DNS.IsValid() && d.ServiceCIDR.IsValid() {
		d.DNS = nth(d.ServiceCIDR, 10)
	}
}

// prefix reads an IPv4 CIDR; the zero prefix when there is none or it is wrong.
func (p *parser) prefix(target, text string) netip.Prefix {
	if text == "" {
		return netip.Prefix{}
	}
	prefix, err := netip.ParsePrefix(text)
	name := strings.TrimPrefix(target, "properties.")
	switch {
	case err != nil || !prefix.Addr().Is4():
		p.bad("InvalidParameter", target, "The value of parameter %s is invalid: %q isn't an IPv4 CIDR such as 10.0.0.0/16.", name, text)
		return netip.Prefix{}
	case prefix != prefix.Masked():
		p.bad("InvalidParameter", target, "The value of parameter %s is invalid: %q has bits set beyond its prefix; did you mean %s?", name, text, prefix.Masked())
		return netip.Prefix{}
	}
	return prefix
}

// one takes a range that newer API versions also write as a list.
func one(p *parser, target, single string, list []*string) string {
	if len(list) == 0 || list[0] == nil {
		return single
	}
	if len(list) > 1 {
		p.problems = append(p.problems, fault.New(fault.Unsupported, "PropertyNotSupported",
			"%ss can hold one range only: clusters are IPv4.", target).At(target+"s"))
	}
	if single != "" && single != *list[0] {
		p.bad("InvalidParameter", target+"s", "%ss begins with %s, but %s is %s.", target, *list[0], target, single)
	}
	return *list[0]
}

// outbound reads how nodes reach the Internet.
func (p *parser) outbound(d *Desired, profile *aks.NetworkProfile, old *Desired) {
	if profile == nil {
		profile = &aks.NetworkProfile{}
	}
	o := Outbound{Type: string(value(profile.OutboundType))}
	if old != nil {
		was := old.Outbound
		if o.Type == "" || strings.EqualFold(o.Type, was.Type) {
			o = was
		}
	}
	o.Type = or(o.Type, byLoadBalancer)
	for _, known := range []string{byLoadBalancer, byManagedNAT, byUserNAT, byUserRoutes, byNothing} {
		if strings.EqualFold(o.Type, known) {
			o.Type = known
		}
	}
	switch o.Type {
	case byLoadBalancer:
		p.balancer(&o, profile.LoadBalancerProfile)
	case byManagedNAT:
		p.gateway(&o, profile.NatGatewayProfile)
	}
	d.Outbound = o
}

// The idle minutes of AKS's outbound rule and of its NAT gateway.
const (
	balancerIdle = 30
	gatewayIdle  = 4
)

func (p *parser) balancer(o *Outbound, profile *aks.ManagedClusterLoadBalancerProfile) {
	const target = "properties.networkProfile.loadBalancerProfile."
	o.PoolType = or(o.PoolType, poolOfInterfaces)
	if o.Idle == 0 {
		o.Idle = balancerIdle
	}
	if profile != nil {
		if profile.AllocatedOutboundPorts != nil {
			o.Ports = int(*profile.AllocatedOutboundPorts)
		}
		if profile.IdleTimeoutInMinutes != nil {
			o.Idle = int(*profile.IdleTimeoutInMinutes)
		}
		if kind := string(value(profile.BackendPoolType)); kind != "" {
			o.PoolType = map[bool]string{true: poolOfAddresses, false: poolOfInterfaces}[strings.EqualFold(kind, poolOfAddresses)]
		}
		p.balancerAddresses(o, profile, target)
	}
	if o.Managed == 0 && len(o.Addresses)+len(o.Prefixes) == 0 {
		o.Managed = 1
	}
}

// balancerAddresses reads which addresses the outbound rule has: one of three ways.
func (p *parser) balancerAddresses(o *Outbound, profile *aks.ManagedClusterLoadBalancerProfile, target string) {
	ways := 0
	var managed int
	var addresses, prefixes []resource.ID
	if m := profile.ManagedOutboundIPs; m != nil && value(m.Count) != 0 {
		ways++
		managed = int(*m.Count)
	}
	if m := profile.OutboundIPs; m != nil && len(m.PublicIPs) > 0 {
		ways++
		addresses = p.references(m.PublicIPs, target+"outboundIPs.publicIPs", "Microsoft.Network/publicIPAddresses")
	}
	if m := profile.OutboundIPPrefixes; m != nil && len(m.PublicIPPrefixes) > 0 {
		ways++
		prefixes = p.references(m.PublicIPPrefixes, target+"outboundIPPrefixes.publicIPPrefixes", "Microsoft.Network/publicIPPrefixes")
	}
	switch ways {
	case 0:
	case 1:
		o.Managed, o.Addresses, o.Prefixes = managed, addresses, prefixes
	default:
		p.bad("InvalidLoadBalancerProfile", strings.TrimSuffix(target, "."),
			"Load balancer profile must specify one of ManagedOutboundIPs, OutboundIPPrefixes and OutboundIPs.")
	}
}

// references reads ids of resources of one type.
func (p *parser) references(list []*aks.ResourceReference, target, typ string) []resource.ID {
	var ids []resource.ID
	for i, reference := range list {
		at := fmt.Sprintf("%s[%d].id", target, i)
		id, err := resource.ParseID(value(value(reference).ID))
		switch {
		case err != nil || !id.IsType(typ):
			p.bad("LinkedInvalidPropertyId", at, "Property id '%s' at path '%s' is invalid: it isn't the id of one of %s.", value(value(reference).ID), at, typ)
		case slices.ContainsFunc(ids, id.Equal):
			p.bad("InvalidParameter", at, "%s is named twice.", id)
		default:
			ids = append(ids, id)
		}
	}
	return ids
}

func (p *parser) gateway(o *Outbound, profile *aks.ManagedClusterNATGatewayProfile) {
	if o.Managed == 0 {
		o.Managed = 1
	}
	if o.Idle == 0 {
		o.Idle = gatewayIdle
	}
	if profile == nil {
		return
	}
	if m := profile.ManagedOutboundIPProfile; m != nil && value(m.Count) != 0 {
		o.Managed = int(*m.Count)
	}
	if profile.IdleTimeoutInMinutes != nil {
		o.Idle = int(*profile.IdleTimeoutInMinutes)
	}
}

// access reads who reaches the API server. A list of ranges that is there and
// empty opens it again; one that isn't there leaves it as it is.
func (p *parser) access(d *Desired, profile *aks.ManagedClusterAPIServerAccessProfile, subdomain string, old *Desired) {
	const target = "properties.apiServerAccessProfile."
	var a Access
	if old != nil {
		a = old.Access
	}
	a.Subdomain = or(subdomain, a.Subdomain)
	if profile == nil {
		d.Access = a
		return
	}
	if profile.EnablePrivateCluster != nil {
		a.Private = *profile.EnablePrivateCluster
	}
	if profile.AuthorizedIPRanges != nil {
		a.Ranges = p.ranges(profile.AuthorizedIPRanges, target+"authorizedIPRanges")
		a.Restricted = len(profile.AuthorizedIPRanges) > 0
	}
	a.Zone = or(value(profile.PrivateDNSZone), a.Zone)
	if a.Private {
		a.Zone = or(a.Zone, systemZone)
		for _, known := range []string{systemZone, noZone} {
			if strings.EqualFold(a.Zone, known) {
				a.Zone = known
			}
		}
		if old == nil {
			a.PublicName = true
		}
	}
	if profile.EnablePrivateClusterPublicFQDN != nil {
		a.PublicName = *profile.EnablePrivateClusterPublicFQDN
	}
	d.Access = a
}

// everyoneOff is AKS's way to say: the cluster's own outbound addresses alone.
const everyoneOff = "0.0.0.0/32"

func (p *parser) ranges(list []*string, target string) []netip.Prefix {
	var ranges []netip.Prefix
	for i, text := range list {
		at := fmt.Sprintf("%s[%d]", target, i)
		prefix, err := netip.ParsePrefix(value(text))
		if err != nil {
			var address netip.Addr
			if address, err = netip.ParseAddr(value(text)); err == nil {
				prefix = netip.PrefixFrom(address, address.BitLen())
			}
		}
		switch {
		case err != nil:
			p.bad("InvalidAuthorizedIPRange", at, "%q isn't an address or a CIDR such as 73.140.245.0/24.", value(text))
		case !prefix.Addr().Is4():
			p.bad("InvalidAuthorizedIPRange", at, "%s isn't IPv4: clusters are.", prefix)
		case prefix.String() == everyoneOff:
		case slices.Contains(ranges, prefix.Masked()):
		default:
			ranges = append(ranges, prefix.Masked())
		}
	}
	return ranges
}
