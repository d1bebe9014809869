// SPDX-License-Identifier: Apache-2.0

package dataplane_test

import (
	"fmt"
	"net/netip"
	"testing"

	"bastide.dev/dataplane"
)

const instance = "test"

func prefixes(all ...string) []netip.Prefix {
	var list []netip.Prefix
	for _, s := range all {
		list = append(list, prefix(s))
	}
	return list
}

func portsOf(first, last uint16) []dataplane.Ports {
	return []dataplane.Ports{{First: first, Last: last}}
}

// standard are the default rules of every group, for a network's own ranges.
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

// to narrows a rule to destinations.
func to(r dataplane.NSGRule, destinations ...string) dataplane.NSGRule {
	r.Destinations = prefixes(destinations...)
	return r
}

func allow(name string, priority int, port uint16, sources ...string) dataplane.NSGRule {
	return dataplane.NSGRule{Name: name, Priority: priority, Inbound: true, Allow: true, Protocol: 6,
		Sources: prefixes(sources...), DestinationPorts: portsOf(port, port)}
}

func egress(address string) []dataplane.Egress {
	return []dataplane.Egress{{Origin: "loadBalancers/kubernetes/outboundRules/aks", Address: addr(address)}}
}

// cluster is a network as a public cluster's, with two nodes behind a load
// balancer, an API server with authorised ranges, and a jump host.
func cluster() dataplane.VNet {
	nodes := []string{"c-n0", "c-n1"}
	nic := func(i int, first uint16) dataplane.NIC {
		return dataplane.NIC{ID: nodes[i], Machine: nodes[i], Address: addr(fmt.Sprintf("10.1.0.%d", 4+i)), Subnet: "nodes", Forwarding: true,
			Egress: []dataplane.Egress{{Origin: "loadBalancers/kubernetes/outboundRules/aks", Address: addr("192.88.99.10"), First: first, Last: first + 1023, Idle: 240, Reset: true}}}
	}
	balancer := func(name, address string, port, backend uint16, floating bool) dataplane.Balancer {
		return dataplane.Balancer{Origin: "loadBalancers/kubernetes/loadBalancingRules/" + name, Address: addr(address), Protocol: 6,
			Ports: dataplane.Ports{First: port, Last: port}, Floating: floating, BackendPort: backend, Backends: nodes, Probe: "p80", Idle: 240, Reset: true}
	}
	return dataplane.VNet{
		ID: "c", Prefixes: prefixes("10.1.0.0/16"),
		Subnets: []dataplane.Subnet{
			{Name: "nodes", Prefix: prefix("10.1.0.0/24"), NSG: "mc/agentpool", RouteTable: "mc/routes"},
			{Name: "api", Prefix: prefix("10.1.1.0/24")},
			{Name: "jump", Prefix: prefix("10.1.2.0/24")},
			{Name: "bare", Prefix: prefix("10.1.3.0/24")},
		},
		NICs: []dataplane.NIC{
			{ID: "c-api", Namespace: "c", Address: addr("10.1.1.4"), Subnet: "api", Platform: true, Egress: egress("192.88.99.11")},
			nic(0, 1024), nic(1, 2048),
			{ID: "c-jump", Machine: "c-jump", Address: addr("10.1.2.4"), Subnet: "jump", NSG: "rg/jump"},
			{ID: "c-bare", Machine: "c-bare", Address: addr("10.1.3.4"), Subnet: "bare"},
		},
		RouteTables: []dataplane.RouteTable{{ID: "mc/routes", Routes: []dataplane.UserRoute{
			{Name: "n0", Prefix: prefix("10.244.0.0/24"), Hop: dataplane.HopAppliance, Via: addr("10.1.0.4")},
			{Name: "n1", Prefix: prefix("10.244.1.0/24"), Hop: dataplane.HopAppliance, Via: addr("10.1.0.5")}}}},
		NSGs: []dataplane.NSG{
			{ID: "mc/agentpool", Log: true, Rules: append(standard("10.1.0.0/16", "10.244.0.0/16"),
				to(allow("k8s-80", 500, 80), "192.88.99.12/32"), allow("k8s-8080", 501, 30081, "192.88.99.0/25", "8.0.0.0/8"))},
			{ID: "rg/jump", Rules: append(standard("10.1.0.0/16"), allow("ssh", 100, 22, "192.88.99.60/32"))},
		},
		Probes: []dataplane.Probe{{ID: "p80", Protocol: "Tcp", Port: 30080, Interval: 5, Failures: 2}},
		Balancers: []dataplane.Balancer{
			balancer("a-80", "192.88.99.12", 80, 80, true),
			balancer("b-8080", "192.88.99.12", 8080, 30081, false),
			balancer("c-9000", "10.1.0.200", 9000, 9000, true),
			balancer("d-9001", "10.1.0.200", 9001, 30090, false),
		},
		Public: []dataplane.Public{
			{Origin: "managedClusters/c", Address: addr("192.88.99.13"), Port: 443, Target: addr("10.1.1.4"), TPort: 6443,
				Restricted: true, Allowed: prefixes("192.88.99.60/32", "192.88.99.10/32")},
			{Origin: "publicIPAddresses/jump", Address: addr("192.88.99.14"), Target: addr("10.1.2.4"), Idle: 600},
			{Origin: "publicIPAddresses/bare", Address: addr("192.88.99.15"), Target: addr("10.1.3.4")},
		},
	}
}

