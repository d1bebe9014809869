// SPDX-License-Identifier: Apache-2.0

package netpolicy

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"bastide.dev/ruleset"
)

// dice makes random clusters out of few parts, so that things often meet.
type dice struct{ *rand.Rand }

func pick[T any](d dice, list ...T) T { return list[d.IntN(len(list))] }

func (d dice) chance(percent int) bool { return d.IntN(100) < percent }

func (d dice) labels() map[string]string {
	return map[string]string{"app": pick(d, "web", "db", "dns"), "tier": pick(d, "front", "back")}
}

func (d dice) selector() *Selector {
	switch d.IntN(6) {
	case 0:
		return &Selector{}
	case 1:
		return &Selector{MatchExpressions: []Requirement{{Key: "app", Operator: pick(d, "In", "NotIn"), Values: []string{"web", pick(d, "db", "dns")}}}}
	case 2:
		return &Selector{MatchExpressions: []Requirement{{Key: pick(d, "app", "env", "tier"), Operator: pick(d, "Exists", "DoesNotExist")}}}
	}
	return &Selector{MatchLabels: map[string]string{"app": pick(d, "web", "db", "dns")}}
}

func (d dice) namespaces() *Selector {
	if d.chance(30) {
		return &Selector{}
	}
	return &Selector{MatchLabels: map[string]string{"env": pick(d, "prod", "test")}}
}

func (d dice) peers() []Peer {
	var peers []Peer
	for range d.IntN(3) {
		switch d.IntN(4) {
		case 0:
			peers = append(peers, Peer{PodSelector: d.selector()})
		case 1:
			peers = append(peers, Peer{NamespaceSelector: d.namespaces()})
		case 2:
			peers = append(peers, Peer{NamespaceSelector: d.namespaces(), PodSelector: d.selector()})
		case 3:
			block := pick(d, IPBlock{CIDR: "0.0.0.0/0", Except: []string{"10.244.0.0/16", "198.51.100.0/28"}}, IPBlock{CIDR: "198.51.100.0/24"},
				IPBlock{CIDR: "10.244.0.0/24", Except: []string{"10.244.0.4/31"}}, IPBlock{CIDR: "10.224.0.0/24"}, IPBlock{CIDR: "fd00::/8"})
			peers = append(peers, Peer{IPBlock: &block})
		}
	}
	return peers
}

func (d dice) ports() []Port {
	var ports []Port
	for range d.IntN(3) {
		p := Port{Protocol: pick(d, "", "TCP", "UDP", "SCTP")}
		switch d.IntN(4) {
		case 0:
			p.Port = &PortOrName{Name: pick(d, "http", "dns")}
		case 1:
			last := int32(pick(d, 80, 90, 8080))
			p.Port, p.EndPort = &PortOrName{Number: 53}, &last
		case 2:
			p.Port = &PortOrName{Number: int32(pick(d, 53, 80, 8080))}
		}
		ports = append(ports, p)
	}
	return ports
}

func (d dice) policy(i int) *Policy {
	p := &Policy{Meta: Meta{Namespace: pick(d, "a", "b", "c"), Name: fmt.Sprintf("p%d", i)}}
	p.Spec.PodSelector = *d.selector()
	p.Spec.PolicyTypes = pick(d, nil, []string{"Ingress"}, []string{"Egress"}, []string{"Ingress", "Egress"})
	for range d.IntN(3) {
		p.Spec.Ingress = append(p.Spec.Ingress, Rule{From: d.peers(), Ports: d.ports()})
	}
	for range d.IntN(3) {
		p.Spec.Egress = append(p.Spec.Egress, Rule{To: d.peers(), Ports: d.ports()})
	}
	return p
}

