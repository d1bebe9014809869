// SPDX-License-Identifier: Apache-2.0

package authorization

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/google/uuid"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/rbac"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// readTypes are the types that are computed.
func (p *Provider) readTypes(others []arm.Provider) []arm.Type {
	operations := operationsOf(append(slices.Clone(others), arm.Provider{Namespace: Namespace, Types: []arm.Type{p.assignmentType(), p.definitionType()}},
		arm.Provider{Namespace: ManagementNamespace, Types: p.managementTypes()}))
	none := func(context.Context, *arm.Request) (any, error) { return map[string]any{"value": []any{}}, nil }
	return []arm.Type{
		{Name: "permissions", Scope: arm.OnAny, Versions: versions(), List: p.listPermissions},
		{Name: "providerOperations", Scope: arm.InTenant, Versions: versions(),
			Get: func(_ context.Context, r *arm.Request) (any, error) {
				for _, o := range operations {
					if strings.EqualFold(o.Name, r.ID.Name()) {
						return o, nil
					}
				}
				return nil, fault.New(fault.NotFound, "ProviderNotFound", "The provider '%s' was not found.", printable(r.ID.Name()))
			},
			List: func(context.Context, *arm.Request) (any, error) { return map[string]any{"value": operations}, nil }},
		// There are none, and there can't be: nothing here makes them.
		{Name: "denyAssignments", Scope: arm.OnAny, Versions: versions(), List: none},
		{Name: "classicAdministrators", Scope: arm.InSubscription, Versions: versions(), List: none},
	}
}

// listPermissions says what the caller may do on a scope.
func (p *Provider) listPermissions(ctx context.Context, r *arm.Request) (any, error) {
	if err := p.feed.load(ctx); err != nil {
		return nil, err
	}
	return map[string]any{"value": showPermissions(p.table.Permissions(subjectOf(r.Who), r.ID.String(), p.now()))}, nil
}

// providerOperations are a provider's operations on the wire.
type providerOperations struct {
	ID            string           `json:"id"`
	Name          string           `json:"name"`
	Type          string           `json:"type"`
	DisplayName   string           `json:"displayName"`
	ResourceTypes []typeOperations `json:"resourceTypes"`
	Operations    []operation      `json:"operations"`
}

type typeOperations struct {
	Name        string      `json:"name"`
	DisplayName string      `json:"displayName"`
	Operations  []operation `json:"operations"`
}

type operation struct {
	Name         string `json:"name"`
	DisplayName  string `json:"displayName"`
	Description  string `json:"description"`
	Origin       string `json:"origin"`
	IsDataAction bool   `json:"isDataAction"`
}

// operationsOf lists the operations of providers, by name.
func operationsOf(providers []arm.Provider) []providerOperations {
	byName := map[string]*providerOperations{}
	for _, provider := range providers {
		key := strings.ToLower(provider.Namespace)
		if byName[key] == nil {
			byName[key] = &providerOperations{ID: "/providers/" + Namespace + "/providerOperations/" + provider.Namespace, Name: provider.Namespace,
				Type: Namespace + "/providerOperations", DisplayName: provider.Namespace, Operations: []operation{}}
		}
		for _, t := range provider.Types {
			byName[key].ResourceTypes = append(byName[key].ResourceTypes, typeOperations{Name: t.Name, DisplayName: t.Name, Operations: operationsOfType(provider.Namespace, t)})
		}
	}
	if clusters := byName["microsoft.containerservice"]; clusters != nil {
		clusters.ResourceTypes = append(clusters.ResourceTypes, typeOperations{Name: "managedClusters", DisplayName: "managedClusters", Operations: dataOperations()})
	}
	all := make([]providerOperations, 0, len(byName))
	for _, o := range byName {
		all = append(all, *o)
	}
	slices.SortFunc(all, func(a, b providerOperations) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

func operationsOfType(namespace string, t arm.Type) []operation {
	full := namespace + "/" + t.Name
	verbs := []string{"read"}
	if t.Put != nil || t.Embedded != "" {
		verbs = append(verbs, "write", "delete")
	}
	for action := range t.Actions {
		if action == "" {
			verbs = []string{"action"} // of the type itself
			continue
		}
		verbs = append(verbs, action+"/action")
	}
	slices.Sort(verbs)
	made := make([]operation, len(verbs))
	for i, verb := range verbs {
		made[i] = operation{Name: full + "/" + verb, DisplayName: verb + " " + t.Name, Description: verb + " of " + full, Origin: "user,system"}
	}
	return made
}

// dataOperations are the operations inside of clusters that built-in roles name one by one.
func dataOperations() []operation {
	seen := map[string]bool{}
	var made []operation
	for _, d := range rbac.Builtin() {
		for _, permission := range d.Permissions {
			for _, action := range slices.Concat(permission.DataActions, permission.NotDataActions) {
				if strings.HasPrefix(action, "Microsoft.ContainerService/") && !strings.Contains(action, "*") && !seen[action] {
					seen[action] = true
					made = append(made, operation{Name: action, DisplayName: action, Description: action, Origin: "user,system", IsDataAction: true})
				}
			}
		}
	}
	slices.SortFunc(made, func(a, b operation) int { return cmp.Compare(a.Name, b.Name) })
	return made
}

// elevateType gives a Global Administrator the say over access to everything.
func (p *Provider) elevateType() arm.Type {
	return arm.Type{Name: "elevateAccess", Scope: arm.InTenant, Versions: versions(), Untracked: true, Actions: map[string]arm.Hook{"": p.elevate}}
}

func (p *Provider) mayElevate(ctx context.Context, who arm.Principal) error {
	global, err := p.config.Directory.GlobalAdministrator(ctx, who.ID)
	if err != nil || global {
		return err
	}
	return forbidden(who.Name, rbac.Request{Subject: subjectOf(who), Action: actionElevate, Scope: "/"}, rbac.Decision{})
}

// elevate assigns User Access Administrator on the root to the caller.
func (p *Provider) elevate(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	if err := p.feed.load(ctx); err != nil {
		return nil, err
	}
	if err := p.mayElevate(ctx, r.Who); err != nil {
		return nil, err
	}
	for _, a := range p.table.Of(r.Who.ID) {
		if a.Role == rbac.UserAccessAdministratorRole && a.Scope == "/" && owns(a) {
			return &arm.Plan{}, nil
		}
	}
	kind := rbac.ServicePrincipal
	if r.Who.Kind == rbac.User {
		kind = rbac.User
	}
	now := p.now().UTC()
	id := resource.ID{}.Resource(Namespace, "roleAssignments", uuid.NewString())
	d, err := NewAssignment(&rbac.Assignment{ID: id.String(), Scope: "/", PrincipalID: r.Who.ID, PrincipalType: kind,
		Role: rbac.UserAccessAdministratorRole, Description: "Made by elevateAccess.", Created: now, CreatedBy: r.Who.ID, Updated: now, UpdatedBy: r.Who.ID})
	if err != nil {
		return nil, err
	}
	change, err := arm.PutDocument(d)
	return &arm.Plan{Changes: []store.Change{change}}, err
}
