// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"time"

	"bastide.dev/controlplane"
	"bastide.dev/machine"
	"bastide.dev/maintenance"
	"bastide.dev/node"
	"bastide.dev/reboots"
	"bastide.dev/resource"
)

const (
	// lookedAt bounds the nodes whose blockers are looked at, and named the packages
	// that a reboot's reason names.
	lookedAt      = 200
	namedPackages = 4
)

// rebooting is what the reboot coordinator has to remember.
type rebooting struct {
	Claims []reboots.Claim      `json:"claims,omitempty"`
	Last   map[string]time.Time `json:"last,omitempty"` // when nodes rebooted, for as long as it matters
}

// guest is what a machine says of itself. Its tenant may have written it: what
// isn't a status is none.
func guest(m *machine.Status) node.Status {
	var s node.Status
	if m == nil || len(m.Guest) > machine.GuestBytes || json.Unmarshal(m.Guest, &s) != nil {
		return node.Status{}
	}
	return s
}

// coordinate lets nodes that need a reboot have it, as package reboots decides:
// it keeps the claims to the lock, asks for the work, and notes when to look
// again. It returns the pools that it changed, and whether the cluster's state did.
func (r *runner) coordinate(ctx context.Context, w *whole, h *hosted) ([]*poolDoc, bool, error) {
	now := r.Now().UTC().Truncate(time.Millisecond)
	in, err := r.rebootInput(ctx, w, h, now)
	if err != nil {
		return nil, false, err
	}
	before := w.state.Reboots
	if in == nil {
		w.state.Reboots = nil
		return nil, before != nil, nil
	}
	d := reboots.Decide(*in)
	w.reboots = &controlplane.Reboots{Waiting: waiting(in.Nodes)}
	next := &rebooting{Claims: d.Claims, Last: map[string]time.Time{}}
	for _, claim := range d.Claims {
		w.reboots.Claims = append(w.reboots.Claims, claim.Node)
	}
	for _, n := range in.Nodes {
		if !n.Last.IsZero() && now.Sub(n.Last) < reboots.RetryAfter {
			next.Last[n.Name] = n.Last
		}
	}
	for _, name := range d.Ended {
		next.Last[name] = now
	}
	if !d.Again.IsZero() {
		w.again = sooner(w.again, max(d.Again.Sub(now), soon))
	}
	changed := r.beginReboots(w, h, d.Begin, now)
	same := before != nil && slices.Equal(before.Claims, next.Claims) && sameTimes(before.Last, next.Last)
	if !same {
		w.state.Reboots = next
	}
	return changed, !same, nil
}

func (r *runner) beginReboots(w *whole, h *hosted, names []string, now time.Time) []*poolDoc {
	var changed []*poolDoc
	for _, pool := range w.pools {
		for _, n := range pool.Nodes {
			if !slices.Contains(names, n.Name) {
				continue
			}
			text := rebootText(guest(h.reports[unitKey{machineKind, n.Machine}].Machine))
			if pool.ask(n.Name, work{Kind: rebootNode, Reason: becausePatch, Text: text, Asked: now}) {
				r.Log.Info("node reboots", "cluster", w.doc.ID.String(), "node", n.Name, "reason", text)
				changed = append(changed, pool)
			}
		}
	}
	return changed
}

// rebootInput is what the decision rests on; nil when no node needs a reboot,
// none has the lock, and none is remembered.
func (p *Provider) rebootInput(ctx context.Context, w *whole, h *hosted, now time.Time) (*reboots.Input, error) {
	plane := h.reports[unitKey{controlPlaneKind, w.state.ID}].ControlPlane
	if plane == nil || w.state.Stopped || w.doc.ProvisioningState == resource.Deleting {
		return nil, nil
	}
	in := &reboots.Input{Settings: reboots.Default(), Now: now, Nodes: rebootNodes(w, h, plane, now)}
	state := w.state.Reboots
	if state == nil && !slices.ContainsFunc(in.Nodes, func(n reboots.Node) bool { return !n.Required.IsZero() }) {
		return nil, nil
	}
	if state != nil {
		in.Claims = state.Claims
		remembered := len(state.Claims) > 0
		for i := range in.Nodes {
			in.Nodes[i].Last = state.Last[in.Nodes[i].Name]
			remembered = remembered || !in.Nodes[i].Required.IsZero() || now.Sub(in.Nodes[i].Last) < reboots.RetryAfter
		}
		if !remembered {
			return nil, nil
		}
	}
	if plane.Reboots != nil {
		in.Settings, in.Locked = plane.Reboots.Settings, plane.Reboots.Locked
	}
	var err error
	in.Against, in.Opens, err = p.againstReboots(ctx, w, plane, now)
	return in, err
}

