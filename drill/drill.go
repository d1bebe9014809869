// SPDX-License-Identifier: Apache-2.0

// Package drill attacks an instance's security controls, one after another,
// and says with evidence whether they hold. Each drill shows that its attack
// works without the control, switches the control on through Azure's,
// AKS's or Kubernetes' own API, shows that the attack fails, and takes the
// control away again: a control that was never seen to matter has proved
// nothing.
//
// It sees an instance from outside alone: ARM as any client, kubectl, SSH, and
// packets from the namespaces of terminals. Only cmd and testcloud import it.
package drill

import (
	"context"
	"time"
)

// Drill is one control, and how to attack it.
type Drill struct {
	ID       string // stable; what `bastide drill run` takes
	Title    string
	Control  string // the setting that is proved, as the product's documents call it
	Explains string // what is attacked and why the control stops it, in a few sentences
	// Alone says that no other drill may run meanwhile.
	Alone bool
	// Turn names something that can be disturbed by one drill at a time: those of
	// one turn run one after another, beside all others.
	Turn string
	// Setup makes what the drill needs. What it makes it also gives to
	// Stage.Undo, so that it goes whatever happens.
	Setup func(ctx context.Context, s *Stage) (*Scene, error)
	// Parts, when there are some, are drills that this one plays in their order,
	// in place of a Setup of its own.
	Parts []Drill
}

// Scene is a drill that is set up: the attack, and the control's switch.
type Scene struct {
	// Attacks work without the control and fail with it.
	Attacks []Attack
	// Wanted is what the control must leave alone: it always works.
	Wanted []Attack
	// Never works, with the control or without it.
	Never []Attack
	// On switches the control on, Off takes it away.
	On, Off func(ctx context.Context) error
	// Question, when set, is asked of `bastide why` while the control is on.
	Question func() Question
	// Tries, when set, is how often the attacks are tried while the control is on,
	// and each try counts: for attacks that take long, and of which not one may work.
	Tries int
	// Untimed says that On and Off change nothing that takes time: the attack only
	// turns to something else.
	Untimed bool
	// Groups are the security groups whose counters are evidence.
	Groups []string
}

// Question is who wants to reach whom, as `bastide why` takes it.
type Question struct{ From, To string }

// Attack is one thing that somebody tries.
type Attack struct {
	From string // who, with the address: "terminal attacker (192.88.99.130)"
	To   string // what is tried on what: "GET http://192.88.99.134/"
	// Try tries it once, within a few seconds. An error isn't an attack that
	// failed: it says that the attack couldn't be tried at all.
	Try func(ctx context.Context) (Result, error)
}

// Result is what an attack got.
type Result struct {
	Worked bool
	Got    string // "an answer, hostname: web-1", "no answer", "connection refused"
	Body   string // what was answered in full, for the drill's own use
}

// Bounds of a drill; the tests of the harness shorten none of them, they run in a bubble.
const (
	setupPatience  = 90 * time.Second // until the attack works without the control
	switchPatience = 30 * time.Second // until a switched control is seen
	between        = 20 * time.Millisecond
	partPatience   = 4 * time.Minute // for a drill, or one of its parts
	undoPatience   = 3 * time.Minute
	holds          = 3 // how often an attack that failed is tried again
)
