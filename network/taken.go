// SPDX-License-Identifier: Apache-2.0

package network

import (
	"net/netip"

	compute "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/compute/armcompute/v7"
	sdk "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v7"

	"bastide.dev/resource"
)

// takenIn is every address of a subnet that something has, also what is being deleted.
func (inv *inventory) takenIn(subnet resource.ID) []taken {
	t := takers{subnet: subnet.Key()}
	for _, i := range inv.types[typeNIC] {
		t.nic(i)
	}
	for _, i := range inv.types[typeLB] {
		t.balancer(i)
	}
	for _, i := range inv.types[typeEndpoint] {
		t.endpoint(i)
	}
	for _, i := range inv.types[typeInstance] {
		t.instance(i)
	}
	for _, s := range inv.servers {
		t.address(s.Subnet.Key(), s.Address, "the API server of "+s.Cluster.String())
	}
	return t.all
}

// takers collects the addresses of one subnet.
type takers struct {
	subnet string // its key
	all    []taken
}

func (t *takers) address(subnet string, a netip.Addr, owner string) {
	if subnet == t.subnet && a.IsValid() {
		t.all = append(t.all, taken{single(a), owner})
	}
}

func (t *takers) text(subnet *sdk.Subnet, address *string, owner string) {
	if subnet == nil {
		return
	}
	if a, ok := addrOf(value(address)); ok {
		t.address(keyOf(value(subnet.ID)), a, owner)
	}
}

func (t *takers) nic(i *item) {
	nic, _ := i.model.(*sdk.Interface)
	if nic.Properties == nil {
		return
	}
	for _, c := range nic.Properties.IPConfigurations {
		if c != nil && c.Properties != nil {
			t.text(c.Properties.Subnet, c.Properties.PrivateIPAddress, i.doc.ID.String())
		}
	}
}

func (t *takers) balancer(i *item) {
	lb, _ := i.model.(*sdk.LoadBalancer)
	if lb.Properties == nil {
		return
	}
	for _, f := range lb.Properties.FrontendIPConfigurations {
		if f != nil && f.Properties != nil {
			t.text(f.Properties.Subnet, f.Properties.PrivateIPAddress, i.doc.ID.String())
		}
	}
}

// endpoint takes a private endpoint's address. (Its network interface may be a
// document, too, and say the same.)
func (t *takers) endpoint(i *item) {
	endpoint, _ := i.model.(*sdk.PrivateEndpoint)
	if endpoint.Properties == nil || endpoint.Properties.Subnet == nil {
		return
	}
	if a, ok := endpointAddress(endpoint); ok {
		t.address(keyOf(value(endpoint.Properties.Subnet.ID)), a, i.doc.ID.String())
	}
}

// endpointAddress is a private endpoint's address, as its body has it: of its
// ipConfigurations, or of its customDnsConfigs.
func endpointAddress(endpoint *sdk.PrivateEndpoint) (netip.Addr, bool) {
	for _, c := range endpoint.Properties.IPConfigurations {
		if c != nil && c.Properties != nil {
			if a, ok := addrOf(value(c.Properties.PrivateIPAddress)); ok {
				return a, true
			}
		}
	}
	for _, c := range endpoint.Properties.CustomDNSConfigs {
		for _, text := range c.IPAddresses {
			if a, ok := addrOf(value(text)); ok {
				return a, true
			}
		}
	}
	return netip.Addr{}, false
}

func (t *takers) instance(i *item) {
	vm, _ := i.model.(*compute.VirtualMachineScaleSetVM)
	for _, c := range instanceConfigs(vm) {
		if c.config.Subnet == nil || keyOf(value(c.config.Subnet.ID)) != t.subnet {
			continue
		}
		owner := i.doc.ID.String()
		t.address(t.subnet, i.state.Address, owner)
		for _, pods := range i.state.Pods {
			t.all = append(t.all, taken{spanOf(pods), owner})
		}
		return // one address an instance
	}
}

// instanceConfig is one IP configuration of a scale set's instance.
type instanceConfig struct {
	name   string
	config *compute.VirtualMachineScaleSetIPConfigurationProperties
	nic    *compute.VirtualMachineScaleSetNetworkConfigurationProperties
}

// instanceConfigs are an instance's IP configurations, in order.
func instanceConfigs(vm *compute.VirtualMachineScaleSetVM) []instanceConfig {
	if vm.Properties == nil || vm.Properties.NetworkProfileConfiguration == nil {
		return nil
	}
	var found []instanceConfig
	for _, n := range vm.Properties.NetworkProfileConfiguration.NetworkInterfaceConfigurations {
		if n == nil || n.Properties == nil {
			continue
		}
		for _, c := range n.Properties.IPConfigurations {
			if c != nil && c.Properties != nil {
				found = append(found, instanceConfig{value(n.Name) + "/" + value(c.Name), c.Properties, n.Properties})
			}
		}
	}
	return found
}
