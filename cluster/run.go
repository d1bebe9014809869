// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"time"

	"bastide.dev/arm"
	"bastide.dev/host"
	"bastide.dev/reconcile"
	"bastide.dev/store"
)

// workers is how many clusters are worked on at once: the work is waiting for the store.
const workers = 8

// runner is one run of the reconciler: what it remembers is only for speed and
// patience, and is found again after a restart.
type runner struct {
	*Provider
	queue *reconcile.Queue

	mu       sync.Mutex                 // guards what follows
	owners   map[string]string          // a cluster's short id → its queue key
	starting map[string]map[string]bool // queue key of a cluster → its documents, pools' too, that have an operation
	since    map[string]time.Time       // since when a cluster's units report errors
	missing  map[string]time.Time       // since when running machines aren't among the nodes
	told     map[string]told            // what was written last of a cluster's progress
	held     map[string]time.Time       // until when a cluster's pools don't grow by themselves
	noted    map[string]int             // how many versions of a cluster's document were seen
}

func newRunner(p *Provider) *runner {
	return &runner{Provider: p, queue: reconcile.NewQueue(reconcile.Backoff{Min: 50 * time.Millisecond, Max: 10 * time.Second}),
		owners: map[string]string{}, starting: map[string]map[string]bool{}, since: map[string]time.Time{}, noted: map[string]int{}, held: map[string]time.Time{}, told: map[string]told{}, missing: map[string]time.Time{}}
}

// Run reconciles clusters until ctx ends. Several may run over one store; each
// write is conditional.
func (p *Provider) Run(ctx context.Context) error {
	r := newRunner(p)
	var group reconcile.Group
	group.Add("clusters", func(ctx context.Context) error {
		return store.Follow(ctx, p.Store, arm.DocumentPrefix, p.Log, r.document)
	})
	group.Add("reports", func(ctx context.Context) error {
		return store.Follow(ctx, p.Store, "hosts/"+p.Host+"/reports/", p.Log, r.report)
	})
	group.Add("the instance's authority", r.renewed)
	group.Add("reconciler", reconcile.Loop{Name: "clusters", Queue: r.queue, Workers: workers, Logger: p.Log,
		Reconciler: reconcile.Func(r.reconcile)}.Run)
	return group.Run(ctx)
}

// renewed asks for work on all clusters when the instance's authority is another.
func (r *runner) renewed(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.Renewed:
		}
		r.mu.Lock()
		for _, key := range r.owners {
			r.queue.Add(key)
		}
		r.mu.Unlock()
	}
}

// document sees a cluster's or a pool's document, and asks for work on the cluster.
func (r *runner) document(record store.Record, deleted bool) {
	key := strings.TrimPrefix(record.Key, arm.DocumentPrefix)
	cluster, below, isCluster := clusterKey(key)
	if !isCluster {
		return
	}
	r.busy(cluster, record, deleted)
	if !below && !deleted {
		r.remember(cluster, record)
	}
	r.queue.Add(cluster)
}

// clusterKey is the cluster in the key of its own document or one below it: a
// pool's, a maintenance configuration's.
func clusterKey(key string) (cluster string, below, ok bool) {
	marker := "/providers/" + strings.ToLower(clusterType) + "/"
	i := strings.Index(key, marker)
	if i < 0 {
		return "", false, false
	}
	name, _, below := strings.Cut(key[i+len(marker):], "/")
	return key[:i] + marker + name, below, true
}

func (r *runner) remember(key string, record store.Record) {
	doc, err := arm.DecodeDocument(record)
	if err != nil {
		return // the reconciler meets the same error, and logs it
	}
	var s clusterState
	if json.Unmarshal(doc.State, &s) != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.owners[s.ID] = key
	r.noted[key]++
}

// busy notes whether a document of a cluster has an operation: what the network
// reports concerns the clusters that wait for something.
func (r *runner) busy(key string, record store.Record, deleted bool) {
	runs := false
	if doc, err := arm.DecodeDocument(record); !deleted && err == nil {
		runs = doc.Operation != ""
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if runs {
		if r.starting[key] == nil {
			r.starting[key] = map[string]bool{}
		}
		r.starting[key][record.Key] = true
		return
	}
	delete(r.starting[key], record.Key)
	if len(r.starting[key]) == 0 {
		delete(r.starting, key)
	}
}

// report sees a host's report, and asks for work on the cluster it is about;
// one on a network or the edge, also its end, is about all that wait for anything.
func (r *runner) report(record store.Record, deleted bool) {
	kind, name, _ := strings.Cut(strings.TrimPrefix(record.Key, "hosts/"+r.Host+"/reports/"), "/")
	r.mu.Lock()
	defer r.mu.Unlock()
	if k := host.Kind(kind); k == host.EdgeUnit || k == host.VNetUnit {
		for key := range r.starting {
			r.queue.Add(key)
		}
		return
	}
	if key, known := r.owners[unitOwner(name)]; known && !deleted {
		r.queue.Add(key)
	}
}

func (r *runner) notes(key string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.noted[key]
}

// settled forgets a cluster that is gone, unless one of the same name was noted
// since notes were counted: its reports must find it.
func (r *runner) settled(key string, notes int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.noted[key] != notes {
		return
	}
	delete(r.noted, key)
	for id, owner := range r.owners {
		if owner == key {
			delete(r.owners, id)
		}
	}
	delete(r.starting, key)
	delete(r.since, key)
	delete(r.held, key)
	delete(r.told, key)
}

// troubled notes whether a cluster's units report errors, and returns since when.
func (r *runner) troubled(key string, now bool) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !now {
		delete(r.since, key)
		return time.Time{}
	}
	if _, noted := r.since[key]; !noted {
		r.since[key] = r.Now()
	}
	return r.since[key]
}
