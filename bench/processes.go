// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Process is one process and the memory that is its share (PSS): what it shares
// counts for each sharer in equal parts, so that a sum counts nothing twice.
type Process struct {
	PID   int
	Name  string  // its program's file name
	Line  string  // its command line
	Group string  // its control group, below the instance's: "machines/x/…"
	PSS   float64 // MiB
	CPU   float64 // seconds it has used so far
}

// Processes lists an instance's processes: those in its control groups, and the
// daemon, which has none, by its command line.
func Processes(instance string) []Process {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil
	}
	var found []Process
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		args := strings.Split(strings.TrimSuffix(text(dir+"/cmdline"), "\x00"), "\x00")
		line := strings.Join(args, " ")
		group, ours := groupOf(text(dir+"/cgroup"), instance)
		if !ours && strings.Contains(line, " daemon --instance "+instance+" ") {
			group, ours = "service/daemon", true
		}
		if ours && line != "" {
			found = append(found, Process{pid, filepath.Base(args[0]), line, group, pss(dir), cpu(dir)})
		}
	}
	return found
}

// groupOf finds the instance's part of /proc/PID/cgroup, in whichever hierarchy it is.
func groupOf(cgroups, instance string) (string, bool) {
	for line := range strings.Lines(cgroups) {
		if _, below, ok := strings.Cut(strings.TrimSpace(line), ":/bastide-"+instance+"/"); ok {
			return below, true
		}
	}
	return "", false
}

// pss is in MiB; 0 for a process that has ended.
func pss(dir string) float64 {
	data, err := os.ReadFile(dir + "/smaps_rollup")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, "Pss:"); ok {
			return memoryOf(strings.TrimSpace(value)) * 1024
		}
	}
	return 0
}

// cpu sums user and system time, in /proc/PID/stat's ticks of a hundredth of a second.
func cpu(dir string) float64 {
	_, rest, _ := strings.Cut(text(dir+"/stat"), ") ") // no program here has a parenthesis in its name
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0
	}
	var ticks float64
	for _, field := range fields[11:13] {
		if n, err := strconv.ParseFloat(field, 64); err == nil {
			ticks += n
		}
	}
	return ticks / 100
}

// Part tells which of the table's lines a process belongs to; "" for none:
// that are the pods.
func (p Process) Part() string {
	top, rest, _ := strings.Cut(p.Group, "/")
	switch top {
	case "service":
		return "service"
	case "controlplanes":
		return "controlplane"
	case "machines":
		_, below, _ := strings.Cut(rest, "/")
		if strings.Contains(below, "kubepods") || p.Name == "containerd-shim-runc-v2" || p.Name == "pause" {
			return ""
		}
		return "node"
	}
	return ""
}