func (d dice) clusterRule(egress bool) ClusterRule {
	r := ClusterRule{Action: pick(d, ActionAccept, ActionDeny, ActionPass)}
	var peers []ClusterPeer
	for range 1 + d.IntN(2) {
		switch n := d.IntN(4); {
		case n == 0 && egress:
			peers = append(peers, ClusterPeer{Networks: []string{pick(d, "0.0.0.0/0", "198.51.100.0/24", "10.244.0.0/16"), "fd00:1::/32"}})
		case n == 1 && egress:
			peers = append(peers, ClusterPeer{Nodes: &Selector{MatchLabels: map[string]string{"pool": pick(d, "one", "two")}}})
		case n == 2:
			peers = append(peers, ClusterPeer{Pods: &NamespacedPod{*d.namespaces(), *d.selector()}})
		default:
			peers = append(peers, ClusterPeer{Namespaces: d.namespaces()})
		}
	}
	if egress {
		r.To = peers
	} else {
		r.From = peers
	}
	for range d.IntN(3) {
		port := &ClusterPorts{DestinationPort: &ClusterPort{Number: int32(pick(d, 53, 80))}}
		r.Protocols = append(r.Protocols, pick(d, ClusterProtocol{TCP: port}, ClusterProtocol{UDP: port}, ClusterProtocol{SCTP: &ClusterPorts{}},
			ClusterProtocol{NamedPort: pick(d, "http", "dns")}))
	}
	return r
}

func (d dice) clusterPolicy(i int) *ClusterPolicy {
	p := &ClusterPolicy{Meta: Meta{Name: fmt.Sprintf("c%d", i)}}
	p.Spec = ClusterPolicySpec{Tier: pick(d, AdminTier, BaselineTier), Priority: int32(i * 7 % 10)}
	if d.chance(50) {
		p.Spec.Subject.Namespaces = d.namespaces()
	} else {
		p.Spec.Subject.Pods = &NamespacedPod{*d.namespaces(), *d.selector()}
	}
	for range d.IntN(3) {
		p.Spec.Ingress = append(p.Spec.Ingress, d.clusterRule(false))
	}
	for range d.IntN(3) {
		p.Spec.Egress = append(p.Spec.Egress, d.clusterRule(true))
	}
	return p
}

// cluster is seen from node n0, which has the range 10.244.0.0/24.
func (d dice) cluster() *State {
	s := &State{Node: "n0", Ranges: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/24"), netip.MustParsePrefix("fd00:1::/64")}}
	for i, env := range []string{"prod", "test", "prod"} {
		s.Namespaces = append(s.Namespaces, &Namespace{Name: string(rune('a' + i)), Labels: map[string]string{"env": env}})
	}
	for n := range 2 {
		address := netip.AddrFrom4([4]byte{10, 224, 0, byte(4 + n)})
		s.Nodes = append(s.Nodes, &Node{Name: fmt.Sprintf("n%d", n), Labels: map[string]string{"pool": pick(d, "one", "two")}, Addresses: []netip.Addr{address}})
		for i := range 6 {
			p := &Pod{Namespace: pick(d, "a", "b", "c"), Name: fmt.Sprintf("pod%d%d", n, i), UID: fmt.Sprintf("u%d%d", n, i), Labels: d.labels(),
				Node: fmt.Sprintf("n%d", n), Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 244, byte(n), byte(2 + i)})}}
			if d.chance(40) {
				p.Addresses = append(p.Addresses, netip.MustParseAddr(fmt.Sprintf("fd00:1:0:%d::%d", n, 2+i)))
			}
			if d.chance(10) {
				p.HostNetwork, p.Addresses = true, []netip.Addr{address}
			}
			if d.chance(60) {
				p.Ports = append(p.Ports, NamedPort{"http", "TCP", uint16(pick(d, 80, 8080))})
			}
			if d.chance(40) {
				p.Ports = append(p.Ports, NamedPort{"dns", pick(d, "UDP", "TCP"), 53})
			}
			s.Pods = append(s.Pods, p)
		}
	}
	for i := range d.IntN(5) {
		s.Policies = append(s.Policies, d.policy(i))
	}
	for i := range d.IntN(4) {
		s.ClusterPolicies = append(s.ClusterPolicies, d.clusterPolicy(i))
	}
	return s
}

