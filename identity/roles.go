// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"slices"
	"strings"
)

// The GUIDs of Azure's built-in roles that can be assigned.
const (
	OwnerRole                   = "8e3af657-a8ff-443c-a75c-2fe8c4b6b635"
	ContributorRole             = "b24988ac-6180-42a0-ab88-20f7382dd24c"
	ReaderRole                  = "acdd72a7-3385-48ef-bd42-f606fba81ae7"
	NetworkContributorRole      = "4d97b98b-1d4f-4787-a291-c67834d212e7"
	ManagedIdentityOperatorRole = "f1a07417-d97a-45cb-824c-7a7467783830"
)

// role is what a role definition grants: actions, less notActions. Patterns are
// Azure's: any case, and "*" for any text.
type role struct {
	actions, notActions []string
}

func (r role) grants(action string) bool {
	covers := func(pattern string) bool { return matches(pattern, action) }
	return slices.ContainsFunc(r.actions, covers) && !slices.ContainsFunc(r.notActions, covers)
}

// builtin finds a built-in role by its GUID; an unknown one grants nothing.
func builtin(id string) (role, bool) {
	// What Azure gives every role that manages one kind of thing.
	common := []string{"Microsoft.Authorization/*/read", "Microsoft.Insights/alertRules/*", "Microsoft.Resources/deployments/*",
		"Microsoft.Resources/subscriptions/resourceGroups/read", "Microsoft.Support/*"}
	switch strings.ToLower(id) {
	case OwnerRole:
		return role{actions: []string{"*"}}, true
	case ContributorRole:
		return role{actions: []string{"*"}, notActions: []string{"Microsoft.Authorization/*/delete", "Microsoft.Authorization/*/write",
			"Microsoft.Authorization/elevateAccess/action", "Microsoft.Blueprint/blueprintAssignments/write",
			"Microsoft.Blueprint/blueprintAssignments/delete", "Microsoft.Compute/galleries/share/action"}}, true
	case ReaderRole:
		return role{actions: []string{"*/read"}}, true
	case NetworkContributorRole:
		return role{actions: append(common, "Microsoft.Network/*", "Microsoft.ResourceHealth/availabilityStatuses/read")}, true
	case ManagedIdentityOperatorRole:
		return role{actions: append(common, "Microsoft.ManagedIdentity/userAssignedIdentities/*/read", "Microsoft.ManagedIdentity/userAssignedIdentities/read",
			"Microsoft.ManagedIdentity/userAssignedIdentities/*/assign/action", "Microsoft.ManagedIdentity/userAssignedIdentities/assign/action")}, true
	}
	return role{}, false
}

// matches tells whether an action fits a pattern.
func matches(pattern, action string) bool {
	parts := strings.Split(strings.ToLower(pattern), "*")
	rest, found := strings.CutPrefix(strings.ToLower(action), parts[0])
	if !found || len(parts) == 1 {
		return found && rest == ""
	}
	last := parts[len(parts)-1]
	for _, part := range parts[1 : len(parts)-1] {
		i := strings.Index(rest, part)
		if i < 0 {
			return false
		}
		rest = rest[i+len(part):]
	}
	return strings.HasSuffix(rest, last)
}

// implied are the reads of a subscription that whoever has a role anywhere in
// it may do: it could name the subscription otherwise, but not work in it.
func implied(action string) bool {
	return slices.ContainsFunc([]string{"Microsoft.Resources/subscriptions/read", "Microsoft.Resources/subscriptions/locations/read",
		"Microsoft.Resources/subscriptions/providers/read"}, func(a string) bool { return strings.EqualFold(a, action) })
}
