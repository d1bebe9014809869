// SPDX-License-Identifier: Apache-2.0

package network

import (
	"slices"

	"bastide.dev/arm"
)

// Short forms for tables of decisions.

func effective(paths ...string) []arm.Property { return arm.Rows(arm.Effective, paths...) }

func plain(paths ...string) []arm.Property { return arm.Rows(arm.Plain, paths...) }

func ours(paths ...string) []arm.Property { return arm.Rows(arm.ReadOnly, paths...) }

func fixed(path, note string, values ...any) []arm.Property {
	return []arm.Property{{Path: path, Treatment: arm.Fixed, Values: values, Note: note}}
}

func refused(path, note string) []arm.Property {
	return []arm.Property{{Path: path, Treatment: arm.Refused, Note: note}}
}

// decisions are a type's rows beside those that all have.
func decisions(rows ...[]arm.Property) []arm.Property {
	return slices.Concat(append(rows, ours("id", "name", "type", "etag", "eTag", "systemData", "properties.provisioningState", "properties.resourceGuid"), plain("tags"))...)
}

// balancerProperties decides every property of a load balancer and its parts.
func balancerProperties() []arm.Property {
	return decisions(
		effective("location"),
		fixed("sku.name", "the Basic SKU is retired", "Standard"),
		fixed("sku.tier", "there is one region", "Regional"),
		refused("extendedLocation", "there are no edge zones"),
		refused("properties.inboundNatPools", "use inboundNatRules"),
		refused("properties.scope", "a load balancer is what its front ends are"),
		inParts(listFrontends,
			effective("privateIPAddress", "privateIPAllocationMethod", "publicIPAddress", "publicIPPrefix", "subnet"),
			ours("loadBalancingRules", "outboundRules", "inboundNatRules", "inboundNatPools"),
			fixed("privateIPAddressVersion", "addresses are IPv4", "IPv4"),
			refused("gatewayLoadBalancer", "")),
		refused("properties."+listFrontends+"[].zones", "there are no availability zones"),
		inParts(listPools,
			effective("loadBalancerBackendAddresses[].name", "virtualNetwork", "location"),
			arm.Within("loadBalancerBackendAddresses[].properties.", slices.Concat(
				effective("ipAddress", "virtualNetwork", "subnet"),
				ours("networkInterfaceIPConfiguration", "inboundNatRulesPortMapping"),
				fixed("adminState", "a back end is out when its probe says so", "None"),
				refused("loadBalancerFrontendIPConfiguration", "it belongs to global load balancers"))),
			ours("backendIPConfigurations", "loadBalancingRules", "outboundRule", "outboundRules", "inboundNatRules"),
			refused("tunnelInterfaces", "they belong to gateway load balancers"),
			refused("drainPeriodInSeconds", ""), refused("syncMode", "")),
		inParts(listRules,
			effective("frontendIPConfiguration", "backendAddressPool", "backendAddressPools", "probe", "protocol", "loadDistribution",
				"frontendPort", "backendPort", "enableFloatingIP", "idleTimeoutInMinutes", "enableTcpReset", "disableOutboundSnat"),
			refused("enableConnectionTracking", "")),
		inParts(listProbes,
			effective("protocol", "port", "intervalInSeconds", "numberOfProbes", "probeThreshold", "requestPath"),
			ours("loadBalancingRules"),
			fixed("noHealthyBackendsBehavior", "nothing is sent to back ends that are all unhealthy", "AllProbedDown")),
		inParts(listOutbound,
			effective("frontendIPConfigurations", "backendAddressPool", "allocatedOutboundPorts", "idleTimeoutInMinutes", "enableTcpReset"),
			fixed("protocol", "an outbound rule is for all protocols", "All")),
		inParts(listNAT,
			effective("frontendIPConfiguration", "protocol", "frontendPort", "backendPort", "idleTimeoutInMinutes", "enableFloatingIP", "enableTcpReset"),
			ours("backendIPConfiguration"),
			refused("backendAddressPool", "name the rule in an interface's ipConfigurations[].properties.loadBalancerInboundNatRules"),
			refused("frontendPortRangeStart", ""), refused("frontendPortRangeEnd", "")),
	)
}

// inParts are decisions on the elements of one of a load balancer's lists.
func inParts(list string, rows ...[]arm.Property) []arm.Property {
	at := "properties." + list + "[]."
	own := arm.Within(at, slices.Concat(effective("name"), ours("id", "type", "etag", "properties.provisioningState")))
	return append(own, arm.Within(at+"properties.", slices.Concat(rows...))...)
}

