// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"bastide.dev/controlplane"
)

// job is what goes on beside a control plane's life: backups, and a restore. One
// at a time, in one goroutine, until there is nothing to do.
type job struct {
	mu      sync.Mutex // guards what follows
	cancel  context.CancelFunc
	ended   chan struct{} // closed when the goroutine has ended; nil: there is none
	again   bool          // something may be to do that it didn't see
	trial   bool          // clients wait until what was restored is good
	step    controlplane.RestoreStatus
	trouble map[string]backupTrouble
}

// backupTrouble is why a backup couldn't be made.
type backupTrouble struct {
	err error
	at  time.Time
}

// tend begins what a control plane's spec asks for beside its life.
func (p *Plane) tend(in *instance) {
	j := &in.job
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.ended != nil {
		j.again = true
		return
	}
	if p.ctx.Err() != nil || !p.due(in, j) {
		return
	}
	ctx, cancel := context.WithCancel(p.ctx)
	ended := make(chan struct{})
	j.cancel, j.ended = cancel, ended
	p.agents.Go(func() {
		defer close(ended)
		defer cancel()
		p.work(ctx, in)
	})
}

// endJob ends what goes on and waits for it. Another spec begins it anew.
func (in *instance) endJob(ctx context.Context) error {
	j := &in.job
	j.mu.Lock()
	ended := j.ended
	if ended != nil {
		j.cancel()
	}
	j.mu.Unlock()
	if ended == nil {
		return nil
	}
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for backups of %s to end: %w", in.id, ctx.Err())
	}
}

func (p *Plane) work(ctx context.Context, in *instance) {
	j := &in.job
	for {
		p.workOnce(ctx, in)
		p.changes.add(in.id)
		j.mu.Lock()
		if ctx.Err() != nil || !j.again && !p.due(in, j) {
			j.ended, j.step = nil, controlplane.RestoreStatus{}
			j.mu.Unlock()
			return
		}
		j.again = false
		j.mu.Unlock()
	}
}

// due tells whether there is something to do; j.mu is held.
func (p *Plane) due(in *instance, j *job) bool {
	spec, known := in.current()
	if !known || spec.Stopped {
		return false
	}
	return p.restoreDue(&spec) || len(p.backupsDue(&spec, j)) > 0
}

func (p *Plane) workOnce(ctx context.Context, in *instance) {
	spec, known := in.current()
	if !known || spec.Stopped {
		return
	}
	if p.restoreDue(&spec) {
		if err := p.restore(ctx, in); err != nil && ctx.Err() == nil {
			p.Logger.Error("restore doesn't go on", "controlplane", in.id, "error", err)
			pause(ctx, time.Second)
		}
		return
	}
	in.job.mu.Lock()
	due := p.backupsDue(&spec, &in.job)
	in.job.mu.Unlock()
	for _, name := range due {
		err := p.takeBackup(ctx, &spec, name)
		if ctx.Err() != nil {
			return
		}
		in.job.mu.Lock()
		if in.job.trouble == nil {
			in.job.trouble = map[string]backupTrouble{}
		}
		stale := func(name string, _ backupTrouble) bool { return !slices.Contains(spec.Backups.Take, name) }
		maps.DeleteFunc(in.job.trouble, stale)
		delete(in.job.trouble, name)
		if err != nil {
			p.Logger.Error("backup not made", "controlplane", in.id, "backup", name, "error", err)
			in.job.trouble[name] = backupTrouble{err, time.Now()}
		}
		in.job.mu.Unlock()
		p.changes.add(in.id)
	}
}

// backupsDue are those that there aren't yet; j.mu is held.
func (p *Plane) backupsDue(spec *controlplane.Spec, j *job) []string {
	if spec.Backups == nil {
		return nil
	}
	var due []string
	for _, name := range spec.Backups.Take {
		if t, failed := j.trouble[name]; failed && time.Since(t.at) < backupPause {
			continue
		}
		if _, err := p.keptBackup(spec.ID, name); err != nil {
			due = append(due, name)
		}
	}
	return due
}

