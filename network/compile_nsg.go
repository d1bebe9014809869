// SPDX-License-Identifier: Apache-2.0

package network

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	sdk "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v7"

	"bastide.dev/dataplane"
	"bastide.dev/ruleset"
)

// Priorities of the rules that every security group has.
const (
	firstDefault  = 65000
	secondDefault = 65001
	lastDefault   = 65500
)

// resolver turns what a rule names into prefixes, for one virtual network.
type resolver struct {
	c        *compiler
	v        *vnet
	network  []netip.Prefix // the tag VirtualNetwork
	internet []netip.Prefix // the tag Internet
}

// security resolves the groups that each network uses. It comes last: tags and
// application groups depend on all else.
func (c *compiler) security() {
	logs := c.flowLogs()
	for _, v := range c.vnets {
		r := &resolver{c: c, v: v, network: v.ownAddresses()}
		r.internet = complement(slices.Concat(r.network, unrouted()))
		for _, key := range slices.Sorted(maps.Keys(v.groups)) {
			if i, model := lookup[sdk.SecurityGroup](c.inv, key); model != nil {
				group := r.group(i, model)
				for _, log := range logs[key] {
					c.use(v, log)
					group.Log = group.Log || value(log.model.(*sdk.FlowLog).Properties.Enabled)
				}
				v.out.NSGs = append(v.out.NSGs, group)
			}
		}
	}
}

// ownAddresses is what the tag VirtualNetwork means in a network: its own and
// its peers' address spaces, the platform's address, where user-defined routes
// lead to something in the network, and pods' ranges.
func (v *vnet) ownAddresses() []netip.Prefix {
	all := slices.Concat(v.prefixes, v.reached)
	all = append(all, netip.PrefixFrom(dataplane.WireServer, dataplane.WireServer.BitLen()))
	for _, table := range v.out.RouteTables {
		for _, r := range table.Routes {
			if r.Hop == dataplane.HopAppliance || r.Hop == dataplane.HopLocal {
				all = append(all, r.Prefix)
			}
		}
	}
	for _, n := range v.out.NICs {
		all = append(all, n.Pods...)
	}
	return merged(all)
}

func (r *resolver) group(i *item, model *sdk.SecurityGroup) dataplane.NSG {
	group := dataplane.NSG{ID: shown(i.doc.ID)}
	if model.Properties != nil {
		for _, rule := range model.Properties.SecurityRules {
			if rule != nil && rule.Properties != nil {
				group.Rules = append(group.Rules, r.rule(value(rule.Name), rule.Properties))
			}
		}
	}
	group.Rules = append(group.Rules, r.defaults()...)
	slices.SortStableFunc(group.Rules, func(a, b dataplane.NSGRule) int {
		if a.Inbound != b.Inbound {
			if a.Inbound {
				return -1
			}
			return 1
		}
		return a.Priority - b.Priority
	})
	return group
}

// flowLogs are the flow logs of each security group, by its key.
func (c *compiler) flowLogs() map[string][]*item {
	found := map[string][]*item{}
	for i, log := range all[sdk.FlowLog](c.inv, typeFlowLog) {
		if log.Properties != nil {
			target := keyOf(value(log.Properties.TargetResourceID))
			found[target] = append(found[target], i)
		}
	}
	return found
}

// defaults are the rules that every group has.
func (r *resolver) defaults() []dataplane.NSGRule {
	balancer := netip.PrefixFrom(dataplane.WireServer, dataplane.WireServer.BitLen())
	return []dataplane.NSGRule{
		{Name: "AllowVnetInBound", Priority: firstDefault, Inbound: true, Allow: true, Sources: r.network, Destinations: r.network},
		{Name: "AllowAzureLoadBalancerInBound", Priority: secondDefault, Inbound: true, Allow: true, Sources: []netip.Prefix{balancer}},
		{Name: "DenyAllInBound", Priority: lastDefault, Inbound: true},
		{Name: "AllowVnetOutBound", Priority: firstDefault, Allow: true, Sources: r.network, Destinations: r.network},
		{Name: "AllowInternetOutBound", Priority: secondDefault, Allow: true, Destinations: r.internet, None: len(r.internet) == 0},
		{Name: "DenyAllOutBound", Priority: lastDefault},
	}
}

