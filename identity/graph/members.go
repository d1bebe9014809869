// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"slices"
	"strings"

	"bastide.dev/fault"
	"bastide.dev/identity"
)

// itemOf is a directory object as an item.
func (s *Service) itemOf(r *request, v any) item {
	switch v := v.(type) {
	case *identity.User:
		return entity[identity.User]{s.kinds.user, v}
	case *identity.Group:
		return entity[identity.Group]{s.kinds.group, v}
	case *identity.Application:
		return entity[identity.Application]{s.kinds.application, v}
	case *identity.ServicePrincipal:
		a := s.actor(r, *v)
		return entity[actor]{s.kinds.principal, &a}
	}
	return object{}
}

// typeOf is an item's @odata.type.
func typeOf(i item) string {
	switch e := i.(type) {
	case entity[identity.User]:
		return "#microsoft.graph." + e.kind.name
	case entity[identity.Group]:
		return "#microsoft.graph." + e.kind.name
	case entity[identity.Application]:
		return "#microsoft.graph." + e.kind.name
	case entity[actor]:
		return "#microsoft.graph." + e.kind.name
	}
	return ""
}

// find turns ids into items; an id of nothing is left out.
func (s *Service) find(r *request, ids []string) []item {
	found := []item{}
	for _, id := range ids {
		if v, err := s.directory.Object(r.Context(), id); err == nil {
			found = append(found, s.itemOf(r, v))
		}
	}
	return found
}

// area is the part of the directory that an object is in.
func areaOf(v any) area {
	switch v.(type) {
	case *identity.User:
		return userArea
	case *identity.Group:
		return groupArea
	}
	return applicationArea
}

// cast keeps items of one type: the segment microsoft.graph.user behind a collection.
func cast(r *request, found []item) ([]item, error) {
	kind := r.PathValue("type")
	if kind == "" {
		return found, nil
	}
	name, typed := strings.CutPrefix(kind, "microsoft.graph.")
	if !typed {
		return nil, fault.New(fault.NotFound, "NotImplemented", "Bastide's directory doesn't implement %s %s.", r.Method, clip(r.URL.Path))
	}
	return slices.DeleteFunc(found, func(i item) bool { return !strings.EqualFold(typeOf(i), "#microsoft.graph."+name) }), nil
}

// subject is the object of a path, of the collection that the path names.
func (s *Service) subject(r *request) (any, error) {
	switch collection, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v1.0/"), "/"); collection {
	case "me", "users":
		u, err := s.userOf(r)
		return &u, err
	case "groups":
		g, err := s.groupOf(r)
		return &g, err
	case "applications":
		a, err := s.applicationOf(r)
		return &a, err
	case "servicePrincipals":
		sp, err := s.principalOf(r)
		return &sp, err
	}
	v, err := s.directory.Object(r.Context(), r.PathValue("id"))
	if err != nil {
		return nil, s.hidden(r, userArea, err)
	}
	return v, nil
}

func idOf(v any) string {
	switch v := v.(type) {
	case *identity.User:
		return v.ID
	case *identity.Group:
		return v.ID
	case *identity.Application:
		return v.ID
	case *identity.ServicePrincipal:
		return v.ID
	}
	return ""
}

// related answers a navigation property of a path's object.
func (s *Service) related(name string) answerer {
	return func(r *request) (any, error) {
		v, err := s.subject(r)
		if err != nil {
			return nil, err
		}
		needed := areaOf(v)
		if strings.Contains(strings.ToLower(name), "memberof") {
			needed = groupArea
		}
		if !r.may.reads(needed) && idOf(v) != r.who.ID && needed != applicationArea {
			return nil, denied()
		}
		found, err := cast(r, s.relatives(r, v, name))
		if err != nil {
			return nil, err
		}
		if strings.HasSuffix(r.URL.Path, "/$count") {
			return s.count(r, found)
		}
		if strings.HasSuffix(r.URL.Path, "/$ref") {
			references := []object{}
			for _, i := range found {
				id, _ := i.get("id")
				references = append(references, object{"@odata.id": s.directory.Endpoints().Graph + "/v1.0/directoryObjects/" + id.(string)})
			}
			return object{"@odata.context": s.context("Collection($ref)"), "value": references}, nil
		}
		return s.collection(r, "directoryObjects", found)
	}
}

