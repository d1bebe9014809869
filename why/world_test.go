// SPDX-License-Identifier: Apache-2.0

package why_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"bastide.dev/dataplane"
	"bastide.dev/host"
	"bastide.dev/why"
)

func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }
func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func prefixes(all ...string) []netip.Prefix {
	var list []netip.Prefix
	for _, s := range all {
		list = append(list, prefix(s))
	}
	return list
}

// object makes a Kubernetes object of JSON with some of its quotes left out.
type object = map[string]any

func list(items ...object) json.RawMessage {
	text, err := json.Marshal(object{"items": items})
	if err != nil {
		panic(err)
	}
	return text
}

func pod(namespace, name, node, address string, labels object, more ...object) object {
	p := object{"metadata": object{"namespace": namespace, "name": name, "uid": namespace + "-" + name, "labels": labels},
		"spec":   object{"nodeName": node, "containers": []object{{"ports": []object{{"containerPort": 8080, "name": "http"}}}}},
		"status": object{"phase": "Running", "podIPs": []object{{"ip": address}}, "conditions": []object{{"type": "Ready", "status": "True"}}}}
	for _, m := range more {
		for k, v := range m {
			section, key, _ := strings.Cut(k, ".")
			p[section].(object)[key] = v
		}
	}
	return p
}

func service(namespace, name, ip string, spec, status object) object {
	s := object{"clusterIP": ip, "clusterIPs": []string{ip}, "ports": []object{{"name": "http", "protocol": "TCP", "port": 80, "nodePort": 30080}}}
	for k, v := range spec {
		s[k] = v
	}
	return object{"metadata": object{"namespace": namespace, "name": name}, "spec": s, "status": status}
}

func slice(namespace, service string, endpoints ...object) object {
	return object{"metadata": object{"namespace": namespace, "name": service + "-x", "labels": object{"kubernetes.io/service-name": service}},
		"endpoints": endpoints, "ports": []object{{"name": "http", "protocol": "TCP", "port": 8080}}}
}

func endpoint(node, pod, address string, ready bool) object {
	return object{"addresses": []string{address}, "nodeName": node, "targetRef": object{"kind": "Pod", "name": pod}, "conditions": object{"ready": ready}}
}

func policy(namespace, name string, spec object) object {
	return object{"metadata": object{"namespace": namespace, "name": name}, "spec": spec}
}

func balanced(ip string) object {
	return object{"loadBalancer": object{"ingress": []object{{"ip": ip}}}}
}

// lists is a cluster's objects before they are encoded.
type lists struct{ pods, services, slices, policies []object }

// start is two nodes with two pods of "web" in a, a client in a and one in b, and Services.
func start() *lists {
	web := object{"app": "web"}
	return &lists{
		pods: []object{
			pod("a", "web-0", "n0", "10.244.0.10", web), pod("a", "web-1", "n1", "10.244.1.10", web),
			pod("a", "client", "n0", "10.244.0.20", object{"app": "client"}), pod("b", "other", "n1", "10.244.1.20", object{"app": "other"}),
			pod("a", "done", "n0", "10.244.0.30", web, object{"status.phase": "Succeeded"}),
			pod("a", "waits", "n0", "10.244.0.31", object{"app": "waits"}, object{"status.phase": "Pending"}),
			pod("kube-system", "proxy", "n0", "10.1.0.4", nil, object{"spec.hostNetwork": true}),
		},
		services: []object{
			service("a", "web", "10.0.0.10", object{"type": "LoadBalancer"}, balanced("192.88.99.12")),
			service("a", "near", "10.0.0.11", object{"type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": []object{{"name": "http", "port": 81, "nodePort": 30081}}}, balanced("192.88.99.12")),
			service("a", "none", "10.0.0.12", object{"ports": []object{{"name": "http", "port": 80}}}, nil),
			service("a", "ranged", "10.0.0.13", object{"type": "LoadBalancer", "loadBalancerSourceRanges": []string{"192.88.99.61/32"}, "ports": []object{{"name": "http", "port": 82, "nodePort": 30082}}}, balanced("192.88.99.12")),
			service("a", "inner", "10.0.0.14", object{"internalTrafficPolicy": "Local", "ports": []object{{"name": "http", "port": 80}}}, nil),
			service("a", "heads", "None", object{"ports": []object{{"name": "http", "port": 8080}}}, nil),
		},
		slices: []object{
			slice("a", "web", endpoint("n0", "web-0", "10.244.0.10", true), endpoint("n1", "web-1", "10.244.1.10", true)),
			slice("a", "near", endpoint("n1", "web-1", "10.244.1.10", true)),
			slice("a", "none", endpoint("n0", "web-0", "10.244.0.10", false)),
			slice("a", "ranged", endpoint("n0", "web-0", "10.244.0.10", true)),
			slice("a", "inner", endpoint("n1", "web-1", "10.244.1.10", true)),
			slice("a", "heads", endpoint("n1", "web-1", "10.244.1.10", true)),
		},
	}
}

