// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"bastide.dev/fault"
	"bastide.dev/store"
)

// objects is the directory in memory. Documents come from the store's watch
// and, so that a writer reads its own writes, from each write here; the higher
// revision wins.
type objects struct {
	store store.Store

	mu        sync.RWMutex // guards all below
	loaded    bool
	revisions map[string]int64 // by key, also of deleted documents until the next full listing
	values    map[string]any   // by key: *Tenant, *User, …
	userNames map[string]string
	appKeys   map[string]string       // app id → key of the application
	spKeys    map[string]string       // app id → key of the service principal
	uris      map[string]string       // identifier URI → key of the application
	refs      map[ref]map[string]bool // object id, and what it is there → keys of the documents that name it
	above     map[string][]string     // object id → GroupsOf, since the last change of a group
}

// ref is an object as a document of another names it.
type ref struct{ id, as string }

// What an object is in the document that names it.
const (
	asMember   = "member"   // of a group
	asOwner    = "owner"    // of a group, application or service principal
	asHolder   = "holder"   // of a directory role, an app role, a consent
	asResource = "resource" // whose app role is assigned, to which is consented
	asClient   = "client"   // that is consented to
)

func newObjects(s store.Store) *objects {
	o := &objects{store: s}
	o.reset()
	return o
}

func (o *objects) reset() {
	o.revisions, o.values = map[string]int64{}, map[string]any{}
	o.userNames, o.appKeys, o.spKeys = map[string]string{}, map[string]string{}, map[string]string{}
	o.uris, o.refs, o.above = map[string]string{}, map[ref]map[string]bool{}, map[string][]string{}
}

// load lists the directory once; later calls return at once.
func (o *objects) load(ctx context.Context) error {
	o.mu.RLock()
	loaded := o.loaded
	o.mu.RUnlock()
	if loaded {
		return nil
	}
	_, err := o.list(ctx)
	return err
}

