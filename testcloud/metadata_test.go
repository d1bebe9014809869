// SPDX-License-Identifier: Apache-2.0

package testcloud_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	aks "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v6"
	"github.com/google/uuid"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	msiVersion        = "2023-01-31"
	assignmentVersion = "2022-04-01"
	readerRole        = "acdd72a7-3385-48ef-bd42-f606fba81ae7"
	tokenPath         = "/metadata/identity/oauth2/token?api-version=2018-02-01&resource="
)

// TestMetadata goes to the metadata address from virtual machines, nodes, pods
// and from where it must not answer.
func TestMetadata(t *testing.T) {
	r := newRig(t, "g-imds")
	r.vnet(t, "net", "10.10.0.0/16", "vms=10.10.1.0/24")
	jump, err := r.jump(t)
	if err != nil {
		t.Fatal(err)
	}
	whoami := filepath.Join(t.TempDir(), "whoami")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", whoami, "./testdata/whoami")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if _, err := jump.run(t.Context(), r.here.space, must(os.ReadFile(whoami)), "cat > whoami && chmod +x whoami"); err != nil {
		t.Fatal(err)
	}
	t.Run("who a machine is", func(t *testing.T) { machineDocument(t, r, jump) })
	t.Run("what machines are", func(t *testing.T) { machineIdentities(t, r, jump) })
	t.Run("what is refused", func(t *testing.T) { metadataRefusals(t, r, jump, whoami) })
	t.Run("a cluster", func(t *testing.T) { clusterMetadata(t, r) })
}