// hubAndSpokes are three peered networks: traffic between spokes, and from
// spoke one to the Internet, goes by an appliance in the hub.
func hubAndSpokes() []dataplane.VNet {
	spoke := func(n int, routes ...dataplane.UserRoute) dataplane.VNet {
		id := fmt.Sprintf("s%d", n)
		return dataplane.VNet{
			ID: id, Prefixes: prefixes(fmt.Sprintf("10.%d.0.0/16", 10+n)),
			Subnets:     []dataplane.Subnet{{Name: "s", Prefix: prefix(fmt.Sprintf("10.%d.0.0/24", 10+n)), RouteTable: "rt"}},
			RouteTables: []dataplane.RouteTable{{ID: "rt", Routes: routes}},
			NICs: []dataplane.NIC{{ID: id + "-vm", Machine: id, Address: addr(fmt.Sprintf("10.%d.0.4", 10+n)), Subnet: "s",
				Egress: egress(fmt.Sprintf("192.88.99.%d", 20+n))}},
			Peers: []dataplane.Peer{{VNet: "hub", Origin: "virtualNetworks/" + id + "/virtualNetworkPeerings/hub", Prefixes: prefixes("10.10.0.0/16"), Access: true, Forwarded: true}},
		}
	}
	by := func(name, to string) dataplane.UserRoute {
		return dataplane.UserRoute{Name: name, Prefix: prefix(to), Hop: dataplane.HopAppliance, Via: addr("10.10.0.4")}
	}
	peer := func(n int) dataplane.Peer {
		return dataplane.Peer{VNet: fmt.Sprintf("s%d", n), Origin: fmt.Sprintf("virtualNetworks/hub/virtualNetworkPeerings/s%d", n),
			Prefixes: prefixes(fmt.Sprintf("10.%d.0.0/16", 10+n)), Access: n != 3}
	}
	hub := dataplane.VNet{
		ID: "hub", Prefixes: prefixes("10.10.0.0/16"), Subnets: []dataplane.Subnet{{Name: "h", Prefix: prefix("10.10.0.0/24")}},
		NICs: []dataplane.NIC{
			{ID: "hub-fw", Machine: "fw", Address: addr("10.10.0.4"), Subnet: "h", Forwarding: true, Egress: egress("192.88.99.20")},
			{ID: "hub-vm", Machine: "hvm", Address: addr("10.10.0.5"), Subnet: "h"},
		},
		Peers: []dataplane.Peer{peer(1), peer(2), peer(3)},
	}
	return []dataplane.VNet{hub,
		spoke(1, by("two", "10.12.0.0/16"), by("all", "0.0.0.0/0"), dataplane.UserRoute{Name: "not", Prefix: prefix("9.9.9.0/24"), Hop: dataplane.HopNone}),
		spoke(2, by("one", "10.11.0.0/16")), spoke(3)}
}

// world has one of everything, and two clients on the Internet.
func world() *dataplane.Config {
	return &dataplane.Config{
		Edge: dataplane.Edge{Pools: prefixes("192.88.99.0/24"), FrontDoor: addr("192.88.99.1"), Terminals: []dataplane.Terminal{
			{ID: "good", Namespace: "good", Address: addr("192.88.99.60")}, {ID: "other", Namespace: "other", Address: addr("192.88.99.61")}}},
		VNets: append(hubAndSpokes(), cluster()),
	}
}

func healthy() map[string]dataplane.Health {
	return map[string]dataplane.Health{"c": {"p80": {"c-n0": true, "c-n1": true}}}
}

func network(t *testing.T, c *dataplane.Config, id string) *dataplane.VNet {
	t.Helper()
	for i := range c.VNets {
		if c.VNets[i].ID == id {
			return &c.VNets[i]
		}
	}
	t.Fatalf("no network %s", id)
	return nil
}

func compile(t *testing.T, c *dataplane.Config, id string) dataplane.Router {
	t.Helper()
	r := dataplane.Compile(instance, c, network(t, c, id), healthy()[id])
	if err := r.Table.Validate(); err != nil {
		t.Fatal(err)
	}
	return r
}
