// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"encoding/json"
	"slices"
	"testing"

	"bastide.dev/controlplane"
	"bastide.dev/host"
	"bastide.dev/machine"
	"bastide.dev/node"
	"bastide.dev/store"
	"bastide.dev/store/memory"
)

// TestUntold: nobody counts as told for what was only asked of it.
func TestUntold(t *testing.T) {
	old, ca := []byte("old"), []byte("new")
	s := memory.New(100)
	put := func(key string, value any) int64 {
		t.Helper()
		data, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		revision, err := s.Put(t.Context(), key, data, store.Any)
		if err != nil {
			t.Fatal(err)
		}
		return revision
	}
	plane := func(id string, cloud []byte, phase controlplane.Phase, behind int64) {
		at := put(host.UnitKey("h", host.ControlPlaneUnit, id), controlplane.Spec{ID: id, Cloud: &controlplane.Cloud{CA: cloud}})
		put(host.ReportKey("h", host.ControlPlaneUnit, id), host.Report{Kind: host.ControlPlaneUnit, Name: id, Generation: at - behind, Applied: true, ControlPlane: &controlplane.Status{Phase: phase}})
	}
	plane("told", ca, planeReady, 0)
	plane("old", old, planeReady, 0)
	plane("starting", ca, "Starting", 0)
	plane("behind", ca, planeReady, 1)
	put(host.UnitKey("h", host.ControlPlaneUnit, "stopped"), controlplane.Spec{ID: "stopped", Stopped: true, Cloud: &controlplane.Cloud{CA: old}})
	put(host.UnitKey("h", host.ControlPlaneUnit, "going"), nil)
	put(host.UnitKey("other", host.ControlPlaneUnit, "elsewhere"), controlplane.Spec{ID: "elsewhere", Cloud: &controlplane.Cloud{CA: old}})

	box := func(id string, instanceCA, guest []byte, digest bool) {
		config, err := json.Marshal(node.Config{Hostname: id, InstanceCA: instanceCA})
		if err != nil {
			t.Fatal(err)
		}
		if digest {
			if guest, err = json.Marshal(node.Status{Config: node.Digest(config)}); err != nil {
				t.Fatal(err)
			}
		}
		at := put(host.UnitKey("h", host.MachineUnit, id), machine.Spec{ID: id, Files: []machine.File{{Path: node.ConfigPath, Data: config}}})
		put(host.ReportKey("h", host.MachineUnit, id), host.Report{Kind: host.MachineUnit, Name: id, Generation: at, Applied: true, Machine: &machine.Status{Guest: guest}})
	}
	box("m-told", ca, nil, true)
	box("m-old", old, nil, true)
	box("m-silent", ca, []byte("null"), false)
	box("m-lies", ca, []byte(`{"config":[]}`), false)
	box("m-vm", nil, []byte("null"), false) // a plain machine, which knows nothing of the instance

	want := []string{"controlplane/behind", "controlplane/old", "controlplane/starting", "machine/m-lies", "machine/m-old", "machine/m-silent"}
	got, err := Untold(t.Context(), s, "h", ca)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("untold are %q, not %q: %v", got, want, err)
	}
}