func (o *objects) list(ctx context.Context) (int64, error) {
	records, revision, err := o.store.List(ctx, prefix)
	if err != nil {
		return 0, fmt.Errorf("list directory: %w", err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	// What was written here after the listing was taken must not be lost.
	newer := map[string]any{}
	newerRevisions := map[string]int64{}
	for key, r := range o.revisions {
		if r > revision {
			newer[key], newerRevisions[key] = o.values[key], r
		}
	}
	o.reset()
	for _, r := range records {
		if err := o.set(r); err != nil {
			return 0, err
		}
	}
	for key, value := range newer {
		o.replace(key, value, newerRevisions[key])
	}
	o.loaded = true
	return revision, nil
}

// follow keeps the directory current until ctx ends.
func (o *objects) follow(ctx context.Context, log *slog.Logger) error {
	for ctx.Err() == nil {
		revision, err := o.list(ctx)
		if err != nil {
			if ctx.Err() == nil {
				log.Error("directory not readable", "error", err)
			}
			pause(ctx, time.Second)
			continue
		}
		for event := range o.store.Watch(ctx, prefix, revision) {
			o.mu.Lock()
			if event.Deleted {
				o.replace(event.Key, nil, event.Revision)
			} else if err := o.set(event.Record); err != nil {
				log.Error("directory document ignored", "key", event.Key, "error", err)
			}
			o.mu.Unlock()
		}
		pause(ctx, 100*time.Millisecond) // a store that closes each watch at once mustn't be asked without end
	}
	return nil
}

// put writes a document if its revision matches and makes it visible at once.
func (o *objects) put(ctx context.Context, key string, value any, revision int64) error {
	data, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("encode %s: %w", key, err)
	}
	written, err := o.store.Put(ctx, key, data, revision)
	if err != nil {
		return fmt.Errorf("write %s: %w", key, err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.set(store.Record{Key: key, Value: data, Revision: written})
}

// set decodes and takes in one document; o.mu is held.
func (o *objects) set(r store.Record) error {
	var value any
	switch {
	case r.Key == tenantKey:
		value = &Tenant{}
	case strings.HasPrefix(r.Key, users):
		value = &User{}
	case strings.HasPrefix(r.Key, applications):
		value = &Application{}
	case strings.HasPrefix(r.Key, principals):
		value = &ServicePrincipal{}
	case strings.HasPrefix(r.Key, groups):
		value = &Group{}
	case strings.HasPrefix(r.Key, formerAssignments):
		return nil
	case strings.HasPrefix(r.Key, roleHolders):
		value = &RoleAssignment{}
	case strings.HasPrefix(r.Key, appRoles):
		value = &AppRoleAssignment{}
	case strings.HasPrefix(r.Key, grants):
		value = &Grant{}
	default:
		return fmt.Errorf("unknown kind of directory document %q", r.Key)
	}
	if err := json.Unmarshal(r.Value, value); err != nil {
		return fmt.Errorf("decode %s: %w", r.Key, err)
	}
	o.replace(r.Key, value, r.Revision)
	return nil
}

// replace takes in one document, nil for none, unless a later one is there; o.mu is held.
func (o *objects) replace(key string, value any, revision int64) {
	if revision <= o.revisions[key] {
		return
	}
	o.unindex(key)
	o.revisions[key] = revision
	delete(o.values, key)
	if value == nil {
		return
	}
	o.values[key] = value
	o.index(key, value)
}

func (o *objects) index(key string, value any) {
	switch v := value.(type) {
	case *User:
		o.userNames[strings.ToLower(v.Name)] = key
	case *Application:
		o.appKeys[strings.ToLower(v.AppID)] = key
		for _, uri := range v.IdentifierURIs {
			o.uris[strings.ToLower(uri)] = key
		}
	case *ServicePrincipal:
		o.spKeys[strings.ToLower(v.AppID)] = key
	case *Group:
		clear(o.above)
	}
	for _, r := range refsOf(value) {
		if o.refs[r] == nil {
			o.refs[r] = map[string]bool{}
		}
		o.refs[r][key] = true
	}
}

func (o *objects) unindex(key string) {
	value := o.values[key]
	switch v := value.(type) {
	case *User:
		o.forget(o.userNames, v.Name, key)
	case *Application:
		o.forget(o.appKeys, v.AppID, key)
		for _, uri := range v.IdentifierURIs {
			o.forget(o.uris, uri, key)
		}
	case *ServicePrincipal:
		o.forget(o.spKeys, v.AppID, key)
	case *Group:
		clear(o.above)
	}
	for _, r := range refsOf(value) {
		if delete(o.refs[r], key); len(o.refs[r]) == 0 {
			delete(o.refs, r)
		}
	}
}

// forget takes key's name out of an index, unless another document has it by now.
func (o *objects) forget(names map[string]string, name, key string) {
	if name = strings.ToLower(name); names[name] == key {
		delete(names, name)
	}
}

// refsOf are the objects that a document names.
func refsOf(value any) []ref {
	var found []ref
	add := func(as string, ids ...string) {
		for _, id := range ids {
			found = append(found, ref{id, as})
		}
	}
	switch v := value.(type) {
	case *Application:
		add(asOwner, v.Owners...)
	case *ServicePrincipal:
		add(asOwner, v.Owners...)
	case *Group:
		add(asMember, v.Members...)
		add(asOwner, v.Owners...)
	case *RoleAssignment:
		add(asHolder, v.PrincipalID)
	case *AppRoleAssignment:
		add(asHolder, v.PrincipalID)
		add(asResource, v.ResourceID)
	case *Grant:
		add(asClient, v.ClientID)
		add(asResource, v.ResourceID)
		if v.PrincipalID != "" {
			add(asHolder, v.PrincipalID)
		}
	}
	return found
}

// naming returns the documents of one kind that name an object.
func naming[T any](o *objects, id, as string) []*T {
	o.mu.RLock()
	defer o.mu.RUnlock()
	var found []*T
	for key := range o.refs[ref{id, as}] {
		if v, ok := o.values[key].(*T); ok {
			found = append(found, v)
		}
	}
	return found
}

// get returns the document of key as T. One that another replica wrote a moment
// ago and the watch hasn't brought yet is read from the store.
func get[T any](ctx context.Context, o *objects, key string) (*T, int64, error) {
	o.mu.RLock()
	value, found := o.values[key].(*T)
	revision, known := o.revisions[key]
	o.mu.RUnlock()
	if found {
		return value, revision, nil
	}
	if !known {
		record, err := o.store.Get(ctx, key)
		if err != nil {
			return nil, 0, err
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		if err := o.set(record); err != nil {
			return nil, 0, err
		}
		if value, found = o.values[key].(*T); found {
			return value, record.Revision, nil
		}
	}
	return nil, 0, fault.New(fault.NotFound, "Request_ResourceNotFound", "Resource '%s' does not exist.", key[strings.LastIndexByte(key, '/')+1:])
}

// all returns the documents under a prefix.
func all[T any](o *objects, under string) []*T {
	o.mu.RLock()
	defer o.mu.RUnlock()
	var found []*T
	for key, value := range o.values {
		if strings.HasPrefix(key, under) {
			if v, ok := value.(*T); ok {
				found = append(found, v)
			}
		}
	}
	return found
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
