// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"bastide.dev/bundle"
	"bastide.dev/controlplane"
	"bastide.dev/controlplane/addons"
)

var update = flag.Bool("update", false, "write the default policies that the releases make themselves")

// TestPolicyIsTheReleasesOwn compares what we create ahead of a release with
// what it creates itself, when we don't.
func TestPolicyIsTheReleasesOwn(t *testing.T) {
	for i, version := range bundle.KubernetesVersions() {
		t.Run(version, func(t *testing.T) {
			r := newRig(t)
			r.policy = func(string) ([]*unstructured.Unstructured, error) { return nil, nil }
			spec := r.spec("policy" + string(rune('a'+i)))
			spec.Version = version
			spec.Addons = controlplane.Addons{} // they would add to the aggregated roles
			r.apply(spec)
			r.until(spec.ID, "ready", ready)
			got := policyOf(t, r.admin(spec))
			path := filepath.Join("..", "addons", addons.PolicyFile(version))
			if *update {
				if err := os.WriteFile(path, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s isn't what the release makes; run with -update", path)
			}
		})
	}
}

// policyOf reads the default objects, without what a server adds to them.
func policyOf(t *testing.T, admin *user) []byte {
	t.Helper()
	out := []byte("# What the release itself creates: written by TestPolicyIsTheReleasesOwn -update.\n")
	const defaults = "?labelSelector=kubernetes.io/bootstrapping%3Drbac-defaults"
	for _, list := range []string{
		"/apis/scheduling.k8s.io/v1/priorityclasses",
		"/apis/rbac.authorization.k8s.io/v1/clusterroles" + defaults, "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings" + defaults,
		"/apis/rbac.authorization.k8s.io/v1/roles" + defaults, "/apis/rbac.authorization.k8s.io/v1/rolebindings" + defaults,
	} {
		var all unstructured.UnstructuredList
		if err := json.Unmarshal(admin.must("GET", list, nil), &all); err != nil {
			t.Fatal(err)
		}
		if len(all.Items) == 0 {
			t.Fatalf("no %s", list)
		}
		for _, o := range all.Items {
			metadata := object{"name": o.GetName()}
			if o.GetNamespace() != "" {
				metadata["namespace"] = o.GetNamespace()
			}
			for field, values := range map[string]map[string]string{"labels": o.GetLabels(), "annotations": o.GetAnnotations()} {
				if len(values) > 0 {
					metadata[field] = values
				}
			}
			o.Object["metadata"] = metadata
			if o.Object["aggregationRule"] != nil {
				delete(o.Object, "rules") // filled in later, by a controller
			}
			data, err := yaml.Marshal(o.Object)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, "---\n"...)
			out = append(out, data...)
		}
	}
	return out
}
