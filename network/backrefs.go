// SPDX-License-Identifier: Apache-2.0

package network

import (
	compute "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/compute/armcompute/v7"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v7"

	"bastide.dev/resource"
)

// backRefs is who uses what of the core's, for views: ids by the key of what is used.
type backRefs struct {
	configs      map[string][]string // of a subnet: IP configurations in it
	endpoints    map[string][]string // of a subnet: private endpoints in it
	groupNICs    map[string][]string // of a security group
	groupSubnets map[string][]string
	tables       map[string][]string // of a route table: subnets
}

func (inv *inventory) backRefs() *backRefs {
	u := &backRefs{map[string][]string{}, map[string][]string{}, map[string][]string{}, map[string][]string{}, map[string][]string{}}
	for i, nic := range all[armnetwork.Interface](inv, typeNIC) {
		for _, c := range nicConfigs(nic) {
			note(u.configs, subnetID(c.Properties.Subnet), i.doc.ID.Child("ipConfigurations", value(c.Name)))
		}
		note(u.groupNICs, value(orEmpty(orEmpty(nic.Properties).NetworkSecurityGroup).ID), i.doc.ID)
	}
	for i, lb := range all[armnetwork.LoadBalancer](inv, typeLB) {
		for _, f := range frontends(lb) {
			note(u.configs, subnetID(f.Properties.Subnet), i.doc.ID.Child("frontendIPConfigurations", value(f.Name)))
		}
	}
	for i, endpoint := range all[armnetwork.PrivateEndpoint](inv, typeEndpoint) {
		note(u.endpoints, subnetID(orEmpty(endpoint.Properties).Subnet), i.doc.ID)
	}
	for i, vm := range all[compute.VirtualMachineScaleSetVM](inv, typeInstance) {
		u.instance(i.doc.ID, vm)
	}
	for i, vnet := range all[armnetwork.VirtualNetwork](inv, typeVNet) {
		for _, s := range subnets(vnet) {
			id := i.doc.ID.Child("subnets", value(s.Name))
			note(u.groupSubnets, value(orEmpty(s.Properties.NetworkSecurityGroup).ID), id)
			note(u.tables, value(orEmpty(s.Properties.RouteTable).ID), id)
		}
	}
	return u
}

// instance notes what a scale set's instance uses.
func (u *backRefs) instance(id resource.ID, vm *compute.VirtualMachineScaleSetVM) {
	for _, n := range orEmpty(orEmpty(vm.Properties).NetworkProfileConfiguration).NetworkInterfaceConfigurations {
		if n == nil || n.Properties == nil {
			continue
		}
		nic := id.Child("networkInterfaces", value(n.Name))
		note(u.groupNICs, value(orEmpty(n.Properties.NetworkSecurityGroup).ID), nic)
		for _, c := range n.Properties.IPConfigurations {
			if c != nil && c.Properties != nil {
				note(u.configs, value(orEmpty(c.Properties.Subnet).ID), nic.Child("ipConfigurations", value(c.Name)))
			}
		}
	}
}

func note(in map[string][]string, used string, by resource.ID) {
	if used != "" {
		in[keyOf(used)] = append(in[keyOf(used)], by.String())
	}
}
