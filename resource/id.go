// SPDX-License-Identifier: Apache-2.0

// Package resource is Bastide's vocabulary: ARM ids, the envelope of a stored
// document, provisioning states, locations and API versions. Foreign text is
// parsed here once, at the edge; behind it everybody passes these types.
//
// Every package may import it; it imports the standard library alone.
package resource

import (
	"fmt"
	"strings"
)

// Types that aren't under a provider in a path.
const (
	TypeTenant       = "Microsoft.Resources/tenants"
	TypeSubscription = "Microsoft.Resources/subscriptions"
	TypeGroup        = "Microsoft.Resources/resourceGroups"
)

// MaxIDLength bounds an id; ARM's own limit is in the same region.
const MaxIDLength = 2048

// ID is a parsed ARM id. It keeps the case it was written in; Equal and Key
// ignore it. The zero ID is the tenant root, "/". Compare with Equal, not ==.
type ID struct {
	path         string // "/subscriptions/…", in the writer's case; "" for the root
	subscription string
	group        string
	typ          string // "Microsoft.ContainerService/managedClusters/agentPools"
	name         string
	parent       string // the path of the parent
}

// ParseID parses the id of one named thing: the root, a subscription, a
// resource group, or a resource (child, extension) under any of them.
func ParseID(s string) (ID, error) {
	p, err := ParsePath(s)
	if err != nil {
		return ID{}, err
	}
	if len(p.Rest) > 0 {
		return ID{}, fmt.Errorf("resource: id %q: %q is followed by no name", s, strings.Join(p.Rest, "/"))
	}
	return p.ID, nil
}

// MustParseID is ParseID for constants: it panics on an error.
func MustParseID(s string) ID {
	id, err := ParseID(s)
	if err != nil {
		panic(err)
	}
	return id
}

// SubscriptionID is the id of a subscription.
func SubscriptionID(subscription string) ID {
	return ID{path: "/subscriptions/" + subscription, subscription: subscription, typ: TypeSubscription, name: subscription}
}

// GroupID is the id of a resource group.
func GroupID(subscription, group string) ID {
	parent := "/subscriptions/" + subscription
	return ID{path: parent + "/resourceGroups/" + group, subscription: subscription, group: group,
		typ: TypeGroup, name: group, parent: parent}
}

// Resource is the id of a top-level or extension resource of namespace/typ under id.
func (id ID) Resource(namespace, typ, name string) ID {
	return ID{path: id.path + "/providers/" + namespace + "/" + typ + "/" + name, subscription: id.subscription,
		group: id.group, typ: namespace + "/" + typ, name: name, parent: id.path}
}

// Child is the id of a child resource such as an agent pool of a cluster.
func (id ID) Child(typ, name string) ID {
	return ID{path: id.path + "/" + typ + "/" + name, subscription: id.subscription,
		group: id.group, typ: id.typ + "/" + typ, name: name, parent: id.path}
}

// String is the id as it was written.
func (id ID) String() string {
	if id.path == "" {
		return "/"
	}
	return id.path
}

// Key is the id in lower case, without a leading slash: the form for store keys and maps. The root's is "".
func (id ID) Key() string { return strings.ToLower(strings.TrimPrefix(id.path, "/")) }

// Equal compares as ARM does: without regard to case.
func (id ID) Equal(other ID) bool { return strings.EqualFold(id.path, other.path) }

// IsRoot tells whether id is the tenant root.
func (id ID) IsRoot() bool { return id.path == "" }

// Subscription is the subscription's GUID, "" at tenant scope.
func (id ID) Subscription() string { return id.subscription }

// Group is the resource group's name, "" outside of one.
func (id ID) Group() string { return id.group }

// GroupID is the id of the resource group that id is in; the root when it is in none.
func (id ID) GroupID() ID {
	if id.group == "" {
		return ID{}
	}
	return GroupID(id.subscription, id.group)
}

// SubscriptionID is the id of the subscription that id is in; the root when it is in none.
func (id ID) SubscriptionID() ID {
	if id.subscription == "" {
		return ID{}
	}
	return SubscriptionID(id.subscription)
}

// Type is the full type, such as "Microsoft.ContainerService/managedClusters/agentPools".
func (id ID) Type() string {
	if id.path == "" {
		return TypeTenant
	}
	return id.typ
}

// IsType compares the type without regard to case.
func (id ID) IsType(typ string) bool { return strings.EqualFold(id.Type(), typ) }

// Namespace is the provider's namespace, such as "Microsoft.ContainerService".
func (id ID) Namespace() string {
	ns, _, _ := strings.Cut(id.Type(), "/")
	return ns
}

// Name is the last segment: the thing's own name.
func (id ID) Name() string { return id.name }

// Parent is the resource, group, subscription or root that id stands under.
func (id ID) Parent() ID {
	parent, err := ParseID(id.parent)
	if err != nil {
		return ID{} // can't be: parent was cut from a path that parsed
	}
	return parent
}

// IsChild tells whether the parent is a resource of which this one is a part (an agent pool of a cluster).
func (id ID) IsChild() bool {
	return strings.Count(id.Type(), "/") > 1
}

// Under tells whether id is scope itself or stands beneath it.
func (id ID) Under(scope ID) bool {
	a, b := id.Key(), scope.Key()
	return b == "" || a == b || strings.HasPrefix(a, b+"/")
}

// MarshalText makes an ID a string in JSON.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText parses the id.
func (id *ID) UnmarshalText(text []byte) error {
	parsed, err := ParseID(string(text))
	if err != nil {
		return err
	}
	*id = parsed
	return nil
}
