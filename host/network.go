// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"bastide.dev/dataplane"
)

// networkKeeper keeps all network units with one Apply of their sum: changes
// that come together are applied together.
type networkKeeper struct {
	network Network
	netns   func(machine string) string
	outbox  *outbox
	log     *slog.Logger
	woken   chan struct{} // capacity 1

	mu      sync.Mutex // guards the rest
	units   map[unitKey]Unit
	ready   bool  // the first full listing is there: nothing is applied before
	wanted  int64 // grows with each wish for an Apply
	applied int64 // the wish that the last finished Apply answered
	nics    map[string]nicRef
	err     error
	done    chan struct{} // closed and replaced after each Apply
}

// nicRef is an interface that stands in the kernel, by whose it is.
type nicRef struct{ machine, namespace string }

func newNetworkKeeper(n Network, netns func(string) string, out *outbox, log *slog.Logger) *networkKeeper {
	return &networkKeeper{network: n, netns: netns, outbox: out, log: log, woken: make(chan struct{}, 1),
		units: map[unitKey]Unit{}, nics: map[string]nicRef{}, done: make(chan struct{})}
}

func (n *networkKeeper) set(u Unit) {
	n.mu.Lock()
	n.units[unitKey{u.Kind, u.Name}] = u
	n.mu.Unlock()
	n.kick()
}

// synced marks the end of a full listing: units that aren't in it are gone.
func (n *networkKeeper) synced(seen map[unitKey]bool) {
	n.mu.Lock()
	for key := range n.units {
		if !seen[key] {
			delete(n.units, key)
		}
	}
	n.ready = true
	n.mu.Unlock()
	n.kick()
}

// kick asks for an Apply and returns the number of the wish.
func (n *networkKeeper) kick() int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.wanted++
	select {
	case n.woken <- struct{}{}:
	default:
	}
	return n.wanted
}

// changing is a Network whose status changes between two Applies, too: it
// tells the IDs of the VNets. The next Apply reports what changed.
type changing interface {
	Changed() <-chan string
}

func (n *networkKeeper) run(ctx context.Context) {
	var retry backoff
	var changed <-chan string
	if c, ok := n.network.(changing); ok {
		changed = c.Changed()
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
			n.kick()
			continue
		case <-n.woken:
		}
		if err := n.apply(ctx); err != nil && ctx.Err() == nil {
			n.log.Warn("network not applied, will try again", "error", err)
			retry.wait(ctx)
			n.kick()
			continue
		}
		retry.reset()
	}
}

func (n *networkKeeper) apply(ctx context.Context) error {
	n.mu.Lock()
	wish, ready := n.wanted, n.ready
	config, units, err := n.sum()
	n.mu.Unlock()
	if !ready {
		return nil
	}
	var status map[string]dataplane.VNetStatus
	if err == nil {
		status, err = n.network.Apply(ctx, config, n.netns)
	}
	n.finish(wish, config, status, err)
	n.report(units, status, err)
	return err
}

// sum makes one configuration of all units; the caller holds mu.
func (n *networkKeeper) sum() (dataplane.Config, []Unit, error) {
	var config dataplane.Config
	var units []Unit
	for _, u := range n.units {
		units = append(units, u)
		if u.Deleted {
			continue
		}
		var err error
		if u.Kind == EdgeUnit {
			err = json.Unmarshal(u.Spec, &config.Edge)
		} else {
			var vnet dataplane.VNet
			err = json.Unmarshal(u.Spec, &vnet)
			config.VNets = append(config.VNets, vnet)
		}
		if err != nil {
			return config, units, fmt.Errorf("unit %s %s: %w", u.Kind, u.Name, err)
		}
	}
	slices.SortFunc(config.VNets, func(a, b dataplane.VNet) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	return config, units, nil
}

func (n *networkKeeper) finish(wish int64, config dataplane.Config, status map[string]dataplane.VNetStatus, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.applied, n.err = wish, err
	if wholly(err) == nil {
		n.nics = map[string]nicRef{}
		for _, vnet := range config.VNets {
			for _, nic := range vnet.NICs {
				if slices.Contains(status[vnet.ID].NICs, nic.ID) {
					n.nics[nic.ID] = nicRef{nic.Machine, nic.Namespace}
				}
			}
		}
	}
	close(n.done)
	n.done = make(chan struct{})
}

func (n *networkKeeper) report(units []Unit, status map[string]dataplane.VNetStatus, err error) {
	for _, u := range units {
		err := troubleOf(u, err)
		report := Report{Kind: u.Kind, Name: u.Name, Generation: u.Generation, Applied: err == nil && !u.Deleted, Gone: err == nil && u.Deleted}
		if err != nil {
			report.Error = err.Error()
		}
		if s, ok := status[u.Name]; ok && u.Kind == VNetUnit {
			report.VNet = &s
		}
		n.outbox.put(report)
		if report.Gone {
			n.drop(u)
		}
	}
}

// wholly is err, but nil when it is some networks' trouble alone.
func wholly(err error) error {
	var trouble *dataplane.Trouble
	if errors.As(err, &trouble) && trouble.Whole == nil {
		return nil
	}
	return err
}

// troubleOf is what an error of Apply means for one unit: one network's trouble
// isn't another's.
func troubleOf(u Unit, err error) error {
	var trouble *dataplane.Trouble
	if whole := wholly(err); whole != nil || !errors.As(err, &trouble) || u.Kind != VNetUnit {
		return whole
	}
	return trouble.VNets[u.Name]
}

// drop forgets a unit that is gone, unless it came back meanwhile.
func (n *networkKeeper) drop(u Unit) {
	n.mu.Lock()
	defer n.mu.Unlock()
	key := unitKey{u.Kind, u.Name}
	if n.units[key].Generation == u.Generation {
		delete(n.units, key)
	}
}

// attached waits for an Apply from now on that leaves an interface in place
// which match accepts.
func (n *networkKeeper) attached(ctx context.Context, match func(nicRef) bool) error {
	wish := n.kick()
	for {
		n.mu.Lock()
		done, answered, err := n.done, n.applied >= wish, n.err
		found := false
		for _, nic := range n.nics {
			found = found || match(nic)
		}
		n.mu.Unlock()
		if answered && found && wholly(err) == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			if err != nil {
				return err
			}
			return ctx.Err()
		case <-done:
		}
	}
}
