// SPDX-License-Identifier: Apache-2.0

// Package arm is the front door: Azure Resource Manager's protocol as one
// generic http.Handler over a table of resource types. It does what is the same
// for all of them: who asks and may he, API versions, ids, etags, paging, tags,
// resource groups, long-running operations, the activity log. What a type means
// is its provider's: a row of the table with a few functions.
//
// It imports no provider. Providers import it to fill rows and to end
// operations; cmd/bastide puts both together.
package arm

import (
	"context"
	"encoding/json"
	"net/url"

	"bastide.dev/resource"
	"bastide.dev/store"
)

// Principal is who asks, as the token says.
type Principal struct {
	ID     string // object id in the directory
	Kind   string // "User", "ServicePrincipal" or "ManagedIdentity"
	Name   string // user principal name, or the application's id
	AppID  string // the application through which it asks
	Tenant string
	Groups []string // object ids of groups, transitively
	// Methods are how a person proved themselves, as the token's amr names them.
	Methods []string `json:",omitempty"`
}

// Authenticator turns a bearer token into a principal. It is safe for
// concurrent use. Its error is a fault.Unauthorized whose message says what is
// wrong with the token; any other error is a failure of the service.
type Authenticator interface {
	Authenticate(ctx context.Context, bearer string) (Principal, error)
}

// Authorizer decides whether a principal may do an action, such as
// "Microsoft.ContainerService/managedClusters/write", at a scope. nil means yes;
// no is a fault.Forbidden. It is safe for concurrent use, and asked on every request.
type Authorizer interface {
	Authorize(ctx context.Context, who Principal, action string, scope resource.ID) error
}

// Relater is what an Authorizer can do beside: tell whether a principal has any
// rights on a scope, above or below it. Who has is shown of a list what he may
// read; who hasn't, or when nobody can tell, is refused the list.
type Relater interface {
	Related(ctx context.Context, who Principal, scope resource.ID) (bool, error)
}

// Link is a place in bodies where the id of another resource stands, that whoever
// writes the body must have an action on. In Path "[]" stands for the elements of
// a list and "{}" for the names of an object's members.
type Link struct {
	Path   string // "properties.subnet.id", "identity.userAssignedIdentities{}"
	Action string // "Microsoft.Network/virtualNetworks/subnets/join/action"
}

// Provider is one namespace and the types in it.
type Provider struct {
	Namespace string // "Microsoft.ContainerService"
	Types     []Type
}

// Scope is where resources of a type stand.
type Scope int

// The scopes of a top-level type; a child type has its parent's.
const (
	InGroup Scope = iota
	InSubscription
	InTenant
	OnAny // an extension: under any other resource or scope
)

// Hook decides what a write or an action does. It is pure but for reads: the
// front door may call it again when a document changed in between, and writes
// what the plan says in one transaction. Every problem of the request belongs
// into one error (fault.Join).
type Hook func(ctx context.Context, r *Request) (*Plan, error)

