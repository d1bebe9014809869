// SPDX-License-Identifier: Apache-2.0

package roll

import (
	"fmt"
	"time"
)

// candidate tells whether a node waits to be rolled. What others asked for, and
// what of that failed, a new disk does as well.
func candidate(n *Node) bool {
	switch w := n.Work; {
	case n.Surge || w.running() || w.stopped() && w.Roll:
		return false
	case w == nil || w.stopped():
		return n.Outdated
	default:
		return w.Kind != Remove && (n.Outdated || w.Roll)
	}
}

// rolled tells whether a node is being rolled.
func rolled(n *Node) bool { return n.Work.running() && n.Work.Roll && n.Work.Kind == Reimage }

// remaining are the nodes that wait to be rolled, and how many are being rolled.
func (l *look) remaining() (waiting []*Node, rolling int) {
	for _, n := range l.nodes {
		switch {
		case candidate(n):
			waiting = append(waiting, n)
		case rolled(n):
			rolling++
		}
	}
	return waiting, rolling
}

// admit begins what others asked for. While the pool is rolled, what would take
// a serving node waits; what brings back one that doesn't serve may go.
func (l *look) admit() {
	waiting, rolling := l.remaining()
	busy := rolling > 0 || len(waiting) > 0 && !l.Halted
	for _, n := range l.nodes {
		w := n.Work
		switch {
		case w == nil || w.running() || w.stopped() || candidate(n) && !l.Halted:
		case w.Roll && w.Kind == Reimage: // of a roll that stopped
			if l.Canceled {
				l.set(n, nil, "")
			}
		case w.Kind != Remove && busy && n.Ready:
		default:
			l.start(n, *w)
		}
	}
}

// roll takes the next outdated nodes: first those that don't serve, then as many
// as the others can do without.
func (l *look) roll() {
	waiting, rolling := l.remaining()
	if len(waiting) == 0 || l.Halted {
		return
	}
	if l.Hold != "" {
		l.waits(0, "%s", l.Hold)
		return
	}
	room := max(1, l.Surge+l.Unavailable) - rolling
	for _, serving := range []bool{false, true} {
		for _, n := range waiting {
			if n.Ready != serving || room <= 0 || serving && l.serving <= l.floor {
				continue
			}
			w := Work{Kind: Reimage, Roll: true}
			if n.Work != nil && n.Work.Roll {
				w = *n.Work
			}
			l.start(n, w)
			room--
		}
	}
}

// surges is how many surge nodes there should be: as many as are still of use,
// and one for each node that stays cordoned.
func (l *look) surges() int {
	waiting, rolling := l.remaining()
	standing := min(l.Surge, l.quarantined())
	if l.Halted || l.Hold != "" && rolling == 0 {
		return standing
	}
	return min(l.Surge, len(waiting)+rolling) + standing
}

// retire adds the surge nodes that are missing, and takes those away that are of
// no use any more, unless the pool can't do without them.
func (l *look) retire() {
	want, fresh, all := l.surges(), 0, 0
	for _, n := range l.nodes {
		if !n.Surge {
			continue
		}
		all++
		if n.Work == nil && !n.Outdated {
			fresh++
		}
	}
	// Those that never came up go first, and the youngest before the others.
	for _, ready := range []bool{false, true} {
		for i := len(l.nodes) - 1; i >= 0; i-- {
			n := l.nodes[i]
			if !n.Surge || n.Work != nil || n.Ready != ready || !n.Outdated && fresh <= want {
				continue
			}
			if ready && l.serving <= l.floor {
				l.kept(n)
				continue
			}
			if !n.Outdated {
				fresh--
			}
			l.start(n, Work{Kind: Remove, Roll: true})
		}
	}
	if !l.Halted {
		l.plan.Add = max(0, min(want-fresh, l.Surge+min(l.Surge, l.quarantined())-all))
	}
	l.plan.Busy = l.plan.Busy || l.plan.Add > 0
}

// kept notes a surge node that stands in for one that doesn't serve. In a roll
// that has stopped it stays until somebody asks again.
func (l *look) kept(n *Node) {
	if !l.Halted {
		l.waits(0, "surge node %s stands in for a node that isn't ready", n.Name)
	}
}

// stall stops a roll that has no node to take and none under way: at once when
// all that is left are nodes that couldn't be drained, else after a while.
func (l *look) stall() {
	waiting, rolling := l.remaining()
	if l.Halted || rolling > 0 || l.underWay() || len(l.plan.Moves) > 0 || l.plan.Add > 0 {
		return
	}
	for _, n := range l.nodes {
		if n.Work != nil && n.Work.Quarantined && (len(waiting) == 0 || l.healthy()) {
			l.halt(n.Work.Error, true)
			return
		}
	}
	if l.Hold != "" && len(waiting) > 0 || len(waiting) == 0 && !l.surplus() {
		return
	}
	left, why := l.left(l.Progress, Boot), "no node can be spared"
	for _, n := range l.nodes {
		if n.Ready || n.Work.stopped() {
			continue
		}
		why = fmt.Sprintf("node %s isn't ready%s", n.Name, suffix(n.Trouble))
		if n.Surge && n.Trouble != "" {
			left = min(left, l.left(l.Progress, Patience))
		}
		break
	}
	if left <= 0 {
		l.halt(why, false)
		return
	}
	l.waits(left, "%s", why)
}

// healthy tells whether every node that isn't kept away is ready: nothing will change by itself.
func (l *look) healthy() bool {
	for _, n := range l.nodes {
		if !n.Ready && n.Work == nil {
			return false
		}
	}
	return true
}

// surplus tells whether a surge node is left without any use.
func (l *look) surplus() bool {
	for _, n := range l.nodes {
		if n.Surge && n.Work == nil {
			return true
		}
	}
	return false
}

// underWay tells whether any work is being done.
func (l *look) underWay() bool {
	for _, n := range l.nodes {
		if n.Work.running() {
			return true
		}
	}
	return false
}

// Text is what a work looks like to people.
func (s Step) Text(k Kind) string {
	switch s {
	case Leaving:
		return "being drained"
	case Acting:
		return map[Kind]string{Reimage: "being reimaged", Reboot: "rebooting", Remove: "being removed"}[k]
	case Returning:
		return "coming back"
	case Soaking:
		return "soaking"
	case Waiting:
	}
	return "waiting"
}

// Overdue bounds a whole work on one node: no roll takes longer than its nodes do.
func Overdue(drain, soak time.Duration) time.Duration { return drain + late + 2*Boot + soak + Boot }
