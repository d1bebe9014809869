// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"bastide.dev/fault"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// want is how many nodes a pool should have now.
func (pool *poolDoc) want() int {
	if pool.ProvisioningState == resource.Deleting {
		return 0
	}
	return pool.Pool.Count
}

// live counts the nodes that aren't to be removed.
func (pool *poolDoc) live() int {
	n := 0
	for _, node := range pool.Nodes {
		if !node.Removed {
			n++
		}
	}
	return n
}

// allotment is what one step gave a cluster: the pools that changed, whether its
// own state did, and the changes that take the addresses.
type allotment struct {
	pools   []*poolDoc
	state   bool
	changes []store.Change
}

// allot gives a cluster what it lacks: public addresses to leave by, a place for
// its API server, names, addresses and parts for new nodes. Of each kind of address it takes in one step what one
// transaction can: the next step, moments later, takes the rest.
func (p *Provider) allot(ctx context.Context, w *whole) (allotment, error) {
	var a allotment
	if err := p.allotOutbound(ctx, w, &a); err != nil {
		return a, err
	}
	return a, p.allotInside(ctx, w, &a)
}

// allotOutbound takes the managed public addresses, and gives back those too many.
func (p *Provider) allotOutbound(ctx context.Context, w *whole, a *allotment) error {
	s := &w.state
	want := s.Desired.Outbound.Managed
	if len(s.Outbound) > want {
		s.Outbound, a.state = s.Outbound[:want], true // whose documents go, whose addresses are free
		return nil
	}
	if len(s.Outbound) == want {
		return nil
	}
	name := uuidOf(s.UID, fmt.Sprintf("outbound/%d", len(s.Outbound)))
	address, changes, err := p.Network.PublicAddress(ctx, w.own("publicIPAddresses", name))
	if err != nil {
		return err
	}
	s.Outbound = append(s.Outbound, egressIP{Name: name, Address: address})
	a.state, a.changes = true, append(a.changes, changes...)
	return nil
}

// place is what wants an address: a pool's next node, or (nil) the API server.
type place struct {
	pool  *poolDoc
	surge bool
}

// allotInside takes addresses of one subnet.
func (p *Provider) allotInside(ctx context.Context, w *whole, a *allotment) error {
	s := &w.state
	if s.ServerSubnet.IsRoot() {
		s.ServerSubnet, a.state = w.subnet(&w.pools[0].Pool), true
	}
	if _, known := w.subnets[s.ServerSubnet.Key()]; !known {
		return nil // its document is written first
	}
	var subnet resource.ID
	var places []place
	var wants []Want
	take := func(at resource.ID, where place, want Want) {
		if subnet.IsRoot() {
			subnet = at
		}
		if subnet.Equal(at) {
			places, wants = append(places, where), append(wants, want)
		}
	}
	if !s.Server.IsValid() {
		take(s.ServerSubnet, place{}, Want{})
	}
	for _, pool := range w.pools {
		want := Want{}
		if s.Desired.podsInSubnet() {
			want.Pods = pool.Pool.MaxPods
		}
		for n := pool.staying(); n < pool.want(); n++ {
			take(w.subnet(&pool.Pool), place{pool: pool}, want)
		}
		for range w.engines[pool.Name].surge {
			take(w.subnet(&pool.Pool), place{pool: pool, surge: true}, want)
		}
	}
	if len(wants) == 0 {
		return nil
	}
	grants, changes, err := p.Network.Allocate(ctx, subnet, wants)
	if fault.Is(err, fault.Exhausted) && unsurged(a, err, p.Now(), places...) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("addresses: %w", err)
	}
	a.changes = append(a.changes, changes...)
	return p.settle(w, a, places, grants)
}

// settle gives grants to their places.
func (p *Provider) settle(w *whole, a *allotment, places []place, grants []Grant) error {
	var blocks []netip.Prefix
	for _, pool := range w.pools {
		for _, n := range pool.Nodes {
			blocks = append(blocks, n.Pods...)
		}
	}
	for i, where := range places {
		if where.pool == nil {
			w.state.Server, a.state = grants[i].Address, true
			continue
		}
		pool := where.pool
		parts, version, err := p.made(w, pool)
		if err != nil {
			return err
		}
		pods := grants[i].Pods
		if !w.state.Desired.podsInSubnet() {
			block, problem := podBlock(&w.state.Desired, blocks)
			if problem != nil && where.surge {
				unsurged(a, problem, p.Now(), where)
				continue
			}
			if problem != nil {
				return problem
			}
			pods, blocks = []netip.Prefix{block}, append(blocks, block)
		}
		pool.add(w, allotted{Parts: parts, Version: version, Address: grants[i].Address, Pods: pods, Surge: where.surge})
		if !slices.Contains(a.pools, pool) {
			a.pools = append(a.pools, pool)
		}
	}
	return nil
}

// remove marks the highest numbered nodes, as a scale set takes them away.
func (pool *poolDoc) remove(count int) {
	pool.sort()
	for i := len(pool.Nodes) - 1; i >= 0 && count > 0; i-- {
		if !pool.Nodes[i].Removed {
			pool.Nodes[i].Removed = true
			count--
		}
	}
}

func (pool *poolDoc) sort() {
	slices.SortFunc(pool.Nodes, func(a, b allotted) int { return cmp.Compare(a.Number, b.Number) })
}

// unsurged stops the rolls for whose surge nodes there is no address; it tells
// whether there are any.
func unsurged(a *allotment, cause error, now time.Time, places ...place) bool {
	found := false
	for _, where := range places {
		if !where.surge || where.pool.halted() {
			continue
		}
		f := fault.From(cause)
		where.pool.Roll = &rolling{Operation: where.pool.Operation, Progress: now.UTC(), Halt: &halt{Code: f.Code,
			Message: fmt.Sprintf("The upgrade of agent pool %s stopped: there is no room for a surge node: %s", where.pool.Name, f.Message)}}
		found = true
		if !slices.Contains(a.pools, where.pool) {
			a.pools = append(a.pools, where.pool)
		}
	}
	return found
}

// add allots one node more, made of what n says.
func (pool *poolDoc) add(w *whole, n allotted) {
	n.Number, n.Authority = pool.Next, w.state.Authority
	n.Name = nodeName(pool.Pool.Name, nodeDigits(w.state.UID), n.Number)
	n.Machine = machineID(w.state.ID, pool.Pool.Name, n.Number)
	if pool.Target.Image == "" {
		pool.Target = n.Parts
	}
	pool.Nodes = append(pool.Nodes, n)
	pool.Next++
}
