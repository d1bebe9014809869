// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"bastide.dev/controlplane"
	"bastide.dev/pki"
	"bastide.dev/reconcile"
)

const (
	host      = "https://127.0.0.1:443"
	userName  = "bastide:agent"
	agentLife = 30 * 24 * time.Hour
	readyPoll = 10 * time.Millisecond
	slowStart = 30 * time.Second // from when on State says what isn't ready
)

// session is the agent's work with one life of an API server.
type session struct {
	*Agent
	transport *http.Transport
	http      *http.Client
	client    dynamic.Interface
	queue     *reconcile.Queue

	mu      sync.Mutex                            // guards what follows
	objects map[string]*unstructured.Unstructured // what should be, by key
	applied map[string]string                     // version that our last write of it left, by key
	nodes   map[string]*unstructured.Unstructured
	csrs    map[string]*unstructured.Unstructured // not yet decided
}

func newSession(a *Agent) (*session, error) {
	s := &session{Agent: a, queue: reconcile.NewQueue(reconcile.Backoff{Min: 20 * time.Millisecond, Max: 30 * time.Second}),
		objects: map[string]*unstructured.Unstructured{}, applied: map[string]string{},
		nodes: map[string]*unstructured.Unstructured{}, csrs: map[string]*unstructured.Unstructured{}}
	config, err := clientTLS(a.current())
	if err != nil {
		return nil, err
	}
	// A transport of our own: client-go's are kept for ever, by configuration.
	s.transport = &http.Transport{DialContext: a.Dial, TLSClientConfig: config, ForceAttemptHTTP2: true, TLSHandshakeTimeout: 5 * time.Second}
	s.http = &http.Client{Transport: s.transport}
	s.client, err = dynamic.NewForConfigAndClient(&rest.Config{Host: host, QPS: -1, UserAgent: userName}, s.http)
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	return s, nil
}

// clientTLS authenticates with a certificate that is issued here, kept in
// memory, and issued again before it ends.
func clientTLS(spec *controlplane.Spec) (*tls.Config, error) {
	ca, err := pki.OpenCA(pki.Pair(spec.Keys.CA))
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex // guards pair
	var pair pki.Pair
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: ca.Pool(),
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			mu.Lock()
			defer mu.Unlock()
			if pki.Due(pair.Certificate, time.Now()) {
				pair, err = ca.Issue(pki.Request{CommonName: userName, Organizations: []string{controlplane.MastersGroup}, Client: true, Lifetime: agentLife})
				if err != nil {
					return nil, err
				}
			}
			c, err := pair.TLS()
			return &c, err
		}}, nil
}

func (s *session) close() { s.transport.CloseIdleConnections() }

// awaitReady asks until the server says that it is ready. The server can't be
// watched for this; a question costs it next to nothing.
func (s *session) awaitReady(ctx context.Context) error {
	for begin := time.Now(); ; {
		err := s.get(ctx, "/readyz", nil)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Since(begin) > slowStart {
			s.update(func(st *State) { st.Error = "API server isn't ready: " + err.Error() })
		}
		pause(ctx, readyPoll)
	}
	var version struct {
		GitVersion string `json:"gitVersion"`
	}
	if err := s.get(ctx, "/version", &version); err != nil {
		return err
	}
	s.update(func(st *State) {
		st.Ready, st.Error, st.Version = true, "", strings.TrimPrefix(version.GitVersion, "v")
	})
	s.Agent.Ready()
	return nil
}

func (s *session) get(ctx context.Context, path string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, host+path, nil)
	if err != nil {
		return err
	}
	response, err := s.http.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %s", path, response.Status, failing(string(body)))
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
	var g reconcile.Group
	g.Add("objects", reconcile.Loop{Name: "agent", Queue: s.queue, Reconciler: s, Workers: 8, Logger: s.Logger}.Run)
	for _, w := range s.watches() {
		g.Add("watch "+w.resource.Resource, func(ctx context.Context) error { return s.watch(ctx, w) })
	}
	err := g.Run(ctx)
	if ctx.Err() != nil && !errors.Is(err, context.DeadlineExceeded) {
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
	case keyCSR:
		return 0, s.decideCSR(ctx, name)
	}
	return s.render(ctx)
}

// specChanged looks at everything again.
func (s *session) specChanged() {
	s.queue.Add(keyRender)
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.nodes {
		s.queue.Add(keyNode + name)
	}
	for name := range s.csrs {
		s.queue.Add(keyCSR + name)
	}
}
