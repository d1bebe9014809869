// SPDX-License-Identifier: Apache-2.0

package netpolicy_test

import (
	"fmt"
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

// BenchmarkCrowd puts one more policy of a pod that a thousand have already,
// whose peers are a thousand pods elsewhere.
func BenchmarkCrowd(b *testing.B) {
	kernel := newWorld(b, []string{"10.244.0.2"}, nil).kernel
	s := &netpolicy.State{Node: "n0", Ranges: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/24")},
		Namespaces: []*netpolicy.Namespace{{Name: "default", Labels: map[string]string{"name": "default"}}, {Name: "crowd", Labels: map[string]string{"name": "crowd"}}},
		Pods:       []*netpolicy.Pod{{Namespace: "default", Name: "far", UID: "far", Node: "n0", Labels: map[string]string{"app": "far"}, Addresses: []netip.Addr{netip.MustParseAddr("10.244.0.2")}}}}
	for i := range 1000 {
		s.Pods = append(s.Pods, &netpolicy.Pod{Namespace: "crowd", Name: fmt.Sprint(i), UID: fmt.Sprint(i), Node: "n1",
			Labels: map[string]string{"group": fmt.Sprint(i % 100)}, Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 245, byte(i >> 8), byte(i)})}})
	}
	for i := range 1001 {
		pods := &netpolicy.Selector{MatchLabels: map[string]string{"group": fmt.Sprint(i % 100)}}
		if i%10 == 0 {
			pods = &netpolicy.Selector{}
		}
		s.Policies = append(s.Policies, &netpolicy.Policy{Meta: netpolicy.Meta{Namespace: "default", Name: fmt.Sprintf("crowd%d", i)},
			Spec: netpolicy.PolicySpec{PolicyTypes: []string{"Ingress"}, Ingress: []netpolicy.Rule{{
				From:  []netpolicy.Peer{{NamespaceSelector: &netpolicy.Selector{MatchLabels: map[string]string{"name": "crowd"}}, PodSelector: pods}},
				Ports: []netpolicy.Port{{Port: &netpolicy.PortOrName{Number: int32(20_000 + i)}}}}}}})
	}
	all := s.Policies
	for i := 0; b.Loop(); i++ {
		s.Policies = all[:1000+i%2]
		if err := kernel.Put(netpolicy.Compile(s)); err != nil {
			b.Fatal(err)
		}
	}
}
