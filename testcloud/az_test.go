// SPDX-License-Identifier: Apache-2.0

package testcloud_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"bastide.dev/testcloud"
)

// image is the demonstration server that every node has: it answers with its
// host name, and /healthz.
const image = "bastide.local/web:1"

// TestAz goes the way of a newcomer with the machine's unmodified az and the
// kubectl that the project builds.
func TestAz(t *testing.T) {
	c := testcloud.Start(t, "e2e")
	t.Run("user and password", func(t *testing.T) { loginUser(t, c) })
	login(t, c)
	az := func(args ...string) string { t.Helper(); return c.Run(t, "az", args...) }
	az("group", "create", "-n", "rg1", "-l", "eastus")
	az("aks", "create", "-g", "rg1", "-n", "c1", "--node-count", "2", "--generate-ssh-keys", "--kubernetes-version", "1.36")
	az("aks", "get-credentials", "-g", "rg1", "-n", "c1")
	t.Run("nodes", func(t *testing.T) { twoNodes(t, c) })
	t.Run("own image", func(t *testing.T) { ownImage(t, c) })
	t.Run("workload", func(t *testing.T) { workload(t, c) })
	t.Run("escape", func(t *testing.T) { escape(t, c) })
	t.Run("node pools", func(t *testing.T) { nodePools(t, c) })
	t.Run("reads", func(t *testing.T) { reads(t, c) })
	t.Run("bad input", func(t *testing.T) { azBadInput(t, c) })
	t.Run("down and up", func(t *testing.T) { downAndUp(t, c) })
	t.Run("stop and start", func(t *testing.T) { stopAndStart(t, c) })
	t.Run("delete", func(t *testing.T) { deleteAll(t, c) })
}

func login(t *testing.T, c *testcloud.Cloud) {
	t.Helper()
	c.Run(t, "az", "login", "--service-principal", "-u", c.Env["AZURE_CLIENT_ID"], "-p", c.Env["AZURE_CLIENT_SECRET"], "--tenant", c.Env["AZURE_TENANT_ID"])
}

func loginUser(t *testing.T, c *testcloud.Cloud) {
	m := regexp.MustCompile(`(?m)az login -u (\S+) -p '?([^'\s]+)'?`).FindStringSubmatch(c.Up)
	if m == nil {
		t.Fatalf("up doesn't say how the administrator signs in:\n%s", c.Up)
	}
	c.Run(t, "az", "login", "-u", m[1], "-p", m[2], "--allow-no-subscriptions")
	account := testcloud.JSON[struct{ User struct{ Name, Type string } }](t, c, "az", "account", "show")
	if account.User.Name != m[1] || account.User.Type != "user" {
		t.Errorf("signed in as %+v", account.User)
	}
	if _, stderr, err := c.Try(t.Context(), "az", "login", "-u", m[1], "-p", "not"+m[2]); err == nil || !strings.Contains(stderr, "AADSTS50126") {
		t.Errorf("a wrong password: %v %s", err, stderr)
	}
	c.Run(t, "az", "logout")
}

type node struct {
	Metadata struct {
		Name   string
		Labels map[string]string
	}
	Spec   struct{ ProviderID string }
	Status struct {
		Capacity   map[string]string
		Conditions []struct{ Type, Status string }
		NodeInfo   struct{ KubeletVersion, ContainerRuntimeVersion string }
	}
}

func nodes(t *testing.T, c *testcloud.Cloud) []node {
	t.Helper()
	return testcloud.JSON[struct{ Items []node }](t, c, "kubectl", "get", "nodes", "-o", "json").Items
}

func twoNodes(t *testing.T, c *testcloud.Cloud) {
	all := nodes(t, c)
	if len(all) != 2 {
		t.Fatalf("%d nodes", len(all))
	}
	for _, n := range all {
		if !regexp.MustCompile(`^aks-nodepool1-[0-9]{8}-vmss[0-9a-z]{6}$`).MatchString(n.Metadata.Name) {
			t.Errorf("node's name %s", n.Metadata.Name)
		}
		if v := n.Status.NodeInfo.KubeletVersion; v != "v1.36.3" {
			t.Errorf("kubelet %s", v)
		}
		if v := n.Status.NodeInfo.ContainerRuntimeVersion; !strings.HasPrefix(v, "containerd://2.4.2") && !strings.HasPrefix(v, "containerd://v2.4.2") {
			t.Errorf("runtime %s", v)
		}
		if !strings.HasPrefix(n.Spec.ProviderID, "azure:///subscriptions/") {
			t.Errorf("provider id %s", n.Spec.ProviderID)
		}
		if n.Metadata.Labels["kubernetes.azure.com/agentpool"] != "nodepool1" {
			t.Errorf("labels %v", n.Metadata.Labels)
		}
		// az's default size, Standard_DS2_v2: 2 vCPU, 7 GiB.
		if n.Status.Capacity["cpu"] != "2" || n.Status.Capacity["memory"] != "7Gi" {
			t.Errorf("capacity %v", n.Status.Capacity)
		}
	}
}

