// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/host"
	"bastide.dev/store"
)

// A transaction's bounds: the service's etcd takes 1,024 changes and 1.5 MiB.
const (
	txnChanges = 1000
	txnBytes   = 1 << 20
)

// unitKey names a unit among a host's.
type unitKey struct {
	kind host.Kind
	name string
}

// hosted is what the store has of a cluster on its host: units and reports.
type hosted struct {
	units   map[unitKey]store.Record
	reports map[unitKey]host.Report
}

// tombstoned tells whether the host was asked to remove the unit.
func (h *hosted) tombstoned(k unitKey) bool { return bytes.Equal(h.units[k].Value, host.Tombstone) }

// answer is the report on the unit as it stands now; false as long as there is none.
func (h *hosted) answer(k unitKey) (host.Report, bool) {
	unit, exists := h.units[k]
	report, answered := h.reports[k]
	return report, exists && answered && report.Generation >= unit.Revision
}

// sorted are the units' keys in a fixed order.
func (h *hosted) sorted() []unitKey {
	keys := make([]unitKey, 0, len(h.units))
	for k := range h.units {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b unitKey) int {
		return strings.Compare(string(a.kind)+"/"+a.name, string(b.kind)+"/"+b.name)
	})
	return keys
}

// hosted reads a cluster's units and reports.
func (p *Provider) hosted(ctx context.Context, s *clusterState) (*hosted, error) {
	h := &hosted{units: map[unitKey]store.Record{}, reports: map[unitKey]host.Report{}}
	for _, kind := range []host.Kind{host.ControlPlaneUnit, host.MachineUnit} {
		name := s.ID // of control planes there is one
		if kind == host.MachineUnit {
			name += "-"
		}
		if err := p.readUnits(ctx, h, s.Host, kind, name); err != nil {
			return nil, fmt.Errorf("units of %s: %w", s.ID, err)
		}
	}
	return h, nil
}

func (p *Provider) readUnits(ctx context.Context, h *hosted, machine string, kind host.Kind, name string) error {
	units, _, err := p.Store.List(ctx, host.UnitKey(machine, kind, name))
	if err != nil {
		return err
	}
	reports, _, err := p.Store.List(ctx, host.ReportKey(machine, kind, name))
	if err != nil {
		return err
	}
	for _, record := range units {
		h.units[unitKey{kind, strings.TrimPrefix(record.Key, host.UnitKey(machine, kind, ""))}] = record
	}
	for _, record := range reports {
		var report host.Report
		if err := json.Unmarshal(record.Value, &report); err != nil {
			return fmt.Errorf("report %s: %w", record.Key, err)
		}
		h.reports[unitKey{kind, strings.TrimPrefix(record.Key, host.ReportKey(machine, kind, ""))}] = report
	}
	return nil
}

// difference are the changes that make the stored units the compiled ones.
func (h *hosted) difference(machine string, units []unit) ([]store.Change, error) {
	var changes []store.Change
	wanted := map[unitKey]bool{}
	for _, u := range units {
		k := unitKey{u.kind, u.name}
		wanted[k] = true
		value, err := json.Marshal(u.spec)
		if err != nil {
			return nil, fmt.Errorf("unit %s %s: %w", u.kind, u.name, err)
		}
		if stored := h.units[k]; !bytes.Equal(stored.Value, value) {
			changes = append(changes, store.Change{Key: host.UnitKey(machine, u.kind, u.name), Value: value, Revision: stored.Revision})
		}
	}
	for _, k := range h.sorted() {
		if !wanted[k] && !h.tombstoned(k) {
			changes = append(changes, h.bury(machine, k))
		}
	}
	return append(changes, h.gone(machine, wanted)...), nil
}

// bury is the change that asks the host to remove a unit.
func (h *hosted) bury(machine string, k unitKey) store.Change {
	return store.Change{Key: host.UnitKey(machine, k.kind, k.name), Value: host.Tombstone, Revision: h.units[k].Revision}
}

// gone are the changes that forget the units of which the host has nothing
// left, but for those that are wanted again.
func (h *hosted) gone(machine string, wanted map[unitKey]bool) []store.Change {
	var changes []store.Change
	for _, k := range h.sorted() {
		if report, answered := h.answer(k); !wanted[k] && h.tombstoned(k) && answered && report.Gone {
			changes = append(changes,
				store.Change{Key: host.UnitKey(machine, k.kind, k.name), Revision: h.units[k].Revision},
				store.Change{Key: host.ReportKey(machine, k.kind, k.name), Revision: store.Any})
		}
	}
	return changes
}

// write stores changes on condition that the cluster's document hasn't changed,
// in as few transactions as may be; each of them leaves the store consistent.
func (p *Provider) write(ctx context.Context, doc *arm.Document, changes []store.Change) error {
	guard := store.Change{Key: arm.DocumentKey(doc.ID), Revision: doc.Revision, Check: true}
	for _, chunk := range chunks(changes) {
		guarded := chunk
		if !slices.ContainsFunc(changes, func(c store.Change) bool { return c.Key == guard.Key }) {
			guarded = append([]store.Change{guard}, chunk...)
		}
		if _, err := p.Store.Txn(ctx, guarded...); err != nil {
			return err
		}
	}
	return nil
}

// chunks cuts changes into what a transaction takes. Addresses come before units
// in a plan, and so into the first, beside the documents that hold them.
func chunks(changes []store.Change) [][]store.Change {
	var all [][]store.Change
	start, size := 0, 0
	for i, c := range changes {
		if i > start && (i-start >= txnChanges || size+len(c.Value) > txnBytes) {
			all = append(all, changes[start:i])
			start, size = i, 0
		}
		size += len(c.Key) + len(c.Value)
	}
	return append(all, changes[start:])
}

// raced tells whether a write lost against another: look again.
func raced(err error) bool { return fault.Is(err, fault.Precondition) }
