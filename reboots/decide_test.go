// SPDX-License-Identifier: Apache-2.0

package reboots

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

func at(text string) time.Time {
	t, err := time.Parse("2006-01-02 15:04", text)
	if err != nil {
		panic(err)
	}
	return t
}

func well(name string) Node {
	return Node{Name: name, Ready: true, Looked: true, Required: at("2026-03-02 00:00")}
}

func TestWhyNodesWait(t *testing.T) {
	now := at("2026-03-02 12:00") // a Monday
	for name, c := range map[string]struct {
		change func(in *Input)
		why    string
		until  time.Time
	}{
		"not ready":      {func(in *Input) { in.Nodes[0].Ready = false }, "isn't ready", time.Time{}},
		"busy":           {func(in *Input) { in.Nodes[0].Busy = "it is upgraded" }, "upgraded", time.Time{}},
		"not looked":     {func(in *Input) { in.Nodes[0].Looked = false }, "looked", time.Time{}},
		"blocked":        {func(in *Input) { in.Nodes[0].Blocked = []string{"pod a/b"} }, "pod a/b", time.Time{}},
		"another's lock": {func(in *Input) { in.Locked.Other = "manual" }, "manual", time.Time{}},
		"settings":       {func(in *Input) { in.Against = "wrong" }, "wrong", time.Time{}},
		"failed":         {func(in *Input) { in.Nodes[0].Failed, in.Nodes[0].Error = now.Add(-time.Minute), "budget" }, "budget", now.Add(59 * time.Minute)},
		"asks again":     {func(in *Input) { in.Nodes[0].Last = now.Add(-time.Minute) }, "again", now.Add(59 * time.Minute)},
		"window":         {func(in *Input) { in.Settings.Window.Days = 1 << time.Tuesday }, "Tue 00:00", at("2026-03-03 00:00")},
	} {
		in := Input{Settings: Default(), Nodes: []Node{well("a")}, Now: now}
		c.change(&in)
		for _, claims := range [][]Claim{nil, {{Node: "a", Since: now.Add(-2 * time.Minute)}}} { // what comes up later gives a claim back
			in.Claims = claims
			d := Decide(in)
			if len(d.Claims) != 0 || len(d.Begin) != 0 || len(d.Waits) != 1 || !strings.Contains(d.Waits[0].Why, c.why) || !d.Waits[0].Until.Equal(c.until) || !d.Again.Equal(c.until) {
				t.Errorf("%s with %d claims: %+v", name, len(claims), d)
			}
		}
	}
}

func TestTwoStepsAndTheLock(t *testing.T) {
	now := at("2026-03-02 12:00")
	in := Input{Settings: Default(), Nodes: []Node{well("b"), well("a")}, Now: now}
	d := Decide(in)
	if len(d.Claims) != 1 || d.Claims[0].Node != "a" || len(d.Begin) != 0 || len(d.Waits) != 2 {
		t.Fatalf("%+v", d)
	}
	in.Claims, in.Locked.Granted = d.Claims, []string{"a"}
	d = Decide(in)
	if !slices.Equal(d.Begin, []string{"a"}) || !d.Claims[0].Begun {
		t.Fatalf("%+v", d)
	}
	in.Claims = d.Claims
	in.Nodes[1].Ready = false // it doesn't come back: nobody follows
	if d = Decide(in); len(d.Claims) != 1 || len(d.Begin) != 0 {
		t.Errorf("%+v", d)
	}
	in.Settings.LockTTL, in.Now = time.Hour, now.Add(time.Hour)
	if d = Decide(in); len(d.Claims) != 1 || d.Claims[0].Node != "b" {
		t.Errorf("with the lock's time over: %+v", d)
	}
	in.Settings.LockTTL, in.Settings.LockReleaseDelay, in.Now = 0, time.Hour, now
	in.Nodes[1].Ready = true // and it asks again, which changes nothing
	d = Decide(in)
	if len(d.Claims) != 1 || d.Claims[0].Node != "a" || !slices.Equal(d.Ended, []string{"a"}) || !d.Again.Equal(now.Add(time.Hour)) {
		t.Errorf("after the reboot: %+v", d)
	}
	in.Claims, in.Now = d.Claims, now.Add(time.Hour)
	in.Nodes[1].Last = in.Now
	if d = Decide(in); len(d.Claims) != 1 || d.Claims[0].Node != "b" || len(d.Ended) != 0 {
		t.Errorf("after the delay: %+v", d)
	}
}

// machine is a node of the simulation.
type machine struct {
	Node
	until time.Time // its reboot is over
}

// TestWeeks simulates nodes that ask for reboots at random, over months: never
// too many at once, none outside the window or past a blocker, all in the end.
func TestWeeks(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { weeks(t, rand.New(rand.NewPCG(seed, 5))) })
	}
}

func weeks(t *testing.T, random *rand.Rand) {
	settings, problems := Parse(map[string]string{"concurrency": fmt.Sprint(1 + random.IntN(3)), "reboot-days": "tue,wed,sat", "start-time": "22:30", "end-time": "03:15",
		"time-zone": "Europe/Paris", "lock-release-delay": "10m"}, anySelector)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	now := at("2026-02-20 00:00") // over the change of clocks in March
	machines := make([]machine, 6)
	for i := range machines {
		machines[i].Node = Node{Name: fmt.Sprint("n", i), Ready: true, Looked: true}
	}
	var claims []Claim
	text, reboots, asked := "", 0, 0
	for end := now.Add(60 * 24 * time.Hour); now.Before(end); now = now.Add(5 * time.Minute) {
		working := 0
		for i := range machines {
			m := &machines[i]
			if m.Required.IsZero() && now.Before(end.Add(-14*24*time.Hour)) && random.IntN(800) == 0 {
				m.Required = now
				asked++
			}
			m.Blocked = nil
			if random.IntN(3) == 0 {
				m.Blocked = []string{"an alert"}
			}
			if m.Working && !now.Before(m.until) {
				m.Working, m.Ready, m.Required, m.Last = false, true, time.Time{}, now
			}
			if m.Working {
				working++
			}
		}
		var locked Locked
		var wanted []string
		for _, c := range claims {
			wanted = append(wanted, c.Node)
		}
		text, locked = Lock(text, wanted, func(node string) bool { return true }, settings, now)
		in := Input{Settings: settings, Claims: claims, Locked: locked, Now: now}
		for i := range machines {
			in.Nodes = append(in.Nodes, machines[i].Node)
		}
		d := Decide(in)
		claims = d.Claims
		for _, name := range d.Begin {
			i := slices.IndexFunc(machines, func(m machine) bool { return m.Name == name })
			m := &machines[i]
			if !settings.Window.Contains(now) || len(m.Blocked) > 0 || m.Working || m.Required.IsZero() {
				t.Fatalf("%v: %+v begins", now, m)
			}
			m.Working, m.Ready, m.until = true, false, now.Add(time.Duration(1+random.IntN(30))*time.Minute)
			working++
			reboots++
		}
		if working > settings.Concurrency || len(claims) > settings.Concurrency {
			t.Fatalf("%v: %d at once, %d claims", now, working, len(claims))
		}
	}
	if reboots != asked || asked == 0 || text != "" {
		t.Errorf("%d of %d rebooted, the lock is %q", reboots, asked, text)
	}
}
