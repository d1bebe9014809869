// SPDX-License-Identifier: Apache-2.0

package testcloud_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"bastide.dev/testcloud"
)

// stubborn is a client that repeats what met a closed connection or a service
// that is starting, as every client of a cloud must, and keeps account of the
// operations that the service told it of.
type stubborn struct {
	*sdk
	cloud *testcloud.Cloud
	group string
	dir   string // for files

	mu       sync.Mutex
	accepted map[string]string // operation's address → what it was
}

func newStubborn(t *testing.T, c *testcloud.Cloud) *stubborn {
	s := &stubborn{sdk: newSDK(t, c), cloud: c, dir: t.TempDir(), accepted: map[string]string{}}
	s.sdk.group(t, "rg")
	s.group = "/subscriptions/" + s.sub + "/resourceGroups/rg"
	return s
}

type answer struct {
	status    int
	body      []byte
	operation string // its address
}

// send repeats a request until somebody answers it.
func (s *stubborn) send(ctx context.Context, method, address string, body []byte) (answer, error) {
	var last error
	for ctx.Err() == nil {
		a, err := s.once(ctx, method, address, body)
		if err == nil && a.status != http.StatusServiceUnavailable && a.status != http.StatusTooManyRequests {
			return a, nil
		}
		if last = err; err == nil {
			last = fmt.Errorf("%d %s", a.status, a.body)
		}
		pause(ctx, 50*time.Millisecond)
	}
	return answer{}, fmt.Errorf("%s %s: %w", method, address, errors.Join(ctx.Err(), last))
}

func (s *stubborn) once(ctx context.Context, method, address string, body []byte) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	token, err := s.cred.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{s.base + "/.default"}})
	if err != nil {
		return answer{}, err
	}
	req, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Authorization", "Bearer "+token.Token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.http.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, text, resp.Header.Get("Azure-AsyncOperation")}, err
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func (s *stubborn) address(path string) string {
	version := "2025-02-01"
	if strings.HasPrefix(path, "/providers/Microsoft.Network/") {
		version = networkVersion
	}
	return s.base + s.group + path + "?api-version=" + version
}

const managedClusters = "/providers/Microsoft.ContainerService/managedClusters/"

// settled waits for a resource's end state: "" when it is gone.
func (s *stubborn) settled(ctx context.Context, path string) (string, error) {
	for ctx.Err() == nil {
		a, err := s.send(ctx, http.MethodGet, s.address(path), nil)
		if err != nil {
			return "", err
		}
		if a.status == http.StatusNotFound {
			return "", nil
		}
		var r struct {
			Properties struct{ ProvisioningState string }
		}
		if err := json.Unmarshal(a.body, &r); err != nil || a.status != http.StatusOK {
			return "", fmt.Errorf("GET %s: %d %s", path, a.status, a.body)
		}
		switch state := r.Properties.ProvisioningState; state {
		case "Succeeded", "Failed", "Canceled":
			return state, nil
		}
		pause(ctx, 100*time.Millisecond)
	}
	return "", fmt.Errorf("%s: %w", path, ctx.Err())
}

// change makes a change and stays with it until it has ended. An answer that
// was lost with its connection may have been a yes: then the repetition meets
// the running operation, or nothing left to delete.
func (s *stubborn) change(ctx context.Context, method, path string, body any) error {
	var data []byte
	if body != nil {
		var err error
		if data, err = json.Marshal(body); err != nil {
			return err
		}
	}
	for {
		a, err := s.send(ctx, method, s.address(path), data)
		if err != nil {
			return err
		}
		if a.operation != "" {
			s.mu.Lock()
			s.accepted[a.operation] = method + " " + path
			s.mu.Unlock()
		}
		if a.status == http.StatusConflict {
			if _, err := s.settled(ctx, path); err != nil {
				return err
			}
			continue
		}
		gone := method == http.MethodDelete && a.status == http.StatusNotFound
		if a.status/100 != 2 && !gone {
			return fmt.Errorf("%s %s: %d %s", method, path, a.status, a.body)
		}
		state, err := s.settled(ctx, path)
		if err != nil {
			return err
		}
		if (state == "") != (method == http.MethodDelete) || state == "Failed" || state == "Canceled" {
			return fmt.Errorf("%s %s ended as %q; operation: %s", method, path, state, s.ending(ctx, a.operation))
		}
		return nil
	}
}

