// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"net/netip"
	"strings"

	"bastide.dev/fault"
	"bastide.dev/resource"
)

func (p *parser) validateNetwork(d *Desired) {
	const prefix = "properties.networkProfile."
	if d.Plugin != kubenet && d.Plugin != azureCNI {
		p.problems = append(p.problems, fault.New(fault.Unsupported, "PropertyNotSupported",
			"properties.networkProfile.networkPlugin can't be %q here: only kubenet and azure are possible.", d.Plugin).At(prefix+"networkPlugin"))
		return
	}
	if d.podsInSubnet() && d.PodCIDR.IsValid() {
		p.bad("InvalidParameter", prefix+"podCidr", "podCidr can't be set with the network plugin azure: pods get addresses from the node's subnet, unless networkPluginMode is overlay.")
	}
	if d.Overlay && d.Plugin != azureCNI {
		p.bad("InvalidParameter", prefix+"networkPluginMode", "The mode overlay belongs to the network plugin azure.")
	}
	// Kubernetes takes a service range of at most 20 bits.
	if s := d.ServiceCIDR; s.IsValid() && (s.Bits() < 12 || s.Bits() > 27) {
		p.bad("InvalidParameter", prefix+"serviceCidr", "The value of parameter networkProfile.serviceCidr is invalid: %s must be between /12 and /27.", s)
	}
	if c := d.PodCIDR; c.IsValid() && c.Bits() > kubenetPodBits {
		p.bad("InvalidParameter", prefix+"podCidr", "The value of parameter networkProfile.podCidr is invalid: %s holds no node's /24.", c)
	}
	p.validatePolicy(d)
	p.validateDNS(d)
	p.validateOverlap(d)
}

func (p *parser) validateDNS(d *Desired) {
	const target = "properties.networkProfile.dnsServiceIP"
	if !d.DNS.IsValid() || !d.ServiceCIDR.IsValid() {
		return
	}
	switch {
	case !d.ServiceCIDR.Contains(d.DNS):
		p.bad("InvalidParameter", target, "The value of parameter networkProfile.dnsServiceIP is invalid: %s isn't in the service range %s.", d.DNS, d.ServiceCIDR)
	case d.DNS == nth(d.ServiceCIDR, 0) || d.DNS == nth(d.ServiceCIDR, 1):
		p.bad("InvalidParameter", target, "The value of parameter networkProfile.dnsServiceIP is invalid: %s is the range itself or the API server's own; take a later one.", d.DNS)
	}
}

// validateOverlap refuses ranges that meet: the three of a cluster, and those
// that mean something else on every Linux machine.
func (p *parser) validateOverlap(d *Desired) {
	const prefix = "properties.networkProfile."
	type named struct {
		target, name string
		prefix       netip.Prefix
	}
	ranges := []named{
		{prefix + "serviceCidr", "serviceCidr", d.ServiceCIDR},
		{prefix + "podCidr", "podCidr", d.PodCIDR},
	}
	fixed := []named{
		{"", "loopback addresses", netip.MustParsePrefix("127.0.0.0/8")},
		{"", "link-local addresses", netip.MustParsePrefix("169.254.0.0/16")},
		{"", "Azure's own address", netip.MustParsePrefix("168.63.129.16/32")},
		{"", "multicast addresses", netip.MustParsePrefix("224.0.0.0/3")},
		{"", "addresses of no network", netip.MustParsePrefix("0.0.0.0/8")},
	}
	if len(d.subnets()) == 0 {
		fixed = append(fixed, named{"", "the cluster's virtual network", vnetPrefix()})
	}
	for i, r := range ranges {
		for _, other := range append(ranges[:i:i], fixed...) {
			if r.prefix.IsValid() && other.prefix.IsValid() && r.prefix.Overlaps(other.prefix) {
				code := "ServiceCidrOverlapExistingSubnetsCidr"
				if other.target != "" || r.name == "podCidr" {
					code = "InvalidParameter"
				}
				p.bad(code, r.target, "The specified %s %s overlaps %s %s.", r.name, r.prefix, other.name, other.prefix)
			}
		}
	}
}

// validatePolicy checks the network policy's engine against the plugin.
func (p *parser) validatePolicy(d *Desired) {
	const target = "properties.networkProfile.networkPolicy"
	switch d.Policy {
	case "", "calico":
	case "azure":
		if d.Plugin == kubenet {
			p.bad("InvalidParameter", target, "The network policy azure needs the network plugin azure; with kubenet take calico.")
		}
	default:
		p.problems = append(p.problems, fault.New(fault.Unsupported, "PropertyNotSupported",
			"properties.networkProfile.networkPolicy can't be %q here: only azure, calico and none are possible.", d.Policy).At(target))
	}
}

// The bounds of AKS's outbound profiles.
const (
	mostOutbound = 100
	mostGateway  = 16
	mostPorts    = 64000
)

