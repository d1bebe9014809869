// SPDX-License-Identifier: Apache-2.0

//go:build conformance

package testcloud_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	aks "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v6"
	"golang.org/x/sys/unix"

	"bastide.dev/bundle"
	"bastide.dev/testcloud"
)

const (
	conformanceNodes = 3 // some tests of Services want three
	sideBySide       = 3 // tests at once
	longest          = 3 * time.Hour
)

// TestConformance runs the tests that Kubernetes has for networks against clusters of an
// instance: upstream's programs, unchanged, with upstream's own ideas of when to skip.
func TestConformance(t *testing.T) {
	e2e, err := bundle.Open(bundle.DefaultCache, "e2e", bundle.E2EVersion)
	if err != nil {
		t.Fatal(err)
	}
	out := results(t)
	c := testcloud.Start(t, "conformance")
	s := newSDK(t, c)
	s.group(t, "rg")
	k := &conformance{Cloud: c, sdk: s, e2e: e2e, out: out, repositories: filepath.Join(t.TempDir(), "repositories.yaml")}
	k.loadImages(t)

	t.Run("azure", func(t *testing.T) {
		kubeconfig := k.cluster(t, "azure", aks.NetworkPluginAzure, aks.NetworkPolicyAzure)
		t.Run("policies", func(t *testing.T) { k.run(t, "azure-policies", kubeconfig, ofPolicies()) })
		t.Run("balancers", func(t *testing.T) { k.run(t, "azure-balancers", kubeconfig, ofBalancers) })
		t.Run("services", func(t *testing.T) { k.run(t, "azure-services", kubeconfig, ofServices) })
	})
	t.Run("kubenet", func(t *testing.T) {
		kubeconfig := k.cluster(t, "kubenet", aks.NetworkPluginKubenet, aks.NetworkPolicyCalico)
		t.Run("policies", func(t *testing.T) { k.run(t, "kubenet-policies", kubeconfig, ofPolicies()) })
	})
}

// What is run, as ginkgo's label filters. A test says as a feature what a cluster may lack: left
// out are those that want a way to the world's Internet, IPv6, an ingress controller, or gates
// that are off by default.
const (
	ofBalancers = "sig-network && Feature: containsAny {LoadBalancer} && Feature: isSubsetOf {LoadBalancer}"
	ofServices  = "sig-network && Feature: isEmpty"
)

// notOnAKS fails there too: cloud-provider-azure asks for a probe at the node port that
// the Service doesn't have, port 0, and ARM refuses that (Azure/AKS issue 3165); and the
// ConfigMap of CoreDNS is the service's, which takes changes of it back: users have
// coredns-custom.
const notOnAKS = "should be able to create LoadBalancer Service without NodePort|DNS configMap nameserver"

// ofPolicies leaves SCTP out where the kernel has none.
func ofPolicies() string {
	has := "{NetworkPolicy}"
	if kernelHasSCTP() {
		has = "{NetworkPolicy, SCTPConnectivity}"
	}
	return "sig-network && Feature: containsAny {NetworkPolicy} && Feature: isSubsetOf " + has
}

func kernelHasSCTP() bool {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
	if err != nil {
		return false
	}
	return unix.Close(fd) == nil
}

// conformance is an instance with the images of the tests' pods.
type conformance struct {
	*testcloud.Cloud
	sdk          *sdk
	e2e          *bundle.Bundle
	out          string // where results go
	repositories string // says that images come from the instance's registry
}

// results is the folder that `make clean` removes too.
func results(t *testing.T) string {
	dir, err := filepath.Abs("../build/conformance")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// cluster makes one of the release whose tests they are, and removes it in the end.
func (k *conformance) cluster(t *testing.T, name string, plugin aks.NetworkPlugin, policy aks.NetworkPolicy) (kubeconfig string) {
	t.Helper()
	want := oneNode()
	want.Properties.DNSPrefix = to.Ptr(name)
	want.Properties.KubernetesVersion = to.Ptr(bundle.E2EVersion)
	want.Properties.AgentPoolProfiles[0].Count = to.Ptr[int32](conformanceNodes)
	want.Properties.NetworkProfile = &aks.NetworkProfile{NetworkPlugin: to.Ptr(plugin), NetworkPolicy: to.Ptr(policy)}
	clusters := k.sdk.clusters(t)
	poll := &runtime.PollUntilDoneOptions{Frequency: time.Second}
	creation, err := clusters.BeginCreateOrUpdate(t.Context(), "rg", name, want, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.Background() // the test's own is over
		deletion, err := clusters.BeginDelete(ctx, "rg", name, nil)
		if err == nil {
			_, err = deletion.PollUntilDone(ctx, poll)
		}
		if err != nil {
			t.Error(err)
		}
	})
	if _, err := creation.PollUntilDone(t.Context(), poll); err != nil {
		t.Fatal(err)
	}
	credentials, err := clusters.ListClusterAdminCredentials(t.Context(), "rg", name, nil)
	if err != nil || len(credentials.Kubeconfigs) != 1 {
		t.Fatalf("administrator's credentials: %v", err)
	}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(path, credentials.Kubeconfigs[0].Value, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// run lets ginkgo run what a filter chooses, and judges by its report.
func (k *conformance) run(t *testing.T, name, kubeconfig, filter string) {
	dir := filepath.Join(k.out, name)
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	kubernetes, err := bundle.Open(bundle.DefaultCache, "kubernetes", bundle.E2EVersion)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), k.e2e.Path("ginkgo"), "--no-color", "--silence-skips", fmt.Sprintf("--procs=%d", sideBySide),
		"--focus="+os.Getenv("FOCUS"), "--timeout="+longest.String(), "--label-filter="+filter, "--skip="+notOnAKS, "--output-dir="+dir, "--json-report=report.json", "--junit-report=junit.xml",
		k.e2e.Path("e2e.test"), "--",
		"--kubeconfig="+kubeconfig, "--kubectl-path="+kubernetes.Path("kubectl"), "--provider=skeleton", "--disable-log-dump",
		"--report-dir="+filepath.Join(dir, "e2e"), fmt.Sprintf("--num-nodes=%d", conformanceNodes))
	cmd.Env = append(k.environment(), "KUBECONFIG="+kubeconfig)
	cmd.Stdout, cmd.Stderr = log, log
	failure := cmd.Run() // the report says more, if there is one
	r, err := readReport(filepath.Join(dir, "report.json"))
	if err != nil {
		t.Fatalf("%v, %v: see %s", failure, err, log.Name())
	}
	summary := r.summary(name)
	if err := os.WriteFile(filepath.Join(dir, "summary.md"), []byte(summary), 0o644); err != nil {
		t.Error(err)
	}
	t.Logf("%s\nin %s", summary, dir)
	if failure != nil || len(r.failed) > 0 || len(r.passed) == 0 {
		t.Errorf("%d of %d failed: %v", len(r.failed), len(r.failed)+len(r.passed), failure)
	}
}

// environment is the instance's, with where images are.
func (k *conformance) environment() []string {
	env := os.Environ()
	for name, value := range k.Env {
		env = append(env, name+"="+value)
	}
	return append(env, "KUBE_TEST_REPO_LIST="+k.repositories)
}