// ending is what an operation says of itself.
func (s *stubborn) ending(ctx context.Context, address string) string {
	if address == "" {
		return "none"
	}
	a, err := s.send(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err.Error()
	}
	return string(a.body)
}

func (s *stubborn) create(ctx context.Context, name string) error {
	return s.change(ctx, http.MethodPut, managedClusters+name, map[string]any{
		"location": "eastus", "identity": map[string]any{"type": "SystemAssigned"},
		"properties": map[string]any{"dnsPrefix": name, "agentPoolProfiles": []any{
			map[string]any{"name": "np", "count": 1, "mode": "System", "vmSize": "Standard_B2s", "osType": "Linux"}}},
	})
}

func (s *stubborn) scale(ctx context.Context, name string, count int) error {
	return s.change(ctx, http.MethodPut, managedClusters+name+"/agentPools/np", map[string]any{
		"properties": map[string]any{"count": count, "mode": "System", "vmSize": "Standard_B2s", "osType": "Linux"}})
}

func (s *stubborn) remove(ctx context.Context, name string) error {
	return s.change(ctx, http.MethodDelete, managedClusters+name, nil)
}

// kubectl returns a function that runs kubectl as the cluster's administrator.
func (s *stubborn) kubectl(t *testing.T, cluster string) func(args ...string) (string, error) {
	t.Helper()
	kubectl, err := s.administrator(t.Context(), filepath.Join(t.TempDir(), "kubeconfig"), cluster)
	if err != nil {
		t.Fatal(err)
	}
	return func(args ...string) (string, error) { return kubectl(t.Context(), args...) }
}

// administrator fetches a cluster's credentials to a file of its own, and
// returns what runs kubectl with them.
func (s *stubborn) administrator(ctx context.Context, path, cluster string) (func(ctx context.Context, args ...string) (string, error), error) {
	a, err := s.send(ctx, http.MethodPost, s.address(managedClusters+cluster+"/listClusterAdminCredential"), nil)
	if err != nil {
		return nil, err
	}
	var creds struct{ Kubeconfigs []struct{ Value []byte } }
	if err := json.Unmarshal(a.body, &creds); err != nil || len(creds.Kubeconfigs) != 1 {
		return nil, fmt.Errorf("credentials of %s: %w: %d %s", cluster, err, a.status, a.body)
	}
	if err := os.WriteFile(path, creds.Kubeconfigs[0].Value, 0o600); err != nil {
		return nil, err
	}
	return func(ctx context.Context, args ...string) (string, error) {
		out, stderr, err := s.cloud.Try(ctx, "kubectl", append([]string{"--kubeconfig=" + path}, args...)...)
		if err != nil {
			return out, fmt.Errorf("%s: kubectl %v: %w %s", cluster, args, err, stderr)
		}
		return out, nil
	}, nil
}

// whole fails the test unless the cluster has exactly the nodes it should have,
// all Ready, and runs a pod.
func (s *stubborn) whole(t *testing.T, cluster string, count int) {
	t.Helper()
	kubectl := s.kubectl(t, cluster)
	if _, err := kubectl("wait", "--for=condition=Ready", "nodes", "--all", "--timeout=60s"); err != nil {
		t.Error(err)
	}
	names, err := kubectl("get", "nodes", "-o", "name")
	if err != nil || len(bytes.Fields([]byte(names))) != count {
		t.Errorf("%s: nodes %q instead of %d, %v", cluster, names, count, err)
	}
	for _, args := range [][]string{
		{"run", "proof", "--image=" + image},
		{"wait", "--for=condition=Ready", "pod/proof", "--timeout=60s"},
		{"rollout", "status", "deployment/coredns", "-n", "kube-system", "--timeout=60s"},
		{"delete", "pod", "proof", "--now"},
	} {
		if _, err := kubectl(args...); err != nil {
			t.Error(err)
			return
		}
	}
}
