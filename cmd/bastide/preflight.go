// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// preflight finds what this machine lacks, all at once and before anything is made.
func preflight() error {
	var missing []error
	lacks := func(format string, args ...any) {
		missing = append(missing, fmt.Errorf("this machine lacks "+format, args...))
	}
	for _, ns := range []string{"user", "mnt", "pid", "net", "uts", "ipc", "cgroup"} {
		if _, err := os.Stat("/proc/self/ns/" + ns); err != nil {
			lacks("%s namespaces in its kernel", ns)
		}
	}
	if text, err := os.ReadFile("/proc/sys/user/max_user_namespaces"); err == nil && strings.TrimSpace(string(text)) == "0" {
		lacks("user namespaces: sysctl user.max_user_namespaces is 0")
	}
	if text, err := os.ReadFile("/proc/filesystems"); err == nil && !strings.Contains(string(text), "\toverlay\n") {
		if exec.Command("modprobe", "overlay").Run() != nil {
			lacks("overlayfs in its kernel")
		}
	}
	var stat unix.Statfs_t
	if err := unix.Statfs("/sys/fs/cgroup", &stat); err != nil || (stat.Type != unix.CGROUP2_SUPER_MAGIC && stat.Type != unix.TMPFS_MAGIC) {
		lacks("cgroups mounted at /sys/fs/cgroup (v1 or v2)")
	}
	return errors.Join(missing...)
}
