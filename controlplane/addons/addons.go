// SPDX-License-Identifier: Apache-2.0

// Package addons holds the objects that every cluster is born with, as YAML
// templates: rights for nodes that join, for the API server and for the
// cloud-controller-manager, CoreDNS and metrics-server. Rendering is pure; package controlplane/agent applies them.
package addons

import (
	"bytes"
	"embed"
	"encoding/base64"
	"fmt"
	"io/fs"
	"slices"
	"text/template"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"bastide.dev/controlplane"
	"bastide.dev/pki"
)

//go:embed *.yaml
var manifests embed.FS

// Values fills the templates.
type Values struct {
	Spec *controlplane.Spec
	// MetricsLeaf is metrics-server's serving certificate.
	MetricsLeaf pki.Pair
	// Admission is who reviews pods; nil: nobody does.
	Admission *Admission
}

// Admission is who reviews pods before they are admitted.
type Admission struct {
	URL string
	CA  []byte // PEM, what signed for it
}

// WebhookName is the object that has the API server ask for reviews.
const WebhookName = "azure-wi-webhook-mutating-webhook-configuration"

// MetricsRequest is what metrics-server's serving certificate should say.
func MetricsRequest() pki.Request {
	return pki.Request{CommonName: "metrics-server.kube-system.svc", DNS: []string{"metrics-server.kube-system.svc"}, Server: true}
}

// Render returns the objects, those that other things wait for first. An add-on
// without an image is left out.
func Render(v Values) ([]*unstructured.Unstructured, error) {
	files := []string{"bootstrap.yaml", "kubernetes.yaml"}
	if v.Spec.Addons.CoreDNS != "" {
		files = append(files, "coredns.yaml")
	}
	if v.Spec.Addons.MetricsServer != "" {
		files = append(files, "metrics-server.yaml")
	}
	if v.Spec.Cloud != nil {
		files = slices.Insert(files, 1, "cloud.yaml")
	}
	if v.Spec.Directory != nil {
		files = slices.Insert(files, 1, "directory.yaml")
	}
	if v.Admission != nil {
		files = slices.Insert(files, 1, "workload-identity.yaml")
	}
	if v.Spec.Policies {
		files = slices.Insert(files, 1, "netpolicy.yaml", "clusternetworkpolicies.yaml")
	}
	var objects []*unstructured.Unstructured
	for _, name := range files {
		some, err := render(name, v)
		if err != nil {
			return nil, fmt.Errorf("render %s: %w", name, err)
		}
		objects = append(objects, some...)
	}
	return objects, nil
}

func render(name string, v Values) ([]*unstructured.Unstructured, error) {
	text, err := fs.ReadFile(manifests, name)
	if err != nil {
		return nil, err
	}
	t, err := template.New(name).Option("missingkey=error").Funcs(template.FuncMap{
		"base64": func(data []byte) string { return base64.StdEncoding.EncodeToString(data) },
		"bytes":  func(s string) []byte { return []byte(s) },
		"quote":  func(s string) string { return fmt.Sprintf("%q", s) },
	}).Parse(string(text))
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := t.Execute(&out, v); err != nil {
		return nil, err
	}
	var objects []*unstructured.Unstructured
	for _, document := range bytes.Split(out.Bytes(), []byte("\n---\n")) {
		o := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(document, &o.Object); err != nil {
			return nil, err
		}
		if len(o.Object) > 0 {
			objects = append(objects, o)
		}
	}
	return objects, nil
}

// Resource is the resource of an object's kind. The kinds are those of the
// manifests, so no discovery is needed.
func Resource(o *unstructured.Unstructured) (schema.GroupVersionResource, error) {
	plural, ok := map[string]string{
		"ServiceAccount": "serviceaccounts", "Secret": "secrets", "ConfigMap": "configmaps", "Service": "services", "Deployment": "deployments",
		"Endpoints": "endpoints", "EndpointSlice": "endpointslices",
		"ClusterRole": "clusterroles", "ClusterRoleBinding": "clusterrolebindings", "Role": "roles", "RoleBinding": "rolebindings",
		"PodDisruptionBudget": "poddisruptionbudgets", "APIService": "apiservices", "PriorityClass": "priorityclasses",
		"CustomResourceDefinition": "customresourcedefinitions", "MutatingWebhookConfiguration": "mutatingwebhookconfigurations",
	}[o.GetKind()]
	if !ok {
		return schema.GroupVersionResource{}, fmt.Errorf("no resource is known for kind %q", o.GetKind())
	}
	return o.GroupVersionKind().GroupVersion().WithResource(plural), nil
}
