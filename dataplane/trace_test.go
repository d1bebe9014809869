// SPDX-License-Identifier: Apache-2.0

package dataplane_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"bastide.dev/dataplane"
)

func trace(t *testing.T, c *dataplane.Config, health map[string]dataplane.Health, from dataplane.Endpoint, f dataplane.Flow) dataplane.Path {
	t.Helper()
	p, err := dataplane.Trace(instance, c, health, from, f)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// outcome is a path in short: where it got to and as what, or who refused.
func outcome(p dataplane.Path) string {
	a := p.Arrival
	if !p.Reached {
		if a != nil {
			return "no way back: " + p.By
		}
		return "refused: " + p.By
	}
	at := a.NIC
	switch {
	case a.Terminal != "":
		at = "terminal " + a.Terminal
	case a.Router != "":
		at = "router " + a.Router
	case a.Edge:
		at = "edge"
	case a.Machine:
		at = "machine"
	case a.Outside:
		at = "outside"
	}
	return fmt.Sprintf("%s %s:%d from %s:%d", at, a.Address, a.Port, a.Source, a.SourcePort)
}

func nic(id string) dataplane.Endpoint      { return dataplane.Endpoint{NIC: id} }
func terminal(id string) dataplane.Endpoint { return dataplane.Endpoint{Terminal: id} }
func internet(a string) dataplane.Endpoint  { return dataplane.Endpoint{Source: addr(a)} }
func source(id, source string) dataplane.Endpoint {
	return dataplane.Endpoint{NIC: id, Source: addr(source)}
}
func tcp(to string, port uint16) dataplane.Flow {
	return dataplane.Flow{Protocol: 6, Destination: addr(to), Port: port}
}
func flow(proto uint8, to string, port uint16) dataplane.Flow {
	return dataplane.Flow{Protocol: proto, Destination: addr(to), Port: port}
}

func TestTrace(t *testing.T) {
	good, other := terminal("good"), terminal("other")
	cases := []struct {
		name string
		from dataplane.Endpoint
		flow dataplane.Flow
		want string
	}{
		{"public, floating", good, tcp("192.88.99.12", 80), "c-n1 192.88.99.12:80 from 192.88.99.60:50000"},
		{"public, translated", good, tcp("192.88.99.12", 8080), "c-n1 10.1.0.5:30081 from 192.88.99.60:50000"},
		{"public, a port that nobody has", good, tcp("192.88.99.12", 81), "refused: platform/noListener"},
		{"public, another protocol", good, flow(17, "192.88.99.12", 80), "refused: platform/noListener"},
		{"the group sees the back end's port", internet("8.8.8.8"), tcp("192.88.99.12", 8080), "c-n1 10.1.0.5:30081 from 8.8.8.8:50000"},
		{"the group sees the client's address", internet("130.1.1.1"), tcp("192.88.99.12", 8080), "refused: nsg/mc/agentpool/DenyAllInBound"},
		{"internal, floating", nic("c-jump"), tcp("10.1.0.200", 9000), "c-n1 10.1.0.200:9000 from 10.1.2.4:50000"},
		{"internal, translated", nic("c-jump"), tcp("10.1.0.200", 9001), "c-n1 10.1.0.5:30090 from 10.1.2.4:50000"},
		{"internal, from outside", good, tcp("10.1.0.200", 9000), "refused: platform/privateDestination"},
		{"public, from inside", nic("c-n0"), tcp("192.88.99.12", 80), "c-n1 192.88.99.12:80 from 192.88.99.10:1024"},
		{"public, from inside by its own address", nic("c-jump"), tcp("192.88.99.12", 80), "c-n1 192.88.99.12:80 from 192.88.99.14:50000"},
		{"public, from a peer's like from outside", nic("s2-vm"), tcp("192.88.99.12", 80), "c-n1 192.88.99.12:80 from 192.88.99.22:50000"},

		{"API, allowed", good, tcp("192.88.99.13", 443), "c-api 10.1.1.4:6443 from 192.88.99.60:50000"},
		{"API, not allowed", other, tcp("192.88.99.13", 443), "refused: managedClusters/c/authorizedIPRanges"},
		{"API, another port", good, tcp("192.88.99.13", 6443), "refused: platform/noListener"},
		{"API, from a node with an allowed egress", nic("c-n0"), tcp("192.88.99.13", 443), "c-api 10.1.1.4:6443 from 192.88.99.10:1024"},
		{"API, from inside, not allowed", nic("c-jump"), tcp("192.88.99.13", 443), "refused: managedClusters/c/authorizedIPRanges"},
		{"API, from itself", nic("c-api"), tcp("192.88.99.13", 443), "c-api 10.1.1.4:6443 from 192.88.99.13:50000"},
		{"API, privately", nic("c-jump"), tcp("10.1.1.4", 6443), "c-api 10.1.1.4:6443 from 10.1.2.4:50000"},
		{"from the API past the groups", nic("c-api"), tcp("10.1.0.4", 10250), "c-n0 10.1.0.4:10250 from 10.1.1.4:50000"},

		{"jump host, SSH", good, tcp("192.88.99.14", 22), "c-jump 10.1.2.4:22 from 192.88.99.60:50000"},
		{"jump host, SSH from another", other, tcp("192.88.99.14", 22), "refused: nsg/rg/jump/DenyAllInBound"},
		{"jump host, out by its own address", nic("c-jump"), tcp("192.88.99.60", 80), "terminal good 192.88.99.60:80 from 192.88.99.14:50000"},
		{"no group, closed", good, tcp("192.88.99.15", 22), "refused: platform/noNetworkSecurityGroup"},
		{"no group, closed to its own network's roundabout", nic("c-n0"), tcp("192.88.99.15", 22), "refused: platform/noNetworkSecurityGroup"},
		{"no group, open inside", nic("c-n0"), tcp("10.1.3.4", 22), "c-bare 10.1.3.4:22 from 10.1.0.4:50000"},

		{"out, by ports of its own", nic("c-n1"), tcp("192.88.99.60", 80), "terminal good 192.88.99.60:80 from 192.88.99.10:2048"},
		{"out, an echo request", nic("c-n1"), flow(1, "192.88.99.60", 0), "terminal good 192.88.99.60:0 from 192.88.99.10:0"},
		{"out, beyond the machine", nic("c-n1"), tcp("8.8.8.8", 80), "outside 8.8.8.8:80 from 192.88.99.10:2048"},
		{"out, a pod that nobody masqueraded", source("c-n1", "10.244.1.7"), tcp("8.8.8.8", 80), "refused: platform/notOwnSource"},
		{"out, without egress", nic("hub-vm"), tcp("8.8.8.8", 80), "refused: platform/noOutbound"},
		{"the front door", nic("c-n0"), tcp("192.88.99.1", 443), "machine 192.88.99.1:443 from 192.88.99.10:1024"},
		{"the machine, but the front door", nic("c-n0"), tcp("192.88.99.1", 22), "refused: platform/machine"},
		{"names", nic("c-n0"), flow(17, "168.63.129.16", 53), "router c 168.63.129.16:53 from 10.1.0.4:50000"},
		{"a terminal's names", good, flow(17, "168.63.129.16", 53), "edge 168.63.129.16:53 from 192.88.99.60:50000"},
		{"the edge's other ports", good, tcp("168.63.129.16", 22), "refused: edge/input"},
		{"the router's own ports", nic("c-n0"), tcp("10.1.0.1", 22), "refused: platform/router"},
		{"an unused public address", good, tcp("192.88.99.200", 80), "refused: unusedPublicAddress"},
		{"an unused private address", nic("c-n0"), tcp("10.1.0.77", 80), "refused: system"},
		{"another network without peering", nic("c-n0"), tcp("10.11.0.4", 80), "refused: nsg/mc/agentpool/DenyAllOutBound"},
		{"private, nobody's", nic("c-jump"), tcp("192.168.1.1", 80), "refused: nsg/rg/jump/DenyAllOutBound"},
		{"private, nobody's, without a group", nic("c-bare"), tcp("192.168.1.1", 80), "refused: platform/privateDestination"},

		{"spoofed", source("c-jump", "10.1.0.4"), tcp("10.1.3.4", 80), "refused: platform/spoofedSource"},
		{"spoofed front end", source("c-jump", "192.88.99.12"), tcp("10.1.3.4", 80), "refused: platform/spoofedSource"},
		{"spoofed by a forwarder", source("c-n0", "168.63.129.16"), tcp("10.1.0.5", 80), "refused: platform/spoofedSource"},
		{"spoofed by a terminal", dataplane.Endpoint{Terminal: "other", Source: addr("192.88.99.60")}, tcp("192.88.99.14", 22), "refused: platform/spoofedSource"},
		{"spoofed from the Internet", internet("192.88.99.60"), tcp("192.88.99.14", 22), "refused: platform/spoofedSource"},
		{"private from the machine's surroundings", internet("192.168.7.7"), tcp("192.88.99.12", 80), "c-n1 192.88.99.12:80 from 192.88.99.1:50000"},

		{"pod to pod by the route table", source("c-n0", "10.244.0.9"), tcp("10.244.1.9", 8080), "c-n1 10.244.1.9:8080 from 10.244.0.9:50000"},
		{"pod, from a subnet without the route table", nic("c-jump"), tcp("10.244.1.9", 8080), "refused: nsg/rg/jump/DenyAllOutBound"},
		{"a probe", dataplane.Endpoint{Router: "c"}, tcp("10.1.0.4", 30080), "c-n0 10.1.0.4:30080 from 168.63.129.16:50000"},

		{"peer", nic("s2-vm"), tcp("10.10.0.5", 80), "hub-vm 10.10.0.5:80 from 10.12.0.4:50000"},
		{"peer without access", nic("s3-vm"), tcp("10.10.0.5", 80), "refused: virtualNetworks/hub/virtualNetworkPeerings/s3/virtualNetworkAccess"},
		{"to a peer without access here", nic("hub-vm"), tcp("10.13.0.4", 80), "s3-vm 10.13.0.4:80 from 10.10.0.5:50000"},
		{"spoke to spoke by the appliance", nic("s1-vm"), tcp("10.12.0.4", 80), "s2-vm 10.12.0.4:80 from 10.11.0.4:50000"},
		{"spoke without a route to the other", nic("s3-vm"), tcp("10.11.0.4", 80), "refused: platform/privateDestination"},
		{"by the appliance to the Internet, without its translation", nic("s1-vm"), tcp("8.8.8.8", 80), "refused: platform/notOwnSource"},
		{"the appliance itself to the Internet", nic("hub-fw"), tcp("8.8.8.8", 80), "outside 8.8.8.8:80 from 192.88.99.20:50000"},
		{"a route to nowhere", nic("s1-vm"), tcp("9.9.9.9", 80), "refused: routeTables/rt/routes/not"},
	}
	c, health := world(), healthy()
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			p := trace(t, c, health, tc.from, tc.flow)
			if got := outcome(p); got != tc.want {
				text, _ := json.MarshalIndent(p.Hops, "", " ")
				t.Errorf("got %q, want %q\n%s", got, tc.want, text)
			}
		})
	}
}

