// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"bastide.dev/controlplane"
)

func nodesResource() schema.GroupVersionResource {
	return schema.GroupVersionResource{Version: "v1", Resource: "nodes"}
}

func (s *session) nodeSeen(o *unstructured.Unstructured) {
	s.mu.Lock()
	_, known := s.nodes[o.GetName()]
	s.nodes[o.GetName()] = slim(o)
	s.mu.Unlock()
	status := nodeStatus(o)
	s.setNode(status)
	if status.Ready {
		s.deploy()
	}
	cidr, _, _ := unstructured.NestedString(o.Object, "spec", "podCIDR")
	n := find(s.current(), o.GetName())
	if !known || n != nil && (n.Removed || cidr == "") {
		s.queue.Add(keyNode + o.GetName())
	}
	if !known || n != nil && (n.Leave != nil && !status.Cordoned || n.Leave == nil && marked(o.GetAnnotations()) || len(missing(o.GetLabels(), n.Labels)) > 0) {
		s.leaves.queue.Add(o.GetName())
	}
}

func (s *session) nodeGone(o *unstructured.Unstructured) {
	s.mu.Lock()
	delete(s.nodes, o.GetName())
	s.mu.Unlock()
	s.dropNode(o.GetName())
}

// nodesListed drops what went while nobody watched.
func (s *session) nodesListed(names map[string]bool) {
	for _, n := range s.State().Nodes {
		if !names[n.Name] {
			o := &unstructured.Unstructured{}
			o.SetName(n.Name)
			s.nodeGone(o)
		}
	}
}

// slim keeps of a Node what keepNode and keepLeave look at.
func slim(o *unstructured.Unstructured) *unstructured.Unstructured {
	kept := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{}}}
	kept.SetName(o.GetName())
	if marked(o.GetAnnotations()) {
		kept.SetAnnotations(map[string]string{cordonMark: "", outMark: "", rebootMark: ""})
	}
	labels := map[string]string{}
	for name, value := range o.GetLabels() {
		if strings.HasPrefix(name, azureLabels) { // those that we may have to renew
			labels[name] = value
		}
	}
	kept.SetLabels(labels)
	if cidr, ok, _ := unstructured.NestedString(o.Object, "spec", "podCIDR"); ok {
		_ = unstructured.SetNestedField(kept.Object, cidr, "spec", "podCIDR") // the path is a map: it can't fail
	}
	return kept
}

func nodeStatus(o *unstructured.Unstructured) controlplane.NodeStatus {
	ready := condition(o, "Ready")
	version, _, _ := unstructured.NestedString(o.Object, "status", "nodeInfo", "kubeletVersion")
	n := controlplane.NodeStatus{Name: o.GetName(), Ready: ready.status == "True", Version: version}
	n.Boot, _, _ = unstructured.NestedString(o.Object, "status", "nodeInfo", "bootID")
	n.Cordoned, _, _ = unstructured.NestedBool(o.Object, "spec", "unschedulable")
	if len(version) > 0 && version[0] == 'v' {
		n.Version = version[1:]
	}
	if !n.Ready {
		n.NotReadySince = ready.since
		if n.NotReadySince.IsZero() { // it never was
			n.NotReadySince = o.GetCreationTimestamp().UTC()
		}
		n.Reason = ready.message
		if n.Reason == "" {
			n.Reason = ready.reason
		}
	}
	return n
}

func find(spec *controlplane.Spec, name string) *controlplane.Node {
	for i := range spec.Nodes {
		if spec.Nodes[i].Name == name {
			return &spec.Nodes[i]
		}
	}
	return nil
}

// keepNode gives a Node its pod range, or deletes it when its machine goes.
func (s *session) keepNode(ctx context.Context, name string) error {
	s.mu.Lock()
	o := s.nodes[name]
	s.mu.Unlock()
	want := find(s.current(), name)
	if o == nil || want == nil {
		return nil
	}
	nodes := s.client.Resource(nodesResource())
	if want.Removed {
		if err := nodes.Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete node %s: %w", name, err)
		}
		return nil
	}
	if cidr, _, _ := unstructured.NestedString(o.Object, "spec", "podCIDR"); cidr != "" || len(want.Pods) == 0 {
		return nil // a range is given once and for all
	}
	patch, err := json.Marshal(map[string]any{"spec": map[string]any{"podCIDR": want.Pods[0], "podCIDRs": want.Pods}})
	if err != nil {
		return err
	}
	if _, err := nodes.Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: "bastide"}); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("give node %s its pod range: %w", name, err)
	}
	return nil
}
