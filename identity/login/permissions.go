// SPDX-License-Identifier: Apache-2.0

package login

import (
	"context"
	"slices"

	"bastide.dev/fault"
	"bastide.dev/identity"
)

// permissions are the scopes that a client gets in a user's name, and those that
// somebody has to consent to first. Microsoft's own clients need no consent for
// Microsoft's own resources.
func (s *Service) permissions(ctx context.Context, user identity.User, client identity.Application, resource identity.Resource, asked request) (granted, missing []string, err error) {
	app := resource.Application
	names := asked.names()
	all := asked.isDefault() || asked.Version == 1 && len(names) == 0
	for _, name := range names {
		known := func(p identity.Scope) bool { return p.Enabled && p.Value == name }
		if name != ".default" && !slices.ContainsFunc(app.Scopes, known) {
			return nil, nil, refuse("invalid_scope", 70011, "The provided value for the input parameter 'scope' is not valid: '%s' has no scope '%s'.", printable(asked.Resource), printable(name))
		}
	}
	if client.AppID == app.AppID || s.directory.KnownApplication(client.AppID) && s.directory.KnownApplication(app.AppID) {
		if all {
			names = enabled(app)
		}
		return names, nil, nil
	}
	consented, err := s.directory.Consented(ctx, user.ID, client.AppID, app.AppID)
	if err != nil {
		return nil, nil, err
	}
	consented = append(consented, preAuthorized(app, client.AppID)...)
	switch {
	case all:
		names = append(required(client, app), consented...)
		if len(names) == 0 {
			return nil, nil, refuse("invalid_resource", 650057, "Invalid resource. The client has requested access to a resource which is not listed in the requested permissions in the client's application registration. Client app ID: %s. Resource: %s.", client.AppID, printable(asked.Resource))
		}
	case len(names) == 0: // a sign-in alone is asked for, and Graph's consent holds it
		names = slices.DeleteFunc(oidcScopes(), func(scope string) bool { return !asked.has(scope) })
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		if slices.Contains(consented, name) {
			granted = append(granted, name)
		} else {
			missing = append(missing, name)
		}
	}
	return granted, missing, nil
}

// enabled are a resource's scopes.
func enabled(app identity.Application) []string {
	var names []string
	for _, p := range app.Scopes {
		if p.Enabled {
			names = append(names, p.Value)
		}
	}
	return names
}

// required are the scopes of a resource that a client is registered with.
func required(client, resource identity.Application) []string {
	var names []string
	for _, r := range client.Required {
		for _, access := range r.Access {
			i := slices.IndexFunc(resource.Scopes, func(p identity.Scope) bool { return p.ID == access.ID && p.Enabled })
			if r.ResourceAppID == resource.AppID && access.Type == "Scope" && i >= 0 {
				names = append(names, resource.Scopes[i].Value)
			}
		}
	}
	return names
}

// preAuthorized are the scopes that a resource gives a client without asking anybody.
func preAuthorized(resource identity.Application, clientID string) []string {
	var names []string
	for _, p := range resource.PreAuthorized {
		for _, scope := range resource.Scopes {
			if p.AppID == clientID && scope.Enabled && slices.Contains(p.ScopeIDs, scope.ID) {
				names = append(names, scope.Value)
			}
		}
	}
	return names
}

// adminOnly are those of the scopes that only an administrator may consent to.
func adminOnly(resource identity.Application, names []string) []string {
	var only []string
	for _, p := range resource.Scopes {
		if p.Type == "Admin" && slices.Contains(names, p.Value) {
			only = append(only, p.Value)
		}
	}
	return only
}

// mayConsent says whether a user may give a client these scopes: an
// administrator any, others what isn't the administrators'.
func (s *Service) mayConsent(user identity.User, resource identity.Application, names []string) bool {
	return len(adminOnly(resource, names)) == 0 || s.isAdministrator(user.ID)
}

// isAdministrator says whether a user may decide about applications for everybody.
func (s *Service) isAdministrator(userID string) bool {
	admins := []string{identity.GlobalAdministrator, identity.ApplicationAdministrator, identity.CloudApplicationAdmin}
	return slices.ContainsFunc(s.directoryRoles(userID), func(role string) bool { return slices.Contains(admins, role) })
}

func (s *Service) directoryRoles(principalID string) []string {
	return s.directory.RolesOf(principalID)
}

// mayUse refuses a principal that isn't assigned to a resource which demands it.
func (s *Service) mayUse(ctx context.Context, principalID string, resource identity.Application) error {
	sp, err := s.directory.ServicePrincipal(ctx, resource.AppID)
	if fault.Is(err, fault.NotFound) {
		return refuse("invalid_resource", 650052, "The app is trying to access a service '%s' that your organization lacks a service principal for.", resource.AppID)
	}
	if err != nil {
		return err
	}
	if sp.Disabled {
		return refuse("invalid_resource", 500014, "The service principal for resource '%s' is disabled.", resource.AppID)
	}
	ok, err := s.directory.MayUse(ctx, principalID, resource.AppID)
	if err != nil {
		return err
	}
	if !ok {
		return refuse("invalid_grant", 50105, "Your administrator has configured the application '%s' ('%s') to block users unless they are specifically granted ('assigned') access to the application.", resource.DisplayName, resource.AppID)
	}
	return nil
}
