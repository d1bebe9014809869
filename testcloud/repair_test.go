// SPDX-License-Identifier: Apache-2.0

package testcloud_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	aks "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v6"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bastide.dev/bundle"
	"bastide.dev/nodeimage"
)

// TestRepair has nodes that don't boot, for their image or for their disk. The
// instance repairs after seconds what AKS, and a default one, repairs after minutes.
func TestRepair(t *testing.T) {
	cache, broken := brokenImage(t)
	r := newRig(t, "repair", "--repair-after", "5s", "--cache-dir", cache)
	l := newLife(t, r)
	for _, part := range []struct {
		name string
		do   func(*testing.T, *life)
	}{
		{"an image that doesn't boot", func(t *testing.T, l *life) { imageThatDoesntBoot(t, l, broken) }},
		{"a node that doesn't come back", nodeThatDoesntComeBack},
	} {
		if !t.Run(part.name, func(t *testing.T) { part.do(t, l) }) {
			t.Logf("nodes, pods, events:\n%s", l.kubectl(t, "get", "nodes,pods,events", "-A", "-o", "wide"))
			return
		}
	}
}

// brokenImage is a cache in which there is a node image without its system, beside
// what there is anyway. It is a copy by links.
func brokenImage(t *testing.T) (cache, version string) {
	t.Helper()
	cache, err := os.MkdirTemp(filepath.Dir(bundle.DefaultCache), "bastide-broken-") // links need the same disk
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(cache, 0o755); err != nil { // #nosec G302 -- as the cache is
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(cache); err != nil {
			t.Error(err)
		}
	})
	image, err := nodeimage.Open(bundle.DefaultCache, nodeimage.Latest)
	if err != nil {
		t.Fatal(err)
	}
	date := strings.TrimPrefix(image.Version, "bastide-debian12-")
	version = "bastide-debian12main-" + date[:strings.LastIndex(date, ".")] + ".99" // of a variant: nobody's latest
	for _, dir := range [][2]string{{"bundles", "bundles"}, {"oci", "oci"}, {"images/" + image.Version, "images/" + image.Version}, {"images/" + image.Version, "images/" + version}} {
		link(t, filepath.Join(bundle.DefaultCache, dir[0]), filepath.Join(cache, dir[1]))
	}
	dir := filepath.Join(cache, "images", version)
	manifest, system := filepath.Join(dir, "manifest.json"), filepath.Join(dir, "rootfs")
	text := strings.ReplaceAll(string(must(os.ReadFile(manifest))), image.Version, version)
	for _, err := range []error{os.Remove(manifest), os.WriteFile(manifest, []byte(text), 0o644), os.Rename(system, system+".gone")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return cache, version
}

func link(t *testing.T, from, to string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "cp", "-al", from, to).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// imageThatDoesntBoot: the roll stops and says why, and the cluster goes on as
// it was; the way back is another image.
func imageThatDoesntBoot(t *testing.T, l *life, broken string) {
	before := l.nodes(t)
	keep := func(tags map[string]*string) (err error) {
		l.undisturbed(t, func() { err = l.pool(t, func(p *aks.AgentPool) { p.Properties.Tags = tags }) })
		return err
	}
	if err := keep(map[string]*string{"bastide-node-image": &broken}); err == nil || !strings.Contains(err.Error(), "UpgradeFailed") || !strings.Contains(err.Error(), "rootfs") {
		t.Errorf("the upgrade to an image that doesn't boot: %v", err)
	}
	for _, n := range before {
		now, err := l.client.CoreV1().Nodes().Get(t.Context(), n.Name, metav1.GetOptions{})
		if err != nil || !isReady(*now) || now.Spec.Unschedulable || now.Status.NodeInfo.BootID != n.Status.NodeInfo.BootID {
			t.Errorf("node %s isn't as it was: %+v %v", n.Name, now, err)
		}
	}
	if err := keep(map[string]*string{}); err != nil {
		t.Errorf("back to an image that boots: %v", err)
	}
	l.same(t, before)
}

// nodeThatDoesntComeBack: its disk is broken, so that a restart doesn't help,
// and a new disk does.
func nodeThatDoesntComeBack(t *testing.T, l *life) {
	ids, err := filepath.Glob(filepath.Join(l.StateDir, "host/machines/machines/*-np-000001"))
	if err != nil || len(ids) != 1 {
		t.Fatalf("machines %q: %v", ids, err)
	}
	var name, boot string
	for n, id := range l.boots(t) {
		if strings.HasSuffix(n, "000001") {
			name, boot = n, id
		}
	}
	kubelet := filepath.Join(ids[0], "data", "kubelet")
	if err := errors.Join(os.Rename(kubelet, kubelet+".gone"), os.WriteFile(kubelet, []byte("no directory"), 0o600)); err != nil {
		t.Fatal(err)
	}
	killAll(t, "/"+filepath.Base(ids[0]))
	begin := time.Now()
	soonWithin(t, 5*time.Minute, func() error {
		n, err := l.client.CoreV1().Nodes().Get(t.Context(), name, metav1.GetOptions{})
		if err == nil && (n.Status.NodeInfo.BootID == boot || !isReady(*n) || n.Spec.Unschedulable) {
			err = errors.New("the node isn't repaired")
		}
		return err
	})
	t.Logf("repaired after %.0f s", time.Since(begin).Seconds())
	soon(t, func() error {
		out := l.kubectl(t, "get", "events", "-A", "--field-selector", "involvedObject.name="+name)
		for _, reason := range []string{"NodeRebootStart", "NodeReimageStart"} {
			if !strings.Contains(out, reason) {
				return fmt.Errorf("no event %s:\n%s", reason, out)
			}
		}
		return nil
	})
	if info, err := os.Stat(kubelet); err != nil || !info.IsDir() {
		t.Errorf("the disk isn't a new one: %v", err)
	}
	if _, err := os.Stat(kubelet + ".gone"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("something is left of the old disk: %v", err)
	}
	l.rolledOut(t, "web")
}

// killAll kills every process of a machine, as a broken computer would.
func killAll(t *testing.T, machine string) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	killed := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(text), machine) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			t.Fatal(err)
		}
		if syscall.Kill(pid, syscall.SIGKILL) == nil {
			killed++
		}
	}
	if killed == 0 {
		t.Fatalf("nothing runs in %s", machine)
	}
}
