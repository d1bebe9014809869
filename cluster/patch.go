// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/node"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// askedNight is how long an order that a user gives holds: who is new later has
// no part in it.
const askedNight = time.Hour

// askedToken begins the tokens of what users ask for.
const askedToken = "asked-"

// patchesKey is where the store keeps what was installed on a cluster's nodes.
func patchesKey(uid string) string { return "patches/" + uid }

// patchTypes are the rows about security updates. AKS has no such resources: it
// tells of updates in the nodes' own logs only.
func (p *Provider) patchTypes(versions []resource.APIVersion) []arm.Type {
	return []arm.Type{{Name: "managedClusters/nodePatches", Versions: versions, List: p.nodePatches}}
}

// orders tells a node where updates come from and which to install.
func (w *whole) orders(c *node.Config, mirror string) {
	c.Mirror, c.Look = mirror, w.state.Look
	if night := w.state.Patch; night.Token != "" && !night.Over {
		c.Patch = &node.Patch{Token: night.Token, Until: night.Until}
	}
}

// endOrder ends a user's order when all nodes have carried it out: it is about
// those that there were, where a night is about all until its end. It tells
// whether the cluster's state changed.
func (w *whole) endOrder(h *hosted) bool {
	night := &w.state.Patch
	if !strings.HasPrefix(night.Token, askedToken) || night.Over {
		return false
	}
	nodes := 0
	for _, pool := range w.pools {
		for _, n := range pool.Nodes {
			if n.Removed {
				continue
			}
			s := guest(h.reports[unitKey{machineKind, n.Machine}].Machine)
			if s.Patch == nil || s.Patch.Token != night.Token || s.Patch.Ended.IsZero() {
				return false
			}
			nodes++
		}
	}
	night.Over = nodes > 0
	return night.Over
}

// patchRun is what an order came to on a node.
type patchRun struct {
	Node string `json:"node"`
	node.PatchStatus
}

// patchLog are the orders of the past, the newest last.
type patchLog struct {
	Runs []patchRun `json:"runs"`
}

// A log's bounds: of runs, and of what they take.
const (
	maxPatchRuns  = 1000
	maxPatchBytes = 512 << 10
)

// has tells whether a node's run of an order is in the log: a node carries each
// out once, so that no tenant can fill the log with tales of more.
func (l *patchLog) has(name, token string) bool {
	for _, run := range l.Runs {
		if run.Node == name && run.Token == token {
			return true
		}
	}
	return false
}

// encode forgets the oldest runs until the rest is within its bounds.
func (l *patchLog) encode() ([]byte, error) {
	l.Runs = l.Runs[max(0, len(l.Runs)-maxPatchRuns):]
	for {
		data, err := json.Marshal(l)
		if err != nil || len(data) <= maxPatchBytes || len(l.Runs) == 0 {
			return data, err
		}
		l.Runs = l.Runs[(len(l.Runs)+3)/4:]
	}
}

func (p *Provider) patchLog(ctx context.Context, uid string) (*patchLog, int64, error) {
	record, err := p.Store.Get(ctx, patchesKey(uid))
	if fault.Is(err, fault.NotFound) {
		return &patchLog{}, store.Absent, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("patches of nodes: %w", err)
	}
	var log patchLog
	if err := json.Unmarshal(record.Value, &log); err != nil {
		return nil, 0, fmt.Errorf("patches of nodes: %w", err)
	}
	return &log, record.Revision, nil
}

// recordPatches keeps what nodes say that the last order came to.
func (r *runner) recordPatches(ctx context.Context, w *whole, h *hosted) ([]store.Change, error) {
	token := w.state.Patch.Token
	if token == "" || w.state.Stopped {
		return nil, nil
	}
	var log *patchLog
	var revision int64
	changed := false
	for _, pool := range w.pools {
		for _, n := range pool.Nodes {
			s := guest(h.reports[unitKey{machineKind, n.Machine}].Machine).Bounded()
			if n.Removed || s.Patch == nil || s.Patch.Token != token || s.Patch.Ended.IsZero() {
				continue
			}
			if log == nil {
				var err error
				if log, revision, err = r.patchLog(ctx, w.state.UID); err != nil {
					return nil, err
				}
			}
			if !log.has(n.Name, token) {
				log.Runs, changed = append(log.Runs, patchRun{n.Name, *s.Patch}), true
			}
		}
	}
	if !changed {
		return nil, nil
	}
	value, err := log.encode()
	return []store.Change{{Key: patchesKey(w.state.UID), Value: value, Revision: revision}}, err
}

