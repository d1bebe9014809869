// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"encoding/json"
	"time"
)

// State is an ARM provisioning state.
type State string

// The provisioning states. A state that isn't Terminal means that an operation runs.
const (
	Creating  State = "Creating"
	Updating  State = "Updating"
	Deleting  State = "Deleting"
	Starting  State = "Starting"
	Stopping  State = "Stopping"
	Scaling   State = "Scaling"
	Upgrading State = "Upgrading"
	Succeeded State = "Succeeded"
	Failed    State = "Failed"
	Canceled  State = "Canceled"
)

// Terminal tells whether nothing is under way.
func (s State) Terminal() bool { return s == Succeeded || s == Failed || s == Canceled || s == "" }

// Envelope is the document of one resource as it is stored.
type Envelope struct {
	ID                ID                `json:"id"`
	Type              string            `json:"type"` // in the provider's own case
	Name              string            `json:"name"`
	Location          string            `json:"location,omitempty"`
	Tags              map[string]string `json:"tags,omitempty"`
	Etag              string            `json:"etag"` // new with each write of a client; a reconciler's writes keep it
	SystemData        SystemData        `json:"systemData"`
	ProvisioningState State             `json:"provisioningState"`

	// Operation is the id of the operation that runs on this document, "" when none does.
	Operation string `json:"operation,omitempty"`

	// Generation grows with each write of a client, so that a reconciler can tell what it has seen.
	Generation int64 `json:"generation"`

	// Body is the client's JSON, normalised by the provider, with properties of newer API versions kept.
	Body json.RawMessage `json:"body,omitempty"`

	// State is the provider's own part (addresses allotted, names made); no client sees it but through the type's view.
	State json.RawMessage `json:"state,omitempty"`
}

// SystemData says who made and last changed a resource.
type SystemData struct {
	CreatedBy          string    `json:"createdBy,omitempty"`
	CreatedByType      string    `json:"createdByType,omitempty"`
	CreatedAt          time.Time `json:"createdAt"`
	LastModifiedBy     string    `json:"lastModifiedBy,omitempty"`
	LastModifiedByType string    `json:"lastModifiedByType,omitempty"`
	LastModifiedAt     time.Time `json:"lastModifiedAt"`
}
