// SPDX-License-Identifier: Apache-2.0

package testcloud_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	aks "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v6"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"bastide.dev/stream"
	"bastide.dev/testcloud"
)

const (
	lifecycleVersion = "2025-09-01"
	// requestsPerSecond are few beside what bench sends: two cores also carry out
	// what is disturbed, and other tests.
	requestsPerSecond = 40
)

// life is a cluster with a web app that has users all the time.
type life struct {
	*kube
	web  string // its public address
	user []byte // a kubeconfig by token, with the authority of the first day
}

// TestLifecycle takes one cluster through all that a platform does to it, while
// users of its API and of its app are at work, and counts their requests.
func TestLifecycle(t *testing.T) {
	r := newRig(t, "life")
	l := newLife(t, r)
	for _, part := range []struct {
		name string
		do   func(*testing.T, *life)
	}{
		{"versions", versionsOffered},
		{"control plane", upgradeControlPlane},
		{"two at once", twoAtOnce},
		{"held and aborted", heldAndAborted},
		{"nodes", upgradeNodes},
		{"certificates", rotateCertificates},
		{"stop and start", stopStart},
	} {
		if !t.Run(part.name, func(t *testing.T) { part.do(t, l) }) {
			t.Logf("operations:\n%s", l.Must(t, "status"))
			t.Logf("nodes, pods, events:\n%s", l.kubectl(t, "get", "nodes,pods,events", "-A", "-o", "wide"))
			return // what follows would fail for this
		}
	}
}

