// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"cmp"
	"context"
	"errors"
	"time"
)

// verdict is the end of an attempt that says something of what was asked for.
// Any other end is an accident (etcd died under a snapshot, a disk was full for a
// while), after which the same is tried again.
type verdict struct{ error }

func (v verdict) Unwrap() error { return v.error }

const (
	soonAgain  = time.Second
	againAtAll = 15 * time.Second
)

// accident is an attempt that is to be repeated.
type accident struct {
	key   string    // of what was asked for
	hope  time.Time // until then they are kept quiet about; then who waits is told, and it is tried all the same
	next  time.Time // the repetition
	pause time.Duration
	why   string
}

// untold tells whether an accident is still between us.
func (a *accident) untold() bool { return a.key != "" && time.Now().Before(a.hope) }

// told is what is said of it.
func (a *accident) told() string {
	if a.key == "" || a.untold() {
		return ""
	}
	return a.why
}

// over is called when an attempt ended by an error.
func (p *Plane) over(ctx context.Context, in *instance, a *attempt, err error) {
	var v verdict
	if errors.As(err, &v) {
		p.refuse(ctx, in, a, err)
		return
	}
	if in.apply.lockContext(ctx) != nil {
		return
	}
	defer in.apply.Unlock()
	if !in.is(a) {
		return
	}
	p.Logger.Warn("change of a control plane met an accident, will try again", "controlplane", in.id, "error", err)
	in.mu.Lock()
	if in.accident.key != a.key {
		in.accident = accident{key: a.key, hope: time.Now().Add(p.readyWithin()), pause: soonAgain}
	}
	in.accident.why, in.accident.next = err.Error(), time.Now().Add(in.accident.pause)
	pause := in.accident.pause
	in.accident.pause = min(2*pause, againAtAll)
	in.attempt, in.refused = nil, in.accident.told()
	in.mu.Unlock()
	p.changes.add(in.id)
	p.agents.Go(func() { // applied again then
		select {
		case <-p.ctx.Done():
		case <-time.After(pause):
			p.changes.add(in.id)
		}
	})
}

// readyWithin is how long a change may take.
func (p *Plane) readyWithin() time.Duration { return cmp.Or(p.ReadyWithin, readyWithin) }

// waits tells whether an accident's time hasn't come; in.mu is held.
func (in *instance) waits(key string) bool {
	if in.accident.key != key {
		in.accident = accident{}
		return false
	}
	in.refused = in.accident.told()
	return time.Now().Before(in.accident.next)
}
