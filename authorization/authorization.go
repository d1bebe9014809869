// SPDX-License-Identifier: Apache-2.0

// Package authorization is Microsoft.Authorization and Microsoft.Management: role
// definitions, role assignments and management groups as ARM resources, and the
// answers that all front doors ask for on their ground. Decisions are package
// rbac's; this package keeps its table as the store has it.
//
// Each process holds all definitions and assignments in memory. Its own writes
// hold from the next call on, those of other processes when the store's watch
// brings them, a few milliseconds later. It imports no provider: what it needs of
// the directory it declares, and cmd/bastide supplies.
package authorization

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"bastide.dev/arm"
	"bastide.dev/rbac"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// The namespaces and types.
const (
	Namespace           = "Microsoft.Authorization"
	ManagementNamespace = "Microsoft.Management"
	OwnNamespace        = "Bastide.Authorization"

	TypeAssignment      = Namespace + "/roleAssignments"
	TypeDefinition      = Namespace + "/roleDefinitions"
	TypeManagementGroup = ManagementNamespace + "/managementGroups"
	typeMember          = TypeManagementGroup + "/subscriptions"
)

// The actions that package authorization itself checks.
const (
	actionAssign  = TypeAssignment + "/write"
	actionRevoke  = TypeAssignment + "/delete"
	actionElevate = Namespace + "/elevateAccess/action"
)

// Principal is an object of the directory that can hold roles.
type Principal struct {
	ID   string
	Kind string // rbac.User, rbac.Group or rbac.ServicePrincipal
	Name string // as people know it
}

// Directory says who principals are. It is safe for concurrent use and answers from memory.
type Directory interface {
	// Principal finds a user, group or service principal by object id, and a user
	// or service principal by name or app id, too; fault.NotFound when there is none.
	Principal(ctx context.Context, id string) (Principal, error)
	// Groups are the object ids of the groups that a principal is in, transitively.
	Groups(ctx context.Context, id string) []string
	// Members are the object ids of those in a group, transitively.
	Members(ctx context.Context, group string) []string
	// GlobalAdministrator tells whether a principal has that directory role.
	GlobalAdministrator(ctx context.Context, id string) (bool, error)
}

// Config is what a Provider needs. Log and Now may be nil.
type Config struct {
	Store        store.Store
	Directory    Directory
	Tenant       string // its GUID
	TenantName   string
	Subscription string // the one there is
	Log          *slog.Logger
	Now          func() time.Time
}

// Provider is the two namespaces. It is safe for concurrent use, before and beside Run.
type Provider struct {
	config Config
	store  store.Store
	log    *slog.Logger
	now    func() time.Time
	feed   *feed
	table  *rbac.Table
}

// New makes a Provider over what the store holds.
func New(c Config) (*Provider, error) {
	if c.Store == nil || c.Directory == nil || c.Subscription == "" || c.Tenant == "" {
		return nil, errors.New("authorization: Store, Directory, Tenant and Subscription are required")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	p := &Provider{config: c, store: c.Store, log: c.Log, now: c.Now, table: rbac.NewTable()}
	p.feed = newFeed(c.Store, p.table, c.Log)
	p.feed.root, p.feed.subscription = p.rootGroup().String(), resource.SubscriptionID(c.Subscription).String()
	return p, nil
}

// Run follows the store until ctx ends.
func (p *Provider) Run(ctx context.Context) error { return p.feed.follow(ctx) }

// Committed takes in what this process wrote; it is arm.Config's.
func (p *Provider) Committed(changes []store.Change, revision int64) {
	p.feed.written(changes, revision)
}

// ARM are the rows of the front door. others are those of the other providers,
// whose operations providerOperations lists.
func (p *Provider) ARM(others []arm.Provider) []arm.Provider {
	return []arm.Provider{
		{Namespace: Namespace, Types: append(p.readTypes(others), p.assignmentType(), p.definitionType(), p.elevateType())},
		{Namespace: ManagementNamespace, Types: p.managementTypes()},
		{Namespace: OwnNamespace, Types: []arm.Type{p.questionsType()}},
	}
}

func versions() []resource.APIVersion {
	return []resource.APIVersion{"2022-04-01", "2022-05-01-preview", "2022-04-01-preview", "2021-04-01-preview", "2020-10-01", "2020-10-01-preview",
		"2020-08-01-preview", "2020-04-01-preview", "2020-03-01-preview", "2018-09-01-preview", "2018-07-01", "2018-07-01-preview", "2018-01-01-preview",
		"2017-10-01-preview", "2015-07-01", "2015-06-01", "2014-10-01-preview"}
}

func subjectOf(who arm.Principal) rbac.Subject { return rbac.Subject{ID: who.ID, Groups: who.Groups} }

// lastSegment is what stands behind the last slash, in lower case.
func lastSegment(id string) string { return strings.ToLower(id[strings.LastIndexByte(id, '/')+1:]) }
