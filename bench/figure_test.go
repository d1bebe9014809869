// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"os"
	"strings"
	"testing"
)

func TestMedianAndPercentile(t *testing.T) {
	for _, c := range []struct {
		samples     []float64
		median, p99 float64
	}{
		{nil, 0, 0},
		{[]float64{7}, 7, 7},
		{[]float64{3, 1, 2}, 2, 3},
		{[]float64{4, 1, 3, 2}, 2.5, 4},
	} {
		if got := Median(c.samples); got != c.median {
			t.Errorf("median of %v: %v", c.samples, got)
		}
		if got := Percentile(c.samples, 99); got != c.p99 {
			t.Errorf("p99 of %v: %v", c.samples, got)
		}
	}
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[i] = float64(100 - i)
	}
	if got := Percentile(hundred, 99); got != 99 {
		t.Errorf("p99 of 1…100: %v", got)
	}
}

func TestVerdict(t *testing.T) {
	for _, c := range []struct {
		figure Figure
		want   string
	}{
		{NewFigure("a", "s", []float64{1}), ""},
		{NewFigure("a", "s", []float64{1}).Against(AtMost, 1), "reached"},
		{NewFigure("a", "s", []float64{1.1}).Against(AtMost, 1), "NOT REACHED"},
		{NewFigure("a", "/s", []float64{1.1}).Against(AtLeast, 1), "reached"},
		{NewFigure("a", "/s", []float64{0.9}).Against(AtLeast, 1), "NOT REACHED"},
		{NewFigure("a", "s", nil).Against(AtMost, 1), "NOT MEASURED"},
		{NewFigure("a", "s", []float64{1, 1, 9}).Against(AtMost, 2), "reached"},
		{NewTail("a", "s", 95, []float64{1, 1, 9}).Against(AtMost, 2), "NOT REACHED"},
	} {
		if got := c.figure.Verdict(); got != c.want {
			t.Errorf("%+v: %q, not %q", c.figure, got, c.want)
		}
	}
}

func TestParts(t *testing.T) {
	const v1 = "9:name=systemd:/bastide-a/machines/m1/kubelet\n0::/\n"
	if group, ok := groupOf(v1, "a"); !ok || group != "machines/m1/kubelet" {
		t.Errorf("%q %v", group, ok)
	}
	if _, ok := groupOf(v1, "b"); ok {
		t.Error("another instance's process is taken for ours")
	}
	if _, ok := groupOf("0::/bastide-ab/service/etcd\n", "a"); ok {
		t.Error("an instance whose name ours begins is taken for ours")
	}
	for _, c := range []struct {
		process Process
		want    string
	}{
		{Process{Group: "service/etcd", Name: "etcd"}, "service"},
		{Process{Group: "controlplanes/c/kube-apiserver", Name: "kube-apiserver"}, "controlplane"},
		{Process{Group: "machines/m1", Name: "kubelet"}, "node"},
		{Process{Group: "machines/m1/kubepods/burstable/podx/y", Name: "coredns"}, ""},
		{Process{Group: "machines/m1", Name: "containerd-shim-runc-v2"}, ""},
	} {
		if got := c.process.Part(); got != c.want {
			t.Errorf("%+v: %q", c.process, got)
		}
	}
	if got := pss("/proc/self"); got < 0.5 {
		t.Errorf("our own PSS: %v MiB", got)
	}
	for begin := cpu("/proc/self"); cpu("/proc/self") < begin+0.02; { // our own time passes
		_ = Percentile(make([]float64, 10_000), 50)
	}
}

func TestResults(t *testing.T) {
	r := Results{Date: "2026-11-21", Machine: ThisMachine(), Problems: []string{"a lie"},
		Figures: []Figure{NewFigure("create", "s", []float64{1.234}).Against(AtMost, 2).With("floor 1 s", "why")}}
	if r.Machine.Cores < 1 || r.Machine.Memory <= 0 || r.Machine.Kernel == "" {
		t.Errorf("%+v", r.Machine)
	}
	var b strings.Builder
	if err := r.Print(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"1.23 s", "at most 2 s", "floor 1 s", "reached", "create: why", "PROBLEM: a lie"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q isn't in\n%s", want, &b)
		}
	}
	path := t.TempDir() + "/r.json"
	if err := r.Write(path); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(path); err != nil || !strings.Contains(string(data), `"samples"`) {
		t.Errorf("%v %s", err, data)
	}
}
