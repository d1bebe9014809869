// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"net/netip"
	"slices"

	"bastide.dev/fault"
)

// The virtual network that AKS makes for a cluster without one of the user's.
const (
	subnetName     = "aks-subnet"
	reservedInNet  = 4 // Azure keeps an address range's first four addresses
	kubenetPodBits = 24
)

func vnetPrefix() netip.Prefix   { return netip.MustParsePrefix("10.224.0.0/12") }
func subnetPrefix() netip.Prefix { return netip.MustParsePrefix("10.224.0.0/16") }

// nth is the n-th address of a prefix, counted from 0.
func nth(prefix netip.Prefix, n uint32) netip.Addr {
	b := prefix.Addr().As4()
	v := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	v += n
	return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
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

// podBlock allots a node's pod range: a /24 of the cluster's.
func podBlock(d *Desired, taken []netip.Prefix) (netip.Prefix, *fault.Error) {
	block, ok := freeBlock(d.PodCIDR, kubenetPodBits, taken)
	if !ok {
		return netip.Prefix{}, fault.New(fault.Exhausted, "InsufficientSubnetSize",
			"No range for another node's pods is left in %s: use fewer nodes or a larger podCidr.", d.PodCIDR)
	}
	return block, nil
}
