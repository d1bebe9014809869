// SPDX-License-Identifier: Apache-2.0

package testcloud

import (
	"strconv"
	"strings"

	"bastide.dev/nodeimage"
)

// WebApp is the manifest of a web app as its documentation would have it: pods
// apart from each other, a disruption budget, seconds between the end of its
// endpoint and its own, and a public Service. On a machine that has other things
// to do those who lead to a pod learn late that it goes.
func WebApp(replicas, seconds int) string {
	return strings.NewReplacer("IMAGE", nodeimage.WebImage, "REPLICAS", strconv.Itoa(replicas), "SECONDS", strconv.Itoa(seconds)).Replace(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: default}
spec:
  replicas: REPLICAS
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 10
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {app: web}}}
      containers:
      - name: web
        image: IMAGE
        ports: [{containerPort: 8080}]
        lifecycle: {preStop: {sleep: {seconds: SECONDS}}}
        readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
        resources: {requests: {cpu: 10m, memory: 16Mi}}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web, namespace: default}
spec: {maxUnavailable: 1, selector: {matchLabels: {app: web}}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec:
  type: LoadBalancer
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
`)
}
