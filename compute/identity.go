// SPDX-License-Identifier: Apache-2.0

package compute

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// Directory is what machines need of the directory. The plans are the changes
// of a transaction that makes or ends an identity with its machine's document.
type Directory interface {
	// PlanManagedIdentity returns the identity of a resource, with the changes that make it when it is missing.
	PlanManagedIdentity(ctx context.Context, name, resourceID string) (principalID, clientID string, changes []store.Change, err error)
	// PlanDeletion ends an identity; what isn't there is no error.
	PlanDeletion(ctx context.Context, principalID string) ([]store.Change, error)
	// PlatformSecret returns a credential of an identity that only the service uses; fault.NotFound when it is gone.
	PlatformSecret(ctx context.Context, principalID string) (clientID, secret string, err error)
}

const (
	identityType = "Microsoft.ManagedIdentity/userAssignedIdentities"
	assignAction = identityType + "/assign/action"
	// maxIdentities bounds what one machine's unit holds.
	maxIdentities = 50
)

// identities are those of a virtual machine.
type identities struct {
	System    bool          `json:"system,omitempty"`
	Principal string        `json:"principal,omitempty"` // of its own
	Client    string        `json:"client,omitempty"`
	Users     []resource.ID `json:"users,omitempty"` // user-assigned ones, sorted
}

// identityBody is what a request says of identities.
type identityBody struct {
	Type  *string
	Users map[string]json.RawMessage `json:"userAssignedIdentities"`
}

// readIdentity reads a request's identity. A body without one leaves things as
// they are. A PUT names all user-assigned identities; a PATCH those that come,
// and with null those that go.
func readIdentity(c *vmCheck, body object, old identities, patch bool) identities {
	var sent struct{ Identity *identityBody }
	raw, err := json.Marshal(body)
	if err == nil {
		err = json.Unmarshal(raw, &sent)
	}
	switch {
	case err != nil:
		c.bad("InvalidRequestContent", "identity", "The identity isn't one.")
		return old
	case sent.Identity == nil || sent.Identity.Type == nil && len(sent.Identity.Users) == 0:
		return old
	case sent.Identity.Type == nil:
		c.bad("InvalidParameter", "identity.type", "identity.type is missing: it is SystemAssigned, UserAssigned, \"SystemAssigned, UserAssigned\" or None.")
		return old
	}
	next := identities{}
	users := false
	switch strings.ToLower(strings.ReplaceAll(*sent.Identity.Type, " ", "")) {
	case "none":
	case "systemassigned":
		next.System = true
	case "userassigned":
		users = true
	case "systemassigned,userassigned":
		next.System, users = true, true
	default:
		c.bad("InvalidParameter", "identity.type", "identity.type can't be %q: it is SystemAssigned, UserAssigned, \"SystemAssigned, UserAssigned\" or None.", *sent.Identity.Type)
		return old
	}
	if next.System {
		next.Principal, next.Client = old.Principal, old.Client
	}
	if users && patch {
		next.Users = slices.Clone(old.Users)
	}
	next.readUsers(c, sent.Identity.Users, users)
	return next
}

func (n *identities) readUsers(c *vmCheck, sent map[string]json.RawMessage, wanted bool) {
	const target = "identity.userAssignedIdentities"
	for _, text := range slices.Sorted(maps.Keys(sent)) {
		id, err := resource.ParseID(text)
		if err != nil || !id.IsType(identityType) {
			c.bad("InvalidParameter", target, "%q isn't the id of a user-assigned identity, such as /subscriptions/…/resourceGroups/…/providers/%s/NAME.", text, identityType)
			continue
		}
		n.Users = slices.DeleteFunc(n.Users, func(u resource.ID) bool { return u.Equal(id) })
		if string(sent[text]) != "null" {
			n.Users = append(n.Users, id)
		}
	}
	slices.SortFunc(n.Users, func(a, b resource.ID) int { return strings.Compare(a.Key(), b.Key()) })
	switch {
	case !wanted && len(n.Users) > 0:
		c.bad("InvalidParameter", target, "User-assigned identities need identity.type UserAssigned, or \"SystemAssigned, UserAssigned\".")
	case wanted && len(n.Users) == 0:
		c.bad("InvalidParameter", target, "identity.type says UserAssigned: name at least one identity.")
	case len(n.Users) > maxIdentities:
		c.bad("InvalidParameter", target, "A machine has at most %d user-assigned identities.", maxIdentities)
	}
}

