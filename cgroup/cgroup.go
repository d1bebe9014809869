// SPDX-License-Identifier: Apache-2.0

// Package cgroup makes, fills, kills and removes control groups, the same way
// on cgroup v1, v2 and both at once: a group is one path that exists in every
// hierarchy the machine has.
//
// It is mechanism for machine/linux, supervise and controlplane/linux; it
// imports the standard library alone and only ever touches the paths it is given.
package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Limits bounds a group. Zero values leave the kernel's default.
type Limits struct {
	// CPUs is how many CPUs' worth of time there is. On v1 the kernel refuses a
	// group below a larger quota than its parent's, which a pod's limit above its
	// node's size is: so there a whole number becomes a cpuset, and only a
	// fraction a quota.
	CPUs   float64
	Memory int64 // bytes
	PIDs   int64
	// Devices lists what may be opened ("c 1:3 rw"), all else being denied; nil
	// denies nothing. It needs v1: on v2 a user namespace has to see to it.
	Devices []string
}

// Create makes the group at path ("bastide-dev/machines/a", no leading slash) in
// every hierarchy and sets its limits. A group that exists gets the new limits.
func Create(path string, limits Limits) error {
	hierarchies, err := Hierarchies()
	if err != nil {
		return err
	}
	cpuset := slices.ContainsFunc(hierarchies, func(h Hierarchy) bool { return h.Has("cpuset") })
	for _, h := range hierarchies {
		if err := h.create(path); err != nil {
			return fmt.Errorf("create cgroup %s in %s: %w", path, h.Mount, err)
		}
		if err := h.limit(path, limits, cpuset); err != nil {
			return fmt.Errorf("limit cgroup %s in %s: %w", path, h.Mount, err)
		}
	}
	return nil
}

// Add moves a process into the group.
func Add(path string, pid int) error {
	return each(func(h Hierarchy) error {
		return write(filepath.Join(h.Mount, path, "cgroup.procs"), strconv.Itoa(pid))
	})
}

// Own lets uid and gid make groups below path and move processes among them.
// The limits of path itself stay out of their reach.
func Own(path string, uid, gid int) error {
	return each(func(h Hierarchy) error {
		for _, name := range []string{".", "cgroup.procs", "tasks", "cgroup.subtree_control", "cgroup.threads"} {
			err := os.Chown(filepath.Join(h.Mount, path, name), uid, gid)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		return nil
	})
}

// Procs returns the processes in the group and all groups below it; none when
// the group doesn't exist.
func Procs(path string) ([]int, error) {
	seen := map[int]bool{}
	var pids []int
	err := each(func(h Hierarchy) error {
		return walk(filepath.Join(h.Mount, path), func(dir string) error {
			data, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
			if gone(err) {
				return nil
			}
			if err != nil {
				return err
			}
			for _, field := range bytes.Fields(data) {
				pid, err := strconv.Atoi(string(field))
				// Zero stands for a process that this pid namespace can't see.
				if err == nil && pid > 0 && !seen[pid] {
					seen[pid] = true
					pids = append(pids, pid)
				}
			}
			return nil
		})
	})
	return pids, err
}

// Kill ends every process in the group and below, also those forked meanwhile,
// and returns when none is left or after two seconds.
func Kill(path string) error {
	deadline := time.Now().Add(2 * time.Second)
	for pause := time.Millisecond; ; pause = min(2*pause, 20*time.Millisecond) {
		// v2's cgroup.kill is atomic; where only v1 is, killing until none is left comes close.
		if err := each(func(h Hierarchy) error {
			if !h.V2 {
				return nil
			}
			err := write(filepath.Join(h.Mount, path, "cgroup.kill"), "1")
			if gone(err) {
				return nil
			}
			return err
		}); err != nil {
			return err
		}
		pids, err := Procs(path)
		if err != nil || len(pids) == 0 {
			return err
		}
		for _, pid := range pids {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("kill %d: %w", pid, err)
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("cgroup %s: %d processes survive SIGKILL", path, len(pids))
		}
		time.Sleep(pause)
	}
}

// Delete kills what is in the group and removes it with all groups below it.
// What isn't there is no error.
func Delete(path string) error {
	if err := Kill(path); err != nil {
		return err
	}
	return each(func(h Hierarchy) error {
		var dirs []string
		if err := walk(filepath.Join(h.Mount, path), func(dir string) error {
			dirs = append(dirs, dir)
			return nil
		}); err != nil {
			return err
		}
		for i := len(dirs) - 1; i >= 0; i-- {
			if err := remove(dirs[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

// remove waits out the moment in which a dead process still counts.
func remove(dir string) error {
	deadline := time.Now().Add(2 * time.Second)
	for {
		err := os.Remove(dir)
		if err == nil || gone(err) {
			return nil
		}
		if !errors.Is(err, syscall.EBUSY) || time.Now().After(deadline) {
			return err
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func each(do func(Hierarchy) error) error {
	hierarchies, err := Hierarchies()
	if err != nil {
		return err
	}
	for _, h := range hierarchies {
		if err := do(h); err != nil {
			return err
		}
	}
	return nil
}

// walk visits root and all directories below it, parents first.
func walk(root string, visit func(dir string) error) error {
	entries, err := os.ReadDir(root)
	if gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := visit(root); err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.IsDir() {
			if err := walk(filepath.Join(root, entry.Name()), visit); err != nil {
				return err
			}
		}
	}
	return nil
}

func write(path, value string) error {
	// Never O_CREATE: a file that isn't there is a controller that isn't there.
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// gone tells that a group vanished, also between opening and reading it.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV)
}

func read(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}
