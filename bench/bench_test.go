// SPDX-License-Identifier: Apache-2.0

//go:build bench

package bench

import (
	"fmt"
	"os"
	"testing"
	"time"

	"bastide.dev/bundle"
	"bastide.dev/testcloud"
)

// runs is how often each figure is taken; the table shows the median.
const runs = 5

var kubernetesVersion = bundle.KubernetesVersions()[0]

// report collects what is measured.
type report struct {
	Results
	floor float64 // seconds
}

func (r *report) add(f Figure)       { r.Figures = append(r.Figures, f) }
func (r *report) problem(err error)  { r.Problems = append(r.Problems, err.Error()) }
func say(format string, args ...any) { fmt.Printf("bench: "+format+"\n", args...) }

// TestBench measures everything in one run. A target that isn't reached is in
// the table and fails nothing; a promise that isn't kept is a problem, and does.
func TestBench(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("the benchmark needs root: it starts an instance")
	}
	r := &report{Results: Results{Date: time.Now().UTC().Format(time.RFC3339), Machine: ThisMachine()}}
	t.Run("floor", func(t *testing.T) { benchFloor(t, r) })
	cloud := testcloud.Start(t, instanceName, "--public-pool", pool)
	o := newOutsider(t, cloud, 32)
	parts := []struct {
		name string
		do   func(t *testing.T)
	}{
		{"life", func(t *testing.T) { benchLife(t, r, o) }},
		{"idle", func(*testing.T) { benchIdle(r, o) }},
		{"reads", func(t *testing.T) { benchReads(t, r, o) }},
		{"network", func(t *testing.T) { benchNetwork(t, r, o) }},
		{"identity", func(t *testing.T) { benchIdentity(t, r, o) }},
		{"lifecycle", func(t *testing.T) { benchLifecycle(t, r, o) }},
		{"many", func(*testing.T) { benchMany(r, o) }},
	}
	ran := 0
	for _, part := range parts {
		t.Run(part.name, func(t *testing.T) {
			ran++
			o.t = t
			part.do(t)
		})
	}
	o.t = t
	if err := r.Print(os.Stdout); err != nil {
		t.Error(err)
	}
	// A part alone (-run TestBench/network) leaves the last whole run's file.
	if ran == len(parts) && r.floor > 0 {
		if err := r.Write("results.json"); err != nil {
			t.Error(err)
		}
	}
	for _, p := range r.Problems {
		t.Error(p)
	}
}

func benchFloor(t *testing.T, r *report) {
	var planes, nodes, sums []float64
	for i := range runs {
		plane, node := measureFloor(t)
		planes, nodes, sums = append(planes, plane), append(nodes, node), append(sums, plane+node)
		say("floor %d: etcd + kube-apiserver %.2f s, containerd + kubelet %.2f s", i+1, plane, node)
	}
	r.floor = Median(sums)
	r.add(NewFigure("floor: bare etcd + kube-apiserver to /readyz", "s", planes))
	r.add(NewFigure("floor: bare containerd + kubelet to Ready", "s", nodes))
	r.add(NewFigure("floor: both", "s", sums))
}

// benchLife makes, scales and deletes a cluster, again and again.
func benchLife(t *testing.T, r *report, o *outsider) {
	var create, scale, remove []float64
	for i := range runs {
		name := fmt.Sprintf("life%d", i)
		timed := func(what string, samples *[]float64, do func() (float64, error), check func() error) {
			took, err := do()
			if err == nil {
				*samples = append(*samples, took)
				err = check()
			}
			if err != nil {
				r.problem(fmt.Errorf("%s: %w", what, err))
			}
			say("%s %s: %.2f s", name, what, took)
		}
		timed("create", &create, func() (float64, error) { return o.create(name) }, func() error { return o.verify(name, 1) })
		timed("three more nodes", &scale, func() (float64, error) { return o.scale(name, 4) }, func() error { return o.verify(name, 4) })
		timed("delete", &remove, func() (float64, error) { return o.remove(name) }, func() error {
			if left := testcloud.OfClusters(t, o.cloud); len(left) > 0 {
				return fmt.Errorf("deletion left %q", left)
			}
			return nil
		})
	}
	ratio := func(samples []float64) string {
		return fmt.Sprintf("floor %.2f s, so %.2f ×", r.floor, Median(samples)/r.floor)
	}
	r.add(NewFigure("PUT of a one-node cluster to Succeeded", "s", create).Against(AtMost, 2*r.floor).With(ratio(create), ""))
	r.add(NewFigure("three more nodes, to Succeeded", "s", scale).Against(AtMost, 1.5*r.floor).With(ratio(scale), ""))
	r.add(NewFigure("deletion of four nodes and all, nothing left", "s", remove).Against(AtMost, 2))
}

// benchIdle weighs one cluster that nobody uses.
func benchIdle(r *report, o *outsider) {
	if _, err := o.create("idle"); err != nil {
		r.problem(err)
		return
	}
	say("waiting a minute for idleness")
	time.Sleep(time.Minute)
	parts := map[string][]float64{}
	var last []Process
	for range runs {
		sums := map[string]float64{"controlplane": 0, "node": 0, "service": 0}
		last = Processes(instanceName)
		for _, p := range last {
			sums[p.Part()] += p.PSS
		}
		for part, sum := range sums {
			parts[part] = append(parts[part], sum)
		}
		time.Sleep(2 * time.Second)
	}
	detail := func(part string) string {
		text := "MiB:"
		for _, p := range last {
			if p.Part() == part {
				name := p.Name
				if len(name) >= 7 && name[:7] == "bastide" {
					name = "bastide " + firstArgument(p.Line)
				}
				text += fmt.Sprintf(" %s %.0f,", name, p.PSS)
			}
		}
		return text[:len(text)-1]
	}
	r.add(NewFigure("idle control plane, PSS", "MiB", parts["controlplane"]).Against(AtMost, 300).With("k0smotron 210–560 MiB", detail("controlplane")))
	r.add(NewFigure("idle node, PSS", "MiB", parts["node"]).Against(AtMost, 150).With("", detail("node")))
	r.add(NewFigure("serve + host + etcd + daemon, PSS", "MiB", parts["service"]).Against(AtMost, 150).With("", detail("service")))
	r.add(NewFigure("its add-on pods, PSS", "MiB", parts[""]))
	if _, err := o.remove("idle"); err != nil {
		r.problem(err)
	}
}
