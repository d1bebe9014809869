// SPDX-License-Identifier: Apache-2.0

// Package reconcile holds what every control loop of Bastide shares: a queue of
// keys that coalesces and backs off, the loop that works on it, and the group
// that starts components together and stops them together.
//
// Every package may import it; it imports the standard library alone.
package reconcile

import (
	"context"
	"sync"
	"time"
)

// Backoff says how long a key waits after its n-th failure in a row: Min,
// doubled each time, up to Max.
type Backoff struct {
	Min, Max time.Duration
}

// After is the wait after the n-th failure, n from 1.
func (b Backoff) After(n int) time.Duration {
	wait := b.Min
	for ; n > 1 && wait < b.Max; n-- {
		wait *= 2
	}
	return min(wait, b.Max)
}

// Queue holds keys that need work. A key is in it once however often it was
// added, and is worked on by one worker at a time: added meanwhile, it comes
// again afterwards. Safe for concurrent use.
type Queue struct {
	backoff Backoff

	mu       sync.Mutex // guards what follows
	waiting  []string
	queued   map[string]bool // in waiting, or to be put there when its run ends
	running  map[string]bool
	failures map[string]int
	timers   map[string]*timer
	wake     chan struct{} // holds one token while waiting isn't empty
}

type timer struct {
	*time.Timer
	due time.Time
}

// NewQueue makes an empty queue. A zero Backoff becomes 50 ms up to 1 minute.
func NewQueue(backoff Backoff) *Queue {
	if backoff.Min <= 0 {
		backoff.Min = 50 * time.Millisecond
	}
	if backoff.Max < backoff.Min {
		backoff.Max = max(time.Minute, backoff.Min)
	}
	return &Queue{
		backoff:  backoff,
		queued:   map[string]bool{},
		running:  map[string]bool{},
		failures: map[string]int{},
		timers:   map[string]*timer{},
		wake:     make(chan struct{}, 1),
	}
}

// Add asks for work on key now; back-off doesn't hold it up, since something
// changed.
func (q *Queue) Add(key string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.add(key)
}

// AddAfter asks for work on key after d. Of several the earliest counts.
func (q *Queue) AddAfter(key string, d time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.addAfter(key, d)
}

func (q *Queue) addAfter(key string, d time.Duration) {
	if d <= 0 {
		q.add(key)
		return
	}
	due := time.Now().Add(d)
	if t := q.timers[key]; t != nil {
		if !due.Before(t.due) {
			return
		}
		t.Stop()
	}
	t := &timer{due: due}
	q.timers[key] = t
	t.Timer = time.AfterFunc(d, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		if q.timers[key] == t { // else it was replaced while it fired
			delete(q.timers, key)
			q.add(key)
		}
	})
}

func (q *Queue) add(key string) {
	if q.queued[key] {
		return
	}
	q.queued[key] = true
	if !q.running[key] {
		q.waiting = append(q.waiting, key)
		q.signal()
	}
}

func (q *Queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// get waits for a key to work on; false when ctx ends.
func (q *Queue) get(ctx context.Context) (string, bool) {
	for {
		select {
		case <-ctx.Done():
			return "", false
		case <-q.wake:
		}
		if key, ok := q.take(); ok && ctx.Err() == nil {
			return key, true
		}
	}
}

func (q *Queue) take() (string, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == 0 {
		return "", false
	}
	key := q.waiting[0]
	q.waiting = q.waiting[1:]
	delete(q.queued, key)
	q.running[key] = true
	if len(q.waiting) > 0 {
		q.signal()
	}
	return key, true
}

// done ends the work on key: it comes again after a failure's back-off, after
// again, or when it was added meanwhile. It returns the wait.
func (q *Queue) done(key string, again time.Duration, failed bool) time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.running, key)
	if q.queued[key] {
		q.waiting = append(q.waiting, key)
		q.signal()
	}
	if failed {
		q.failures[key]++
		again = q.backoff.After(q.failures[key])
	} else {
		delete(q.failures, key)
	}
	if again > 0 {
		q.addAfter(key, again)
	}
	return again
}

// stop ends all timers.
func (q *Queue) stop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for key, t := range q.timers {
		t.Stop()
		delete(q.timers, key)
	}
}