// relatedOne answers one reference of a navigation property, if it is there.
func (s *Service) relatedOne(name string) answerer {
	return func(r *request) (any, error) {
		v, err := s.subject(r)
		if err != nil {
			return nil, err
		}
		if err := r.mayRead(areaOf(v)); err != nil {
			return nil, err
		}
		for _, i := range s.relatives(r, v, name) {
			id, _ := i.get("id")
			if text, _ := id.(string); strings.EqualFold(text, r.PathValue("other")) {
				return object{"@odata.context": s.context("$ref"), "@odata.id": s.directory.Endpoints().Graph + "/v1.0/directoryObjects/" + text, "@odata.type": typeOf(i), "id": text}, nil
			}
		}
		return nil, missing(r.PathValue("other"))
	}
}

func (s *Service) relatives(r *request, v any, name string) []item {
	id := idOf(v)
	switch name {
	case "members":
		if g, ok := v.(*identity.Group); ok {
			return s.find(r, g.Members)
		}
	case "transitiveMembers":
		return s.find(r, s.directory.MembersOf(id))
	case "owners":
		switch v := v.(type) {
		case *identity.Group:
			return s.find(r, v.Owners)
		case *identity.Application:
			return s.find(r, v.Owners)
		case *identity.ServicePrincipal:
			return s.find(r, v.Owners)
		}
	case "memberOf":
		return append(items(s.kinds.group, s.directory.GroupsWith(id)), s.rolesHeld(id, false)...)
	case "transitiveMemberOf":
		return append(s.find(r, s.directory.GroupsOf(id)), s.rolesHeld(id, true)...)
	case "ownedObjects":
		found := []item{}
		for _, owned := range s.directory.OwnedBy(id) {
			found = append(found, s.itemOf(r, owned))
		}
		return found
	}
	return []item{}
}

// expand puts navigation properties into what is shown of an object.
func (s *Service) expand(r *request, i item, names []string, shown object) error {
	if len(names) == 0 {
		return nil
	}
	id, _ := i.get("id")
	text, _ := id.(string)
	v, err := s.directory.Object(r.Context(), text)
	if err != nil {
		return badQuery("This resource has nothing to expand.")
	}
	for _, name := range names {
		if !r.may.reads(areaOf(v)) {
			return denied()
		}
		values := []object{}
		for _, other := range s.relatives(r, v, name) {
			values = append(values, other.object())
		}
		shown[name] = values
	}
	return nil
}

// reference reads the body of POST …/$ref.
func (s *Service) reference(r *request) (string, error) {
	var body struct {
		ID string `json:"@odata.id"`
	}
	if err := readInto(r, &body); err != nil {
		return "", err
	}
	return s.referred(body.ID)
}

func (s *Service) addMember(r *request) (any, error) {
	g, err := s.groupOf(r)
	if err != nil {
		return nil, err
	}
	if err := s.mayWriteGroup(r, &g, true); err != nil {
		return nil, err
	}
	id, err := s.reference(r)
	if err != nil {
		return nil, err
	}
	return nil, s.directory.AddMember(r.Context(), g.ID, id)
}

func (s *Service) removeMember(r *request) (any, error) {
	g, err := s.groupOf(r)
	if err != nil {
		return nil, err
	}
	if err := s.mayWriteGroup(r, &g, true); err != nil {
		return nil, err
	}
	return nil, s.directory.RemoveMember(r.Context(), g.ID, r.PathValue("other"))
}

// mayOwn judges a change of an object's owners: whoever may write it may.
func (s *Service) mayOwn(r *request, v any) error {
	switch v := v.(type) {
	case *identity.Group:
		return s.mayWriteGroup(r, v, false)
	case *identity.Application:
		return s.mayWriteApplication(r, v.AppID, v.Owners)
	case *identity.ServicePrincipal:
		return joined(s.mayWriteApplication(r, v.AppID, v.Owners), managed(*v, false))
	}
	return denied()
}

