// SPDX-License-Identifier: Apache-2.0

package network

import (
	"slices"

	"bastide.dev/arm"
)

// vnetRows decide every property of a virtual network.
func vnetRows() []arm.Property {
	return slices.Concat(
		arm.Rows(arm.Effective, "location", "properties.addressSpace.addressPrefixes[]"),
		arm.Rows(arm.Plain, "tags"),
		arm.Rows(arm.ReadOnly, "properties.resourceGuid", "properties.flowLogs", "properties.defaultPublicNatGateway"),
		[]arm.Property{
			refusedFor("extendedLocation", "there are no edge zones"),
			refusedFor("properties.addressSpace.ipamPoolPrefixAllocations", "there are no IPAM pools"),
			fixedTo("properties.dhcpOptions.dnsServers[]", "interfaces resolve names at 168.63.129.16", "168.63.129.16"),
			refusedFor("properties.ddosProtectionPlan", ""),
			fixedTo("properties.encryption.enforcement", "", "AllowUnencrypted"),
			refusedFor("properties.flowTimeoutInMinutes", "connections have the kernel's own timeouts"),
			fixedTo("properties.privateEndpointVNetPolicies", "", "Disabled"),
			refusedFor("properties.bgpCommunities", "there are no gateways"),
		},
		arm.Within("properties.subnets[].", subnetRows()),
		arm.Within("properties.virtualNetworkPeerings[].", peeringRows()))
}

// subnetRows decide every property of a subnet.
func subnetRows() []arm.Property {
	return slices.Concat(partRows(),
		arm.Rows(arm.Effective, "properties.addressPrefix", "properties.addressPrefixes[]", "properties.defaultOutboundAccess"),
		linked("properties.networkSecurityGroup", "properties.routeTable", "properties.natGateway"),
		// It says whether groups filter private link services' addresses, of which there are none.
		arm.Rows(arm.Plain, "properties.privateLinkServiceNetworkPolicies"),
		arm.Rows(arm.Effective, "properties.delegations[].name"),
		arm.Rows(arm.ReadOnly, "properties.ipConfigurations", "properties.ipConfigurationProfiles", "properties.privateEndpoints", "properties.purpose",
			"properties.resourceNavigationLinks", "properties.serviceAssociationLinks", "properties.delegations[].id", "properties.delegations[].type",
			"properties.delegations[].etag", "properties.delegations[].properties.actions", "properties.delegations[].properties.provisioningState"),
		[]arm.Property{
			fixedTo("properties.delegations[].properties.serviceName", "a subnet can be delegated to clusters only", delegatedService),
			fixedTo("properties.privateEndpointNetworkPolicies", "groups don't filter private endpoints", "Disabled"),
			refusedFor("properties.serviceEndpoints", "services are reached at their public addresses or private endpoints"),
			refusedFor("properties.sharingScope", ""),
		})
}

// delegatedService is the one that subnets can be given to.
const delegatedService = "Microsoft.ContainerService/managedClusters"

// peeringRows decide every property of a peering.
func peeringRows() []arm.Property {
	return slices.Concat(partRows(),
		arm.Rows(arm.Effective, "properties.allowVirtualNetworkAccess", "properties.allowForwardedTraffic", "properties.remoteVirtualNetwork.id"),
		arm.Rows(arm.ReadOnly, "properties.peeringState", "properties.peeringSyncLevel", "properties.resourceGuid", "properties.remoteAddressSpace",
			"properties.remoteVirtualNetworkAddressSpace", "properties.localAddressSpace", "properties.localVirtualNetworkAddressSpace",
			"properties.remoteBgpCommunities", "properties.remoteVirtualNetworkEncryption"),
		// It asks not to check gateways, of which there are none.
		arm.Rows(arm.Plain, "properties.doNotVerifyRemoteGateways"),
		[]arm.Property{
			refusedFor("properties.allowGatewayTransit", "there are no gateways"),
			refusedFor("properties.useRemoteGateways", "there are no gateways"),
			fixedTo("properties.peerCompleteVnets", "whole networks are peered", true),
			refusedFor("properties.localSubnetNames", "whole networks are peered"),
			refusedFor("properties.remoteSubnetNames", "whole networks are peered"),
		})
}
