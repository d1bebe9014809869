// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"encoding/json"
	"time"

	"bastide.dev/fault"
	"bastide.dev/resource"
)

// Operation is a long-running operation as it is stored. It outlives every process.
type Operation struct {
	ID          string              `json:"id"` // a GUID
	Resource    resource.ID         `json:"resource"`
	Method      string              `json:"method"`           // PUT, PATCH, DELETE, POST
	Action      string              `json:"action,omitempty"` // of a POST: "stop"
	Status      resource.State      `json:"status"`           // "InProgress" until it is Succeeded, Failed or Canceled
	Start       time.Time           `json:"start"`
	End         time.Time           `json:"end,omitzero"`
	Error       *WireError          `json:"error,omitempty"`
	Output      json.RawMessage     `json:"output,omitempty"` // body of the final answer of an action
	Location    string              `json:"location,omitempty"`
	Version     resource.APIVersion `json:"version"`
	Caller      Principal           `json:"caller"`
	Address     string              `json:"address,omitempty"` // the caller's
	Correlation string              `json:"correlation"`
	Created     bool                `json:"created,omitempty"` // the PUT made a new resource
	Part        *Part               `json:"part,omitempty"`    // the PUT is really a write to an embedded resource
}

// Part is the embedded resource that a client wrote, and how.
type Part struct {
	ID     resource.ID `json:"id"`
	Method string      `json:"method"` // PUT or DELETE
}

// asked is what the client wrote: the resource, or its part.
func (o *Operation) asked() (resource.ID, string) {
	if o.Part != nil {
		return o.Part.ID, o.Part.Method
	}
	return o.Resource, o.Method
}

// InProgress is the status of an operation that runs.
const InProgress resource.State = "InProgress"

// Done tells whether the operation has ended.
func (o *Operation) Done() bool { return o.Status.Terminal() }

// Ending is how a reconciler ends an operation.
type Ending struct {
	// Fault is why it failed; nil is success.
	Fault error
	// Edit changes the resource's document in the same transaction (not of a
	// succeeded DELETE, which removes the document and all beneath it). nil: no change.
	Edit func(*Document) error
	// Output is the body of the final answer of an action.
	Output json.RawMessage
}

// WireError is an error as ARM's bodies and stored operations hold it.
type WireError struct {
	Code    string       `json:"code"`
	Message string       `json:"message"`
	Target  string       `json:"target,omitempty"`
	Details []*WireError `json:"details,omitempty"`
}

// NewWireError is the public part of err.
func NewWireError(err error) *WireError {
	f := fault.From(err)
	w := &WireError{Code: f.Code, Message: f.Message, Target: f.Target}
	if w.Code == "" {
		w.Code = defaultCode(f.Kind)
	}
	for _, d := range f.Details {
		w.Details = append(w.Details, NewWireError(d))
	}
	return w
}

func defaultCode(kind fault.Kind) string {
	switch kind {
	case fault.Invalid:
		return "BadRequest"
	case fault.Unauthorized:
		return "AuthenticationFailed"
	case fault.Forbidden:
		return "AuthorizationFailed"
	case fault.NotFound:
		return "ResourceNotFound"
	case fault.NotAllowed:
		return "MethodNotAllowed"
	case fault.Precondition:
		return "PreconditionFailed"
	case fault.TooLarge:
		return "RequestEntityTooLarge"
	case fault.Unsupported:
		return "PropertyNotSupported"
	case fault.Unavailable:
		return "ServerTimeout"
	case fault.Exhausted:
		return "AllocationFailed"
	case fault.Conflict:
		return "Conflict"
	}
	return "InternalServerError"
}
