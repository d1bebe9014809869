// SPDX-License-Identifier: Apache-2.0

package netpolicy_test

import (
	"net/netip"
	"testing"

	"bastide.dev/netpolicy"
)

// BenchmarkChange compiles and puts a table of 1,000 policies and 1,000 pods
// after one pod's, or one policy's, coming and going.
func BenchmarkChange(b *testing.B) {
	for _, what := range []string{"pod", "policy"} {
		b.Run(what, func(b *testing.B) {
			kernel := newWorld(b, []string{"10.244.0.2"}, nil).kernel
			s := netpolicy.Big(1000, 1000)
			pods, policies := s.Pods, s.Policies
			extra := &netpolicy.Pod{Namespace: "ns1", Name: "new", UID: "new", Node: "n1", Labels: map[string]string{"app": "a1"},
				Addresses: []netip.Addr{netip.MustParseAddr("10.245.200.1")}}
			if err := kernel.Put(netpolicy.Compile(s)); err != nil {
				b.Fatal(err)
			}
			i := 0
			for b.Loop() {
				s.Pods, s.Policies = pods, policies
				if i++; i%2 == 1 {
					if what == "pod" {
						s.Pods = append(pods[:len(pods):len(pods)], extra)
					} else {
						s.Policies = policies[:len(policies)-1]
					}
				}
				if err := kernel.Put(netpolicy.Compile(s)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
