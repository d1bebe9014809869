// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

func group(t *testing.T, limits Limits) string {
	t.Helper()
	path := "cgroup-test-" + strconv.Itoa(os.Getpid()) + "/" + t.Name()
	t.Cleanup(func() {
		if err := Delete(filepath.Dir(path)); err != nil {
			t.Error(err)
		}
	})
	if err := Create(path, limits); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLifeOfAGroup(t *testing.T) {
	path := group(t, Limits{CPUs: 0.5, Memory: 64 << 20, PIDs: 50})
	if err := Create(path, Limits{CPUs: 1, Memory: 64 << 20}); err != nil {
		t.Fatalf("again: %v", err)
	}
	cmd := exec.Command("sh", "-c", "sleep 1000 & sleep 1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := Add(path, cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	pids, err := Procs(path)
	if err != nil || !slices.Contains(pids, cmd.Process.Pid) {
		t.Fatalf("Procs = %v, %v; want %d among them", pids, err, cmd.Process.Pid)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	if err := Delete(path); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(2 * time.Minute):
		t.Fatal("the process outlived its group")
	}
	hierarchies, err := Hierarchies()
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range hierarchies {
		if _, err := os.Stat(filepath.Join(h.Mount, path)); !os.IsNotExist(err) {
			t.Errorf("%s left in %s: %v", path, h.Mount, err)
		}
	}
	if err := Delete(path); err != nil {
		t.Errorf("deleting nothing: %v", err)
	}
}

func TestMemoryLimitKills(t *testing.T) {
	path := group(t, Limits{Memory: 32 << 20})
	// The shell waits for its group before it starts to eat.
	cmd := exec.Command("sh", "-c", "read go; exec tail /dev/zero")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := Add(path, cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if _, err := stdin.Write([]byte("go\n")); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || err.Error() != "signal: killed" {
		t.Fatalf("a process over its limit ended with %v", err)
	}
}

func TestParseMount(t *testing.T) {
	for line, want := range map[string]Hierarchy{
		"36 25 0:30 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory":           {Mount: "/sys/fs/cgroup/memory", Options: []string{"memory"}},
		"36 25 0:30 / /sys/fs/cgroup/cpu,cpuacct rw shared:3 - cgroup cgroup rw,cpu,cpuacct": {Mount: "/sys/fs/cgroup/cpu,cpuacct", Options: []string{"cpu", "cpuacct"}},
		"36 25 0:30 / /sys/fs/cgroup/systemd rw - cgroup none rw,xattr,name=systemd":         {Mount: "/sys/fs/cgroup/systemd", Options: []string{"name=systemd"}},
		"36 25 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate":     {Mount: "/sys/fs/cgroup", V2: true},
		"36 25 0:30 / /proc rw - proc proc rw":                                               {},
		"36 25 0:30 / /var/lib/machines/x/sys/fs/cgroup/memory rw - cgroup cgroup rw,memory": {},
	} {
		got, _ := parseMount(line)
		if got.Mount != want.Mount || got.V2 != want.V2 || !slices.Equal(got.Options, want.Options) {
			t.Errorf("%s\n got %+v\nwant %+v", line, got, want)
		}
	}
}

func TestLimitBelowMayBeLarger(t *testing.T) {
	path := group(t, Limits{CPUs: 1})
	// What kubelet does for a pod whose CPU limit is above its node's size.
	if err := Create(path+"/pod", Limits{CPUs: 2.5}); err != nil {
		t.Error(err)
	}
}

func TestSomeCPUs(t *testing.T) {
	for _, c := range []struct {
		list  string
		n     int
		count int
	}{{"0-3", 2, 2}, {"0-3", 4, 4}, {"0-1", 8, 2}, {"0,2,5", 1, 1}, {"7", 1, 1}} {
		got := someCPUs(c.list, c.n, "some/path")
		if c.n > c.count && got != c.list {
			t.Errorf("someCPUs(%q, %d) = %q", c.list, c.n, got)
		}
		if all := strings.Split(got, ","); !strings.Contains(got, "-") && len(all) != c.count {
			t.Errorf("someCPUs(%q, %d) = %q, want %d CPUs", c.list, c.n, got, c.count)
		}
	}
}
