// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	sdk "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v7"

	"bastide.dev/arm"
	"bastide.dev/dataplane"
	"bastide.dev/fault"
	"bastide.dev/resource"
)

// standingNIC is an interface as it is compiled, with all networks.
type standingNIC struct {
	inv    *inventory
	config dataplane.Config
	vnet   *dataplane.VNet
	nic    *dataplane.NIC
}

// standingNIC finds an interface in what the host has. One that no running
// machine has isn't anywhere.
func (p *Provider) standingNIC(ctx context.Context, id resource.ID) (*standingNIC, error) {
	now, err := p.compiledNow(ctx)
	if err != nil {
		return nil, err
	}
	s := &standingNIC{inv: now.inv}
	for name, raw := range now.units {
		if name == edgeUnit {
			continue
		}
		var v dataplane.VNet
		if err := json.Unmarshal(raw, &v); err != nil {
			return nil, fmt.Errorf("virtual network %s: %w", name, err)
		}
		s.config.VNets = append(s.config.VNets, v)
	}
	for i := range s.config.VNets {
		v := &s.config.VNets[i]
		for j := range v.NICs {
			if v.NICs[j].ID == shortID("n", id.Key()) {
				s.vnet, s.nic = v, &v.NICs[j]
				return s, nil
			}
		}
	}
	return nil, fault.New(fault.Invalid, "NicMustBeAttachedToRunningVM",
		"Network interface %s must be attached to a running virtual machine: only then has it effective rules and routes.", id)
}

