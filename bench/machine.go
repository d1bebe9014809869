// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
)

// Machine is where figures were measured.
type Machine struct {
	CPU    string  `json:"cpu"`
	Cores  int     `json:"cores"`
	Memory float64 `json:"memoryGiB"`
	Kernel string  `json:"kernel"`
	Go     string  `json:"go"`
	Commit string  `json:"commit"`
}

// ThisMachine describes where it runs; what can't be found out stays empty.
func ThisMachine() Machine {
	return Machine{
		CPU: valueOf("/proc/cpuinfo", "model name"), Cores: runtime.NumCPU(), Memory: memoryOf(valueOf("/proc/meminfo", "MemTotal")),
		Kernel: text("/proc/sys/kernel/osrelease"), Go: runtime.Version(), Commit: commit(),
	}
}

func (m Machine) String() string {
	return fmt.Sprintf("%s, %d cores, %.0f GiB, Linux %s, %s, commit %s", m.CPU, m.Cores, m.Memory, m.Kernel, m.Go, m.Commit)
}

// valueOf finds "key : value" in one of proc's files.
func valueOf(path, key string) string {
	for line := range strings.Lines(text(path)) {
		name, value, ok := strings.Cut(line, ":")
		if ok && strings.TrimSpace(name) == key {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func memoryOf(value string) float64 {
	kib, err := strconv.ParseFloat(strings.TrimSuffix(value, " kB"), 64)
	if err != nil {
		return 0
	}
	return kib / (1 << 20)
}

func text(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

func commit() string {
	out, err := exec.Command("git", "describe", "--always", "--dirty").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}
