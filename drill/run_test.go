// SPDX-License-Identifier: Apache-2.0

package drill

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// control is a control in memory: it stops the attack some time after it was
// switched on.
type control struct {
	on      bool
	since   time.Time
	delay   time.Duration
	useless bool // never stops anything
	broken  bool // the attack doesn't work anyway
	flaky   int  // how often it stops before it fails
	stuck   bool // can't be taken away again
	undone  []string
	stopped int
}

func (c *control) try(context.Context) (Result, error) {
	holding := c.on && time.Since(c.since) >= c.delay && !c.useless
	if holding {
		c.stopped++
	}
	if holding && c.flaky > 0 && c.stopped > c.flaky {
		holding = false
	}
	if c.broken || holding {
		return Result{Got: "no answer"}, nil
	}
	return Result{Worked: true, Got: "an answer"}, nil
}

func (c *control) drill() Drill {
	return Drill{ID: "wall", Title: "A wall", Control: "the wall", Setup: func(_ context.Context, s *Stage) (*Scene, error) {
		s.Undo("first", func(context.Context) error { c.undone = append(c.undone, "first"); return nil })
		s.Undo("second", func(context.Context) error { c.undone = append(c.undone, "second"); return nil })
		return &Scene{
			Attacks: []Attack{{From: "outside", To: "knock", Try: c.try}},
			On:      func(context.Context) error { c.on, c.since = true, time.Now(); return nil },
			Off:     func(context.Context) error { c.on = c.stuck; return nil },
		}, nil
	}}
}

func runAlone(t *testing.T, d Drill) *Record {
	t.Helper()
	return Run(t.Context(), Config{Drills: []Drill{d}}).Drills[0]
}

func TestDrillPassesOnlyWhenAllIsShown(t *testing.T) {
	for name, c := range map[string]struct {
		control control
		outcome Outcome
		reason  string
	}{
		"a control that holds":               {control{delay: 300 * time.Millisecond}, Passed, ""},
		"an attack that never works":         {control{broken: true}, Failed, "nothing is proved"},
		"a control that does nothing":        {control{useless: true}, Failed, "in spite of the control"},
		"a control that holds for a moment":  {control{flaky: 2}, Failed, "held for a moment only"},
		"a control that can't be taken away": {control{stuck: true}, Failed, "without it again"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := runAlone(t, c.control.drill())
				if r.Outcome != c.outcome || !strings.Contains(r.Reason, c.reason) || (r.Reason == "") != (c.outcome == Passed) {
					t.Errorf("%s: %q", r.Outcome, r.Reason)
				}
				if got := strings.Join(c.control.undone, " "); got != "second first" {
					t.Errorf("undone: %q", got)
				}
			})
		})
	}
}

func TestTimesAndTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := control{delay: 300 * time.Millisecond}
		r := runAlone(t, c.drill())
		if r.EnforcedMillis < 300 || r.EnforcedMillis > 330 {
			t.Errorf("enforced after %v ms", r.EnforcedMillis)
		}
		during := r.Phases[1]
		if len(during.Tries) != 2 || during.Tries[0].AsWanted || !during.Tries[1].AsWanted {
			t.Fatalf("tries: %+v", during.Tries)
		}
		if got := during.Tries[1].Times; got != 1+holds {
			t.Errorf("tried %d times with the control", got)
		}
	})
}

