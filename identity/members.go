// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"slices"
)

// GroupsOf lists the groups that an object is in, directly or through others.
// It is asked at each request, so the answer is kept until a group changes.
func (d *Directory) GroupsOf(id string) []string {
	o := d.objects
	o.mu.RLock()
	found, known := o.above[id]
	o.mu.RUnlock()
	if known {
		return slices.Clone(found)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	found = o.ancestors(id)
	if len(o.above) >= maxCachedMemberships {
		clear(o.above)
	}
	o.above[id] = found
	return slices.Clone(found)
}

const maxCachedMemberships = 50_000

// ancestors walks up from an object; a group that is in itself ends there. o.mu is held.
func (o *objects) ancestors(id string) []string {
	seen, queue := map[string]bool{}, []string{id}
	found := []string{}
	for len(queue) > 0 {
		next := queue[0]
		queue = queue[1:]
		for key := range o.refs[ref{next, asMember}] {
			if parent := key[len(groups):]; !seen[parent] {
				seen[parent] = true
				found, queue = append(found, parent), append(queue, parent)
			}
		}
	}
	slices.Sort(found)
	return found
}

// GroupsWith lists the groups that an object is in directly.
func (d *Directory) GroupsWith(id string) []Group {
	return values(naming[Group](d.objects, id, asMember), func(g Group) string { return g.DisplayName + g.ID })
}

// MembersOf lists the object ids that are in a group directly or through others.
func (d *Directory) MembersOf(id string) []string {
	o := d.objects
	o.mu.RLock()
	defer o.mu.RUnlock()
	seen, queue := map[string]bool{}, []string{id}
	found := []string{}
	for len(queue) > 0 {
		g, _ := o.values[groups+queue[0]].(*Group)
		if queue = queue[1:]; g == nil {
			continue
		}
		for _, member := range g.Members {
			if !seen[member] {
				seen[member] = true
				found, queue = append(found, member), append(queue, member)
			}
		}
	}
	slices.Sort(found)
	return found
}

// values copies documents out, in the order of a name.
func values[T any](documents []*T, name func(T) string) []T {
	found := make([]T, len(documents))
	for i, v := range documents {
		found[i] = *v
	}
	slices.SortFunc(found, func(a, b T) int {
		x, y := name(a), name(b)
		switch {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	})
	return found
}

// OwnedBy lists the groups, applications and service principals that an object owns.
func (d *Directory) OwnedBy(id string) []any {
	o := d.objects
	o.mu.RLock()
	defer o.mu.RUnlock()
	var keys []string
	for key := range o.refs[ref{id, asOwner}] {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	found := make([]any, len(keys))
	for i, key := range keys {
		found[i] = o.values[key]
	}
	return found
}

// TenantID is the tenant's id once the directory is loaded.
func (d *Directory) TenantID() (string, bool) {
	t, found := d.objects.tenant()
	return t.ID, found
}

// HoldsRole says whether a directory role is assigned to an object itself.
func (d *Directory) HoldsRole(id, role string) bool {
	return slices.ContainsFunc(naming[RoleAssignment](d.objects, id, asHolder), func(a *RoleAssignment) bool { return a.Role == role })
}
