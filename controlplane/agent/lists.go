// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"bastide.dev/fault"
)

// lists says where the objects are that decide about packets.
func lists() map[string]string {
	return map[string]string{
		"pods": "/api/v1/pods", "namespaces": "/api/v1/namespaces", "services": "/api/v1/services", "nodes": "/api/v1/nodes",
		"endpointSlices":  "/apis/discovery.k8s.io/v1/endpointslices",
		"networkPolicies": "/apis/networking.k8s.io/v1/networkpolicies",
		clusterPolicies:   "/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies",
	}
}

// clusterPolicies is there only with its CRD.
const clusterPolicies = "clusterPolicies"

// Objects lists the cluster's objects that decide about packets, as lists in
// the API's JSON: pods, namespaces, services, endpointSlices, nodes,
// networkPolicies, and clusterPolicies when that API is there. What says
// nothing of packets is left out, pods' environments above all: the answer may
// be written down. It fails with fault.Unavailable while the server isn't ready.
func (a *Agent) Objects(ctx context.Context) (map[string]json.RawMessage, error) {
	a.mu.Lock()
	s := a.session
	a.mu.Unlock()
	if s == nil {
		return nil, fault.New(fault.Unavailable, "", "The cluster's API server isn't ready.")
	}
	found := map[string]json.RawMessage{}
	for name, path := range lists() {
		raw, err := s.api.Get().AbsPath(path).Do(ctx).Raw()
		if apierrors.IsNotFound(err) && name == clusterPolicies {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", name, err)
		}
		if found[name], err = slimList(raw); err != nil {
			return nil, fmt.Errorf("list %s: %w", name, err)
		}
	}
	return found, nil
}

func slimList(raw []byte) (json.RawMessage, error) {
	var list struct {
		Kind       string           `json:"kind"`
		APIVersion string           `json:"apiVersion"`
		Metadata   json.RawMessage  `json:"metadata"`
		Items      []map[string]any `json:"items"`
	}
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, err
	}
	for _, item := range list.Items {
		unstructured.RemoveNestedField(item, "metadata", "managedFields")
		unstructured.RemoveNestedField(item, "metadata", "annotations", "kubectl.kubernetes.io/last-applied-configuration")
		switch list.Kind {
		case "PodList":
			slimPod(item)
		case "NodeList":
			unstructured.RemoveNestedField(item, "status", "images")
		}
	}
	return json.Marshal(list)
}

// slimPod keeps of a pod's containers their names and ports.
func slimPod(pod map[string]any) {
	spec, _, _ := unstructured.NestedMap(pod, "spec")
	kept := map[string]any{}
	for _, field := range []string{"nodeName", "hostNetwork", "serviceAccountName"} {
		if v, ok := spec[field]; ok {
			kept[field] = v
		}
	}
	for _, field := range []string{"containers", "initContainers"} {
		containers, _ := spec[field].([]any)
		var some []any
		for _, c := range containers {
			if m, ok := c.(map[string]any); ok {
				one := map[string]any{"name": m["name"]}
				for _, part := range []string{"ports", "restartPolicy"} {
					if v, ok := m[part]; ok {
						one[part] = v
					}
				}
				some = append(some, one)
			}
		}
		if some != nil {
			kept[field] = some
		}
	}
	pod["spec"] = kept
	for _, field := range []string{"containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"} {
		unstructured.RemoveNestedField(pod, "status", field)
	}
}