func TestCleaningUpAfterFailures(t *testing.T) {
	bad := errors.New("the wall fell over")
	for name, change := range map[string]func(d *Drill, cancel func()){
		"setup fails": func(d *Drill, _ func()) {
			setup := d.Setup
			d.Setup = func(ctx context.Context, s *Stage) (*Scene, error) { _, _ = setup(ctx, s); return nil, bad }
		},
		"the switch fails": func(d *Drill, _ func()) {
			setup := d.Setup
			d.Setup = func(ctx context.Context, s *Stage) (*Scene, error) {
				scene, err := setup(ctx, s)
				scene.On = func(context.Context) error { return bad }
				return scene, err
			}
		},
		"an attack can't be tried": func(d *Drill, _ func()) {
			setup := d.Setup
			d.Setup = func(ctx context.Context, s *Stage) (*Scene, error) {
				scene, err := setup(ctx, s)
				scene.Attacks[0].Try = func(context.Context) (Result, error) { return Result{}, bad }
				return scene, err
			}
		},
		"somebody stops it": func(d *Drill, cancel func()) {
			setup := d.Setup
			d.Setup = func(ctx context.Context, s *Stage) (*Scene, error) {
				scene, err := setup(ctx, s)
				scene.On = func(ctx context.Context) error { cancel(); return ctx.Err() }
				return scene, err
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				c := control{}
				d := c.drill()
				change(&d, cancel)
				r := Run(ctx, Config{Drills: []Drill{d}}).Drills[0]
				if r.Outcome != Failed || r.Reason == "" || strings.HasPrefix(r.Reason, "the run was stopped") != (ctx.Err() != nil) {
					t.Errorf("%s: %q", r.Outcome, r.Reason)
				}
				if got := strings.Join(c.undone, " "); got != "second first" {
					t.Errorf("undone: %q", got)
				}
			})
		})
	}
}

// An attack that can't be tried is no attack that was stopped.
func TestErrorsArentStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := control{}
		d := c.drill()
		setup := d.Setup
		d.Setup = func(ctx context.Context, s *Stage) (*Scene, error) {
			scene, err := setup(ctx, s)
			scene.Attacks[0].Try = func(ctx context.Context) (Result, error) {
				if c.on {
					return Result{}, errors.New("the attacker has no legs")
				}
				return c.try(ctx)
			}
			return scene, err
		}
		if r := runAlone(t, d); r.Outcome != Failed || !strings.Contains(r.Reason, "no legs") {
			t.Errorf("%s: %q", r.Outcome, r.Reason)
		}
	})
}

func TestWantedAndNever(t *testing.T) {
	for name, change := range map[string]func(*Scene, *control){
		"the control stops what is wanted": func(scene *Scene, c *control) { scene.Wanted = []Attack{{From: "a friend", To: "knock", Try: c.try}} },
		"what never may work does":         func(scene *Scene, c *control) { scene.Never = []Attack{{From: "a thief", To: "knock", Try: c.try}} },
		"no attack":                        func(scene *Scene, _ *control) { scene.Attacks = nil },
		"no switch":                        func(scene *Scene, _ *control) { scene.Off = nil },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := control{}
				d := c.drill()
				setup := d.Setup
				d.Setup = func(ctx context.Context, s *Stage) (*Scene, error) {
					scene, err := setup(ctx, s)
					change(scene, &c)
					return scene, err
				}
				if r := runAlone(t, d); r.Outcome != Failed {
					t.Errorf("%s", r.Outcome)
				}
			})
		})
	}
}

func TestPartsInTheirOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := control{}, control{useless: true}
		a, b := first.drill(), second.drill()
		a.ID, b.ID = "gate", "moat"
		r := runAlone(t, Drill{ID: "castle", Parts: []Drill{a, b}})
		if r.Outcome != Failed || !strings.HasPrefix(r.Reason, "part moat: ") {
			t.Errorf("%s: %q", r.Outcome, r.Reason)
		}
		if len(r.Phases) != 5 || r.Phases[0].Part != "gate" || r.Phases[4].Part != "moat" {
			t.Errorf("%d phases", len(r.Phases))
		}
	})
}

func TestDrillsHaveIDsAndWords(t *testing.T) {
	seen := map[string]bool{}
	for _, d := range All() {
		if seen[d.ID] || d.Title == "" || d.Control == "" || d.Explains == "" || (d.Setup == nil) == (len(d.Parts) == 0) {
			t.Errorf("drill %q lacks something, or is there twice", d.ID)
		}
		seen[d.ID] = true
		if len("workshop-"+d.ID+"-other") > 63 {
			t.Errorf("drill %q: its namespaces' names would be too long", d.ID)
		}
	}
	if _, err := Select([]string{"lb-internal", "nonsense"}); err == nil {
		t.Error("an unknown drill is selected")
	}
	if chosen, err := Select([]string{"lb-internal"}); err != nil || len(chosen) != 1 {
		t.Errorf("%d drills, %v", len(chosen), err)
	}
}
