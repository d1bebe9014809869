// SPDX-License-Identifier: Apache-2.0

package testcloud_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"bastide.dev/testcloud"
)

// victim is a process of the instance that a test may kill.
type victim struct {
	role string // "serve", "kube-apiserver", "machine", …
	pid  int
	name string // for the log
}

// roles are what `kill -9` may hit: the service's own processes, every program
// of a control plane, and a machine's PID 1.
var roles = []string{
	"serve", "host", "service etcd", "daemon",
	"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "machine",
}

// victims finds them by their control groups; the daemon, which has none, by
// its command line.
func victims(c *testcloud.Cloud) []victim {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	var found []victim
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		if v, ok := victimOf(c.Name, read(dir, "cgroup"), strings.ReplaceAll(read(dir, "cmdline"), "\x00", " "), read(dir, "status")); ok {
			v.pid = pid
			found = append(found, v)
		}
	}
	slices.SortFunc(found, func(a, b victim) int { return strings.Compare(a.name, b.name) })
	return found
}

func victimOf(instance, groups, command, status string) (victim, bool) {
	if strings.Contains(command, " daemon --instance "+instance+" ") {
		return victim{role: "daemon", name: "daemon"}, true
	}
	group := groupBelow(instance, groups)
	parts := strings.Split(group, "/")
	switch {
	case command == "" || len(parts) < 2:
		return victim{}, false
	case parts[0] == "service" && parts[1] == "etcd":
		return victim{role: "service etcd", name: group}, true
	case parts[0] == "service":
		return victim{role: parts[1], name: group}, slices.Contains(roles, parts[1])
	case parts[0] == "controlplanes" && len(parts) == 3:
		role := strings.TrimSuffix(parts[2], "-b") // of two API servers, while one follows the other
		return victim{role: role, name: group}, slices.Contains(roles, role)
	case parts[0] == "machines" && firstOfItsMachine(status):
		return victim{role: "machine", name: group}, true
	}
	return victim{}, false
}

// groupBelow is the instance's part of a process's cgroup, in whichever hierarchy it is.
func groupBelow(instance, groups string) string {
	for line := range strings.Lines(groups) {
		if _, below, ok := strings.Cut(strings.TrimSpace(line), ":/bastide-"+instance+"/"); ok {
			return below
		}
	}
	return ""
}

// firstOfItsMachine tells a machine's PID 1 from that of a pod, which is one namespace deeper.
func firstOfItsMachine(status string) bool {
	for line := range strings.Lines(status) {
		if numbers, ok := strings.CutPrefix(line, "NSpid:"); ok {
			fields := strings.Fields(numbers)
			return len(fields) == 2 && fields[1] == "1"
		}
	}
	return false
}

func read(parts ...string) string {
	data, err := os.ReadFile(filepath.Join(parts...))
	if err != nil {
		return ""
	}
	return string(data)
}

// kill ends a random process of a random role that has one now.
func kill(random *rand.Rand, c *testcloud.Cloud) (victim, error) {
	all := victims(c)
	for _, i := range random.Perm(len(roles)) {
		var candidates []victim
		for _, v := range all {
			if v.role == roles[i] {
				candidates = append(candidates, v)
			}
		}
		if len(candidates) == 0 {
			continue
		}
		v := candidates[random.IntN(len(candidates))]
		return v, syscall.Kill(v.pid, syscall.SIGKILL)
	}
	return victim{}, fmt.Errorf("instance %s has no process to kill", c.Name)
}
