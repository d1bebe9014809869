// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
)

// FrontDoorPort is the one port of Edge.FrontDoor that virtual networks reach:
// whatever else the machine listens on isn't theirs.
const FrontDoorPort = 443

// linkHash keeps a link's name within the kernel's 15 bytes, with three left
// for what kind of link it is.
const linkHash = 12

// LinkName names a network interface of an instance: kind (at most three
// letters), then a hash of the instance and of what the interface is for. It
// is the same after every restart, and another for another instance.
func LinkName(kind, instance, id string) string {
	sum := sha256.Sum256([]byte(instance + "\x00" + id))
	return kind + hex.EncodeToString(sum[:])[:linkHash]
}

// TableName names the nftables table of an instance.
func TableName(instance string) string { return "bastide-" + instance }

// Gateway is the first address of a subnet: the router's, as on Azure.
func (s Subnet) Gateway() netip.Addr { return s.Prefix.Masked().Addr().Next() }

// Subnet finds a subnet by its name.
func (v *VNet) Subnet(name string) (Subnet, bool) {
	for _, s := range v.Subnets {
		if s.Name == name {
			return s, true
		}
	}
	return Subnet{}, false
}

// PublicAddresses lists the public addresses that belong to the network, each
// once: its egress first, then those it forwards.
func (v *VNet) PublicAddresses() []netip.Addr {
	var all []netip.Addr
	seen := map[netip.Addr]bool{}
	add := func(a netip.Addr) {
		if a.IsValid() && !seen[a] {
			seen[a] = true
			all = append(all, a)
		}
	}
	for _, nic := range v.NICs {
		for _, e := range nic.Egress {
			add(e.Address)
		}
	}
	for _, p := range v.Public {
		add(p.Address)
	}
	for _, b := range v.Balancers {
		if !within(netip.PrefixFrom(b.Address, b.Address.BitLen()), v.Prefixes) {
			add(b.Address)
		}
	}
	return all
}
