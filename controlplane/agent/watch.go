// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
)

// watched is what to watch and what to do with it.
type watched struct {
	resource  schema.GroupVersionResource
	namespace string
	selector  string // of labels
	page      int64  // how many are listed at a time; 0: all
	// seen is called for each object there is and each change; gone when it is deleted.
	seen, gone func(o *unstructured.Unstructured)
	// listed is called with the names of all after a listing, to drop what went
	// unseen; names have their namespace in front where all are watched.
	listed func(names map[string]bool)
}

// watches is little on purpose: a machine has many agents. What isn't watched is
// looked at now and then.
func (s *session) watches() []watched {
	ours := "addonmanager.kubernetes.io/mode=Reconcile"
	core := func(resource string) schema.GroupVersionResource {
		return schema.GroupVersionResource{Version: "v1", Resource: resource}
	}
	ignore := func(map[string]bool) {}
	return []watched{
		{resource: core("nodes"), seen: s.nodeSeen, gone: s.nodeGone, listed: s.nodesListed},
		{resource: schema.GroupVersionResource{Group: "certificates.k8s.io", Version: "v1", Resource: "certificatesigningrequests"},
			seen: s.csrSeen, gone: s.csrGone, listed: ignore},
		{resource: schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}, namespace: "kube-system", selector: ours,
			seen: s.deploymentSeen, gone: s.deploymentGone, listed: s.objectsListed("Deployment")},
		{resource: core("services"), namespace: "kube-system", selector: ours, seen: s.objectSeen, gone: s.objectGone, listed: s.objectsListed("Service")},
		{resource: core("configmaps"), namespace: "kube-system", selector: ours, seen: s.objectSeen, gone: s.objectGone, listed: s.objectsListed("ConfigMap")},
		{resource: schema.GroupVersionResource{Group: "discovery.k8s.io", Version: "v1", Resource: "endpointslices"}, namespace: "default",
			selector: "kubernetes.io/service-name=kubernetes", seen: s.objectSeen, gone: s.objectGone, listed: s.objectsListed("EndpointSlice")},
		{resource: core("serviceaccounts"), namespace: "kube-system", selector: ours, seen: s.objectSeen, gone: s.objectGone, listed: s.objectsListed("ServiceAccount")},
	}
}

// watch lists and follows until ctx ends, beginning anew when it is interrupted.
func (s *session) watch(ctx context.Context, w watched) error {
	client := s.client.Resource(w.resource)
	var scoped dynamic.ResourceInterface = client
	if w.namespace != "" {
		scoped = client.Namespace(w.namespace)
	}
	version, wait := "", time.Duration(0)
	for ctx.Err() == nil {
		var err error
		if version == "" {
			version, err = list(ctx, scoped, w)
		} else {
			version, err = follow(ctx, scoped, w, version)
		}
		if err == nil {
			wait = 0
			continue
		}
		// The API server may be on its way down; Lost then ends the session.
		wait = min(max(2*wait, 20*time.Millisecond), 2*time.Second)
		if ctx.Err() == nil {
			s.Logger.Debug("watch interrupted", "resource", w.resource.Resource, "error", err)
		}
		pause(ctx, wait)
	}
	return ctx.Err()
}

func list(ctx context.Context, client dynamic.ResourceInterface, w watched) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	names := map[string]bool{}
	for options := (metav1.ListOptions{LabelSelector: w.selector, Limit: w.page}); ; {
		some, err := client.List(ctx, options)
		if err != nil {
			return "", err
		}
		for i := range some.Items {
			name := some.Items[i].GetName()
			if w.namespace == "" {
				name = nameOf(&some.Items[i])
			}
			names[name] = true
			w.seen(&some.Items[i])
		}
		if options.Continue = some.GetContinue(); options.Continue == "" {
			w.listed(names)
			return some.GetResourceVersion(), nil
		}
	}
}

// follow returns the version to follow from next, or "" to list anew.
func follow(ctx context.Context, client dynamic.ResourceInterface, w watched, version string) (string, error) {
	changes, err := client.Watch(ctx, metav1.ListOptions{LabelSelector: w.selector, ResourceVersion: version, AllowWatchBookmarks: true})
	if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
		return "", nil
	}
	if err != nil {
		return version, err
	}
	defer changes.Stop()
	for {
		select {
		case <-ctx.Done():
			return version, ctx.Err()
		case event, ok := <-changes.ResultChan():
			if !ok {
				return version, nil
			}
			if event.Type == watch.Error {
				return "", fmt.Errorf("watch: %w", apierrors.FromObject(event.Object))
			}
			o, ok := event.Object.(*unstructured.Unstructured)
			if !ok {
				return "", errors.New("watch: what came is no object")
			}
			version = o.GetResourceVersion()
			switch event.Type {
			case watch.Added, watch.Modified:
				w.seen(o)
			case watch.Deleted:
				w.gone(o)
			}
		}
	}
}
