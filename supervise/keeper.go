// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"bastide.dev/cgroup"
)

const logCheck = 30 * time.Second

// wanted is what a keeper was last asked for: a definition, or an end.
type wanted struct {
	Process
	hash       string
	stop, kill bool
}

// keeper keeps one process.
type keeper struct {
	*Supervisor
	name     string
	asked    chan struct{} // holds one token after ask
	ended    chan struct{} // closed when run returned
	endError error         // set before ended is closed

	mu     sync.Mutex // guards next and status
	next   *wanted    // not yet seen by run
	status Status
}

func newKeeper(s *Supervisor, w *wanted) *keeper {
	return &keeper{Supervisor: s, name: w.Name, next: w, asked: make(chan struct{}, 1), ended: make(chan struct{}), status: Status{Name: w.Name}}
}

func (k *keeper) ask(w *wanted) {
	k.mu.Lock()
	k.next = w
	k.mu.Unlock()
	select {
	case k.asked <- struct{}{}:
	default:
	}
}

// take returns what was asked for since, or nil.
func (k *keeper) take() *wanted {
	k.mu.Lock()
	defer k.mu.Unlock()
	w := k.next
	k.next = nil
	return w
}

func (k *keeper) current() Status {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.status
}

func (k *keeper) update(f func(*Status)) {
	k.mu.Lock()
	f(&k.status)
	k.mu.Unlock()
	k.notify(k.name)
}

// run keeps the process until the supervisor ends, or an end is asked for.
func (k *keeper) run() {
	defer close(k.ended)
	def := k.take()
	for failures := 0; ; {
		if def.stop {
			k.endError = k.finish()
			k.forget(k)
			k.notify(k.name)
			return
		}
		live, err := k.bring(def)
		if err != nil {
			k.Logger.Error("process can't be started", "process", k.name, "error", err)
			k.update(func(s *Status) { s.Error = err.Error() })
			failures++
		} else {
			var next *wanted
			if next = k.watch(def, live); next != nil {
				def, failures = next, 0
				continue
			}
			if k.ctx.Err() != nil {
				return
			}
			if failures++; time.Since(live.started) > def.Backoff.after(1<<10) {
				failures = 1
			}
		}
		next, gone := k.pause(def.Backoff.after(failures))
		if gone {
			return
		}
		if next != nil {
			def = next
		}
	}
}

// pause waits before the next start, unless something else is asked for.
func (k *keeper) pause(d time.Duration) (next *wanted, gone bool) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-k.ctx.Done():
		return nil, true
	case <-t.C:
	case <-k.asked:
	}
	return k.take(), false
}

// bring adopts the process, or starts it after ending one of another definition.
func (k *keeper) bring(def *wanted) (*alive, error) {
	rec := readRecord(k.RunDir, k.name)
	if fd, ok := rec.open(); ok {
		if rec.Hash == def.hash && (def.Netns == "" || inNetns(rec.PID, def.Netns)) {
			k.Logger.Info("process adopted", "process", k.name, "pid", rec.PID)
			k.update(func(s *Status) {
				s.PID, s.Started, s.Restarts, s.Adopted, s.Ready, s.Error = rec.PID, rec.Started, rec.Restarts, true, def.Ready == nil, ""
			})
			return follow(fd, rec.PID, rec.Started, func() string { return "ended (started by an earlier supervisor)" }), nil
		}
		err := terminate(k.ctx, fd, &def.Process, false)
		unix.Close(fd)
		if err != nil {
			return nil, fmt.Errorf("replace pid %d: %w", rec.PID, err)
		}
	}
	if rec.Cgroup != "" && rec.Cgroup != def.Cgroup {
		if err := cgroup.Delete(rec.Cgroup); err != nil {
			return nil, err
		}
	}
	restarts := 0
	if rec.PID > 0 {
		restarts = rec.Restarts + 1
	}
	return k.start(def, restarts)
}

