// SPDX-License-Identifier: Apache-2.0

// Package rbac answers who may do what where, as Azure's role-based access
// control does: role definitions, assignments of them to principals on scopes,
// and conditions. What no assignment grants is denied.
//
// It is pure: it reads nothing and knows no store, directory or protocol. Package
// authorization keeps its table and asks it; whoever wants a decision asks that
// one. It imports the standard library alone, and anything may import it for its types.
package rbac

import "time"

// Definition is a role: what it lets its holders do.
type Definition struct {
	ID               string // a GUID, in lower case
	Name             string
	Description      string
	Custom           bool
	Permissions      []Permission
	AssignableScopes []string
}

// Permission grants actions less notActions, and on data dataActions less
// notDataActions. Patterns ignore case; "*" stands for any text, and "/*/" for
// nothing in between as well.
type Permission struct {
	Actions        []string
	NotActions     []string
	DataActions    []string
	NotDataActions []string
}

// The kinds of principals, as assignments name them.
const (
	User             = "User"
	Group            = "Group"
	ServicePrincipal = "ServicePrincipal"
)

// Assignment gives a principal a role on a scope and all below it.
type Assignment struct {
	ID               string // the resource id of the assignment itself
	Scope            string // a resource id; "/" is everything
	PrincipalID      string
	PrincipalType    string
	Role             string // a Definition's ID
	Condition        string
	ConditionVersion string
	Description      string
	Expires          time.Time // zero: never

	Created   time.Time
	CreatedBy string
	Updated   time.Time
	UpdatedBy string

	// Service says for whom the service itself made the assignment: it goes with
	// its principal. "" of one that somebody asked for.
	Service string
}

// Subject is who asks.
type Subject struct {
	ID     string
	Groups []string // object ids, transitively
}

// Request is a question to a Table.
type Request struct {
	Subject
	Action string
	Data   bool // Action is one on data
	Scope  string
	// Attributes are what conditions may look at, by keys that Attribute makes.
	Attributes map[string][]string
	Now        time.Time

	// Open takes attributes that aren't in Attributes for fitting: the answer is
	// whether the request could be allowed, by one who asks again when he knows them.
	Open bool
}

// Decision is a Table's answer.
type Decision struct {
	Allowed    bool
	Assignment *Assignment // that grants it; nil when denied
	Role       *Definition // of that assignment
	Through    string      // the group that holds the assignment; "" when the subject itself does
	Reason     string      // in a sentence
}