func workload(t *testing.T, c *testcloud.Cloud) {
	kubectl := func(args ...string) string { t.Helper(); return c.Run(t, "kubectl", args...) }
	kubectl("create", "deployment", "web", "--image="+image, "--replicas=4")
	kubectl("expose", "deployment", "web", "--port=80", "--target-port=8080")
	kubectl("rollout", "status", "deployment/web", "--timeout=60s")

	t.Run("logs", func(t *testing.T) {
		if out := kubectl("logs", "deployment/web"); !strings.Contains(out, "listening") {
			t.Errorf("logs: %q", out)
		}
	})
	t.Run("exec, names and Services", func(t *testing.T) {
		if out := kubectl("exec", "box", "--", "wget", "-qO-", "http://web.default.svc.cluster.local/"); !strings.Contains(out, "web-") {
			t.Errorf("the Service, by its name, from a pod: %q", out)
		}
		if out := kubectl("exec", "box", "--", "nslookup", "management."+c.Env["BASTIDE_DOMAIN"]); !strings.Contains(out, "192.88.99.") {
			t.Errorf("the instance's own name, from a pod: %q", out)
		}
	})
	t.Run("port-forward", func(t *testing.T) { portForward(t, c) })
	t.Run("top", func(t *testing.T) {
		retry(t, func() error {
			out, stderr, err := c.Try(t.Context(), "kubectl", "top", "nodes")
			if err != nil || !strings.Contains(out, "aks-nodepool1-") {
				return fmt.Errorf("kubectl top: %w %s%s", err, out, stderr)
			}
			return nil
		})
	})
	t.Run("every node's pods reach every other's", func(t *testing.T) {
		ips := strings.Fields(c.Run(t, "kubectl", "get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].status.podIP}"))
		if len(ips) != 4 {
			t.Fatalf("addresses %v", ips)
		}
		for _, ip := range ips {
			kubectl("exec", "box", "--", "wget", "-qO-", "http://"+ip+":8080/")
		}
	})
}

func portForward(t *testing.T, c *testcloud.Cloud) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(strings.Split(c.Env["PATH"], ":")[0], "kubectl"), "port-forward", "service/web", ":80")
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Env["KUBECONFIG"])
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cancel(); _ = cmd.Wait() }()
	first := make([]byte, 256)
	n, err := out.Read(first)
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`127\.0\.0\.1:(\d+)`).FindSubmatch(first[:n])
	if m == nil {
		t.Fatalf("port-forward said %q", first[:n])
	}
	resp, err := http.Get("http://127.0.0.1:" + string(m[1]) + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != 200 || !strings.Contains(string(body), "web-") {
		t.Errorf("%s %q", resp.Status, body)
	}
}

func nodePools(t *testing.T, c *testcloud.Cloud) {
	az := func(args ...string) string { t.Helper(); return c.Run(t, "az", args...) }
	pool := func(args ...string) []string {
		return slices.Concat([]string{"aks", "nodepool"}, args, []string{"-g", "rg1", "--cluster-name", "c1"})
	}
	az(pool("add", "-n", "user1", "--node-count", "1", "--node-vm-size", "Standard_D4s_v5", "--labels", "team=blue", "--node-taints", "team=blue:NoSchedule", "--mode", "User")...)
	byPool := func() map[string]int {
		count := map[string]int{}
		for _, n := range nodes(t, c) {
			count[n.Metadata.Labels["kubernetes.azure.com/agentpool"]]++
		}
		return count
	}
	if got := byPool(); got["user1"] != 1 || got["nodepool1"] != 2 {
		t.Errorf("after add: %v", got)
	}
	for _, n := range nodes(t, c) {
		if n.Metadata.Labels["kubernetes.azure.com/agentpool"] == "user1" && (n.Metadata.Labels["team"] != "blue" || n.Status.Capacity["cpu"] != "4") {
			t.Errorf("the pool's settings didn't reach its node: %v %v", n.Metadata.Labels, n.Status.Capacity)
		}
	}
	az(pool("scale", "-n", "user1", "--node-count", "2")...)
	if got := byPool(); got["user1"] != 2 {
		t.Errorf("after scale up: %v", got)
	}
	az(pool("scale", "-n", "user1", "--node-count", "0")...)
	if got := byPool(); got["user1"] != 0 {
		t.Errorf("after scale to zero: %v", got)
	}
	if list := az(pool("list", "--query", "length(@)")...); strings.TrimSpace(list) != "2" {
		t.Errorf("pools: %s", list)
	}
	if state := az(pool("show", "-n", "user1", "--query", "provisioningState", "-o", "tsv")...); strings.TrimSpace(state) != "Succeeded" {
		t.Errorf("state: %s", state)
	}
	az(pool("delete", "-n", "user1")...)
	az("aks", "scale", "-g", "rg1", "-n", "c1", "--node-count", "1")
	if got := byPool(); got["nodepool1"] != 1 || len(got) != 1 {
		t.Errorf("after aks scale: %v", got)
	}
}

