// SPDX-License-Identifier: Apache-2.0

package network

import "bastide.dev/arm"

// The actions that take others' resources into use, as Azure names them: whoever
// may write an interface can't thereby put it into anybody's subnet.
const (
	joinSubnet      = typeSubnet + "/join/action"
	joinGroup       = "Microsoft.Network/networkSecurityGroups/join/action"
	joinApplication = "Microsoft.Network/applicationSecurityGroups/joinIpConfiguration/action"
	joinTable       = "Microsoft.Network/routeTables/join/action"
	joinGateway     = "Microsoft.Network/natGateways/join/action"
	joinAddress     = "Microsoft.Network/publicIPAddresses/join/action"
	joinPool        = "Microsoft.Network/loadBalancers/backendAddressPools/join/action"
	joinVNet        = "Microsoft.Network/virtualNetworks/join/action"
	peerVNet        = "Microsoft.Network/virtualNetworks/peer/action"
)

func interfaceLinks() []arm.Link {
	const config = configList + "[].properties."
	return []arm.Link{
		{Path: config + "subnet.id", Action: joinSubnet},
		{Path: config + "publicIPAddress.id", Action: joinAddress},
		{Path: config + "loadBalancerBackendAddressPools[].id", Action: joinPool},
		{Path: config + "applicationSecurityGroups[].id", Action: joinApplication},
		{Path: "properties.networkSecurityGroup.id", Action: joinGroup},
	}
}

func vnetLinks() []arm.Link {
	const subnet = subnetList + "[].properties."
	return []arm.Link{
		{Path: subnet + "networkSecurityGroup.id", Action: joinGroup},
		{Path: subnet + "routeTable.id", Action: joinTable},
		{Path: subnet + "natGateway.id", Action: joinGateway},
		{Path: peeringList + "[].properties.remoteVirtualNetwork.id", Action: peerVNet},
	}
}

func balancerLinks() []arm.Link {
	return []arm.Link{
		{Path: "properties." + listFrontends + "[].properties.publicIPAddress.id", Action: joinAddress},
		{Path: "properties." + listFrontends + "[].properties.subnet.id", Action: joinSubnet},
	}
}

func natGatewayLinks() []arm.Link {
	return []arm.Link{{Path: "properties.publicIpAddresses[].id", Action: joinAddress}}
}

func privateEndpointLinks() []arm.Link {
	return []arm.Link{{Path: "properties.subnet.id", Action: joinSubnet}}
}

func zoneLinkLinks() []arm.Link {
	return []arm.Link{{Path: "properties.virtualNetwork.id", Action: joinVNet}}
}
