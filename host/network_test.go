// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"

	"bastide.dev/dataplane"
)

// probing is a network whose back ends' health changes by itself.
type probing struct {
	network
	changed   chan string
	unhealthy map[string][]string
}

func (p *probing) Changed() <-chan string { return p.changed }

func (p *probing) Apply(ctx context.Context, c dataplane.Config, netns func(string) string) (map[string]dataplane.VNetStatus, error) {
	status, err := p.network.Apply(ctx, c, netns)
	for id, s := range status {
		s.Unhealthy = p.unhealthy
		status[id] = s
	}
	return status, err
}

func TestHealthIsReportedWhenItChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		p := &probing{network: network{w}, changed: make(chan string)}
		ctx, cancel := context.WithCancel(t.Context())
		agent := NewAgent(Config{Link: w, Network: p, ControlPlanes: planes{w}, Machines: machines{w}, Log: slog.New(slog.DiscardHandler)})
		done := make(chan error, 1)
		go func() { done <- agent.Run(ctx) }()
		w.units <- unit(t, VNetUnit, "v1", 1, vnet)
		w.units <- Unit{Synced: true}
		synctest.Wait()
		if report := w.reports[unitKey{VNetUnit, "v1"}]; report.VNet == nil || report.VNet.Unhealthy != nil {
			t.Fatalf("before: %+v", report)
		}
		p.unhealthy = map[string][]string{"health": {"n1"}}
		p.changed <- "v1"
		synctest.Wait()
		if report := w.reports[unitKey{VNetUnit, "v1"}]; report.VNet == nil || !slices.Equal(report.VNet.Unhealthy["health"], []string{"n1"}) {
			t.Errorf("after: %+v", report)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}
