// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"slices"
	"strings"

	"bastide.dev/fault"
	"bastide.dev/store"
)

// references are the changes that take an object out of every document that
// names it: memberships and ownerships end, what was given to it is deleted.
func (d *Directory) references(ctx context.Context, id string) ([]change, error) {
	if err := d.objects.load(ctx); err != nil {
		return nil, err
	}
	o := d.objects
	o.mu.RLock()
	keys := map[string]bool{}
	for _, as := range []string{asMember, asOwner, asHolder, asResource, asClient} {
		for key := range o.refs[ref{id, as}] {
			keys[key] = true
		}
	}
	found := make([]change, 0, len(keys))
	for key := range keys {
		found = append(found, change{key: key, before: o.values[key], revision: o.revisions[key]})
	}
	o.mu.RUnlock()
	slices.SortFunc(found, func(a, b change) int { return strings.Compare(a.key, b.key) })
	for i := range found {
		next, err := relieved(found[i].before, id)
		if err != nil {
			return nil, err
		}
		found[i].after = next
	}
	return found, nil
}

// relieved is a document without an object that is going, nil when it goes, too.
func relieved(v any, id string) (any, error) {
	drop := func(ids []string) []string {
		return slices.DeleteFunc(slices.Clone(ids), func(other string) bool { return other == id })
	}
	switch v := v.(type) {
	case *Group:
		next := *v
		next.Members, next.Owners = drop(v.Members), drop(v.Owners)
		return next, nil
	case *Application:
		next := *v
		next.Owners = drop(v.Owners)
		return next, nil
	case *ServicePrincipal:
		next := *v
		next.Owners = drop(v.Owners)
		return next, nil
	}
	return nil, nil
}

// remove deletes an object and what names it. When very much does, that goes
// first in transactions of its own: a kill in between leaves the object with
// less, and a second deletion ends it.
func (d *Directory) remove(ctx context.Context, a activity, id string, plan func() ([]change, error)) error {
	for {
		refs, err := d.references(ctx, id)
		if err != nil {
			return err
		}
		if len(refs) <= maxReferences {
			break
		}
		if err := d.retry(ctx, func() (activity, []change, error) {
			refs, err := d.references(ctx, id)
			return activity{Name: a.Name, Category: a.Category, About: []string{id}}, refs[:min(len(refs), maxReferences)], err
		}); err != nil {
			return err
		}
	}
	return d.retry(ctx, func() (activity, []change, error) {
		changes, err := plan()
		if err != nil || len(changes) == 0 {
			return a, nil, err
		}
		refs, err := d.references(ctx, id)
		if err != nil {
			return a, nil, err
		}
		var roles []string
		for _, c := range refs {
			if strings.HasPrefix(c.key, roleHolders) {
				roles = append(roles, strings.TrimPrefix(c.key, roleHolders))
			}
		}
		checks, err := d.keepsAdministrator(ctx, roles...)
		return a, append(append(changes, refs...), checks...), err
	})
}

// ReferenceChanges are the changes that go with the deletion of an object which
// somebody else writes.
func (d *Directory) ReferenceChanges(ctx context.Context, id string) ([]store.Change, error) {
	refs, err := d.references(ctx, strings.ToLower(id))
	if err != nil {
		return nil, err
	}
	found := make([]store.Change, 0, len(refs))
	for _, c := range refs[:min(len(refs), maxReferences)] {
		next := store.Change{Key: c.key, Revision: c.revision}
		if c.after != nil {
			data, err := encode(c.key, c.after)
			if err != nil {
				return nil, err
			}
			next.Value = data
		}
		found = append(found, next)
	}
	return found, nil
}

// checkOwners demands that all owners are users or service principals.
func (d *Directory) checkOwners(ctx context.Context, owners []string) []*fault.Error {
	var problems []*fault.Error
	if len(owners) > maxOwners {
		problems = append(problems, fault.New(fault.Invalid, "Directory_QuotaExceeded", "An object has at most %d owners.", maxOwners).At("owners"))
		return problems
	}
	for _, id := range owners {
		v, err := d.Object(ctx, id)
		switch v.(type) {
		case *User, *ServicePrincipal:
		default:
			problems = append(problems, badValue("owners", "The owner '%s' is not a user or service principal of this directory.", printable(id)).Because(err))
		}
	}
	return problems
}

const maxOwners = 100

// lowered are ids in the form in which they are kept, each once.
func lowered(ids []string) []string {
	found := make([]string, 0, len(ids))
	seen := map[string]bool{}
	for _, id := range ids {
		if id = strings.ToLower(id); !seen[id] {
			seen[id] = true
			found = append(found, id)
		}
	}
	return found
}