func (p *parser) validateOutbound(d *Desired) {
	const profile, target = "properties.networkProfile.", "properties.networkProfile.outboundType"
	o := d.Outbound
	switch o.Type {
	case byLoadBalancer:
		p.validateBalancer(d, profile+"loadBalancerProfile.")
	case byManagedNAT:
		if len(d.subnets()) > 0 {
			p.bad("InvalidParameter", target, "A managed NAT gateway needs the cluster's own network: with a subnet of yours take userAssignedNATGateway.")
		}
		if o.Managed < 1 || o.Managed > mostGateway {
			p.bad("InvalidParameter", profile+"natGatewayProfile.managedOutboundIPProfile.count", "A NAT gateway has 1 to %d addresses, not %d.", mostGateway, o.Managed)
		}
		if o.Idle < 4 || o.Idle > 120 {
			p.bad("InvalidParameter", profile+"natGatewayProfile.idleTimeoutInMinutes", "The idle timeout is 4 to 120 minutes, not %d.", o.Idle)
		}
	case byUserNAT, byUserRoutes:
		if len(d.subnets()) == 0 {
			p.bad("InvalidParameter", target, "The outbound type %s needs a subnet of yours: set vnetSubnetID of the agent pools.", o.Type)
		}
		for _, id := range d.subnets() {
			s, known := p.subnets[id.Key()]
			if known && o.Type == byUserNAT && s.NATGateway.IsRoot() {
				p.bad("InvalidParameter", target, "The subnet %s has no NAT gateway: associate one first.", id)
			}
			if known && o.Type == byUserRoutes && s.RouteTable.IsRoot() {
				p.bad("ExistingRouteTableNotAssociatedWithSubnet", target, "An existing route table has not been associated with subnet %s.", id)
			}
		}
	case byNothing:
	default:
		p.bad("InvalidParameter", target, "The outbound type %q isn't one of loadBalancer, managedNATGateway, userAssignedNATGateway, userDefinedRouting and none.", o.Type)
	}
}

func (p *parser) validateBalancer(d *Desired, target string) {
	o := d.Outbound
	if o.Managed > mostOutbound {
		p.bad("InvalidLoadBalancerProfile", target+"managedOutboundIPs.count", "A cluster has 1 to %d outbound addresses, not %d.", mostOutbound, o.Managed)
	}
	if o.Ports < 0 || o.Ports > mostPorts || o.Ports%8 != 0 {
		p.bad("InvalidLoadBalancerProfile", target+"allocatedOutboundPorts", "The allocated outbound ports are 0 to %d and a multiple of 8, not %d.", mostPorts, o.Ports)
	}
	if o.Idle < 4 || o.Idle > 120 {
		p.bad("InvalidLoadBalancerProfile", target+"idleTimeoutInMinutes", "The idle timeout is 4 to 120 minutes, not %d.", o.Idle)
	}
	if n := max(o.Managed, len(o.Addresses)); n > 0 && o.Ports*d.nodes() > mostPorts*n {
		p.bad("InvalidLoadBalancerProfile", target+"allocatedOutboundPorts",
			"%d ports for each of %d nodes are more than the %d that %d addresses have: take fewer ports or more addresses.", o.Ports, d.nodes(), mostPorts*n, n)
	}
}

// mostRanges is how many authorised ranges AKS takes.
const mostRanges = 200

func (p *parser) validateAccess(d *Desired) {
	const target = "properties.apiServerAccessProfile."
	a := d.Access
	if len(a.Ranges) > mostRanges {
		p.bad("InvalidParameter", target+"authorizedIPRanges", "A cluster has at most %d authorized IP ranges; these are %d.", mostRanges, len(a.Ranges))
	}
	if a.Private && a.Restricted {
		p.bad("InvalidParameter", target+"authorizedIPRanges", "Authorized IP ranges can't be set on a private cluster: its API server has no public address.")
	}
	if !a.Private {
		if a.Zone != "" {
			p.bad("InvalidParameter", target+"privateDNSZone", "privateDNSZone belongs to private clusters: set enablePrivateCluster.")
		}
		if a.Subdomain != "" {
			p.bad("InvalidParameter", "properties.fqdnSubdomain", "fqdnSubdomain belongs to private clusters with a private DNS zone of yours.")
		}
		return
	}
	if a.Zone == noZone && !a.PublicName {
		p.bad("InvalidParameter", target+"privateDNSZone", "Without a private DNS zone the cluster needs its public name: leave enablePrivateClusterPublicFQDN on.")
	}
	own := a.Zone != systemZone && a.Zone != noZone
	if own {
		p.validateZone(a.Zone, target+"privateDNSZone")
	}
	if a.Subdomain != "" && !own {
		p.bad("InvalidParameter", "properties.fqdnSubdomain", "fqdnSubdomain needs a private DNS zone of yours.")
	}
	if a.Subdomain != "" && !dnsPrefixForm.MatchString(a.Subdomain) {
		p.bad("InvalidParameter", "properties.fqdnSubdomain", "%q isn't a DNS label.", a.Subdomain)
	}
}

