// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"bastide.dev/node"
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

// openToAll tells whether programs in a directory can be run by the users that an
// instance runs them as: none of them is root, or owns anything there.
func openToAll(dir string) error {
	for at := filepath.Clean(dir); ; at = filepath.Dir(at) {
		info, err := os.Stat(at)
		switch {
		case errors.Is(err, fs.ErrNotExist): // partsThere says so
		case err != nil:
			return fmt.Errorf("look at %s: %w", at, err)
		case info.Mode().Perm()&0o001 == 0:
			return fmt.Errorf("%s is closed to others, so that nobody but root could run what is in %s: chmod o+x %s", at, dir, at)
		}
		if at == "/" {
			return nil
		}
	}
}

// fullDisk warns of a disk on which nodes can't keep pods; "" when there is room.
func fullDisk(dir string) string {
	var stat unix.Statfs_t
	for unix.Statfs(dir, &stat) != nil && dir != "/" {
		dir = filepath.Dir(dir) // it isn't made yet
	}
	if stat.Blocks == 0 {
		return ""
	}
	free := float64(stat.Bavail) / float64(stat.Blocks) * 100
	if free >= node.EvictionDisk+2 {
		return ""
	}
	return fmt.Sprintf("! Only %.0f %% of the disk of %s is free. Below %d %% nodes, which share it, evict pods and take no new ones, as AKS's do.", free, dir, node.EvictionDisk)
}
