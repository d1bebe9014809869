// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"bastide.dev/machine"
)

// TestNode is a node's life against a real control plane: it joins, runs pods
// within their limits, survives the death of its parts, and ends cleanly.
func TestNode(t *testing.T) {
	w := newWorld(t)
	w.prepareWire()
	w.startServer()

	begin := time.Now()
	status := w.up()
	t.Logf("PID 1 runs after %v", time.Since(begin))
	w.ready()
	t.Logf("Ready after %v", time.Since(begin))
	w.approveServing()

	t.Run("capacity", func(t *testing.T) {
		capacity := w.must("", "get", "node", nodeName, "-o", "jsonpath={.status.capacity.cpu} {.status.capacity.memory} {.status.nodeInfo.kubeletVersion} {.metadata.labels.kubernetes\\.azure\\.com/mode}")
		if capacity != "4 2Gi v1.36.3 system" {
			t.Errorf("%s", capacity)
		}
	})
	for _, step := range []struct {
		name string
		do   func()
	}{
		{"pod", w.runPod},
		{"service", w.reachService},
		{"privileged pod", w.noEscapeByPod},
		{"idle memory", func() { w.idleMemory(status) }},
		{"restart of a part", w.killKubelet},
		{"ssh", w.comeIn},
		{"config live", w.changeLive},
		{"reboot wanted", w.wantReboot},
	} {
		t.Run(step.name, func(t *testing.T) {
			outer := w.t
			w.t = t
			defer func() { w.t = outer }()
			step.do()
		})
	}
	bootID := func() string {
		return w.must("", "get", "node", nodeName, "-o", "jsonpath={.status.nodeInfo.bootID}")
	}
	before := bootID()
	t.Run("stop", func(t *testing.T) {
		begin := time.Now()
		if err := w.provider.Stop(t.Context(), nodeName); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("took %v", took)
		}
	})
	t.Run("boot again", func(t *testing.T) {
		w.up()
		w.eventually("no reboot is wanted any more", 10*time.Second, func() bool { s := w.says(); return s.Ready && !s.RebootRequired })
		w.eventually("the Node tells of another boot", time.Minute, func() bool { id := bootID(); return len(id) == 36 && id != before })
		w.eventually("the pod runs in the rebooted machine", 2*time.Minute, func() bool {
			out, err := w.kubectl("", "get", "pod", "web", "-o", "jsonpath={.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].state.running.startedAt}")
			return err == nil && !strings.HasPrefix(out, "0 ") && strings.Contains(out, "T")
		})
	})
}

const webPod = `
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  containers:
  - name: web
    image: bastide.local/web:1
    imagePullPolicy: Never
    resources: {limits: {cpu: 250m, memory: 64Mi}}
`

func (w *world) runPod() {
	w.eventually("the default account is there", time.Minute, func() bool {
		_, err := w.kubectl("", "get", "serviceaccount", "default")
		return err == nil
	})
	begin := time.Now()
	w.must(webPod, "apply", "-f", "-")
	w.must("", "wait", "--for=condition=Ready", "pod/web", "--timeout=60s")
	w.t.Logf("pod Ready after %v", time.Since(begin))
	w.eventually("logs come through the kubelet", 20*time.Second, func() bool {
		_, err := w.kubectl("", "logs", "web")
		return err == nil
	})
	// The limit stands in the machine's own hierarchy.
	out, err := w.in("sh", "-c", "cat /sys/fs/cgroup/memory/kubepods/burstable/pod*/*/memory.limit_in_bytes /sys/fs/cgroup/kubepods*/*/*/memory.max /sys/fs/cgroup/memory/kubepods/pod*/*/memory.limit_in_bytes 2>/dev/null")
	if !strings.Contains(out, strconv.Itoa(64<<20)) {
		w.t.Errorf("no limit of 64 MiB: %s, %v", out, err)
	}
}

// reachService goes through kube-proxy's rules, from the node.
func (w *world) reachService() {
	w.must("", "expose", "pod", "web", "--port=80", "--target-port=8080")
	address := w.must("", "get", "service", "web", "-o", "jsonpath={.spec.clusterIP}")
	w.eventually("the service answers", 20*time.Second, func() bool {
		_, err := w.in("bash", "-c", fmt.Sprintf("exec 3<>/dev/tcp/%s/80", address))
		return err == nil
	})
}

