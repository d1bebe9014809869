// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"strings"
	"time"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/maintenance"
	"bastide.dev/resource"
	"bastide.dev/store"
)

const (
	// leastTime is how long a window must last still for something to begin in it.
	leastTime = 15 * time.Minute
	// lookEvery is how often a cluster with a channel is looked at, at least: a
	// clock that was put forward rings no timer.
	lookEvery = 15 * time.Minute
)

// The kinds of maintenance.
const (
	clusterKind = "cluster"
	nodeOSKind  = "nodeOS"
)

// job is one kind of maintenance of a cluster: when it may begin, and what its
// channel would begin now.
type job struct {
	kind, channel string
	when          windowed
	wants         func(w *whole) (errand, error)
}

// errand is what a channel would begin; zero is nothing.
type errand struct {
	upgrade upgrade
	patch   bool
	action  string // Upgrade, NodeImage or Patch
	what    string // for people
}

// The actions.
const (
	upgradeAction = "Upgrade"
	imageAction   = "NodeImage"
	patchAction   = "Patch"
)

// jobs are the kinds of maintenance that a cluster's channels stand for.
func (p *Provider) jobs(ctx context.Context, w *whole) ([]job, error) {
	channels := w.state.Desired.Channels
	if channels == (Channels{}) {
		return nil, nil
	}
	configured, err := p.configured(ctx, w)
	if err != nil {
		return nil, err
	}
	var jobs []job
	s := &w.state
	switch channels.Cluster {
	case "":
	case imageUpgrades:
		// It is NodeImage by another name, and so has NodeOS's time unless it is given its own.
		return []job{{clusterKind, channels.Cluster, choose(configured, s.weekly(), maintenance.Cluster, maintenance.NodeOS, maintenance.Default), p.wantsImage}}, nil
	default:
		jobs = append(jobs, job{clusterKind, channels.Cluster, choose(configured, s.nightly(), maintenance.Cluster, maintenance.Default), p.wantsVersion})
	}
	switch channels.NodeOS {
	case unmanagedPatches:
		// The operating system's own timer knows no maintenance configuration.
		jobs = append(jobs, job{nodeOSKind, channels.NodeOS, windowed{Calendar: s.morning()}, wantsPatch})
	case securityPatches:
		jobs = append(jobs, job{nodeOSKind, channels.NodeOS, choose(configured, s.nightly(), maintenance.NodeOS, maintenance.Default), wantsPatch})
	case nodeImages:
		jobs = append(jobs, job{nodeOSKind, channels.NodeOS, choose(configured, s.weekly(), maintenance.NodeOS, maintenance.Default), p.wantsImage})
	}
	return jobs, nil
}

func (p *Provider) wantsVersion(w *whole) (errand, error) {
	versions, err := p.versions()
	if err != nil {
		return errand{}, err
	}
	d := w.desired()
	u, is := versions.channelUpgrade(d.Channels.Cluster, d.Version, d.Pools)
	switch {
	case !is:
		return errand{}, nil
	case u.ControlPlane != (Version{}):
		return errand{upgrade: u, action: upgradeAction, what: fmt.Sprintf("upgrade from %s to %s", d.Version, u.ControlPlane)}, nil
	}
	return errand{upgrade: u, action: upgradeAction, what: fmt.Sprintf("upgrade of agent pools %s to %s", strings.Join(u.names(), ", "), d.Version)}, nil
}

func (p *Provider) wantsImage(w *whole) (errand, error) {
	var pools []*poolDoc
	for _, pool := range w.pools {
		if pool.ProvisioningState != resource.Deleting {
			pools = append(pools, pool)
		}
	}
	image := ""
	u, is, err := imageUpgrade(pools, func(pool Pool) (Parts, error) {
		parts, err := p.parts(pool)
		image = parts.Image
		return parts, err
	})
	if !is || err != nil {
		return errand{}, err
	}
	return errand{upgrade: u, action: imageAction, what: fmt.Sprintf("node image %s of agent pools %s", nodeImageName(image), strings.Join(u.names(), ", "))}, nil
}

// nodeImageName is the image's as pools show it.
func nodeImageName(image string) string { return "Debian-" + image }

func wantsPatch(*whole) (errand, error) {
	return errand{patch: true, action: patchAction, what: "security updates of the nodes"}, nil
}

// maintain begins what the cluster's channels stand for in its maintenance
// windows, and tells when to look again. What was begun goes on when the window
// ends; a window in which the service didn't run is missed.
func (r *runner) maintain(ctx context.Context, w *whole) (time.Duration, error) {
	if w.state.Desired.Channels == (Channels{}) {
		return 0, nil
	}
	next, err := r.attend(ctx, w)
	return sooner(lookEvery, next), err
}