func (s *Service) addOwner(r *request) (any, error) {
	v, err := s.subject(r)
	if err != nil {
		return nil, err
	}
	if err := s.mayOwn(r, v); err != nil {
		return nil, err
	}
	id, err := s.reference(r)
	if err != nil {
		return nil, err
	}
	return nil, s.directory.AddOwner(r.Context(), idOf(v), id)
}

func (s *Service) removeOwner(r *request) (any, error) {
	v, err := s.subject(r)
	if err != nil {
		return nil, err
	}
	if err := s.mayOwn(r, v); err != nil {
		return nil, err
	}
	return nil, s.directory.RemoveOwner(r.Context(), idOf(v), r.PathValue("other"))
}

func (s *Service) getObject(r *request) (any, error) {
	v, err := s.directory.Object(r.Context(), r.PathValue("id"))
	if err != nil {
		return nil, s.hidden(r, userArea, err)
	}
	if !r.may.reads(areaOf(v)) && idOf(v) != r.who.ID {
		return nil, denied()
	}
	return s.one(r, s.itemOf(r, v), "directoryObjects")
}

// deleteObject deletes whatever the id is of.
func (s *Service) deleteObject(r *request) (any, error) {
	v, err := s.directory.Object(r.Context(), r.PathValue("id"))
	if err != nil {
		return nil, s.hidden(r, userArea, err)
	}
	switch v.(type) {
	case *identity.User:
		return s.deleteUser(r)
	case *identity.Group:
		return s.deleteGroup(r)
	case *identity.Application:
		return s.deleteApplication(r)
	}
	return s.deletePrincipal(r)
}

func (s *Service) byIDs(r *request) (any, error) {
	var body struct {
		IDs   []string `json:"ids"`
		Types []string `json:"types"`
	}
	if err := readInto(r, &body, "ids", "types"); err != nil {
		return nil, err
	}
	if len(body.IDs) > 1000 {
		return nil, badQuery("At most 1000 ids are looked up at once.")
	}
	found := []object{}
	for _, id := range body.IDs {
		v, err := s.directory.Object(r.Context(), id)
		if err != nil {
			continue // an id of nothing is left out
		}
		if !r.may.reads(areaOf(v)) && idOf(v) != r.who.ID {
			return nil, denied()
		}
		i := s.itemOf(r, v)
		kind := strings.TrimPrefix(typeOf(i), "#microsoft.graph.")
		if len(body.Types) == 0 || slices.ContainsFunc(body.Types, func(t string) bool { return strings.EqualFold(t, kind) || strings.EqualFold(t, "directoryObject") }) {
			found = append(found, i.object())
		}
	}
	return object{"@odata.context": s.context("directoryObjects"), "value": found}, nil
}

// groupIDs are the groups of a path's object, and with roles its directory roles;
// checking keeps those that the body names.
func (s *Service) groupIDs(roles, checking bool) answerer {
	return func(r *request) (any, error) {
		v, err := s.subject(r)
		if err != nil {
			return nil, err
		}
		if !r.may.reads(groupArea) && idOf(v) != r.who.ID {
			return nil, denied()
		}
		var body struct {
			SecurityEnabledOnly bool     `json:"securityEnabledOnly"`
			Groups              []string `json:"groupIds"`
			IDs                 []string `json:"ids"`
		}
		if err := readInto(r, &body, "securityEnabledOnly", "groupIds", "ids"); err != nil {
			return nil, err
		}
		found := s.directory.GroupsOf(idOf(v))
		if roles {
			for _, i := range s.rolesHeld(idOf(v), true) {
				id, _ := i.get("id")
				found = append(found, id.(string))
			}
		}
		if checking {
			asked := append(body.Groups, body.IDs...)
			if len(asked) > 20 {
				return nil, badProperty("groupIds", "At most 20 groups are checked at once.")
			}
			found = slices.DeleteFunc(found, func(id string) bool {
				return !slices.ContainsFunc(asked, func(a string) bool { return strings.EqualFold(a, id) })
			})
		}
		return object{"@odata.context": s.context("Collection(Edm.String)"), "value": nonNil(found)}, nil
	}
}
