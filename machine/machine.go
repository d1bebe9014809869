// SPDX-License-Identifier: Apache-2.0

// Package machine gives a machine its life: create from an image, boot, reboot,
// reimage, stop, delete. The provider here is made of namespaces
// (machine/linux); others come behind the same interface.
//
// It knows neither Kubernetes nor networks: what runs inside is a list of
// layers and files, and its network namespace is handed to the data plane.
package machine

import (
	"context"
	"encoding/json"
)

// Spec is what a machine should be.
type Spec struct {
	ID       string `json:"id"`       // unique on this instance, [a-z0-9-], ≤ 63
	Hostname string `json:"hostname"` // the node's name
	Image    string `json:"image"`    // version of a node image
	// Layers are bundles laid over the image, "name@version", the first lowest.
	// Like Image they hold from the machine's first boot to its next reimage.
	Layers []string `json:"layers,omitempty"`
	CPUs   int      `json:"cpus"` // whole virtual CPUs
	Memory int64    `json:"memory"`
	// Files are written into the machine before each boot, owned by its root, and
	// into one that runs when Create finds that they changed. One that is in no later
	// spec stays.
	Files []File `json:"files,omitempty"`
	// Boots and Images grow by one to ask for a reboot or a reimage.
	Boots  int64 `json:"boots,omitempty"`
	Images int64 `json:"images,omitempty"`
	// Stopped keeps the machine's disk and lets nothing run. Who keeps machines
	// calls Stop then; Create and Boot don't look at it.
	Stopped bool `json:"stopped,omitempty"`
}

// File is one file given to a machine.
type File struct {
	Path string `json:"path"` // absolute, inside the machine
	Mode uint32 `json:"mode"`
	Data []byte `json:"data"`
}

// Phase is where a machine stands.
type Phase string

// The phases.
const (
	Preparing Phase = "Preparing" // its namespaces exist, PID 1 doesn't run yet
	Running   Phase = "Running"
	Stopped   Phase = "Stopped" // on disk only: stopped, or its guest rebooted and waits for Create and Boot
	Failed    Phase = "Failed"  // PID 1 died; Error says how. Create and Boot bring it back
)

// Status is what a machine is.
type Status struct {
	ID     string `json:"id"`
	Phase  Phase  `json:"phase"`
	Boots  int64  `json:"boots"`
	Images int64  `json:"images"`
	PID    int    `json:"pid,omitempty"` // of its PID 1, seen from outside
	Error  string `json:"error,omitempty"`
	// Guest is what the machine says of itself in GuestPath, as JSON. It is hostile.
	Guest json.RawMessage `json:"guest,omitempty"`
}

// GuestPath is the file in which a machine tells of itself, at most GuestBytes long.
const (
	GuestPath  = "/run/bastide/status.json"
	GuestBytes = 64 << 10
)

// Provider runs machines. Its methods are idempotent, safe for concurrent use,
// and to be called again after a failure or a restart: a machine that runs as
// its spec says is adopted, not restarted.
type Provider interface {
	// Create brings the machine as far as its namespaces: they exist, nothing
	// runs in them yet, and the data plane can attach interfaces to Netns. A
	// machine that runs is left alone (its limits are set anew), unless
	// spec.Boots or spec.Images grew: then it is stopped and created again.
	Create(ctx context.Context, spec Spec) error
	// Boot lets PID 1 run. A machine that already runs as Create left it is
	// left alone. Without a Create before it is refused (fault.Conflict).
	Boot(ctx context.Context, spec Spec) error
	// Stop ends the machine, cleanly if it does so in time, and keeps its disk.
	Stop(ctx context.Context, id string) error
	// Delete stops the machine and removes all that it left.
	Delete(ctx context.Context, id string) error
	// Netns is the path of the machine's network namespace, "" when it has none.
	// It changes with each boot.
	Netns(id string) string
	// Status lists every machine there is, also those that no spec asks for.
	Status(ctx context.Context) ([]Status, error)
	// Changed receives the ID of a machine whose status changed (its PID 1 died, …).
	Changed() <-chan string
}
