// SPDX-License-Identifier: Apache-2.0

package network

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"unicode"

	compute "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/compute/armcompute/v7"
	sdk "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v7"

	"bastide.dev/dataplane"
)

// nic is an interface while its network is compiled.
type nic struct {
	vnet   *vnet
	subnet *sdk.Subnet
	key    string // of its document
	host   string // its machine's name, in lower case
	public string // the public address's document, by key
	pools  []string
	out    dataplane.NIC
}

// interfaces are those of virtual machines and of scale sets' instances. One
// that no machine has isn't anywhere yet, and isn't a member of anything.
func (c *compiler) interfaces() {
	for vmItem, vm := range all[compute.VirtualMachine](c.inv, typeVM) {
		if vmItem.state.Machine == "" || vm.Properties == nil || vm.Properties.NetworkProfile == nil {
			continue
		}
		for _, reference := range vm.Properties.NetworkProfile.NetworkInterfaces {
			if reference == nil {
				continue
			}
			if i, model := lookup[sdk.Interface](c.inv, value(reference.ID)); model != nil {
				c.vmInterface(vmItem, i, model)
			}
		}
	}
	for i, vm := range all[compute.VirtualMachineScaleSetVM](c.inv, typeInstance) {
		if i.state.Machine != "" && i.state.Address.IsValid() {
			c.instance(i, vm)
		}
	}
	for _, v := range c.vnets {
		slices.SortStableFunc(v.nics, func(a, b *nic) int { return naturally(a.key, b.key) })
		for _, n := range v.nics {
			for _, pool := range n.pools {
				c.members[pool] = append(c.members[pool], n)
			}
		}
	}
	c.addressPools()
}

// naturally orders keys so that 2 comes before 10.
func naturally(a, b string) int {
	head := func(s string) string { return strings.TrimRightFunc(s, unicode.IsDigit) }
	if ha, hb := head(a), head(b); ha != hb {
		return strings.Compare(ha, hb)
	}
	return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
}

// place finds the network and subnet of an id, and begins an interface there.
func (c *compiler) place(i *item, subnet string) *nic {
	s := c.inv.subnets[keyOf(subnet)]
	at := strings.LastIndex(keyOf(subnet), "/subnets/")
	if s == nil || at < 0 {
		return nil
	}
	v := c.byKey[keyOf(subnet)[:at]]
	if v == nil {
		return nil
	}
	n := &nic{vnet: v, subnet: s, key: i.doc.ID.Key()}
	n.out = dataplane.NIC{ID: shortID("n", n.key), Machine: i.state.Machine, Subnet: value(s.Name)}
	c.use(v, i)
	return n
}

// vmInterface is a network interface's document, attached to a virtual machine.
// Its further configurations are further addresses.
func (c *compiler) vmInterface(vm, i *item, model *sdk.Interface) {
	var n *nic
	configs := nicConfigs(model)
	slices.SortStableFunc(configs, func(a, b *sdk.InterfaceIPConfiguration) int {
		return cmp.Compare(rank(a), rank(b))
	})
	for _, config := range configs {
		address, ok := addrOf(value(config.Properties.PrivateIPAddress))
		if !ok {
			continue
		}
		if n == nil {
			if n = c.place(i, subnetID(config.Properties.Subnet)); n == nil {
				return
			}
			n.out.Address = address
			n.public = keyOf(publicID(config.Properties.PublicIPAddress))
		} else {
			n.out.Pods = append(n.out.Pods, netip.PrefixFrom(address, address.BitLen()))
		}
		for _, pool := range config.Properties.LoadBalancerBackendAddressPools {
			n.join(value(pool.ID))
		}
		for _, rule := range config.Properties.LoadBalancerInboundNatRules {
			n.join(value(rule.ID))
		}
		for _, group := range config.Properties.ApplicationSecurityGroups {
			c.inGroup(n.vnet, value(group.ID), address)
		}
	}
	if n == nil {
		return
	}
	c.use(n.vnet, vm)
	n.host, n.out.Machine = strings.ToLower(vm.doc.ID.Name()), vm.state.Machine
	n.out.Forwarding = value(model.Properties.EnableIPForwarding)
	if group := model.Properties.NetworkSecurityGroup; group != nil {
		n.out.NSG = c.group(n.vnet, value(group.ID))
	}
	n.vnet.nics = append(n.vnet.nics, n)
}