func machineDocument(t *testing.T, r *rig, jump *vm) {
	for path, want := range map[string]string{
		"compute/name": "jump", "compute/osProfile/computerName": "jump", "compute/resourceGroupName": "rg", "compute/subscriptionId": r.sub,
		"compute/vmSize": "Standard_B1s", "network/interface/0/ipv4/ipAddress/0/privateIpAddress": jump.private,
		"network/interface/0/ipv4/ipAddress/0/publicIpAddress": jump.public, "network/interface/0/ipv4/subnet/0/address": "10.10.1.0",
	} {
		if got := jump.sh(t, "./whoami get '/metadata/instance/"+path+"?api-version=2021-02-01&format=text' Metadata=true"); got != "200 "+want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	mac := jump.sh(t, "cat /sys/class/net/eth0/address 2>/dev/null || ip -o link show eth0 | sed 's/.*ether \\([^ ]*\\).*/\\1/'")
	want := strings.ToUpper(strings.ReplaceAll(strings.TrimSpace(mac), ":", ""))
	if got := jump.sh(t, "./whoami get '/metadata/instance/network/interface/0/macAddress?api-version=2021-02-01&format=text' Metadata=true"); got != "200 "+want {
		t.Errorf("hardware address: %q, want %q", got, want)
	}
}

// grant gives a principal a role at a scope, and returns the assignment's id.
func (r *rig) grant(t testing.TB, scope, role, principal string) string {
	t.Helper()
	id := scope + "/providers/Microsoft.Authorization/roleAssignments/" + uuid.NewString()
	body := object{"properties": object{"principalId": principal, "principalType": "ServicePrincipal",
		"roleDefinitionId": "/subscriptions/" + r.sub + "/providers/Microsoft.Authorization/roleDefinitions/" + role}}
	if err := r.rest(t.Context(), http.MethodPut, id, assignmentVersion, body, nil); err != nil {
		t.Fatal(err)
	}
	return id
}

// as reads the group rg with a token, and returns the status.
func (r *rig) as(t testing.TB, token string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.base+"/subscriptions/"+r.sub+"/resourceGroups/rg?api-version=2021-04-01", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := r.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// patchVM changes a machine, and waits.
func (r *rig) patchVM(t testing.TB, id string, body object, into any) {
	t.Helper()
	if err := r.rest(t.Context(), http.MethodPatch, id, computeAPI, body, nil); err != nil {
		t.Fatal(err)
	}
	r.settle(t, id, computeAPI)
	if err := r.rest(t.Context(), http.MethodGet, id, computeAPI, nil, into); err != nil {
		t.Fatal(err)
	}
}

const computeAPI = "2024-07-01"

func machineIdentities(t *testing.T, r *rig, jump *vm) {
	vm, group := r.id("rg", "Microsoft.Compute/virtualMachines/jump"), "/subscriptions/"+r.sub+"/resourceGroups/rg"
	if out, err := jump.run(t.Context(), r.here.space, nil, "./whoami token "+r.base+"/.default"); err == nil {
		t.Fatalf("a machine without an identity has a token: %s", out)
	}
	var view struct{ Identity struct{ PrincipalID string } }
	r.patchVM(t, vm, object{"identity": object{"type": "SystemAssigned"}}, &view)
	token := jump.sh(t, "./whoami token "+r.base+"/.default")
	if status := r.as(t, token); status != http.StatusForbidden {
		t.Errorf("without a role it reads the group: %d", status)
	}
	assignment := r.grant(t, group, readerRole, view.Identity.PrincipalID)
	if status := r.as(t, token); status != http.StatusOK {
		t.Errorf("with Reader: %d", status)
	}
	if err := r.rest(t.Context(), http.MethodDelete, assignment, assignmentVersion, nil, nil); err != nil {
		t.Fatal(err)
	}
	if status := r.as(t, token); status != http.StatusForbidden {
		t.Errorf("the role is gone, and the next call: %d", status)
	}
	var user struct {
		ID         string
		Properties struct{ ClientID, PrincipalID string }
	}
	r.put(t, r.id("rg", "Microsoft.ManagedIdentity/userAssignedIdentities/worker"), msiVersion, object{"location": "eastus"}, &user)
	r.patchVM(t, vm, object{"identity": object{"type": "SystemAssigned, UserAssigned", "userAssignedIdentities": object{user.ID: object{}}}}, nil)
	r.grant(t, group, readerRole, user.Properties.PrincipalID)
	for _, who := range []string{user.Properties.ClientID, user.ID} {
		if status := r.as(t, jump.sh(t, "./whoami token "+r.base+"/.default "+who)); status != http.StatusOK {
			t.Errorf("as %s: %d", who, status)
		}
	}
	if kubelogin, err := exec.LookPath(r.find("kubelogin")); err == nil {
		if _, err := jump.run(t.Context(), r.here.space, must(os.ReadFile(kubelogin)), "cat > kubelogin && chmod +x kubelogin"); err != nil {
			t.Fatal(err)
		}
		out := jump.sh(t, "./kubelogin get-token --login msi --server-id "+serverID+" --client-id "+user.Properties.ClientID)
		var credential struct{ Status struct{ Token string } }
		if err := json.Unmarshal([]byte(out), &credential); err != nil || strings.Count(credential.Status.Token, ".") != 2 {
			t.Errorf("kubelogin: %v %s", err, out)
		}
	} else {
		t.Error("kubelogin isn't there")
	}
	took := jump.sh(t, "./whoami time '"+tokenPath+r.base+"/' 100")
	t.Logf("a kept token, from the machine: microseconds at the median and at 99 %%: %s", took)
	r.patchVM(t, vm, object{"identity": object{"type": "SystemAssigned"}}, nil)
	if out, err := jump.run(t.Context(), r.here.space, nil, "./whoami token "+r.base+"/.default "+user.Properties.ClientID); err == nil {
		t.Errorf("an identity that was taken away: %s", out)
	}
	r.patchVM(t, vm, object{"identity": object{"type": "None"}}, nil)
	if status := r.as(t, token); status != http.StatusUnauthorized && status != http.StatusForbidden {
		t.Errorf("its own identity is gone, its token: %d", status)
	}
}

const serverID = "6dae42f8-4368-4678-94ff-3960e28e3630"

// find is a program of the instance's PATH, or of the machine's.
func (r *rig) find(name string) string {
	for _, dir := range filepath.SplitList(r.Env["PATH"]) {
		if path := filepath.Join(dir, name); exec.Command("test", "-x", path).Run() == nil {
			return path
		}
	}
	return name
}

func metadataRefusals(t *testing.T, r *rig, jump *vm, whoami string) {
	const versions = "/metadata/versions"
	for args, want := range map[string]string{
		versions: "400 ", versions + " Metadata=false": "400 ", versions + " Metadata=true X-Forwarded-For=1.2.3.4": "400 ",
		versions + " Metadata=true Host=evil.example": "400 ", versions + " Metadata=true": "200 ",
		"/metadata/attested/document Metadata=true": "404 ",
	} {
		if got := jump.sh(t, "./whoami get "+args); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q, want %s", args, got, want)
		}
	}
	for what, space := range map[string]space{"the Internet": r.here.space, "the machine below": "/proc/self/ns/net"} {
		out, err := exec.CommandContext(t.Context(), "nsenter", "--net="+string(space), whoami, "get", versions, "Metadata=true").CombinedOutput()
		if err == nil && strings.Contains(string(out), "apiVersions") { // the machine below may have one of its own
			t.Errorf("%s gets %s", what, out)
		}
	}
}

// whoInPod asks the metadata address from a pod.
func (k *kube) whoInPod(ctx context.Context, pod, path string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	out, stderr, err := k.Try(ctx, "kubectl", "--kubeconfig", k.config, "exec", pod, "--", "/echo", "metadata", path)
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, stderr)
	}
	return out, nil
}