func newLife(t *testing.T, r *rig) *life {
	t.Helper()
	k, err := r.cluster(t.Context(), t, "life", func(m *aks.ManagedCluster) {
		m.Properties.KubernetesVersion = to.Ptr("1.35.4")
		m.Properties.AgentPoolProfiles[0].Count = to.Ptr[int32](3)
	})
	if err != nil {
		t.Fatal(err)
	}
	l := &life{kube: k}
	manifest := filepath.Join(t.TempDir(), "web.yaml")
	if err := os.WriteFile(manifest, []byte(testcloud.WebApp(2, 3)), 0o600); err != nil {
		t.Fatal(err)
	}
	l.kubectl(t, "apply", "-f", manifest)
	l.rolledOut(t, "web")
	soonWithin(t, patienceOfServices, func() error {
		s, err := l.client.CoreV1().Services("default").Get(t.Context(), "web", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if len(s.Status.LoadBalancer.Ingress) == 0 {
			return errors.New("the Service has no address yet")
		}
		l.web = s.Status.LoadBalancer.Ingress[0].IP + ":80"
		return nil
	})
	page := testcloud.Web(string(l.here.space), l.web)
	soon(t, func() error { return page(t.Context()) })
	l.user = l.tokenUser(t)
	return l
}

// tokenUser is a kubeconfig whose token outlasts every certificate.
func (l *life) tokenUser(t *testing.T) []byte {
	t.Helper()
	l.kubectl(t, "create", "serviceaccount", "user")
	l.kubectl(t, "create", "rolebinding", "user", "--clusterrole=edit", "--serviceaccount=default:user")
	config, err := clientcmd.LoadFromFile(l.config)
	if err != nil {
		t.Fatal(err)
	}
	for _, who := range config.AuthInfos {
		*who = clientcmdapi.AuthInfo{Token: strings.TrimSpace(l.kubectl(t, "create", "token", "user", "--duration=4h"))}
	}
	return must(clientcmd.Write(*config))
}

// undisturbed does something while users are at work, and fails the test when
// any of them noticed.
func (l *life) undisturbed(t *testing.T, do func()) {
	t.Helper()
	request := must(testcloud.API(t.Context(), l.user))
	watcher := must(testcloud.Watch(t.Context(), l.user))
	api := stream.Begin(t.Context(), requestsPerSecond, request)
	web := stream.Begin(t.Context(), requestsPerSecond, testcloud.Web(string(l.here.space), l.web))
	defer func() {
		for name, tally := range map[string]stream.Tally{"API": api.End(), "web app": web.End()} {
			t.Logf("%s: %s", name, tally)
			if tally.Failed > 0 || tally.Sent == 0 {
				t.Errorf("users of the %s noticed: %d of %d failed:\n%s", name, tally.Failed, tally.Sent, strings.Join(tally.Failures, "\n"))
			}
		}
		if err := watcher.Stop(); err != nil || watcher.Seen() == 0 {
			t.Errorf("the watch saw %d versions: %v", watcher.Seen(), err)
		}
	}()
	begin := time.Now()
	do()
	t.Logf("done in %.1f s", time.Since(begin).Seconds())
}

// versionsOffered asks az what there is to upgrade to.
func versionsOffered(t *testing.T, l *life) {
	login(t, l.Cloud)
	upgrades := testcloud.JSON[struct {
		ControlPlaneProfile struct {
			KubernetesVersion string
			Upgrades          []struct{ KubernetesVersion string }
		}
	}](t, l.Cloud, "az", "aks", "get-upgrades", "-g", "rg", "-n", "life", "-o", "json")
	if p := upgrades.ControlPlaneProfile; p.KubernetesVersion != "1.35.4" || len(p.Upgrades) != 1 || p.Upgrades[0].KubernetesVersion != "1.36.3" {
		t.Errorf("upgrades %+v", upgrades)
	}
	for version, why := range map[string]string{"1.34.4": "downgrade", "1.38.0": "unknown"} {
		if _, stderr, err := l.Try(t.Context(), "az", "aks", "upgrade", "-g", "rg", "-n", "life", "-k", version, "--control-plane-only", "--yes"); err == nil {
			t.Errorf("%s: an upgrade to %s was accepted: %s", why, version, stderr)
		}
	}
}

// versions are the API server's, and each node's kubelet's.
func (l *life) versions(t *testing.T) (server string, kubelets []string) {
	t.Helper()
	info, err := l.client.Discovery().ServerVersion()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range l.nodes(t) {
		kubelets = append(kubelets, n.Status.NodeInfo.KubeletVersion)
	}
	slices.Sort(kubelets)
	return info.GitVersion, slices.Compact(kubelets)
}

func (l *life) nodes(t *testing.T) []corev1.Node {
	t.Helper()
	list, err := l.client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return list.Items
}

func upgradeControlPlane(t *testing.T, l *life) {
	l.undisturbed(t, func() {
		l.Run(t, "az", "aks", "upgrade", "-g", "rg", "-n", "life", "-k", "1.36.3", "--control-plane-only", "--yes")
	})
	if server, kubelets := l.versions(t); server != "v1.36.3" || !slices.Equal(kubelets, []string{"v1.35.4"}) {
		t.Errorf("API server %s, kubelets %q", server, kubelets)
	}
}

func (l *life) pool(t *testing.T, edit func(*aks.AgentPool)) error {
	t.Helper()
	pools := must(aks.NewAgentPoolsClient(l.sub, l.cred, l.options))
	have, err := pools.Get(t.Context(), "rg", "life", "np", nil)
	if err != nil {
		t.Fatal(err)
	}
	edit(&have.AgentPool)
	poller, err := pools.BeginCreateOrUpdate(t.Context(), "rg", "life", "np", have.AgentPool, nil)
	if err != nil {
		return err
	}
	_, err = poller.PollUntilDone(t.Context(), everySecond)
	return err
}

// twoAtOnce: who comes second hears AKS's code.
func twoAtOnce(t *testing.T, l *life) {
	pools := must(aks.NewAgentPoolsClient(l.sub, l.cred, l.options))
	have := must(pools.Get(t.Context(), "rg", "life", "np", nil))
	have.Properties.Count = to.Ptr[int32](4)
	poller, err := pools.BeginCreateOrUpdate(t.Context(), "rg", "life", "np", have.AgentPool, nil)
	if err != nil {
		t.Fatal(err)
	}
	have.Properties.OrchestratorVersion = to.Ptr("1.36.3")
	_, err = pools.BeginCreateOrUpdate(t.Context(), "rg", "life", "np", have.AgentPool, nil)
	var refused *azcore.ResponseError
	if !errors.As(err, &refused) || refused.StatusCode != http.StatusConflict || refused.ErrorCode != "OperationNotAllowed" {
		t.Errorf("the second operation: %v", err)
	}
	if _, err := poller.PollUntilDone(t.Context(), everySecond); err != nil {
		t.Fatal(err)
	}
	l.undisturbed(t, func() {
		if err := l.pool(t, func(p *aks.AgentPool) { p.Properties.Count = to.Ptr[int32](3) }); err != nil {
			t.Error(err)
		}
	})
}

func upgradeNodes(t *testing.T, l *life) {
	before := l.nodes(t)
	l.undisturbed(t, func() {
		if err := l.pool(t, func(p *aks.AgentPool) {
			p.Properties.OrchestratorVersion = to.Ptr("1.36.3")
			p.Properties.UpgradeSettings = &aks.AgentPoolUpgradeSettings{MaxSurge: to.Ptr("1")}
		}); err != nil {
			t.Error(err)
		}
	})
	if _, kubelets := l.versions(t); !slices.Equal(kubelets, []string{"v1.36.3"}) {
		t.Errorf("kubelets %q", kubelets)
	}
	l.same(t, before)
}

// same: the same nodes are there as before, and all take pods.
func (l *life) same(t *testing.T, before []corev1.Node) {
	t.Helper()
	after := l.nodes(t)
	name := func(n corev1.Node) string { return n.Name }
	if a, b := sortedBy(after, name), sortedBy(before, name); !slices.Equal(a, b) {
		t.Errorf("nodes %q, before %q", a, b)
	}
	for _, n := range after {
		if n.Spec.Unschedulable {
			t.Errorf("node %s is still cordoned", n.Name)
		}
		for label := range n.Labels {
			if label == corev1.LabelNodeExcludeBalancers {
				t.Errorf("node %s is still out of load balancers", n.Name)
			}
		}
	}
}

func sortedBy[T any](list []T, name func(T) string) []string {
	var names []string
	for _, e := range list {
		names = append(names, name(e))
	}
	slices.Sort(names)
	return names
}

// rotateCertificates changes every authority; what was signed before is refused after.
func rotateCertificates(t *testing.T, l *life) {
	pods := func() []string {
		list := l.pods(t, "web")
		return sortedBy(list, func(p corev1.Pod) string {
			return fmt.Sprintf("%s %d", p.UID, p.Status.ContainerStatuses[0].RestartCount)
		})
	}
	before := pods()
	old := l.config + ".old"
	if err := os.WriteFile(old, must(os.ReadFile(l.config)), 0o600); err != nil {
		t.Fatal(err)
	}
	l.undisturbed(t, func() { l.Run(t, "az", "aks", "rotate-certs", "-g", "rg", "-n", "life", "--yes") })
	_, stderr, err := l.Try(t.Context(), "kubectl", "--kubeconfig", old, "get", "nodes")
	if err == nil {
		t.Error("the administrator's certificate of before is still accepted")
	} else if !strings.Contains(stderr, "Unauthorized") && !strings.Contains(stderr, "must be logged in") && !strings.Contains(stderr, "certificate") {
		t.Errorf("the old certificate is refused with %s", stderr)
	}
	l.again(t)
	if after := pods(); !slices.Equal(before, after) {
		t.Errorf("pods were restarted: %q, before %q", after, before)
	}
	for _, n := range l.nodes(t) {
		if !isReady(n) {
			t.Errorf("node %s isn't ready", n.Name)
		}
	}
}

func isReady(n corev1.Node) bool {
	return slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

// heldAndAborted: a budget that lets no pod go holds an upgrade; who aborts it
// has the cluster as it was.
func heldAndAborted(t *testing.T, l *life) {
	budget := func(value string) {
		l.kubectl(t, "patch", "pdb", "web", "--type=merge", "-p", `{"spec":{"maxUnavailable":`+value+`}}`)
	}
	budget("0")
	defer budget("1")
	before := l.nodes(t)
	pools := must(aks.NewAgentPoolsClient(l.sub, l.cred, l.options))
	have := must(pools.Get(t.Context(), "rg", "life", "np", nil))
	have.Properties.OrchestratorVersion = to.Ptr("1.36.3")
	have.Properties.UpgradeSettings = &aks.AgentPoolUpgradeSettings{MaxSurge: to.Ptr("3")}
	upgrade, err := pools.BeginCreateOrUpdate(t.Context(), "rg", "life", "np", have.AgentPool, nil)
	if err != nil {
		t.Fatal(err)
	}
	soonWithin(t, 2*time.Minute, func() error {
		out, err := l.Bastide(t.Context(), "status")
		if err == nil && !strings.Contains(out, "budget") {
			err = fmt.Errorf("status doesn't say that a budget holds a node:\n%s", out)
		}
		return err
	})
	abort, err := pools.BeginAbortLatestOperation(t.Context(), "rg", "life", "np", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := abort.PollUntilDone(t.Context(), everySecond); err != nil {
		t.Error(err)
	}
	if _, err := upgrade.PollUntilDone(t.Context(), everySecond); err == nil || !strings.Contains(err.Error(), "ancel") {
		t.Errorf("the aborted upgrade ended with %v", err)
	}
	soonWithin(t, time.Minute, func() error {
		if n := l.nodes(t); len(n) != len(before) {
			return fmt.Errorf("%d nodes", len(n))
		}
		return nil
	})
	l.same(t, before)
}

// stopStart: stopped, nothing of the cluster runs; started, all is there again.
func stopStart(t *testing.T, l *life) {
	before := l.nodes(t)
	l.Run(t, "az", "aks", "stop", "-g", "rg", "-n", "life")
	var view struct {
		Properties struct{ PowerState struct{ Code string } }
	}
	if err := l.rest(t.Context(), http.MethodGet, l.id("rg", "Microsoft.ContainerService/managedClusters/life"), lifecycleVersion, nil, &view); err != nil || view.Properties.PowerState.Code != "Stopped" {
		t.Errorf("power state %+v: %v", view, err)
	}
	if _, stderr, err := l.Try(t.Context(), "az", "aks", "upgrade", "-g", "rg", "-n", "life", "-k", "1.36.3", "--yes"); err == nil {
		t.Errorf("a stopped cluster was upgraded: %s", stderr)
	}
	l.Run(t, "az", "aks", "start", "-g", "rg", "-n", "life")
	l.same(t, before)
	l.rolledOut(t, "web")
	page := testcloud.Web(string(l.here.space), l.web)
	soonWithin(t, time.Minute, func() error { return page(t.Context()) })
}
