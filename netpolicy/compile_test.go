// SPDX-License-Identifier: Apache-2.0

package netpolicy

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"bastide.dev/ruleset"
)

var update = flag.Bool("update", false, "write golden files anew")

// TestGolden compiles testdata/*.yaml, a list of policies each, for node n0 of
// the same small cluster, and compares with the table beside it.
func TestGolden(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(inputs) == 0 {
		t.Fatal("no input", err)
	}
	for _, input := range inputs {
		t.Run(strings.TrimSuffix(filepath.Base(input), ".yaml"), func(t *testing.T) {
			s := smallCluster()
			data, err := os.ReadFile(input)
			if err != nil {
				t.Fatal(err)
			}
			readPolicies(t, s, string(data))
			table := Compile(s)
			if err := table.Validate(); err != nil {
				t.Error(err)
			}
			golden := strings.TrimSuffix(input, ".yaml") + ".nft"
			if *update {
				if err := os.WriteFile(golden, []byte(table.Text()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got := table.Text(); got != string(want) {
				t.Errorf("%s is another table (-update writes it):\n%s", golden, got)
			}
		})
	}
}

func readPolicies(t *testing.T, s *State, text string) {
	t.Helper()
	for _, document := range strings.Split(text, "\n---\n") {
		var head struct{ Kind string }
		if err := yaml.Unmarshal([]byte(document), &head); err != nil {
			t.Fatal(err)
		}
		switch head.Kind {
		case "NetworkPolicy":
			p := new(Policy)
			if err := yaml.Unmarshal([]byte(document), p); err != nil {
				t.Fatal(err)
			}
			s.Policies = append(s.Policies, p)
		case "ClusterNetworkPolicy":
			p := new(ClusterPolicy)
			if err := yaml.Unmarshal([]byte(document), p); err != nil {
				t.Fatal(err)
			}
			s.ClusterPolicies = append(s.ClusterPolicies, p)
		}
	}
}

// smallCluster has a shop with a web and a db pod on n0, a second web on n1, and
// the cluster's DNS.
func smallCluster() *State {
	s := &State{Node: "n0", Ranges: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/24")}}
	for name, env := range map[string]string{"shop": "prod", "kube-system": "system"} {
		s.Namespaces = append(s.Namespaces, &Namespace{Name: name, Labels: map[string]string{"kubernetes.io/metadata.name": name, "env": env}})
	}
	pod := func(namespace, name, app, node, address string, ports ...NamedPort) {
		label := "app"
		if namespace == "kube-system" {
			label = "k8s-app"
		}
		s.Pods = append(s.Pods, &Pod{Namespace: namespace, Name: name, UID: name, Labels: map[string]string{label: app}, Node: node,
			Addresses: []netip.Addr{netip.MustParseAddr(address)}, Ports: ports})
	}
	pod("shop", "web-0", "web", "n0", "10.244.0.5", NamedPort{"http", "TCP", 8080})
	pod("shop", "web-1", "web", "n1", "10.244.1.5", NamedPort{"http", "TCP", 8081})
	pod("shop", "db-0", "db", "n0", "10.244.0.6", NamedPort{"sql", "TCP", 5432})
	pod("kube-system", "coredns-1", "kube-dns", "n1", "10.244.1.2")
	s.Nodes = []*Node{{Name: "n0", Labels: map[string]string{"pool": "one"}, Addresses: []netip.Addr{netip.MustParseAddr("10.224.0.4")}}}
	return s
}

// TestZeroTrust: the starter means what it says.
func TestZeroTrust(t *testing.T) {
	address := netip.MustParseAddr
	for _, within := range []bool{false, true} {
		s := smallCluster()
		readPolicies(t, s, ZeroTrust("shop", within))
		for _, test := range []struct {
			f    flow
			want bool
		}{
			{flow{address("10.244.0.5"), address("10.244.1.2"), 17, 53}, true},
			{flow{address("10.244.0.5"), address("10.244.1.2"), 6, 53}, true},
			{flow{address("10.244.0.5"), address("10.244.1.2"), 6, 443}, false},
			{flow{address("10.244.0.5"), address("10.244.0.6"), 6, 5432}, within},
			{flow{address("10.244.1.2"), address("10.244.0.6"), 6, 5432}, false},
			{flow{address("10.244.0.5"), address("198.51.100.1"), 6, 443}, false},
		} {
			if got := (reference{s}).passes(test.f); got != test.want {
				t.Errorf("within %v: %+v passes: %v", within, test.f, got)
			}
		}
	}
}

// big is a cluster of pods in twenty namespaces, 50 pods of it on this node,
// with policies of three rules each.
func big(pods, policies int) *State {
	s := &State{Node: "n0", Ranges: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/24")}}
	for i := range 20 {
		s.Namespaces = append(s.Namespaces, &Namespace{Name: fmt.Sprintf("ns%d", i), Labels: map[string]string{"env": fmt.Sprintf("e%d", i%3)}})
	}
	for i := range pods {
		node, address := "n1", netip.AddrFrom4([4]byte{10, 245, byte(i >> 8), byte(i)})
		if i < 50 {
			node, address = "n0", netip.AddrFrom4([4]byte{10, 244, 0, byte(i + 2)})
		}
		s.Pods = append(s.Pods, &Pod{Namespace: fmt.Sprintf("ns%d", i%20), Name: fmt.Sprintf("p%d", i), UID: fmt.Sprintf("u%d", i), Node: node,
			Labels: map[string]string{"app": fmt.Sprintf("a%d", i%37), "pod": fmt.Sprint(i)}, Addresses: []netip.Addr{address}, Ports: []NamedPort{{"http", "TCP", 8080}}})
	}
	for i := range policies {
		port := &PortOrName{Number: int32(80 + i%7)}
		s.Policies = append(s.Policies, &Policy{Meta: Meta{Namespace: fmt.Sprintf("ns%d", i%20), Name: fmt.Sprintf("policy%d", i)}, Spec: PolicySpec{
			PodSelector: Selector{MatchLabels: map[string]string{"app": fmt.Sprintf("a%d", i%37)}}, PolicyTypes: []string{"Ingress", "Egress"},
			Ingress: []Rule{{From: []Peer{{PodSelector: &Selector{MatchLabels: map[string]string{"app": fmt.Sprintf("a%d", i%31)}}}}, Ports: []Port{{Port: port}}},
				{From: []Peer{{NamespaceSelector: &Selector{MatchLabels: map[string]string{"env": fmt.Sprintf("e%d", i%3)}},
					PodSelector: &Selector{MatchLabels: map[string]string{"app": fmt.Sprintf("a%d", i%29)}}}}, Ports: []Port{{Port: &PortOrName{Name: "http"}}}}},
			Egress: []Rule{{To: []Peer{{IPBlock: &IPBlock{CIDR: "0.0.0.0/0", Except: []string{fmt.Sprintf("10.%d.0.0/16", i%200)}}}}}},
		}})
	}
	return s
}

func BenchmarkCompile(b *testing.B) {
	s := big(1000, 1000)
	for b.Loop() {
		Compile(s)
	}
}

// TestOnePodIsElements: a pod elsewhere changes elements of sets alone.
func TestOnePodIsElements(t *testing.T) {
	s := big(300, 200)
	before := Compile(s)
	s.Pods = append(s.Pods, &Pod{Namespace: "ns1", Name: "new", UID: "new", Node: "n1", Labels: map[string]string{"app": "a1"},
		Addresses: []netip.Addr{netip.MustParseAddr("10.245.200.1")}, Ports: []NamedPort{{"http", "TCP", 8080}}})
	after := Compile(s)
	if before.Digest() == after.Digest() {
		t.Error("the pod is in no set")
	}
	for i := range before.Sets {
		before.Sets[i].Elements = nil
	}
	for i := range after.Sets {
		after.Sets[i].Elements = nil
	}
	if before.Digest() != after.Digest() {
		t.Error("more than elements changed")
	}
}

// TestOnePolicyIsItsRules: one more policy changes its pods' chains, and of
// those its own rules and the one that says who isolates.
func TestOnePolicyIsItsRules(t *testing.T) {
	s := big(300, 780) // the last is a second one for one of the pods of this node
	all := s.Policies
	s.Policies = all[:len(all)-1]
	before := Compile(s)
	s.Policies = all
	after := Compile(s)
	chains := map[string]ruleset.Chain{}
	for _, c := range before.Chains {
		chains[c.Name] = c
	}
	changed := 0
	for _, c := range after.Chains {
		was, ok := chains[c.Name]
		if !ok {
			t.Errorf("%s has come", c.Name)
			continue
		}
		fresh := 0
		for _, r := range c.Rules {
			if !slices.ContainsFunc(was.Rules, func(old ruleset.Rule) bool { return reflect.DeepEqual(old, r) }) {
				fresh++
			}
		}
		if fresh > 0 {
			changed++
		}
		if fresh > 4 {
			t.Errorf("%d rules of %s have changed", fresh, c.Name)
		}
	}
	if changed == 0 || len(before.Chains) != len(after.Chains) {
		t.Errorf("%d chains of %d changed, of %d", changed, len(before.Chains), len(after.Chains))
	}
}
