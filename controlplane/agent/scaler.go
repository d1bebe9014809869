// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"reflect"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"bastide.dev/autoscale"
	"bastide.dev/controlplane"
	"bastide.dev/reconcile"
)

const (
	gather   = 50 * time.Millisecond // pods come in bursts: one decision is for all of them
	scanPage = 500                   // objects of one answer: pods are many, and large
)

// scaler looks at pods and nodes and wishes other sizes of pools. It works only
// as long as the spec has an Autoscaler: what it holds is the cluster's pods, in
// the small form that a decision needs.
type scaler struct {
	*session
	urgent chan struct{} // holds one token: a scan mustn't wait for the next
	told   *telling      // Run's own

	mu      sync.Mutex // guards what follows
	pods    map[string]*placed
	nodes   map[string]*autoscale.Node
	daemons map[string]*autoscale.Pod
	budgets map[string]autoscale.Budget
	listed  map[string]bool // what was listed once
	dirty   bool            // something changed since the last scan
}

// placed is a pod and where it is.
type placed struct {
	pod     *autoscale.Pod
	node    string
	waiting bool // the scheduler found no place
}

// listings are how many kinds have to be listed before the first decision.
const listings = 4

// errIdle ends a scaler whose spec asks for none.
var errIdle = errors.New("no pool grows by itself")

// scale runs a scaler whenever the spec asks for one.
func (s *session) scale(ctx context.Context) error {
	for ctx.Err() == nil {
		if s.current().Autoscaler == nil {
			s.setScaling(nil)
			select {
			case <-ctx.Done():
			case <-s.respec:
			}
			continue
		}
		if err := newScaler(s).run(ctx); err != nil && !errors.Is(err, errIdle) && ctx.Err() == nil {
			return err
		}
	}
	return ctx.Err()
}

func newScaler(s *session) *scaler {
	return &scaler{session: s, urgent: make(chan struct{}, 1), told: newTelling(), pods: map[string]*placed{}, nodes: map[string]*autoscale.Node{},
		daemons: map[string]*autoscale.Pod{}, budgets: map[string]autoscale.Budget{}, listed: map[string]bool{}}
}

// run scans until the spec has no Autoscaler any more: then it returns errIdle.
func (c *scaler) run(ctx context.Context) error {
	var g reconcile.Group
	g.Add("scans", c.scans)
	for _, w := range c.watches() {
		g.Add("watch "+w.resource.Resource+" for scaling", func(ctx context.Context) error { return c.watch(ctx, w) })
	}
	return g.Run(ctx)
}

func (c *scaler) watches() []watched {
	core := func(resource string) schema.GroupVersionResource {
		return schema.GroupVersionResource{Version: "v1", Resource: resource}
	}
	return []watched{
		{resource: core("pods"), page: scanPage, seen: c.podSeen, gone: c.podGone, listed: keep(c, "pods", func() map[string]*placed { return c.pods })},
		{resource: core("nodes"), page: scanPage, seen: c.nodeSeen, gone: c.nodeGone, listed: keep(c, "nodes", func() map[string]*autoscale.Node { return c.nodes })},
		{resource: schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "daemonsets"}, page: scanPage, seen: c.daemonSeen, gone: c.daemonGone,
			listed: keep(c, "daemonsets", func() map[string]*autoscale.Pod { return c.daemons })},
		{resource: schema.GroupVersionResource{Group: "policy", Version: "v1", Resource: "poddisruptionbudgets"}, page: scanPage, seen: c.budgetSeen, gone: c.budgetGone,
			listed: keep(c, "poddisruptionbudgets", func() map[string]autoscale.Budget { return c.budgets })},
	}
}

// keep drops what went while nobody watched, and notes that a kind was listed.
func keep[T any](c *scaler, kind string, objects func() map[string]T) func(map[string]bool) {
	return func(names map[string]bool) {
		c.mu.Lock()
		defer c.mu.Unlock()
		have := objects()
		for name := range have {
			if !names[name] {
				delete(have, name)
			}
		}
		c.listed[kind], c.dirty = true, true
		c.hurry()
	}
}

func (c *scaler) hurry() {
	select {
	case c.urgent <- struct{}{}:
	default:
	}
}

// changed notes a change, under mu.
func (c *scaler) changed(urgent bool) {
	c.dirty = true
	if urgent {
		c.hurry()
	}
}

func (c *scaler) podSeen(o *unstructured.Unstructured) {
	h := podOf(o)
	c.mu.Lock()
	defer c.mu.Unlock()
	key := nameOf(o)
	if h == nil { // it has ended
		if _, was := c.pods[key]; was {
			delete(c.pods, key)
			c.changed(false)
		}
		return
	}
	was := c.pods[key]
	c.pods[key] = h
	if was == nil || was.node != h.node || was.waiting != h.waiting || !reflect.DeepEqual(was.pod, h.pod) {
		c.changed(h.waiting && (was == nil || !was.waiting))
	}
}

func (c *scaler) podGone(o *unstructured.Unstructured) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pods, nameOf(o))
	c.changed(false)
}

