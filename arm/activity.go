// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"bastide.dev/resource"
	"bastide.dev/store"
)

// Activity is one record of the activity log: who did what, from where, with what outcome.
type Activity struct {
	ID          string      `json:"id"`
	Time        time.Time   `json:"time"`
	Resource    resource.ID `json:"resource"`
	Action      string      `json:"action"` // "Microsoft.ContainerService/managedClusters/write"
	Status      string      `json:"status"` // Started, Accepted, Succeeded, Failed
	SubStatus   string      `json:"subStatus,omitempty"`
	Code        string      `json:"code,omitempty"`    // of the error
	Message     string      `json:"message,omitempty"` // of the error
	Caller      Principal   `json:"caller"`
	Address     string      `json:"address,omitempty"`
	Operation   string      `json:"operation,omitempty"`
	Correlation string      `json:"correlation"`
	Method      string      `json:"method"`

	// Before and After are the resource's own, of types that ask for it.
	Before json.RawMessage `json:"before,omitempty"`
	After  json.RawMessage `json:"after,omitempty"`
}

// change writes the record; its key sorts by time, so that the newest is last and the oldest goes first.
func (a *Activity) change() store.Change {
	value, _ := json.Marshal(a) // plain strings and times: can't fail
	key := fmt.Sprintf("%s%s/%020d-%s", ActivityPrefix, strings.ToLower(a.Resource.Subscription()), a.Time.UnixNano(), a.ID)
	return store.Change{Key: key, Value: value, Revision: store.Any}
}

// NewActivity is the change that writes the record of what the service did to a
// resource by itself, such as ending what ran out; it goes into the same transaction.
func NewActivity(now time.Time, id resource.ID, action, substatus string) store.Change {
	a := &Activity{ID: uuid.NewString(), Time: now.UTC(), Resource: id, Action: action, Status: "Succeeded", SubStatus: substatus,
		Caller: Principal{ID: "", Kind: "Service", Name: "Bastide"}, Correlation: uuid.NewString()}
	return a.change()
}

// ended gives a record the outcome of what was done at once.
func (a *Activity) ended(err error) *Activity {
	a.Status = "Succeeded"
	if err != nil {
		wire := NewWireError(err)
		a.Status, a.Code, a.Message = "Failed", wire.Code, wire.Message
	}
	return a
}

// activityOf is the record of an operation's present state.
func activityOf(op *Operation) *Activity {
	id, method := op.asked()
	a := &Activity{ID: uuid.NewString(), Time: op.Start, Resource: id, Action: actionName(id, method, op.Action),
		Status: "Started", Caller: op.Caller, Address: op.Address, Operation: op.ID, Correlation: op.Correlation, Method: method}
	if op.Done() {
		a.Time, a.Status = op.End, string(op.Status)
	}
	if op.Error != nil {
		a.Code, a.Message = op.Error.Code, op.Error.Message
	}
	return a
}

// actionName is the operation's name as roles and the activity log know it.
func actionName(id resource.ID, method, action string) string {
	typ := id.Type()
	if id.IsType(resource.TypeGroup) {
		typ = "Microsoft.Resources/subscriptions/resourceGroups"
	}
	switch method {
	case "PUT", "PATCH":
		return typ + "/write"
	case "DELETE":
		return typ + "/delete"
	case "POST":
		return typ + "/" + action + "/action"
	}
	return typ + "/read"
}