func (d dice) address(s *State, six bool) netip.Addr {
	for {
		p := s.Pods[d.IntN(len(s.Pods))]
		a := p.Addresses[len(p.Addresses)-1]
		switch {
		case six && d.chance(15):
			return netip.MustParseAddr("2001:db8::1")
		case six && a.Is6():
			return a
		case !six && d.chance(15):
			return netip.MustParseAddr(pick(d, "198.51.100.3", "198.51.100.77", "10.224.0.5", "10.244.0.200"))
		case !six:
			return p.Addresses[0]
		case s.Pods[0].Addresses[0].Is4() && d.chance(5):
			return netip.MustParseAddr("fd00:1::99")
		}
	}
}

// TestRandomClusters compares the compiled tables with the reference on random
// flows: what the node forwards, and what its pods send to the node itself.
func TestRandomClusters(t *testing.T) {
	d := dice{rand.New(rand.NewPCG(9, 2026))}
	denied, flows := 0, 0
	for range 400 {
		s := d.cluster()
		table := Compile(s)
		if err := table.Validate(); err != nil {
			t.Fatal(err)
		}
		for range 30 {
			six := d.chance(25)
			f := flow{d.address(s, six), d.address(s, six), pick[uint8](d, 6, 6, 17, 132, 1), uint16(pick(d, 53, 80, 8080, 81))}
			hook := ruleset.Forward
			if f.to == s.Nodes[0].Addresses[0] {
				hook = ruleset.Input
			}
			if f.from == s.Nodes[0].Addresses[0] {
				continue // what a node sends meets no hook
			}
			p := ruleset.Packet{Source: f.from, Destination: f.to, Protocol: f.protocol, DestPort: f.port, State: ruleset.New, Local: hook == ruleset.Input}
			if f.protocol == 1 {
				p.DestPort, f.port = 0, 0
			}
			got, err := table.Run(hook, &p, nil)
			if err != nil {
				t.Fatal(err)
			}
			want := reference{s}.passes(f)
			flows++
			if !want {
				denied++
			}
			if want != (got.Verdict == ruleset.Accept) {
				state, _ := json.MarshalIndent(s, "", " ")
				t.Fatalf("flow %+v: passes %v, the table says %s by %+v\n%s\n%s", f, want, got.Verdict, got.Decided, table.Text(), state)
			}
		}
	}
	t.Logf("%d flows, %d of them denied", flows, denied)
	if denied < flows/10 || denied > flows*9/10 {
		t.Error("hardly anything was decided: the clusters test nothing")
	}
}

// TestOwners: an address belongs to the pod that has it now.
func TestOwners(t *testing.T) {
	a := netip.MustParseAddr("10.244.0.9")
	old := &Pod{Name: "old", Addresses: []netip.Addr{a}, Created: time.Unix(1, 0)}
	leaving := &Pod{Name: "leaving", Addresses: []netip.Addr{a}, Created: time.Unix(3, 0), Deleting: true}
	fresh := &Pod{Name: "fresh", Addresses: []netip.Addr{a}, Created: time.Unix(2, 0)}
	attached := &Pod{Name: "attached", Addresses: []netip.Addr{a}, Attached: true}
	host := &Pod{Name: "host", Addresses: []netip.Addr{a}, HostNetwork: true, Created: time.Unix(9, 0)}
	for _, test := range []struct {
		pods []*Pod
		want string
	}{
		{[]*Pod{old, leaving, fresh, host}, "fresh"}, {[]*Pod{leaving, old}, "old"},
		{[]*Pod{fresh, attached, leaving}, "attached"}, {[]*Pod{leaving, host}, "leaving"},
	} {
		if got := owners(test.pods); len(got) != 1 || got[0].Name != test.want {
			t.Errorf("%v is %s's, want %s", a, got[0].Name, test.want)
		}
	}
}
