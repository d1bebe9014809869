// SPDX-License-Identifier: Apache-2.0

// Package agent keeps what lives inside a cluster's API and is the control
// plane's to keep: the objects a cluster is born with, the pod ranges of its
// nodes, and the approval of its kubelets' certificates. It learns of
// everything by watching, and tells how the cluster is.
//
// It reaches the API server through a dial function, so it knows no namespaces;
// package controlplane/linux runs one for each control plane.
package agent

import (
	"context"
	"log/slog"
	"net"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"bastide.dev/autoscale"
	"bastide.dev/controlplane"
)

// Config is what an Agent needs; every field is required.
type Config struct {
	Spec   controlplane.Spec
	Dial   func(ctx context.Context, network, address string) (net.Conn, error)
	Listen func(network, address string) (net.Listener, error) // where the API server runs
	Notify func()                                              // called when State changed; must not block
	// Progress is called when State became Serving, and when it became Ready.
	Progress func()
	// Policy is the release's default rights, created before it comes to that
	// itself; empty: it is waited for.
	Policy []*unstructured.Unstructured
	Logger *slog.Logger
}

// State is how the cluster is, as far as its API server tells.
type State struct {
	Serving bool // it serves, and the default rights are in place
	Ready   bool // /readyz is ok
	Version string
	Nodes   []controlplane.NodeStatus
	CoreDNS bool
	Metrics bool
	Error   string

	Issuer      string   // of service-account tokens
	SigningKeys []string // ids of the keys whose tokens are accepted, sorted
	// Authorities tells whose certificates count; nil until it is known.
	Authorities *controlplane.Authorities
	// WorkloadIdentity: pods are reviewed, and the API server knows.
	WorkloadIdentity bool
	// Scaling is what the autoscaler wishes; it is never changed, only replaced.
	Scaling *controlplane.Scaling
	// Reboots is what the reboot coordinator asked for; never changed, only replaced.
	Reboots *controlplane.RebootsStatus
}

// Agent keeps one cluster. Safe for concurrent use.
type Agent struct {
	Config
	lost      chan struct{} // holds one token after Lost
	connected *connection   // Run's own
	reviewer  *reviewer     // the session's own or, between two, Run's; nil: nobody was ever wanted

	mu      sync.Mutex // guards what follows
	spec    *controlplane.Spec
	state   State
	session *session // the one that runs, or nil
	scaling autoscale.Memory
	life    int // how often the API server was lost
}

// New makes an agent, which does nothing before Run.
func New(c Config) *Agent {
	return &Agent{Config: c, spec: &c.Spec, lost: make(chan struct{}, 1)}
}

// Set gives the agent another spec.
func (a *Agent) Set(spec controlplane.Spec) {
	a.mu.Lock()
	a.spec = &spec
	s := a.session
	a.mu.Unlock()
	if s != nil {
		s.specChanged()
	}
}

// Lost tells that the API server is another process now, or none: until that is
// ready, the cluster isn't.
func (a *Agent) Lost() {
	a.mu.Lock()
	a.life++
	a.mu.Unlock()
	a.update(func(s *State) { s.Serving, s.Ready = false, false })
	select {
	case a.lost <- struct{}{}:
	default:
	}
}

// State tells how the cluster is.
func (a *Agent) State() State {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.state
	s.Nodes, s.SigningKeys = slices.Clone(s.Nodes), slices.Clone(s.SigningKeys)
	return s
}

// Run works until ctx ends. Each life of the API server is a session of its
// own: it waits for the server, and begins anew when the server is lost.
func (a *Agent) Run(ctx context.Context) {
	defer func() { a.reviewer.end() }()
	for ctx.Err() == nil {
		err := a.once(ctx)
		a.update(func(s *State) { s.Serving, s.Ready = false, false })
		if err != nil && ctx.Err() == nil {
			a.Logger.Warn("session with API server ended", "error", err)
			a.update(func(s *State) { s.Error = err.Error() })
			pause(ctx, 200*time.Millisecond)
		}
	}
}

func (a *Agent) once(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, sessionLife)
	defer cancel()
	select { // what was lost before isn't this one
	case <-a.lost:
	default:
	}
	s, err := newSession(a)
	if err != nil {
		return err
	}
	defer s.hangUp()
	var watcher sync.WaitGroup
	defer watcher.Wait()
	defer cancel()
	watcher.Go(func() {
		select {
		case <-ctx.Done():
		case <-a.lost:
			cancel()
		}
	})
	if err := s.awaitServing(ctx); err != nil {
		return err
	}
	a.mu.Lock()
	a.session = s
	a.mu.Unlock()
	err = s.run(ctx)
	a.mu.Lock()
	a.session = nil
	a.mu.Unlock()
	return err
}

func (a *Agent) current() *controlplane.Spec {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.spec
}

// update changes the state and notifies when it is another then.
func (a *Agent) update(f func(*State)) {
	a.mu.Lock()
	before := a.state
	before.Nodes = slices.Clone(before.Nodes)
	f(&a.state)
	same := before.Serving == a.state.Serving && before.Ready == a.state.Ready && before.Version == a.state.Version && before.CoreDNS == a.state.CoreDNS &&
		before.Metrics == a.state.Metrics && before.Issuer == a.state.Issuer && slices.Equal(before.SigningKeys, a.state.SigningKeys) &&
		before.WorkloadIdentity == a.state.WorkloadIdentity && before.Error == a.state.Error && reflect.DeepEqual(before.Authorities, a.state.Authorities) && before.Scaling == a.state.Scaling && before.Reboots == a.state.Reboots && slices.Equal(before.Nodes, a.state.Nodes)
	a.mu.Unlock()
	if !same {
		a.Notify()
	}
}

func (a *Agent) setNode(n controlplane.NodeStatus) {
	a.update(func(s *State) {
		i, found := slices.BinarySearchFunc(s.Nodes, n.Name, byName)
		if found {
			n.Left = s.Nodes[i].Left // setLeft's alone
			s.Nodes[i] = n
		} else {
			s.Nodes = slices.Insert(s.Nodes, i, n)
		}
	})
}

func (a *Agent) dropNode(name string) {
	a.update(func(s *State) {
		s.Nodes = slices.DeleteFunc(s.Nodes, func(n controlplane.NodeStatus) bool { return n.Name == name })
	})
}

func byName(n controlplane.NodeStatus, name string) int { return strings.Compare(n.Name, name) }

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
