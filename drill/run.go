// SPDX-License-Identifier: Apache-2.0

package drill

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Config is what a run needs.
type Config struct {
	Lab    *Lab // what the drills share; nil when they need nothing
	Drills []Drill
	// Parallel is how many drills run at once.
	Parallel int
	// Progress, when set, is told of every drill's end, one at a time.
	Progress func(*Record)
}

// Run runs drills and returns what they found. It waits until everything that
// they made is gone, also when ctx ends; drills that didn't get their turn then
// have failed.
func Run(ctx context.Context, c Config) *Report {
	report := &Report{SchemaVersion: SchemaVersion, Versions: map[string]string{}, Started: time.Now(), Drills: make([]*Record, len(c.Drills))}
	var telling sync.Mutex
	run := func(i int) {
		r := runOne(ctx, c.Lab, c.Drills[i])
		report.Drills[i] = r
		telling.Lock()
		defer telling.Unlock()
		if c.Progress != nil {
			c.Progress(r)
		}
	}
	var workers sync.WaitGroup
	queue := make(chan []int)
	for range max(1, c.Parallel) {
		workers.Go(func() {
			for line := range queue {
				for _, i := range line {
					run(i)
				}
			}
		})
	}
	for _, line := range lines(c.Drills) {
		queue <- line
	}
	close(queue)
	workers.Wait()
	for i, d := range c.Drills {
		if d.Alone {
			run(i)
		}
	}
	for _, r := range report.Drills {
		if r.Outcome == Passed {
			report.Passed++
		} else {
			report.Failed++
		}
	}
	report.Seconds = time.Since(report.Started).Seconds()
	return report
}

// lines are the drills that may run beside others, those of one turn behind each
// other; the longest line comes first, since it ends last.
func lines(drills []Drill) [][]int {
	var all [][]int
	turns := map[string]int{}
	for i, d := range drills {
		at, waits := turns[d.Turn]
		switch {
		case d.Alone:
		case waits && d.Turn != "":
			all[at] = append(all[at], i)
		default:
			turns[d.Turn] = len(all)
			all = append(all, []int{i})
		}
	}
	slices.SortStableFunc(all, func(a, b []int) int { return len(b) - len(a) })
	return all
}

// runOne runs one drill and undoes what it did.
func runOne(ctx context.Context, lab *Lab, d Drill) *Record {
	r := &Record{ID: d.ID, Title: d.Title, Control: d.Control, Explains: d.Explains, Outcome: Failed, Started: time.Now(),
		Phases: []*Phase{}, Changes: []Change{}}
	s := &Stage{Lab: lab, Record: r, Name: d.ID}
	err := s.play(ctx, d)
	if stopped := ctx.Err(); stopped != nil && err != nil {
		err = fmt.Errorf("the run was stopped: %w", err)
	}
	undoing, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoPatience)
	defer cancel()
	if gone := s.undo(undoing); gone != nil {
		err = errors.Join(err, fmt.Errorf("clean up: %w", gone))
	}
	r.Seconds = time.Since(r.Started).Seconds()
	if err != nil {
		r.Reason = err.Error()
		return r
	}
	r.Outcome = Passed
	return r
}

// play plays a drill, or its parts until one fails.
func (s *Stage) play(ctx context.Context, d Drill) error {
	if len(d.Parts) == 0 {
		return s.perform(ctx, d)
	}
	for _, part := range d.Parts {
		s.part, s.Name = part.ID, d.ID+"-"+part.ID
		if err := s.perform(ctx, part); err != nil {
			return fmt.Errorf("part %s: %w", part.ID, err)
		}
	}
	return nil
}

func (s *Stage) perform(ctx context.Context, d Drill) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("not run: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, partPatience)
	defer cancel()
	scene, err := d.Setup(ctx, s)
	if err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	if len(scene.Attacks) == 0 || scene.On == nil || scene.Off == nil {
		return errors.New("the drill has no attack, or its control no switch: it can prove nothing")
	}
	if err := s.without(ctx, scene, Before, nil, setupPatience); err != nil {
		return err
	}
	before := s.counters(ctx, scene.Groups)
	if err := s.with(ctx, scene); err != nil {
		return err
	}
	s.compare(before, s.counters(ctx, scene.Groups))
	if err := s.explain(ctx, scene); err != nil {
		return err
	}
	return s.without(ctx, scene, After, scene.Off, switchPatience)
}