// rank is 0 of an interface's primary configuration, else 1.
func rank(config *sdk.InterfaceIPConfiguration) int {
	if value(config.Properties.Primary) {
		return 0
	}
	return 1
}

// instance is the interface of a scale set's instance.
func (c *compiler) instance(i *item, vm *compute.VirtualMachineScaleSetVM) {
	var n *nic
	for _, config := range instanceConfigs(vm) {
		if config.config.Subnet == nil {
			continue
		}
		if n == nil {
			if n = c.place(i, value(config.config.Subnet.ID)); n == nil {
				return
			}
			n.out.Address, n.out.Pods, n.out.NoMetadata = i.state.Address, i.state.Pods, i.state.NoMetadata
			n.out.Forwarding = value(config.nic.EnableIPForwarding)
			if group := config.nic.NetworkSecurityGroup; group != nil {
				n.out.NSG = c.group(n.vnet, value(group.ID))
			}
		}
		for _, pool := range config.config.LoadBalancerBackendAddressPools {
			n.join(value(pool.ID))
		}
		for _, group := range config.config.ApplicationSecurityGroups {
			c.inGroup(n.vnet, value(group.ID), i.state.Address)
		}
	}
	if n == nil {
		return
	}
	if vm.Properties.OSProfile != nil {
		n.host = strings.ToLower(value(vm.Properties.OSProfile.ComputerName))
	}
	n.vnet.nics = append(n.vnet.nics, n)
}

// join puts an interface into a pool or behind an inbound NAT rule.
func (n *nic) join(id string) {
	if key := keyOf(id); key != "" && !slices.Contains(n.pools, key) {
		n.pools = append(n.pools, key)
	}
}

// inGroup notes a member of an application security group.
func (c *compiler) inGroup(v *vnet, id string, address netip.Addr) {
	i, model := lookup[sdk.ApplicationSecurityGroup](c.inv, id)
	if model == nil {
		return
	}
	c.use(v, i)
	c.groups[keyOf(id)] = append(c.groups[keyOf(id)], address)
}

// addressPools adds the members that pools name by address.
func (c *compiler) addressPools() {
	for i, lb := range all[sdk.LoadBalancer](c.inv, typeLB) {
		if lb.Properties == nil {
			continue
		}
		for _, pool := range lb.Properties.BackendAddressPools {
			if pool == nil || pool.Properties == nil {
				continue
			}
			key := i.doc.ID.Child("backendAddressPools", value(pool.Name)).Key()
			for _, address := range pool.Properties.LoadBalancerBackendAddresses {
				if n := c.memberAt(pool.Properties, address); n != nil && !slices.Contains(n.pools, key) {
					n.pools = append(n.pools, key)
					c.members[key] = append(c.members[key], n)
				}
			}
			slices.SortStableFunc(c.members[key], func(a, b *nic) int { return naturally(a.key, b.key) })
		}
	}
}

// memberAt is the interface that has a pool's address.
func (c *compiler) memberAt(pool *sdk.BackendAddressPoolPropertiesFormat, a *sdk.LoadBalancerBackendAddress) *nic {
	if a == nil || a.Properties == nil {
		return nil
	}
	address, ok := addrOf(value(a.Properties.IPAddress))
	if !ok {
		return nil
	}
	network := keyOf(subID(pool.VirtualNetwork))
	if own := keyOf(subID(a.Properties.VirtualNetwork)); own != "" {
		network = own
	} else if subnet := parsedID(subID(a.Properties.Subnet)); !subnet.IsRoot() {
		network = subnet.Parent().Key()
	}
	v := c.byKey[network]
	if v == nil {
		return nil
	}
	for _, n := range v.nics {
		if n.out.Address == address {
			return n
		}
	}
	return nil
}

// publicAddress is the address that a public address's document has.
func (c *compiler) publicAddress(v *vnet, key string) (netip.Addr, *item) {
	i, model := lookup[sdk.PublicIPAddress](c.inv, key)
	if model == nil || model.Properties == nil {
		return netip.Addr{}, nil
	}
	if v != nil {
		c.use(v, i)
	}
	address, ok := addrOf(value(model.Properties.IPAddress))
	if !ok {
		return netip.Addr{}, nil
	}
	return address, i
}