// effectiveRoutes answers POST …/networkInterfaces/{name}/effectiveRouteTable.
func (p *Provider) effectiveRoutes(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	s, err := p.standingNIC(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	var list []*sdk.EffectiveRoute
	for _, route := range dataplane.SubnetRoutes(&s.config, s.vnet, s.nic.Subnet) {
		hop := sdk.RouteNextHopType(route.Hop)
		if route.Peer != "" {
			hop = "VNetPeering"
		}
		e := &sdk.EffectiveRoute{AddressPrefix: []*string{ptr(route.Prefix.String())}, NextHopType: &hop, NextHopIPAddress: []*string{},
			Source: ptr(sdk.EffectiveRouteSourceDefault), State: ptr(sdk.EffectiveRouteStateActive), DisableBgpRoutePropagation: ptr(false)}
		if route.User != "" {
			e.Name, e.Source = ptr(route.User), ptr(sdk.EffectiveRouteSourceUser)
		}
		if route.Overridden {
			e.State = ptr(sdk.EffectiveRouteStateInvalid)
		}
		if route.Via.IsValid() {
			e.NextHopIPAddress = append(e.NextHopIPAddress, ptr(route.Via.String()))
		}
		list = append(list, e)
	}
	return &arm.Plan{Answer: &sdk.EffectiveRouteListResult{Value: list}}, nil
}

// effectiveGroups answers POST …/networkInterfaces/{name}/effectiveNetworkSecurityGroups:
// the groups of the interface and of its subnet, with the addresses that their rules mean now.
func (p *Provider) effectiveGroups(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	s, err := p.standingNIC(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	list := []*sdk.EffectiveNetworkSecurityGroup{}
	_, model := lookup[sdk.Interface](s.inv, r.ID.String())
	for _, config := range nicConfigs(model) {
		subnet := subnetID(config.Properties.Subnet)
		if of := s.inv.subnets[keyOf(subnet)]; of != nil && of.Properties != nil && of.Properties.NetworkSecurityGroup != nil {
			if e := s.group(value(of.Properties.NetworkSecurityGroup.ID)); e != nil {
				e.Association = &sdk.EffectiveNetworkSecurityGroupAssociation{Subnet: &sdk.SubResource{ID: &subnet}}
				list = append(list, e)
			}
		}
	}
	if model != nil && model.Properties != nil && model.Properties.NetworkSecurityGroup != nil {
		if e := s.group(value(model.Properties.NetworkSecurityGroup.ID)); e != nil {
			e.Association = &sdk.EffectiveNetworkSecurityGroupAssociation{NetworkInterface: &sdk.SubResource{ID: ptr(r.Old.ID.String())}}
			list = append(list, e)
		}
	}
	return &arm.Plan{Answer: &sdk.EffectiveNetworkSecurityGroupListResult{Value: list}}, nil
}

// group is a security group with its compiled rules; nil when the network has none of it.
func (s *standingNIC) group(id string) *sdk.EffectiveNetworkSecurityGroup {
	i, model := lookup[sdk.SecurityGroup](s.inv, id)
	if model == nil {
		return nil
	}
	at := slices.IndexFunc(s.vnet.NSGs, func(g dataplane.NSG) bool { return g.ID == shown(i.doc.ID) })
	if at < 0 {
		return nil
	}
	written := map[string]*sdk.SecurityRulePropertiesFormat{}
	for _, rule := range present(orEmpty(model.Properties).SecurityRules) {
		written[value(rule.Name)] = orEmpty(rule.Properties)
	}
	e := &sdk.EffectiveNetworkSecurityGroup{NetworkSecurityGroup: &sdk.SubResource{ID: ptr(i.doc.ID.String())}}
	for n := range s.vnet.NSGs[at].Rules {
		rule := &s.vnet.NSGs[at].Rules[n]
		own, kind := written[rule.Name], "securityRules/"
		if rule.Priority >= firstDefault {
			own, kind = defaultWritten(rule), "defaultSecurityRules/"
		}
		if own != nil {
			e.EffectiveSecurityRules = append(e.EffectiveSecurityRules, effectiveRule(kind, rule, own))
		}
	}
	return e
}

// defaultWritten is what a default rule says, in the words that people know.
func defaultWritten(rule *dataplane.NSGRule) *sdk.SecurityRulePropertiesFormat {
	p := &sdk.SecurityRulePropertiesFormat{SourceAddressPrefix: ptr("*"), DestinationAddressPrefix: ptr("*")}
	switch rule.Name {
	case "AllowVnetInBound", "AllowVnetOutBound":
		p.SourceAddressPrefix, p.DestinationAddressPrefix = ptr("VirtualNetwork"), ptr("VirtualNetwork")
	case "AllowAzureLoadBalancerInBound":
		p.SourceAddressPrefix = ptr("AzureLoadBalancer")
	case "AllowInternetOutBound":
		p.DestinationAddressPrefix = ptr("Internet")
	}
	return p
}

// effectiveRule is a compiled rule beside what was written.
func effectiveRule(kind string, rule *dataplane.NSGRule, written *sdk.SecurityRulePropertiesFormat) *sdk.EffectiveNetworkSecurityRule {
	e := &sdk.EffectiveNetworkSecurityRule{Name: ptr(kind + rule.Name), Priority: ptr(int32(rule.Priority)),
		Access: ptr(sdk.SecurityRuleAccessDeny), Direction: ptr(sdk.SecurityRuleDirectionOutbound), Protocol: ptr(effectiveProtocol(value(written.Protocol)))}
	if rule.Allow {
		e.Access = ptr(sdk.SecurityRuleAccessAllow)
	}
	if rule.Inbound {
		e.Direction = ptr(sdk.SecurityRuleDirectionInbound)
	}
	e.SourcePortRange, e.SourcePortRanges = effectivePorts(rule.SourcePorts)
	e.DestinationPortRange, e.DestinationPortRanges = effectivePorts(rule.DestinationPorts)
	e.SourceAddressPrefix, e.SourceAddressPrefixes, e.ExpandedSourceAddressPrefix = effectiveAddresses(
		written.SourceAddressPrefix, written.SourceAddressPrefixes, len(written.SourceApplicationSecurityGroups) > 0, rule.Sources)
	e.DestinationAddressPrefix, e.DestinationAddressPrefixes, e.ExpandedDestinationAddressPrefix = effectiveAddresses(
		written.DestinationAddressPrefix, written.DestinationAddressPrefixes, len(written.DestinationApplicationSecurityGroups) > 0, rule.Destinations)
	return e
}

func effectiveProtocol(p sdk.SecurityRuleProtocol) sdk.EffectiveSecurityRuleProtocol {
	if p == "" || p == sdk.SecurityRuleProtocolAsterisk {
		return sdk.EffectiveSecurityRuleProtocolAll
	}
	return sdk.EffectiveSecurityRuleProtocol(p)
}

// effectivePorts writes ports as Azure's answer does: always as ranges.
func effectivePorts(list []dataplane.Ports) (*string, []*string) {
	if len(list) == 0 {
		list = []dataplane.Ports{{First: 0, Last: 65535}}
	}
	ranges := make([]*string, len(list))
	for i, p := range list {
		ranges[i] = ptr(fmt.Sprintf("%d-%d", p.First, p.Last))
	}
	if len(ranges) == 1 {
		return ranges[0], ranges
	}
	return nil, ranges
}

// effectiveAddresses are what one side of a rule says, and, of tags and
// application groups, the addresses that they mean now.
func effectiveAddresses(one *string, list []*string, groups bool, now []netip.Prefix) (*string, []*string, []*string) {
	var said []*string
	named := false
	for _, text := range slices.Concat([]*string{one}, list) {
		switch {
		case value(text) == "":
		case *text == "*" || strings.EqualFold(*text, "any"):
			any := ptr("0.0.0.0/0")
			return any, []*string{any}, nil
		default:
			named = named || tagForm.MatchString(*text)
			said = append(said, text)
		}
	}
	var expanded []*string
	for _, p := range now {
		expanded = append(expanded, ptr(p.String()))
	}
	if groups {
		said, named = expanded, false
	}
	if !named {
		expanded = nil
	}
	if len(said) == 1 {
		return said[0], said, expanded
	}
	return nil, said, expanded
}