const zoneType = "Microsoft.Network/privateDnsZones"

// validateZone wants a zone whose name AKS takes: privatelink.REGION.DOMAIN, or
// one label before that.
func (p *parser) validateZone(text, target string) {
	id, err := resource.ParseID(text)
	if err != nil || !id.IsType(zoneType) {
		p.bad("InvalidParameter", target, "%q isn't system, none, or the id of a private DNS zone.", text)
		return
	}
	want := "privatelink." + p.location + "." + p.domain
	if label, rest, _ := strings.Cut(strings.ToLower(id.Name()), "."); !strings.EqualFold(id.Name(), want) && (rest != want || label == "") {
		p.bad("CustomPrivateDNSZoneInvalidFormat", target, "The private DNS zone must be named %s, or <label>.%s; %s isn't.", want, want, id.Name())
	}
}

// validateSubnets checks the subnets of the user's that the pools name.
func (p *parser) validateSubnets(d *Desired, old *Desired, target string) {
	var vnet resource.ID
	for i, pool := range d.Pools {
		at := fmt.Sprintf("%s[%d].vnetSubnetID", target, i)
		if pool.Subnet.IsRoot() != d.Pools[0].Subnet.IsRoot() {
			p.bad("InvalidParameter", at, "All agent pools have to be in one virtual network: either each names a subnet or none does.")
			continue
		}
		if pool.Subnet.IsRoot() {
			continue
		}
		s, known := p.subnets[pool.Subnet.Key()]
		if !known {
			p.bad("SubnetNotFound", at, "The subnet %s wasn't found.", pool.Subnet)
			continue
		}
		if vnet.IsRoot() {
			vnet = s.VNet
		}
		if !vnet.Equal(s.VNet) {
			p.bad("AllAgentPoolSubnetsMustBeInSameVnet", at, "All agent pools have to be in one virtual network; %s isn't in %s.", pool.Subnet, vnet)
		}
		if s.Location != d.Location {
			p.bad("InvalidParameter", at, "The subnet is in %s, the cluster in %s.", s.Location, d.Location)
		}
		p.validateRanges(d, s)
	}
	p.validateOverlays(d)
	p.validateCapacity(d, old, target)
}

// validateRanges holds a cluster's own ranges against the user's network.
func (p *parser) validateRanges(d *Desired, s Subnet) {
	const prefix = "properties.networkProfile."
	for _, of := range s.Prefixes {
		if d.ServiceCIDR.IsValid() && d.ServiceCIDR.Overlaps(of) && d.ServiceCIDR.Overlaps(s.Prefix) {
			p.bad("ServiceCidrOverlapExistingSubnetsCidr", prefix+"serviceCidr", "The specified service CIDR %s is conflicted with an existing subnet CIDR %s.", d.ServiceCIDR, s.Prefix)
		}
		if d.PodCIDR.IsValid() && d.PodCIDR.Overlaps(of) {
			p.bad("PodCidrOverlapExistingSubnetsCidr", prefix+"podCidr", "The specified podCidr %s overlaps the virtual network's %s.", d.PodCIDR, of)
		}
	}
}

// validateOverlays refuses a pod range that another overlay of the network has:
// the network's routes know one node for an address.
func (p *parser) validateOverlays(d *Desired) {
	for _, o := range p.overlays {
		if d.PodCIDR.IsValid() && d.PodCIDR.Overlaps(o.pods) {
			p.bad("InvalidParameter", "properties.networkProfile.podCidr",
				"The specified podCidr %s overlaps %s of cluster %s, whose overlay is in the same virtual network: choose another range.", d.PodCIDR, o.pods, o.cluster)
		}
	}
}

// validateCapacity refuses more nodes than the subnets have addresses for. A
// node takes one, with azure's pods in the subnet maxPods more.
func (p *parser) validateCapacity(d *Desired, old *Desired, target string) {
	need := map[string]int{}
	for _, pool := range d.Pools {
		count := pool.most()
		if old != nil {
			was, _ := old.pool(pool.Name)
			if count -= was.Count; pool.most() == was.most() {
				count = 0 // it was held against the subnet then
			}
		}
		each := 1
		if d.podsInSubnet() {
			each += pool.MaxPods
		}
		need[pool.Subnet.Key()] += count * each
	}
	for key, n := range need {
		free, name := 1<<(32-subnetPrefix().Bits())-reservedInNet-2, subnetPrefix().String()
		if old != nil && key == "" {
			for _, pool := range old.Pools {
				free -= pool.Count * (1 + map[bool]int{true: pool.MaxPods}[d.podsInSubnet()])
			}
		}
		if key != "" {
			s, known := p.subnets[key]
			if !known {
				continue
			}
			free, name = s.Free, s.ID.Name()
		}
		if n > free {
			p.bad("InsufficientSubnetSize", target, "Pre-allocated IPs %d exceeds IPs available %d in Subnet %s. Use fewer nodes, a smaller maxPods or a larger subnet.", n, max(free, 0), name)
		}
	}
}
