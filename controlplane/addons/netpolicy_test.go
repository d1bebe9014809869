// SPDX-License-Identifier: Apache-2.0

package addons

import (
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"bastide.dev/controlplane"
)

// TestPolicies: the policy agents' role reads, and nothing else; with it comes
// the CRD in the version that they follow.
func TestPolicies(t *testing.T) {
	objects, err := Render(Values{Spec: &controlplane.Spec{Policies: true}})
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]*unstructured.Unstructured{}
	for _, o := range objects {
		found[o.GetKind()+"/"+o.GetName()] = o
	}
	crd := found["CustomResourceDefinition/clusternetworkpolicies.policy.networking.k8s.io"]
	role := found["ClusterRole/bastide:netpolicy"]
	if crd == nil || role == nil || found["ClusterRoleBinding/bastide:netpolicy"] == nil {
		t.Fatalf("only %v", found)
	}
	versions, _, _ := unstructured.NestedSlice(crd.Object, "spec", "versions")
	if len(versions) != 1 || versions[0].(map[string]any)["name"] != "v1alpha2" {
		t.Errorf("the CRD's versions are %d, or others than the agents know", len(versions))
	}
	rules, _, _ := unstructured.NestedSlice(role.Object, "rules")
	for _, r := range rules {
		verbs, _, _ := unstructured.NestedStringSlice(r.(map[string]any), "verbs")
		if !slices.Equal(verbs, []string{"get", "list", "watch"}) {
			t.Errorf("policy agents may %v", verbs)
		}
	}
	without, err := Render(Values{Spec: &controlplane.Spec{}})
	if err != nil || len(without) != len(objects)-3 {
		t.Errorf("without policies there are %d objects, with them %d: %v", len(without), len(objects), err)
	}
}
