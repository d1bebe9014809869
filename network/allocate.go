// SPDX-License-Identifier: Apache-2.0

package network

import (
	"net/netip"
	"slices"

	"bastide.dev/dataplane"
	"bastide.dev/fault"
)

// Want is a node that needs addresses.
type Want struct {
	ID      string
	MaxPods int
}

// Lease is what a node has, for as long as its owner keeps it.
type Lease struct {
	ID      string         `json:"id"`
	Address netip.Addr     `json:"address"`
	Pods    []netip.Prefix `json:"pods"`
}

// usable are the addresses of a subnet that Azure gives out.
func usable(s dataplane.Subnet) (span, bool) {
	if !s.Prefix.IsValid() {
		return span{}, false
	}
	whole := spanOf(s.Prefix)
	first, ok := advance(whole.first, reservedFirst)
	end := whole.last.Prev()
	return span{first, end}, ok && end.IsValid() && !end.Less(first)
}

// Allocate gives each wanted node the lowest free addresses, in the order they
// are asked for; one that is among used keeps what it has. The same arguments
// always give the same leases. When there isn't enough for all, nobody gets
// any, and the fault is Exhausted.
func (p *Profile) Allocate(used []Lease, want []Want) ([]Lease, error) {
	have := make(map[string]Lease, len(used))
	for _, l := range used {
		have[l.ID] = l
	}
	all := slices.Clone(used)
	leases := make([]Lease, 0, len(want))
	for _, w := range want {
		l, known := have[w.ID]
		if !known {
			var problem *fault.Error
			if l, problem = p.lease(w, all); problem != nil {
				return nil, problem
			}
			have[w.ID] = l
			all = append(all, l)
		}
		leases = append(leases, l)
	}
	return leases, nil
}

func (p *Profile) lease(w Want, used []Lease) (Lease, *fault.Error) {
	within, ok := usable(p.Nodes)
	if !ok {
		return Lease{}, p.full(0)
	}
	var taken []span
	for _, l := range used {
		taken = append(taken, span{l.Address, l.Address})
		for _, pods := range l.Pods {
			taken = append(taken, spanOf(pods))
		}
	}
	need := uint64(1)
	if p.Plugin == Azure {
		need += uint64(max(w.MaxPods, 0))
	}
	run, ok := gap(within, taken, need)
	if !ok {
		return Lease{}, p.full(len(used))
	}
	l := Lease{ID: w.ID, Address: run.first}
	if p.Plugin == Azure {
		if need > 1 {
			l.Pods = span{run.first.Next(), run.last}.prefixes()
		}
		return l, nil
	}
	var problem *fault.Error
	l.Pods, problem = p.podRanges(used)
	return l, problem
}

// podRanges is a node's part of each of the cluster's pod ranges.
func (p *Profile) podRanges(used []Lease) ([]netip.Prefix, *fault.Error) {
	var ranges []netip.Prefix
	for _, cluster := range p.Pods {
		length := nodeRangeBits(cluster)
		at, ok := cluster.Masked().Addr(), length >= cluster.Bits()
		for ok && cluster.Contains(at) && meets(netip.PrefixFrom(at, length), used) {
			at = last(netip.PrefixFrom(at, length)).Next()
			ok = at.IsValid()
		}
		if !ok || !cluster.Contains(at) {
			return nil, fault.New(fault.Exhausted, "InsufficientPodCidrSize",
				"The pod range %s has room for %d nodes, and all of it is used: fewer nodes, or a cluster with a larger range, are needed.",
				cluster, rangesIn(cluster)).At("properties.networkProfile.podCidr")
		}
		ranges = append(ranges, netip.PrefixFrom(at, length))
	}
	return ranges, nil
}

// nodeRangeBits leaves a node 256 pod addresses in either family.
func nodeRangeBits(cluster netip.Prefix) int {
	return podRangeBits + cluster.Addr().BitLen() - 32
}

// rangesIn is how many nodes a pod range has room for, up to a bound far
// beyond AKS's 5,000.
func rangesIn(cluster netip.Prefix) int {
	spare := nodeRangeBits(cluster) - cluster.Bits()
	if spare < 0 {
		return 0
	}
	return 1 << min(spare, 24)
}

func meets(r netip.Prefix, used []Lease) bool {
	return slices.ContainsFunc(used, func(l Lease) bool { return slices.ContainsFunc(l.Pods, r.Overlaps) })
}

func (p *Profile) full(nodes int) *fault.Error {
	return fault.New(fault.Exhausted, "SubnetIsFull",
		"The subnet %s (%s) has no room for another node beside %d: fewer nodes, fewer pods per node, or a larger subnet are needed.",
		p.Nodes.Name, p.Nodes.Prefix, nodes).At("properties.agentPoolProfiles.count")
}

// PublicPool is the instance's public addresses.
type PublicPool []netip.Prefix

// FrontDoor is the address that the instance itself has: the first that is a
// machine's.
func (p PublicPool) FrontDoor() netip.Addr {
	if len(p) == 0 {
		return netip.Addr{}
	}
	return p[0].Masked().Addr().Next()
}

// Allocate gives the lowest public address that isn't among used. The first
// and the last of each range, and the front door's, are nobody's.
func (p PublicPool) Allocate(used []netip.Addr) (netip.Addr, error) {
	taken := []span{{p.FrontDoor(), p.FrontDoor()}}
	for _, a := range used {
		taken = append(taken, span{a, a})
	}
	for _, pool := range p {
		within := spanOf(pool)
		within.first, within.last = within.first.Next(), within.last.Prev()
		if found, ok := gap(within, slices.Clone(taken), 1); ok {
			return found.first, nil
		}
	}
	return netip.Addr{}, fault.New(fault.Exhausted, "PublicIPCountLimitReached",
		"All %d public addresses of this instance (%v) are used: delete a cluster, or start the instance with a larger pool.", len(used), []netip.Prefix(p))
}
