// SPDX-License-Identifier: Apache-2.0

package testcloud_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	aks "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v6"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bastide.dev/bundle"
	"bastide.dev/nodeimage"
)

// TestNight has nodes that lack Debian's security updates: they get them, and
// reboot, while users are at work. Then their number follows the pods.
func TestNight(t *testing.T) {
	r := newRig(t, "night", "--node-image", unpatched(t))
	l := newLife(t, r)
	for _, part := range []struct {
		name string
		do   func(*testing.T, *life)
	}{
		{"patches and reboots", patchNight},
		{"a node restarted by hand", restartByHand},
		{"pools that follow pods", poolFollowsPods},
		{"upgraded by itself", upgradedByItself},
	} {
		if !t.Run(part.name, func(t *testing.T) { part.do(t, l) }) {
			t.Logf("nodes, pods, events:\n%s", l.kubectl(t, "get", "nodes,pods,events", "-A", "-o", "wide"))
			return
		}
	}
}

// unpatched is the image of Debian's release alone, with none of the updates since.
func unpatched(t *testing.T) string {
	t.Helper()
	image, err := nodeimage.Build(t.Context(), nodeimage.Config{Cache: bundle.DefaultCache, Variant: nodeimage.Unpatched})
	if err != nil {
		t.Fatal(err)
	}
	return image.Version
}

type patched struct {
	Name       string
	Properties struct {
		Upgradable     []struct{ Package string }
		RebootRequired bool
		Runs           []struct {
			Error     string
			Ended     time.Time
			Installed []struct{ Package, From, To string }
		}
	}
}

func (l *life) patches(t *testing.T) ([]patched, error) {
	t.Helper()
	out, err := l.Bastide(t.Context(), "patches", "rg/life", "--output", "json")
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	var list []patched
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	return list, nil
}

func patchNight(t *testing.T, l *life) {
	l.Must(t, "patches", "look", "rg/life")
	soonWithin(t, 3*time.Minute, func() error {
		list, err := l.patches(t)
		if err != nil {
			return err
		}
		for _, n := range list {
			if !slices.ContainsFunc(n.Properties.Upgradable, func(u struct{ Package string }) bool { return u.Package == "libssl3" }) {
				return fmt.Errorf("node %s knows of no update of libssl3: %+v", n.Name, n.Properties)
			}
		}
		if len(list) != 3 {
			return fmt.Errorf("%d nodes", len(list))
		}
		return nil
	})
	before := l.boots(t)
	l.undisturbed(t, func() {
		l.Must(t, "patches", "install", "rg/life")
		soonWithin(t, 8*time.Minute, func() error { return l.nightOver(t, before) })
	})
	list, err := l.patches(t)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range list {
		if run := n.Properties.Runs[0]; run.Error != "" || len(run.Installed) == 0 || run.Installed[0].From == run.Installed[0].To {
			t.Errorf("node %s: %+v", n.Name, run)
		}
	}
}

// boots are the nodes' boot ids.
func (l *life) boots(t *testing.T) map[string]string {
	t.Helper()
	ids := map[string]string{}
	for _, n := range l.nodes(t) {
		ids[n.Name] = n.Status.NodeInfo.BootID
	}
	return ids
}

// nightOver: every node has its updates, has rebooted for them, and takes pods.
func (l *life) nightOver(t *testing.T, before map[string]string) error {
	list, err := l.patches(t)
	if err != nil {
		return err
	}
	for _, n := range list {
		if p := n.Properties; len(p.Runs) == 0 || p.Runs[0].Ended.IsZero() || len(p.Upgradable) > 0 || p.RebootRequired {
			return fmt.Errorf("node %s: %d updates are left, reboot required %v, %d runs", n.Name, len(p.Upgradable), p.RebootRequired, len(p.Runs))
		}
	}
	nodes, err := l.client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, n := range nodes.Items {
		if before[n.Name] == n.Status.NodeInfo.BootID || n.Spec.Unschedulable || !isReady(n) {
			return fmt.Errorf("node %s: rebooted %v, unschedulable %v, ready %v", n.Name, before[n.Name] != n.Status.NodeInfo.BootID, n.Spec.Unschedulable, isReady(n))
		}
	}
	return nil
}

// restartByHand: a node is an instance of its pool's scale set.
func restartByHand(t *testing.T, l *life) {
	before := l.boots(t)
	var sets struct{ Value []struct{ ID string } }
	if err := l.rest(t.Context(), http.MethodGet, "/subscriptions/"+l.sub+"/resourceGroups/"+l.group+"/providers/Microsoft.Compute/virtualMachineScaleSets", "2024-07-01", nil, &sets); err != nil || len(sets.Value) != 1 {
		t.Fatalf("scale sets %+v: %v", sets, err)
	}
	var first string
	for name := range before {
		if strings.HasSuffix(name, "000000") {
			first = name
		}
	}
	soonWithin(t, time.Minute, func() error { // the night's last reboot may have its end to come
		return l.rest(t.Context(), http.MethodPost, sets.Value[0].ID+"/virtualMachines/0/restart", "2024-07-01", nil, nil)
	})
	soonWithin(t, 2*time.Minute, func() error {
		n, err := l.client.CoreV1().Nodes().Get(t.Context(), first, metav1.GetOptions{})
		if err == nil && (n.Status.NodeInfo.BootID == before[first] || !isReady(*n)) {
			err = errors.New("the node hasn't come back")
		}
		return err
	})
	for name, id := range l.boots(t) {
		if name != first && id != before[name] {
			t.Errorf("node %s was restarted, too", name)
		}
	}
}

