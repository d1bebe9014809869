// SPDX-License-Identifier: Apache-2.0

package testcloud_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bastide.dev/testcloud"
)

const privileged = `
apiVersion: v1
kind: Pod
metadata: {name: attacker}
spec:
  hostNetwork: true
  hostPID: true
  hostIPC: true
  containers:
  - name: attacker
    image: REGISTRY/toolbox:1
    securityContext: {privileged: true, runAsUser: 0}
    volumeMounts: [{name: node, mountPath: /node}]
  volumes: [{name: node, hostPath: {path: /}}]
`

// escape attacks the Linux machine beneath from a privileged pod with every
// host namespace and the node's whole file system: it owns its node, and
// nothing more.
func escape(t *testing.T, c *testcloud.Cloud) {
	manifest := filepath.Join(t.TempDir(), "attacker.yaml")
	if err := os.WriteFile(manifest, []byte(strings.ReplaceAll(privileged, "REGISTRY", c.Env["BASTIDE_REGISTRY"])), 0o600); err != nil {
		t.Fatal(err)
	}
	c.Run(t, "kubectl", "apply", "-f", manifest)
	c.Run(t, "kubectl", "wait", "--for=condition=Ready", "pod/attacker", "--timeout=60s")
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("of the machine beneath"), 0o600); err != nil {
		t.Fatal(err)
	}
	sh := func(script string) (string, error) {
		out, stderr, err := c.Try(t.Context(), "kubectl", "exec", "attacker", "--", "sh", "-c", script)
		return out + stderr, err
	}
	if out, err := sh("cat /node/etc/hostname && touch /node/root/mine"); err != nil {
		t.Fatalf("the attacker doesn't even own its node: %v %s", err, out)
	}
	for name, script := range map[string]string{
		"a file of the machine":             "cat /node" + secret + " || cat /proc/1/root" + secret,
		"the state of the instance":         "ls /node" + c.StateDir + "/tls || ls /proc/1/root" + c.StateDir + "/tls",
		"its own disk from outside":         "ls /node/var/lib/bastide",
		"a block device by its number":      "mknod /node/root/vda b 254 0 && dd if=/node/root/vda of=/dev/null bs=512 count=1",
		"kernel memory":                     "mknod /node/root/mem c 1 1 && dd if=/node/root/mem of=/dev/null bs=1 count=1",
		"the kernel's own settings":         "echo 1 > /proc/sys/kernel/panic",
		"the kernel's core pattern":         "echo '|/x' > /proc/sys/kernel/core_pattern",
		"the SysRq trigger":                 "echo h > /proc/sysrq-trigger",
		"a kernel module":                   "echo x > /tmp/x.ko && insmod /tmp/x.ko",
		"the clock":                         "date -s 2030-01-01; [ $(date +%Y) = 2030 ]",
		"a mount of the machine's disk":     "mount -t ext4 /dev/vda /tmp",
		"the memory limit of its own node":  "for f in /node/sys/fs/cgroup/memory/memory.limit_in_bytes /node/sys/fs/cgroup/memory.max; do [ -e $f ] && echo 99999999999 > $f && exit 0; done; exit 1",
		"processes of the machine beneath":  "ls /proc/*/exe -l | grep -E 'kube-apiserver|etcd|bastide serve'",
		"hardware by sysfs":                 "echo 0 > /sys/devices/system/cpu/cpu1/online",
		"a new outer mount of debugfs":      "mount -t debugfs none /tmp",
		"block devices in its own dev":      "ls /dev/vda /node/dev/vda",
		"a release agent (cgroup v1)":       "mkdir -p /tmp/cg && mount -t cgroup -o rdma cgroup /tmp/cg && echo /x > /tmp/cg/release_agent",
		"the image's shared files, written": "find /node/var/lib/containerd -type f -links +1 -size +100k | sed 1q | while read f; do echo x >> $f && exit 7; done; [ $? = 7 ]",
	} {
		t.Run(name, func(t *testing.T) {
			if out, err := sh(script); err == nil {
				t.Errorf("reached: %s", out)
			}
		})
	}
	c.Run(t, "kubectl", "delete", "pod", "attacker", "--now")
}
