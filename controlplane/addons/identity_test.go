// SPDX-License-Identifier: Apache-2.0

package addons

import (
	"encoding/base64"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"bastide.dev/controlplane"
)

// TestReviewsOfPods: the API server asks about pods that want an identity, and
// admits none of those when nobody answers; it isn't told before somebody listens.
func TestReviewsOfPods(t *testing.T) {
	spec := &controlplane.Spec{WorkloadIdentity: &controlplane.WorkloadIdentity{}}
	find := func(v Values) *unstructured.Unstructured {
		t.Helper()
		objects, err := Render(v)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range objects {
			if o.GetName() == WebhookName {
				return o
			}
		}
		return nil
	}
	if find(Values{Spec: spec}) != nil {
		t.Error("the API server is to ask somebody who doesn't listen")
	}
	o := find(Values{Spec: spec, Admission: &Admission{URL: "https://127.0.0.1:9443/pods", CA: []byte("CA")}})
	if o == nil {
		t.Fatal("the API server doesn't ask")
	}
	if resource, err := Resource(o); err != nil || resource.Resource != "mutatingwebhookconfigurations" {
		t.Errorf("%v: %v", resource, err)
	}
	hooks, _, _ := unstructured.NestedSlice(o.Object, "webhooks")
	hook := hooks[0].(map[string]any)
	label, _, _ := unstructured.NestedString(hook, "objectSelector", "matchLabels", "azure.workload.identity/use")
	url, _, _ := unstructured.NestedString(hook, "clientConfig", "url")
	ca, _, _ := unstructured.NestedString(hook, "clientConfig", "caBundle")
	if label != "true" || hook["failurePolicy"] != "Fail" || url != "https://127.0.0.1:9443/pods" || ca != base64.StdEncoding.EncodeToString([]byte("CA")) {
		t.Errorf("%v", hook)
	}
}
