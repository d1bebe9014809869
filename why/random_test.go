// SPDX-License-Identifier: Apache-2.0

package why_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"bastide.dev/dataplane"
	"bastide.dev/why"
)

// dice makes random policies and groups out of few parts, so that things often meet.
type dice struct{ *rand.Rand }

func pick[T any](d dice, all ...T) T { return all[d.IntN(len(all))] }

// rPolicy, rRule and rPeer are a policy as the reference reads it.
type rPolicy struct {
	namespace, name string
	app             string // "" all
	types           []string
	rules           map[string][]rRule // by type
}

type rRule struct {
	peers []rPeer
	ports []int
}

type rPeer struct {
	app, namespace string // namespace "": the policy's own
	every          bool   // pods of all namespaces
	block          string
	except         string
}

func (d dice) policy(i int) rPolicy {
	p := rPolicy{namespace: pick(d, "a", "a", "b"), name: fmt.Sprintf("p%d", i), app: pick(d, "", "web", "client", "other"),
		types: pick(d, []string{"Ingress"}, []string{"Egress"}, []string{"Ingress", "Egress"}), rules: map[string][]rRule{}}
	for _, t := range p.types {
		for range d.IntN(3) {
			var r rRule
			for range d.IntN(3) {
				r.peers = append(r.peers, pick(d, rPeer{app: "web"}, rPeer{app: "client"}, rPeer{namespace: "b"}, rPeer{namespace: "a", app: "web"}, rPeer{every: true},
					rPeer{block: "10.1.0.0/16"}, rPeer{block: "192.88.99.0/24", except: "192.88.99.61/32"}, rPeer{block: "0.0.0.0/0", except: "10.0.0.0/8"}, rPeer{block: "10.244.1.0/24"}))
			}
			for range d.IntN(2) {
				r.ports = append(r.ports, pick(d, 8080, 8081, 25))
			}
			p.rules[t] = append(p.rules[t], r)
		}
	}
	return p
}

// object is the policy as Kubernetes has it.
func (p rPolicy) object() object {
	selector := func(app string) object {
		if app == "" {
			return object{}
		}
		return object{"matchLabels": object{"app": app}}
	}
	spec := object{"podSelector": selector(p.app), "policyTypes": p.types}
	for t, rules := range p.rules {
		side, list := "from", []object{}
		if t == "Egress" {
			side = "to"
		}
		for _, r := range rules {
			peers, ports := []object{}, []object{}
			for _, peer := range r.peers {
				switch {
				case peer.block != "" && peer.except != "":
					peers = append(peers, object{"ipBlock": object{"cidr": peer.block, "except": []string{peer.except}}})
				case peer.block != "":
					peers = append(peers, object{"ipBlock": object{"cidr": peer.block}})
				case peer.every:
					peers = append(peers, object{"namespaceSelector": object{}})
				case peer.namespace != "":
					peers = append(peers, object{"namespaceSelector": object{"matchLabels": object{"name": peer.namespace}}, "podSelector": selector(peer.app)})
				default:
					peers = append(peers, object{"podSelector": selector(peer.app)})
				}
			}
			for _, port := range r.ports {
				ports = append(ports, object{"port": port})
			}
			list = append(list, object{side: peers, "ports": ports})
		}
		spec[map[string]string{"Ingress": "ingress", "Egress": "egress"}[t]] = list
	}
	return policy(p.namespace, p.name, spec)
}

