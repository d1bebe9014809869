// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"bastide.dev/arm"
	"bastide.dev/controlplane"
	"bastide.dev/fault"
)

// sameNode tells whether two nodes of these parts are alike; etcd isn't in them.
func (p Parts) sameNode(o Parts) bool {
	return p.Image == o.Image && slices.Equal(p.Layers, o.Layers)
}

// adopt completes the state of documents that were written before pools had a
// target and nodes a version: every node was made of the pool's version then,
// and the newest says of what.
func (s *poolState) adopt() {
	for i := range s.Nodes {
		if s.Nodes[i].Version == (Version{}) {
			s.Nodes[i].Version = s.Pool.Version
		}
	}
	if n := s.newest(); n != nil && s.Target.Image == "" {
		s.Target = n.Parts
	}
}

// newest is the node with the highest number, one that stays if there is any; nil without nodes.
func (s *poolState) newest() *allotted {
	var found *allotted
	for i := range s.Nodes {
		n := &s.Nodes[i]
		if found == nil || found.Removed && !n.Removed || found.Removed == n.Removed && n.Number > found.Number {
			found = n
		}
	}
	return found
}

// running is the version of the API server that serves; as long as none has, the
// one that is to.
func (s *clusterState) running() Version {
	if s.Running == (Version{}) {
		return s.Desired.Version
	}
	return s.Running
}

// learn notes the version that the control plane reports to run.
func (w *whole) learn(h *hosted) bool {
	status := w.planeStatus(h)
	if status == nil || status.Phase != controlplane.Ready {
		return false
	}
	version, err := ParseVersion(strings.TrimPrefix(status.Version, "v"))
	if err != nil || version == w.state.Running {
		return false
	}
	w.state.Running = version
	return true
}

// planeStatus is what the control plane reports on its unit as it stands; nil as
// long as that is nothing.
func (w *whole) planeStatus(h *hosted) *controlplane.Status {
	report, answered := h.answer(unitKey{controlPlaneKind, w.state.ID})
	if !answered || !report.Applied {
		return nil
	}
	return report.ControlPlane
}

// made is what a new node of a pool is made of: what all its nodes are brought
// to, unless the control plane isn't that far, whose kubelets may not be newer.
func (p *Provider) made(w *whole, pool *poolDoc) (Parts, Version, error) {
	running := w.state.running()
	if pool.Pool.Version.Compare(running) <= 0 && pool.Target.Image != "" {
		return pool.Target, pool.Pool.Version, nil
	}
	if n := pool.newest(); n != nil {
		return n.Parts, n.Version, nil
	}
	version := pool.Pool.Version
	if version.Compare(running) > 0 {
		version = running
	}
	first := pool.Pool
	first.Version = version
	parts, err := p.parts(first)
	return parts, version, err
}

// refusal is why a control plane didn't take the version that it was asked to,
// for the operation that asked.
type refusal struct {
	Operation string `json:"operation"`
	Reason    string `json:"reason"`
}

// goBack puts the version of a control plane that refused its upgrade, and those
// of the pools that were to follow, back to what runs. The operation ends later,
// because of what is noted here.
func (w *whole) goBack(h *hosted) (pools []*poolDoc, changed bool, err error) {
	status := w.planeStatus(h)
	s := &w.state
	if status == nil || status.Refused == "" || s.Desired.Version == s.running() {
		return nil, false, nil
	}
	s.Refusal = &refusal{Operation: w.doc.Operation, Reason: fmt.Sprintf("The control plane wasn't upgraded from %s to %s, and runs %s as before: %s",
		s.Running, s.Desired.Version, s.Running, status.Refused)}
	s.Desired.Version = s.Running
	if err := edit(w.doc, "properties.kubernetesVersion", s.Running.String()); err != nil {
		return nil, false, err
	}
	for _, pool := range w.pools {
		if pool.Pool.Version.Compare(s.Running) <= 0 {
			continue
		}
		pool.Pool.Version = s.Running
		if n := pool.newest(); n != nil {
			pool.Pool.Version, pool.Target = n.Version, n.Parts
		} else {
			pool.Target = Parts{} // chosen anew with its first node
		}
		if err := edit(pool.Document, "properties.orchestratorVersion", pool.Pool.Version.String()); err != nil {
			return nil, false, err
		}
		pools = append(pools, pool)
	}
	return pools, true, nil
}

// edit changes one property of a document's body.
func edit(d *arm.Document, path string, value any) error {
	body := object{}
	decoder := json.NewDecoder(bytes.NewReader(d.Body))
	decoder.UseNumber()
	if err := decoder.Decode(&body); err != nil {
		return fmt.Errorf("body of %s: %w", d.ID, err)
	}
	set(body, path, value)
	return d.SetBody(body)
}

// refused is why an operation that asked for another version failed; nil when it didn't.
func (s *clusterState) refused(operation string) *fault.Error {
	if s.Refusal == nil || operation == "" || s.Refusal.Operation != operation {
		return nil
	}
	return fault.New(fault.Exhausted, "ControlPlaneUpgradeFailed", "%s", s.Refusal.Reason)
}

// follow learns what the control plane runs, and goes back to it if it refused
// another. It tells whether the cluster's document changed, and which pools did.
func (w *whole) follow(h *hosted) (state bool, pools []*poolDoc, err error) {
	state = w.learn(h)
	pools, back, err := w.goBack(h)
	if err != nil {
		return false, nil, fmt.Errorf("go back to %s: %w", w.state.Running, err)
	}
	return state || back, pools, nil
}