func (w *world) idleMemory(status machine.Status) {
	time.Sleep(5 * time.Second) // idle is after the start's garbage is gone
	total := 0
	procs, err := w.in("sh", "-c", "for p in /proc/[0-9]*; do echo $p $(tr '\\0' ' ' < $p/cmdline | cut -c1-60) $(grep ^Pss: $p/smaps_rollup 2>/dev/null); done")
	if err != nil {
		w.t.Fatal(err)
	}
	for line := range strings.Lines(procs) {
		fields := strings.Fields(line)
		if len(fields) < 3 || fields[len(fields)-1] != "kB" {
			continue
		}
		kib, err := strconv.Atoi(fields[len(fields)-2])
		if err != nil {
			w.t.Fatal(err)
		}
		for _, name := range []string{" kubelet ", " kube-proxy ", " containerd ", " bastide ", " sshd: "} {
			if strings.Contains(line, name) {
				w.t.Logf("%s%d MiB", name, kib>>10)
				total += kib >> 10
			}
		}
	}
	w.t.Logf("idle node: %d MiB PSS (PID 1 is %d)", total, status.PID)
	if total > 150 {
		w.t.Errorf("an idle node takes %d MiB", total)
	}
}

func (w *world) killKubelet() {
	before := w.pidof("kubelet")
	if _, err := w.in("kill", "-9", before); err != nil {
		w.t.Fatal(err)
	}
	w.eventually("another kubelet", 10*time.Second, func() bool {
		now := w.pidof("kubelet")
		return now != "" && now != before
	})
	w.ready()
}

func (w *world) pidof(name string) string {
	out, _ := w.in("sh", "-c", `for p in /proc/[0-9]*; do test "$(head -c `+strconv.Itoa(len(name))+` $p/cmdline 2>/dev/null | tr '\0' ' ')" = `+name+` && basename $p; done`)
	return strings.TrimSpace(strings.SplitN(out, "\n", 2)[0])
}

// noEscapeByPod: a privileged pod with the machine's whole file system gets the
// machine, and nothing of the computer beneath.
func (w *world) noEscapeByPod() {
	secret := filepath.Join(w.t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("the host's"), 0o666); err != nil {
		w.t.Fatal(err)
	}
	w.must(`
apiVersion: v1
kind: Pod
metadata: {name: bad}
spec:
  hostPID: true
  hostNetwork: true
  containers:
  - name: bad
    image: bastide.local/web:1
    imagePullPolicy: Never
    securityContext: {privileged: true, runAsUser: 0}
    volumeMounts: [{name: host, mountPath: /host, mountPropagation: Bidirectional}]
  volumes: [{name: host, hostPath: {path: /}}]
`, "apply", "-f", "-")
	w.must("", "wait", "--for=condition=Ready", "pod/bad", "--timeout=60s")
	in := func(script string) (string, error) {
		return w.kubectl("", "exec", "bad", "--", "/host/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", "--library-path", "/host/usr/lib/x86_64-linux-gnu",
			"/host/usr/sbin/chroot", "/host", "/bin/sh", "-c", "export PATH=/usr/sbin:/usr/bin; "+script)
	}
	if out, err := in("id -u"); err != nil || out != "0" {
		w.t.Fatalf("exec: %v %s", err, out)
	}
	if out, err := in("cat /etc/bastide/node.json"); err != nil || !strings.Contains(out, nodeName) {
		w.t.Fatalf("the pod doesn't even have its machine: %v %s", err, out)
	}
	for _, attack := range []string{
		"cat " + secret,
		"cat /proc/1/root" + secret,
		"echo x > /proc/sys/kernel/core_pattern",
		"echo 1 > /proc/sys/vm/drop_caches",
		"echo h > /proc/sysrq-trigger",
		"mknod /tmp/disk b 254 0",
		"mount -t devtmpfs none /mnt",
		"mount /dev/vda /mnt",
		"modprobe loop",
		"date -s 2001-01-01",
		"f=/sys/fs/cgroup/memory/memory.limit_in_bytes; test -e $f || f=/sys/fs/cgroup/memory.max; echo 99999999999 > $f",
		"kill -0 " + strconv.Itoa(os.Getpid()) + " && grep -q node.test /proc/" + strconv.Itoa(os.Getpid()) + "/cmdline",
		"nsenter -t 1 -m -p -n cat " + secret,
	} {
		// A tool that isn't there has proved nothing.
		if out, err := in(attack); err == nil || strings.Contains(out, "sh: 1:") && strings.Contains(out, "not found") {
			w.t.Errorf("%s worked or couldn't be tried: %s", attack, out)
		}
	}
	w.must("", "delete", "pod", "bad", "--wait=false")
}
