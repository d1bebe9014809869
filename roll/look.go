// SPDX-License-Identifier: Apache-2.0

package roll

import (
	"cmp"
	"fmt"
	"time"
)

// look is one look at a pool.
type look struct {
	Pool
	now     time.Time
	nodes   []*Node
	floor   int // that many nodes have to serve
	serving int
	plan    Plan
}

// set gives a node another work.
func (l *look) set(n *Node, w *Work, act Kind) {
	was := n.Ready && !n.Work.away()
	n.Work = w
	is := n.Ready && !n.Work.away() && act != Remove
	switch {
	case was && !is:
		l.serving--
	case !was && is && w == nil: // it takes pods again
		l.serving++
	}
	l.plan.Moves = append(l.plan.Moves, Move{Node: n.Name, Work: w, Act: act})
	l.plan.Busy = true
}

// step brings a node's work to another step.
func (l *look) step(n *Node, step Step, act Kind) {
	w := *n.Work
	w.Step, w.Since = step, l.now
	l.set(n, &w, act)
}

// start begins a node's work: it is left, unless nothing can be moved away.
func (l *look) start(n *Node, w Work) {
	w.Error, w.Quarantined, w.Gone = "", false, time.Time{}
	n.Work = &w
	if w.NoDrain || n.Dead {
		l.abandon(n)
		return
	}
	l.step(n, Leaving, "")
}

// abandon acts on a node of which nothing can be moved away.
func (l *look) abandon(n *Node) {
	w := *n.Work
	w.NoDrain = true
	n.Work = &w
	l.step(n, Acting, w.Kind)
}

// waits notes what is waited for, the first thing first, and when to look again; 0:
// when something is reported.
func (l *look) waits(again time.Duration, format string, args ...any) {
	l.plan.Busy = true
	if l.plan.Waits == "" {
		l.plan.Waits = fmt.Sprintf(format, args...)
	}
	if again != 0 {
		l.again(again)
	}
}

func (l *look) again(d time.Duration) {
	if d = max(d, time.Millisecond); l.plan.Again == 0 || d < l.plan.Again {
		l.plan.Again = d
	}
}

// left is what is left of d since t.
func (l *look) left(t time.Time, d time.Duration) time.Duration { return d - l.now.Sub(t) }

// advance moves a work on that is under way.
func (l *look) advance(n *Node) {
	switch n.Work.Step {
	case Leaving:
		l.leave(n)
	case Acting:
		if n.Made {
			l.step(n, Returning, "")
			return
		}
		l.bounded(n, "didn't boot")
	case Returning:
		if n.Back {
			l.step(n, Soaking, "")
			return
		}
		l.bounded(n, "didn't come back")
	case Soaking:
		l.soak(n)
	case Waiting:
	}
}

// leave waits until nothing of a node is needed any more.
func (l *look) leave(n *Node) {
	l.part(n)
	w := n.Work
	limit := cmp.Or(w.Drain, l.Drain)
	timeout := l.left(w.Since, limit)
	switch {
	case l.Canceled && w.Roll && w.Kind != Remove:
		l.set(n, nil, "")
	case n.Dead:
		l.abandon(n)
	case n.Failed, !n.Left && timeout+late <= 0:
		if w.Force {
			l.step(n, Acting, w.Kind)
			return
		}
		l.fail(n, first(n.Held, "it didn't complete within "+limit.String()), true)
	case !n.Left:
		l.waits(timeout+late, "node %s is being drained%s", n.Name, suffix(n.Held))
	case w.Gone.IsZero():
		l.waits(0, "load balancers still lead to node %s", n.Name)
	case l.left(w.Gone, l.Pause) > 0:
		l.waits(l.left(w.Gone, l.Pause), "connections to node %s end", n.Name)
	default:
		l.step(n, Acting, w.Kind)
	}
}

// part notes since when no load balancer leads to a node: what it passes on to
// others ends while its own pods are drained. One that was about to be joined when
// it was asked to leave may be led to once more.
func (l *look) part(n *Node) {
	w, bound := *n.Work, l.left(n.Work.Since, dropping)
	out := n.Dropped || bound <= 0
	if !out {
		l.again(min(200*time.Millisecond, bound))
	}
	if out != w.Gone.IsZero() {
		return
	}
	if w.Gone = l.now; !out {
		w.Gone = time.Time{}
	}
	l.set(n, &w, "")
}

// bounded fails a node that takes too long, or whose machine has had an error for a while.
func (l *look) bounded(n *Node, what string) {
	left := l.left(n.Work.Since, Boot)
	if n.Trouble != "" {
		left = min(left, l.left(n.Work.Since, Patience))
	}
	if left > 0 {
		l.waits(left, "node %s %s yet%s", n.Name, what, suffix(n.Trouble))
		return
	}
	l.fail(n, fmt.Sprintf("node %s %s within %s%s", n.Name, what, l.now.Sub(n.Work.Since).Round(time.Second), suffix(n.Trouble)), false)
}

// soak watches a node that is back, as long as the pool's roll wants that.
func (l *look) soak(n *Node) {
	w := n.Work
	soak := time.Duration(0)
	if w.Roll {
		soak = l.Soak
	}
	left, schedulable := l.left(w.Since, soak), l.left(w.Since, uncordoning)
	switch {
	case !n.Ready:
		if late := l.left(w.Since, soak+Boot); late > 0 {
			l.waits(late, "node %s isn't ready again", n.Name)
			return
		}
		l.fail(n, fmt.Sprintf("node %s wasn't ready after its upgrade%s", n.Name, suffix(n.Trouble)), false)
	case left > 0 && !(l.Canceled && w.Roll):
		l.waits(left, "node %s soaks for %s", n.Name, soak)
	case n.Cordoned && schedulable > 0:
		l.waits(schedulable, "node %s becomes schedulable", n.Name)
	default:
		l.set(n, nil, "")
	}
}

// fail stops a node's work. Of a roll, and of a removal that somebody waits for,
// nothing more is begun then; with Cordon others go on while a surge node stands in.
func (l *look) fail(n *Node, text string, undrained bool) {
	w := *n.Work
	w.Error = text
	if undrained && l.Cordon && w.Roll && w.Kind == Reimage {
		w.Quarantined = true
	}
	l.set(n, &w, "")
	if w.Quarantined && l.quarantined() <= max(1, l.Surge) {
		return
	}
	if w.Roll || w.Kind == Remove {
		l.halt(text, undrained)
	}
}

// halt stops the roll, for the first reason that there is.
func (l *look) halt(text string, undrained bool) {
	if !l.Halted {
		l.Halted = true
		l.plan.Halt, l.plan.Undrained, l.plan.Busy = text, undrained, true
	}
}

func (l *look) quarantined() int {
	count := 0
	for _, n := range l.nodes {
		if n.Work != nil && n.Work.Quarantined {
			count++
		}
	}
	return count
}

func suffix(text string) string {
	if text == "" {
		return ""
	}
	return ": " + text
}

func first(texts ...string) string {
	for _, text := range texts {
		if text != "" {
			return text
		}
	}
	return ""
}
