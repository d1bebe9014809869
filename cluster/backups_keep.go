// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"bastide.dev/arm"
	"bastide.dev/controlplane"
	"bastide.dev/fault"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// backups notes what became of a cluster's backups, begins those that are due by
// its policy, and forgets those that are too many. It returns the changes of the
// backups' documents, and whether it changed the cluster's own state.
func (r *runner) backups(ctx context.Context, w *whole, h *hosted) ([]store.Change, bool, error) {
	all, err := r.backupsOf(ctx, w.doc.ID)
	if err != nil {
		return nil, false, err
	}
	policy, err := r.policyFor(ctx, w.doc.ID)
	if err != nil {
		return nil, false, err
	}
	var changes []store.Change
	for _, b := range all {
		if !b.learn(w.planeStatus(h)) && !b.expire(r.Now(), r.CreateDeadline) {
			if b.open() {
				w.again = sooner(w.again, r.CreateDeadline)
			}
			continue
		}
		if b.Operation != "" {
			if err := r.endBackup(ctx, b); err != nil {
				return nil, false, err
			}
			continue
		}
		if changes, err = stateChange(changes, b.Document, b.backupState); err != nil {
			return nil, false, err
		}
	}
	gone := surplus(all, policy)
	for _, b := range gone {
		changes = append(changes, store.Change{Key: arm.DocumentKey(b.ID), Revision: b.Revision})
	}
	all = slices.DeleteFunc(all, func(b *backupDoc) bool { return slices.Contains(gone, b) })
	begun, state, err := r.beginScheduled(ctx, w, all, policy)
	if err != nil {
		return nil, false, err
	}
	w.backups = wantedBackups(all)
	return append(uniqueChanges(changes), begun...), state, nil
}

// uniqueChanges keeps the last of the changes of one key: a backup may be learned
// of and be too many in the same look.
func uniqueChanges(changes []store.Change) []store.Change {
	var kept []store.Change
	for i, c := range changes {
		if !slices.ContainsFunc(changes[i+1:], func(o store.Change) bool { return o.Key == c.Key }) {
			kept = append(kept, c)
		}
	}
	return kept
}

// learn notes what a control plane reports of a backup, and tells whether that is new.
func (b *backupDoc) learn(status *controlplane.Status) bool {
	if status == nil {
		return false
	}
	i := slices.IndexFunc(status.Backups, func(o controlplane.Backup) bool { return o.ID == b.Unit })
	switch {
	case b.open() && i >= 0 && status.Backups[i].Error != "":
		b.Error, b.ProvisioningState = status.Backups[i].Error, failedState(b)
	case b.open() && i >= 0:
		made := status.Backups[i]
		b.Made, b.ProvisioningState = &made, succeededState(b)
	case b.Made != nil && status.Phase == controlplane.Ready && b.Lost == (i >= 0):
		b.Lost = i < 0
	default:
		return false
	}
	return true
}

// expire gives up a backup that nobody reports on, and tells whether it did so now.
func (b *backupDoc) expire(now time.Time, within time.Duration) bool {
	if !b.open() || now.Sub(b.Asked) < within {
		return false
	}
	b.Error = "it wasn't made within " + within.String()
	b.ProvisioningState = failedState(b)
	return true
}

// A document's state under an operation is set by the end of that.
func failedState(b *backupDoc) resource.State { return b.stateOr(resource.Failed) }

func succeededState(b *backupDoc) resource.State { return b.stateOr(resource.Succeeded) }

func (b *backupDoc) stateOr(s resource.State) resource.State {
	if b.Operation != "" {
		return b.ProvisioningState
	}
	return s
}

// endBackup ends the operation of a backup that was asked for.
func (r *runner) endBackup(ctx context.Context, b *backupDoc) error {
	end := arm.Ending{Edit: func(d *arm.Document) error { return setState(d, b.backupState) }}
	if b.Error != "" {
		end.Fault = fault.New(fault.Exhausted, "BackupFailed", "The backup wasn't made: %s", b.Error)
	}
	return r.ops.Finish(ctx, b.Operation, end)
}

