// SPDX-License-Identifier: Apache-2.0

package network

import (
	"fmt"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v7"
)

// part is where an element of a load balancer's list stands in its body.
func part(list string, i int) string { return fmt.Sprintf("properties.%s[%d]", list, i) }

// normalBalancer makes one form of the many that clients send: defaults are
// filled in, what is named is named by its id alone, and what the service
// computes is left out.
func normalBalancer(f *findings, lb *armnetwork.LoadBalancer) {
	lb.SKU = &armnetwork.LoadBalancerSKU{Name: ptr(armnetwork.LoadBalancerSKUNameStandard), Tier: ptr(armnetwork.LoadBalancerSKUTierRegional)}
	if lb.Properties == nil {
		lb.Properties = &armnetwork.LoadBalancerPropertiesFormat{}
	}
	props := lb.Properties
	props.InboundNatPools, props.Scope = nil, nil
	props.FrontendIPConfigurations = present(props.FrontendIPConfigurations)
	for i, e := range props.FrontendIPConfigurations {
		e.ID, e.Etag, e.Type, e.Zones = nil, nil, nil, nil
		e.Properties = normalFrontend(f, part(listFrontends, i), e.Properties)
	}
	props.BackendAddressPools = present(props.BackendAddressPools)
	for i, e := range props.BackendAddressPools {
		e.ID, e.Etag, e.Type = nil, nil, nil
		e.Properties = normalPool(f, part(listPools, i), e.Properties)
	}
	props.LoadBalancingRules = present(props.LoadBalancingRules)
	for i, e := range props.LoadBalancingRules {
		e.ID, e.Etag, e.Type = nil, nil, nil
		e.Properties = normalRule(f, part(listRules, i), e.Properties)
	}
	props.Probes = present(props.Probes)
	for i, e := range props.Probes {
		e.ID, e.Etag, e.Type = nil, nil, nil
		e.Properties = normalProbe(f, part(listProbes, i), e.Properties)
	}
	props.OutboundRules = present(props.OutboundRules)
	for i, e := range props.OutboundRules {
		e.ID, e.Etag, e.Type = nil, nil, nil
		e.Properties = normalOutbound(f, part(listOutbound, i), e.Properties)
	}
	props.InboundNatRules = present(props.InboundNatRules)
	for i, e := range props.InboundNatRules {
		e.ID, e.Etag, e.Type = nil, nil, nil
		e.Properties = normalNAT(f, part(listNAT, i), e.Properties)
	}
}

// present leaves out the nulls of a list, which is never null itself.
func present[T any](list []*T) []*T {
	kept := make([]*T, 0, len(list))
	for _, e := range list {
		if e != nil {
			kept = append(kept, e)
		}
	}
	return kept
}

func orEmpty[T any](v *T) *T {
	if v == nil {
		return new(T)
	}
	return v
}

func orDefault[T comparable](v *T, fallback T) *T {
	if v == nil {
		return &fallback
	}
	return v
}

func normalFrontend(f *findings, at string, e *armnetwork.FrontendIPConfigurationPropertiesFormat) *armnetwork.FrontendIPConfigurationPropertiesFormat {
	e = orEmpty(e)
	kept := &armnetwork.FrontendIPConfigurationPropertiesFormat{PrivateIPAddress: e.PrivateIPAddress}
	kept.PrivateIPAllocationMethod = oneOf(f, at+".properties.privateIPAllocationMethod", e.PrivateIPAllocationMethod,
		armnetwork.IPAllocationMethodDynamic, armnetwork.PossibleIPAllocationMethodValues()...)
	if e.PublicIPAddress != nil {
		kept.PublicIPAddress = &armnetwork.PublicIPAddress{ID: e.PublicIPAddress.ID}
	}
	if e.PublicIPPrefix != nil {
		kept.PublicIPPrefix = &armnetwork.SubResource{ID: e.PublicIPPrefix.ID}
	}
	if e.Subnet != nil {
		kept.Subnet = &armnetwork.Subnet{ID: e.Subnet.ID}
		kept.PrivateIPAddressVersion = ptr(armnetwork.IPVersionIPv4)
	}
	return kept
}

func normalPool(f *findings, at string, e *armnetwork.BackendAddressPoolPropertiesFormat) *armnetwork.BackendAddressPoolPropertiesFormat {
	e = orEmpty(e)
	kept := &armnetwork.BackendAddressPoolPropertiesFormat{VirtualNetwork: e.VirtualNetwork, Location: e.Location}
	for _, a := range present(e.LoadBalancerBackendAddresses) {
		props := orEmpty(a.Properties)
		if props.NetworkInterfaceIPConfiguration != nil && value(props.IPAddress) == "" {
			continue // an interface's: it says itself which pools it is in
		}
		kept.LoadBalancerBackendAddresses = append(kept.LoadBalancerBackendAddresses, &armnetwork.LoadBalancerBackendAddress{Name: a.Name,
			Properties: &armnetwork.LoadBalancerBackendAddressPropertiesFormat{IPAddress: props.IPAddress, VirtualNetwork: props.VirtualNetwork, Subnet: props.Subnet}})
	}
	return kept
}

