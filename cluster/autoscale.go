// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"runtime"
	"strings"
	"time"

	"bastide.dev/autoscale"
	"bastide.dev/controlplane"
	"bastide.dev/machine"
	"bastide.dev/node"
	"bastide.dev/resource"
)

// tend looks after nodes as their control plane tells of them: it lets pools
// follow what runs in the cluster, and repairs nodes that don't come back. It
// returns the pools that it changed.
func (r *runner) tend(w *whole, h *hosted) ([]*poolDoc, error) {
	status := w.planeStatus(h)
	if status == nil || status.Phase != controlplane.Ready || w.state.Stopped {
		return nil, nil
	}
	now := r.Now().UTC().Truncate(time.Millisecond)
	scaled, err := r.obey(w, status.Scaling, now)
	if err != nil {
		return nil, err
	}
	return append(scaled, r.repair(w, h, status, now)...), nil
}

// obey brings pools to what their autoscaler wishes. Its bounds are looked at
// again: who speaks is a program that reads what tenants write.
func (r *runner) obey(w *whole, wishes *controlplane.Scaling, now time.Time) ([]*poolDoc, error) {
	var changed []*poolDoc
	for _, pool := range w.pools {
		if pool.ProvisioningState == resource.Deleting {
			continue
		}
		did := pool.keepUndrained()
		if wishes != nil && pool.Pool.AutoScale {
			if !r.holds(w) && pool.grow(wishes) {
				did, w.grown = true, true
			}
			if pool.Operation == "" && w.doc.Operation == "" {
				did = pool.shrink(wishes, w.state.Desired.scaler().Grace, now) || did
			}
		}
		if !did {
			continue
		}
		changed = append(changed, pool)
		if err := edit(pool.Document, "properties.count", pool.Pool.Count); err != nil {
			return nil, fmt.Errorf("count of %s: %w", pool.Name, err)
		}
		r.Log.Info("count of agent pool follows", "pool", pool.ID.String(), "count", pool.Pool.Count)
	}
	return changed, nil
}

// holdGrowth is for how long nothing grows after there was no room for it.
const holdGrowth = time.Minute

// hold keeps a cluster from growing for a while: a wish that can't be fulfilled
// mustn't keep all else from being done.
func (r *runner) hold(w *whole) time.Duration {
	r.Log.Warn("pools can't grow: there is no room", "cluster", w.doc.ID.String())
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held[w.doc.ID.Key()] = r.Now().Add(holdGrowth)
	return soon
}

func (r *runner) holds(w *whole) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	left := r.held[w.doc.ID.Key()].Sub(r.Now())
	if left > 0 {
		w.tended = sooner(w.tended, left)
	}
	return left > 0
}

// grow raises a pool's count, if the wish knows of the present one.
func (pool *poolDoc) grow(wishes *controlplane.Scaling) bool {
	for _, wish := range wishes.Pools {
		want := min(wish.Want, pool.Pool.Max)
		if wish.Pool == pool.Pool.Name && wish.From == pool.Pool.Count && want > pool.Pool.Count {
			pool.Pool.Count = want
			return true
		}
	}
	return false
}

// shrink asks for nodes to go, and lowers the count with each.
func (pool *poolDoc) shrink(wishes *controlplane.Scaling, grace time.Duration, now time.Time) bool {
	did := false
	for _, name := range wishes.Remove {
		n := pool.node(name)
		if n == nil || n.Work != nil || n.Removed || n.Surge || pool.Pool.Count <= pool.Pool.Min {
			continue
		}
		if pool.ask(name, work{Kind: removeNode, Reason: becauseScale, Text: "the node isn't needed", Asked: now, Drain: grace}) {
			pool.Pool.Count--
			did = true
		}
	}
	return did
}

// keepUndrained keeps the nodes that the autoscaler or a user had go and whose
// pods couldn't leave: they serve on, and are counted again.
func (pool *poolDoc) keepUndrained() bool {
	did := false
	for i := range pool.Nodes {
		n := &pool.Nodes[i]
		if n.Removed || n.Work == nil || n.Work.Kind != removeNode || n.Work.Error == "" {
			continue
		}
		mine := pool.Pool.AutoScale && n.Work.Reason == becauseScale && pool.Pool.Count < pool.Pool.Max
		if asked := n.Work.Reason == becauseAsked && pool.Operation == ""; !mine && !asked {
			continue
		}
		n.Work, did = nil, true
		pool.Pool.Count++
	}
	return did
}

// node finds a node by name.
func (pool *poolDoc) node(name string) *allotted {
	for i := range pool.Nodes {
		if pool.Nodes[i].Name == name {
			return &pool.Nodes[i]
		}
	}
	return nil
}

// compileAutoscaler is what the control plane's agent is told of the pools that
// scale by themselves; nil when none does.
func (p *Provider) compileAutoscaler(w *whole) *controlplane.Autoscaler {
	a := &controlplane.Autoscaler{Profile: w.state.Desired.scaler()}
	for _, pool := range w.pools {
		if pool.Pool.AutoScale && pool.ProvisioningState != resource.Deleting {
			a.Pools = append(a.Pools, p.scalingPool(w, pool))
		}
		for i := range pool.Nodes {
			if n := &pool.Nodes[i]; !n.Removed && (n.Surge || n.Work != nil && n.Work.Kind == removeNode) {
				a.Going = append(a.Going, n.Name)
			}
		}
	}
	if len(a.Pools) == 0 {
		return nil
	}
	return a
}

func (p *Provider) scalingPool(w *whole, pool *poolDoc) autoscale.Pool {
	size, _ := machine.SizeByName(pool.Pool.Size) // it was checked, and is again where machines are made
	cpu, memory := node.Allocatable(size.CPUs, size.Memory, pool.Pool.MaxPods)
	labels := p.nodeLabels(w, pool, allotted{Parts: pool.Target}, size)
	labels["kubernetes.io/os"], labels["kubernetes.io/arch"] = "linux", runtime.GOARCH
	found := autoscale.Pool{Name: pool.Pool.Name, Min: pool.Pool.Min, Max: pool.Pool.Max, Count: pool.Pool.Count,
		Template: autoscale.Template{CPU: cpu, Memory: memory, Pods: int64(pool.Pool.MaxPods), Labels: labels}}
	for _, taint := range pool.Pool.Taints {
		keyValue, effect, _ := strings.Cut(taint, ":")
		key, value, _ := strings.Cut(keyValue, "=")
		found.Template.Taints = append(found.Template.Taints, autoscale.Taint{Key: key, Value: value, Effect: effect})
	}
	return found
}
