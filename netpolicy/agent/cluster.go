// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"reflect"
	"slices"
	"sync"

	"bastide.dev/netpolicy"
)

// cluster is what the agent knows: the API's objects, and the sandboxes of this
// node's pods. Safe for concurrent use.
type cluster struct {
	node    string
	file    string        // keeps the sandboxes
	changed chan struct{} // holds one token after a change

	mu        sync.Mutex // guards what follows
	objects   [kinds]map[string]any
	seen      [kinds]bool
	version   int64                        // grows with each change
	sandboxes map[string]netpolicy.Sandbox // by the pod's UID on this node
	ended     map[string]bool              // UIDs of pods whose sandbox went
	restored  []string                     // UIDs of sandboxes that an earlier agent was told of
}

func newCluster(node, file string) (*cluster, error) {
	c := &cluster{node: node, file: file, changed: make(chan struct{}, 1), sandboxes: map[string]netpolicy.Sandbox{}, ended: map[string]bool{}}
	for k := range c.objects {
		c.objects[k] = map[string]any{}
	}
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &c.sandboxes); err != nil {
		return nil, err
	}
	c.restored = slices.Collect(maps.Keys(c.sandboxes))
	return c, nil
}

// touch tells of a change; mu is held.
func (c *cluster) touch() {
	c.version++
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// replace makes all objects of a kind those that were listed.
func (c *cluster) replace(k kind, all map[string]any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if all == nil {
		all = map[string]any{}
	}
	if c.seen[k] && reflect.DeepEqual(c.objects[k], all) {
		return
	}
	c.objects[k], c.seen[k] = all, true
	if k == pods {
		c.prune()
	}
	c.touch()
}

// prune forgets the sandboxes of pods that went while no agent ran; mu is held.
func (c *cluster) prune() {
	there := map[string]bool{}
	for _, object := range c.objects[pods] {
		there[object.(*pod).localUID] = true
	}
	for _, uid := range c.restored {
		if !there[uid] {
			delete(c.sandboxes, uid) // written down with the next change
		}
	}
	c.restored = nil
}

// set is for one object; most changes of a pod or node are none for policies.
func (c *cluster) set(k kind, key string, object any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if have, ok := c.objects[k][key]; ok && reflect.DeepEqual(have, object) {
		return
	}
	c.objects[k][key] = object
	c.touch()
}

func (c *cluster) remove(k kind, key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if have, ok := c.objects[k][key]; ok {
		if p, ok := have.(*pod); ok {
			delete(c.sandboxes, p.localUID)
		}
		delete(c.objects[k], key)
		c.touch()
	}
}

// attach tells of a pod's sandbox; it is in place of an earlier one.
func (c *cluster) attach(s netpolicy.Sandbox) (version int64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sandboxes[s.UID] = s
	delete(c.ended, s.UID)
	c.touch()
	return c.version, c.save()
}

// detach forgets a sandbox, unless its pod has another one already.
func (c *cluster) detach(id string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for uid, s := range c.sandboxes {
		if s.ID == id {
			delete(c.sandboxes, uid)
			c.ended[uid] = true
			c.touch()
			return c.save()
		}
	}
	return nil
}

func (c *cluster) sandbox(id string) (netpolicy.Sandbox, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.sandboxes {
		if s.ID == id {
			return s, true
		}
	}
	return netpolicy.Sandbox{}, false
}

// uid is that of a sandbox's pod in the API; "" until it is known there.
func (c *cluster) uid(s netpolicy.Sandbox) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, ok := c.objects[pods][s.Namespace+"/"+s.Name].(*pod)
	if !ok || p.localUID != s.UID || p.Node != c.node {
		return ""
	}
	return p.UID
}

// again asks for another try.
func (c *cluster) again() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.touch()
}

// save writes the sandboxes down; mu is held.
func (c *cluster) save() error {
	data, err := json.Marshal(c.sandboxes)
	if err != nil {
		return err
	}
	if err := os.WriteFile(c.file+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(c.file+".new", c.file)
}

// snapshot is all that is known, and its version; false until each kind was listed.
func (c *cluster) snapshot() (*netpolicy.State, int64, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if slices.Contains(c.seen[:], false) {
		return nil, c.version, false
	}
	s := &netpolicy.State{Node: c.node, Pods: make([]*netpolicy.Pod, 0, len(c.objects[pods]))}
	uids := make(map[string]bool, len(c.sandboxes))
	for _, object := range c.objects[pods] {
		p := object.(*pod)
		if p.Node != c.node || p.HostNetwork {
			s.Pods = append(s.Pods, &p.Pod)
			continue
		}
		uids[p.localUID] = true
		s.Pods = append(s.Pods, c.local(p))
	}
	s.Namespaces = list[netpolicy.Namespace](c.objects[namespaces])
	s.Nodes = list[netpolicy.Node](c.objects[nodes])
	s.Policies = list[netpolicy.Policy](c.objects[policies])
	s.ClusterPolicies = list[netpolicy.ClusterPolicy](c.objects[clusterPolicies])
	maps.DeleteFunc(c.ended, func(uid string, _ bool) bool { return !uids[uid] })
	return s, c.version, true
}

// local is a pod of this node with the addresses that the node itself knows of:
// the API server hears of them late, and of their end later.
func (c *cluster) local(p *pod) *netpolicy.Pod {
	s, attached := c.sandboxes[p.localUID]
	if !attached && !c.ended[p.localUID] {
		return &p.Pod
	}
	with := p.Pod
	with.Addresses, with.Attached = s.Addresses, attached
	return &with
}

func list[T any](objects map[string]any) []*T {
	all := make([]*T, 0, len(objects))
	for _, o := range objects {
		all = append(all, o.(*T))
	}
	return all
}
