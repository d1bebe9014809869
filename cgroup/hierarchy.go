// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Hierarchy is one mounted cgroup file system.
type Hierarchy struct {
	Mount   string   // where, such as /sys/fs/cgroup/memory
	V2      bool     // the unified hierarchy
	Options []string // of a v1 mount: its controllers or name=…
}

// Has tells whether a v1 hierarchy carries the controller.
func (h Hierarchy) Has(controller string) bool {
	for _, option := range h.Options {
		if option == controller {
			return true
		}
	}
	return false
}

// Hierarchies lists what is mounted under /sys/fs/cgroup.
func Hierarchies() ([]Hierarchy, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list cgroup hierarchies: %w", err)
	}
	defer f.Close()
	var found []Hierarchy
	seen := map[string]bool{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		h, ok := parseMount(lines.Text())
		if ok && !seen[h.Mount] {
			seen[h.Mount] = true
			found = append(found, h)
		}
	}
	if len(found) == 0 {
		return nil, errors.New("no cgroup hierarchy is mounted under /sys/fs/cgroup")
	}
	return found, nil
}

// parseMount reads a mountinfo line: fields, " - ", type, source, super options.
func parseMount(line string) (Hierarchy, bool) {
	head, tail, ok := strings.Cut(line, " - ")
	fields, super := strings.Fields(head), strings.Fields(tail)
	if !ok || len(fields) < 5 || len(super) < 3 || !strings.HasPrefix(fields[4], "/sys/fs/cgroup") {
		return Hierarchy{}, false
	}
	switch super[0] {
	case "cgroup2":
		return Hierarchy{Mount: fields[4], V2: true}, true
	case "cgroup":
		h := Hierarchy{Mount: fields[4]}
		for option := range strings.SplitSeq(super[2], ",") {
			switch option {
			case "rw", "ro", "xattr", "clone_children", "noprefix", "cpuset_v2_mode":
			default:
				if !strings.HasPrefix(option, "release_agent=") {
					h.Options = append(h.Options, option)
				}
			}
		}
		return h, true
	}
	return Hierarchy{}, false
}

// create makes each directory of path, passing on what its children need.
func (h Hierarchy) create(path string) error {
	dir := h.Mount
	for part := range strings.SplitSeq(filepath.Clean(path), "/") {
		if h.V2 {
			if err := enableControllers(dir); err != nil {
				return err
			}
		}
		parent := dir
		dir = filepath.Join(dir, part)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if h.Has("cpuset") {
			if err := inheritCPUSet(parent, dir); err != nil {
				return err
			}
		}
	}
	return nil
}

// enableControllers gives the children of dir every controller dir has.
func enableControllers(dir string) error {
	have := read(filepath.Join(dir, "cgroup.subtree_control"))
	var missing []string
	for controller := range strings.FieldsSeq(read(filepath.Join(dir, "cgroup.controllers"))) {
		if !strings.Contains(" "+have+" ", " "+controller+" ") {
			missing = append(missing, controller)
		}
	}
	for _, controller := range missing {
		err := write(filepath.Join(dir, "cgroup.subtree_control"), "+"+controller)
		if errors.Is(err, syscall.EBUSY) {
			// A container's root group holds processes, which forbids controllers below it.
			if err = vacate(dir); err == nil {
				err = write(filepath.Join(dir, "cgroup.subtree_control"), "+"+controller)
			}
		}
		if err != nil && !errors.Is(err, syscall.ENOENT) && !errors.Is(err, syscall.EINVAL) {
			return fmt.Errorf("enable %s: %w", controller, err)
		}
	}
	return nil
}

// vacate moves the processes of dir into a leaf of it.
func vacate(dir string) error {
	leaf := filepath.Join(dir, "init")
	if err := os.Mkdir(leaf, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	for pid := range strings.FieldsSeq(read(filepath.Join(dir, "cgroup.procs"))) {
		if err := write(filepath.Join(leaf, "cgroup.procs"), pid); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
	}
	return nil
}

// inheritCPUSet: a v1 cpuset is born empty, and an empty one takes no process.
func inheritCPUSet(parent, dir string) error {
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		if read(filepath.Join(dir, name)) != "" {
			continue
		}
		if err := write(filepath.Join(dir, name), read(filepath.Join(parent, name))); err != nil {
			return err
		}
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// someCPUs picks n of the CPUs in a list such as "0-3,6", spread over groups by
// their paths; all of them when there aren't more.
func someCPUs(list string, n int, path string) string {
	var all []string
	for part := range strings.SplitSeq(list, ",") {
		from, to, isRange := strings.Cut(part, "-")
		first, err := strconv.Atoi(from)
		last := first
		if isRange && err == nil {
			last, err = strconv.Atoi(to)
		}
		if err != nil {
			return list
		}
		for cpu := first; cpu <= last; cpu++ {
			all = append(all, strconv.Itoa(cpu))
		}
	}
	if n >= len(all) {
		return list
	}
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(path)) // never fails
	start := int(hash.Sum32() % uint32(len(all)))
	return strings.Join(append(all, all...)[start:start+n], ",")
}

const period = 100_000 // µs; the kernel's own default

func (h Hierarchy) limit(path string, l Limits, cpuset bool) error {
	dir := filepath.Join(h.Mount, path)
	whole := cpuset && l.CPUs == math.Trunc(l.CPUs)
	type setting struct {
		on          bool
		name, value string
	}
	var settings []setting
	if h.V2 {
		settings = []setting{
			{l.CPUs > 0, "cpu.max", fmt.Sprintf("%d %d", int64(l.CPUs*period), period)},
			{l.Memory > 0, "memory.max", strconv.FormatInt(l.Memory, 10)},
			{l.Memory > 0 && exists(filepath.Join(dir, "memory.swap.max")), "memory.swap.max", "0"},
			{l.PIDs > 0, "pids.max", strconv.FormatInt(l.PIDs, 10)},
		}
		// Beside v1 the unified hierarchy is there without controllers.
		have := " " + read(filepath.Join(dir, "cgroup.controllers")) + " "
		for i, s := range settings {
			controller, _, _ := strings.Cut(s.name, ".")
			settings[i].on = s.on && strings.Contains(have, " "+controller+" ")
		}
	} else {
		settings = []setting{
			{l.CPUs > 0 && whole && h.Has("cpuset"), "cpuset.cpus", someCPUs(read(filepath.Join(filepath.Dir(dir), "cpuset.cpus")), int(l.CPUs), path)},
			{l.CPUs > 0 && !whole && h.Has("cpu"), "cpu.cfs_period_us", strconv.Itoa(period)},
			{l.CPUs > 0 && !whole && h.Has("cpu"), "cpu.cfs_quota_us", strconv.FormatInt(int64(l.CPUs*period), 10)},
			{l.Memory > 0 && h.Has("memory"), "memory.limit_in_bytes", strconv.FormatInt(l.Memory, 10)},
			{l.PIDs > 0 && h.Has("pids"), "pids.max", strconv.FormatInt(l.PIDs, 10)},
			// Refused once there are groups below; then it was done before they were.
			{l.Devices != nil && h.Has("devices") && strings.HasPrefix(read(filepath.Join(dir, "devices.list")), "a "), "devices.deny", "a"},
		}
		for _, rule := range l.Devices {
			settings = append(settings, setting{h.Has("devices"), "devices.allow", rule})
		}
	}
	for _, s := range settings {
		if !s.on {
			continue
		}
		if err := write(filepath.Join(dir, s.name), s.value); err != nil {
			return fmt.Errorf("%s = %s: %w", s.name, s.value, err)
		}
	}
	return nil
}
