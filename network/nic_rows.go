// SPDX-License-Identifier: Apache-2.0

package network

import (
	"slices"

	"bastide.dev/arm"
)

// interfaceRows decide every property of a network interface.
func interfaceRows() []arm.Property {
	const config = "properties.ipConfigurations[]."
	return slices.Concat(
		effective("location", "properties.enableIPForwarding"), plain("tags"),
		linked("properties.networkSecurityGroup"),
		ours("properties.macAddress", "properties.primary", "properties.virtualMachine", "properties.hostedWorkloads", "properties.tapConfigurations",
			"properties.privateEndpoint", "properties.resourceGuid", "properties.vnetEncryptionSupported", "properties.dscpConfiguration",
			"properties.defaultOutboundConnectivityEnabled", "properties.dnsSettings.appliedDnsServers", "properties.dnsSettings.internalFqdn",
			"properties.dnsSettings.internalDomainNameSuffix", "properties.privateLinkService"),
		refused("extendedLocation", "there are no edge zones"),
		refused("properties.dnsSettings.dnsServers", "interfaces resolve names at 168.63.129.16"),
		refused("properties.dnsSettings.internalDnsNameLabel", "make a record in a private zone"),
		refused("properties.enableAcceleratedNetworking", "interfaces are the kernel's own"),
		fixed("properties.auxiliaryMode", "", "None"),
		fixed("properties.auxiliarySku", "", "None"),
		fixed("properties.nicType", "", "Standard"),
		fixed("properties.migrationPhase", "", "None"),
		refused("properties.disableTcpStateTracking", "groups are stateful"),
		arm.Within(config, slices.Concat(
			partRows(),
			effective("properties.privateIPAddress", "properties.privateIPAllocationMethod"),
			linked("properties.subnet", "properties.publicIPAddress", "properties.applicationSecurityGroups[]",
				"properties.loadBalancerBackendAddressPools[]", "properties.loadBalancerInboundNatRules[]"),
			ours("properties.privateLinkConnectionProperties"),
			fixed("properties.primary", "an interface has one configuration", true, false),
			fixed("properties.privateIPAddressVersion", "addresses are IPv4", "IPv4"),
			fixed("properties.privateIPAddressPrefixLength", "", 32),
			refused("properties.gatewayLoadBalancer", ""))))
}
