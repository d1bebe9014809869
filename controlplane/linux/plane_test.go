// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"bufio"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"bastide.dev/controlplane"
)

func TestReadyQuicklyAndSmall(t *testing.T) {
	r := newRig(t)
	spec := r.spec("c1")
	r.cloud(&spec)
	begin := time.Now()
	r.apply(spec)
	applied := time.Since(begin)
	r.until("c1", "running its controllers", func(s controlplane.Status) bool { return pid(s, controlplane.ControllerManager) != 0 })
	serving := time.Since(begin)
	admin := r.admin(spec)
	admin.node("n1")
	eventually(t, "CoreDNS has pods", func() bool {
		code, body := admin.do("GET", "/api/v1/namespaces/kube-system/pods?labelSelector=k8s-app%3Dkube-dns", nil)
		return code == 200 && strings.Contains(string(body), `"coredns-`)
	})
	pods := time.Since(begin)
	status := r.until("c1", "ready", ready)
	t.Logf("applied in %v, default rights in %v, pods of CoreDNS in %v, ready in %v", applied, serving, pods, time.Since(begin))
	if status.Version != "1.36.3" {
		t.Errorf("version %q", status.Version)
	}
	time.Sleep(10 * time.Second)
	total := 0
	for _, p := range r.Status("c1").Processes {
		pss := pssKiB(t, p.PID, "Pss:")
		t.Logf("%-24s %4d MiB PSS, %3d of it anonymous, cpu %v", p.Name, pss>>10, pssKiB(t, p.PID, "Pss_Anon:")>>10, cpu(t, p.PID))
		total += pss
	}
	t.Logf("%-24s %4d MiB PSS", "all", total>>10)
	// Alone on a machine, a control plane carries all of the binaries' pages.
	if total > 470<<10 {
		t.Errorf("%d MiB PSS", total>>10)
	}
}

func cpu(t *testing.T, pid int) time.Duration {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	u, _ := strconv.Atoi(fields[11])
	s, _ := strconv.Atoi(fields[12])
	return time.Duration(u+s) * 10 * time.Millisecond
}

func pssKiB(t *testing.T, pid int, kind string) int {
	t.Helper()
	f, err := os.Open(filepath.Join("/proc", strconv.Itoa(pid), "smaps_rollup"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), kind); ok {
			n, err := strconv.Atoi(strings.Fields(value)[0])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no PSS of %d", pid)
	return 0
}