func (k *keeper) start(def *wanted, restarts int) (*alive, error) {
	process, err := start(&def.Process)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	fd, err := unix.PidfdOpen(process.Pid, unix.PIDFD_NONBLOCK) // its zombie keeps the pid until follow reaps it
	if err != nil {
		return nil, errors.Join(fmt.Errorf("watch %s: %w", k.name, err), process.Kill(), process.Release())
	}
	// Read before anybody reaps it: also one that has ended already has a start.
	begin, _, err := stat(process.Pid)
	if err == nil {
		err = writeRecord(k.RunDir, record{Name: k.name, PID: process.Pid,
			Start: begin, Started: now, Hash: def.hash, Restarts: restarts, Cgroup: def.Cgroup})
	}
	live := follow(fd, process.Pid, now, func() string {
		state, err := process.Wait()
		if err != nil {
			return err.Error()
		}
		return state.String()
	})
	if err != nil { // a process without a record would be nobody's after a restart
		err = errors.Join(err, process.Kill())
		<-live.exited
		return nil, err
	}
	k.Logger.Info("process started", "process", k.name, "pid", process.Pid, "restarts", restarts)
	k.update(func(s *Status) {
		s.PID, s.Started, s.Restarts, s.Adopted, s.Ready, s.Error = process.Pid, now, restarts, false, def.Ready == nil, ""
	})
	return live, nil
}

// watch returns when the process ended, the supervisor ends, or something else
// is asked for, which it returns after the process is out of its way.
func (k *keeper) watch(def *wanted, live *alive) *wanted {
	ctx, cancel := context.WithCancel(k.ctx)
	var probe sync.WaitGroup
	defer probe.Wait()
	defer cancel()
	if def.Ready != nil {
		probe.Go(func() { k.probe(ctx, def) })
	}
	logs := time.NewTicker(logCheck)
	defer logs.Stop()
	for {
		select {
		case how := <-live.exited:
			k.died(def, live, how)
			return nil
		case <-k.ctx.Done():
			live.release()
			return nil
		case <-logs.C:
			if err := rotate(def.LogFile, def.logMax()); err != nil {
				k.Logger.Error("log not rotated", "process", k.name, "error", err)
			}
		case <-k.asked:
			next := k.take()
			if next == nil || !next.stop && next.hash == def.hash && (def.Netns == "" || inNetns(live.pid, def.Netns)) {
				continue
			}
			k.replace(def, live, next.kill)
			return next
		}
	}
}

// replace ends the process so that another, or none, can take its place.
func (k *keeper) replace(def *wanted, live *alive, kill bool) {
	fd, err := unix.PidfdOpen(live.pid, 0) // not yet reaped by us or, when adopted, checked on the way in
	if err == nil {
		err = terminate(k.ctx, fd, &def.Process, kill)
		unix.Close(fd)
	}
	if err != nil && !errors.Is(err, unix.ESRCH) {
		k.Logger.Error("process doesn't end", "process", k.name, "error", err)
	}
	select {
	case how := <-live.exited:
		k.update(func(s *Status) { s.PID, s.Ready, s.Exit = 0, false, how })
	case <-time.After(5 * time.Second):
		live.release()
	}
}

func (k *keeper) died(def *wanted, live *alive, how string) {
	last := tail(def.LogFile)
	k.Logger.Warn("process ended", "process", k.name, "pid", live.pid, "how", how, "lived", time.Since(live.started))
	k.update(func(s *Status) { s.PID, s.Ready, s.Exit, s.Log = 0, false, how, last })
}

func (k *keeper) probe(ctx context.Context, def *wanted) {
	for ctx.Err() == nil {
		if err := def.Ready(ctx); err == nil && ctx.Err() == nil {
			k.update(func(s *Status) { s.Ready = true })
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// finish removes what the process leaves: its group and its record.
func (k *keeper) finish() error {
	return endRecorded(k.ctx, k.RunDir, k.name, true)
}