// restoreDue tells whether a restore is to begin, or to go on.
func (p *Plane) restoreDue(spec *controlplane.Spec) bool {
	r := p.readRestoring(spec.ID)
	if r.Phase != "" && !r.Ended() {
		return true
	}
	return spec.Restore != nil && spec.Restore.Token != r.Token
}

// tellBackups fills in what is known of backups and restores.
func (p *Plane) tellBackups(status *controlplane.Status, spec *controlplane.Spec, in *instance) {
	status.Backups = p.keptBackups(spec.ID)
	in.job.mu.Lock()
	defer in.job.mu.Unlock()
	if spec.Backups != nil {
		for _, name := range spec.Backups.Take {
			made := slices.ContainsFunc(status.Backups, func(b controlplane.Backup) bool { return b.ID == name })
			if t, failed := in.job.trouble[name]; failed && !made {
				status.Backups = append(status.Backups, controlplane.Backup{ID: name, Error: t.err.Error()})
			}
		}
	}
	if r := p.readRestoring(spec.ID); r.Token != "" {
		status.Restore = &r.RestoreStatus
	}
	if in.job.step.Token != "" && (status.Restore == nil || status.Restore.Token != in.job.step.Token) {
		step := in.job.step
		status.Restore = &step
	}
}

// restore goes on with the restore that is under way, or begins the one asked for.
func (p *Plane) restore(ctx context.Context, in *instance) error {
	spec, _ := in.current()
	r := p.readRestoring(in.id)
	if r.Phase == "" || r.Ended() {
		if err := p.beginRestore(ctx, in, &spec); err != nil {
			return err
		}
		if r = p.readRestoring(in.id); r.Ended() {
			return nil // refused
		}
	}
	if err := in.second.lockContext(ctx); err != nil {
		return err
	}
	defer in.second.Unlock()
	if r.Phase == controlplane.RestoreSwitching || r.Phase == controlplane.RestoreReturning {
		if err := p.again(ctx, in); err != nil { // arranges first
			return err
		}
	}
	if r = p.readRestoring(in.id); r.Phase != controlplane.RestoreTrying {
		return nil
	}
	return p.tryRestored(ctx, in, r)
}

// beginRestore makes all ready beside what serves, and then ends that. Nothing of
// what it does counts before its last line.
func (p *Plane) beginRestore(ctx context.Context, in *instance, spec *controlplane.Spec) error {
	r := restoring{RestoreStatus: controlplane.RestoreStatus{Token: spec.Restore.Token, Phase: controlplane.RestorePreparing}}
	in.job.mu.Lock()
	in.job.step = r.RestoreStatus
	in.job.mu.Unlock()
	p.changes.add(in.id)
	seen := max(p.seen(ctx, spec), p.readRestoring(in.id).Seen)
	r.Seen = seen
	objects, err := p.prepare(ctx, spec, seen)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		p.Logger.Error("restore refused", "controlplane", in.id, "error", err)
		r.Phase, r.Error = controlplane.RestoreFailed, err.Error()
		return errors.Join(p.endTrial(ctx, in.id), p.clearRestore(in.id), p.writeRestoring(in.id, r))
	}
	b, err := p.keptBackup(spec.Restore.Source, spec.Restore.Backup)
	if err != nil {
		return errors.Join(err, p.endTrial(ctx, in.id))
	}
	r.Phase, r.Objects, r.Seen = controlplane.RestoreSwitching, objects, controlplane.RevisionAfter(b.Revision, seen)
	return p.halfway(ctx, in, r)
}

