// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"bastide.dev/client"
	"bastide.dev/instance"
	"bastide.dev/nodeimage"
)

const aksVersion = "2025-02-01"

// runDemo makes what a newcomer would: a group, a cluster with two nodes, a web
// app in it. It is safe to repeat.
func runDemo(ctx context.Context, in *instance.Instance, view client.Instance, p *progress) error {
	secrets, err := client.LoadSecrets(in.StateDir)
	if err != nil {
		return err
	}
	c, err := client.New(client.Config{Instance: view, Secrets: secrets})
	if err != nil {
		return err
	}
	group := "/subscriptions/" + in.Subscription + "/resourceGroups/demo"
	id := group + "/providers/Microsoft.ContainerService/managedClusters/demo"
	err = p.step("Creating cluster demo with two nodes", func() error {
		if _, err := client.Put[any](ctx, c, group, "2021-04-01", map[string]any{"location": in.Location}); err != nil {
			return err
		}
		if existing, err := client.Get[clusterView](ctx, c, id, aksVersion); err == nil && existing.Properties.ProvisioningState == "Succeeded" {
			return nil
		}
		_, err := client.Put[any](ctx, c, id, aksVersion, map[string]any{
			"location": in.Location, "identity": map[string]any{"type": "SystemAssigned"},
			"properties": map[string]any{"dnsPrefix": "demo", "agentPoolProfiles": []any{
				map[string]any{"name": "nodepool1", "mode": "System", "count": 2, "vmSize": "Standard_D2s_v5"}}},
		})
		return err
	})
	if err != nil {
		return err
	}
	kubeconfig, err := adminKubeconfig(ctx, c, id)
	if err != nil {
		return err
	}
	defer os.Remove(kubeconfig)
	kubectl := func(stdin string, args ...string) (string, error) {
		cmd := exec.CommandContext(ctx, in.Dir("bin", "kubectl"), append([]string{"--kubeconfig", kubeconfig}, args...)...)
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("kubectl %s: %w: %s", args[0], err, strings.TrimSpace(string(out)))
		}
		return string(out), nil
	}
	var answer string
	err = p.step("Deploying a web app", func() error {
		if _, err := kubectl(demoApp(), "apply", "-f", "-"); err != nil {
			return err
		}
		if _, err := kubectl("", "rollout", "status", "deployment/web", "--timeout=120s"); err != nil {
			return err
		}
		answer, err = proxyAnswer(ctx, kubectl)
		return err
	})
	if err != nil {
		return err
	}
	p.say("\nThe web app answers, through the API server:\n  %s", strings.ReplaceAll(strings.TrimSpace(answer), "\n", "\n  "))
	return nil
}

// proxyAnswer asks the app through its Service; the endpoints reach the API
// server a moment after the rollout.
func proxyAnswer(ctx context.Context, kubectl func(string, ...string) (string, error)) (string, error) {
	for attempt := 0; ; attempt++ {
		answer, err := kubectl("", "get", "--raw", "/api/v1/namespaces/default/services/web:80/proxy/")
		if err == nil || attempt == 50 {
			return answer, err
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func demoApp() string {
	return strings.ReplaceAll(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: IMAGE
        ports: [{containerPort: 8080}]
        readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
        securityContext: {runAsNonRoot: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}, seccompProfile: {type: RuntimeDefault}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
`, "IMAGE", nodeimage.WebImage)
}

type clusterView struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	Properties struct {
		ProvisioningState string `json:"provisioningState"`
		Version           string `json:"currentKubernetesVersion"`
		FQDN              string `json:"fqdn"`
		PowerState        struct {
			Code string `json:"code"`
		} `json:"powerState"`
		Principal struct {
			ClientID string `json:"clientId"`
		} `json:"servicePrincipalProfile"`
		Status struct {
			ProvisioningError struct {
				Message string `json:"message"`
			} `json:"provisioningError"`
		} `json:"status"`
		Access struct {
			Ranges []string `json:"authorizedIPRanges,omitempty"`
		} `json:"apiServerAccessProfile"`
		Pools []struct {
			Name  string `json:"name"`
			Count int    `json:"count"`
		} `json:"agentPoolProfiles"`
	} `json:"properties"`
}

// adminKubeconfig keeps the administrator's kubeconfig in a file that only root
// can read; the caller removes it.
func adminKubeconfig(ctx context.Context, c *client.Client, cluster string) (string, error) {
	answer, err := client.Post[struct {
		Kubeconfigs []struct {
			Value string `json:"value"`
		} `json:"kubeconfigs"`
	}](ctx, c, cluster+"/listClusterAdminCredential", aksVersion, nil)
	if err != nil {
		return "", err
	}
	if len(answer.Kubeconfigs) == 0 {
		return "", errors.New("the cluster gives no admin credentials")
	}
	text, err := base64.StdEncoding.DecodeString(answer.Kubeconfigs[0].Value)
	if err != nil {
		return "", fmt.Errorf("admin credentials: %w", err)
	}
	f, err := os.CreateTemp("", "bastide-kubeconfig-*")
	if err != nil {
		return "", fmt.Errorf("admin credentials: %w", err)
	}
	_, err = f.Write(text)
	return f.Name(), errors.Join(err, f.Close())
}
