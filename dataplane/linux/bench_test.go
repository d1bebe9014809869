// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"context"
	"fmt"
	"testing"

	"bastide.dev/dataplane"
)

// BenchmarkSmallVNet: a network with an API server and one machine, from
// nothing, beside a standing edge.
func BenchmarkSmallVNet(b *testing.B) {
	w := newWorld(b)
	w.boot("a-n0")
	w.apply(configOf())
	c := configOf(network("a", "192.88.99.242", "192.88.99.243", 1))
	for b.Loop() {
		w.apply(c)
		b.StopTimer()
		w.apply(configOf())
		b.StartTimer()
	}
}

func hundred(b *testing.B) (*world, dataplane.Config) {
	b.Helper()
	w := newWorld(b)
	for i := range 100 {
		w.boot(fmt.Sprintf("a-n%d", i))
	}
	w.apply(configOf())
	return w, configOf(network("a", "192.88.99.242", "192.88.99.243", 100))
}

func BenchmarkHundredNICs(b *testing.B) {
	w, c := hundred(b)
	for b.Loop() {
		w.apply(c)
		b.StopTimer()
		w.apply(configOf())
		b.StartTimer()
	}
}

// BenchmarkOneNICChange removes and adds one of a hundred: two Applies an operation.
func BenchmarkOneNICChange(b *testing.B) {
	w, c := hundred(b)
	w.apply(c)
	less := configOf(network("a", "192.88.99.242", "192.88.99.243", 99))
	for b.Loop() {
		w.apply(less)
		w.apply(c)
	}
}

// BenchmarkNoChange of twenty networks like small clusters'.
func BenchmarkNoChange(b *testing.B) {
	w := newWorld(b)
	c := configOf()
	for i := range 20 {
		id := fmt.Sprintf("v%d", i)
		w.boot(id + "-n0")
		v := network(id, "192.88.99.242", "192.88.99.243", 1)
		v.Public = nil
		if v.Egress = addrNone; i == 0 {
			v.Egress = addr("192.88.99.242")
		}
		c.VNets = append(c.VNets, v)
	}
	w.apply(c)
	for b.Loop() {
		if _, err := w.plane.Apply(context.Background(), c, w.netns); err != nil {
			b.Fatal(err)
		}
	}
}