func clusterMetadata(t *testing.T, r *rig) {
	k, err := r.cluster(t.Context(), t, "c", func(c *aks.ManagedCluster) {
		plugin, policy := aks.NetworkPluginKubenet, aks.NetworkPolicyCalico
		c.Properties.NetworkProfile = &aks.NetworkProfile{NetworkPlugin: &plugin, NetworkPolicy: &policy}
	})
	if err != nil {
		t.Fatal(err)
	}
	k.workload(t, "echo", 1)
	pod := k.pods(t, "echo")[0]
	onHost := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "on-host"}, Spec: corev1.PodSpec{HostNetwork: true, Containers: []corev1.Container{{
		Name: "echo", Image: pod.Spec.Containers[0].Image, Env: []corev1.EnvVar{{Name: "PORTS", Value: "18080"}}}}}}
	if _, err := k.client.CoreV1().Pods("default").Create(t.Context(), onHost, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	k.kubectl(t, "wait", "--for=condition=Ready", "pod/on-host", "--timeout=60s")
	const nameOf = "/metadata/instance/compute/osProfile/computerName?api-version=2021-02-01&format=text"
	reaches := func(what, pod string, want bool) {
		t.Helper()
		soon(t, func() error {
			got, err := k.whoInPod(t.Context(), pod, nameOf)
			if want && err == nil && got != k.firstNode(t) {
				return fmt.Errorf("%s: it is told %q", what, got)
			}
			if (err == nil) != want {
				return fmt.Errorf("%s: %q %w", what, got, err)
			}
			return nil
		})
	}
	reaches("by default", pod.Name, true)
	token, err := k.whoInPod(t.Context(), pod.Name, tokenPath+r.base+"/")
	if err != nil || !strings.Contains(token, `"access_token":"ey`) {
		t.Errorf("a pod as its node's kubelet identity: %v %s", err, token)
	}
	policyAgainstMetadata(t, k, func(want bool) { t.Helper(); reaches("by policy", pod.Name, want) })
	restrict := func(value string) {
		t.Helper()
		id := r.id("rg", "Microsoft.ContainerService/managedClusters/c")
		var body object
		if err := r.rest(t.Context(), http.MethodGet, id, "2025-02-01", nil, &body); err != nil {
			t.Fatal(err)
		}
		body["properties"].(object)["networkProfile"].(object)["podLinkLocalAccess"] = value
		r.put(t, id, "2025-02-01", body, nil)
	}
	restrict("None")
	if out, err := k.whoInPod(t.Context(), pod.Name, nameOf); err == nil {
		t.Errorf("closed, and the operation has ended: the pod is told %q", out)
	}
	reaches("a pod of the host's network", "on-host", true)
	if _, err := k.inPod(t.Context(), pod.Name, "127.0.0.1:8080"); err != nil {
		t.Errorf("the pod lives on: %v", err)
	}
	restrict("IMDS")
	reaches("open again", pod.Name, true)
}

// policyAgainstMetadata closes the address to pods as users did before there was a switch.
func policyAgainstMetadata(t *testing.T, k *kube, reaches func(bool)) {
	file := filepath.Join(t.TempDir(), "policy.yaml")
	const policy = `{"apiVersion":"networking.k8s.io/v1","kind":"NetworkPolicy","metadata":{"name":"no-metadata"},"spec":{"podSelector":{},
 "policyTypes":["Egress"],"egress":[{"to":[{"ipBlock":{"cidr":"0.0.0.0/0","except":["169.254.169.254/32"]}}]}]}}`
	if err := os.WriteFile(file, []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	k.kubectl(t, "apply", "-f", file)
	reaches(false)
	k.kubectl(t, "delete", "-f", file)
	reaches(true)
}