// againstReboots says what stands against a reboot of any node.
func (p *Provider) againstReboots(ctx context.Context, w *whole, plane *controlplane.Status, now time.Time) (string, time.Time, error) {
	switch {
	case w.doc.Operation != "":
		return "an operation runs on the cluster", time.Time{}, nil
	case plane.Phase != controlplane.Ready:
		return "the API server isn't ready", time.Time{}, nil
	case plane.Reboots != nil && len(plane.Reboots.Problems) > 0:
		return "the settings are wrong: " + strings.Join(plane.Reboots.Problems, "; "), time.Time{}, nil
	}
	// Where a user configured a window for the nodes' operating systems, what
	// updates need happens in it, too; else the settings' window alone counts.
	configured, err := p.configured(ctx, w)
	if err != nil {
		return "", time.Time{}, err
	}
	when := choose(configured, nil, maintenance.NodeOS, maintenance.Default)
	if when.Calendar == nil {
		return "", time.Time{}, nil
	}
	if _, open := when.Now(now); open {
		return "", time.Time{}, nil
	}
	window, _ := when.Next(now)
	return "the maintenance window is closed", window.Start, nil
}

// rebootNodes are all nodes, as far as reboots go.
func rebootNodes(w *whole, h *hosted, plane *controlplane.Status, now time.Time) []reboots.Node {
	blocked := map[string][]string{}
	if plane.Reboots != nil {
		for _, n := range plane.Reboots.Nodes {
			blocked[n.Name] = n.Blocked
		}
	}
	ready := map[string]bool{}
	for _, n := range plane.Nodes {
		ready[n.Name] = n.Ready
	}
	var all []reboots.Node
	for _, pool := range w.pools {
		for i := range pool.Nodes {
			n := &pool.Nodes[i]
			if n.Removed {
				continue
			}
			seen := reboots.Node{Name: n.Name, Ready: ready[n.Name]}
			seen.Blocked, seen.Looked = blocked[n.Name], false
			_, seen.Looked = blocked[n.Name]
			if s := guest(h.reports[unitKey{machineKind, n.Machine}].Machine); s.RebootRequired {
				seen.Required = believable(s.RebootSince, now)
			}
			doing(&seen, pool, n)
			all = append(all, seen)
		}
	}
	return all
}

// doing says what is being done to a node already, or was in vain.
func doing(seen *reboots.Node, pool *poolDoc, n *allotted) {
	reboot := n.Work != nil && n.Work.Kind == rebootNode && n.Work.Reason == becausePatch
	switch {
	case n.Work != nil && n.Work.Error == "" && reboot:
		seen.Working = true
	case n.Work != nil && n.Work.Error == "":
		seen.Busy = first(n.Work.Text, "something else is done to it")
	case n.Surge:
		seen.Busy = "it goes when the upgrade is over"
	case pool.Operation != "" || pool.ProvisioningState == resource.Deleting:
		seen.Busy = "an operation runs on its pool"
	case reboot:
		seen.Failed, seen.Error = n.Work.Since, n.Work.Error
	}
}

// believable is a time that a machine says, unless it can't be.
func believable(t, now time.Time) time.Time {
	if t.IsZero() || t.After(now) {
		return now
	}
	return t.UTC()
}

// waiting are the nodes whose blockers are to be looked at: those that need a
// reboot, the longest first, and in a fixed order.
func waiting(nodes []reboots.Node) []string {
	some := slices.DeleteFunc(slices.Clone(nodes), func(n reboots.Node) bool { return n.Required.IsZero() || n.Working })
	slices.SortFunc(some, func(a, b reboots.Node) int {
		return cmp.Or(a.Required.Compare(b.Required), cmp.Compare(a.Name, b.Name))
	})
	var names []string
	for _, n := range some[:min(len(some), lookedAt)] {
		names = append(names, n.Name)
	}
	slices.Sort(names)
	return names
}

// rebootText is why a node reboots. The names come from the machine: only what
// may be a Debian package's is repeated.
func rebootText(s node.Status) string {
	form := regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]{1,63}$`)
	var names []string
	for _, name := range s.RebootPackages {
		if len(names) < namedPackages && form.MatchString(name) && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return "reboot for updates"
	}
	return "reboot for updates of " + strings.Join(names, ", ")
}

func sameTimes(a, b map[string]time.Time) bool {
	if len(a) != len(b) {
		return false
	}
	for name, t := range a {
		if !b[name].Equal(t) {
			return false
		}
	}
	return true
}