func (d dice) groupRules() []dataplane.NSGRule {
	var rules []dataplane.NSGRule
	for i := range d.IntN(4) {
		r := dataplane.NSGRule{Name: fmt.Sprintf("r%d", i), Priority: 200 + d.IntN(100)*4 + i, Inbound: d.IntN(2) == 0, Allow: d.IntN(2) == 0, Protocol: pick[uint8](d, 0, 6, 17)}
		if d.IntN(3) > 0 {
			r.Sources = prefixes(pick(d, "10.244.0.0/24", "192.88.99.60/31", "10.1.0.0/16", "10.244.1.10/32", "8.0.0.0/8"))
		}
		if d.IntN(3) > 0 {
			r.Destinations = prefixes(pick(d, "10.244.1.0/24", "192.88.99.12/32", "10.1.0.4/32", "10.244.0.0/16", "8.8.8.8/32"))
		}
		if first := pick[uint16](d, 0, 0, 80, 8080, 30080, 1); first > 0 {
			r.DestinationPorts = []dataplane.Ports{{First: first, Last: first + pick[uint16](d, 0, 100, 8000)}}
		}
		rules = append(rules, r)
	}
	return rules
}

// rPod is a pod of the world, as the reference knows it.
type rPod struct {
	namespace, name, app string
	node                 int
	address              netip.Addr
}

// reference decides connections by plain loops over what was asked for.
type reference struct {
	pods     []rPod
	policies []rPolicy
	rules    []dataplane.NSGRule // of the nodes' subnet
}

func (r *reference) at(a netip.Addr) *rPod {
	for i := range r.pods {
		if r.pods[i].address == a {
			return &r.pods[i]
		}
	}
	return nil
}

func (r *reference) policy(subject *rPod, kind string, other netip.Addr, port int) bool {
	isolated := false
	for _, p := range r.policies {
		if p.namespace != subject.namespace || p.app != "" && p.app != subject.app || !slices.Contains(p.types, kind) {
			continue
		}
		isolated = true
		for _, rule := range p.rules[kind] {
			who := len(rule.peers) == 0
			for _, peer := range rule.peers {
				who = who || r.peer(p.namespace, peer, other)
			}
			if who && (len(rule.ports) == 0 || slices.Contains(rule.ports, port)) {
				return true
			}
		}
	}
	return !isolated
}

func (r *reference) peer(own string, peer rPeer, other netip.Addr) bool {
	if peer.block != "" {
		return prefix(peer.block).Contains(other) && (peer.except == "" || !prefix(peer.except).Contains(other))
	}
	pod := r.at(other)
	if pod == nil {
		return false
	}
	namespace := peer.namespace
	if namespace == "" {
		namespace = own
	}
	return peer.every || pod.namespace == namespace && (peer.app == "" || pod.app == peer.app)
}

