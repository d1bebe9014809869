// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"bastide.dev/admission"
	"bastide.dev/controlplane/addons"
	"bastide.dev/pki"
)

// Pods are reviewed on the loopback of the control plane's namespace, where
// nobody but the control plane is.
const (
	admissionAddress = "127.0.0.1:9443"
	webhookKind      = "MutatingWebhookConfiguration"
	lookupTime       = 3 * time.Second
)

// signing reads what the API server itself says of its tokens.
func (s *session) signing(ctx context.Context) (issuer string, keys []string, err error) {
	var discovery struct {
		Issuer string `json:"issuer"`
	}
	if err := s.get(ctx, "/.well-known/openid-configuration", &discovery); err != nil {
		return "", nil, err
	}
	var published struct {
		Keys []struct {
			ID string `json:"kid"`
		} `json:"keys"`
	}
	if err := s.get(ctx, "/openid/v1/jwks", &published); err != nil {
		return "", nil, err
	}
	for _, key := range published.Keys {
		keys = append(keys, key.ID)
	}
	slices.Sort(keys)
	return discovery.Issuer, keys, nil
}

// wantReviews asks for pods to be reviewed, if the spec has it so, and returns
// what the API server needs to know of that; nil as long as nobody listens.
func (s *session) wantReviews() *addons.Admission {
	if s.current().WorkloadIdentity == nil {
		return nil
	}
	select {
	case s.reviews <- struct{}{}:
	default:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.reviewing {
		return nil
	}
	return &addons.Admission{URL: "https://" + admissionAddress + admission.Path, CA: s.current().Keys.Trust().CA}
}

// reviewer serves reviews of pods. It goes on between sessions: the next API
// server asks before its session is there.
type reviewer struct {
	leaf   pki.Pair
	cancel context.CancelFunc
	ended  chan struct{} // closed when it serves no more
	err    error         // why; set before ended is closed
}

// end is called by Run, and by the session that has another.
func (r *reviewer) end() {
	if r != nil {
		r.cancel()
		<-r.ended
	}
}

// review serves reviews of pods from when they are wanted first. Only then the
// API server is told of it.
func (s *session) review(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-s.reviews:
	}
	ca, err := pki.OpenCA(pki.Pair(s.current().Keys.CA))
	if err != nil {
		return fmt.Errorf("serve reviews of pods: %w", err)
	}
	r := s.reviewer
	if r == nil || r.over() || !ca.Current(r.leaf, reviewRequest(), time.Now()) {
		r.end()
		if r, err = s.newReviewer(ctx, ca); err != nil {
			return fmt.Errorf("serve reviews of pods: %w", err)
		}
		s.reviewer = r
	}
	s.mu.Lock()
	s.reviewing = true
	s.mu.Unlock()
	s.queue.Add(keyRender)
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-r.ended:
		return fmt.Errorf("serve reviews of pods: %w", r.err)
	}
}

func reviewRequest() pki.Request {
	return pki.Request{CommonName: "admission", IPs: []netip.Addr{netip.MustParseAddrPort(admissionAddress).Addr()}, Server: true, Lifetime: connectionLife}
}

// newReviewer listens when it returns. It outlives ctx.
func (s *session) newReviewer(ctx context.Context, ca *pki.CA) (*reviewer, error) {
	leaf, err := ca.Issue(reviewRequest())
	if err != nil {
		return nil, err
	}
	certificate, err := leaf.TLS()
	if err != nil {
		return nil, err
	}
	listener, err := s.Listen("tcp", admissionAddress)
	if err != nil {
		return nil, err
	}
	serving, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r := &reviewer{leaf: leaf, cancel: cancel, ended: make(chan struct{})}
	go func() { // who ends it waits for it
		defer close(r.ended)
		r.err = admission.Serve(serving, listener, certificate, &admission.Handler{Config: admission.Config{
			Settings: s.settings, ServiceAccount: s.serviceAccount, Logger: s.Logger}})
	}()
	return r, nil
}

func (r *reviewer) over() bool {
	select {
	case <-r.ended:
		return true
	default:
		return false
	}
}

func (s *session) settings() (admission.Settings, bool) {
	w := s.current().WorkloadIdentity
	if w == nil {
		return admission.Settings{}, false
	}
	return admission.Settings{Tenant: w.Tenant, Authority: w.Authority, CA: w.CA}, true
}

// serviceAccount asks the API server: it is on the same machine, a watch would
// take memory in every cluster, and a pod may come right after its account.
func (s *session) serviceAccount(ctx context.Context, namespace, name string) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	o, err := s.client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "serviceaccounts"}).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	return o.GetAnnotations(), nil
}

// reviewed notes that the API server was told to ask for reviews.
func (s *session) reviewed(o *unstructured.Unstructured) {
	if o.GetKind() == webhookKind {
		s.update(func(st *State) { st.WorkloadIdentity = true })
	}
}

// endReviews takes the API server's order back when pods aren't reviewed any
// more; a session looks once whether an earlier one left it.
func (s *session) endReviews(ctx context.Context) error {
	if s.current().WorkloadIdentity != nil {
		s.setUnordered(false)
		return nil
	}
	s.mu.Lock()
	done := s.unordered
	s.mu.Unlock()
	if done {
		return nil
	}
	resource := schema.GroupVersionResource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "mutatingwebhookconfigurations"}
	if err := s.client.Resource(resource).Delete(ctx, addons.WebhookName, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("end reviews of pods: %w", err)
	}
	s.setUnordered(true)
	s.update(func(st *State) { st.WorkloadIdentity = false })
	return nil
}

func (s *session) setUnordered(is bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unordered = is
}
