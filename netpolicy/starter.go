// SPDX-License-Identifier: Apache-2.0

package netpolicy

import (
	"bytes"
	"text/template"
)

// starterTemplate: DNS is asked of the pods behind its Service, as policies see
// packets after the Service's translation.
const starterTemplate = `# Zero trust for namespace {{.Namespace}}: nothing comes in or goes out but what is
# allowed below. Apply it, then add what each workload needs, one policy each.
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: default-deny
  namespace: {{.Namespace}}
spec:
  podSelector: {}
  policyTypes: [Ingress, Egress]
---
# Names are resolved by the cluster's DNS.
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: allow-dns
  namespace: {{.Namespace}}
spec:
  podSelector: {}
  policyTypes: [Egress]
  egress:
  - to:
    - namespaceSelector:
        matchLabels: {kubernetes.io/metadata.name: kube-system}
      podSelector:
        matchLabels: {k8s-app: kube-dns}
    ports:
    - {protocol: UDP, port: 53}
    - {protocol: TCP, port: 53}
{{if .Within}}---
# Pods of the namespace reach each other.
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: allow-within-namespace
  namespace: {{.Namespace}}
spec:
  podSelector: {}
  policyTypes: [Ingress, Egress]
  ingress:
  - from:
    - podSelector: {}
  egress:
  - to:
    - podSelector: {}
{{else}}# Pods of the namespace don't reach each other either; --allow-within adds that.
{{end}}`

// ZeroTrust is a namespace's starter, as YAML: nothing in or out but DNS, and,
// when within is asked for, what stays inside of the namespace.
func ZeroTrust(namespace string, within bool) string {
	var b bytes.Buffer
	err := template.Must(template.New("").Parse(starterTemplate)).Execute(&b, map[string]any{"Namespace": namespace, "Within": within})
	if err != nil {
		panic(err) // a constant template over plain values
	}
	return b.String()
}
