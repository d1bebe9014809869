// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"bastide.dev/cgroup"
)

// TestNoEscape is what a machine's root must not be able to do. Each attempt
// has to fail, and for the reason that the kernel forbids it.
func TestNoEscape(t *testing.T) {
	w := newWorld(t)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("the host's"), 0o666); err != nil {
		t.Fatal(err)
	}
	w.up(spec("bad"))
	w.up(spec("good"))
	w.must("good", "write", "/etc/own", "the other machine's")

	var root unix.Stat_t
	if err := unix.Stat("/", &root); err != nil {
		t.Fatal(err)
	}
	handle, _, err := unix.NameToHandleAt(unix.AT_FDCWD, secret, 0)
	if err != nil {
		t.Fatal(err)
	}
	disk := fmt.Sprintf("%d:%d", unix.Major(root.Dev), unix.Minor(root.Dev))
	const big = "/var/lib/containerd/blobs/big"
	forbidden := []string{"operation not permitted", "permission denied", "read-only file system"}
	absent := append(forbidden, "no such file or directory", "no such process", "function not implemented", "no such device", "not a block device", "block device required")
	for attempt, reasons := range map[string][]string{
		// files of the host
		"read " + secret:                     absent,
		"read /proc/1/root" + secret:         absent,
		"list /proc/1/root" + w.cfg.StateDir: absent,
		fmt.Sprintf("open-by-handle %d %x", handle.Type(), handle.Bytes()): append(forbidden, "stale file handle"),
		"put " + big + " x":       forbidden,
		"truncate " + big:         forbidden,
		"chmod " + big:            forbidden,
		"chown " + big:            forbidden,
		"put " + agentPath + " x": append(forbidden, "text file busy"),
		"chmod " + agentPath:      forbidden,
		// devices
		"mknod-block " + disk:   forbidden,
		"mknod-char 1:1":        forbidden,
		"read /dev/mem":         absent,
		"read /dev/kmsg":        absent,
		"mount devtmpfs none":   forbidden,
		"mount ext4 /dev/vda":   absent,
		"mount debugfs none":    forbidden,
		"mount securityfs none": forbidden,
		// the kernel
		"put /proc/sysrq-trigger h":             absent,
		"put /proc/sys/kernel/core_pattern |/x": forbidden,
		"put /proc/sys/kernel/panic 1":          forbidden,
		"put /proc/sys/kernel/printk 7":         forbidden,
		"put /proc/sys/vm/overcommit_memory 1":  forbidden,
		"put /proc/sys/vm/drop_caches 3":        forbidden,
		"put /proc/sys/fs/file-max 9":           forbidden,
		"load-module":                           absent,
		"kexec":                                 absent,
		"settime":                               forbidden,
		"iopl":                                  absent,
		"swapon":                                forbidden,
		"clear-kernel-log":                      forbidden,
		// the control group
		"mount-cgroup memory,release_agent=/x": append(forbidden, "device or resource busy", "invalid argument"),
		// processes of others
		"kill " + strconv.Itoa(os.Getpid()):                absent,
		"list /proc/" + strconv.Itoa(w.status("good").PID): absent,
	} {
		out, ok := w.in("bad", strings.Fields(attempt)...)
		if ok || !mentions(out, reasons) {
			t.Errorf("%s: succeeded %v: %s", attempt, ok, out)
		}
	}
	w.noLimitCanBeRaised("bad")

	// /sys is writable as a mount, but all that counts in it belongs to the host's root.
	for _, path := range []string{"/sys/power/state", "/sys/kernel/mm/ksm/run", "/sys/kernel/uevent_seqnum", "/sys/class/block/vda/uevent"} {
		if out, ok := w.in("bad", "put", path, "1"); ok || !mentions(out, absent) {
			t.Errorf("%s: %v %s", path, ok, out)
		}
	}
	if got, err := os.ReadFile(secret); err != nil || string(got) != "the host's" {
		t.Errorf("the host's file: %q, %v", got, err)
	}
}

// noLimitCanBeRaised: what the machine sees as the root of its hierarchies has
// no file of limits that it could write, though it may make groups below.
func (w *world) noLimitCanBeRaised(id string) {
	w.t.Helper()
	hierarchies, err := cgroup.Hierarchies()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, h := range hierarchies {
		for _, limit := range []string{"memory.limit_in_bytes", "memory.max", "cpu.cfs_quota_us", "cpu.max", "pids.max", "devices.allow", "cpuset.cpus", "notify_on_release", "release_agent"} {
			path := filepath.Join(h.Mount, limit)
			out, ok := w.in(id, "put", path, "1000000")
			if ok || !mentions(out, []string{"permission denied", "operation not permitted", "no such file"}) {
				w.t.Errorf("%s: succeeded %v: %s", path, ok, out)
			}
		}
		w.must(id, "mkdir", filepath.Join(h.Mount, "sub"))
	}
}

func TestKillAllReachesOnlyItsOwn(t *testing.T) {
	w := newWorld(t)
	bystander := exec.Command("sleep", "1000")
	if err := bystander.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = bystander.Process.Kill(), bystander.Wait() }()
	w.up(spec("bad"))
	good := w.up(spec("good"))
	w.must("bad", "leave")
	w.must("bad", "kill", "-1")
	if !alive(bystander.Process.Pid) || !alive(good.PID) || w.status("good").Phase != "Running" {
		t.Error("kill(-1) in a machine reached beyond it")
	}
}

func TestHostNameIsItsOwn(t *testing.T) {
	w := newWorld(t)
	before, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	w.up(spec("bad"))
	w.must("bad", "sethostname", "taken")
	if after, err := os.Hostname(); err != nil || after != before {
		t.Errorf("the host's name became %s", after)
	}
}

func mentions(text string, any []string) bool {
	for _, word := range any {
		if strings.Contains(text, word) {
			return true
		}
	}
	return false
}
