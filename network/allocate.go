// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"slices"

	"bastide.dev/fault"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// Azure keeps a subnet's first four addresses (network, gateway, two for DNS)
// and its last.
const reservedFirst = 4

// guardPrefix is where each virtual network has a record that every allocation
// in it writes: of two at once, one loses its transaction.
const guardPrefix = "network/guards/"

// Want is something that needs addresses of a subnet.
type Want struct {
	Address netip.Addr // this very one; zero: any
	Pods    int        // how many further addresses
}

// Grant answers a Want. The prefixes of Pods hold exactly as many addresses as
// were wanted.
type Grant struct {
	Address netip.Addr
	Pods    []netip.Prefix
}

// SubnetInfo is what others need to know of a subnet.
type SubnetInfo struct {
	ID         resource.ID
	VNet       resource.ID
	Prefix     netip.Prefix
	Prefixes   []netip.Prefix // of the virtual network
	Location   string
	NSG        resource.ID // root: none
	RouteTable resource.ID
	NATGateway resource.ID
	Free       int // addresses that are no one's
}

// VNetID is a virtual network's ID in the data plane.
func VNetID(id resource.ID) string { return shortID("v", id.Key()) }

// shortID names a thing stably, and shortly enough for a link's or a table's name.
func shortID(kind, key string) string {
	sum := sha256.Sum256([]byte(key))
	return kind + hex.EncodeToString(sum[:6])
}

// Subnet reads a subnet; fault.NotFound when it or its network isn't there.
func (p *Provider) Subnet(ctx context.Context, id resource.ID) (SubnetInfo, error) {
	inv, err := p.inventory(ctx)
	if err != nil {
		return SubnetInfo{}, err
	}
	info, problem := inv.subnet(id)
	if problem != nil {
		return SubnetInfo{}, problem
	}
	for _, free := range freeIn(info.Prefix, inv.takenIn(id)) {
		info.Free += int(min(free.size(), 1<<24))
	}
	return info, nil
}

// Allocate finds addresses of a subnet that nothing has. They are the caller's
// when the transaction with the changes succeeds together with the documents
// that hold them; it fails with fault.Precondition when someone else allocated
// in the same network meanwhile: then ask again. A caller that asks for several
// subnets of one network makes the changes unique with OneEach.
func (p *Provider) Allocate(ctx context.Context, subnet resource.ID, wants []Want) ([]Grant, []store.Change, error) {
	guard, err := p.guard(ctx, subnet.Parent()) // before what it guards is read
	if err != nil {
		return nil, nil, err
	}
	inv, err := p.inventory(ctx)
	if err != nil {
		return nil, nil, err
	}
	info, problem := inv.subnet(subnet)
	if problem != nil {
		return nil, nil, problem
	}
	grants, problem := grant(info, inv.takenIn(subnet), wants)
	if problem != nil {
		return nil, nil, problem
	}
	return grants, []store.Change{guard}, nil
}

func (p *Provider) guard(ctx context.Context, vnet resource.ID) (store.Change, error) {
	change := store.Change{Key: guardPrefix + vnet.Key(), Value: []byte("{}"), Revision: store.Absent}
	record, err := p.Store.Get(ctx, change.Key)
	if fault.Is(err, fault.NotFound) {
		return change, nil
	}
	change.Revision = record.Revision
	return change, err
}

// OneEach leaves out further changes of the same keys.
func OneEach(changes []store.Change) []store.Change {
	seen := map[string]bool{}
	return slices.DeleteFunc(slices.Clone(changes), func(c store.Change) bool {
		again := seen[c.Key]
		seen[c.Key] = true
		return again
	})
}

// taken is a run of addresses and who has it.
type taken struct {
	span
	owner string
}

// usable are the addresses of a subnet that Azure gives out.
func usable(subnet netip.Prefix) []span {
	whole := spanOf(subnet)
	first, ok := advance(whole.first, reservedFirst)
	last := whole.last.Prev()
	if !ok || !last.IsValid() || last.Less(first) {
		return nil
	}
	return []span{{first, last}}
}

func freeIn(subnet netip.Prefix, used []taken) []span {
	spans := make([]span, len(used))
	for i, u := range used {
		spans[i] = u.span
	}
	return without(usable(subnet), spans)
}

