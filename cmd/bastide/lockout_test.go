// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestLockedOut(t *testing.T) {
	machine := netip.MustParseAddr("192.88.99.1")
	for _, c := range []struct {
		access string
		want   string
	}{
		{`null`, ""},
		{`{"authorizedIPRanges": []}`, ""},
		{`{"enablePrivateCluster": true}`, ""},
		{`{"authorizedIPRanges": ["198.51.100.0/24", "192.88.99.0/25"]}`, ""},
		{`{"authorizedIPRanges": ["192.88.99.1/32"]}`, ""},
		{`{"authorizedIPRanges": ["192.88.99.1"]}`, ""},
		{`{"authorizedIPRanges": ["198.51.100.0/24", "192.88.99.2"]}`,
			"az aks update -g rg -n prod --api-server-authorized-ip-ranges 198.51.100.0/24,192.88.99.2,192.88.99.1/32"},
	} {
		var view clusterView
		text := `{"id": "/subscriptions/s/resourcegroups/rg/providers/Microsoft.ContainerService/managedClusters/prod", "name": "prod", "properties": {"apiServerAccessProfile": ` + c.access + `}}`
		if err := json.Unmarshal([]byte(text), &view); err != nil {
			t.Fatal(err)
		}
		got := lockedOut(machine, []clusterView{view})
		if c.want == "" && len(got) > 0 || c.want != "" && (len(got) != 1 || !strings.HasSuffix(got[0], c.want)) {
			t.Errorf("%s: %q", c.access, got)
		}
	}
}

func TestStatusPrintsWarnings(t *testing.T) {
	var out bytes.Buffer
	cmd := &cobra.Command{}
	cmd.SetOut(&out)
	if err := printStatus(cmd, statusView{Instance: "i", Running: true, Warnings: []string{"the ranges of prod leave out this machine"}}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "\nWarning: the ranges of prod leave out this machine\n") {
		t.Errorf("%s", out.String())
	}
}
