// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"testing"

	"bastide.dev/dataplane"
)

// BenchmarkSmallVNet: a network with an API server and one machine, from
// nothing, beside a standing edge.
func BenchmarkSmallVNet(b *testing.B) {
	w := newWorld(b)
	w.boot("a-n0")
	w.apply(configOf())
	c := configOf(network("a", "198.19.99.242", "198.19.99.243", 1))
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
	return w, configOf(network("a", "198.19.99.242", "198.19.99.243", 100))
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
	less := configOf(network("a", "198.19.99.242", "198.19.99.243", 99))
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
		v := network(id, "198.19.99.242", "198.19.99.243", 1)
		v.Public = nil
		if i > 0 {
			setEgress(&v, "")
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

// crowded is a network of a hundred nodes with a group of a thousand rules
// before them and a public front end on top.
func crowded(b *testing.B) (*world, dataplane.Config) {
	b.Helper()
	w, c := hundred(b)
	v := &c.VNets[0]
	v.Subnets[0].NSG = "rg/nodes"
	var rules []dataplane.NSGRule
	for i := range 1000 {
		rules = append(rules, dataplane.NSGRule{Name: fmt.Sprintf("r%d", i), Priority: 100 + i, Inbound: true, Allow: i%2 == 0, Protocol: 6,
			Sources:          []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18, byte(i / 256), byte(i)}), 32)},
			DestinationPorts: tcpPorts(uint16(1000+i), uint16(1000+i+i%3))})
	}
	v.NSGs = []dataplane.NSG{group("rg/nodes", rules...)}
	front := dataplane.Balancer{Origin: "lb", Address: addr(service), Protocol: 6, Ports: dataplane.Ports{First: 80, Last: 80}, Floating: true}
	for _, nic := range v.NICs[1:] {
		front.Backends = append(front.Backends, nic.ID)
	}
	v.Balancers = []dataplane.Balancer{front}
	return w, c
}

func copyOf(b *testing.B, c dataplane.Config) dataplane.Config {
	b.Helper()
	text, err := json.Marshal(c)
	must(b, err)
	var copied dataplane.Config
	must(b, json.Unmarshal(text, &copied))
	return copied
}

func (w *world) applyAs(c dataplane.Config) {
	w.t.Helper()
	_, err := w.plane.Apply(context.Background(), c, w.netns)
	must(w.t, err)
}

// BenchmarkThousandRules compiles and writes all of a crowded network's rules
// and routes: its hundred interfaces stand.
func BenchmarkThousandRules(b *testing.B) {
	w, c := crowded(b)
	with, without := copyOf(b, c), copyOf(b, c)
	without.VNets[0].NSGs, without.VNets[0].Subnets[0].NSG, without.VNets[0].Balancers = nil, "", nil
	w.applyAs(without)
	w.applyAs(without)
	for b.Loop() {
		w.applyAs(with)
		b.StopTimer()
		w.applyAs(without)
		w.applyAs(without)
		b.StartTimer()
	}
}

func BenchmarkOneRuleChange(b *testing.B) {
	w, c := crowded(b)
	other := copyOf(b, c)
	other.VNets[0].NSGs[0].Rules[500].Allow = !other.VNets[0].NSGs[0].Rules[500].Allow
	w.applyAs(c)
	w.applyAs(other)
	w.applyAs(c)
	for i := 0; b.Loop(); i++ {
		if i%2 == 0 {
			w.applyAs(other)
		} else {
			w.applyAs(c)
		}
	}
}

// BenchmarkNoChangeCrowded is an Apply of what stands.
func BenchmarkNoChangeCrowded(b *testing.B) {
	w, c := crowded(b)
	for range 3 {
		w.applyAs(copyOf(b, c))
	}
	again := copyOf(b, c)
	for b.Loop() {
		w.applyAs(again)
	}
}
