// SPDX-License-Identifier: Apache-2.0

package addons

import (
	"net/netip"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"bastide.dev/controlplane"
	"bastide.dev/pki"
)

func TestRender(t *testing.T) {
	spec := &controlplane.Spec{ClusterDomain: "cluster.local", DNSServiceIP: netip.MustParseAddr("10.0.0.10"),
		Keys: controlplane.Keys{CA: controlplane.KeyPair{Certificate: []byte("CA")}, BootstrapTokenID: "abcdef", BootstrapTokenCode: "0123456789abcdef"}}
	values := Values{Spec: spec, MetricsLeaf: pki.Pair{Certificate: []byte("crt"), Key: []byte("key")}}
	count := func() (deployments int) {
		objects, err := Render(values)
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		for _, o := range objects {
			key := o.GetKind() + "/" + o.GetNamespace() + "/" + o.GetName()
			if seen[key] || o.GetName() == "" {
				t.Errorf("%s is twice or nameless", key)
			}
			seen[key] = true
			if _, err := Resource(o); err != nil {
				t.Error(err)
			}
			if o.GetKind() == "Deployment" {
				deployments++
			}
			if ip, _, _ := unstructured.NestedString(o.Object, "spec", "clusterIP"); o.GetName() == "kube-dns" && ip != "10.0.0.10" {
				t.Errorf("kube-dns at %q", ip)
			}
		}
		return deployments
	}
	if n := count(); n != 0 {
		t.Errorf("%d deployments without images", n)
	}
	spec.Policies = true
	count()
	spec.Policies = false
	spec.Addons = controlplane.Addons{CoreDNS: "a/coredns:1", MetricsServer: "a/metrics:1"}
	if n := count(); n != 2 {
		t.Errorf("%d deployments, want 2", n)
	}
	if bound(t, values) {
		t.Error("rights for a cloud-controller-manager that doesn't run")
	}
	spec.Cloud = &controlplane.Cloud{}
	if count(); !bound(t, values) {
		t.Error("the cloud-controller-manager has no rights")
	}
}

// bound tells whether the cloud-controller-manager's user has a role.
func bound(t *testing.T, v Values) bool {
	t.Helper()
	objects, err := Render(v)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		subjects, _, _ := unstructured.NestedSlice(o.Object, "subjects")
		for _, s := range subjects {
			if s.(map[string]any)["name"] == controlplane.CloudControllerUser {
				return true
			}
		}
	}
	return false
}

func TestPolicyEndsWithWhatComesLast(t *testing.T) {
	for _, version := range []string{"1.35.4", "1.36.3"} {
		objects, err := Policy(version)
		if err != nil || len(objects) < 100 {
			t.Fatalf("%s: %d objects, %v", version, len(objects), err)
		}
		for _, o := range objects {
			if _, err := Resource(o); err != nil {
				t.Error(err)
			}
		}
		// Package agent takes the last one's presence for that of all.
		if last := objects[len(objects)-1]; last.GetKind() != "RoleBinding" {
			t.Errorf("%s ends with %s", version, last.GetKind())
		}
	}
	if objects, err := Policy("9.99.0"); err != nil || len(objects) > 0 {
		t.Errorf("an unknown release has %d objects, %v", len(objects), err)
	}
}