// attend begins what is due, and tells when the next of it may be; 0 is never.
func (r *runner) attend(ctx context.Context, w *whole) (time.Duration, error) {
	jobs, err := r.jobs(ctx, w)
	if err != nil {
		return 0, err
	}
	var again time.Duration
	now := r.Now()
	for _, j := range jobs {
		if next, ok := j.when.Next(now); ok {
			again = sooner(again, next.Start.Sub(now))
		}
		window, open := j.when.Now(now)
		if !open || window.End.Sub(now) < leastTime {
			continue
		}
		if _, done := w.state.maintained(j.kind, window.Occurrence); done {
			continue
		}
		again = sooner(again, lookEvery) // what stands in the way may go, what is newer may come
		begun, err := r.maintainNow(ctx, w, j, window)
		if err != nil {
			return 0, fmt.Errorf("maintenance of %s: %w", w.doc.ID, err)
		}
		if begun {
			return soon, nil // what was read is no longer what is
		}
	}
	return again, nil
}

// maintainNow begins a job in its window. What stands in the way and may go yet
// is waited for; what was refused isn't tried again in the same window.
func (r *runner) maintainNow(ctx context.Context, w *whole, j job, window maintenance.Window) (bool, error) {
	if w.hindered(j) != "" {
		return false, nil
	}
	want, err := j.wants(w)
	if err != nil || want.action == "" {
		return false, err
	}
	before := w.state
	note := maintained{Kind: j.kind, Window: window.Occurrence, What: want.what}
	w.state.remember(note)
	if want.patch {
		return true, r.beginPatch(ctx, w, window)
	}
	plan, err := r.planUpgrade(ctx, w, want.upgrade)
	if refused := fault.From(err); err != nil && (refused.Kind == fault.Invalid || refused.Kind == fault.Unsupported || refused.Kind == fault.Exhausted) {
		w.state = before
		note.Refused = refused.Message
		w.state.remember(note)
		r.Log.WarnContext(ctx, "automatic upgrade refused", "cluster", w.doc.ID.String(), "upgrade", want.what, "error", err)
		return true, r.writeState(ctx, w)
	}
	if plan == nil {
		w.state = before
		if fault.Is(err, fault.Conflict) {
			err = nil
		}
		return false, err
	}
	_, err = r.ops.Begin(ctx, arm.Beginning{Document: plan.Document, Children: plan.Children, Changes: plan.Changes, State: plan.State,
		Version: versionsServed()[0], Why: "maintenance: " + want.what})
	if err == nil {
		r.Log.InfoContext(ctx, "automatic upgrade begins", "cluster", w.doc.ID.String(), "upgrade", want.what, "window", window.Start)
	}
	if fault.Is(err, fault.Conflict) {
		return false, nil // another operation was quicker; its end is heard of
	}
	return err == nil, err
}

// beginPatch orders the nodes to install security updates, once in this window.
func (r *runner) beginPatch(ctx context.Context, w *whole, window maintenance.Window) error {
	w.state.Patch = patchNight{Token: window.Occurrence.UTC().Format(time.RFC3339), Until: window.End.UTC()}
	return r.writeState(ctx, w, arm.NewActivity(r.Now(), w.doc.ID, clusterType+"/patch/action", "maintenance: security updates of the nodes"))
}

// hindered says why nothing of a job can begin now, "" when it can.
func (w *whole) hindered(j job) string {
	documents := []*arm.Document{w.doc}
	for _, pool := range w.pools {
		documents = append(documents, pool.Document)
	}
	for _, d := range documents {
		switch {
		case d.ProvisioningState == resource.Deleting:
			return d.Name + " is being deleted"
		case d.Operation != "":
			return fmt.Sprintf("an operation (%s) runs on %s", d.ProvisioningState, d.Name)
		case d.ProvisioningState != resource.Succeeded && j.channel != unmanagedPatches && j.channel != securityPatches:
			// Updates mend what failed at times; another upgrade hardly does.
			return fmt.Sprintf("%s is in state %s", d.Name, d.ProvisioningState)
		}
	}
	if w.state.Stopped {
		return "the cluster is stopped"
	}
	return ""
}

// writeState writes the cluster's state as it is now, if its document is as it was read.
func (r *runner) writeState(ctx context.Context, w *whole, changes ...store.Change) error {
	all, err := stateChange(changes, w.doc, w.state)
	if err != nil {
		return err
	}
	return r.write(ctx, w.doc, all)
}
