// SPDX-License-Identifier: Apache-2.0

package drill

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Stage is what one drill has while it runs: the lab, its record, and what is to
// be undone.
type Stage struct {
	*Lab
	*Record
	// Name is the drill's ID, and in a drill of several parts also the part's: a
	// name for what this drill makes alone.
	Name  string
	part  string
	steps []step
}

type step struct {
	what string
	do   func(context.Context) error
}

// Undo has something done when the drill ends, however it ends; the last first.
func (s *Stage) Undo(what string, do func(context.Context) error) {
	s.steps = append(s.steps, step{what, do})
}

func (s *Stage) undo(ctx context.Context) error {
	var failed []error
	for _, st := range slices.Backward(s.steps) {
		if err := st.do(ctx); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", st.what, err))
		}
	}
	s.steps = nil
	return errors.Join(failed...)
}

// did records a change and how it went.
func (s *Stage) did(how, target string, body any, began time.Time, err error) {
	c := Change{At: began, How: how, Target: target, Body: body, Millis: millis(time.Since(began))}
	if err != nil {
		c.Error = err.Error()
	}
	s.change(c)
}