func normalRule(f *findings, at string, e *armnetwork.LoadBalancingRulePropertiesFormat) *armnetwork.LoadBalancingRulePropertiesFormat {
	e = orEmpty(e)
	at += ".properties."
	if pools := present(e.BackendAddressPools); len(pools) > 0 {
		switch {
		case len(pools) > 1:
			f.bad("LoadBalancingRuleMultipleBackendPoolsNotAllowed", at+"backendAddressPools", "A rule has one back-end address pool: several belong to gateway load balancers.")
		case e.BackendAddressPool == nil:
			e.BackendAddressPool = pools[0]
		case !sameID(e.BackendAddressPool, pools[0]):
			f.bad("InvalidRequestFormat", at+"backendAddressPools", "%sbackendAddressPool and %sbackendAddressPools name different pools: leave one of them out.", at, at)
		}
	}
	e.BackendAddressPools, e.ProvisioningState, e.EnableConnectionTracking = nil, nil, nil
	e.Protocol = oneOf(f, at+"protocol", e.Protocol, "", armnetwork.TransportProtocolTCP, armnetwork.TransportProtocolUDP, armnetwork.TransportProtocolAll)
	e.LoadDistribution = oneOf(f, at+"loadDistribution", e.LoadDistribution, armnetwork.LoadDistributionDefault, armnetwork.PossibleLoadDistributionValues()...)
	e.FrontendPort, e.BackendPort = orDefault(e.FrontendPort, 0), orDefault(e.BackendPort, 0)
	e.EnableFloatingIP, e.EnableTCPReset = orDefault(e.EnableFloatingIP, false), orDefault(e.EnableTCPReset, false)
	e.DisableOutboundSnat, e.IdleTimeoutInMinutes = orDefault(e.DisableOutboundSnat, false), orDefault(e.IdleTimeoutInMinutes, 4)
	return e
}

func sameID(a, b *armnetwork.SubResource) bool { return keyOf(subID(a)) == keyOf(subID(b)) }

func normalProbe(f *findings, at string, e *armnetwork.ProbePropertiesFormat) *armnetwork.ProbePropertiesFormat {
	e = orEmpty(e)
	e.LoadBalancingRules, e.ProvisioningState = nil, nil
	e.Protocol = oneOf(f, at+".properties.protocol", e.Protocol, "", armnetwork.PossibleProbeProtocolValues()...)
	e.Port, e.IntervalInSeconds = orDefault(e.Port, 0), orDefault(e.IntervalInSeconds, 15)
	e.NumberOfProbes, e.ProbeThreshold = orDefault(e.NumberOfProbes, 1), orDefault(e.ProbeThreshold, 1)
	e.NoHealthyBackendsBehavior = ptr(armnetwork.ProbeNoHealthyBackendsBehaviorAllProbedDown)
	if value(e.RequestPath) == "" {
		e.RequestPath = nil
	}
	return e
}

func normalOutbound(f *findings, at string, e *armnetwork.OutboundRulePropertiesFormat) *armnetwork.OutboundRulePropertiesFormat {
	e = orEmpty(e)
	e.ProvisioningState = nil
	e.Protocol = oneOf(f, at+".properties.protocol", e.Protocol, "", armnetwork.PossibleLoadBalancerOutboundRuleProtocolValues()...)
	e.FrontendIPConfigurations = present(e.FrontendIPConfigurations)
	e.AllocatedOutboundPorts, e.IdleTimeoutInMinutes = orDefault(e.AllocatedOutboundPorts, 0), orDefault(e.IdleTimeoutInMinutes, 4)
	e.EnableTCPReset = orDefault(e.EnableTCPReset, false)
	return e
}

func normalNAT(f *findings, at string, e *armnetwork.InboundNatRulePropertiesFormat) *armnetwork.InboundNatRulePropertiesFormat {
	e = orEmpty(e)
	e.BackendIPConfiguration, e.ProvisioningState = nil, nil
	e.Protocol = oneOf(f, at+".properties.protocol", e.Protocol, "", armnetwork.TransportProtocolTCP, armnetwork.TransportProtocolUDP, armnetwork.TransportProtocolAll)
	e.FrontendPort, e.BackendPort = orDefault(e.FrontendPort, 0), orDefault(e.BackendPort, 0)
	e.EnableFloatingIP, e.EnableTCPReset = orDefault(e.EnableFloatingIP, false), orDefault(e.EnableTCPReset, false)
	e.IdleTimeoutInMinutes = orDefault(e.IdleTimeoutInMinutes, 4)
	e.FrontendPortRangeStart, e.FrontendPortRangeEnd = nil, nil
	return e
}
