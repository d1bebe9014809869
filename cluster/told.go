// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"bastide.dev/controlplane"
	"bastide.dev/host"
	"bastide.dev/machine"
	"bastide.dev/node"
	"bastide.dev/store"
)

// Untold are the control planes and machines of a host that don't yet go by ca
// as the instance's only authority: "controlplane/ID", "machine/ID", sorted. Those
// that should be stopped don't count.
func Untold(ctx context.Context, s store.Store, machine string, ca []byte) ([]string, error) {
	var untold []string
	for _, kind := range []host.Kind{host.ControlPlaneUnit, host.MachineUnit} {
		prefix := host.UnitKey(machine, kind, "")
		units, _, err := s.List(ctx, prefix)
		if err != nil {
			return nil, fmt.Errorf("units: %w", err)
		}
		reports, _, err := s.List(ctx, host.ReportKey(machine, kind, ""))
		if err != nil {
			return nil, fmt.Errorf("reports: %w", err)
		}
		answers := map[string]host.Report{}
		for _, r := range reports {
			var report host.Report
			if err := json.Unmarshal(r.Value, &report); err != nil {
				return nil, fmt.Errorf("report %s: %w", r.Key, err)
			}
			answers[strings.TrimPrefix(r.Key, host.ReportKey(machine, kind, ""))] = report
		}
		for _, u := range units {
			name := strings.TrimPrefix(u.Key, prefix)
			report := answers[name]
			report.Applied = report.Applied && report.Generation >= u.Revision
			if !bytes.Equal(u.Value, host.Tombstone) && !knows(kind, u.Value, report, ca) {
				untold = append(untold, string(kind)+"/"+name)
			}
		}
	}
	slices.Sort(untold)
	return untold, nil
}

func knows(kind host.Kind, spec []byte, report host.Report, ca []byte) bool {
	if kind == host.MachineUnit {
		return machineKnows(spec, report, ca)
	}
	var s controlplane.Spec
	if json.Unmarshal(spec, &s) != nil {
		return false
	}
	if s.Stopped {
		return true
	}
	right := (s.Cloud == nil || bytes.Equal(s.Cloud.CA, ca)) && (s.Directory == nil || bytes.Equal(s.Directory.CA, ca)) &&
		(s.WorkloadIdentity == nil || bytes.Equal(s.WorkloadIdentity.CA, ca))
	return right && report.Applied && report.ControlPlane != nil && report.ControlPlane.Phase == planeReady
}

// machineKnows believes a machine that it took its config on: it harms none but itself.
func machineKnows(spec []byte, report host.Report, ca []byte) bool {
	var s machine.Spec
	if json.Unmarshal(spec, &s) != nil {
		return false
	}
	if s.Stopped {
		return true
	}
	for _, f := range s.Files {
		var c node.Config
		if f.Path != node.ConfigPath || json.Unmarshal(f.Data, &c) != nil || len(c.InstanceCA) == 0 {
			continue
		}
		if !bytes.Equal(c.InstanceCA, ca) || !report.Applied || guest(report.Machine).Config != node.Digest(f.Data) {
			return false
		}
	}
	return true
}
