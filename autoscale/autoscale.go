// SPDX-License-Identifier: Apache-2.0

// Package autoscale decides how many nodes pools should have: more when pods
// find no place that a node of some pool would give them, fewer when nodes
// stand idle and what runs there fits elsewhere. It is what cluster-autoscaler
// does, as far as AKS offers it, in a small and pure form: Decide looks at a
// cluster as it stands and at what it remembered, and answers.
//
// It imports the standard library and package fault alone. The agent in a
// control plane feeds it; package cluster carries out what it wishes.
package autoscale

import (
	"time"
)

// Pool is a group of equal nodes that may grow and shrink.
type Pool struct {
	Name string `json:"name"`
	Min  int    `json:"min"`
	Max  int    `json:"max"`
	// Count is how many nodes the pool should have now, those on their way included.
	Count    int      `json:"count"`
	Template Template `json:"template"`
}

// Template is what a new node of a pool would be.
type Template struct {
	CPU    int64             `json:"cpu"`    // thousandths that pods can have
	Memory int64             `json:"memory"` // bytes that pods can have
	Pods   int64             `json:"pods"`
	Labels map[string]string `json:"labels,omitempty"`
	Taints []Taint           `json:"taints,omitempty"`
}

// Taint keeps pods away that don't tolerate it.
type Taint struct {
	Key    string `json:"key"`
	Value  string `json:"value,omitempty"`
	Effect string `json:"effect"`
}

// Resources are amounts by Kubernetes' names of resources; cpu in thousandths.
type Resources map[string]int64

// The resources that every node has.
const (
	cpuName    = "cpu"
	memoryName = "memory"
	podsName   = "pods"
)

// Node is a registered node.
type Node struct {
	Name        string
	Pool        string // "": of none that is asked about
	Allocatable Resources
	Labels      map[string]string
	Taints      []Taint
	Ready       bool
	Since       time.Time // of Ready being as it is
	Created     time.Time
	Cordoned    bool
	// Going: it is on its way out. Leaving: it takes no pods for now.
	Going   bool
	Leaving bool
	// Keep is the annotation that forbids taking the node away.
	Keep bool
	Pods []*Pod
}

// Pod is a pod that runs, or waits for a place.
type Pod struct {
	UID       string
	Namespace string
	Name      string
	Labels    map[string]string
	Requests  Resources
	Selector  map[string]string
	// Required are node affinity's required terms, of which one has to hold.
	Required    []NodeTerm
	Tolerations []Toleration
	Apart       []PodTerm // required anti-affinity
	Near        []PodTerm // required affinity
	Spread      []Spread  // those that forbid
	Ports       []Port    // of the host
	Priority    int32
	Owner       string // who controls it, "" when nobody does
	Daemon      bool   // of a DaemonSet
	Mirror      bool   // of the node's own
	Local       bool   // it has storage that ends with the node
	System      bool   // of kube-system
	Ending      bool   // it is being deleted
	Evict       *bool  // what its annotation says of eviction
	// Since is when it was found that the pod has no place.
	Since time.Time
}

// Key names a pod.
func (pod *Pod) Key() string { return pod.Namespace + "/" + pod.Name }

// Port is a port of the node that a pod takes.
type Port struct {
	Protocol string
	Number   int32
}

// NodeTerm holds when all of its requirements do; an empty one never does.
type NodeTerm struct {
	Labels []Requirement
	Names  []Requirement // on the node's name
}

// Requirement is one on labels, with Kubernetes' operators.
type Requirement struct {
	Key      string
	Operator string
	Values   []string
}

// Toleration lets a pod onto nodes with a taint.
type Toleration struct {
	Key, Operator, Value, Effect string
}

// PodTerm speaks of other pods in the same topology.
type PodTerm struct {
	Topology   string
	Selector   Selector
	Namespaces []string
	Everywhere bool // in all namespaces
}

// Selector chooses pods by their labels; the zero one chooses none.
type Selector struct {
	Set    bool // a selector is there; without requirements it chooses all
	Labels []Requirement
}

// Spread is a topology spread constraint that forbids.
type Spread struct {
	Topology string
	MaxSkew  int32
	Selector Selector
}

// Budget is a PodDisruptionBudget.
type Budget struct {
	Namespace string
	Name      string
	Selector  Selector
	Allowed   int32 // disruptions now
}

// Input is a cluster as it stands.
type Input struct {
	Now     time.Time
	Profile Profile
	Pools   []Pool
	Nodes   []*Node
	Missing []Missing
	Pending []*Pod // those for which the scheduler found no place
	Daemons []*Pod // what each DaemonSet would start on a node
	Budgets []Budget
	// Priorities are the priority expander's: patterns of pool names by priority.
	Priorities []Priority
	Memory     Memory
}

// Decision is what should be done.
type Decision struct {
	// Want is how many nodes each pool should have, of those that should have more.
	Want map[string]int
	// Remove are the nodes to be taken away.
	Remove []string
	Memory Memory
	// Next is when something becomes due although nothing happens; zero: nothing does.
	Next time.Time

	Helped   map[string]string // pods for which pools grow, by key: what grows
	Unhelped map[string]string // pods that no pool can help, by key: why
	Idle     []string          // nodes that aren't needed, though it isn't time yet
	Kept     map[string]string // nodes that are little used and must stay, and why
	Unwell   string            // why nothing is done at all
}

// Missing is a node that a pool was given and that hasn't registered.
type Missing struct {
	Name, Pool string
}

// Memory is what has to be remembered from one decision to the next. Forgotten,
// it only delays.
type Memory struct {
	Unneeded map[string]time.Time // nodes, since when
	Missing  map[string]time.Time // nodes, since when
	Asked    map[string]time.Time // nodes whose removal was asked for
	Added    time.Time            // when a pool was to grow last
	Deleted  time.Time            // when a node that was asked for went
	Failed   time.Time            // when one didn't go, or didn't come
	Pools    map[string]PoolMemory
}

// PoolMemory is what is remembered of a pool whose nodes didn't come.
type PoolMemory struct {
	Failures int       // in a row
	Until    time.Time // it isn't tried again before
}