// halfway keeps clients back, ends who writes to etcd, and writes down that the
// restored data is to be in charge.
func (p *Plane) halfway(ctx context.Context, in *instance, r restoring) error {
	if err := p.at(ctx, "restore-prepared"); err != nil {
		return err
	}
	if err := in.second.lockContext(ctx); err != nil {
		return err
	}
	defer in.second.Unlock()
	if err := in.apply.lockContext(ctx); err != nil {
		return err
	}
	defer in.apply.Unlock()
	spec, _ := in.current()
	if spec.Restore == nil || spec.Restore.Token != r.Token {
		return errors.Join(p.endTrial(ctx, in.id), p.clearRestore(in.id)) // it isn't asked for any more
	}
	in.job.setTrial(true)
	if err := lead(p.Netns(spec.Namespace), in.way(p.readRunning(in.id))); err != nil {
		return err
	}
	err := p.handOver(ctx, in, &spec, &r)
	if err == nil || ctx.Err() != nil {
		return err // who finds what is on disk goes on from there
	}
	in.job.setTrial(false)
	r.Phase, r.Error = controlplane.RestoreFailed, err.Error()
	return errors.Join(p.endTrial(ctx, in.id), p.clearRestore(in.id), p.writeRestoring(in.id, r), p.start(in, spec))
}

// handOver ends who writes to etcd, and completes the restored data by what it
// had then; in.second and in.apply are held.
func (p *Plane) handOver(ctx context.Context, in *instance, spec *controlplane.Spec, r *restoring) error {
	in.endAgent()
	others := slices.DeleteFunc(clients(), func(name string) bool { return name == controlplane.TrialEtcd })
	err := p.end(ctx, in.id, p.supervisor.Stop, others...)
	if err == nil {
		r.Note, err = p.copyMachines(ctx, spec)
	}
	if err == nil {
		err = p.endTrial(ctx, in.id)
	}
	if err != nil {
		return fmt.Errorf("hand over to restored data: %w", err)
	}
	return p.writeRestoring(in.id, *r)
}

// again starts a control plane from what is on disk.
func (p *Plane) again(ctx context.Context, in *instance) error {
	if err := in.apply.lockContext(ctx); err != nil {
		return err
	}
	defer in.apply.Unlock()
	spec, _ := in.current()
	if err := p.start(in, spec); err != nil {
		in.failed(spec, err)
		return err
	}
	return p.at(ctx, "restore-"+strings.ToLower(string(p.readRestoring(in.id).Phase)))
}

// tryRestored lets clients in when what was restored is good, or takes it back.
func (p *Plane) tryRestored(ctx context.Context, in *instance, r restoring) error {
	spec, _ := in.current()
	owner, err := p.readUID(in.id)
	if err != nil {
		return fmt.Errorf("restore of %s: %w", in.id, err)
	}
	d, err := p.draft(spec, p.readRunning(in.id).Slot, owner)
	if err != nil {
		return err
	}
	failed := p.awaitGood(ctx, spec, d)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if failed != nil {
		p.Logger.Error("restore taken back", "controlplane", in.id, "error", failed)
		r.Phase, r.Error = controlplane.RestoreReturning, "what was restored didn't become ready, and the cluster is as it was: "+failed.Error()
		return errors.Join(p.writeRestoring(in.id, r), p.again(ctx, in))
	}
	if err := in.apply.lockContext(ctx); err != nil {
		return err
	}
	defer in.apply.Unlock()
	r.Phase = controlplane.RestoreDone
	if err := p.writeRestoring(in.id, r); err != nil {
		return err
	}
	in.job.setTrial(false)
	if err := lead(d.netns, in.way(p.readRunning(in.id))); err != nil {
		return err
	}
	return p.clearRestore(in.id)
}

func (j *job) setTrial(on bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.trial = on
}

func (j *job) onTrial() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.trial
}

// settleData brings directories to where a restore had come, and keeps clients
// back as long as it is tried. in.apply is held.
func (p *Plane) settleData(in *instance) error {
	if err := p.arrange(p.ctx, in); err != nil {
		return err
	}
	r := p.readRestoring(in.id)
	in.job.setTrial(r.Phase == controlplane.RestoreTrying)
	if r.Ended() {
		if _, err := os.Stat(p.dir(in.id, beforeDir)); err == nil {
			return p.clearRestore(in.id)
		}
	}
	return nil
}