// Type is one row of the table. A type without Put has no documents of its own:
// what it shows is computed by Get and List, and it refuses other methods with 405.
// With Put and Get or List, reads are computed though there are documents.
type Type struct {
	Name     string // below the namespace: "managedClusters", "managedClusters/agentPools"
	Scope    Scope
	Versions []resource.APIVersion

	// Model makes an empty wire model (the Azure SDK's struct, by pointer). A
	// property of a body that it doesn't know is refused by name. nil: no check.
	Model func() any
	// ReadOnly lists properties dropped from bodies, such as "properties.fqdn" or
	// "properties.agentPoolProfiles[].currentOrchestratorVersion".
	ReadOnly []string

	// Embedded makes resources of the type, a child, elements of a list in their
	// parent's body, such as "properties.subnets". They have no documents: a GET shows the
	// element of the parent's view, a PUT or DELETE is a PUT of the parent with that
	// element changed, through the parent's Put, and hooks of the type itself are none.
	// Each has a "name"; in views ids, types and etags are laid over it.
	Embedded string
	// Queue makes writes wait for an operation that runs on the resource, its
	// parent or its parts, for a while, instead of refusing them.
	Queue bool

	// Home is where the document of a resource stands that can be named from
	// several scopes. nil: under its id.
	Home func(id resource.ID) resource.ID
	// Implicit says that resources are there before anything is written to them: a
	// PATCH needs no document.
	Implicit bool
	// PutStatus is the status of a PUT's answer; 0: 201 of a new resource, else 200.
	PutStatus int
	// Audit is what the activity log keeps of a document before and after a write:
	// nothing secret. nil: nothing.
	Audit func(d *Document) any
	// Links are other resources that bodies of PUT and PATCH name.
	Links []Link

	Put     Hook            // create or replace
	Patch   Hook            // nil: PATCH takes tags only
	Delete  Hook            // nil: deleted at once, with nothing else
	Actions map[string]Hook // POST {id}/{action}; that of "" is POST {collection}, and its plan has changes and an answer only

	// View makes the answer's body of a document. nil: Body with the envelope's fields laid over it.
	View func(ctx context.Context, d *Document, version resource.APIVersion) (any, error)
	// Beside names the actions that may be asked for while an operation runs on the
	// resource; that operation stays the documents', the action's own runs beside it.
	Beside []string
	// Get answers GET {id} and List GET {collection} of a computed type.
	Get, List func(ctx context.Context, r *Request) (any, error)

	NoBody    bool // a PUT may come without a body
	Untracked bool // a top-level type without location and tags of its own
}

// Request is what a hook sees.
type Request struct {
	ID      resource.ID // of the resource; for a List of its parent or scope
	Version resource.APIVersion
	Who     Principal
	Query   url.Values

	Old    *Document // the document as it is; nil when there is none
	Parent *Document // of a child type
	Group  *Document // the resource group, when ID is in one

	// Body is the client's JSON object without read-only properties, numbers as
	// json.Number; nil when none was sent. Location and tags are in it too.
	Body map[string]any

	// Operation is the id that the operation will have if the plan is Async.
	Operation string

	// Cascade says that a DELETE comes from that of the resource group.
	Cascade bool
}

// Plan is what the front door shall do: write documents in one transaction,
// and start an operation if the effect takes time.
type Plan struct {
	// Document is written (nil of an action that only reads). For a DELETE: nil,
	// or the document as it shall be while it is being deleted.
	Document *Document
	// Children are documents of child resources written along, under the same
	// operation: a new one has Revision 0. Gone ones are removed in the same transaction.
	Children []*Document
	Gone     []*Document
	// Changes are the provider's own further changes of the transaction: allocations and the like.
	Changes []store.Change

	// Async starts an operation, which a reconciler ends with Operations.Finish.
	Async bool
	// State is shown while it runs; "" is Creating, Updating or Deleting by method.
	State resource.State

	// Answer is the body of an action's answer when it isn't Async.
	Answer any
}

// Document is a stored resource and the revision it was read at; a new one's is 0.
type Document struct {
	resource.Envelope
	Revision int64 `json:"-"`
}

// New is the document that a PUT asks for, ready for the hook to complete: the
// old one's identity and State, the request's location, tags and body.
func (r *Request) New() (*Document, error) {
	d := &Document{}
	if r.Old != nil {
		*d = *r.Old
	}
	d.ID, d.Name, d.Type = r.ID, r.ID.Name(), r.ID.Type()
	if location, ok := r.Body["location"].(string); ok {
		d.Location = resource.NormalizeLocation(location)
	}
	d.Tags = tagsOf(r.Body["tags"])
	return d, d.SetBody(r.Body)
}

// SetBody stores the body; location and tags are the envelope's and left out.
func (d *Document) SetBody(body map[string]any) error {
	kept := make(map[string]any, len(body))
	for k, v := range body {
		if k != "location" && k != "tags" {
			kept[k] = v
		}
	}
	raw, err := json.Marshal(kept)
	d.Body = raw
	return err
}
