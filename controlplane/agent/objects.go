// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"bastide.dev/controlplane"
	"bastide.dev/controlplane/addons"
	"bastide.dev/pki"
)

const (
	again       = 5 * time.Minute // objects that aren't watched are looked at that often
	renderAgain = 24 * time.Hour
	metricsLife = 365 * 24 * time.Hour
	system      = "kube-system"
)

func objectKey(o *unstructured.Unstructured) string {
	return o.GetKind() + "/" + o.GetNamespace() + "/" + o.GetName()
}

// render makes the objects anew from the spec and asks for each to be applied.
func (s *session) render(ctx context.Context) (time.Duration, error) {
	spec := s.current()
	leaf, err := s.metricsLeaf(ctx)
	if err != nil {
		return 0, err
	}
	objects, err := addons.Render(addons.Values{Spec: spec, MetricsLeaf: leaf, Admission: s.wantReviews()})
	if err != nil {
		return 0, err
	}
	if err := s.endReviews(ctx); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.objects)
	for _, o := range objects {
		key := objectKey(o)
		s.objects[key] = o
		s.queue.Add(keyObject + key)
	}
	return renderAgain, nil
}

// metricsLeaf is metrics-server's certificate: the one in the cluster as long as
// it is current, else a new one.
func (s *session) metricsLeaf(ctx context.Context) (pki.Pair, error) {
	spec := s.current()
	if spec.Addons.MetricsServer == "" {
		return pki.Pair{}, nil
	}
	ca, err := pki.OpenCA(pki.Pair(spec.Keys.CA))
	if err != nil {
		return pki.Pair{}, err
	}
	secrets := s.client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "secrets"}).Namespace(system)
	have, err := secrets.Get(ctx, "metrics-server-tls", metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return pki.Pair{}, fmt.Errorf("read metrics-server's certificate: %w", err)
	}
	request := addons.MetricsRequest()
	request.Lifetime = metricsLife
	if err == nil {
		pair := pki.Pair{Certificate: decode(have, "tls.crt"), Key: decode(have, "tls.key")}
		if ca.Current(pair, request, time.Now()) {
			return pair, nil
		}
	}
	return ca.Issue(request)
}

func decode(secret *unstructured.Unstructured, field string) []byte {
	text, _, _ := unstructured.NestedString(secret.Object, "data", field)
	data, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil
	}
	return data
}

// applyObject writes one object by server-side apply: what isn't in ours stays
// the user's.
func (s *session) applyObject(ctx context.Context, key string) (time.Duration, error) {
	s.mu.Lock()
	o, written := s.objects[key], s.applied[key] != ""
	s.mu.Unlock()
	if o == nil || o.GetKind() == "Deployment" && !written && !s.anyNodeReady() {
		return 0, nil // pods without a node would only make the scheduler back off; nodeSeen asks again
	}
	resource, err := addons.Resource(o)
	if err != nil {
		return 0, err
	}
	now, err := s.client.Resource(resource).Namespace(o.GetNamespace()).Apply(ctx, o.GetName(), o.DeepCopy(),
		metav1.ApplyOptions{FieldManager: "bastide", Force: true})
	if apierrors.IsInvalid(err) && replaceable(o.GetKind()) {
		// A field that can't be changed was changed by deleting and making anew.
		err = fmt.Errorf("replace %s: %w", key, s.client.Resource(resource).Namespace(o.GetNamespace()).Delete(ctx, o.GetName(), metav1.DeleteOptions{}))
		return 0, err
	}
	if err != nil {
		if apierrors.IsNotFound(err) { // kube-system isn't there yet, in the first moments
			return 20 * time.Millisecond, nil
		}
		return 0, fmt.Errorf("apply %s: %w", key, err)
	}
	s.mu.Lock()
	s.applied[key] = versionOf(now)
	s.mu.Unlock()
	s.reviewed(o)
	return again, nil
}

func (s *session) anyNodeReady() bool {
	return slices.ContainsFunc(s.State().Nodes, func(n controlplane.NodeStatus) bool { return n.Ready })
}

// deploy asks for the Deployments that have waited for a node.
func (s *session) deploy() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, o := range s.objects {
		if o.GetKind() == "Deployment" && s.applied[key] == "" {
			s.queue.Add(keyObject + key)
		}
	}
}

// replaceable kinds can be deleted and made anew without harm.
func replaceable(kind string) bool {
	return strings.HasSuffix(kind, "Binding")
}

// versionOf tells one content from another: the generation where there is one,
// since a status changes the resource version too.
func versionOf(o *unstructured.Unstructured) string {
	if g := o.GetGeneration(); g > 0 {
		return string(o.GetUID()) + "@" + strconv.FormatInt(g, 10)
	}
	return o.GetResourceVersion()
}

// objectSeen repairs what another hand changed.
func (s *session) objectSeen(o *unstructured.Unstructured) {
	key := objectKey(o)
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ours := s.objects[key]; ours && s.applied[key] != "" && s.applied[key] != versionOf(o) {
		s.queue.Add(keyObject + key)
	}
}

// objectGone puts back what was deleted.
func (s *session) objectGone(o *unstructured.Unstructured) { s.queue.Add(keyObject + objectKey(o)) }

// objectsListed puts back what was deleted while nobody watched.
func (s *session) objectsListed(kind string) func(map[string]bool) {
	return func(names map[string]bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for key, o := range s.objects {
			if o.GetKind() == kind && !names[o.GetName()] {
				s.queue.Add(keyObject + key)
			}
		}
	}
}

func (s *session) deploymentSeen(o *unstructured.Unstructured) {
	s.objectSeen(o)
	s.setAvailable(o.GetName(), condition(o, "Available").status == "True" && observed(o))
}

func (s *session) deploymentGone(o *unstructured.Unstructured) {
	s.setAvailable(o.GetName(), false)
	s.objectGone(o)
}

func (s *session) setAvailable(name string, is bool) {
	s.update(func(st *State) {
		switch name {
		case "coredns":
			st.CoreDNS = is
		case "metrics-server":
			st.Metrics = is
		}
	})
}

// observed tells whether the status speaks of the spec that is there now.
func observed(o *unstructured.Unstructured) bool {
	seen, _, _ := unstructured.NestedInt64(o.Object, "status", "observedGeneration")
	return seen >= o.GetGeneration()
}

type conditionOf struct {
	status, reason, message string
	since                   time.Time
}

func condition(o *unstructured.Unstructured, kind string) conditionOf {
	all, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
	for _, c := range all {
		if m, ok := c.(map[string]any); ok && m["type"] == kind {
			text := func(field string) string { v, _ := m[field].(string); return v }
			since, err := time.Parse(time.RFC3339, text("lastTransitionTime"))
			if err != nil {
				since = time.Time{} // whoever wrote it may have written anything
			}
			return conditionOf{text("status"), text("reason"), text("message"), since.UTC()}
		}
	}
	return conditionOf{}
}
