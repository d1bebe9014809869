// SPDX-License-Identifier: Apache-2.0

package why_test

import (
	"encoding/json"
	"strings"
	"testing"

	"bastide.dev/dataplane"
	"bastide.dev/why"
)

type change func(*why.World, *lists)

// group is a security group's rules in the cluster's network.
func group(id string, rules ...dataplane.NSGRule) change {
	return func(w *why.World, _ *lists) {
		for i := range w.Config.VNets[0].NSGs {
			if g := &w.Config.VNets[0].NSGs[i]; g.ID == id {
				g.Rules = append(g.Rules, rules...)
			}
		}
	}
}

func policies(all ...object) change {
	return func(_ *why.World, l *lists) { l.policies = append(l.policies, all...) }
}

var (
	isolateWeb = policy("a", "deny", object{"podSelector": object{"matchLabels": object{"app": "web"}}, "policyTypes": []string{"Ingress"}})
	fromClient = policy("a", "from-client", object{"podSelector": object{"matchLabels": object{"app": "web"}}, "policyTypes": []string{"Ingress"},
		"ingress": []object{{"from": []object{{"podSelector": object{"matchLabels": object{"app": "client"}}}}, "ports": []object{{"port": "http"}}}}})
	noEgress = policy("a", "quiet", object{"podSelector": object{"matchLabels": object{"app": "client"}}, "policyTypes": []string{"Egress"}})
)

// noMetadata closes the metadata address to all pods.
func noMetadata(w *why.World, _ *lists) {
	for i := range w.Config.VNets[0].NICs {
		w.Config.VNets[0].NICs[i].NoMetadata = true
	}
}

