// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"bastide.dev/arm"
	"bastide.dev/controlplane"
	"bastide.dev/fault"
	"bastide.dev/maintenance"
	"bastide.dev/resource"
)

// stock is a catalogue that gets newer.
type stock struct {
	kubernetes []string
	image      string
}

func (s *stock) Kubernetes() []string { return s.kubernetes }

func (s *stock) Parts(version string) (Parts, error) {
	return Parts{Etcd: "3.6.16", Image: s.image, Layers: []string{"runtime@1", "kubernetes@" + version}}, nil
}

func (*stock) HasImage(version string) bool { return strings.HasPrefix(version, "12.") }

// calm is a cluster with channels whose clock a test sets.
type calm struct {
	*world
	shelf *stock
	now   time.Time
	begun []string // by maintain: when and what
}

func newCalm(t *testing.T, profile string, now string) *calm {
	t.Helper()
	c := &calm{world: newWorld(t), shelf: &stock{kubernetes: []string{"1.35.4"}, image: "12.1"}}
	c.p.Catalogue = c.shelf
	c.set(now)
	c.p.Now = func() time.Time { return c.now }
	c.must("PUT", testCluster, strings.Replace(azBody(1), `"enableRBAC"`, `"autoUpgradeProfile":`+profile+`,"enableRBAC"`, 1), resource.Succeeded)
	return c
}

func (c *calm) set(text string) {
	at, err := time.Parse("2006-01-02 15:04", text)
	if err != nil {
		c.t.Fatal(err)
	}
	c.now = at
}

func (c *calm) configure(name, body string) {
	c.t.Helper()
	if _, _, err := c.do(c.t.Context(), "PUT", testCluster+"/maintenanceConfigurations/"+name, body); err != nil {
		c.t.Fatal(err)
	}
}

func (c *calm) whole() *whole {
	c.t.Helper()
	w, err := c.p.load(c.t.Context(), c.document(c.t.Context(), resource.MustParseID(testCluster)))
	if err != nil {
		c.t.Fatal(err)
	}
	return w
}

// look is one look of the scheduler; it tells when the next is due. What began is
// noted, and an operation ended at once: how it is carried out is another test's.
func (c *calm) look(r *runner) time.Duration {
	c.t.Helper()
	before := c.whole()
	again, err := r.attend(c.t.Context(), before)
	if err != nil {
		c.t.Fatal(err)
	}
	after := c.whole()
	if n := len(after.state.Maintained); n > 0 && after.doc.Revision != before.doc.Revision {
		last := after.state.Maintained[n-1]
		c.begun = append(c.begun, c.now.UTC().Format("2006-01-02 15:04 ")+last.What+last.Refused)
	}
	if id := after.doc.Operation; id != "" {
		if err := c.p.ops.Finish(c.t.Context(), id, arm.Ending{}); err != nil {
			c.t.Fatal(err)
		}
	}
	return again
}

// until lets time pass as the scheduler asks for it; every few looks the service
// is started anew.
func (c *calm) until(text string) {
	c.t.Helper()
	end := &calm{world: c.world}
	end.set(text)
	r := newRunner(c.p)
	for looks := 1; c.now.Before(end.now); looks++ {
		again := c.look(r)
		if again <= 0 {
			c.t.Fatalf("at %s the next look is in %v", c.now, again)
		}
		c.now = c.now.Add(again)
		if looks%100 == 0 {
			r = newRunner(c.p)
		}
	}
	c.now = end.now
}

