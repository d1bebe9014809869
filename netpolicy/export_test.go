// SPDX-License-Identifier: Apache-2.0

package netpolicy

import (
	"math/rand/v2"
	"net/netip"
)

// Flow is a flow of the random clusters, with what the reference says of it.
type Flow struct {
	From, To netip.Addr
	Protocol uint8
	Port     uint16
	Passes   bool
}

// RandomCluster is a cluster of IPv4 addresses and flows in it that don't begin
// on the node itself, for tests with real packets.
func RandomCluster(r *rand.Rand, flows int) (*State, []Flow) {
	d := dice{r}
	s := d.cluster()
	var all []Flow
	for len(all) < flows {
		f := flow{d.address(s, false), d.address(s, false), pick[uint8](d, 6, 6, 17, 132, 1), uint16(pick(d, 53, 80, 8080, 81))}
		if f.protocol == 1 {
			f.port = 0
		}
		if f.from != s.Nodes[0].Addresses[0] && f.from != f.to {
			all = append(all, Flow{f.from, f.to, f.protocol, f.port, reference{s}.passes(f)})
		}
	}
	return s, all
}

// Big is a cluster of pods and policies, 50 of the pods on this node.
func Big(pods, policies int) *State { return big(pods, policies) }