// poolFollowsPods: a pool of none grows for pods that fit nowhere else, to its
// bound, and is empty again when they have gone.
func poolFollowsPods(t *testing.T, l *life) {
	clients := l.clusters(t)
	have := must(clients.Get(t.Context(), "rg", "life", nil))
	have.Properties.AutoScalerProfile = &aks.ManagedClusterPropertiesAutoScalerProfile{
		ScaleDownUnneededTime: to.Ptr("1m"), ScaleDownDelayAfterAdd: to.Ptr("1m"), ScanInterval: to.Ptr("10s")}
	have.Properties.AgentPoolProfiles = append(have.Properties.AgentPoolProfiles, &aks.ManagedClusterAgentPoolProfile{
		Name: to.Ptr("wide"), Mode: to.Ptr(aks.AgentPoolModeUser), VMSize: to.Ptr("Standard_B2s"), OSType: to.Ptr(aks.OSTypeLinux),
		EnableAutoScaling: to.Ptr(true), Count: to.Ptr[int32](0), MinCount: to.Ptr[int32](0), MaxCount: to.Ptr[int32](2), NodeLabels: map[string]*string{"for": to.Ptr("wide")}})
	poller, err := clients.BeginCreateOrUpdate(t.Context(), "rg", "life", have.ManagedCluster, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := poller.PollUntilDone(t.Context(), everySecond); err != nil {
		t.Fatal(err)
	}
	labels := map[string]string{"app": "wide"}
	deployments := l.client.AppsV1().Deployments("default")
	_, err = deployments.Create(t.Context(), &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "wide"}, Spec: appsv1.DeploymentSpec{
		Replicas: to.Ptr[int32](3), Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{
			NodeSelector: map[string]string{"for": "wide"}, TerminationGracePeriodSeconds: to.Ptr[int64](0),
			Containers: []corev1.Container{{Name: "web", Image: image, Resources: corev1.ResourceRequirements{
				Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1100m")}}}}}}}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	size := func(want, running int) error {
		d, err := deployments.Get(t.Context(), "wide", metav1.GetOptions{})
		if err != nil && running > 0 {
			return err
		}
		pool := must(must(aks.NewAgentPoolsClient(l.sub, l.cred, l.options)).Get(t.Context(), "rg", "life", "wide", nil))
		nodes := len(l.nodes(t)) - 3
		if nodes != want || int(*pool.Properties.Count) != want || running > 0 && int(d.Status.ReadyReplicas) != running {
			return fmt.Errorf("%d nodes, count %d, %d pods run; wanted %d and %d", nodes, *pool.Properties.Count, d.Status.ReadyReplicas, want, running)
		}
		return nil
	}
	begin := time.Now()
	soonWithin(t, 2*time.Minute, func() error { return size(2, 2) }) // the third pod stays without room
	t.Logf("two nodes of none, and their pods: %.1f s", time.Since(begin).Seconds())
	soon(t, func() error {
		if out := l.kubectl(t, "get", "events", "-A"); !strings.Contains(out, "TriggeredScaleUp") || !strings.Contains(out, "NotTriggerScaleUp") {
			return fmt.Errorf("no events of the autoscaler:\n%s", out)
		}
		return nil
	})
	if err := deployments.Delete(t.Context(), "wide", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	soonWithin(t, 4*time.Minute, func() error { return size(0, 0) })
}

// upgradedByItself: a channel and a window that is open now are all that a
// cluster needs to be upgraded.
func upgradedByItself(t *testing.T, l *life) {
	cluster := l.id("rg", "Microsoft.ContainerService/managedClusters/life")
	now := time.Now().UTC()
	l.put(t, cluster+"/maintenanceConfigurations/aksManagedAutoUpgradeSchedule", lifecycleVersion, object{"properties": object{"maintenanceWindow": object{
		"schedule":      object{"weekly": object{"intervalWeeks": 1, "dayOfWeek": now.Weekday().String()}},
		"durationHours": 8, "utcOffset": "+00:00", "startTime": now.Format("15:04")}}}, nil)
	l.undisturbed(t, func() {
		clients := l.clusters(t)
		have := must(clients.Get(t.Context(), "rg", "life", nil))
		have.Properties.AutoUpgradeProfile = &aks.ManagedClusterAutoUpgradeProfile{UpgradeChannel: to.Ptr(aks.UpgradeChannelRapid), NodeOSUpgradeChannel: to.Ptr(aks.NodeOSUpgradeChannelNone)}
		poller, err := clients.BeginCreateOrUpdate(t.Context(), "rg", "life", have.ManagedCluster, nil)
		if err != nil {
			t.Error(err)
			return
		}
		if _, err := poller.PollUntilDone(t.Context(), everySecond); err != nil {
			t.Error(err)
			return
		}
		soonWithin(t, 5*time.Minute, func() error {
			server, kubelets := l.versions(t)
			have := must(clients.Get(t.Context(), "rg", "life", nil))
			if state := *have.Properties.ProvisioningState; server != "v1.36.3" || !slices.Equal(kubelets, []string{"v1.36.3"}) || state != "Succeeded" {
				return fmt.Errorf("API server %s, kubelets %q, %s", server, kubelets, state)
			}
			return nil
		})
	})
	if out := l.Must(t, "maintenance", "plan", "rg/life", "--days", "8"); !strings.Contains(out, "aksManagedAutoUpgradeSchedule") {
		t.Errorf("the plan says nothing of the window:\n%s", out)
	}
}
