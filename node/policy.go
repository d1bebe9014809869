// SPDX-License-Identifier: Apache-2.0

package node

import (
	"encoding/json"

	"bastide.dev/netpolicy"
)

// PolicyUser is the user that a node's policy agent is to the API server.
const PolicyUser = "bastide:netpolicy"

const (
	policyCertPath = "/etc/kubernetes/certs/netpolicy.crt"
	policyKeyPath  = "/etc/kubernetes/certs/netpolicy.key"
)

// Enforces tells whether network policies hold on the node. Without a network
// of pods there is nothing that they could be about.
func (c Config) Enforces() bool { return c.Policy != nil && c.Network.Plugin != "none" }

// PolicyArgs are the policy agent's arguments.
func PolicyArgs() []string { return []string{"agent"} }

// PolicyReads are the files that the policy agent reads when it starts.
func PolicyReads() []string {
	return []string{netpolicy.ConfigPath, policyCertPath, policyKeyPath, CAPath}
}

// policyFiles is what the policy agent reads.
func policyFiles(c Config) ([]File, error) {
	if !c.Enforces() {
		return nil, nil
	}
	config, err := json.Marshal(netpolicy.AgentConfig{Node: c.Hostname, Ranges: c.Network.Pods, Server: c.Server,
		CA: CAPath, Certificate: policyCertPath, Key: policyKeyPath, Socket: netpolicy.SocketPath, Sandboxes: netpolicy.SandboxesPath})
	if err != nil {
		return nil, err
	}
	return []File{
		{policyCertPath, 0o600, c.Policy.Credential.Certificate},
		{policyKeyPath, 0o600, c.Policy.Credential.Key},
		{netpolicy.ConfigPath, 0o600, config},
	}, nil
}

// policyPlugin holds each pod back until its policies are in the kernel.
func policyPlugin() map[string]any {
	return map[string]any{"type": netpolicy.ProgramName, "socket": netpolicy.SocketPath}
}