func TestTraceOfProbedBackends(t *testing.T) {
	c := world()
	front := tcp("192.88.99.12", 80)
	for _, tc := range []struct {
		name   string
		health dataplane.Health
		want   string
	}{
		{"one is ill", dataplane.Health{"p80": {"c-n0": true, "c-n1": false}}, "c-n0 192.88.99.12:80 from 192.88.99.60:50000"},
		{"one isn't probed yet", dataplane.Health{"p80": {"c-n0": true}}, "c-n0 192.88.99.12:80 from 192.88.99.60:50000"},
		{"none is probed yet", nil, "c-n1 192.88.99.12:80 from 192.88.99.60:50000"},
		{"one is ill, one not probed", dataplane.Health{"p80": {"c-n1": false}}, "c-n0 192.88.99.12:80 from 192.88.99.60:50000"},
		{"all are ill", dataplane.Health{"p80": {"c-n0": false, "c-n1": false}}, "refused: loadBalancers/kubernetes/loadBalancingRules/a-80/noHealthyBackend"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := outcome(trace(t, c, map[string]dataplane.Health{"c": tc.health}, terminal("good"), front)); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// A route table that leads everything to an appliance takes the answers to
// clients outside with it, as on Azure; and packets to the network's own front
// ends go by the appliance, too.
func TestTraceOfRouteTables(t *testing.T) {
	c := world()
	v := network(t, c, "c")
	v.NICs = append(v.NICs, dataplane.NIC{ID: "c-fw", Machine: "c-fw", Address: addr("10.1.3.9"), Subnet: "bare", Forwarding: true})
	routes := &v.RouteTables[0].Routes
	*routes = append(*routes, dataplane.UserRoute{Name: "all", Prefix: prefix("0.0.0.0/0"), Hop: dataplane.HopAppliance, Via: addr("10.1.3.9")})
	if got, want := outcome(trace(t, c, healthy(), terminal("good"), tcp("192.88.99.12", 80))), "no way back: routeTables/mc/routes/routes/all"; got != want {
		t.Errorf("answer of a back end: got %q, want %q", got, want)
	}
	hairpin := trace(t, c, healthy(), nic("c-n0"), tcp("192.88.99.12", 80))
	text, _ := json.Marshal(hairpin.Hops)
	if !strings.Contains(string(text), "forwarded by the interface c-fw") {
		t.Errorf("past the appliance: %s", text)
	}
	*routes = append(*routes, dataplane.UserRoute{Name: "self", Prefix: prefix("10.1.0.0/16"), Hop: dataplane.HopNone})
	if got, want := outcome(trace(t, c, healthy(), nic("c-n0"), tcp("10.1.3.4", 22))), "refused: routeTables/mc/routes/routes/self"; got != want {
		t.Errorf("the user's route to the whole network: got %q, want %q", got, want)
	}
	v.NICs[len(v.NICs)-1].Forwarding = false
	if got, want := outcome(trace(t, c, healthy(), nic("c-n0"), tcp("8.8.8.8", 22))), "refused: routeTables/mc/routes/routes/all/noForwarding"; got != want {
		t.Errorf("an appliance that doesn't forward: got %q, want %q", got, want)
	}
}

func TestTraceOfWholeBalancers(t *testing.T) {
	c := world()
	v := network(t, c, "c")
	v.Balancers = append(v.Balancers, dataplane.Balancer{Origin: "ha", Address: addr("10.1.3.200"), Backends: []string{"c-bare"}},
		dataplane.Balancer{Origin: "range", Address: addr("10.1.3.201"), Protocol: 17, Ports: dataplane.Ports{First: 100, Last: 200}, Backends: []string{"c-bare"}})
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	compile(t, c, "c")
	for to, want := range map[dataplane.Flow]string{
		tcp("10.1.3.200", 4711):     "c-bare 10.1.3.4:4711 from 10.1.2.4:50000",
		flow(1, "10.1.3.200", 0):    "c-bare 10.1.3.4:0 from 10.1.2.4:0",
		flow(17, "10.1.3.201", 150): "c-bare 10.1.3.4:150 from 10.1.2.4:50000",
		flow(17, "10.1.3.201", 201): "refused: platform/noListener",
	} {
		if got := outcome(trace(t, c, healthy(), nic("c-jump"), to)); got != want {
			t.Errorf("%v: got %q, want %q", to, got, want)
		}
	}
}

// A floating back end answers from the front end; it doesn't begin with it.
func TestTraceOfFloatingSources(t *testing.T) {
	c := world()
	v := network(t, c, "c")
	v.Balancers = append(v.Balancers, dataplane.Balancer{Origin: "f", Address: addr("10.1.3.200"), Floating: true, Backends: []string{"c-bare"}})
	if got, want := outcome(trace(t, c, healthy(), nic("c-jump"), tcp("10.1.3.200", 1))), "c-bare 10.1.3.200:1 from 10.1.2.4:50000"; got != want {
		t.Errorf("to it: got %q, want %q", got, want)
	}
	if got, want := outcome(trace(t, c, healthy(), source("c-bare", "10.1.3.200"), tcp("10.1.0.4", 1))), "refused: platform/spoofedSource"; got != want {
		t.Errorf("from it: got %q, want %q", got, want)
	}
}

func TestTraceOfNobody(t *testing.T) {
	for _, from := range []dataplane.Endpoint{nic("x"), terminal("x"), {Router: "x"}} {
		if _, err := dataplane.Trace(instance, world(), nil, from, tcp("8.8.8.8", 1)); err == nil {
			t.Errorf("%+v: no error", from)
		}
	}
}

// A NAT gateway goes before an interface's own public address, on the way out.
func TestTraceOfAnOwnAddressAndAnotherEgress(t *testing.T) {
	c := world()
	c.VNets[len(c.VNets)-1].NICs[3].Egress = egress("192.88.99.16")
	if got, want := outcome(trace(t, c, nil, nic("c-jump"), tcp("8.8.8.8", 80))), "outside 8.8.8.8:80 from 192.88.99.16:50000"; got != want {
		t.Errorf("%s, not %s", got, want)
	}
	if got, want := outcome(trace(t, c, nil, terminal("good"), tcp("192.88.99.14", 22))), "c-jump 10.1.2.4:22 from 192.88.99.60:50000"; got != want {
		t.Errorf("%s, not %s", got, want)
	}
}
