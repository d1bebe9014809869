// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"bastide.dev/reconcile"
)

const (
	readyPoll = 10 * time.Millisecond
	slowStart = 30 * time.Second // from when on State says what isn't ready
)

// session is the agent's work with one life of an API server.
type session struct {
	*Agent
	api    rest.Interface
	client dynamic.Interface
	queue  *reconcile.Queue
	hangUp func()
	life   int // of the API server that it is about
	leaves *leaves
	respec chan struct{} // holds one token when the spec changed, for scale

	respecified chan struct{} // the same, for inspect

	mu      sync.Mutex                            // guards what follows
	objects map[string]*unstructured.Unstructured // what should be, by key
	applied map[string]string                     // version that our last write of it left, by key
	nodes   map[string]*unstructured.Unstructured
	csrs    map[string]*unstructured.Unstructured // not yet decided
	notes   map[string]time.Time                  // the newest that was told, by node

	reviews   chan struct{} // holds one token when pods are to be reviewed
	reviewing bool          // somebody listens
	unordered bool          // the API server asks for no reviews
}

func newSession(a *Agent) (*session, error) {
	c, err := a.connection()
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	life := a.life
	a.mu.Unlock()
	return &session{Agent: a, life: life, hangUp: c.hangUp, api: c.api, client: c.objects, leaves: newLeaves(c), queue: reconcile.NewQueue(reconcile.Backoff{Min: 20 * time.Millisecond, Max: 30 * time.Second}),
		objects: map[string]*unstructured.Unstructured{}, applied: map[string]string{},
		nodes: map[string]*unstructured.Unstructured{}, csrs: map[string]*unstructured.Unstructured{}, reviews: make(chan struct{}, 1), respec: make(chan struct{}, 1), notes: map[string]time.Time{}, respecified: make(chan struct{}, 1)}, nil
}

// awaitServing returns when the default rights are in place.
func (s *session) awaitServing(ctx context.Context) error {
	path := "/readyz/etcd"
	if len(s.Policy) == 0 {
		path = "/readyz"
	}
	if err := s.poll(ctx, path); err != nil {
		return err
	}
	if err := s.seed(ctx); err != nil {
		return err
	}
	s.found(func(st *State) { st.Serving = true })
	s.Progress()
	return nil
}

// found is update, unless it comes too late: it speaks of an API server that
// isn't the one any more.
func (s *session) found(f func(*State)) {
	s.update(func(st *State) {
		if s.Agent.life == s.life { // update holds mu
			f(st)
		}
	})
}

// awaitReady tells when the server says that it is ready.
func (s *session) awaitReady(ctx context.Context) error {
	if err := s.poll(ctx, "/readyz"); err != nil {
		return err
	}
	var version struct {
		GitVersion string `json:"gitVersion"`
	}
	if err := s.get(ctx, "/version", &version); err != nil {
		return err
	}
	issuer, keys, err := s.signing(ctx)
	if err != nil {
		return err
	}
	s.found(func(st *State) {
		st.Ready, st.Error, st.Version = true, "", strings.TrimPrefix(version.GitVersion, "v")
		st.Issuer, st.SigningKeys = issuer, keys
	})
	s.Progress()
	<-ctx.Done() // a member of the group that ends would end the others
	return nil
}

// poll asks until the answer is yes. The server can't be watched for this; a
// question costs it next to nothing.
func (s *session) poll(ctx context.Context, path string) error {
	for begin := time.Now(); ; {
		err := s.get(ctx, path, nil)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Since(begin) > slowStart {
			s.update(func(st *State) { st.Error = "API server isn't ready: " + err.Error() })
		}
		pause(ctx, readyPoll)
	}
}

func (s *session) get(ctx context.Context, path string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	body, err := s.api.Get().AbsPath(path).Do(ctx).Raw()
	if err != nil {
		if which := failing(string(body)); which != "" {
			return fmt.Errorf("%s: %s", path, which)
		}
		return fmt.Errorf("%s: %w", path, err)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(body, into)
}

// failing keeps the lines of a health report that say what isn't well.
func failing(report string) string {
	var lines []string
	for line := range strings.Lines(report) {
		if strings.HasPrefix(line, "[-]") {
			lines = append(lines, strings.TrimSpace(strings.TrimPrefix(line, "[-]")))
		}
	}
	return strings.Join(lines, ", ")
}

// run keeps the cluster until ctx ends.
func (s *session) run(ctx context.Context) error {
	s.queue.Add(keyRender)
	s.queue.Add(keyReboots)
	s.noted()
	var g reconcile.Group
	g.Add("objects", reconcile.Loop{Name: "agent", Queue: s.queue, Reconciler: s, Workers: 8, Logger: s.Logger}.Run)
	g.Add("leaving nodes", reconcile.Loop{Name: "leaves", Queue: s.leaves.queue, Reconciler: reconcile.Func(s.keepLeave), Workers: leavesAtOnce, Logger: s.Logger}.Run)
	g.Add("readiness", s.awaitReady)
	g.Add("reviews of pods", s.review)
	g.Add("scaling", s.scale)
	g.Add("authorities", s.inspect)
	for _, w := range s.watches() {
		g.Add("watch "+w.resource.Resource, func(ctx context.Context) error { return s.watch(ctx, w) })
	}
	err := g.Run(ctx)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// Keys of the queue: what is to be rendered anew, and single things.
const (
	keyRender = "render"
	keyObject = "object/"
	keyNode   = "node/"
	keyCSR    = "csr/"
	keyNote   = "note/"
	// keyReboots is what the reboot coordinator asks for.
	keyReboots = "reboots/"
)

// Reconcile makes one thing as it should be.
func (s *session) Reconcile(ctx context.Context, key string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	kind, name, _ := strings.Cut(key, "/")
	switch kind + "/" {
	case keyObject:
		return s.applyObject(ctx, name)
	case keyNode:
		return 0, s.keepNode(ctx, name)
	case keyNote:
		return 0, s.tellNote(ctx, name)
	case keyCSR:
		return 0, s.decideCSR(ctx, name)
	case keyReboots:
		return s.keepReboots(ctx)
	}
	return s.render(ctx)
}

// specChanged looks at everything again.
func (s *session) specChanged() {
	s.noted()
	select {
	case s.respec <- struct{}{}:
	default:
	}
	select {
	case s.respecified <- struct{}{}:
	default:
	}
	s.queue.Add(keyRender)
	s.queue.Add(keyReboots)
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.nodes {
		s.queue.Add(keyNode + name)
		s.leaves.queue.Add(name)
	}
	for name := range s.csrs {
		s.queue.Add(keyCSR + name)
	}
}
