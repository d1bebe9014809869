// SPDX-License-Identifier: Apache-2.0

package netpolicy_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"bastide.dev/netpolicy"
)

// randomOnes are the addresses of the random clusters.
func randomOnes() (pods, others []string) {
	for i := 2; i < 8; i++ {
		pods = append(pods, fmt.Sprintf("10.244.0.%d", i))
		others = append(others, fmt.Sprintf("10.244.1.%d", i))
	}
	return pods, append(others, "10.224.0.5", "198.51.100.3", "198.51.100.77")
}

// TestRandomPackets compares what the kernel does to real packets with the
// reference: of all protocols, through the node and to the node itself.
func TestRandomPackets(t *testing.T) {
	pods, others := randomOnes()
	w := newWorld(t, pods, others)
	w.listen(w.node)
	w.listen(w.outside)
	for _, s := range w.spaces {
		w.listen(s)
	}
	dice := rand.New(rand.NewPCG(3, 2026))
	mark, denied := uint32(0), 0
	for range 80 {
		state, flows := netpolicy.RandomCluster(dice, 40)
		table := netpolicy.Compile(state)
		w.check(w.kernel.Put(table))
		want, flowOf := map[uint32]bool{}, map[uint32]netpolicy.Flow{}
		for _, f := range flows {
			if w.at(f.From) == w.at(f.To) {
				continue // the node never sees it
			}
			mark++
			want[mark], flowOf[mark] = f.Passes, f
			if !f.Passes {
				denied++
			}
			w.send(w.at(f.From), f.To, packet(f.From, f.To, f.Protocol, f.Port, mark))
		}
		got := w.arrived(want)
		for m, passes := range want {
			if f := flowOf[m]; passes != got[m] {
				t.Fatalf("flow %s > %s %d:%d: arrived: %v, mark %d\n%s", f.From, f.To, f.Protocol, f.Port, got[m], m, table.Text())
			}
		}
	}
	t.Logf("%d packets, %d of them to be dropped", mark, denied)
}
