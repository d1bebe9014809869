// SPDX-License-Identifier: Apache-2.0

//go:build bench

package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"bastide.dev/bundle"
	"bastide.dev/cgroup"
	"bastide.dev/instance"
	"bastide.dev/nodeimage"
	"bastide.dev/testcloud"
)

const (
	floorNodeCommand = "floor-node"
	floorNode        = "floor"
	floorGroup       = "bastide-bench-floor"
)

// TestMain makes the test binary the bare node's first process, too.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == floorNodeCommand {
		if err := runFloorNode(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(testcloud.Main(m))
}

// nodeFiles are the least that containerd and kubelet want, by their place in the node.
func (f *floor) writeNodeFiles() {
	kubelet := map[string]any{
		"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
		"cgroupDriver": "cgroupfs", "cgroupRoot": "/", "failCgroupV1": false, "failSwapOn": false,
		"containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
		"authentication":           map[string]any{"anonymous": map[string]any{"enabled": false}, "webhook": map[string]any{"enabled": true}},
		"authorization":            map[string]any{"mode": "Webhook"},
	}
	admin := map[string]any{"client-certificate": "/etc/floor/admin.crt", "client-key": "/etc/floor/admin.key"}
	kubeconfig := map[string]any{
		"apiVersion": "v1", "kind": "Config", "current-context": "a",
		"clusters": []any{map[string]any{"name": "a", "cluster": map[string]any{"server": "https://" + f.server.String(), "certificate-authority": "/etc/floor/ca.crt"}}},
		"users":    []any{map[string]any{"name": "a", "user": admin}},
		"contexts": []any{map[string]any{"name": "a", "context": map[string]any{"cluster": "a", "user": "a"}}},
	}
	network := map[string]any{"cniVersion": "1.0.0", "name": "floor", "plugins": []any{map[string]any{"type": "ptp",
		"ipam": map[string]any{"type": "host-local", "ranges": []any{[]any{map[string]any{"subnet": "10.244.0.0/24"}}}}}}}
	for name, v := range map[string]any{"kubelet.json": kubelet, "kubeconfig": kubeconfig, "cni.conflist": network} {
		data, err := json.Marshal(v)
		f.check(err)
		f.file(name, data)
	}
	f.file("containerd.toml", []byte("version = 3\n[plugins.\"io.containerd.cri.v1.runtime\"]\n  restrict_oom_score_adj = true\n"))
	image, err := nodeimage.Open(instance.DefaultCache, nodeimage.Latest)
	f.check(err)
	f.file("lowers", []byte(strings.Join([]string{
		f.open("kubernetes", kubernetesVersion).Root(), f.open("runtime", bundle.RuntimeVersion).Root(), image.RootFS(),
	}, ":")))
	for _, dir := range []string{"upper", "work", "root", "containerd", "kubelet"} {
		f.check(os.Mkdir(f.path(dir), 0o755))
	}
}