// linkUsers looks for user-assigned identities that are new on a machine. Who
// gives a machine an identity gives its powers to all who are on the machine:
// that takes the right to assign it.
func (p *Provider) linkUsers(ctx context.Context, c *vmCheck, r *arm.Request, next, old identities) error {
	const target = "identity.userAssignedIdentities"
	for _, id := range next.Users {
		if slices.ContainsFunc(old.Users, id.Equal) {
			continue
		}
		err := p.Authorizer.Authorize(ctx, r.Who, assignAction, id)
		if fault.Is(err, fault.Forbidden) { // also of one that isn't there: nobody learns which there are
			c.problems = append(c.problems, fault.New(fault.Forbidden, "LinkedAuthorizationFailed",
				"The client '%s' with object id '%s' has permission to perform action 'Microsoft.Compute/virtualMachines/write' on scope '%s'; however, it does not have permission to perform action '%s' on the linked scope '%s'.",
				r.Who.Name, r.Who.ID, r.ID, assignAction, id).At(target))
			continue
		}
		if err != nil {
			return err
		}
		_, err = arm.GetDocument(ctx, p.Store, id)
		if fault.Is(err, fault.NotFound) {
			c.bad("FailedIdentityOperation", target, "The identity '%s' was not found.", id)
			continue
		}
		if err != nil {
			return fmt.Errorf("identity %s: %w", id, err)
		}
	}
	return nil
}

// planIdentity makes the machine's own identity, or ends it, in the transaction
// that writes its document.
func (p *Provider) planIdentity(ctx context.Context, id resource.ID, next *identities, old identities) ([]store.Change, error) {
	if next.System {
		principal, client, changes, err := p.Directory.PlanManagedIdentity(ctx, id.Name(), id.String())
		next.Principal, next.Client = principal, client
		return changes, err
	}
	if old.Principal == "" {
		return nil, nil
	}
	return p.Directory.PlanDeletion(ctx, old.Principal)
}

// userIdentity is what a user-assigned identity's document says of its principal.
func (p *Provider) userIdentity(ctx context.Context, id resource.ID) (principal, client string, err error) {
	d, err := arm.GetDocument(ctx, p.Store, id)
	if err != nil {
		return "", "", err
	}
	var body struct {
		Properties struct{ PrincipalID, ClientID string }
	}
	if err := json.Unmarshal(d.Body, &body); err != nil {
		return "", "", fmt.Errorf("identity %s: body: %w", id, err)
	}
	return body.Properties.PrincipalID, body.Properties.ClientID, nil
}

// viewIdentity is the part of an answer that says who a machine is; nil: nobody.
func (p *Provider) viewIdentity(ctx context.Context, i identities) (any, error) {
	var kinds []string
	view := object{}
	if i.System {
		kinds = append(kinds, "SystemAssigned")
		view["principalId"], view["tenantId"] = i.Principal, p.Tenant
	}
	if len(i.Users) > 0 {
		kinds = append(kinds, "UserAssigned")
		users := object{}
		for _, id := range i.Users {
			principal, client, err := p.userIdentity(ctx, id)
			if err != nil && !fault.Is(err, fault.NotFound) {
				return nil, err
			}
			users[id.String()] = object{"principalId": principal, "clientId": client} // empty: it is gone
		}
		view["userAssignedIdentities"] = users
	}
	if len(kinds) == 0 {
		return nil, nil
	}
	view["type"] = strings.Join(kinds, ", ")
	return view, nil
}

// patchVM changes tags and identities of a machine.
func (p *Provider) patchVM(ctx context.Context, r *arm.Request) (*arm.Plan, error) {
	for name := range r.Body {
		if !strings.EqualFold(name, "tags") && !strings.EqualFold(name, "identity") {
			return nil, fault.New(fault.Unsupported, "PropertyChangeNotAllowed", "PATCH changes tags and identity only: use PUT to change '%s'.", name).At(name)
		}
	}
	var old vmState
	if err := json.Unmarshal(r.Old.State, &old); err != nil {
		return nil, fmt.Errorf("machine %s: state: %w", r.ID, err)
	}
	var sent struct{ Tags map[string]string }
	check := vmCheck{}
	if raw, err := json.Marshal(r.Body); err != nil {
		return nil, err
	} else if err := json.Unmarshal(raw, &sent); err != nil {
		check.bad("InvalidRequestContent", "tags", "Tags are names and texts.")
	}
	state := old
	state.Identities = readIdentity(&check, r.Body, old.Identities, true)
	if err := p.linkUsers(ctx, &check, r, state.Identities, old.Identities); err != nil {
		return nil, err
	}
	if err := fault.Join(check.problems...); err != nil {
		return nil, err
	}
	d := *r.Old
	if sent.Tags != nil {
		d.Tags = sent.Tags
	}
	return p.planVM(ctx, r, &d, state, old.Identities)
}

// planVM writes a machine's document with its identity.
func (p *Provider) planVM(ctx context.Context, r *arm.Request, d *arm.Document, state vmState, old identities) (*arm.Plan, error) {
	changes, err := p.planIdentity(ctx, r.ID, &state.Identities, old)
	if err != nil {
		return nil, fmt.Errorf("identity of machine %s: %w", r.ID, err)
	}
	if d.State, err = json.Marshal(state); err != nil {
		return nil, err
	}
	changed := r.Old == nil || string(r.Old.State) != string(d.State) || r.Old.ProvisioningState != resource.Succeeded
	return &arm.Plan{Document: d, Async: changed, Changes: changes}, nil
}