// grant answers wants, purely: static ones first, the others by the lowest
// free run that holds all of one, else piece by piece, so that a subnet is full
// only when it is.
func grant(subnet SubnetInfo, used []taken, wants []Want) ([]Grant, *fault.Error) {
	grants := make([]Grant, len(wants))
	used = slices.Clone(used)
	for i, w := range wants {
		if !w.Address.IsValid() {
			continue
		}
		if problem := mayHave(subnet, used, w.Address); problem != nil {
			return nil, problem
		}
		grants[i].Address = w.Address
		used = append(used, taken{single(w.Address), "this request"})
	}
	free := freeIn(subnet.Prefix, used)
	if problem := capacity(subnet, free, wants); problem != nil {
		return nil, problem
	}
	pool := pool{free: free}
	for i, w := range wants {
		need := w.Pods
		if !w.Address.IsValid() {
			need++
		}
		spans := pool.take(uint64(need))
		if !w.Address.IsValid() {
			grants[i].Address = spans[0].first
			spans = without(spans, []span{single(spans[0].first)})
		}
		for _, s := range spans {
			grants[i].Pods = append(grants[i].Pods, s.prefixes()...)
		}
	}
	return grants, nil
}

// mayHave tells why a static address can't be had.
func mayHave(subnet SubnetInfo, used []taken, a netip.Addr) *fault.Error {
	if !subnet.Prefix.Contains(a) {
		return fault.New(fault.Invalid, "PrivateIPAddressNotInSubnet",
			"Private static IP address %s does not belong to the range of subnet prefix %s.", a, subnet.Prefix)
	}
	if !slices.ContainsFunc(usable(subnet.Prefix), func(s span) bool { return s.contains(a) }) {
		return fault.New(fault.Invalid, "PrivateIPAddressInReservedRange",
			"Private static IP address %s falls within reserved IP range of subnet prefix %s.", a, subnet.Prefix)
	}
	for _, u := range used {
		if u.contains(a) {
			return fault.New(fault.Invalid, "PrivateIPAddressIsAllocated",
				"The private IP address %s is already allocated to %s.", a, u.owner)
		}
	}
	return nil
}

func capacity(subnet SubnetInfo, free []span, wants []Want) *fault.Error {
	var have, need uint64
	for _, s := range free {
		have += min(s.size(), 1<<32)
	}
	pods := false
	for _, w := range wants {
		need += uint64(max(w.Pods, 0))
		if !w.Address.IsValid() {
			need++
		}
		pods = pods || w.Pods > 0
	}
	switch {
	case need <= have:
		return nil
	case pods:
		return fault.New(fault.Exhausted, "InsufficientSubnetSize",
			"Pre-allocated IPs %d exceeds IPs available %d in Subnet Cidr %s, Subnet Name %s.", need, have, subnet.Prefix, subnet.ID.Name())
	}
	return fault.New(fault.Exhausted, "SubnetIsFull",
		"Subnet %s with address prefix %s does not have enough capacity for %d IP addresses.", subnet.ID.Name(), subnet.Prefix, need)
}

// pool is what is free while wants are answered. Runs smaller than what didn't
// fit before aren't looked at again for as much.
type pool struct {
	free []span
	from int    // the first run worth looking at …
	need uint64 // … for this many
}

// take takes n addresses: the lowest run that holds them all, else the lowest there are.
func (p *pool) take(n uint64) []span {
	if n == 0 {
		return nil
	}
	if n < p.need || p.need == 0 {
		p.from = 0
	}
	p.need = n
	for ; p.from < len(p.free); p.from++ {
		if p.free[p.from].size() >= n {
			return []span{p.cut(p.from, n)}
		}
	}
	var got []span
	for i := 0; n > 0 && i < len(p.free); i++ {
		if size := min(p.free[i].size(), n); size > 0 {
			got = append(got, p.cut(i, size))
			n -= size
		}
	}
	return got
}

// cut takes the first n addresses of run i, which stays, even empty.
func (p *pool) cut(i int, n uint64) span {
	run := &p.free[i]
	end, _ := advance(run.first, n-1)
	got := span{run.first, end}
	run.first = end.Next()
	if !run.first.IsValid() || run.last.Less(run.first) {
		*run = span{}
	}
	return got
}
