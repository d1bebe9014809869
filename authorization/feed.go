// SPDX-License-Identifier: Apache-2.0

package authorization

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"bastide.dev/arm"
	"bastide.dev/rbac"
	"bastide.dev/store"
)

// feed keeps a table as the store has it. Documents come from the store's watch
// and, so that a writer reads its own writes, from each write here; of two
// versions the one with the higher revision wins.
type feed struct {
	store              store.Store
	table              *rbac.Table
	log                *slog.Logger
	root, subscription string // the management group above all others, and what stands in it unless moved

	mu        sync.Mutex // guards all below, and writes to table
	loaded    bool
	revisions map[string]int64  // by key, also of deleted documents until the next full listing
	ids       map[string]string // by key: the id that the document has in the table
	parents   map[string]parent // by key of a management group or of a subscription in one
}

// parent is an edge of the tree of management groups.
type parent struct{ child, parent string }

func newFeed(s store.Store, t *rbac.Table, log *slog.Logger) *feed {
	return &feed{store: s, table: t, log: log, revisions: map[string]int64{}, ids: map[string]string{}, parents: map[string]parent{}}
}

// The parts of keys by which documents of interest are found among all.
var interesting = []string{
	"/" + strings.ToLower("providers/"+TypeAssignment) + "/",
	"/" + strings.ToLower("providers/"+TypeDefinition) + "/",
	"/" + strings.ToLower("providers/"+TypeManagementGroup) + "/",
}

func concerns(key string) bool {
	for _, part := range interesting {
		if strings.HasPrefix(key, arm.DocumentPrefix) && strings.Contains(key, part) {
			return true
		}
	}
	return false
}

// load lists everything once; later calls return at once.
func (f *feed) load(ctx context.Context) error {
	f.mu.Lock()
	loaded := f.loaded
	f.mu.Unlock()
	if loaded {
		return nil
	}
	_, err := f.list(ctx)
	return err
}

func (f *feed) list(ctx context.Context) (int64, error) {
	records, revision, err := f.store.List(ctx, arm.DocumentPrefix)
	if err != nil {
		return 0, fmt.Errorf("list role assignments: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	there := make(map[string]bool, len(records))
	for _, r := range records {
		if concerns(r.Key) {
			there[r.Key] = true
			f.put(r)
		}
	}
	for key, known := range f.revisions {
		if !there[key] && known <= revision { // gone while nobody watched
			f.drop(key)
			delete(f.revisions, key)
		}
	}
	f.loaded = true
	f.setParents()
	return revision, nil
}

// follow keeps the table current until ctx ends.
func (f *feed) follow(ctx context.Context) error {
	for ctx.Err() == nil {
		revision, err := f.list(ctx)
		if err != nil {
			if ctx.Err() == nil {
				f.log.Error("role assignments not readable", "error", err)
			}
			pause(ctx, time.Second)
			continue
		}
		for event := range f.store.Watch(ctx, arm.DocumentPrefix, revision) {
			if concerns(event.Key) {
				f.see(event)
			}
		}
		pause(ctx, 100*time.Millisecond) // a store that closes each watch at once mustn't be asked without end
	}
	return nil
}

func (f *feed) see(e store.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e.Deleted {
		f.remove(e.Key, e.Revision)
	} else {
		f.put(e.Record)
	}
	f.setParents()
}

// written takes in a transaction of this process.
func (f *feed) written(changes []store.Change, revision int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range changes {
		switch {
		case c.Check || !concerns(c.Key):
		case c.Value == nil:
			f.remove(c.Key, revision)
		default:
			f.put(store.Record{Key: c.Key, Value: c.Value, Revision: revision})
		}
	}
	f.setParents()
}

// remove takes a document away, unless a later one is there; mu is held.
func (f *feed) remove(key string, revision int64) {
	if revision > f.revisions[key] {
		f.revisions[key] = revision
		f.drop(key)
	}
}

// put takes in a document, unless a later one is there; mu is held. One that
// can't be read grants nothing.
func (f *feed) put(r store.Record) {
	if r.Revision <= f.revisions[r.Key] {
		return
	}
	f.revisions[r.Key] = r.Revision
	if err := f.take(r); err != nil {
		f.drop(r.Key)
		f.log.Error("document ignored: it grants nothing", "key", r.Key, "error", err)
	}
}

func (f *feed) take(r store.Record) error {
	d, err := arm.DecodeDocument(r)
	if err != nil {
		return err
	}
	switch {
	case d.ID.IsType(TypeAssignment):
		a, err := readAssignment(d)
		if err != nil {
			return err
		}
		f.ids[r.Key] = a.ID
		f.table.Put(a)
	case d.ID.IsType(TypeDefinition):
		definition, err := readDefinition(d)
		if err != nil {
			return err
		}
		f.ids[r.Key] = definition.ID
		f.table.Define(definition)
	case d.ID.IsType(TypeManagementGroup):
		above, err := parentOf(d)
		if err != nil {
			return err
		}
		f.parents[r.Key] = parent{d.ID.String(), above}
	case d.ID.IsType(typeMember):
		f.parents[r.Key] = parent{"/subscriptions/" + d.ID.Name(), d.ID.Parent().String()}
	}
	return nil
}

func (f *feed) drop(key string) {
	delete(f.parents, key)
	id, known := f.ids[key]
	if !known {
		return
	}
	delete(f.ids, key)
	if strings.Contains(key, interesting[0]) {
		f.table.Remove(id)
		return
	}
	f.table.Undefine(id)
}

func (f *feed) setParents() {
	all := map[string]string{f.subscription: f.root, f.root: "/"}
	for _, edge := range f.parents {
		if !strings.EqualFold(edge.child, f.root) {
			all[strings.ToLower(edge.child)] = edge.parent
		}
	}
	f.table.SetParents(all)
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// childrenOf lists what stands in a management group, by id.
func (f *feed) childrenOf(id string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var found []string
	moved := false
	for _, edge := range f.parents {
		moved = moved || strings.EqualFold(edge.child, f.subscription)
		if strings.EqualFold(edge.parent, id) {
			found = append(found, edge.child)
		}
	}
	if !moved && strings.EqualFold(id, f.root) {
		found = append(found, f.subscription)
	}
	slices.Sort(found)
	return found
}
