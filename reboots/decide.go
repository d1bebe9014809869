// SPDX-License-Identifier: Apache-2.0

package reboots

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// RetryAfter is how long a node whose reboot failed waits for the next try: kured's period.
const RetryAfter = time.Hour

// Node is a node, as far as reboots go.
type Node struct {
	Name     string
	Required time.Time // since when it needs a reboot; zero: it doesn't
	Ready    bool
	// Working: its reboot was asked for and goes on. Busy: something else is done to it.
	Working bool
	Busy    string
	// Failed is when its last reboot failed, and Error how.
	Failed time.Time
	Error  string
	// Last is when it rebooted last for this: one that always asks gets little.
	Last time.Time
	// Looked: what blocks the node was looked at, and is Blocked.
	Looked  bool
	Blocked []string
}

// Claim is a node's wish for the lock, from before it is granted until it is given back.
type Claim struct {
	Node  string    `json:"node"`
	Since time.Time `json:"since"`
	Begun bool      `json:"begun,omitempty"` // its reboot was asked for
	Done  time.Time `json:"done,omitzero"`   // when its reboot was over; it holds the lock a while longer
}

// Input is what Decide looks at.
type Input struct {
	Settings Settings
	Nodes    []Node
	Claims   []Claim
	Locked   Locked // how the lock stands
	// Against says what stands against any reboot: settings that can't be read, a
	// maintenance window that is closed (until Opens, if that is known).
	Against string
	Opens   time.Time
	Now     time.Time
}

// Decision is what follows.
type Decision struct {
	Claims []Claim
	Begin  []string // nodes that reboot now
	Ended  []string // nodes whose reboot was over just now
	Waits  []Wait   // nodes that need a reboot and don't yet
	Again  time.Time
}

// Wait says why a node doesn't reboot yet.
type Wait struct {
	Node  string    `json:"node"`
	Since time.Time `json:"since"` // since when it needs to
	Why   string    `json:"why"`
	Until time.Time `json:"until,omitzero"` // when that ends, as far as it is known
}

// Decide says who reboots now, who asks for the lock, and why the others wait.
// A reboot begins only in two steps: a claim, and with the lock that the cluster
// shows it, a beginning. A node that doesn't come back keeps the lock, so that
// no second one follows it, until the lock's time is over.
func Decide(in Input) Decision {
	d := decider{Input: in, nodes: map[string]Node{}}
	for _, n := range in.Nodes {
		d.nodes[n.Name] = n
	}
	for _, claim := range in.Claims {
		d.keep(claim)
	}
	waiting := slices.DeleteFunc(slices.Clone(in.Nodes), func(n Node) bool { return n.Required.IsZero() || n.Working || d.claimed(n.Name) })
	slices.SortFunc(waiting, func(a, b Node) int { return cmp.Or(a.Required.Compare(b.Required), cmp.Compare(a.Name, b.Name)) })
	for _, n := range waiting {
		d.consider(n)
	}
	return d.Decision
}

type decider struct {
	Input
	Decision

	nodes  map[string]Node
	closed string    // what to say when the window is
	opens  time.Time // when it is; zero: not looked yet
}

// open tells whether the window is, and looks once.
func (d *decider) open() bool {
	if !d.opens.IsZero() {
		return !d.opens.After(d.Now)
	}
	w := d.Settings.Window
	opens, ever := w.Next(d.Now)
	if !ever { // days and times such as Parse lets pass come within two weeks
		opens = d.Now.Add(24 * time.Hour)
	}
	d.opens, d.closed = opens, "the window opens at "+opens.In(w.location()).Format("Mon 15:04 MST")
	return !opens.After(d.Now)
}

func (d *decider) claimed(name string) bool {
	return slices.ContainsFunc(d.Decision.Claims, func(c Claim) bool { return c.Node == name })
}

func (d *decider) claim(c Claim) { d.Decision.Claims = append(d.Decision.Claims, c) }

// look asks to be asked again at t.
func (d *decider) look(t time.Time) {
	if !t.IsZero() && t.After(d.Now) && (d.Again.IsZero() || t.Before(d.Again)) {
		d.Again = t
	}
}

func (d *decider) wait(n Node, why string, until time.Time) {
	d.look(until)
	d.Waits = append(d.Waits, Wait{Node: n.Name, Since: n.Required, Why: why, Until: until})
}

// keep goes on with a claim, or drops it.
func (d *decider) keep(c Claim) {
	n, exists := d.nodes[c.Node]
	if ttl := d.Settings.LockTTL; ttl > 0 {
		if d.Now.Sub(c.Since) >= ttl {
			return // whatever became of it, others may go on
		}
		d.look(c.Since.Add(ttl))
	}
	switch {
	case !exists:
	case n.Working, c.Begun && !n.Ready:
		d.claim(c)
	case c.Done.IsZero() && n.Failed.After(c.Since):
		// It failed, and is well: others may try, and it again later.
	case c.Begun || n.Required.IsZero(): // over, even if it asks again
		d.release(c)
	default:
		d.begin(c, n)
	}
}

// release gives the lock back, a while after the reboot is over.
func (d *decider) release(c Claim) {
	if c.Done.IsZero() {
		c.Done = d.Now
		if c.Begun {
			d.Ended = append(d.Ended, c.Node)
		}
	}
	if end := c.Done.Add(d.Settings.LockReleaseDelay); end.After(d.Now) {
		d.look(end)
		d.claim(c)
	}
}

// begin has a node with the lock reboot; what came up meanwhile gives the lock back.
func (d *decider) begin(c Claim, n Node) {
	if why, _ := d.against(n); why != "" {
		return // consider says so
	}
	if c.Begun = slices.Contains(d.Locked.Granted, n.Name); c.Begun {
		d.claim(c)
		d.Begin = append(d.Begin, n.Name)
		return
	}
	d.claim(c)
	d.wait(n, "it waits for the lock", time.Time{})
}

// consider has a node claim the lock, or wait.
func (d *decider) consider(n Node) {
	if why, until := d.against(n); why != "" {
		d.wait(n, why, until)
		return
	}
	if len(d.Decision.Claims) >= d.Settings.Concurrency {
		d.wait(n, "node "+d.Decision.Claims[0].Node+" has the lock", time.Time{})
		return
	}
	d.claim(Claim{Node: n.Name, Since: d.Now})
	d.wait(n, "it waits for the lock", time.Time{})
}

// against says what stands against a node's reboot now.
func (d *decider) against(n Node) (string, time.Time) {
	retry, another := n.Failed.Add(RetryAfter), n.Last.Add(RetryAfter)
	switch {
	case d.Against != "":
		return d.Against, d.Opens
	case !n.Ready:
		return "it isn't ready", time.Time{}
	case n.Busy != "":
		return n.Busy, time.Time{}
	case !n.Failed.IsZero() && retry.After(d.Now):
		return "its last reboot failed: " + n.Error, retry
	case !n.Last.IsZero() && another.After(d.Now):
		return "it has rebooted, and asks again", another
	case !d.open():
		return d.closed, d.opens
	case d.Locked.Other != "":
		return d.Locked.Other, time.Time{}
	case !n.Looked:
		return "what blocks it hasn't been looked at", time.Time{}
	case len(n.Blocked) > 0:
		return strings.Join(n.Blocked, "; "), time.Time{}
	}
	return "", time.Time{}
}
