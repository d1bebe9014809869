// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/resource"
)

// How far ahead a plan looks, in days.
const (
	planDays    = 30
	maxPlanDays = 366
)

// planned is what would be done in a window, as it is known now.
type planned struct {
	Kind    string `json:"kind"`    // cluster or nodeOS
	Channel string `json:"channel"` // as in autoUpgradeProfile
	// Configuration is whose window it is; none: the time is the cluster's own.
	Configuration string     `json:"configuration,omitempty"`
	Start         *time.Time `json:"start,omitempty"`
	End           *time.Time `json:"end,omitempty"`
	Action        string     `json:"action"` // Upgrade, NodeImage, Patch or None
	Text          string     `json:"text"`   // what, or why nothing
	// Blocked is what stands in the way now.
	Blocked string `json:"blocked,omitempty"`
}

// maintenancePlans answers GET …/maintenancePlans?days=30: what the cluster's
// channels would do in its next maintenance windows, were everything as it is now.
func (p *Provider) maintenancePlans(ctx context.Context, r *arm.Request) (any, error) {
	days := planDays
	if text := r.Query.Get("days"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxPlanDays {
			return nil, fault.New(fault.Invalid, "InvalidParameter", "The query parameter days isn't a number from 1 to %d.", maxPlanDays).At("days")
		}
		days = n
	}
	w, err := p.listed(ctx, r)
	if err != nil {
		return nil, err
	}
	plan, err := p.foretell(ctx, w, days)
	if err != nil {
		return nil, err
	}
	values := make([]any, len(plan))
	for i, entry := range plan {
		name := fmt.Sprintf("%03d-%s", i, entry.Kind)
		values[i] = object{"id": w.doc.ID.Child("maintenancePlans", name).String(), "name": name, "type": clusterType + "/maintenancePlans", "properties": entry}
	}
	return object{"value": values}, nil
}

// foretell lists what would be done in the next days, in order.
func (p *Provider) foretell(ctx context.Context, w *whole, days int) ([]planned, error) {
	jobs, err := p.jobs(ctx, w)
	if err != nil {
		return nil, err
	}
	var plan []planned
	channels := w.state.Desired.Channels
	if channels.Cluster == "" {
		plan = append(plan, planned{Kind: clusterKind, Channel: noUpgrades, Action: "None", Text: "the channel is none: the cluster is upgraded when it is asked for"})
	}
	if channels.NodeOS == "" {
		plan = append(plan, planned{Kind: nodeOSKind, Channel: noPatches, Action: "None", Text: "the channel is None: nodes get no security updates by themselves"})
	}
	if channels.Cluster == imageUpgrades {
		plan = append(plan, planned{Kind: nodeOSKind, Channel: nodeImages, Action: "None", Text: "the channel node-image brings node images"})
	}
	now := p.Now()
	for _, j := range jobs {
		entries, err := p.foretellJob(w, j, now, now.AddDate(0, 0, days))
		if err != nil {
			return nil, err
		}
		plan = append(plan, entries...)
	}
	slices.SortStableFunc(plan, func(a, b planned) int {
		switch {
		case a.Start == nil || b.Start == nil:
			return cmp.Compare(btoi(a.Start != nil), btoi(b.Start != nil))
		}
		return a.Start.Compare(*b.Start)
	})
	return plan, nil
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// foretellJob goes through the windows of one kind. Of those that follow one in
// which an upgrade would begin it supposes that the upgrade was done.
func (p *Provider) foretellJob(w *whole, j job, from, to time.Time) ([]planned, error) {
	var plan []planned
	entry := func(start, end time.Time, action, text string) *planned {
		start, end = start.UTC(), end.UTC()
		plan = append(plan, planned{Kind: j.kind, Channel: j.channel, Configuration: j.when.name, Start: &start, End: &end, Action: action, Text: text})
		return &plan[len(plan)-1]
	}
	for _, gone := range j.when.BlackedOut(from, to) {
		entry(gone.Start, gone.End, "None", "blacked out by the configuration")
	}
	supposed, taken := w.supposed(), map[time.Time]bool{}
	first := true
	for _, window := range j.when.Windows(from, to) {
		if taken[window.Occurrence] {
			continue // the other part of a window that a blackout cut
		}
		if begun, is := w.state.maintained(j.kind, window.Occurrence); is {
			text := "begun in this window: " + begun.What
			if begun.Refused != "" {
				text = fmt.Sprintf("refused in this window: %s: %s", begun.What, begun.Refused)
			}
			entry(window.Start, window.End, "None", text)
			taken[window.Occurrence] = true
			continue
		}
		if start := window.Start; window.End.Sub(latest(from, start)) < leastTime {
			entry(window.Start, window.End, "None", fmt.Sprintf("less than %s are left of the window", leastTime))
			continue
		}
		want, err := j.wants(supposed)
		if err != nil {
			return nil, err
		}
		taken[window.Occurrence] = true
		if want.action == "" {
			if first {
				entry(window.Start, window.End, "None", "everything is current")
			}
			first = false
			continue
		}
		e := entry(window.Start, window.End, want.action, want.what)
		if first {
			e.Blocked = w.hindered(j)
		}
		first = false
		if err := p.suppose(supposed, want.upgrade); err != nil {
			return nil, err
		}
	}
	if len(plan) == 0 {
		plan = append(plan, planned{Kind: j.kind, Channel: j.channel, Configuration: j.when.name, Action: "None", Text: "there is no window in this time"})
	}
	return plan, nil
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// supposed is a copy of a cluster that upgrades can be supposed of.
func (w *whole) supposed() *whole {
	copied := *w
	copied.pools = nil
	for _, pool := range w.pools {
		if pool.ProvisioningState != resource.Deleting {
			other := *pool
			copied.pools = append(copied.pools, &other)
		}
	}
	return &copied
}

// suppose makes a copy as if an upgrade had been done.
func (p *Provider) suppose(w *whole, u upgrade) error {
	if u.ControlPlane != (Version{}) {
		w.state.Desired.Version = u.ControlPlane
	}
	for _, change := range u.Pools {
		pool := w.pool(change.Name)
		if pool == nil {
			continue
		}
		if change.Version != (Version{}) {
			pool.Pool.Version = change.Version
		}
		parts, err := p.parts(pool.Pool)
		if err != nil {
			return err
		}
		pool.Target = parts
	}
	return nil
}
