// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"bastide.dev/node"
)

// viewDir holds what kubelet reads instead of the kernel's own tables: they
// tell of the computer beneath, and a node's capacity is its machine's.
const viewDir = "/run/bastide/view"

// covers lists what lies over what, in kubelet's mount namespace alone: over
// the machine's own /proc it would keep containers from mounting theirs.
var covers = []struct{ name, path string }{
	{"meminfo", "/proc/meminfo"},
	{"cpuinfo", "/proc/cpuinfo"},
	{"cpu", "/sys/devices/system/cpu"},
	{"node", "/sys/devices/system/node"},
}

// makeView writes the tables for a machine of the config's size.
func makeView(config node.Config) error {
	memory, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return err
	}
	cpu, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{
		"meminfo":    meminfo(memory, config.Memory),
		"cpuinfo":    cpuinfo(cpu, config.CPUs),
		"cpu/online": fmt.Appendf(nil, "0-%d\n", config.CPUs-1),
	} {
		if err := writeFile(node.File{Path: filepath.Join(viewDir, name), Mode: 0o444, Data: content}); err != nil {
			return err
		}
	}
	// CPUs to be counted, without a topology: kubelet would tie its pods to the
	// CPUs of these numbers, of which the computer has others, or fewer.
	for i := range config.CPUs {
		if err := os.MkdirAll(filepath.Join(viewDir, fmt.Sprintf("cpu/cpu%d", i)), 0o755); err != nil {
			return err
		}
	}
	return os.MkdirAll(filepath.Join(viewDir, "node"), 0o755)
}

// meminfo is the kernel's table with the machine's memory, all free, and no swap.
func meminfo(host []byte, memory int64) []byte {
	var out bytes.Buffer
	for line := range bytes.Lines(host) {
		name, _, _ := strings.Cut(string(line), ":")
		switch name {
		case "MemTotal", "MemFree", "MemAvailable":
			fmt.Fprintf(&out, "%-16s%8d kB\n", name+":", memory>>10)
		case "SwapTotal", "SwapFree", "SwapCached", "HugePages_Total", "HugePages_Free":
			fmt.Fprintf(&out, "%-16s%8d kB\n", name+":", 0)
		default:
			out.Write(line)
		}
	}
	return out.Bytes()
}

// cpuinfo is the kernel's first processor, as many times as the machine has CPUs.
func cpuinfo(host []byte, cpus int) []byte {
	first, _, _ := bytes.Cut(host, []byte("\n\n"))
	var out bytes.Buffer
	for i := range cpus {
		for line := range strings.Lines(string(first) + "\n") {
			name, _, _ := strings.Cut(line, "\t")
			switch strings.TrimSpace(name) {
			case "processor", "core id", "apicid", "initial apicid":
				fmt.Fprintf(&out, "%s\t: %d\n", name, i)
			case "siblings", "cpu cores":
				fmt.Fprintf(&out, "%s\t: %d\n", name, cpus)
			case "physical id":
				fmt.Fprintf(&out, "%s\t: 0\n", name)
			default:
				out.WriteString(line)
			}
		}
		out.WriteByte('\n')
	}
	return out.Bytes()
}

// view replaces this process by args, in a mount namespace that shares all
// mounts with the machine's, volumes above all, but for what covers lists.
func view(args []string) error {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare mounts: %w", err)
	}
	for _, tree := range []string{"/proc", "/sys"} {
		if err := unix.Mount("", tree, "", unix.MS_PRIVATE, ""); err != nil {
			return fmt.Errorf("make %s private: %w", tree, err)
		}
	}
	for _, c := range covers {
		if _, err := os.Stat(c.path); err != nil {
			continue // a kernel without NUMA has no nodes
		}
		if err := unix.Mount(filepath.Join(viewDir, c.name), c.path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("cover %s: %w", c.path, err)
		}
	}
	path, err := exec.LookPath(args[0])
	if err != nil {
		return err
	}
	return fmt.Errorf("exec %s: %w", path, syscall.Exec(path, args, os.Environ()))
}
