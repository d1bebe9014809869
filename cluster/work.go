// SPDX-License-Identifier: Apache-2.0

package cluster

import "time"

// workKind is what is done to a node.
type workKind string

// The kinds of work.
const (
	reimageNode workKind = "Reimage" // a new disk, made of Parts
	rebootNode  workKind = "Reboot"  // the same disk
	removeNode  workKind = "Remove"  // its machine and its Node go
)

// Why work is done. Of two reasons the first one's work stands.
const (
	becauseUpgrade   = "Upgrade"
	becauseNodeImage = "NodeImage"
	becausePatch     = "Patch"
	becauseRepair    = "Repair"
	becauseScale     = "Scale"
	becauseAsked     = "Asked" // by a user: restart, reimage, redeploy
)

// workStep is how far work has come.
type workStep string

// The steps, in their order.
const (
	workWaits   workStep = ""        // for its turn
	workLeaves  workStep = "Leaving" // cordoned, out of load balancers, drained
	workActs    workStep = "Acting"  // reboots, is reimaged, goes
	workReturns workStep = "Returning"
	workSoaks   workStep = "Soaking"
)

// work is what is being done to a node; it has one at a time. Others ask for it
// (ask), the engine alone moves it on.
type work struct {
	Kind   workKind  `json:"kind"`
	Reason string    `json:"reason"`
	Text   string    `json:"text,omitempty"` // for people: "upgrade to 1.36.3"
	Asked  time.Time `json:"asked"`
	Step   workStep  `json:"step,omitempty"`
	Since  time.Time `json:"since,omitzero"` // of Step
	// Parts and Version are what a reimage leads to.
	Parts   Parts   `json:"parts,omitzero"`
	Version Version `json:"version,omitzero"`
	// NoDrain: nothing can be moved away any more.
	NoDrain bool `json:"noDrain,omitempty"`
	// Drain is how long evictions are tried, if not as long as the pool says; with
	// Force the pods that are held still are deleted then.
	Drain time.Duration `json:"drain,omitempty"`
	Force bool          `json:"force,omitempty"`
	// Left is when the node began to be left, Gone when load balancers had; Boot is the
	// boot that it was in then.
	Left time.Time `json:"left,omitzero"`
	Gone time.Time `json:"gone,omitzero"`
	Boot string    `json:"boot,omitempty"`
	// Error is why it stopped: nothing moves it on but another request.
	Error string `json:"error,omitempty"`
	// Quarantined: it couldn't be drained, and stays cordoned until then.
	Quarantined bool `json:"quarantined,omitempty"`
}

// ask gives a node work, unless it has some that didn't fail, or goes anyway.
func (pool *poolDoc) ask(node string, w work) bool {
	for i := range pool.Nodes {
		n := &pool.Nodes[i]
		if n.Name == node && !n.Removed && (n.Work == nil || n.Work.Error != "") {
			n.Work = &w
			return true
		}
	}
	return false
}