// nodePatch is what is known of a node's updates: what it says now, and what it
// installed in the past.
type nodePatch struct {
	Pool string `json:"pool"`
	// Upgradable are the security updates that it hasn't, as of Looked.
	Upgradable []node.Update `json:"upgradable"`
	Looked     *time.Time    `json:"looked,omitempty"`
	LookError  string        `json:"lookError,omitempty"`

	RebootRequired bool       `json:"rebootRequired"`
	RebootPackages []string   `json:"rebootPackages,omitempty"`
	RebootSince    *time.Time `json:"rebootSince,omitempty"`

	Running bool               `json:"running"` // an order is being carried out
	Runs    []node.PatchStatus `json:"runs"`    // the newest first
}

// nodePatches answers GET …/nodePatches.
func (p *Provider) nodePatches(ctx context.Context, r *arm.Request) (any, error) {
	w, err := p.listed(ctx, r)
	if err != nil {
		return nil, err
	}
	h, err := p.hosted(ctx, &w.state)
	if err != nil {
		return nil, err
	}
	log, _, err := p.patchLog(ctx, w.state.UID)
	if err != nil {
		return nil, err
	}
	values := []any{}
	for _, pool := range w.pools {
		for _, n := range pool.Nodes {
			if n.Removed {
				continue
			}
			s := guest(h.reports[unitKey{machineKind, n.Machine}].Machine).Bounded()
			values = append(values, object{"id": w.doc.ID.Child("nodePatches", n.Name).String(), "name": n.Name,
				"type": clusterType + "/nodePatches", "properties": patchesOf(pool.Pool.Name, n.Name, s, log)})
		}
	}
	return object{"value": values}, nil
}

func patchesOf(pool, name string, s node.Status, log *patchLog) nodePatch {
	known := nodePatch{Pool: pool, Upgradable: s.Upgradable, Looked: moment(s.Looked), LookError: s.LookError,
		RebootRequired: s.RebootRequired, RebootPackages: s.RebootPackages, RebootSince: moment(s.RebootSince),
		Running: s.Patch != nil && s.Patch.Ended.IsZero(), Runs: []node.PatchStatus{}}
	if known.Upgradable == nil {
		known.Upgradable = []node.Update{}
	}
	for i := len(log.Runs) - 1; i >= 0; i-- {
		if log.Runs[i].Node == name {
			known.Runs = append(known.Runs, log.Runs[i].PatchStatus)
		}
	}
	return known
}

func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// patchNodes answers POST …/patchNodes: the nodes install the security updates
// there are now. Reboots that they want are for the coordinator.
func (p *Provider) patchNodes(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	return p.order(ctx, r, func(s *clusterState, token string) {
		s.Patch = patchNight{Token: token, Until: p.Now().Add(askedNight).UTC()}
	})
}

// lookForPatches answers POST …/lookForPatches: the nodes find out which updates there are.
func (p *Provider) lookForPatches(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	return p.order(ctx, r, func(s *clusterState, token string) { s.Look = token })
}

func (p *Provider) order(ctx context.Context, r *arm.Request, give func(s *clusterState, token string)) (*arm.Plan, error) {
	if r.Old == nil {
		return nil, notFound(r.ID)
	}
	w, err := p.load(ctx, r.Old)
	if err != nil {
		return nil, err
	}
	if w.state.Stopped || r.Old.ProvisioningState == resource.Deleting {
		return nil, fault.New(fault.Conflict, "OperationNotAllowed", "The cluster %s doesn't run: its nodes can't look for updates.", r.ID.Name())
	}
	token := askedToken + p.Now().UTC().Format(time.RFC3339Nano)
	give(&w.state, token)
	return &arm.Plan{Document: r.Old, Answer: object{"token": token}}, setState(r.Old, w.state)
}
