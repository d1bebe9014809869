// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
	"time"
)

func TestPrintMaintenancePlan(t *testing.T) {
	start := time.Date(2027, 3, 6, 23, 0, 0, 0, time.FixedZone("", 3600))
	end := start.Add(4 * time.Hour)
	var upgrade, none plannedView
	p := &upgrade.Properties
	p.Channel, p.Configuration, p.Start, p.End = "rapid", "aksManagedAutoUpgradeSchedule", &start, &end
	p.Action, p.Text, p.Blocked = "Upgrade", "upgrade from 1.35.4 to 1.36.3", "the cluster is stopped"
	none.Properties.Channel, none.Properties.Action, none.Properties.Text = "None", "None", "the channel is None"
	var out strings.Builder
	if err := printMaintenancePlan(&out, []plannedView{none, upgrade}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Sat 2027-03-06 22:00", "Sun 2027-03-07 02:00", "(waits: the cluster is stopped)", "aksManagedAutoUpgradeSchedule", "the channel is None"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q isn't in\n%s", want, out.String())
		}
	}
}
