// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"time"

	"bastide.dev/arm"
	"bastide.dev/reboots"
)

// pendingType is the list of nodes that need a reboot, which no client knows but ours.
const pendingType = "pendingReboots"

// pendingReboot is a node that needs a reboot, or has it now.
type pendingReboot struct {
	Node  string     `json:"node"`
	Since *time.Time `json:"since,omitempty"` // since when it needs it
	State string     `json:"state"`           // Waiting or Rebooting
	For   string     `json:"for"`             // the updates that want it
	// Why it waits, and until when, as far as that is known.
	Why   string     `json:"why,omitempty"`
	Until *time.Time `json:"until,omitempty"`
}

// pendingReboots answers GET …/pendingReboots: which nodes need a reboot, and why
// they don't have it yet.
func (p *Provider) pendingReboots(ctx context.Context, r *arm.Request) (any, error) {
	w, err := p.listed(ctx, r)
	if err != nil {
		return nil, err
	}
	h, err := p.hosted(ctx, &w.state)
	if err != nil {
		return nil, err
	}
	in, err := p.rebootInput(ctx, w, h, p.Now().UTC())
	if err != nil {
		return nil, err
	}
	values := []any{}
	if in == nil {
		return object{"value": values}, nil
	}
	for _, entry := range pending(w, h, in) {
		values = append(values, object{"id": w.doc.ID.Child(pendingType, entry.Node).String(), "name": entry.Node, "type": clusterType + "/" + pendingType, "properties": entry})
	}
	return object{"value": values}, nil
}

// pending are the nodes that reboot, and then those that wait, in their order.
func pending(w *whole, h *hosted, in *reboots.Input) []pendingReboot {
	texts := map[string]string{}
	var all []pendingReboot
	for _, pool := range w.pools {
		for i := range pool.Nodes {
			n := &pool.Nodes[i]
			texts[n.Name] = rebootText(guest(h.reports[unitKey{machineKind, n.Machine}].Machine))
			var seen reboots.Node
			if doing(&seen, pool, n); seen.Working && !n.Removed {
				all = append(all, pendingReboot{Node: n.Name, State: "Rebooting", For: n.Work.Text, Why: string(n.Work.Step)})
			}
		}
	}
	for _, wait := range reboots.Decide(*in).Waits {
		entry := pendingReboot{Node: wait.Node, Since: &wait.Since, State: "Waiting", For: texts[wait.Node], Why: wait.Why}
		if !wait.Until.IsZero() {
			entry.Until = &wait.Until
		}
		all = append(all, entry)
	}
	return all
}
