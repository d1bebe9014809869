// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"math/bits"
	"net/netip"
	"slices"

	"bastide.dev/fault"
)

// The virtual network that AKS makes for a cluster without one of the user's.
const (
	subnetName     = "aks-subnet"
	reservedInNet  = 4 // Azure keeps an address range's first four addresses
	nodeSliceBits  = 19
	kubenetPodBits = 24
)

func vnetPrefix() netip.Prefix   { return netip.MustParsePrefix("10.224.0.0/12") }
func subnetPrefix() netip.Prefix { return netip.MustParsePrefix("10.224.0.0/16") }

// apiServerAddress is where nodes reach their API server: the subnet's first
// address that is anyone's.
func apiServerAddress() netip.Addr { return nth(subnetPrefix(), reservedInNet) }

// nodeSlice is the part of the subnet that node addresses come from; with azure
// the rest is the pods'. It holds AKS's 5,000 nodes.
func nodeSlice() netip.Prefix { return netip.PrefixFrom(subnetPrefix().Addr(), nodeSliceBits) }

// nth is the n-th address of a prefix, counted from 0.
func nth(prefix netip.Prefix, n uint32) netip.Addr {
	b := prefix.Addr().As4()
	v := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	v += n
	return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
}

// freeAddress is the lowest node address that isn't taken.
func freeAddress(taken []netip.Addr) (netip.Addr, bool) {
	slice := nodeSlice()
	used := make(map[netip.Addr]bool, len(taken))
	for _, a := range taken {
		used[a] = true
	}
	for n := uint32(reservedInNet + 1); n < 1<<(32-slice.Bits()); n++ {
		if a := nth(slice, n); !used[a] {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// freeBlock is the lowest aligned block of the given length in from that
// overlaps none of taken.
func freeBlock(from netip.Prefix, length int, taken []netip.Prefix) (netip.Prefix, bool) {
	if length < from.Bits() {
		return netip.Prefix{}, false
	}
	size := uint32(1) << (32 - length)
	for n := uint32(0); n < 1<<(length-from.Bits()); {
		block := netip.PrefixFrom(nth(from, n*size), length)
		i := slices.IndexFunc(taken, block.Overlaps)
		if i < 0 {
			return block, true
		}
		// Leave a larger block that is in the way in one step.
		n++
		if wide := taken[i]; wide.Bits() < length {
			step := uint32(1) << (length - wide.Bits())
			n = (n + step - 1) / step * step
		}
	}
	return netip.Prefix{}, false
}

// podBlock allots a node's pod range: a /24 of the pod range with kubenet, a
// block of the subnet beyond the node addresses that holds maxPods with azure.
func podBlock(d *Desired, maxPods int, taken []netip.Prefix) (netip.Prefix, *fault.Error) {
	from, length := d.PodCIDR, kubenetPodBits
	if d.Plugin == azureCNI {
		from, length = subnetPrefix(), 32-bits.Len(uint(maxPods-1))
		taken = append(slices.Clone(taken), nodeSlice())
	}
	block, ok := freeBlock(from, length, taken)
	if !ok {
		return netip.Prefix{}, fault.New(fault.Exhausted, "InsufficientSubnetSize",
			"No range for %d more pods is left in %s: use fewer nodes or a larger range.", maxPods, from)
	}
	return block, nil
}

func exhaustedSubnet() error {
	return fault.New(fault.Exhausted, "InsufficientSubnetSize", "No node address is left in %s.", nodeSlice())
}
