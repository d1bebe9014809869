// SPDX-License-Identifier: Apache-2.0

package agent

import "time"

// What the agent may take of its node: a third of a processor in the long run.
// What it saved while little changed it may spend at once, so that one change,
// or a few, wait for nothing.
const (
	share  = 3
	saving = time.Second
)

// pace holds work to its share.
type pace struct {
	credit time.Duration
	at     time.Time // when credit was counted
}

// spent takes note of work that ended now, and says how long to rest.
func (p *pace) spent(work time.Duration, now time.Time) time.Duration {
	if p.at.IsZero() {
		p.credit, p.at = saving, now
	}
	p.credit = min(saving, p.credit+now.Sub(p.at)/share) - work
	p.at = now
	if p.credit >= 0 {
		return 0
	}
	return min(-p.credit*share, longest)
}