// wantedBackups is what the host is asked for; its key comes later.
func wantedBackups(all []*backupDoc) *controlplane.Backups {
	var wanted controlplane.Backups
	for _, b := range all {
		switch {
		case b.open():
			wanted.Take = append(wanted.Take, b.Unit)
		case b.Made != nil:
			wanted.Keep = append(wanted.Keep, b.Unit)
		}
	}
	if len(wanted.Take)+len(wanted.Keep) == 0 {
		return nil
	}
	slices.Sort(wanted.Take)
	slices.Sort(wanted.Keep)
	return &wanted
}

// beginScheduled begins a backup that the policy wants now: one for all that were
// missed. w.again is when the next one is due.
func (r *runner) beginScheduled(ctx context.Context, w *whole, all []*backupDoc, policy *backupPolicy) ([]store.Change, bool, error) {
	if policy == nil || w.state.Stopped || w.state.Running == (Version{}) || w.state.Restore != nil {
		return nil, false, nil
	}
	if slices.ContainsFunc(all, func(b *backupDoc) bool { return b.Scheduled && b.open() }) {
		return nil, false, nil
	}
	now := r.Now().UTC()
	if wait := policy.wait(w.state.BackedUp, now, lastFailed(all)); wait > 0 {
		w.again = sooner(w.again, min(wait, lookEvery)) // a clock that was put forward rings no timer
		return nil, false, nil
	}
	changes, err := r.backupKeyChange(ctx, w.state.UID)
	if err != nil {
		return nil, false, err
	}
	state := r.newBackup(w)
	state.Scheduled = true
	id := w.doc.ID.Child("backups", scheduledPrefix+now.Format(nameTime)+"-"+state.Unit[1:9])
	document := &arm.Document{Envelope: resource.Envelope{ID: id, Type: backupType, Name: id.Name(), Etag: uuid.NewString(), ProvisioningState: resource.Creating,
		Generation: 1, Body: []byte("{}"), SystemData: resource.SystemData{CreatedBy: Namespace, CreatedByType: "Application", CreatedAt: now, LastModifiedAt: now}}}
	w.state.BackedUp = now
	changes, err = stateChange(changes, document, state)
	return changes, true, err
}

// wait is how long the next backup may wait still, after the last that was begun.
// A clock that went back makes it due.
func (p *backupPolicy) wait(last, now time.Time, failed bool) time.Duration {
	if last.IsZero() || last.After(now) {
		return 0
	}
	every := p.Every
	if failed {
		every = min(every, failedAgain)
	}
	return max(last.Add(every).Sub(now), 0)
}

// lastFailed tells whether the newest scheduled backup failed.
func lastFailed(all []*backupDoc) bool {
	var newest *backupDoc
	for _, b := range all {
		if b.Scheduled && (newest == nil || b.Asked.After(newest.Asked)) {
			newest = b
		}
	}
	return newest != nil && newest.Error != ""
}

// surplus are the scheduled backups beyond those that the policy keeps. Those that
// can't be restored count for themselves: they push no good one out. Without a
// policy nothing goes by itself.
func surplus(all []*backupDoc, policy *backupPolicy) []*backupDoc {
	if policy == nil {
		return nil
	}
	var good, bad []*backupDoc
	for _, b := range all {
		switch {
		case !b.Scheduled || b.open() || b.Operation != "":
		case b.good():
			good = append(good, b)
		default:
			bad = append(bad, b)
		}
	}
	newest := func(a, b *backupDoc) int {
		if c := b.Asked.Compare(a.Asked); c != 0 {
			return c
		}
		return strings.Compare(b.Name, a.Name)
	}
	slices.SortFunc(good, newest)
	slices.SortFunc(bad, newest)
	return append(good[min(len(good), policy.Keep):], bad[min(len(bad), failedKept):]...)
}
