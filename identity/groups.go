// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/google/uuid"

	"bastide.dev/fault"
	"bastide.dev/store"
)

// maxMembers of one group: its document has to fit into the store's.
const maxMembers = 20_000

var nickname = regexp.MustCompile(`^[!-~]{1,64}$`)

// CreateGroup adds a group.
func (d *Directory) CreateGroup(ctx context.Context, displayName string, members ...string) (Group, error) {
	return d.AddGroup(ctx, Group{DisplayName: displayName, Members: members})
}

// AddGroup adds a group. Its id and time are made here.
func (d *Directory) AddGroup(ctx context.Context, g Group) (Group, error) {
	g.Members, g.Owners = lowered(g.Members), lowered(g.Owners)
	problems := append(checkGroup(g), d.checkOwners(ctx, g.Owners)...)
	if err := fault.Join(append(problems, d.checkMembers(ctx, g, g.Members)...)...); err != nil {
		return Group{}, err
	}
	g.ID, g.Created = uuid.NewString(), d.stamp()
	return g, d.commit(ctx, activity{Name: "Add group", About: g.Members}, change{key: groups + g.ID, after: g, revision: store.Absent})
}

func checkGroup(g Group) []*fault.Error {
	var problems []*fault.Error
	if g.DisplayName == "" || len(g.DisplayName) > 256 {
		problems = append(problems, badValue("displayName", "Invalid value specified for property 'displayName' of resource 'Group': it has 1 to 256 characters."))
	}
	if g.MailNickname != "" && (!nickname.MatchString(g.MailNickname) || strings.ContainsAny(g.MailNickname, `@()\[]";:<>,`)) {
		problems = append(problems, badValue("mailNickname", "Invalid value specified for property 'mailNickname' of resource 'Group'."))
	}
	if len(g.Members) > maxMembers {
		problems = append(problems, fault.New(fault.Invalid, "Directory_QuotaExceeded", "A group has at most %d direct members.", maxMembers).At("members"))
	}
	return append(problems, checkTexts(g)...)
}

// checkMembers demands that what becomes a member is there and may be one. Groups
// within groups may go round in circles: whoever follows them stops there.
func (d *Directory) checkMembers(ctx context.Context, g Group, added []string) []*fault.Error {
	if len(added) > maxMembers {
		return nil // checkGroup says so
	}
	var problems []*fault.Error
	for _, id := range added {
		v, err := d.Object(ctx, id)
		switch v.(type) {
		case *User, *ServicePrincipal:
		case *Group:
			if g.RoleAssignable {
				problems = append(problems, badValue("members", "The group '%s' can't be a member of a group that is assignable to roles.", id))
			}
			if id == g.ID {
				problems = append(problems, badValue("members", "A group can't be a member of itself."))
			}
		case *Application:
			problems = append(problems, badValue("members", "The application '%s' can't be a member: its service principal can.", id))
		default:
			problems = append(problems, badValue("members", "Resource '%s' does not exist or one of its queried reference-property objects are not present.", printable(id)).Because(err))
		}
	}
	return problems
}

// EditGroup changes a group through apply, whose error stops it, and judges the
// result. Whether it is assignable to roles never changes.
func (d *Directory) EditGroup(ctx context.Context, id string, apply func(*Group) error) error {
	return edit(ctx, d, groups+strings.ToLower(id), activity{Name: "Update group"}, func(g *Group) ([]string, error) {
		before := *g
		before.Members, before.Owners = slices.Clone(g.Members), slices.Clone(g.Owners)
		if err := apply(g); err != nil {
			return nil, err
		}
		if g.RoleAssignable != before.RoleAssignable {
			return nil, badValue("isAssignableToRole", "The property isAssignableToRole can be set at the creation of a group only.")
		}
		return d.judgeMembers(ctx, g, before)
	})
}

func (d *Directory) judgeMembers(ctx context.Context, g *Group, before Group) ([]string, error) {
	g.Members, g.Owners = lowered(g.Members), lowered(g.Owners)
	added, owners := beyond(g.Members, before.Members), beyond(g.Owners, before.Owners)
	problems := append(checkGroup(*g), d.checkMembers(ctx, *g, added)...)
	if len(g.Owners) > maxOwners {
		owners = g.Owners
	}
	return added, fault.Join(append(problems, d.checkOwners(ctx, owners)...)...)
}

