// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"bastide.dev/arm"
	"bastide.dev/controlplane"
	"bastide.dev/fault"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// progressPrefix is where the progress of clusters' operations stands, for
// `bastide status`. It is apart from the documents: it changes often, and nothing
// depends on it.
const progressPrefix = "progress/"

// progressEvery is how often at most a cluster's progress is written.
const progressEvery = 500 * time.Millisecond

// Progress is how far an operation has come.
type Progress struct {
	Operation string         `json:"operation"`
	Resource  string         `json:"resource"` // of the operation: a cluster or a pool
	State     resource.State `json:"state"`    // "Upgrading"
	// Done of Total nodes are as they shall be.
	Done  int `json:"done"`
	Total int `json:"total"`
	// Waits says what isn't true yet, for people.
	Waits string `json:"waits,omitempty"`
}

// ReadProgress lists how far all operations on clusters have come.
func ReadProgress(ctx context.Context, s store.Store) ([]Progress, error) {
	records, _, err := s.List(ctx, progressPrefix)
	if err != nil {
		return nil, fmt.Errorf("progress: %w", err)
	}
	all := []Progress{}
	for _, record := range records {
		var some []Progress
		if err := json.Unmarshal(record.Value, &some); err != nil {
			return nil, fmt.Errorf("progress of %s: %w", record.Key, err)
		}
		all = append(all, some...)
	}
	return all, nil
}

// told is what was written last of a cluster's progress, and when.
type told struct {
	text string
	at   time.Time
}

// tell writes how far a cluster's operations have come, if that changed, and
// says when to look again if it was too early.
func (r *runner) tell(ctx context.Context, w *whole, o observed) (time.Duration, error) {
	if o.between && r.isTold(w.doc.ID.Key()) {
		return 0, nil // what is told holds until the answer, which asks for the next look
	}
	var all []Progress // of an operation, its pools' too, there is one
	for _, id := range operations(w) {
		all = append(all, r.progress(w, o, id))
	}
	return r.keepProgress(ctx, w.doc.ID.Key(), all)
}

// isTold tells whether there is something of a cluster's progress to read.
func (r *runner) isTold(key string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.told[key].text != ""
}

// progress is how far one operation has come.
func (r *runner) progress(w *whole, o observed, id string) Progress {
	p := Progress{Operation: id, Resource: w.doc.ID.String(), State: w.doc.ProvisioningState, Waits: r.goal(w, o, id)}
	for _, pool := range w.pools {
		if id != w.doc.Operation && pool.Operation != id {
			continue
		}
		if id != w.doc.Operation {
			p.Resource, p.State = pool.ID.String(), pool.ProvisioningState
		}
		for i := range pool.Nodes {
			n := &pool.Nodes[i]
			if n.Surge && pool.Pool.Count > 0 {
				continue // comes and goes
			}
			p.Total++
			if !n.Removed && n.Work == nil && pool.upToDate(n) && o.ready[n.Name] {
				p.Done++
			}
		}
	}
	return p
}

// keepProgress stores what is there to tell of a cluster, or removes what was.
func (r *runner) keepProgress(ctx context.Context, key string, all []Progress) (time.Duration, error) {
	text := ""
	if len(all) > 0 {
		raw, err := json.Marshal(all)
		if err != nil {
			return 0, fmt.Errorf("progress: %w", err)
		}
		text = string(raw)
	}
	r.mu.Lock()
	last, known := r.told[key]
	r.mu.Unlock()
	if known && last.text == text {
		return 0, nil
	}
	if wait := progressEvery - r.Now().Sub(last.at); text != "" && last.text != "" && wait > 0 && wait <= progressEvery {
		return wait, nil
	}
	if err := r.writeProgress(ctx, key, text); err != nil {
		return 0, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.told[key] = told{text, r.Now()}
	return 0, nil
}

func (r *runner) writeProgress(ctx context.Context, key, text string) error {
	if text == "" {
		if err := r.Store.Delete(ctx, progressPrefix+key, store.Any); err != nil && !fault.Is(err, fault.NotFound) {
			return fmt.Errorf("progress: %w", err)
		}
		return nil
	}
	if _, err := r.Store.Txn(ctx, store.Change{Key: progressPrefix + key, Value: []byte(text), Revision: store.Any}); err != nil {
		return fmt.Errorf("progress: %w", err)
	}
	return nil
}

// upToDate tells whether a node is of its pool's version and target.
func (s *poolState) upToDate(n *allotted) bool {
	return n.Version == s.Pool.Version && n.Parts.sameNode(s.Target)
}

// nodeWorks says what is being done to a node, or has to be, as far as an
// operation waits for it; "" when nothing.
func (pool *poolDoc) nodeWorks(n *allotted, status controlplane.NodeStatus) string {
	if n.Work == nil {
		if pool.upToDate(n) {
			return ""
		}
		return fmt.Sprintf("node %s waits for its turn to become %s with node image %s", n.Name, pool.Pool.Version, pool.Target.Image)
	}
	if n.Work.Reason == becausePatch || n.Work.Reason == becauseRepair {
		return "" // goes on beside operations
	}
	text := "node " + n.Name + ": " + first(n.Work.Text, strings.ToLower(n.Work.Reason))
	if n.Work.Error != "" {
		return text + ": failed: " + n.Work.Error
	}
	step := map[workStep]string{workWaits: "waits for its turn", workLeaves: "is being drained", workActs: "is being made anew",
		workReturns: "comes back", workSoaks: "is watched"}[n.Work.Step]
	text += ": " + step
	if left := status.Left; n.Work.Step == workLeaves && left.Pods > 0 {
		text += fmt.Sprintf(", pods to go: %d", left.Pods)
		if left.Held != "" {
			text += ", held by " + left.Held
		}
	}
	return text
}

// deadline is how long an operation may take: making nodes anew takes longer than
// making them, for each of them may be drained as long as its pool says.
func (r *runner) deadline(w *whole, id string) time.Duration {
	d := r.CreateDeadline
	for _, pool := range w.pools {
		if pool.Operation != id && w.doc.Operation != id || !upgrades(pool.Document) && !upgrades(w.doc) {
			continue
		}
		u := pool.Pool.Upgrade
		d += time.Duration(len(pool.Nodes)) * (u.DrainTimeout() + u.Soak + r.CreateDeadline)
	}
	return d
}

// upgrades tells whether a document's operation brings nodes or the control
// plane to something else, which takes its time.
func upgrades(d *arm.Document) bool {
	return d.Operation != "" && strings.HasPrefix(string(d.ProvisioningState), string(resource.Upgrading))
}
