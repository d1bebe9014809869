// SPDX-License-Identifier: Apache-2.0

// Package roll decides, purely, how works on a pool's nodes go on: which node
// may be taken next, when it has been left, has acted and is back, how many
// nodes more than usual there are meanwhile, and when a roll stops. It keeps
// nothing: all it knows is what it is given, so that after a kill the next look
// goes on where the last one ended.
//
// Package cluster alone imports it: it reads documents and reports into a Pool
// and writes the Moves back.
package roll

import (
	"slices"
	"time"
)

// Kind is what is done to a node.
type Kind string

// The kinds.
const (
	Reimage Kind = "Reimage"
	Reboot  Kind = "Reboot"
	Remove  Kind = "Remove"
)

// Step is how far a work has come.
type Step string

// The steps, in their order. A Remove ends with Acting.
const (
	Waiting   Step = ""
	Leaving   Step = "Leaving"
	Acting    Step = "Acting"
	Returning Step = "Returning"
	Soaking   Step = "Soaking"
)

// Bounds of what a step may take, beside the drain's own.
const (
	// Boot bounds each of acting and returning, and a roll without any progress.
	Boot = 10 * time.Minute
	// Patience is how long a machine may report an error before its node has failed.
	Patience = time.Minute
	// late is how long after its timeout a drain may still be reported.
	late = time.Minute
	// dropping bounds the wait for load balancers: one that isn't kept any more holds nothing up.
	dropping = 30 * time.Second
	// uncordoning is how long a node that is back is waited for to be schedulable.
	uncordoning = 5 * time.Second
)

// Pool is a pool as it is, and how it is to be rolled.
type Pool struct {
	Count              int // how many nodes it should have
	Surge, Unavailable int // how many may be too many and too few meanwhile
	Drain, Soak        time.Duration
	// Pause is what open connections get between a node's leaving the load
	// balancers and its end.
	Pause  time.Duration
	Cordon bool // a node that can't be drained stays cordoned, and the roll goes on
	// Hold is why no node may be taken yet.
	Hold string
	// Halted: no node is taken until somebody asks again; with Canceled those that
	// are still being left are taken back.
	Halted, Canceled bool
	// Progress is when the last move was, or the roll began.
	Progress time.Time
	Nodes    []Node // in the order of their numbers; none that is gone
}

// Node is a node with what is reported of it.
type Node struct {
	Name     string
	Surge    bool // one more than the pool's count
	Outdated bool // not made of what it should be
	Work     *Work

	Ready    bool // it runs pods
	Dead     bool // nothing can be moved away from it any more
	Cordoned bool
	// Left and Failed answer the leaving that is asked for now; Held is what holds it up.
	Left, Failed bool
	Held         string
	Dropped      bool   // no load balancer leads to it
	Made         bool   // its machine runs as its acting asked
	Back         bool   // it is ready, of the right version, in a new boot
	Trouble      string // the error that its machine reports
}

// Work is what is being done to a node.
type Work struct {
	Kind    Kind
	Roll    bool // because the node is outdated, or a surge node too many
	Step    Step
	Since   time.Time // of Step
	NoDrain bool
	Drain   time.Duration // its own timeout; 0: the pool's
	Force   bool          // what is held is deleted in the end
	Gone    time.Time     // when load balancers had left the node: the pause counts from here
	// Error is why it stopped; Quarantined keeps the node cordoned then.
	Error       string
	Quarantined bool
}

// stopped tells whether nothing moves the work on any more.
func (w *Work) stopped() bool { return w != nil && w.Error != "" }

// running tells whether the work was begun and goes on.
func (w *Work) running() bool { return w != nil && w.Error == "" && w.Step != Waiting }

// away tells whether a node with this work takes no pods.
func (w *Work) away() bool {
	return w != nil && (w.Quarantined || w.running() && w.Step != Soaking)
}

// Move is one change, to be written in one transaction.
type Move struct {
	Node string
	Work *Work // from now on; nil: none
	// Act is done with it: the machine is asked to be that.
	Act Kind
}

// Plan is what comes next.
type Plan struct {
	Moves []Move
	Add   int // surge nodes to be added
	// Halt is why the roll stops now; "" when it doesn't. Undrained says that a drain was it.
	Halt      string
	Undrained bool
	// Busy tells whether the engine has anything left to do or to wait for.
	Busy bool
	// Waits says what is waited for, for people.
	Waits string
	// Again is when to look again though nothing is reported; 0: no need.
	Again time.Duration
}

// Next says how the works go on.
func Next(p Pool, now time.Time) Plan {
	if p.Surge+p.Unavailable == 0 {
		p.Surge = 1
	}
	p.Nodes = slices.Clone(p.Nodes) // works are replaced, not changed
	l := &look{Pool: p, now: now, floor: max(0, p.Count-p.Unavailable)}
	for i := range l.Nodes {
		l.nodes = append(l.nodes, &l.Nodes[i])
	}
	for _, n := range l.nodes {
		if n.Ready && !n.Work.away() {
			l.serving++
		}
	}
	for _, n := range l.nodes {
		if n.Work.running() {
			l.advance(n)
		}
	}
	l.admit()
	l.roll()
	l.retire()
	l.stall()
	return l.plan
}

// Again is the work that a node has when somebody asks again after its work
// stopped: what failed on the way back is done anew, all else is decided anew.
func Again(n Node) *Work {
	w := n.Work
	if !w.stopped() {
		return w
	}
	if w.Roll && w.Kind == Reimage && !n.Outdated && !n.Ready {
		return &Work{Kind: Reimage, Roll: true}
	}
	return nil
}
