// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"bastide.dev/dataplane"
	"bastide.dev/ruleset"
)

// renewal collects the networks whose back ends' health changed. Wishing never
// waits, for probers are waited for by who holds the Plane.
type renewal struct {
	woken chan struct{} // capacity 1

	mu     sync.Mutex // guards the rest
	wished map[string]bool
}

func newRenewal() *renewal {
	return &renewal{woken: make(chan struct{}, 1), wished: map[string]bool{}}
}

func (r *renewal) wish(vnet string) {
	r.mu.Lock()
	r.wished[vnet] = true
	r.mu.Unlock()
	select {
	case r.woken <- struct{}{}:
	default:
	}
}

func (r *renewal) take() map[string]bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	taken := r.wished
	r.wished = map[string]bool{}
	return taken
}

// Changed tells the IDs of networks whose status changed between two Applies:
// a back end became healthy or unhealthy. The kernel has it already; the next
// Apply reports it. Nobody needs to listen.
func (p *Plane) Changed() <-chan string { return p.changes }

// firstAnswers bounds how long the first Apply of a process waits for what
// probes say of networks that stand already: without them, it would send new
// connections to back ends that an earlier process knew to be unhealthy.
const firstAnswers = 250 * time.Millisecond

// adopt opens the networks that an earlier process left and asks their back
// ends, all at once.
func (p *Plane) adopt(c *dataplane.Config) error {
	type asked struct {
		prober *prober
		want   []target
	}
	var all []asked
	for i := range c.VNets {
		v := &c.VNets[i]
		want := targets(v)
		if p.vnets[v.ID] != nil || len(want) == 0 {
			continue
		}
		n, err := p.vnetRouter(v.ID)
		if err != nil {
			return fmt.Errorf("vnet %s: %w", v.ID, err)
		}
		if n.made {
			continue // there is nothing to ask yet
		}
		p.probe(v, n)
		all = append(all, asked{n.prober, want})
	}
	for end := time.Now().Add(firstAnswers); len(all) > 0 && time.Now().Before(end); time.Sleep(time.Millisecond) {
		all = slices.DeleteFunc(all, func(a asked) bool { return a.prober.heard(a.want) })
	}
	return nil
}

// refresh keeps networks up with their back ends' health until ctx ends.
func (p *Plane) refresh(ctx context.Context) {
	untold := map[string]bool{}
	for {
		var out chan string
		var next string
		for id := range untold {
			out, next = p.changes, id
			break
		}
		select {
		case <-ctx.Done():
			return
		case out <- next:
			delete(untold, next)
		case <-p.renew.woken:
			for id := range p.renew.take() {
				if err := p.refreshVNet(id); err != nil {
					p.log.Error("rules don't follow the health of back ends yet", "vnet", id, "error", err)
				}
				untold[id] = true
			}
		}
	}
}

// refreshVNet applies a network anew for its back ends' health.
func (p *Plane) refreshVNet(id string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.vnets[id]
	if n == nil || n.input.vnet == nil || n.prober == nil {
		return nil
	}
	err := p.program(n, p.config, false)
	if err == nil && !n.routed(&n.compiled) {
		err = n.route()
	}
	if err != nil {
		n.settled = false // the next Apply does all of it again
	}
	return err
}

// Counters are the kernel's counts of a network's rules, by what they come from.
func (p *Plane) Counters(vnet string) ([]ruleset.Counter, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.vnets[vnet]
	if n == nil {
		return nil, fmt.Errorf("counters: no vnet %s", vnet)
	}
	return n.fw.Counters()
}