// A year of each form: in each window once, at its very begin, and never else.
func TestAYearOfPatchNights(t *testing.T) {
	window := func(schedule, rest string) string {
		return `{"properties":{"maintenanceWindow":{"durationHours":4,"startTime":"01:30","startDate":"2027-01-01","schedule":` + schedule + rest + `}}}`
	}
	for _, f := range []struct {
		name, config, body string
		nights             int
		first, last        string
	}{
		{"daily", maintenance.NodeOS, window(`{"daily":{"intervalDays":2}}`, ""), 183, "2027-01-01 01:30", "2027-12-31 01:30"},
		{"weekly", maintenance.NodeOS, window(`{"weekly":{"intervalWeeks":1,"dayOfWeek":"Sunday"}}`, `,"utcOffset":"+05:30"`), 52, "2027-01-02 20:00", "2027-12-25 20:00"},
		{"every fourth week", maintenance.NodeOS, window(`{"weekly":{"intervalWeeks":4,"dayOfWeek":"Friday"}}`, ""), 14, "2027-01-01 01:30", "2027-12-31 01:30"},
		{"a day that months lack", maintenance.NodeOS, window(`{"absoluteMonthly":{"intervalMonths":1,"dayOfMonth":31}}`, ""), 12, "2027-01-31 01:30", "2027-12-31 01:30"},
		{"last Friday", maintenance.NodeOS, window(`{"relativeMonthly":{"intervalMonths":2,"weekIndex":"Last","dayOfWeek":"Friday"}}`, ""), 6, "2027-01-29 01:30", "2027-11-26 01:30"},
		{"blackouts", maintenance.NodeOS, window(`{"daily":{"intervalDays":1}}`, `,"notAllowedDates":[{"start":"2027-02-01","end":"2027-11-30"}]`), 62, "2027-01-01 01:30", "2027-12-31 01:30"},
		{"hours of the week", maintenance.Default, `{"properties":{"timeInWeek":[{"day":"Saturday","hourSlots":[22,23]},{"day":"Sunday","hourSlots":[0,1]}],"notAllowedTime":[{"start":"2027-01-01T00:00:00Z","end":"2027-01-31T23:00:00Z"}]}}`,
			47, "2027-02-06 22:00", "2027-12-25 22:00"},
	} {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			c := newCalm(t, `{"nodeOSUpgradeChannel":"SecurityPatch"}`, "2026-12-31 23:00")
			c.configure(f.config, f.body)
			c.until("2028-01-01 00:00")
			if len(c.begun) != f.nights {
				t.Fatalf("%d nights, want %d: %v", len(c.begun), f.nights, c.begun)
			}
			if !strings.HasPrefix(c.begun[0], f.first) || !strings.HasPrefix(c.begun[len(c.begun)-1], f.last) {
				t.Errorf("from %s to %s, want from %s to %s", c.begun[0], c.begun[len(c.begun)-1], f.first, f.last)
			}
			if p := c.state().Patch; !strings.HasPrefix(p.Token, f.last[:10]) || p.Until.Format("2006-01-02") < f.last[:10] {
				t.Errorf("the last order is %+v", p)
			}
			if n := len(c.state().Maintained); n > maintainedMost {
				t.Errorf("%d windows are remembered", n)
			}
		})
	}
}

func TestUpgradesWaitForTheirWindow(t *testing.T) {
	c := newCalm(t, `{"upgradeChannel":"rapid","nodeOSUpgradeChannel":"None"}`, "2027-03-01 12:00") // a Monday
	c.configure(maintenance.Cluster, `{"properties":{"maintenanceWindow":{"durationHours":4,"startTime":"02:00","startDate":"2027-01-01","schedule":{"weekly":{"intervalWeeks":1,"dayOfWeek":"Sunday"}}}}}`)
	c.until("2027-03-08 00:00")
	if len(c.begun) != 0 {
		t.Fatalf("with nothing newer: %v", c.begun)
	}
	c.shelf.kubernetes = []string{"1.35.4", "1.35.5", "1.36.3", "1.37.0"}
	c.until("2027-03-31 00:00")
	want := []string{"2027-03-14 02:00 upgrade from 1.35.4 to 1.36.3", "2027-03-21 02:00 upgrade from 1.36.3 to 1.37.0"}
	if fmt.Sprint(c.begun) != fmt.Sprint(want) {
		t.Fatalf("begun %v, want %v", c.begun, want)
	}
	w := c.whole()
	if v := version(t, "1.37.0"); w.state.Desired.Version != v || w.pools[0].Pool.Version != v || w.pools[0].Target.Layers[1] != "kubernetes@1.37.0" {
		t.Errorf("the cluster is to be %s, its pool %s of %v", w.state.Desired.Version, w.pools[0].Pool.Version, w.pools[0].Target)
	}
}

func TestNodeImagesComeWeekly(t *testing.T) {
	c := newCalm(t, `{"nodeOSUpgradeChannel":"NodeImage"}`, "2027-03-01 12:00")
	c.until("2027-03-10 00:00")
	if len(c.begun) != 0 {
		t.Fatalf("with the newest image: %v", c.begun)
	}
	c.shelf.image = "12.2"
	c.until("2027-03-31 00:00")
	if len(c.begun) != 1 || !strings.HasSuffix(c.begun[0], "node image Debian-12.2 of agent pools nodepool1") {
		t.Fatalf("begun %v", c.begun)
	}
	if image := c.whole().pools[0].Target.Image; image != "12.2" {
		t.Errorf("the pool's target is %s", image)
	}
}

