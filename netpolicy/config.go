// SPDX-License-Identifier: Apache-2.0

package netpolicy

import "net/netip"

// Where a node's policy agent is found, and what it is told.
const (
	// ProgramName is the agent's program, and the type of its CNI plugin.
	ProgramName = "bastide-netpolicy"
	// ProgramPath is where a machine has the program: among the CNI plugins.
	ProgramPath = "/opt/cni/bin/" + ProgramName
	// ConfigPath holds its AgentConfig.
	ConfigPath = "/etc/bastide/netpolicy.json"
	// SocketPath is where it is asked; root of the machine alone may.
	SocketPath = "/run/bastide/policy.sock"
	// SandboxesPath keeps what the CNI plugin told, over restarts of the agent.
	SandboxesPath = "/run/bastide/policy-pods.json"
)

// AgentConfig is all that a node's policy agent is told.
type AgentConfig struct {
	Node   string         `json:"node"`
	Ranges []netip.Prefix `json:"ranges"` // this node's pods'
	Server string         `json:"server"` // https://…
	// Paths of PEM files: who signs for the server, and who the agent is.
	CA          string `json:"ca"`
	Certificate string `json:"certificate"`
	Key         string `json:"key"`
	Socket      string `json:"socket"`
	Sandboxes   string `json:"sandboxes"` // a file of its own
}

// Sandbox is a pod's network, as a CNI plugin made it.
type Sandbox struct {
	ID        string       `json:"id"` // the container's
	Namespace string       `json:"namespace"`
	Name      string       `json:"name"`
	UID       string       `json:"uid"` // the pod's
	Addresses []netip.Addr `json:"addresses"`
}

// Paths of what the agent answers on its socket, over HTTP.
const (
	SandboxPath  = "/sandboxes/" // + ID. PUT: a Sandbox, answered when its pod's rules are in the kernel. GET: 204 when they are. DELETE
	TablePath    = "/table"      // GET: the ruleset.Table that the kernel has
	CountersPath = "/counters"   // GET: []ruleset.Counter
	StatusPath   = "/status"     // GET: AgentStatus
)

// AgentStatus is how an agent gets on.
type AgentStatus struct {
	Synced   bool   `json:"synced"` // it has seen all of the cluster
	Pods     int    `json:"pods"`
	Policies int    `json:"policies"` // cluster-wide ones among them
	Digest   string `json:"digest"`   // of the table that the kernel has; "" before the first
	Puts     int64  `json:"puts"`     // how often the table was changed
	Cut      int64  `json:"cut"`      // connections that were ended because policies changed
	Error    string `json:"error,omitempty"`
	// CompileMicros and PutMicros are of the last change.
	CompileMicros int64 `json:"compileMicros"`
	PutMicros     int64 `json:"putMicros"`
}
