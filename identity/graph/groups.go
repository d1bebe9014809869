// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"encoding/json"
	"slices"

	"bastide.dev/fault"
	"bastide.dev/identity"
)

func groupKind() *kind[identity.Group] {
	type g = identity.Group
	list := []property[g]{
		shown("id", func(v *g) any { return v.ID }),
		text("displayName", func(v *g) *string { return &v.DisplayName }),
		text("description", func(v *g) *string { return &v.Description }),
		text("mailNickname", func(v *g) *string { return &v.MailNickname }),
		only[g]("securityEnabled", true, "the directory has security groups only."),
		only[g]("mailEnabled", false, "the directory has security groups only."),
		fixed[g]("groupTypes", []string{}),
		flag("isAssignableToRole", func(v *g) *bool { return &v.RoleAssignable }, false),
		shown("createdDateTime", func(v *g) any { return moment(v.Created) }),
		fixed[g]("mail", nil), fixed[g]("visibility", nil), fixed[g]("membershipRule", nil), fixed[g]("membershipRuleProcessingState", nil),
		fixed[g]("onPremisesSyncEnabled", nil), fixed[g]("onPremisesSecurityIdentifier", nil), fixed[g]("onPremisesSamAccountName", nil),
		fixed[g]("onPremisesDomainName", nil), fixed[g]("onPremisesNetBiosName", nil), fixed[g]("preferredLanguage", nil), fixed[g]("theme", nil),
		fixed[g]("proxyAddresses", []string{}), fixed[g]("resourceBehaviorOptions", []string{}), fixed[g]("resourceProvisioningOptions", []string{}),
		fixed[g]("creationOptions", []string{}), fixed[g]("classification", nil), fixed[g]("expirationDateTime", nil), fixed[g]("renewedDateTime", nil),
		fixed[g]("deletedDateTime", nil), fixed[g]("uniqueName", nil),
	}
	return newKind("group", "Group", "groups", list)
}

func (s *Service) groupItems(r *request) ([]item, error) {
	found, err := s.directory.Groups(r.Context())
	return items(s.kinds.group, found), err
}

func (s *Service) groupOf(r *request) (identity.Group, error) {
	g, err := s.directory.Group(r.Context(), r.PathValue("id"))
	if fault.Is(err, fault.NotFound) {
		err = missing(r.PathValue("id"))
	}
	return g, s.hidden(r, groupArea, err)
}

func (s *Service) getGroup(r *request) (any, error) {
	if err := r.mayRead(groupArea); err != nil {
		return nil, err
	}
	g, err := s.groupOf(r)
	if err != nil {
		return nil, err
	}
	return s.one(r, entity[identity.Group]{s.kinds.group, &g}, "groups")
}

func (s *Service) createGroup(r *request) (any, error) {
	if err := s.mayWriteGroup(r, nil, false); err != nil {
		return nil, err
	}
	body, err := readBody(r)
	if err != nil {
		return nil, err
	}
	var g identity.Group
	members, errM := s.bound(body, "members")
	owners, errO := s.bound(body, "owners")
	problems := []error{errM, errO, s.kinds.group.apply(&g, body, "members@odata.bind", "owners@odata.bind", "visibility")}
	for _, name := range []string{"displayName", "mailEnabled", "mailNickname", "securityEnabled"} {
		if _, named := body[name]; !named {
			problems = append(problems, badProperty(name, "A value is required for property '%s' of resource 'Group'.", name))
		}
	}
	if err := joined(append(problems, visible(body, g))...); err != nil {
		return nil, err
	}
	if err := s.mayWriteGroup(r, &g, false); err != nil { // one that is assignable to roles
		return nil, err
	}
	g.Members, g.Owners = members, owners
	g, err = s.directory.AddGroup(r.Context(), g)
	return s.made(entity[identity.Group]{s.kinds.group, &g}, "groups"), err
}

// visible judges visibility: who may read the directory sees each group's members.
func visible(body map[string]json.RawMessage, g identity.Group) error {
	raw := body["visibility"]
	if raw == nil || empty(raw) || string(raw) == `"Public"` || string(raw) == `"Private"` && g.RoleAssignable {
		return nil
	}
	return badProperty("visibility", "Property 'visibility' of a security group is not implemented: whoever may read the directory sees its members.")
}

func (s *Service) updateGroup(r *request) (any, error) {
	g, err := s.groupOf(r)
	if err != nil {
		return nil, err
	}
	body, err := readBody(r)
	if err != nil {
		return nil, err
	}
	added, err := s.bound(body, "members")
	if err != nil {
		return nil, err
	}
	if len(added) > 20 {
		return nil, badProperty("members@odata.bind", "At most 20 members are added in one request.")
	}
	if err := s.mayWriteGroup(r, &g, len(body) == 1 && added != nil); err != nil {
		return nil, err
	}
	return nil, s.directory.EditGroup(r.Context(), g.ID, func(g *identity.Group) error {
		for _, id := range added {
			if slices.Contains(g.Members, id) {
				return badProperty("members", "One or more added object references already exist for the following modified properties: 'members'.")
			}
		}
		g.Members = append(slices.Clone(g.Members), added...)
		return joined(s.kinds.group.apply(g, body, "members@odata.bind", "visibility"), visible(body, *g))
	})
}

func (s *Service) deleteGroup(r *request) (any, error) {
	g, err := s.groupOf(r)
	if err != nil {
		return nil, err
	}
	if err := s.mayWriteGroup(r, &g, false); err != nil {
		return nil, err
	}
	return nil, s.directory.DeleteGroup(r.Context(), g.ID)
}
