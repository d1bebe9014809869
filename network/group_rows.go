// SPDX-License-Identifier: Apache-2.0

package network

import (
	"slices"

	"bastide.dev/arm"
)

// groupRows decide every property of a network security group.
func groupRows() []arm.Property {
	return slices.Concat(
		effective("location"), plain("tags"),
		ours("properties.defaultSecurityRules", "properties.networkInterfaces", "properties.subnets", "properties.flowLogs", "properties.resourceGuid"),
		refused("properties.flushConnection", "connections that were let in stay until they end"),
		arm.Within(ruleList+"[].", ruleRows()))
}

// ruleRows decide every property of a security rule.
func ruleRows() []arm.Property {
	return slices.Concat(partRows(),
		effective("properties.access", "properties.direction", "properties.priority", "properties.protocol",
			"properties.sourceAddressPrefix", "properties.sourceAddressPrefixes[]", "properties.sourcePortRange", "properties.sourcePortRanges[]",
			"properties.destinationAddressPrefix", "properties.destinationAddressPrefixes[]", "properties.destinationPortRange", "properties.destinationPortRanges[]"),
		linked("properties.sourceApplicationSecurityGroups[]", "properties.destinationApplicationSecurityGroups[]"),
		plain("properties.description"))
}

// applicationGroupRows decide every property of an application security group.
func applicationGroupRows() []arm.Property {
	return slices.Concat(effective("location"), plain("tags"), ours("properties.resourceGuid"))
}

// tableRows decide every property of a route table.
func tableRows() []arm.Property {
	return slices.Concat(
		effective("location"), plain("tags"),
		ours("properties.subnets", "properties.resourceGuid"),
		// It says whether gateways' routes come along, and there are no gateways.
		plain("properties.disableBgpRoutePropagation"),
		arm.Within(routeList+"[].", routeRows()))
}

// routeRows decide every property of a route.
func routeRows() []arm.Property {
	return slices.Concat(partRows(),
		effective("properties.addressPrefix", "properties.nextHopType", "properties.nextHopIpAddress"),
		ours("properties.hasBgpOverride"))
}