func (r *resolver) rule(name string, p *sdk.SecurityRulePropertiesFormat) dataplane.NSGRule {
	rule := dataplane.NSGRule{Name: name, Priority: int(value(p.Priority)),
		Inbound:  strings.EqualFold(string(value(p.Direction)), string(sdk.SecurityRuleDirectionInbound)),
		Allow:    strings.EqualFold(string(value(p.Access)), string(sdk.SecurityRuleAccessAllow)),
		Protocol: protocolNumber(string(value(p.Protocol)))}
	var some, any bool
	rule.Sources, some = r.addresses(p.SourceAddressPrefix, p.SourceAddressPrefixes, p.SourceApplicationSecurityGroups)
	rule.Destinations, any = r.addresses(p.DestinationAddressPrefix, p.DestinationAddressPrefixes, p.DestinationApplicationSecurityGroups)
	rule.None = !some || !any
	if rule.Protocol == 0 || ruleset.HasPorts(rule.Protocol) {
		rule.SourcePorts = portRanges(p.SourcePortRange, p.SourcePortRanges)
		rule.DestinationPorts = portRanges(p.DestinationPortRange, p.DestinationPortRanges)
	}
	return rule
}

// protocolNumber is the IP protocol of a name; 0 is any.
func protocolNumber(name string) uint8 {
	switch strings.ToLower(name) {
	case "tcp":
		return ruleset.TCP
	case "udp":
		return ruleset.UDP
	case "icmp":
		return ruleset.ICMP
	case "esp":
		return ruleset.ESP
	case "ah":
		return ruleset.AH
	}
	return 0
}

// addresses resolves one side of a rule; none of it is any. False means that it
// names something, which has no address now.
func (r *resolver) addresses(one *string, list []*string, groups []*sdk.ApplicationSecurityGroup) ([]netip.Prefix, bool) {
	var texts []string
	if value(one) != "" {
		texts = append(texts, *one)
	}
	for _, text := range list {
		texts = append(texts, value(text))
	}
	var all []netip.Prefix
	for _, text := range texts {
		if text == "*" || strings.EqualFold(text, "any") {
			return nil, true
		}
		all = append(all, r.named(text)...)
	}
	for _, group := range groups {
		if group == nil {
			continue
		}
		i, _ := lookup[sdk.ApplicationSecurityGroup](r.c.inv, value(group.ID))
		r.c.use(r.v, i)
		for _, a := range r.c.groups[keyOf(value(group.ID))] {
			all = append(all, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	named := len(texts) > 0 || len(groups) > 0
	if len(texts) != 1 || len(groups) > 0 { // the prefixes of one text are merged already
		all = merged(all)
	}
	return all, len(all) > 0 || !named
}

// named resolves a prefix, an address, a range of addresses or a service tag.
func (r *resolver) named(text string) []netip.Prefix {
	if p, ok := prefixOf(text); ok {
		return []netip.Prefix{p}
	}
	if first, last, ok := strings.Cut(text, "-"); ok {
		a, isAddr := addrOf(first)
		b, alsoAddr := addrOf(last)
		if isAddr && alsoAddr && a.BitLen() == b.BitLen() {
			return span{a, b}.prefixes()
		}
	}
	switch strings.ToLower(text) {
	case tagVirtualNetwork:
		return r.network
	case tagInternet:
		return r.internet
	}
	prefixes, from, _ := r.c.tags.find(text)
	r.c.use(r.v, from)
	return prefixes
}

// portRanges reads ports as rules have them; "*" is any, which is none.
func portRanges(one *string, list []*string) []dataplane.Ports {
	var all []dataplane.Ports
	for _, text := range append([]*string{one}, list...) {
		first, last, several := strings.Cut(value(text), "-")
		if first == "*" {
			return nil
		}
		from, err := strconv.ParseUint(strings.TrimSpace(first), 10, 16)
		if err != nil {
			continue
		}
		to := from
		if several {
			if to, err = strconv.ParseUint(strings.TrimSpace(last), 10, 16); err != nil {
				continue
			}
		}
		all = append(all, dataplane.Ports{First: uint16(from), Last: uint16(to)})
	}
	return all
}