func publicIPProperties() []arm.Property {
	return decisions(
		effective("location", "properties.idleTimeoutInMinutes", "properties.dnsSettings.domainNameLabel", "properties.publicIPPrefix.id"),
		ours("properties.ipAddress", "properties.ipConfiguration", "properties.natGateway", "properties.dnsSettings.fqdn"),
		fixed("sku.name", "the Basic SKU is retired", "Standard"),
		fixed("sku.tier", "there is one region", "Regional"),
		fixed("properties.publicIPAllocationMethod", "a Standard address is static", "Static"),
		fixed("properties.publicIPAddressVersion", "addresses are IPv4", "IPv4"),
		fixed("properties.deleteOption", "addresses outlive what they are attached to", "Detach"),
		fixed("properties.migrationPhase", "", "None"),
		fixed("properties.ddosSettings.protectionMode", "", "VirtualNetworkInherited"),
		refused("zones", "there are no availability zones"),
		refused("extendedLocation", "there are no edge zones"),
		refused("properties.ipTags", ""),
		refused("properties.dnsSettings.reverseFqdn", ""),
		refused("properties.dnsSettings.domainNameLabelScope", "leave it out: the label is the name"),
	)
}

func publicPrefixProperties() []arm.Property {
	return decisions(
		effective("location", "properties.prefixLength"),
		ours("properties.ipPrefix", "properties.publicIPAddresses", "properties.loadBalancerFrontendIpConfiguration", "properties.natGateway"),
		fixed("sku.name", "", "Standard"),
		fixed("sku.tier", "there is one region", "Regional"),
		fixed("properties.publicIPAddressVersion", "addresses are IPv4", "IPv4"),
		refused("zones", "there are no availability zones"),
		refused("extendedLocation", "there are no edge zones"),
		refused("properties.ipTags", ""),
		refused("properties.customIPPrefix", "prefixes come from the instance's public addresses"),
	)
}

func natGatewayProperties() []arm.Property {
	return decisions(
		effective("location", "properties.idleTimeoutInMinutes", "properties.publicIpAddresses", "properties.publicIpPrefixes"),
		ours("properties.subnets"),
		fixed("sku.name", "", "Standard"),
		refused("zones", "there are no availability zones"),
		refused("properties.publicIpAddressesV6", "addresses are IPv4"),
		refused("properties.publicIpPrefixesV6", "addresses are IPv4"),
		refused("properties.sourceVirtualNetwork", "name the gateway in subnets"),
	)
}

func privateEndpointProperties() []arm.Property {
	const connection = "properties.privateLinkServiceConnections[]."
	return decisions(
		effective("location", "properties.subnet",
			"properties.ipConfigurations[].name", "properties.ipConfigurations[].properties.privateIPAddress",
			"properties.ipConfigurations[].properties.groupId", "properties.ipConfigurations[].properties.memberName",
			connection+"name", connection+"properties.privateLinkServiceId", connection+"properties.groupIds"),
		plain(connection+"properties.requestMessage"),
		ours("properties.networkInterfaces", "properties.customDnsConfigs", "properties.ipConfigurations[].type", "properties.ipConfigurations[].etag",
			connection+"id", connection+"type", connection+"etag",
			connection+"properties.privateLinkServiceConnectionState", connection+"properties.provisioningState"),
		refused("properties.manualPrivateLinkServiceConnections", "connections within an instance are approved at once: use privateLinkServiceConnections"),
		refused("properties.applicationSecurityGroups", ""),
		refused("properties.customNetworkInterfaceName", "an endpoint has no interface of its own that could be named"),
		refused("properties.ipVersionType", "addresses are IPv4"),
		refused("extendedLocation", "there are no edge zones"),
	)
}

func zoneGroupProperties() []arm.Property {
	const config = "properties.privateDnsZoneConfigs[]."
	return decisions(effective(config+"name", config+"properties.privateDnsZoneId"), ours(config+"properties.recordSets"))
}

func zoneProperties() []arm.Property {
	return decisions(effective("location"), ours("properties.internalId", "properties.maxNumberOfRecordSets",
		"properties.maxNumberOfVirtualNetworkLinks", "properties.maxNumberOfVirtualNetworkLinksWithRegistration",
		"properties.numberOfRecordSets", "properties.numberOfVirtualNetworkLinks", "properties.numberOfVirtualNetworkLinksWithRegistration"))
}

func zoneLinkProperties() []arm.Property {
	return decisions(effective("location", "properties.virtualNetwork.id", "properties.registrationEnabled"),
		ours("properties.virtualNetworkLinkState"),
		fixed("properties.resolutionPolicy", "what a zone doesn't have isn't asked of others", "Default"))
}

// recordSetProperties decides a record set's properties; those of its own records are effective.
func recordSetProperties(records string) []arm.Property {
	rows := decisions(effective("properties.ttl", "properties."+records), plain("properties.metadata"), ours("properties.fqdn", "properties.isAutoRegistered"))
	for _, other := range []string{"aRecords", "aaaaRecords", "cnameRecord", "mxRecords", "ptrRecords", "soaRecord", "srvRecords", "txtRecords"} {
		if other != records {
			rows = append(rows, refused("properties."+other, "they belong to a record set of another type")...)
		}
	}
	return rows
}