func TestExplain(t *testing.T) {
	cases := []struct {
		name, from, to string
		protocol       string
		changes        []change
		want           why.Reachable
		rule           string // the deciding one
	}{
		// Pods to pods.
		{name: "pod to pod on its node", from: "pod/a/client", to: "pod/a/web-0:8080", want: why.Yes},
		{name: "pod to pod on another node", from: "pod/a/client", to: "pod/a/web-1:8080", want: why.Yes, rule: "nsg/mc/agentpool/AllowVnetInBound"},
		{name: "pod to a port that it doesn't declare", from: "pod/a/client", to: "pod/a/web-0:9", want: why.Yes},
		{name: "pod to an ended pod", from: "pod/a/client", to: "pod/a/done:8080", want: why.No, rule: "networkpolicy/unknown-pod"},
		{name: "pod to a pending pod", from: "pod/a/client", to: "pod/a/waits:8080", want: why.No, rule: "pod/notRunning"},
		{name: "pod to itself", from: "pod/a/web-0", to: "pod/a/web-0:8080", changes: []change{policies(isolateWeb)}, want: why.Yes, rule: "networkpolicy/itself"},
		{name: "echo", from: "pod/a/client", to: "pod/a/web-1", protocol: "icmp", want: why.Yes, rule: "nsg/mc/agentpool/AllowVnetInBound"},
		{name: "ingress policy", from: "pod/b/other", to: "pod/a/web-0:8080", changes: []change{policies(isolateWeb)}, want: why.No, rule: "networkpolicy/a/default-deny (isolated by deny)"},
		{name: "ingress policy allows", from: "pod/a/client", to: "pod/a/web-1:8080", changes: []change{policies(isolateWeb, fromClient)}, want: why.Yes, rule: "networkpolicy/a/from-client/ingress/0"},
		{name: "ingress policy of another port", from: "pod/a/client", to: "pod/a/web-1:8081", changes: []change{policies(isolateWeb, fromClient)}, want: why.No, rule: "networkpolicy/a/default-deny (isolated by deny, from-client)"},
		{name: "egress policy", from: "pod/a/client", to: "pod/a/web-1:8080", changes: []change{policies(noEgress)}, want: why.No, rule: "networkpolicy/a/default-deny (isolated by quiet)"},
		{name: "egress policy to the Internet", from: "pod/a/client", to: "internet:443", changes: []change{policies(noEgress)}, want: why.No, rule: "networkpolicy/a/default-deny (isolated by quiet)"},
		{name: "egress policy to its node", from: "pod/a/client", to: "node/n0:22", changes: []change{policies(noEgress)}, want: why.No, rule: "networkpolicy/a/default-deny (isolated by quiet)"},
		{name: "policies don't hold without an agent", from: "pod/b/other", to: "pod/a/web-0:8080", changes: []change{policies(isolateWeb), func(w *why.World, _ *lists) {
			w.Clusters[0].Nodes[0].Enforces, w.Clusters[0].Nodes[1].Enforces = false, false
		}}, want: why.Yes, rule: "nsg/mc/agentpool/AllowVnetInBound"},
		{name: "group between nodes", from: "pod/a/client", to: "pod/a/web-1:8080", changes: []change{group("mc/agentpool",
			dataplane.NSGRule{Name: "cut", Priority: 200, Inbound: true, Protocol: 6, DestinationPorts: []dataplane.Ports{{First: 8000, Last: 9000}}})}, want: why.No, rule: "nsg/mc/agentpool/cut"},

		// The metadata address.
		{name: "pod to the metadata address", from: "pod/a/client", to: "169.254.169.254:80", want: why.Yes, rule: "platform/metadata"},
		{name: "pod to another port of it", from: "pod/a/client", to: "169.254.169.254:22", want: why.No, rule: "platform/router"},
		{name: "node to the metadata address", from: "node/n0", to: "169.254.169.254:80", changes: []change{noMetadata}, want: why.Yes, rule: "platform/metadata"},
		{name: "vm to the metadata address", from: "vm/jump", to: "169.254.169.254:80", want: why.Yes, rule: "platform/metadata"},
		{name: "closed to pods", from: "pod/a/client", to: "169.254.169.254:80", changes: []change{noMetadata}, want: why.No, rule: "platform/podLinkLocalAccess"},
		{name: "closed to pods, and another address", from: "pod/a/client", to: "pod/a/web-1:8080", changes: []change{noMetadata}, want: why.Yes, rule: "nsg/mc/agentpool/AllowVnetInBound"},
		{name: "the metadata address by policy", from: "pod/a/client", to: "169.254.169.254:80", changes: []change{policies(noEgress)}, want: why.No, rule: "networkpolicy/a/default-deny (isolated by quiet)"},
		{name: "the Internet to the metadata address", from: "terminal/good", to: "169.254.169.254:80", want: why.No, rule: "platform/privateDestination"},

		// Services.
		{name: "cluster address", from: "pod/a/client", to: "service/a/web:80", want: why.Yes, rule: ""},
		{name: "by its only port", from: "pod/a/client", to: "service/a/web", want: why.Yes, rule: ""},
		{name: "by the port's name and the DNS name", from: "pod/a/client", to: "web.a.svc.cluster.local:http", want: why.Yes, rule: ""},
		{name: "a port that it hasn't", from: "pod/a/client", to: "service/a/web:81", want: why.No, rule: "service/a/web/noSuchPort"},
		{name: "no endpoints", from: "pod/a/client", to: "service/a/none", want: why.No, rule: "service/a/none/noEndpoints"},
		{name: "one endpoint isolated", from: "pod/a/client", to: "service/a/web", changes: []change{policies(policy("a", "one", object{"podSelector": object{}, "policyTypes": []string{"Ingress"}})),
			func(_ *why.World, l *lists) {
				l.pods[0]["metadata"].(object)["namespace"] = "b"
				l.slices[0]["endpoints"] = []object{endpoint("n0", "web-0", "10.244.0.10", true), endpoint("n1", "web-1", "10.244.1.10", true)}
			}}, want: why.Some, rule: "networkpolicy/a/default-deny (isolated by one)"},
		{name: "internalTrafficPolicy, elsewhere", from: "pod/a/client", to: "service/a/inner", want: why.No, rule: "service/a/inner/internalTrafficPolicy"},
		{name: "internalTrafficPolicy, here", from: "pod/b/other", to: "service/a/inner", want: why.Yes},
		{name: "headless", from: "pod/a/client", to: "service/a/heads", want: why.Yes, rule: "nsg/mc/agentpool/AllowVnetInBound"},
		{name: "unallocated address", from: "pod/a/client", to: "10.0.9.9:80", want: why.No, rule: "services/unallocatedAddress"},
		{name: "node port", from: "vm/jump", to: "10.1.0.4:30080", want: why.Yes, rule: "nsg/mc/agentpool/AllowVnetInBound"},
		{name: "node port, Local, wrong node", from: "vm/jump", to: "10.1.0.4:30081", want: why.No, rule: "service/a/near/externalTrafficPolicy"},
		{name: "node port, Local, right node", from: "vm/jump", to: "10.1.0.5:30081", want: why.Yes, rule: "nsg/mc/agentpool/AllowVnetInBound"},
		{name: "node port, Local, from the node itself", from: "node/n0", to: "10.1.0.4:30081", want: why.Yes, rule: "nsg/mc/agentpool/AllowVnetInBound"},

		// Load balancers.
		{name: "from the Internet", from: "internet", to: "service/a/web", want: why.Yes, rule: ""},
		{name: "from a terminal by name", from: "terminal/good", to: "shop.apps.test:80", want: why.Yes, rule: ""},
		{name: "Local, where the probes find it", from: "terminal/good", to: "service/a/near", changes: []change{func(w *why.World, _ *lists) { healthy(w, "p81 c-n0") }}, want: why.Yes, rule: ""},
		{name: "Local, before the probes know", from: "terminal/good", to: "service/a/near", want: why.Some, rule: "service/a/near/externalTrafficPolicy"},
		{name: "no healthy back end", from: "terminal/good", to: "service/a/web", changes: []change{func(w *why.World, _ *lists) { healthy(w, "p80 c-n0", "p80 c-n1") }}, want: why.No,
			rule: "loadBalancers/kubernetes/loadBalancingRules/80/noHealthyBackend"},
		{name: "source ranges", from: "terminal/good", to: "service/a/ranged", want: why.No, rule: "service/a/ranged/loadBalancerSourceRanges"},
		{name: "source ranges, inside", from: "terminal/other", to: "service/a/ranged", want: why.Yes, rule: ""},
		{name: "a port without a rule", from: "terminal/good", to: "192.88.99.12:8443", want: why.No, rule: "platform/noListener"},
		{name: "from the Internet, isolated", from: "internet", to: "service/a/near", changes: []change{policies(isolateWeb), func(w *why.World, _ *lists) { healthy(w, "p81 c-n0") }}, want: why.No,
			rule: "networkpolicy/a/default-deny (isolated by deny)"},
		{name: "a group's rule in front", from: "terminal/good", to: "service/a/web", changes: []change{group("mc/agentpool",
			dataplane.NSGRule{Name: "no-good", Priority: 300, Inbound: true, Sources: prefixes("192.88.99.60/32")})}, want: why.No, rule: "nsg/mc/agentpool/no-good"},

		// Groups, routes and ways of machines.
		{name: "ssh to the jump host", from: "terminal/good", to: "vm/jump:22", want: why.Yes, rule: "nsg/rg/jump/ssh"},
		{name: "ssh from somebody else", from: "terminal/other", to: "vm/jump:22", want: why.No, rule: "nsg/rg/jump/DenyAllInBound"},
		{name: "ssh to a node, inside", from: "vm/jump", to: "node/n0:22", want: why.Yes, rule: "nsg/mc/agentpool/AllowVnetInBound"},
		{name: "a rule outwards", from: "pod/a/client", to: "internet:25", want: why.No, rule: "nsg/mc/agentpool/no-smtp"},
		{name: "out by the outbound rule", from: "pod/a/client", to: "internet:443", want: why.Yes, rule: "nsg/mc/agentpool/AllowInternetOutBound"},
		{name: "no way out", from: "vm/bare", to: "internet:443", want: why.No, rule: "platform/noOutbound"},
		{name: "a route to nowhere", from: "vm/jump", to: "9.9.9.9:443", want: why.No, rule: "rg/black/routes/hole"},
		{name: "peered", from: "vm/peer", to: "vm/bare:22", want: why.Yes},
		{name: "not peered", from: "vm/q", to: "vm/bare:22", want: why.No, rule: "platform/privateDestination"},
		{name: "peering absent on one side", from: "vm/peer", to: "vm/bare:22", changes: []change{func(w *why.World, _ *lists) { w.Config.VNets[0].Peers = nil }}, want: why.No, rule: "platform/privateDestination"},
		{name: "a private address from outside", from: "internet", to: "10.1.2.4:22", want: why.No, rule: "platform/unroutedDestination"},
		{name: "no group, closed from outside", from: "internet", to: "192.88.99.15:22", changes: []change{func(w *why.World, _ *lists) {
			w.Config.VNets[0].Public = append(w.Config.VNets[0].Public, dataplane.Public{Origin: "publicIPAddresses/bare", Address: addr("192.88.99.15"), Target: addr("10.1.3.4")})
		}}, want: why.No, rule: "platform/noNetworkSecurityGroup"},
		{name: "an unused address of the subnet", from: "vm/jump", to: "10.1.0.99:80", want: why.No, rule: "system"},

		// API servers.
		{name: "API server, range", from: "terminal/good", to: "apiserver/one", want: why.Yes, rule: ""},
		{name: "API server, no range", from: "terminal/other", to: "one.hcp.test:443", want: why.No, rule: "managedClusters/one/authorizedIPRanges"},
		{name: "API server from a pod", from: "pod/a/client", to: "apiserver/one", want: why.Yes},
		{name: "private cluster from its network", from: "vm/q", to: "two.privatelink.test:443", want: why.Yes},
		{name: "private cluster from outside", from: "terminal/good", to: "apiserver/two", want: why.No, rule: "platform/privateDestination"},
		{name: "private cluster from another network", from: "vm/bare", to: "apiserver/two", want: why.No, rule: "platform/privateDestination"},
		{name: "API server to a webhook", from: "apiserver/one", to: "service/a/heads", want: why.Yes},
		{name: "API server to a kubelet", from: "apiserver/one", to: "node/n1:10250", want: why.Yes, rule: "platform/apiServer"},
		{name: "front door", from: "pod/a/client", to: "192.88.99.1:443", want: why.Yes},
		{name: "name server", from: "node/n0", to: "168.63.129.16:53", protocol: "udp", want: why.Yes, rule: "platform/dns"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			l := start()
			w := world(t, nil)
			for _, c := range tc.changes {
				c(w, l)
			}
			w.Clusters[0].Objects = l.objects(t)
			from, to := tc.from, tc.to
			if strings.HasPrefix(from, "pod/") {
				from += "@one"
			} else if strings.HasPrefix(to, "service/") {
				to += "@one"
			}
			a, err := why.Explain(w, why.Question{From: from, To: to, Protocol: tc.protocol})
			if err != nil {
				t.Fatal(err)
			}
			if a.Reachable != tc.want || tc.rule != "" && !strings.HasSuffix(a.Rule, tc.rule) {
				text, _ := json.MarshalIndent(a, "", " ")
				t.Errorf("reachable %s by %q, want %s by %q\n%s", a.Reachable, a.Rule, tc.want, tc.rule, text)
			}
			if a.By == "" || len(a.Paths) == 0 {
				t.Errorf("an answer without a reason: %+v", a)
			}
		})
	}
}
