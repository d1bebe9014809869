// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"bastide.dev/resource"
)

// want is how many nodes a pool should have now.
func (pool *poolDoc) want() int {
	if pool.ProvisioningState == resource.Deleting {
		return 0
	}
	return pool.Pool.Count
}

// live is how many of its nodes aren't on their way out.
func (pool *poolDoc) live() int {
	n := 0
	for _, node := range pool.Nodes {
		if !node.Removed {
			n++
		}
	}
	return n
}

// allotNodes brings the pools' lists of nodes to the counts that are asked for,
// and returns the pools whose list changed. The newest nodes go first.
func (p *Provider) allotNodes(w *whole) ([]*poolDoc, error) {
	var changed []*poolDoc
	var addresses []netip.Addr
	var blocks []netip.Prefix
	for _, pool := range w.pools {
		for _, n := range pool.Nodes {
			addresses, blocks = append(addresses, n.Address), append(blocks, n.Pods)
		}
	}
	for _, pool := range w.pools {
		switch live, want := pool.live(), pool.want(); {
		case live > want:
			pool.remove(live - want)
		case live < want:
			parts, err := p.Catalogue.Parts(pool.Pool.Version.String())
			if err != nil {
				return nil, fmt.Errorf("parts of pool %s: %w", pool.Name, err)
			}
			for ; live < want; live++ {
				n, err := pool.add(w, parts, addresses, blocks)
				if err != nil {
					return nil, err
				}
				addresses, blocks = append(addresses, n.Address), append(blocks, n.Pods)
			}
		default:
			continue
		}
		changed = append(changed, pool)
	}
	return changed, nil
}

// remove marks the newest count nodes.
func (pool *poolDoc) remove(count int) {
	slices.SortFunc(pool.Nodes, func(a, b allotted) int { return cmp.Compare(a.Number, b.Number) })
	for i := len(pool.Nodes) - 1; i >= 0 && count > 0; i-- {
		if !pool.Nodes[i].Removed {
			pool.Nodes[i].Removed = true
			count--
		}
	}
}

// add allots one more node.
func (pool *poolDoc) add(w *whole, parts Parts, addresses []netip.Addr, blocks []netip.Prefix) (allotted, error) {
	n := allotted{Number: pool.Next, Parts: parts,
		Name:    nodeName(pool.Pool.Name, nodeDigits(w.state.UID), pool.Next),
		Machine: machineID(w.state.ID, pool.Pool.Name, pool.Next)}
	var ok bool
	if n.Address, ok = freeAddress(addresses); !ok {
		return n, exhaustedSubnet()
	}
	block, problem := podBlock(&w.state.Desired, pool.Pool.MaxPods, blocks)
	if problem != nil {
		return n, problem
	}
	n.Pods = block
	pool.Next++
	pool.Nodes = append(pool.Nodes, n)
	return n, nil
}
