// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"strings"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
)

// The lock-out: after ten failures of one name from one address it is locked
// for a minute, then twice as long each time, at most an hour. One address that
// fails with many names is locked as well, so that a list of names doesn't help.
// Another address isn't locked, so that nobody can lock a user out from afar.
const (
	failuresPerName    = 10
	failuresPerAddress = 100
	lockFirst          = time.Minute
	lockMost           = time.Hour
	forgetAfter        = 10 * time.Minute
)

// guard counts failed sign-ins, in this process: a replica's restart forgets them.
type guard struct {
	now func() time.Time

	mu     sync.Mutex // guards counts' entries
	counts *lru.Cache[string, *failures]
}

type failures struct {
	count  int
	last   time.Time
	locked time.Time // until
	locks  int
}

func newGuard(now func() time.Time) *guard {
	counts, _ := lru.New[string, *failures](16384) // fails for a size below 1 only
	return &guard{now: now, counts: counts}
}

func (g *guard) keys(name, address string) (string, string) {
	return strings.ToLower(name) + "\x00" + address, "\x00" + address
}

// locked says how long a sign-in has to wait, 0 when it may be tried.
func (g *guard) locked(name, address string) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	var wait time.Duration
	one, all := g.keys(name, address)
	for _, key := range []string{one, all} {
		if f, ok := g.counts.Get(key); ok {
			wait = max(wait, f.locked.Sub(g.now()))
		}
	}
	return wait
}

// tryKey says how long something under a key of the caller's own has to wait, 0
// when it may be tried: then it counts as failed until clear is called, so that
// many at once are no way around the limit.
func (g *guard) tryKey(key string, limit int) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	if f, ok := g.counts.Get(key); ok && f.locked.After(g.now()) {
		return f.locked.Sub(g.now())
	}
	g.count(key, limit)
	return 0
}

// clear forgets the failures of a key.
func (g *guard) clear(key string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.counts.Remove(key)
}

func (g *guard) failed(name, address string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	one, all := g.keys(name, address)
	g.count(one, failuresPerName)
	g.count(all, failuresPerAddress)
}

func (g *guard) count(key string, limit int) {
	f, ok := g.counts.Get(key)
	if !ok {
		f = &failures{}
		g.counts.Add(key, f)
	}
	now := g.now()
	if now.Sub(f.last) > forgetAfter {
		f.count = 0
	}
	if now.Sub(f.last) > lockMost {
		f.locks = 0
	}
	f.last = now
	if f.count++; f.count >= limit {
		f.locked = now.Add(min(lockFirst<<min(f.locks, 6), lockMost))
		f.count, f.locks = 0, f.locks+1
	}
}

// succeeded forgets the name's failures; the address's stay, or one known
// password would buy any number of guesses.
func (g *guard) succeeded(name, address string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	one, _ := g.keys(name, address)
	g.counts.Remove(one)
}
