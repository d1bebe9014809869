// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"bastide.dev/fault"
	"bastide.dev/store"
)

// change is one document of a directory's transaction: after nil deletes it,
// check demands only that the revision is still the one that was read.
type change struct {
	key           string
	before, after any
	revision      int64
	check         bool
}

// maxReferences is how many documents that name a deleted object go with it in
// its own transaction; etcd bounds those.
const maxReferences = 400

// commit writes changes and the audit log's record of them in one transaction,
// and makes them visible here at once.
func (d *Directory) commit(ctx context.Context, a activity, changes ...change) error {
	records := make([]store.Change, 0, len(changes)+1)
	for _, c := range changes {
		next := store.Change{Key: c.key, Revision: c.revision, Check: c.check}
		if c.after != nil && !c.check {
			data, err := encode(c.key, c.after)
			if err != nil {
				return err
			}
			if len(data) > maxDocument {
				return fault.New(fault.Invalid, "Directory_QuotaExceeded", "The object is larger than the directory takes.")
			}
			next.Value = data
		}
		records = append(records, next)
	}
	entry, err := d.record(ctx, a, changes)
	if err != nil {
		return err
	}
	revision, err := d.config.Store.Txn(ctx, append(records, entry)...)
	if err != nil {
		return fmt.Errorf("write directory: %w", err)
	}
	d.objects.mu.Lock()
	defer d.objects.mu.Unlock()
	for _, r := range records {
		switch {
		case r.Check || !strings.HasPrefix(r.Key, prefix):
		case r.Value == nil:
			d.objects.replace(r.Key, nil, revision)
		default:
			if err := d.objects.set(store.Record{Key: r.Key, Value: r.Value, Revision: revision}); err != nil {
				return err
			}
		}
	}
	return nil
}

func encode(key string, v any) ([]byte, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", key, err)
	}
	return data, nil
}

// maxDocument keeps a document below what etcd takes in one request.
const maxDocument = 1 << 20

// retry plans and commits until no other writer was first. No change is no write.
func (d *Directory) retry(ctx context.Context, plan func() (activity, []change, error)) error {
	if err := d.objects.load(ctx); err != nil {
		return err
	}
	for range maxAttempts {
		a, changes, err := plan()
		if err != nil || len(changes) == 0 {
			return err
		}
		err = d.commit(ctx, a, changes...)
		if !fault.Is(err, fault.Precondition) {
			return err
		}
		for _, c := range changes {
			if err := d.objects.refresh(ctx, c.key); err != nil {
				return err
			}
		}
	}
	return fault.New(fault.Conflict, "Directory_ConcurrencyViolation", "The object was changed by others again and again. Try once more.")
}

const maxAttempts = 100

// refresh reads a document that another wrote.
func (o *objects) refresh(ctx context.Context, key string) error {
	if !strings.HasPrefix(key, prefix) {
		return nil
	}
	record, err := o.store.Get(ctx, key)
	o.mu.Lock()
	defer o.mu.Unlock()
	if fault.Is(err, fault.NotFound) {
		o.replace(key, nil, o.revisions[key]+1)
		return nil
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", key, err)
	}
	return o.set(record)
}

// update changes one document through change, again when another writer was first.
func update[T any](ctx context.Context, d *Directory, key string, change func(*T)) error {
	return edit(ctx, d, key, activity{}, func(v *T) ([]string, error) {
		change(v)
		return nil, nil
	})
}

// edit changes one document through apply, whose error stops it; the ids it
// returns are what the change is about as well.
func edit[T any](ctx context.Context, d *Directory, key string, a activity, apply func(*T) ([]string, error)) error {
	return d.retry(ctx, func() (activity, []change, error) {
		current, revision, err := get[T](ctx, d.objects, key)
		if err != nil {
			return a, nil, err
		}
		next, err := clone(current)
		if err != nil {
			return a, nil, err
		}
		about, err := apply(next)
		a.About = about
		return a, []change{{key: key, before: *current, after: *next, revision: revision}}, err
	})
}

// clone copies a document with all that it points to: others read the original.
func clone[T any](v *T) (*T, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	next := new(T)
	if err := json.Unmarshal(data, next); err != nil {
		return nil, fmt.Errorf("decode %T: %w", v, err)
	}
	return next, nil
}

// one finds a document of a kind by its id.
func one[T any](ctx context.Context, d *Directory, under, id string) (T, error) {
	var none T
	if uuid.Validate(id) != nil {
		return none, notFound(printable(id))
	}
	if err := d.objects.load(ctx); err != nil {
		return none, err
	}
	v, _, err := get[T](ctx, d.objects, under+strings.ToLower(id))
	if err != nil {
		return none, err
	}
	return *v, nil
}

// Object finds whatever has an object id: a *User, *Group, *ServicePrincipal or *Application.
func (d *Directory) Object(ctx context.Context, id string) (any, error) {
	if uuid.Validate(id) != nil {
		return nil, notFound(printable(id))
	}
	if err := d.objects.load(ctx); err != nil {
		return nil, err
	}
	id = strings.ToLower(id)
	d.objects.mu.RLock()
	for _, under := range []string{users, groups, principals, applications} {
		if v := d.objects.values[under+id]; v != nil {
			d.objects.mu.RUnlock()
			return v, nil
		}
	}
	d.objects.mu.RUnlock()
	sp, err := d.firstPartyPrincipal(ctx, id)
	if err == nil && sp.ID == id {
		return &sp, nil
	}
	return nil, cmpError(ignoreMissing(err), notFound(id))
}

func ignoreMissing(err error) error {
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	return err
}

// cmpError is the first that isn't nil.
func cmpError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// badValue is Graph's refusal of a property's value.
func badValue(property, format string, args ...any) *fault.Error {
	return fault.New(fault.Invalid, "Request_BadRequest", format, args...).At(property)
}