func (c *scaler) nodeSeen(o *unstructured.Unstructured) {
	n := nodeOf(o)
	c.mu.Lock()
	defer c.mu.Unlock()
	was := c.nodes[n.Name]
	c.nodes[n.Name] = n
	if !reflect.DeepEqual(was, n) {
		c.changed(was == nil || was.Ready != n.Ready)
	}
}

func (c *scaler) nodeGone(o *unstructured.Unstructured) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.nodes, o.GetName())
	c.changed(true)
}

func (c *scaler) daemonSeen(o *unstructured.Unstructured) {
	d := daemonOf(o)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !reflect.DeepEqual(c.daemons[nameOf(o)], d) {
		c.daemons[nameOf(o)] = d
		c.changed(false)
	}
}

func (c *scaler) daemonGone(o *unstructured.Unstructured) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.daemons, nameOf(o))
	c.changed(false)
}

func (c *scaler) budgetSeen(o *unstructured.Unstructured) {
	b := budgetOf(o)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !reflect.DeepEqual(c.budgets[nameOf(o)], b) {
		c.budgets[nameOf(o)] = b
		c.changed(false)
	}
}

func (c *scaler) budgetGone(o *unstructured.Unstructured) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.budgets, nameOf(o))
	c.changed(false)
}

// scans decides again and again: soon after a pod was found to have no place,
// else at the profile's interval when anything changed or something is due.
func (c *scaler) scans(ctx context.Context) error {
	next := time.Time{}
	for {
		spec := c.current().Autoscaler
		if spec == nil {
			return errIdle
		}
		tick := time.NewTimer(max(spec.Profile.Scan, time.Second))
		hurry := false
		select {
		case <-ctx.Done():
		case <-c.urgent:
			hurry = true
			pause(ctx, gather)
		case <-c.respec:
			hurry = true
		case <-tick.C:
		}
		tick.Stop()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		spec = c.current().Autoscaler
		if spec == nil || !c.needed(hurry, next) {
			continue
		}
		in := c.input(spec)
		if spec.Profile.Expander == autoscale.ByPriority && len(in.Pending) > 0 {
			in.Priorities = c.priorities(ctx)
		}
		d := autoscale.Decide(in)
		c.remember(&d.Memory)
		next = d.Next
		c.setScaling(wishes(spec, in, &d))
		c.tell(ctx, spec, in, &d)
	}
}

// needed tells whether a scan could find anything new.
func (c *scaler) needed(hurry bool, next time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.listed) < listings || !hurry && !c.dirty && (next.IsZero() || next.After(time.Now())) {
		return false
	}
	c.dirty = false
	return true
}

// input is the cluster as it was seen.
func (c *scaler) input(spec *controlplane.Autoscaler) *autoscale.Input {
	in := &autoscale.Input{Now: time.Now(), Profile: spec.Profile, Pools: spec.Pools, Memory: c.remembered()}
	pools, going := map[string]bool{}, map[string]bool{}
	for _, p := range spec.Pools {
		pools[p.Name] = true
	}
	for _, name := range spec.Going {
		going[name] = true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	places := map[string]*autoscale.Node{}
	for name, n := range c.nodes {
		seen := *n
		places[name] = &seen
		in.Nodes = append(in.Nodes, &seen)
	}
	cluster := c.current()
	for i := range cluster.Nodes {
		n := &cluster.Nodes[i]
		at, there := places[n.Name]
		switch {
		case there:
			at.Pool, at.Going, at.Leaving = n.Pool, n.Removed || going[n.Name], n.Leave != nil
		case pools[n.Pool] && !n.Removed && !going[n.Name]:
			in.Missing = append(in.Missing, autoscale.Missing{Name: n.Name, Pool: n.Pool})
		}
	}
	for _, h := range c.pods {
		if at := places[h.node]; at != nil {
			at.Pods = append(at.Pods, h.pod)
		} else if h.waiting {
			in.Pending = append(in.Pending, h.pod)
		}
	}
	for _, d := range c.daemons {
		in.Daemons = append(in.Daemons, d)
	}
	for _, b := range c.budgets {
		in.Budgets = append(in.Budgets, b)
	}
	order(in)
	return in
}

// wishes is a decision as the status tells it.
func wishes(spec *controlplane.Autoscaler, in *autoscale.Input, d *autoscale.Decision) *controlplane.Scaling {
	s := &controlplane.Scaling{Remove: d.Remove, Unschedulable: len(in.Pending), Unwell: d.Unwell}
	for i := range spec.Pools {
		p := &spec.Pools[i]
		if want, is := d.Want[p.Name]; is {
			s.Pools = append(s.Pools, controlplane.PoolWish{Pool: p.Name, From: p.Count, Want: want})
		}
	}
	return s
}

// setScaling tells of other wishes.
func (s *session) setScaling(wishes *controlplane.Scaling) {
	s.update(func(st *State) {
		if !reflect.DeepEqual(st.Scaling, wishes) {
			st.Scaling = wishes
		}
	})
}

// remember keeps a memory beyond the session: another API server is no reason to
// let idle nodes stand longer.
func (s *session) remember(m *autoscale.Memory) {
	s.Agent.mu.Lock()
	defer s.Agent.mu.Unlock()
	s.scaling = *m
}

func (s *session) remembered() autoscale.Memory {
	s.Agent.mu.Lock()
	defer s.Agent.mu.Unlock()
	return s.scaling
}
