// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"bastide.dev/fault"
	"bastide.dev/host"
)

// uid is what a pod's UID looks like: an API server's, or a static pod's hash.
var uid = regexp.MustCompile(`^[0-9a-fA-F-]{8,64}$`)

// namespace opens the network namespace of a place.
func namespace(from host.Place) (*os.File, error) {
	switch {
	case from.Netns != "":
		return open(from.Netns)
	case from.PodUID == "":
		return open(netns(from.PID))
	case !uid.MatchString(from.PodUID):
		return nil, fault.New(fault.Invalid, "", "%q is no pod's UID.", from.PodUID)
	}
	return podNamespace(from.PID, from.PodUID)
}

func netns(pid int) string { return fmt.Sprintf("/proc/%d/ns/net", pid) }

// open opens a namespace's file; anything else at the path is refused.
func open(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("network namespace: %w", err)
	}
	var stat unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &stat); err != nil || stat.Type != unix.NSFS_MAGIC {
		return nil, errors.Join(fmt.Errorf("%s is no namespace", path), err, f.Close())
	}
	return f, nil
}

// podNamespace finds a process of a pod among a machine's by its cgroup, and
// opens its network namespace. Processes come and go: the cgroup is looked at
// again when the namespace is open, so that it is that process' own.
func podNamespace(machine int, pod string) (*os.File, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("processes: %w", err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || !inPod(pid, pod) || !descends(pid, machine) {
			continue
		}
		ns, err := open(netns(pid))
		if err != nil {
			continue // it ended
		}
		if inPod(pid, pod) && descends(pid, machine) {
			return ns, nil
		}
		if err := ns.Close(); err != nil {
			return nil, fmt.Errorf("network namespace: %w", err)
		}
	}
	return nil, fault.New(fault.NotFound, "", "Pod %s has no process on its machine.", pod)
}

// inPod tells whether a process' cgroup is one of a pod, as kubelet's drivers
// name them: "pod" and the UID, of which systemd's has its dashes as underscores.
func inPod(pid int, pod string) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return false
	}
	return bytes.Contains(text, []byte("pod"+pod)) || bytes.Contains(text, []byte("pod"+strings.ReplaceAll(pod, "-", "_")))
}

// descends tells whether a process is a child of a child … of another.
func descends(pid, ancestor int) bool {
	for range 64 {
		if pid == ancestor {
			return true
		}
		if pid = parent(pid); pid <= 1 {
			return false
		}
	}
	return false
}

// parent reads a process' parent; what comes before it in stat is a name in
// brackets, which may hold anything.
func parent(pid int) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 2 {
		return 0
	}
	n, err := strconv.Atoi(fields[1])
	if err != nil {
		return 0
	}
	return n
}
