// SPDX-License-Identifier: Apache-2.0

package drill

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// What has one turn never runs at once, whatever else does.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var order []string
		var inTurn, beside, most atomic.Int32
		play := func(id, turn string) Drill {
			return Drill{ID: id, Turn: turn, Setup: func(_ context.Context, _ *Stage) (*Scene, error) {
				if turn != "" {
					if inTurn.Add(1) > 1 {
						t.Errorf("%s runs beside another of its turn", id)
					}
					order = append(order, id)
					defer inTurn.Add(-1)
				}
				most.Store(max(most.Load(), beside.Add(1)))
				defer beside.Add(-1)
				time.Sleep(time.Second)
				return nil, fmt.Errorf("enough")
			}}
		}
		drills := []Drill{play("a", ""), play("b", ""), play("c", life), play("d", ""), play("e", life), play("f", life)}
		drills[3].Alone = true
		report := Run(t.Context(), Config{Drills: drills, Parallel: 3})
		if got := strings.Join(order, ""); got != "cef" {
			t.Errorf("the turn is played as %s", got)
		}
		if most.Load() < 2 {
			t.Error("nothing runs beside a turn")
		}
		for i, r := range report.Drills {
			if r == nil || r.ID != drills[i].ID {
				t.Errorf("record %d is %+v", i, r)
			}
		}
	})
}

// Where each try counts, none that worked is forgotten.
func TestSeldomTriesCount(t *testing.T) {
	for works, outcome := range map[int]Outcome{0: Passed, 2: Failed, 3: Failed} { // the first try is without the control
		synctest.Test(t, func(t *testing.T) {
			n := 0
			on := false
			r := runAlone(t, Drill{ID: "rare", Setup: func(context.Context, *Stage) (*Scene, error) {
				return &Scene{Tries: 2, On: func(context.Context) error { on = true; return nil }, Off: func(context.Context) error { on = false; return nil },
					Attacks: []Attack{{From: "a", To: "b", Try: func(context.Context) (Result, error) {
						n++
						return Result{Worked: !on || n == works}, nil
					}}}}, nil
			}})
			if r.Outcome != outcome || outcome == Passed && n != 4 {
				t.Errorf("the try that works is %d: %s after %d, %s", works, r.Outcome, n, r.Reason)
			}
		})
	}
}

func TestWhatIsARefusal(t *testing.T) {
	for out, no := range map[string]bool{
		"error: You must be logged in to the server (Unauthorized)":                                               true,
		"error: You must be logged in to the server (the server has asked for the client to provide credentials)": true,
		"Unable to connect to the server: dial tcp: connection refused":                                           false,
		"Unable to connect to the server: x509: certificate signed by unknown authority":                          false,
		"": false,
	} {
		if _, err := refusedBy(out); (err == nil) != no {
			t.Errorf("%q: %v", out, err)
		}
	}
}

func TestPatchesOfNodes(t *testing.T) {
	var known []patches
	err := json.Unmarshal([]byte(`[{"name":"n1","properties":{"pool":"nodes","upgradable":[{"package":"bash","from":"1","to":"2"},{"package":"libssl3","from":"3.0.1","to":"3.0.2"}],
		"looked":"2026-11-21T12:00:00Z","rebootRequired":true,"running":false,"runs":[{"token":"asked-1","ended":"2026-11-21T12:00:00Z","installed":[{"package":"tar"}]}]}},
		{"name":"n2","properties":{"upgradable":[],"runs":[]}}]`), &known)
	if err != nil {
		t.Fatal(err)
	}
	if r := vulnerable(known); !r.Worked || !strings.Contains(r.Got, "2 packages, such as libssl3 3.0.1 in place of 3.0.2 on n1") {
		t.Errorf("%+v", r)
	}
	if r := vulnerable(known[1:]); r.Worked {
		t.Errorf("%+v", r)
	}
	if err := known[0].done("asked-1"); err == nil || !strings.Contains(err.Error(), "reboot") {
		t.Errorf("a node that needs a reboot: %v", err)
	}
	known[0].Properties.RebootRequired = false
	if known[0].done("asked-1") != nil || known[0].done("asked-2") == nil || known[1].done("asked-1") == nil {
		t.Error("who has carried out which order is confused")
	}
}

func TestMembers(t *testing.T) {
	for text, ready := range map[string]bool{
		`{"status":{"conditions":[{"type":"Ready","status":"True"}]}}`:                                 true,
		`{"spec":{"unschedulable":true},"status":{"conditions":[{"type":"Ready","status":"True"}]}}`:   false,
		`{"status":{"conditions":[{"type":"Ready","status":"Unknown"},{"type":"X","status":"True"}]}}`: false,
	} {
		var m member
		if err := json.Unmarshal([]byte(text), &m); err != nil || m.ready() != ready {
			t.Errorf("%s: %v, %v", text, m.ready(), err)
		}
	}
}