func TestWhatStandsInTheWay(t *testing.T) {
	c := newCalm(t, `{"upgradeChannel":"patch","nodeOSUpgradeChannel":"Unmanaged"}`, "2027-03-01 12:00")
	c.shelf.kubernetes = []string{"1.35.4", "1.35.5"}
	c.must("POST", testCluster+"/stop", "", resource.Succeeded)
	c.until("2027-03-04 12:00")
	if len(c.begun) != 0 {
		t.Errorf("in a stopped cluster: %v", c.begun)
	}
	c.must("POST", testCluster+"/start", "", resource.Succeeded)
	edit := func(change func(*arm.Document)) {
		if err := arm.UpdateDocument(t.Context(), c.store, resource.MustParseID(testCluster), func(d *arm.Document) error { change(d); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	edit(func(d *arm.Document) { d.ProvisioningState = resource.Failed })
	c.until("2027-03-06 12:00")
	if len(c.begun) != 2 || !strings.Contains(c.begun[0], "security updates") {
		t.Errorf("a cluster that failed is patched, nothing else: %v", c.begun)
	}
	c.begun = nil
	edit(func(d *arm.Document) { d.ProvisioningState = resource.Succeeded })
	c.until("2027-03-07 12:00")
	if len(c.begun) != 2 {
		t.Errorf("healed: %v; foretold %+v", c.begun, c.foretold("3"))
	}
}

func TestNothingBeginsAtAWindowsEnd(t *testing.T) {
	c := newCalm(t, `{"nodeOSUpgradeChannel":"SecurityPatch"}`, "2027-03-01 12:00")
	c.configure(maintenance.NodeOS, `{"properties":{"maintenanceWindow":{"durationHours":4,"startTime":"01:00","startDate":"2027-01-01","schedule":{"daily":{"intervalDays":1}}}}}`)
	r := newRunner(c.p)
	c.set("2027-03-02 04:46") // the service was down until now
	c.look(r)
	if len(c.begun) != 0 {
		t.Errorf("14 minutes before the end: %v", c.begun)
	}
	c.set("2027-03-03 04:45")
	c.look(r)
	if len(c.begun) != 1 {
		t.Errorf("15 minutes before the end: %v", c.begun)
	}
}

// A clock that goes ahead and comes back begins no window's work twice, and
// loses none of those in between.
func TestTheClockJumps(t *testing.T) {
	c := newCalm(t, `{"nodeOSUpgradeChannel":"SecurityPatch"}`, "2027-03-01 12:00")
	c.configure(maintenance.NodeOS, `{"properties":{"maintenanceWindow":{"durationHours":4,"startTime":"01:00","startDate":"2027-01-01","schedule":{"daily":{"intervalDays":1}}}}}`)
	r := newRunner(c.p)
	for _, step := range []struct {
		now  string
		want int
	}{
		{"2027-03-02 01:10", 1}, {"2027-03-02 00:30", 1}, {"2027-03-02 01:00", 1}, // back within the night
		{"2028-03-02 01:10", 2}, {"2027-03-03 01:10", 3}, {"2028-03-02 01:20", 3}, // a year ahead, back, ahead again
		{"2027-03-04 01:10", 4}, {"2027-03-03 01:20", 4}, {"2027-03-05 03:00", 5},
	} {
		c.set(step.now)
		c.look(r)
		if len(c.begun) != step.want {
			t.Fatalf("at %s %d were begun, want %d: %v", step.now, len(c.begun), step.want, c.begun)
		}
	}
}

// Two processes that read the same begin one upgrade, and a client's write of
// that moment is refused or comes first.
func TestTwoReplicasBeginItOnce(t *testing.T) {
	c := newCalm(t, `{"upgradeChannel":"patch"}`, "2027-03-01 12:00")
	c.configure(maintenance.Cluster, `{"properties":{"maintenanceWindow":{"durationHours":24,"startTime":"00:00","startDate":"2027-01-01","schedule":{"absoluteMonthly":{"intervalMonths":1,"dayOfMonth":1}}}}}`)
	c.shelf.kubernetes = []string{"1.35.4", "1.35.5"}
	one, two := c.whole(), c.whole()
	if _, err := newRunner(c.p).maintain(t.Context(), one); err != nil {
		t.Fatal(err)
	}
	if _, err := newRunner(c.p).maintain(t.Context(), two); err != nil && !raced(err) {
		t.Errorf("the second: %v", err)
	}
	operations, _, err := c.memory.List(t.Context(), arm.OperationPrefix)
	if err != nil {
		t.Fatal(err)
	}
	running := 0
	for _, record := range operations {
		var op arm.Operation
		if err := json.Unmarshal(record.Value, &op); err != nil {
			t.Fatal(err)
		}
		if !op.Done() {
			running++
		}
	}
	if running != 1 {
		t.Errorf("%d operations run", running)
	}
	w := c.whole()
	if w.doc.ProvisioningState != resource.Upgrading || w.pools[0].ProvisioningState != resource.Upgrading || w.pools[0].Operation != w.doc.Operation {
		t.Errorf("the cluster is %s, its pool %s", w.doc.ProvisioningState, w.pools[0].ProvisioningState)
	}
	if again, err := newRunner(c.p).maintain(t.Context(), w); err != nil || again != lookEvery {
		t.Errorf("a look while it runs: again in %v, %v", again, err)
	}
}

// The whole reconciler begins it too, and ends it.
func TestTheReconcilerPatches(t *testing.T) {
	c := newCalm(t, `{"nodeOSUpgradeChannel":"Unmanaged"}`, "2027-03-01 12:00")
	c.set("2027-03-02 07:10") // 06:00, at most an hour later
	c.settle()
	if p := c.state().Patch; !strings.HasPrefix(p.Token, "2027-03-02T06:") || !p.Until.After(c.now) {
		t.Errorf("the order is %+v", p)
	}
	c.must("DELETE", testCluster, "", resource.Succeeded)
}

func (c *calm) foretold(days string) []planned {
	c.t.Helper()
	answer, err := c.p.maintenancePlans(c.t.Context(), &arm.Request{ID: resource.MustParseID(testCluster), Query: url.Values{"days": {days}}})
	if err != nil {
		c.t.Fatal(err)
	}
	var plan []planned
	for _, value := range answer.(object)["value"].([]any) {
		plan = append(plan, value.(object)["properties"].(planned))
	}
	return plan
}

// What is foretold happens: a plan of a month against the month itself.
func TestThePlanComesTrue(t *testing.T) {
	c := newCalm(t, `{"upgradeChannel":"rapid","nodeOSUpgradeChannel":"SecurityPatch"}`, "2027-03-01 12:00")
	c.shelf.kubernetes = []string{"1.35.4", "1.36.3", "1.37.0"}
	c.configure(maintenance.Cluster, `{"properties":{"maintenanceWindow":{"durationHours":5,"startTime":"22:00","utcOffset":"-03:00","startDate":"2027-01-01","schedule":{"weekly":{"intervalWeeks":1,"dayOfWeek":"Saturday"}}}}}`)
	c.configure(maintenance.NodeOS, `{"properties":{"maintenanceWindow":{"durationHours":4,"startTime":"01:00","startDate":"2027-01-01","schedule":{"daily":{"intervalDays":3}},"notAllowedDates":[{"start":"2027-03-10","end":"2027-03-16"}]}}}`)
	want, blackedOut := []string{}, 0
	for _, entry := range c.foretold("30") {
		if entry.Action != "None" {
			want = append(want, entry.Start.Format("2006-01-02 15:04 ")+entry.Text)
		} else if strings.Contains(entry.Text, "blacked out") {
			blackedOut++
		}
	}
	c.until("2027-03-31 12:00")
	if fmt.Sprint(c.begun) != fmt.Sprint(want) || len(want) < 8 || blackedOut != 2 {
		t.Errorf("foretold, with %d blackouts\n%s\nbegun\n%s", blackedOut, strings.Join(want, "\n"), strings.Join(c.begun, "\n"))
	}
	for _, entry := range c.foretold("5") {
		if entry.Kind == clusterKind && entry.Text != "everything is current" {
			t.Errorf("now it is foretold %+v", entry)
		}
	}
}

func TestPlansOfNothing(t *testing.T) {
	c := newCalm(t, `{"upgradeChannel":"none"}`, "2027-03-01 12:00")
	for _, entry := range c.foretold("30") {
		if entry.Action != "None" || !strings.Contains(strings.ToLower(entry.Text), "none") {
			t.Errorf("with no channel it is foretold %+v", entry)
		}
	}
	for _, days := range []string{"0", "367", "x", "-1", "99999999999999999999"} {
		_, err := c.p.maintenancePlans(t.Context(), &arm.Request{ID: resource.MustParseID(testCluster), Query: url.Values{"days": {days}}})
		if !fault.Is(err, fault.Invalid) {
			t.Errorf("days=%s: %v", days, err)
		}
	}
	stopped := newCalm(t, `{"upgradeChannel":"patch"}`, "2027-03-01 12:00")
	stopped.shelf.kubernetes = []string{"1.35.4", "1.35.5"}
	stopped.must("POST", testCluster+"/stop", "", resource.Succeeded)
	found := false
	for _, entry := range stopped.foretold("3") {
		found = found || entry.Action == upgradeAction && entry.Blocked == "the cluster is stopped"
	}
	if !found {
		t.Errorf("a stopped cluster's plan: %+v", stopped.foretold("3"))
	}
}

func TestConfigurationsAreChecked(t *testing.T) {
	c := newCalm(t, `{}`, "2027-03-01 12:00")
	for name, bad := range map[string]string{
		"mine":              `{"properties":{"timeInWeek":[{"day":"Monday","hourSlots":[1]}]}}`,
		maintenance.Default: `{"properties":{"maintenanceWindow":{"durationHours":4,"startTime":"01:00","schedule":{"daily":{"intervalDays":1}}}}}`,
		maintenance.Cluster: `{"properties":{"timeInWeek":[{"day":"Monday","hourSlots":[1]}]}}`,
		maintenance.NodeOS:  `{"properties":{"maintenanceWindow":{"durationHours":"four","startTime":"01:00","schedule":{"daily":{"intervalDays":1}}}}}`,
	} {
		_, _, err := c.do(context.Background(), "PUT", testCluster+"/maintenanceConfigurations/"+name, bad)
		if !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Without a start date it is today, where the window is, and stays so.
	const body = `{"properties":{"maintenanceWindow":{"durationHours":4,"startTime":"01:00","utcOffset":"+13:00","schedule":{"daily":{"intervalDays":7}}}}}`
	path := testCluster + "/maintenanceConfigurations/" + maintenance.NodeOS
	for range 2 {
		c.configure(maintenance.NodeOS, body)
		if got := get(c.view(path, testVersion), "properties.maintenanceWindow.startDate"); got != "2027-03-02" {
			t.Errorf("the start date is %v", got)
		}
		c.set("2027-03-20 12:00")
	}
}

// The timers of the running service keep the nights: nobody writes anything for
// a week, and each night has its order.
func TestTimersKeepTheNights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCalm(t, `{"nodeOSUpgradeChannel":"SecurityPatch"}`, "2000-01-01 00:00")
		c.p.Now = time.Now
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- c.p.Run(ctx) }()
		first := time.Now()
		time.Sleep(7 * 24 * time.Hour)
		synctest.Wait()
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		nights := c.state().Maintained
		if len(nights) < 7 || len(nights) > 8 {
			t.Fatalf("%d nights in a week: %+v", len(nights), nights)
		}
		for i, night := range nights {
			if i > 0 && night.Window.Sub(nights[i-1].Window) != 24*time.Hour || night.Window.Before(first.Add(-ownHours*time.Hour)) {
				t.Errorf("night %d is %+v", i, night)
			}
		}
	})
}