// runFloorNode is the bare node: it makes its root, waits for its network and
// runs containerd and kubelet side by side.
func runFloorNode(dir string) error {
	hierarchies, err := cgroup.Hierarchies()
	if err != nil {
		return err
	}
	if err := cgroup.Create(floorGroup, cgroup.Limits{}); err != nil {
		return err
	}
	if err := enterFloorGroup(hierarchies); err != nil {
		return err
	}
	if err := mountFloor(dir, hierarchies); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(floorNode)); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"link", "set", "lo", "up"}, {"addr", "add", floorWire[1] + "/30", "dev", "bsdbenchfl1"},
		{"link", "set", "bsdbenchfl1", "up"}, {"route", "add", "default", "via", floorWire[0]},
	} {
		if out, err := exec.Command("/sbin/ip", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %v: %w %s", args, err, out)
		}
	}
	containerd := exec.Command("/usr/local/bin/containerd", "--config", "/etc/floor/containerd.toml")
	kubelet := exec.Command("/usr/local/bin/kubelet", "--config=/etc/floor/kubelet.json", "--kubeconfig=/etc/floor/kubeconfig", "--hostname-override="+floorNode, "--node-ip="+floorWire[1])
	for _, cmd := range []*exec.Cmd{containerd, kubelet} {
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		cmd.Env = []string{"PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	}
	if err := containerd.Start(); err != nil {
		return err
	}
	for { // as an init system would bring kubelet back until containerd listens
		if _, err := os.Stat("/run/containerd/containerd.sock"); err == nil {
			break
		}
		_ = unix.Nanosleep(&unix.Timespec{Nsec: 2e6}, nil)
	}
	return kubelet.Run()
}

// enterFloorGroup: /proc/self must be written by its own number in the outer
// namespace, which a process that is 1 in its own can only give as 0.
func enterFloorGroup(hierarchies []cgroup.Hierarchy) error {
	for _, h := range hierarchies {
		if err := os.WriteFile(filepath.Join(h.Mount, floorGroup, "cgroup.procs"), []byte("0"), 0); err != nil {
			return err
		}
	}
	return unix.Unshare(unix.CLONE_NEWCGROUP)
}

func mountFloor(dir string, hierarchies []cgroup.Hierarchy) error {
	lowers, err := os.ReadFile(filepath.Join(dir, "lowers"))
	if err != nil {
		return err
	}
	root := filepath.Join(dir, "root")
	overlay := fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work", lowers, dir, dir)
	steps := []struct {
		source, target, kind string
		flags                uintptr
		data                 string
	}{
		{"", "/", "", unix.MS_REC | unix.MS_PRIVATE, ""},
		{"overlay", root, "overlay", 0, overlay},
		{"proc", root + "/proc", "proc", 0, ""},
		{"sysfs", root + "/sys", "sysfs", 0, ""},
		{"/dev", root + "/dev", "", unix.MS_BIND | unix.MS_REC, ""},
		{"tmpfs", root + "/run", "tmpfs", 0, ""},
		{"tmpfs", root + "/tmp", "tmpfs", 0, ""},
		{dir + "/containerd", root + "/var/lib/containerd", "", unix.MS_BIND, ""},
		{dir + "/kubelet", root + "/var/lib/kubelet", "", unix.MS_BIND, ""},
		{dir, root + "/etc/floor", "", unix.MS_BIND, ""},
	}
	if len(hierarchies) == 1 && hierarchies[0].Mount == "/sys/fs/cgroup" {
		steps = append(steps, struct {
			source, target, kind string
			flags                uintptr
			data                 string
		}{"cgroup2", root + "/sys/fs/cgroup", "cgroup2", 0, ""})
	}
	for _, s := range steps {
		if err := os.MkdirAll(s.target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(s.source, s.target, s.kind, s.flags, s.data); err != nil {
			return fmt.Errorf("mount %s: %w", s.target, err)
		}
	}
	if err := mountFloorGroups(root, hierarchies); err != nil {
		return err
	}
	if err := errors.Join(os.MkdirAll(root+"/etc/cni/net.d", 0o755), os.Symlink("/etc/floor/cni.conflist", root+"/etc/cni/net.d/10-floor.conflist")); err != nil {
		return err
	}
	if err := errors.Join(unix.Chdir(root), unix.PivotRoot(".", "."), unix.Unmount(".", unix.MNT_DETACH), unix.Chdir("/")); err != nil {
		return fmt.Errorf("pivot: %w", err)
	}
	return unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, "")
}

// mountFloorGroups mounts each v1 hierarchy where the machine has it.
func mountFloorGroups(root string, hierarchies []cgroup.Hierarchy) error {
	if len(hierarchies) == 1 && hierarchies[0].Mount == "/sys/fs/cgroup" {
		return nil
	}
	if err := unix.Mount("tmpfs", root+"/sys/fs/cgroup", "tmpfs", 0, ""); err != nil {
		return err
	}
	for _, h := range hierarchies {
		kind, options := "cgroup", strings.Join(h.Options, ",")
		if h.V2 {
			kind = "cgroup2"
		} else if strings.HasPrefix(options, "name=") {
			options = "none," + options
		}
		if err := os.MkdirAll(root+h.Mount, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(kind, root+h.Mount, kind, 0, options); err != nil {
			return fmt.Errorf("mount %s: %w", h.Mount, err)
		}
	}
	return nil
}

func removeFloorGroups() error { return cgroup.Delete(floorGroup) }