func (l *lists) objects(t testing.TB) *why.Objects {
	t.Helper()
	namespace := func(name string) object {
		return object{"metadata": object{"name": name, "labels": object{"name": name}}}
	}
	node := func(name, address string) object {
		return object{"metadata": object{"name": name}, "status": object{"addresses": []object{{"type": "Hostname", "address": name}, {"type": "InternalIP", "address": address}}}}
	}
	o, err := why.ReadObjects(host.Objects{Pods: list(l.pods...), Services: list(l.services...), EndpointSlices: list(l.slices...),
		Namespaces: list(namespace("a"), namespace("b"), namespace("kube-system")), Nodes: list(node("n0", "10.1.0.4"), node("n1", "10.1.0.5")),
		NetworkPolicies: list(l.policies...), ClusterPolicies: json.RawMessage("null")})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// standard are the default rules of every group.
func standard(network ...string) []dataplane.NSGRule {
	own := append(prefixes(network...), prefix("168.63.129.16/32"))
	internet := prefixes("0.0.0.0/5", "8.0.0.0/7", "11.0.0.0/8", "12.0.0.0/6", "16.0.0.0/4", "32.0.0.0/3", "64.0.0.0/3",
		"96.0.0.0/6", "128.0.0.0/3", "192.0.0.0/9", "192.128.0.0/11", "193.0.0.0/8", "194.0.0.0/7", "196.0.0.0/6", "200.0.0.0/5", "208.0.0.0/4")
	return []dataplane.NSGRule{
		{Name: "AllowVnetInBound", Priority: 65000, Inbound: true, Allow: true, Sources: own, Destinations: own},
		{Name: "AllowAzureLoadBalancerInBound", Priority: 65001, Inbound: true, Allow: true, Sources: prefixes("168.63.129.16/32")},
		{Name: "DenyAllInBound", Priority: 65500, Inbound: true},
		{Name: "AllowVnetOutBound", Priority: 65000, Allow: true, Sources: own, Destinations: own},
		{Name: "AllowInternetOutBound", Priority: 65001, Allow: true, Destinations: internet},
		{Name: "DenyAllOutBound", Priority: 65500},
	}
}

// world is a kubenet cluster in a network with a jump host, a machine without a
// group and one without a way out; a peered network and one that isn't; two
// clients outside; and a second, private cluster.
func world(t testing.TB, l *lists) *why.World {
	nodes := []string{"c-n0", "c-n1"}
	node := func(i int) dataplane.NIC {
		return dataplane.NIC{ID: nodes[i], Machine: nodes[i], Address: addr(fmt.Sprintf("10.1.0.%d", 4+i)), Subnet: "nodes", Forwarding: true,
			Egress: []dataplane.Egress{{Origin: "loadBalancers/kubernetes/outboundRules/aks", Address: addr("192.88.99.10"), First: uint16(1024 * (1 + i)), Last: uint16(1024*(1+i) + 1023)}}}
	}
	balancer := func(port uint16) dataplane.Balancer {
		return dataplane.Balancer{Origin: fmt.Sprintf("loadBalancers/kubernetes/loadBalancingRules/%d", port), Address: addr("192.88.99.12"), Protocol: 6,
			Ports: dataplane.Ports{First: port, Last: port}, Floating: true, BackendPort: port, Backends: nodes, Probe: fmt.Sprintf("p%d", port)}
	}
	probe := func(port uint16) dataplane.Probe {
		return dataplane.Probe{ID: fmt.Sprintf("p%d", port), Protocol: "Tcp", Port: 30000 + port, Interval: 5, Failures: 2}
	}
	lbRule := dataplane.NSGRule{Name: "k8s-lb", Priority: 500, Inbound: true, Allow: true, Protocol: 6, Destinations: prefixes("192.88.99.12/32")}
	v := dataplane.VNet{
		ID: "c", Prefixes: prefixes("10.1.0.0/16"),
		Subnets: []dataplane.Subnet{
			{Name: "nodes", Prefix: prefix("10.1.0.0/24"), NSG: "mc/agentpool", RouteTable: "mc/routes"}, {Name: "api", Prefix: prefix("10.1.1.0/24"), RouteTable: "mc/routes"},
			{Name: "jump", Prefix: prefix("10.1.2.0/24"), RouteTable: "rg/black"}, {Name: "bare", Prefix: prefix("10.1.3.0/24")}},
		NICs: []dataplane.NIC{
			{ID: "c-api", Namespace: "c1", Address: addr("10.1.1.4"), Subnet: "api", Platform: true, Egress: []dataplane.Egress{{Address: addr("192.88.99.11")}}},
			node(0), node(1),
			{ID: "c-jump", Machine: "m-jump", Address: addr("10.1.2.4"), Subnet: "jump", NSG: "rg/jump"},
			{ID: "c-bare", Machine: "m-bare", Address: addr("10.1.3.4"), Subnet: "bare"}},
		RouteTables: []dataplane.RouteTable{
			{ID: "mc/routes", Routes: []dataplane.UserRoute{
				{Name: "n0", Prefix: prefix("10.244.0.0/24"), Hop: dataplane.HopAppliance, Via: addr("10.1.0.4")},
				{Name: "n1", Prefix: prefix("10.244.1.0/24"), Hop: dataplane.HopAppliance, Via: addr("10.1.0.5")}}},
			{ID: "rg/black", Routes: []dataplane.UserRoute{{Name: "hole", Prefix: prefix("9.9.9.0/24"), Hop: dataplane.HopNone}}}},
		NSGs: []dataplane.NSG{
			{ID: "mc/agentpool", Rules: append(standard("10.1.0.0/16", "10.2.0.0/16", "10.244.0.0/16"), lbRule,
				dataplane.NSGRule{Name: "no-smtp", Priority: 100, Protocol: 6, DestinationPorts: []dataplane.Ports{{First: 25, Last: 25}}})},
			{ID: "rg/jump", Rules: append(standard("10.1.0.0/16"),
				dataplane.NSGRule{Name: "ssh", Priority: 100, Inbound: true, Allow: true, Protocol: 6, Sources: prefixes("192.88.99.60/32"), DestinationPorts: []dataplane.Ports{{First: 22, Last: 22}}})}},
		Balancers: []dataplane.Balancer{balancer(80), balancer(81), balancer(82)}, Probes: []dataplane.Probe{probe(80), probe(81), probe(82)},
		Public: []dataplane.Public{
			{Origin: "managedClusters/one", Address: addr("192.88.99.13"), Port: 443, Target: addr("10.1.1.4"), TPort: 443, Restricted: true, Allowed: prefixes("192.88.99.60/32", "192.88.99.10/32")},
			{Origin: "publicIPAddresses/jump", Address: addr("192.88.99.14"), Target: addr("10.1.2.4")}},
		Peers: []dataplane.Peer{{VNet: "p", Origin: "virtualNetworks/c/virtualNetworkPeerings/p", Prefixes: prefixes("10.2.0.0/16"), Access: true}},
		Names: []dataplane.Name{{Name: "one.hcp.test", Addresses: []netip.Addr{addr("10.1.1.4")}}},
	}
	peered := dataplane.VNet{ID: "p", Prefixes: prefixes("10.2.0.0/16"), Subnets: []dataplane.Subnet{{Name: "s", Prefix: prefix("10.2.0.0/24")}},
		NICs:  []dataplane.NIC{{ID: "p-vm", Machine: "m-peer", Address: addr("10.2.0.4"), Subnet: "s"}},
		Peers: []dataplane.Peer{{VNet: "c", Origin: "virtualNetworks/p/virtualNetworkPeerings/c", Prefixes: prefixes("10.1.0.0/16"), Access: true}}}
	private := dataplane.VNet{ID: "q", Prefixes: prefixes("10.3.0.0/16"), Subnets: []dataplane.Subnet{{Name: "s", Prefix: prefix("10.3.0.0/24")}},
		NICs:  []dataplane.NIC{{ID: "q-api", Namespace: "c2", Address: addr("10.3.0.4"), Subnet: "s", Platform: true}, {ID: "q-vm", Machine: "m-q", Address: addr("10.3.0.9"), Subnet: "s"}},
		Names: []dataplane.Name{{Name: "two.privatelink.test", Addresses: []netip.Addr{addr("10.3.0.4")}}}}
	w := &why.World{Instance: "test",
		Config: dataplane.Config{Edge: dataplane.Edge{Pools: prefixes("192.88.99.0/24"), FrontDoor: addr("192.88.99.1"),
			Names:     []dataplane.Name{{Name: "one.hcp.test", Addresses: []netip.Addr{addr("192.88.99.13")}}, {Name: "*.apps.test", Addresses: []netip.Addr{addr("192.88.99.12")}}},
			Terminals: []dataplane.Terminal{{ID: "tg", Namespace: "tg", Address: addr("192.88.99.60")}, {ID: "to", Namespace: "to", Address: addr("192.88.99.61")}}},
			VNets: []dataplane.VNet{v, peered, private}},
		VMs:       []why.VM{{"rg", "jump", "m-jump"}, {"rg", "bare", "m-bare"}, {"rg", "peer", "m-peer"}, {"rg", "q", "m-q"}},
		Terminals: []why.Terminal{{"outside", "good", "tg"}, {"outside", "other", "to"}},
		VNets:     map[string]string{"c": "rg/vnet-c"},
		Digests:   map[string]string{}, Health: map[string]dataplane.Health{},
	}
	one := why.Cluster{Group: "rg", Name: "one", ControlPlane: "c1", FQDN: "one.hcp.test", Server: addr("10.1.1.4"), Port: 443}
	for i, id := range nodes {
		one.Nodes = append(one.Nodes, why.Node{Name: fmt.Sprintf("n%d", i), Machine: id, Address: addr(fmt.Sprintf("10.1.0.%d", 4+i)),
			Pods: prefixes(fmt.Sprintf("10.244.%d.0/24", i)), Inside: prefixes("10.244.0.0/16"), Local: prefixes("10.244.0.0/16"),
			Services: prefix("10.0.0.0/16"), Enforces: true})
	}
	if l != nil {
		one.Objects = l.objects(t)
	}
	w.Clusters = []why.Cluster{one, {Group: "rg", Name: "two", ControlPlane: "c2", FQDN: "", Server: addr("10.3.0.4"), Port: 443}}
	if err := w.Config.Validate(); err != nil {
		t.Fatal(err)
	}
	healthy(w)
	return w
}

// healthy sets the hosts' reports to what is compiled, but for back ends that are ill.
func healthy(w *why.World, ill ...string) {
	for i := range w.Config.VNets {
		v := &w.Config.VNets[i]
		status := dataplane.VNetStatus{Unhealthy: map[string][]string{}}
		for _, p := range v.Probes {
			for _, one := range ill {
				if probe, nic, _ := strings.Cut(one, " "); probe == p.ID {
					status.Unhealthy[p.ID] = append(status.Unhealthy[p.ID], nic)
				}
			}
		}
		slices.Sort(ill)
		w.Health[v.ID] = why.HealthOf(v, &status)
		r := dataplane.Compile(w.Instance, &w.Config, v, w.Health[v.ID])
		w.Digests[v.ID] = r.Digest()
	}
}