// without shows that the attacks work while the control is off.
func (s *Stage) without(ctx context.Context, scene *Scene, name PhaseName, off func(context.Context) error, patience time.Duration) error {
	p := s.phase(name)
	defer p.end()
	sent := time.Now()
	if off != nil {
		if err := off(ctx); err != nil {
			return fmt.Errorf("take the control away: %w", err)
		}
	}
	for i, a := range scene.Attacks {
		first, err := s.await(ctx, p, a, Works, patience)
		if err != nil {
			return fmt.Errorf("%s, the attack doesn't work, so that nothing is proved: %w", name, err)
		}
		if i == 0 && off != nil && !scene.Untimed {
			s.ReleasedMillis = millis(max(first.Sub(sent), time.Microsecond))
		}
	}
	return s.around(ctx, p, scene)
}

// with switches the control on and shows that the attacks fail, and go on failing.
func (s *Stage) with(ctx context.Context, scene *Scene) error {
	p := s.phase(During)
	defer p.end()
	sent := time.Now()
	if err := scene.On(ctx); err != nil {
		return fmt.Errorf("switch the control on: %w", err)
	}
	if !scene.Untimed {
		s.SwitchMillis = max(s.SwitchMillis, millis(time.Since(sent)))
	}
	if scene.Tries > 0 {
		return s.seldom(ctx, p, scene)
	}
	for i, a := range scene.Attacks {
		began := time.Now()
		first, err := s.await(ctx, p, a, Stopped, switchPatience)
		if err != nil {
			return fmt.Errorf("the attack works in spite of the control: %w", err)
		}
		if !scene.Untimed && (i == 0 || first.Sub(began) > between) { // else it was stopped before its turn
			s.EnforcedMillis = max(s.EnforcedMillis, millis(max(first.Sub(sent), time.Microsecond)))
		}
	}
	if err := s.around(ctx, p, scene); err != nil {
		return err
	}
	for round := range holds {
		for i, a := range scene.Attacks {
			if round > 0 && i > 0 {
				break // the first is the quickest
			}
			if _, err := s.expect(ctx, p, a, Stopped); err != nil {
				return fmt.Errorf("the control held for a moment only: %w", err)
			}
		}
	}
	return nil
}

// seldom tries attacks that take long: so often as the scene says, each time for good.
func (s *Stage) seldom(ctx context.Context, p *Phase, scene *Scene) error {
	for range scene.Tries {
		for _, a := range scene.Attacks {
			if _, err := s.expect(ctx, p, a, Stopped); err != nil {
				return fmt.Errorf("the attack works in spite of the control: %w", err)
			}
		}
	}
	return s.around(ctx, p, scene)
}

// around shows that what must work works, and what must never work doesn't.
// What is wanted may take a moment to come back after a change.
func (s *Stage) around(ctx context.Context, p *Phase, scene *Scene) error {
	for _, a := range scene.Wanted {
		if _, err := s.await(ctx, p, a, Works, switchPatience); err != nil {
			return fmt.Errorf("%s, something fails that must work: %w", p.Name, err)
		}
	}
	for _, a := range scene.Never {
		if _, err := s.expect(ctx, p, a, Stopped); err != nil {
			return fmt.Errorf("%s, something works that never may: %w", p.Name, err)
		}
	}
	return nil
}

// await tries until it goes as expected, and returns when that try began.
func (s *Stage) await(ctx context.Context, p *Phase, a Attack, expected Expectation, patience time.Duration) (time.Time, error) {
	end := time.Now().Add(patience)
	for {
		began, err := s.expect(ctx, p, a, expected)
		if err == nil {
			return began, nil
		}
		if time.Now().After(end) {
			return began, fmt.Errorf("%w (for %s)", err, patience)
		}
		select {
		case <-ctx.Done():
			return began, ctx.Err()
		case <-time.After(between):
		}
	}
}

// expect tries once.
func (s *Stage) expect(ctx context.Context, p *Phase, a Attack, expected Expectation) (time.Time, error) {
	began := time.Now()
	result, err := a.Try(ctx)
	t := Try{At: began, From: a.From, To: a.To, Expected: expected, Got: result.Got, AsWanted: result.Worked == (expected == Works)}
	if err != nil {
		t.Got, t.AsWanted = "couldn't be tried: "+err.Error(), false
	}
	t.Millis = millis(time.Since(began))
	p.add(t)
	if err != nil {
		return began, fmt.Errorf("%s from %s couldn't be tried: %w", a.To, a.From, err)
	}
	if !t.AsWanted {
		return began, fmt.Errorf("%s from %s: %s, and should be %s", a.To, a.From, result.Got, map[Expectation]string{Works: "let through", Stopped: "stopped"}[expected])
	}
	return began, nil
}

func (s *Stage) phase(name PhaseName) *Phase {
	p := &Phase{Part: s.part, Name: name, Started: time.Now(), Tries: []Try{}}
	s.Phases = append(s.Phases, p)
	return p
}

func (p *Phase) end() { p.Seconds = time.Since(p.Started).Seconds() }