// What AKS would refuse of a user is refused of a channel: said once a window,
// shown in the plan, and tried again in the next.
func TestRefusedUpgrades(t *testing.T) {
	c := newCalm(t, `{"upgradeChannel":"rapid"}`, "2027-03-01 12:00")
	c.configure(maintenance.Cluster, `{"properties":{"maintenanceWindow":{"durationHours":4,"startTime":"02:00","startDate":"2027-01-01","schedule":{"weekly":{"intervalWeeks":1,"dayOfWeek":"Sunday"}}}}}`)
	c.shelf.kubernetes = []string{"1.35.4", "1.36.3"}
	last := time.Date(2027, 3, 7, 2, 0, 0, 0, time.UTC)
	c.host.Told = func(s *controlplane.Status) {
		s.Deprecated = []controlplane.DeprecatedUse{{Group: "example.org", Version: "v1beta1", Resource: "things", Removed: "1.36", Last: last}}
	}
	c.must("POST", testCluster+"/stop", "", resource.Succeeded)
	c.must("POST", testCluster+"/start", "", resource.Succeeded) // the host reports anew
	c.set("2027-03-07 02:10")
	r := newRunner(c.p)
	for range 3 {
		c.look(r)
	}
	if len(c.begun) != 1 || !strings.Contains(c.begun[0], "example.org") || c.whole().state.Desired.Version != version(t, "1.35.4") {
		t.Fatalf("begun %v", c.begun)
	}
	if plan := c.foretold("3"); !strings.HasPrefix(plan[len(plan)-1].Text, "refused in this window: upgrade from 1.35.4 to 1.36.3: ") {
		t.Errorf("the plan says %+v", plan)
	}
	c.set("2027-03-14 02:10") // nothing of the kind was used for a week
	c.look(r)
	if len(c.begun) != 2 || !strings.HasSuffix(c.begun[1], "upgrade from 1.35.4 to 1.36.3") {
		t.Errorf("begun %v", c.begun)
	}
}
