// SPDX-License-Identifier: Apache-2.0

package node

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"bastide.dev/machine"
)

// TestAStatusIsBounded: whatever it holds, it can be told, and shown on a terminal.
func TestAStatusIsBounded(t *testing.T) {
	evil := strings.Repeat("\x1b]0;<é&\"\\\x00", 1<<10)
	s := Status{Config: evil, Error: evil, Patch: &PatchStatus{Token: evil, Error: evil}}
	for i := range 10_000 {
		u := Update{fmt.Sprint(i, evil), evil, evil}
		s.Upgradable, s.Patch.Installed = append(s.Upgradable, u), append(s.Patch.Installed, u)
		s.RebootPackages = append(s.RebootPackages, evil)
	}
	data, err := json.Marshal(s.Bounded())
	if err != nil || len(data) > machine.GuestBytes {
		t.Errorf("%d bytes, %v", len(data), err)
	}
	if strings.ContainsAny(string(data), "\x1b<>&\x00é") || strings.Contains(string(data), `\u00`) {
		t.Errorf("%.300s", data)
	}
	if len(s.RebootPackages) != 10_000 || s.Patch.Token != evil {
		t.Error("the original was changed")
	}
}

// TestLive: who a node is, and where, isn't changed while it runs.
func TestLive(t *testing.T) {
	boot := Config{Hostname: "n0", CPUs: 2, ProviderID: "p", Network: PodNetwork{Plugin: "azure"}}
	c := Config{Hostname: "other", CPUs: 4, ProviderID: "q", Network: PodNetwork{Plugin: "none", MTU: 1400}, MaxPods: 9}.Live(boot)
	if c.Hostname != "n0" || c.CPUs != 2 || c.ProviderID != "p" || c.Network.Plugin != "azure" || c.Network.MTU != 1400 || c.MaxPods != 9 {
		t.Errorf("%+v", c)
	}
}
