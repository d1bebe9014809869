// SPDX-License-Identifier: Apache-2.0

// Package netpolicy compiles Kubernetes' network policies for one node, purely,
// to a table of a ruleset; netpolicy/agent keeps a node's kernel so, and
// netpolicy/cni holds back each new pod until it is.
//
// Its types are the parts of Kubernetes' objects that decide about packets, in
// the API's own JSON. An agent on every node holds all of a cluster's pods:
// what isn't needed isn't kept. Package why and the node may import it.
package netpolicy

import (
	"net/netip"
	"time"
)

// TableName is the compiled table's name in a node's kernel.
const TableName = "bastide-netpolicy"

// State is all that decides about the packets of one node's pods.
type State struct {
	Node   string         // this node's name
	Ranges []netip.Prefix // the addresses that this node gives to its pods
	// Pods are the cluster's: those that have ended (Succeeded, Failed) aren't.
	Pods            []*Pod
	Namespaces      []*Namespace
	Nodes           []*Node
	Policies        []*Policy
	ClusterPolicies []*ClusterPolicy
}

// Pod is one pod as far as policies see it.
type Pod struct {
	Namespace   string
	Name        string
	UID         string
	Labels      map[string]string
	Node        string
	HostNetwork bool
	Addresses   []netip.Addr
	Ports       []NamedPort
	// Of two pods with one address that has the address which isn't being
	// deleted, then the one created later: addresses are given anew before the
	// API server forgets who had them.
	Deleting bool
	Created  time.Time
	// Attached says that the node itself told of the addresses: they are this
	// pod's, whatever others say.
	Attached bool
}

// NamedPort is a container's port that has a name.
type NamedPort struct {
	Name     string
	Protocol string // "TCP" when empty
	Port     uint16
}

// Namespace is a namespace and its labels.
type Namespace struct {
	Name   string
	Labels map[string]string
}

// Node is a node and its addresses.
type Node struct {
	Name      string
	Labels    map[string]string
	Addresses []netip.Addr
}

// Selector is a label selector, as in the API.
type Selector struct {
	MatchLabels      map[string]string `json:"matchLabels,omitempty"`
	MatchExpressions []Requirement     `json:"matchExpressions,omitempty"`
}

// Requirement is one expression of a Selector.
type Requirement struct {
	Key      string   `json:"key"`
	Operator string   `json:"operator"` // In, NotIn, Exists, DoesNotExist
	Values   []string `json:"values,omitempty"`
}

// Meta is what is kept of an object's metadata.
type Meta struct {
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
}

// Policy is a networking.k8s.io/v1 NetworkPolicy.
type Policy struct {
	Meta Meta       `json:"metadata"`
	Spec PolicySpec `json:"spec"`
}

// PolicySpec is a NetworkPolicySpec.
type PolicySpec struct {
	PodSelector Selector `json:"podSelector"`
	Ingress     []Rule   `json:"ingress,omitempty"`
	Egress      []Rule   `json:"egress,omitempty"`
	PolicyTypes []string `json:"policyTypes,omitempty"`
}

// Rule is a NetworkPolicyIngressRule (From) or NetworkPolicyEgressRule (To).
type Rule struct {
	From  []Peer `json:"from,omitempty"`
	To    []Peer `json:"to,omitempty"`
	Ports []Port `json:"ports,omitempty"`
}

// Peer is a NetworkPolicyPeer.
type Peer struct {
	PodSelector       *Selector `json:"podSelector,omitempty"`
	NamespaceSelector *Selector `json:"namespaceSelector,omitempty"`
	IPBlock           *IPBlock  `json:"ipBlock,omitempty"`
}

// IPBlock is a range of addresses but for some.
type IPBlock struct {
	CIDR   string   `json:"cidr"`
	Except []string `json:"except,omitempty"`
}

// Port is a NetworkPolicyPort.
type Port struct {
	Protocol string      `json:"protocol,omitempty"` // "TCP" when empty
	Port     *PortOrName `json:"port,omitempty"`
	EndPort  *int32      `json:"endPort,omitempty"`
}

// ClusterPolicy is a policy.networking.k8s.io/v1alpha2 ClusterNetworkPolicy.
type ClusterPolicy struct {
	Meta Meta              `json:"metadata"`
	Spec ClusterPolicySpec `json:"spec"`
}

// ClusterPolicySpec is a ClusterNetworkPolicySpec.
type ClusterPolicySpec struct {
	Tier     string         `json:"tier"` // Admin, Baseline
	Priority int32          `json:"priority"`
	Subject  ClusterSubject `json:"subject"`
	Ingress  []ClusterRule  `json:"ingress,omitempty"`
	Egress   []ClusterRule  `json:"egress,omitempty"`
}

// The tiers of cluster-wide policies, and the actions of their rules.
const (
	AdminTier    = "Admin"
	BaselineTier = "Baseline"
	ActionAccept = "Accept"
	ActionDeny   = "Deny"
	ActionPass   = "Pass"
)

// ClusterSubject is the pods that a cluster-wide policy is about.
type ClusterSubject struct {
	Namespaces *Selector      `json:"namespaces,omitempty"`
	Pods       *NamespacedPod `json:"pods,omitempty"`
}

// NamespacedPod selects pods in selected namespaces.
type NamespacedPod struct {
	NamespaceSelector Selector `json:"namespaceSelector"`
	PodSelector       Selector `json:"podSelector"`
}

// ClusterRule is an ingress rule (From) or egress rule (To) of a ClusterPolicy.
type ClusterRule struct {
	Name      string            `json:"name,omitempty"`
	Action    string            `json:"action"`
	From      []ClusterPeer     `json:"from,omitempty"`
	To        []ClusterPeer     `json:"to,omitempty"`
	Protocols []ClusterProtocol `json:"protocols,omitempty"`
}

// ClusterPeer is one of the peers of a ClusterRule. One without any field that
// is known here came from a newer API: its rule then fails closed. Domain names
// aren't resolved here, and the CRD that Bastide installs has none.
type ClusterPeer struct {
	Namespaces *Selector      `json:"namespaces,omitempty"`
	Pods       *NamespacedPod `json:"pods,omitempty"`
	Nodes      *Selector      `json:"nodes,omitempty"`
	Networks   []string       `json:"networks,omitempty"`
}

// ClusterProtocol is a protocol and its ports, or a port's name.
type ClusterProtocol struct {
	TCP       *ClusterPorts `json:"tcp,omitempty"`
	UDP       *ClusterPorts `json:"udp,omitempty"`
	SCTP      *ClusterPorts `json:"sctp,omitempty"`
	NamedPort string        `json:"destinationNamedPort,omitempty"`
}

// ClusterPorts is the destination port of one protocol; none: any.
type ClusterPorts struct {
	DestinationPort *ClusterPort `json:"destinationPort,omitempty"`
}

// ClusterPort is a port or a range of ports.
type ClusterPort struct {
	Number int32 `json:"number,omitempty"`
	Range  *struct {
		Start int32 `json:"start"`
		End   int32 `json:"end"`
	} `json:"range,omitempty"`
}