func beyond(list, known []string) []string {
	have := make(map[string]bool, len(known))
	for _, id := range known {
		have[id] = true
	}
	var found []string
	for _, id := range list {
		if !have[id] {
			found = append(found, id)
		}
	}
	return found
}

// AddMember puts an object into a group; one that is in it is refused.
func (d *Directory) AddMember(ctx context.Context, groupID, id string) error {
	id = strings.ToLower(id)
	return edit(ctx, d, groups+strings.ToLower(groupID), activity{Name: "Add member to group"}, func(g *Group) ([]string, error) {
		if slices.Contains(g.Members, id) {
			return nil, alreadyThere("members")
		}
		before := *g
		g.Members = append(slices.Clone(g.Members), id)
		return d.judgeMembers(ctx, g, before)
	})
}

// RemoveMember takes an object out of a group.
func (d *Directory) RemoveMember(ctx context.Context, groupID, id string) error {
	id = strings.ToLower(id)
	return edit(ctx, d, groups+strings.ToLower(groupID), activity{Name: "Remove member from group"}, func(g *Group) ([]string, error) {
		i := slices.Index(g.Members, id)
		if i < 0 {
			return nil, notFound(printable(id))
		}
		g.Members = slices.Delete(g.Members, i, i+1)
		return []string{id}, nil
	})
}

func alreadyThere(property string) error {
	return badValue(property, "One or more added object references already exist for the following modified properties: '%s'.", property)
}

// AddOwner makes a user or service principal an owner of a group, application
// or service principal (its object id).
func (d *Directory) AddOwner(ctx context.Context, objectID, owner string) error {
	owner = strings.ToLower(owner)
	return d.editOwners(ctx, objectID, "Add owner", func(owners []string) ([]string, error) {
		if slices.Contains(owners, owner) {
			return nil, alreadyThere("owners")
		}
		owners = append(owners, owner)
		if len(owners) > maxOwners {
			return nil, fault.Join(d.checkOwners(ctx, owners)...)
		}
		return owners, fault.Join(d.checkOwners(ctx, []string{owner})...)
	})
}

// RemoveOwner ends an ownership.
func (d *Directory) RemoveOwner(ctx context.Context, objectID, owner string) error {
	owner = strings.ToLower(owner)
	return d.editOwners(ctx, objectID, "Remove owner", func(owners []string) ([]string, error) {
		i := slices.Index(owners, owner)
		if i < 0 {
			return nil, notFound(printable(owner))
		}
		return slices.Delete(owners, i, i+1), nil
	})
}

func (d *Directory) editOwners(ctx context.Context, objectID, name string, apply func([]string) ([]string, error)) error {
	v, err := d.Object(ctx, objectID)
	if err != nil {
		return err
	}
	a := activity{Name: name}
	switch v := v.(type) {
	case *Group:
		return edit(ctx, d, groups+v.ID, a, func(g *Group) (_ []string, err error) {
			g.Owners, err = apply(g.Owners)
			return nil, err
		})
	case *Application:
		return edit(ctx, d, applications+v.ID, a, func(p *Application) (_ []string, err error) {
			p.Owners, err = apply(p.Owners)
			return nil, err
		})
	case *ServicePrincipal:
		return edit(ctx, d, principals+v.ID, a, func(p *ServicePrincipal) (_ []string, err error) {
			p.Owners, err = apply(p.Owners)
			return nil, err
		})
	}
	return fmt.Errorf("%T has no owners", v)
}

// DeleteGroup removes a group, its memberships and what was given to it.
func (d *Directory) DeleteGroup(ctx context.Context, id string) error {
	id = strings.ToLower(id)
	return d.remove(ctx, activity{Name: "Delete group"}, id, func() ([]change, error) {
		g, revision, err := get[Group](ctx, d.objects, groups+id)
		if err != nil {
			return nil, err
		}
		return []change{{key: groups + id, before: *g, revision: revision}}, nil
	})
}
