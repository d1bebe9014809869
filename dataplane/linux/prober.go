// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"context"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"bastide.dev/dataplane"
)

const (
	// A back end that never was healthy is asked often, then ever less often up
	// to its interval: how soon a new one answers depends on its first success.
	eager        = 100 * time.Millisecond
	eagerTimeout = 300 * time.Millisecond
	slackening   = 8 // a pause is this part of the time it took so far
	// Results that come together are told together.
	together = 5 * time.Millisecond
	// maxProbes bounds those of one network that are under way.
	maxProbes = 256
)

// target is a back end as one probe sees it.
type target struct {
	probe   dataplane.Probe
	nic     string
	address netip.Addr
}

// prober keeps one network's back ends under watch, from inside its router's
// namespace. set and close are for one caller at a time.
type prober struct {
	ns      *os.File
	changed func() // called when a back end's health changed; mustn't wait
	slots   chan struct{}
	ctx     context.Context
	cancel  context.CancelFunc
	ended   sync.WaitGroup

	running map[target]context.CancelFunc

	mu      sync.Mutex // guards the rest
	health  dataplane.Health
	telling bool
}

func newProber(ns *os.File, changed func()) *prober {
	ctx, cancel := context.WithCancel(context.Background())
	return &prober{ns: ns, changed: changed, slots: make(chan struct{}, maxProbes), ctx: ctx, cancel: cancel,
		running: map[target]context.CancelFunc{}, health: dataplane.Health{}}
}

// targets lists what a network's balancers want probed, each once.
func targets(v *dataplane.VNet) []target {
	probes := map[string]dataplane.Probe{}
	for _, p := range v.Probes {
		probes[p.ID] = p
	}
	at := map[string]netip.Addr{}
	for _, nic := range v.NICs {
		at[nic.ID] = nic.Address
	}
	seen := map[target]bool{}
	var all []target
	for _, b := range v.Balancers {
		p, known := probes[b.Probe]
		for _, nic := range b.Backends {
			t := target{p, nic, at[nic]}
			if known && t.address.IsValid() && !seen[t] {
				seen[t] = true
				all = append(all, t)
			}
		}
	}
	return all
}

// set makes the targets those that are watched; what is known of one stays.
func (p *prober) set(want []target) {
	known := map[[2]string]bool{}
	for _, t := range want {
		known[[2]string{t.probe.ID, t.nic}] = true
	}
	for t, stop := range p.running {
		if !slices.Contains(want, t) {
			stop()
			delete(p.running, t)
		}
	}
	p.mu.Lock()
	for probe, nics := range p.health {
		for nic := range nics {
			if !known[[2]string{probe, nic}] {
				delete(nics, nic)
			}
		}
		if len(nics) == 0 {
			delete(p.health, probe)
		}
	}
	p.mu.Unlock()
	for _, t := range want {
		if p.running[t] != nil {
			continue
		}
		ctx, stop := context.WithCancel(p.ctx)
		p.running[t] = stop
		p.ended.Go(func() { p.watch(ctx, t) })
	}
}

// heard tells whether there is a first answer of each target.
func (p *prober) heard(want []target) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range want {
		if _, known := p.health[t.probe.ID][t.nic]; !known {
			return false
		}
	}
	return true
}

func (p *prober) close() {
	p.cancel()
	p.ended.Wait()
}

// known is a copy of what is known.
func (p *prober) known() dataplane.Health {
	p.mu.Lock()
	defer p.mu.Unlock()
	health := make(dataplane.Health, len(p.health))
	for probe, nics := range p.health {
		copied := make(map[string]bool, len(nics))
		for nic, healthy := range nics {
			copied[nic] = healthy
		}
		health[probe] = copied
	}
	return health
}

// tell notes a back end's health.
func (p *prober) tell(ctx context.Context, t target, healthy bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if ctx.Err() != nil {
		return // nobody asks any more
	}
	nics := p.health[t.probe.ID]
	if nics == nil {
		nics = map[string]bool{}
		p.health[t.probe.ID] = nics
	}
	if before, known := nics[t.nic]; known && before == healthy {
		return
	}
	nics[t.nic] = healthy
	if p.telling {
		return
	}
	p.telling = true
	p.ended.Go(func() {
		pause(p.ctx, together)
		p.mu.Lock()
		p.telling = false
		p.mu.Unlock()
		p.changed()
	})
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// watch asks one back end again and again.
func (p *prober) watch(ctx context.Context, t target) {
	interval := max(time.Duration(t.probe.Interval)*time.Second, time.Second)
	needed := max(t.probe.Failures, 1)
	begun := time.Now()
	ever, failures := false, 0
	for ctx.Err() == nil {
		every, timeout := interval, interval
		if !ever {
			every = min(max(time.Since(begun)/slackening, eager), interval)
			timeout = min(max(every, eagerTimeout), interval)
		}
		next := time.Now().Add(every)
		if p.once(ctx, t, timeout) == nil {
			ever, failures = true, 0
			p.tell(ctx, t, true)
		} else if failures++; !ever || failures >= needed {
			p.tell(ctx, t, false)
		}
		pause(ctx, time.Until(next))
	}
}

func (p *prober) once(ctx context.Context, t target, timeout time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case p.slots <- struct{}{}:
	}
	defer func() { <-p.slots }()
	return probe(ctx, p.ns, t, timeout)
}