func reads(t *testing.T, c *testcloud.Cloud) {
	az := func(args ...string) string { t.Helper(); return strings.TrimSpace(c.Run(t, "az", args...)) }
	if got := az("aks", "list", "--query", "[].name", "-o", "tsv"); got != "c1" {
		t.Errorf("list: %q", got)
	}
	az("aks", "wait", "-g", "rg1", "-n", "c1", "--created", "--timeout", "30")
	if got := az("aks", "get-versions", "-l", "eastus", "-o", "table"); !strings.Contains(got, "1.36.3") {
		t.Errorf("versions: %s", got)
	}
	if got := az("aks", "get-upgrades", "-g", "rg1", "-n", "c1", "-o", "json"); !strings.Contains(got, "1.36.3") {
		t.Errorf("upgrades: %s", got)
	}
	if got := az("group", "show", "-n", "MC_rg1_c1_eastus", "--query", "managedBy", "-o", "tsv"); !strings.Contains(strings.ToLower(got), "/managedclusters/c1") {
		t.Errorf("the node resource group's managedBy: %q", got)
	}
	if got := az("resource", "list", "-g", "rg1", "--resource-type", "Microsoft.ContainerService/managedClusters", "--query", "[].name", "-o", "tsv"); got != "c1" {
		t.Errorf("resource list: %q", got)
	}
}

func azBadInput(t *testing.T, c *testcloud.Cloud) {
	for _, bad := range []struct {
		name, code string
		args       []string
	}{
		{"unknown version", "K8sVersionNotSupported", []string{"aks", "create", "-g", "rg1", "-n", "bad", "--kubernetes-version", "1.20.1", "--no-ssh-key"}},
		{"unknown group", "ResourceGroupNotFound", []string{"aks", "create", "-g", "nowhere", "-n", "bad", "-l", "eastus", "--no-ssh-key"}},
		{"unknown size", "VMSizeNotSupported", []string{"aks", "create", "-g", "rg1", "-n", "bad", "--node-vm-size", "Standard_Z9", "--no-ssh-key"}},
		{"duplicate pool", "", []string{"aks", "nodepool", "add", "-g", "rg1", "--cluster-name", "c1", "-n", "nodepool1"}},
		{"last system pool", "", []string{"aks", "nodepool", "delete", "-g", "rg1", "--cluster-name", "c1", "-n", "nodepool1"}},
		{"another plugin's policy", "calico", []string{"aks", "create", "-g", "rg1", "-n", "bad", "--network-plugin", "kubenet", "--network-policy", "azure", "--no-ssh-key"}},
	} {
		t.Run(bad.name, func(t *testing.T) {
			_, stderr, err := c.Try(t.Context(), "az", bad.args...)
			if err == nil || !strings.Contains(stderr, bad.code) {
				t.Errorf("%v: %s", err, stderr)
			}
			if strings.Contains(stderr, "Traceback") {
				t.Errorf("az stumbled: %s", stderr)
			}
		})
	}
}

func stopAndStart(t *testing.T, c *testcloud.Cloud) {
	c.Run(t, "az", "aks", "stop", "-g", "rg1", "-n", "c1")
	if got := strings.TrimSpace(c.Run(t, "az", "aks", "show", "-g", "rg1", "-n", "c1", "--query", "powerState.code", "-o", "tsv")); got != "Stopped" {
		t.Errorf("power state %q", got)
	}
	if _, _, err := c.Try(t.Context(), "kubectl", "get", "nodes", "--request-timeout=2s"); err == nil {
		t.Error("a stopped cluster answers")
	}
	c.Run(t, "az", "aks", "start", "-g", "rg1", "-n", "c1")
	c.Run(t, "kubectl", "rollout", "status", "deployment/web", "--timeout=60s")
}

func downAndUp(t *testing.T, c *testcloud.Cloud) {
	c.Must(t, "down")
	if left := testcloud.Leftovers(t, c); len(left) > 0 {
		t.Errorf("down left: %s", strings.Join(left, "\n"))
	}
	c.Must(t, "up")
	c.Run(t, "kubectl", "wait", "--for=condition=Ready", "nodes", "--all", "--timeout=60s")
	c.Run(t, "kubectl", "rollout", "status", "deployment/web", "--timeout=90s")
}

func deleteAll(t *testing.T, c *testcloud.Cloud) {
	c.Run(t, "az", "aks", "delete", "-g", "rg1", "-n", "c1", "--yes")
	c.Run(t, "az", "group", "delete", "-n", "rg1", "--yes")
	if got := c.Run(t, "az", "group", "list", "--query", "length(@)"); strings.TrimSpace(got) != "0" {
		t.Errorf("groups left: %s", got)
	}
	if left := testcloud.OfClusters(t, c); len(left) > 0 {
		t.Errorf("deletion left: %s", strings.Join(left, "\n"))
	}
}

// retry repeats a look at what takes its time by design.
func retry(t *testing.T, look func() error) {
	t.Helper()
	var err error
	for range 120 {
		if err = look(); err == nil {
			return
		}
		time.Sleep(500 * time.Millisecond)
	}
	t.Error(err)
}
