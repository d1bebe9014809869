// SPDX-License-Identifier: Apache-2.0

package testcloud

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Leftovers lists what is still there of an instance on this machine: processes,
// mounts, namespaces, cgroups, links, nftables tables, hosts entries. After
// `bastide down` it is empty.
func Leftovers(t testing.TB, c *Cloud) []string {
	t.Helper()
	left := processes(t, c)
	for _, line := range lines("/proc/self/mounts") {
		if strings.Contains(line, c.StateDir+"/") || strings.Contains(line, "/run/bastide/"+c.Name+"/") {
			left = append(left, "mount "+line)
		}
	}
	for _, line := range lines("/etc/hosts") {
		if strings.Contains(line, "bastide "+c.Name+" ") || strings.Contains(line, c.Env["BASTIDE_DOMAIN"]) {
			left = append(left, "hosts "+line)
		}
	}
	left = append(left, cgroups(c)...)
	if out, err := exec.Command("nft", "list", "tables").Output(); err == nil {
		for _, line := range strings.Split(string(out), "\n") {
			if strings.HasSuffix(line, "bastide-"+c.Name) {
				left = append(left, line)
			}
		}
	}
	if out, err := exec.Command("ip", "-o", "link", "show", "type", "veth").Output(); err == nil && strings.Contains(string(out), "alias bastide-"+c.Name) {
		left = append(left, "link "+string(out))
	}
	if names, err := filepath.Glob(filepath.Join("/run/bastide", c.Name, "*", "*")); err == nil {
		left = append(left, names...) // namespaces, routers, records of processes
	}
	return left
}

// OfClusters lists what is still there of any cluster, while the instance runs.
func OfClusters(t testing.TB, c *Cloud) []string {
	t.Helper()
	var left []string
	for _, p := range processes(t, c) {
		if strings.Contains(p, "kube") || strings.Contains(p, "containerd") || strings.Contains(p, "bastide node") {
			left = append(left, p)
		}
	}
	for _, dir := range []string{"machines/machines", "controlplanes"} {
		if names, err := filepath.Glob(filepath.Join(c.StateDir, "host", dir, "*")); err == nil {
			left = append(left, names...)
		}
	}
	return left
}

// processes are those that run from the instance's directories or name it.
func processes(t testing.TB, c *Cloud) []string {
	t.Helper()
	var found []string
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		cmdline, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil || len(cmdline) == 0 {
			continue
		}
		groups, _ := os.ReadFile(filepath.Join(dir, "cgroup"))
		text := strings.ReplaceAll(string(cmdline), "\x00", " ")
		if strings.Contains(text, c.StateDir+"/") || strings.Contains(string(groups), "/bastide-"+c.Name+"/") || strings.Contains(string(groups), "/bastide/"+c.Name+"/") {
			found = append(found, filepath.Base(dir)+" "+text)
		}
	}
	return found
}

func cgroups(c *Cloud) []string {
	var found []string
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && (strings.HasSuffix(path, "/bastide-"+c.Name) || strings.HasSuffix(path, "/bastide/"+c.Name)) {
			found = append(found, "cgroup "+path)
			return fs.SkipDir
		}
		return nil
	})
	return found
}

func lines(path string) []string {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	return strings.Split(string(text), "\n")
}