func (r *reference) group(inbound bool, from, to netip.Addr, port uint16) bool {
	rules := slices.Clone(r.rules)
	slices.SortFunc(rules, func(a, b dataplane.NSGRule) int { return a.Priority - b.Priority })
	in := func(list []netip.Prefix, a netip.Addr) bool {
		return len(list) == 0 || slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	for _, rule := range rules {
		ports := len(rule.DestinationPorts) == 0 || slices.ContainsFunc(rule.DestinationPorts, func(p dataplane.Ports) bool { return p.First <= port && port <= p.Last })
		if rule.Inbound == inbound && (rule.Protocol == 0 || rule.Protocol == 6) && in(rule.Sources, from) && in(rule.Destinations, to) && ports {
			return rule.Allow
		}
	}
	panic("the default rules decide everything")
}

func node(i int) netip.Addr { return addr(fmt.Sprintf("10.1.0.%d", 4+i)) }

// onNode is a packet in node n for a pod: from elsewhere, or from a pod of n.
// masq says that its source becomes the node's when it leaves.
func (r *reference) onNode(n int, from netip.Addr, to *rPod, port int, masq bool) bool {
	if p := r.at(from); p != nil && p.node == n && p.address != to.address && !r.policy(p, "Egress", to.address, port) {
		return false
	}
	if to.node == n {
		return from == to.address || r.policy(to, "Ingress", from, port)
	}
	if masq {
		from = node(n)
	}
	return r.group(false, from, to.address, uint16(port)) && r.group(true, from, to.address, uint16(port)) && r.policy(to, "Ingress", from, port)
}

// web is the Service's endpoints, reached on node n.
func (r *reference) web(n int, from netip.Addr, masq bool) (ways []bool) {
	for i := range r.pods {
		if p := &r.pods[i]; p.app == "web" {
			ways = append(ways, r.onNode(n, from, p, 8080, masq || from == p.address))
		}
	}
	return ways
}

// flow is a question, and what the reference says to it.
type flow struct {
	q    why.Question
	ways []bool
}

func (r *reference) flow(d dice) flow {
	from, to := &r.pods[d.IntN(len(r.pods))], &r.pods[d.IntN(len(r.pods))]
	name := func(p *rPod) string { return "pod/" + p.namespace + "/" + p.name + "@one" }
	port := pick(d, 8080, 8080, 8081)
	switch d.IntN(6) {
	case 0:
		return flow{why.Question{From: name(from), To: "service/a/web"}, r.web(from.node, from.address, false)}
	case 1: // the balancer chooses a node, the node an endpoint
		terminal := pick(d, "192.88.99.60", "192.88.99.61")
		var ways []bool
		for n := range 2 {
			if !r.group(true, addr(terminal), addr("192.88.99.12"), 80) {
				ways = append(ways, false)
				continue
			}
			ways = append(ways, r.web(n, addr(terminal), true)...)
		}
		return flow{why.Question{From: terminal, To: "192.88.99.12:80"}, ways}
	case 2:
		n, jump := d.IntN(2), addr("10.1.2.4")
		ways := []bool{false}
		if r.group(true, jump, node(n), 30080) {
			ways = r.web(n, jump, true)
		}
		return flow{why.Question{From: "vm/jump", To: node(n).String() + ":30080"}, ways}
	case 3:
		out := addr("8.8.8.8")
		port := pick[uint16](d, 25, 443, 8080)
		return flow{why.Question{From: name(from), To: "internet", Port: port}, []bool{r.policy(from, "Egress", out, int(port)) && r.group(false, node(from.node), out, port)}}
	}
	return flow{why.Question{From: name(from), To: name(to), Port: uint16(port)}, []bool{r.onNode(from.node, from.address, to, port, false)}}
}

func sum(ways []bool) why.Reachable {
	switch {
	case !slices.Contains(ways, false):
		return why.Yes
	case !slices.Contains(ways, true):
		return why.No
	}
	return why.Some
}

// TestRandomWorlds compares what is walked through the compiled tables with the
// reference, on random policies and security groups together.
func TestRandomWorlds(t *testing.T) {
	d := dice{rand.New(rand.NewPCG(11, 2026))}
	counts := map[why.Reachable]int{}
	for range 300 {
		l := start()
		r := &reference{pods: []rPod{{"a", "web-0", "web", 0, addr("10.244.0.10")}, {"a", "web-1", "web", 1, addr("10.244.1.10")},
			{"a", "client", "client", 0, addr("10.244.0.20")}, {"b", "other", "other", 1, addr("10.244.1.20")}}}
		for i := range d.IntN(4) {
			r.policies = append(r.policies, d.policy(i))
			l.policies = append(l.policies, r.policies[i].object())
		}
		w := world(t, l)
		g := &w.Config.VNets[0].NSGs[0]
		g.Rules = append(g.Rules, d.groupRules()...)
		r.rules = g.Rules
		if err := w.Config.Validate(); err != nil {
			t.Fatal(err)
		}
		for range 6 {
			f := r.flow(d)
			a, err := why.Explain(w, f.q)
			if err != nil {
				t.Fatalf("%+v: %v", f.q, err)
			}
			counts[a.Reachable]++
			if want := sum(f.ways); a.Reachable != want {
				answer, _ := json.MarshalIndent(a, "", " ")
				policies, _ := json.Marshal(l.policies)
				t.Fatalf("%+v: %s, want %s of %v\n%s\npolicies %s\nrules %+v", f.q, a.Reachable, want, f.ways, answer, policies, g.Rules)
			}
		}
	}
	t.Log(counts)
	if counts[why.Yes] < 200 || counts[why.No] < 200 || counts[why.Some] < 50 {
		t.Errorf("hardly anything was decided: %v", counts)
	}
}
