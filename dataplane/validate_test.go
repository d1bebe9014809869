// SPDX-License-Identifier: Apache-2.0

package dataplane_test

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"bastide.dev/dataplane"
	"bastide.dev/fault"
)

func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }
func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// good is a configuration with one of each.
func good() *dataplane.Config {
	return &dataplane.Config{
		Edge: dataplane.Edge{
			Pools: []netip.Prefix{prefix("192.88.99.0/28")}, FrontDoor: addr("192.88.99.1"),
			Names:     []dataplane.Name{{Name: "*.hcp.local.test", Addresses: []netip.Addr{addr("192.88.99.1")}}},
			Terminals: []dataplane.Terminal{{ID: "t", Namespace: "t", Address: addr("192.88.99.14")}},
		},
		VNets: []dataplane.VNet{{
			ID: "a", Prefixes: []netip.Prefix{prefix("10.224.0.0/12")},
			Subnets: []dataplane.Subnet{{Name: "nodes", Prefix: prefix("10.224.0.0/16"), NSG: "g", RouteTable: "r"}},
			NICs: []dataplane.NIC{
				{ID: "a-api", Namespace: "a", Address: addr("10.224.0.4"), Subnet: "nodes",
					Egress: []dataplane.Egress{{Address: addr("192.88.99.3"), First: 1024, Last: 2047}}},
				{ID: "a-api1", Namespace: "a", Link: "eth1", Address: addr("10.224.0.6"), Subnet: "nodes"},
				{ID: "a-n0", Machine: "n0", Address: addr("10.224.0.5"), Subnet: "nodes", NSG: "g", Pods: []netip.Prefix{prefix("10.244.0.0/24")}},
			},
			Routes: []dataplane.Route{{Prefix: prefix("10.250.0.0/16"), Via: addr("10.224.0.5")}},
			NSGs: []dataplane.NSG{{ID: "g", Rules: []dataplane.NSGRule{{Name: "in", Priority: 100, Inbound: true}, {Name: "out", Priority: 100},
				{Name: "more", Priority: 101, DestinationPorts: []dataplane.Ports{{First: 80, Last: 90}}}}}},
			RouteTables: []dataplane.RouteTable{{ID: "r", Routes: []dataplane.UserRoute{
				{Name: "n0", Prefix: prefix("10.245.0.0/24"), Hop: dataplane.HopAppliance, Via: addr("10.224.0.5")},
				{Name: "none", Prefix: prefix("9.0.0.0/8"), Hop: dataplane.HopNone}}}},
			Probes: []dataplane.Probe{{ID: "p", Protocol: "Http", Port: 80, Path: "/", Interval: 5, Failures: 2}},
			Balancers: []dataplane.Balancer{
				{Origin: "lb/80", Address: addr("192.88.99.4"), Protocol: 6, Ports: dataplane.Ports{First: 80, Last: 80}, Floating: true, Backends: []string{"a-n0"}, Probe: "p"},
				{Origin: "lb/81", Address: addr("192.88.99.4"), Protocol: 6, Ports: dataplane.Ports{First: 81, Last: 81}, BackendPort: 82, Backends: []string{"a-n0"}},
				{Origin: "ilb", Address: addr("10.224.9.9"), Backends: []string{"a-n0"}},
			},
			Public: []dataplane.Public{
				{Address: addr("192.88.99.2"), Port: 443, Target: addr("10.224.0.4"), TPort: 443, Restricted: true, Allowed: []netip.Prefix{prefix("8.0.0.0/8")}},
				{Address: addr("192.88.99.5"), Target: addr("10.224.0.5")},
			},
			Peers: []dataplane.Peer{{VNet: "b", Origin: "peerings/b", Prefixes: []netip.Prefix{prefix("10.0.0.0/16")}}},
		}},
	}
}

func TestValidate(t *testing.T) {
	if err := good().Validate(); err != nil {
		t.Fatalf("a good configuration is refused: %v", err)
	}
	cases := map[string]struct {
		spoil func(*dataplane.Config)
		want  string // part of a problem's message
	}{
		"front door outside":  {func(c *dataplane.Config) { c.Edge.FrontDoor = addr("192.88.98.1") }, "in none of the pools"},
		"pools overlap":       {func(c *dataplane.Config) { c.Edge.Pools = append(c.Edge.Pools, prefix("192.88.99.8/29")) }, "overlap"},
		"pool of wire server": {func(c *dataplane.Config) { c.Edge.Pools = append(c.Edge.Pools, prefix("168.63.0.0/16")) }, "platform's own"},
		"vnet twice":          {func(c *dataplane.Config) { c.VNets = append(c.VNets, dataplane.VNet{ID: "a"}) }, "used twice"},
		"vnet id":             {func(c *dataplane.Config) { c.VNets[0].ID = "../a" }, "valid VNet id"},
		"host bits":           {func(c *dataplane.Config) { c.VNets[0].Prefixes[0] = prefix("10.224.0.1/12") }, "beyond its length"},
		"subnet outside":      {func(c *dataplane.Config) { c.VNets[0].Subnets[0].Prefix = prefix("10.0.0.0/16") }, "isn't inside"},
		"subnets overlap": {func(c *dataplane.Config) {
			c.VNets[0].Subnets = append(c.VNets[0].Subnets, dataplane.Subnet{Name: "x", Prefix: prefix("10.224.8.0/24")})
		}, "subnets 10.224.8.0/24 and 10.224.0.0/16 overlap"},
		"no such subnet":    {func(c *dataplane.Config) { c.VNets[0].NICs[0].Subnet = "x" }, "no subnet"},
		"address outside":   {func(c *dataplane.Config) { c.VNets[0].NICs[0].Address = addr("10.225.0.4") }, "isn't in subnet"},
		"gateway's address": {func(c *dataplane.Config) { c.VNets[0].NICs[0].Address = addr("10.224.0.1") }, "gateway of subnet nodes"},
		"address twice":     {func(c *dataplane.Config) { c.VNets[0].NICs[0].Address = addr("10.224.0.5") }, "already used"},
		"address in pods":   {func(c *dataplane.Config) { c.VNets[0].NICs[2].Pods[0] = prefix("10.224.0.0/24") }, "already used"},
		"both places":       {func(c *dataplane.Config) { c.VNets[0].NICs[0].Machine = "m" }, "either a namespace or a machine"},
		"no place":          {func(c *dataplane.Config) { c.VNets[0].NICs[0].Namespace = "" }, "either a namespace or a machine"},
		"namespace path":    {func(c *dataplane.Config) { c.VNets[0].NICs[0].Namespace = "a/b" }, "valid namespace"},
		"route to nobody":   {func(c *dataplane.Config) { c.VNets[0].Routes[0].Via = addr("10.224.0.9") }, "No interface"},
		"egress outside":    {func(c *dataplane.Config) { c.VNets[0].NICs[0].Egress[0].Address = addr("8.8.8.8") }, "none of the instance's pools"},
		"public front door": {func(c *dataplane.Config) { c.VNets[0].Public[0].Address = c.Edge.FrontDoor }, "front door's"},
		"public of another": {func(c *dataplane.Config) {
			c.VNets = append(c.VNets, dataplane.VNet{ID: "b", Prefixes: []netip.Prefix{prefix("10.0.0.0/16")},
				Public: []dataplane.Public{{Address: addr("192.88.99.2"), Port: 1, TPort: 1, Target: addr("10.0.0.4")}}})
		}, "belongs to network a"},
		"egress ports":       {func(c *dataplane.Config) { c.VNets[0].NICs[0].Egress[0].First = 3000 }, "3000 to 2047 isn't a range"},
		"half egress ports":  {func(c *dataplane.Config) { c.VNets[0].NICs[0].Egress[0].First = 0 }, "0 to 2047 isn't a range"},
		"terminal outside":   {func(c *dataplane.Config) { c.Edge.Terminals[0].Address = addr("9.9.9.9") }, "none of the instance's pools"},
		"terminal's address": {func(c *dataplane.Config) { c.Edge.Terminals[0].Address = addr("192.88.99.2") }, "belongs to network a"},
		"terminal's place":   {func(c *dataplane.Config) { c.Edge.Terminals[0].Namespace = "a" }, "has an interface of a network"},
		"same link twice":    {func(c *dataplane.Config) { c.VNets[0].NICs[1].Link = "" }, "named eth0 at the same place"},
		"link name":          {func(c *dataplane.Config) { c.VNets[0].NICs[1].Link = "eth/1" }, "valid name of an interface"},
		"subnet's group":     {func(c *dataplane.Config) { c.VNets[0].Subnets[0].NSG = "x" }, "no security group \"x\""},
		"interface's group":  {func(c *dataplane.Config) { c.VNets[0].NICs[2].NSG = "x" }, "no security group \"x\""},
		"subnet's routes":    {func(c *dataplane.Config) { c.VNets[0].Subnets[0].RouteTable = "x" }, "no route table \"x\""},
		"priority twice":     {func(c *dataplane.Config) { c.VNets[0].NSGs[0].Rules[2].Priority = 100 }, "same priority 100"},
		"rule's ports": {func(c *dataplane.Config) {
			c.VNets[0].NSGs[0].Rules[0].SourcePorts = []dataplane.Ports{{First: 9, Last: 8}}
		}, "9 to 8 isn't"},
		"rule's prefix": {func(c *dataplane.Config) {
			c.VNets[0].NSGs[0].Rules[0].Sources = []netip.Prefix{prefix("10.0.0.1/8")}
		}, "beyond its length"},
		"no appliance":     {func(c *dataplane.Config) { c.VNets[0].RouteTables[0].Routes[0].Via = netip.Addr{} }, "appliance's address"},
		"none by somebody": {func(c *dataplane.Config) { c.VNets[0].RouteTables[0].Routes[1].Via = addr("10.0.0.1") }, "Only a route to an appliance"},
		"unknown hop":      {func(c *dataplane.Config) { c.VNets[0].RouteTables[0].Routes[1].Hop = "x" }, "isn't a next hop"},
		"route twice": {func(c *dataplane.Config) {
			c.VNets[0].RouteTables[0].Routes[1].Prefix = c.VNets[0].RouteTables[0].Routes[0].Prefix
		}, "same prefix"},
		"no probe":         {func(c *dataplane.Config) { c.VNets[0].Balancers[0].Probe = "x" }, "no probe \"x\""},
		"probe's protocol": {func(c *dataplane.Config) { c.VNets[0].Probes[0].Protocol = "Udp" }, "isn't a probe's protocol"},
		"probe's path":     {func(c *dataplane.Config) { c.VNets[0].Probes[0].Path = "x" }, "begins with a slash"},
		"probe's interval": {func(c *dataplane.Config) { c.VNets[0].Probes[0].Interval = 0 }, "needs a port, an interval"},
		"back end":         {func(c *dataplane.Config) { c.VNets[0].Balancers[0].Backends[0] = "x" }, "is no interface"},
		"affinity":         {func(c *dataplane.Config) { c.VNets[0].Balancers[0].Affinity = "x" }, "isn't an affinity"},
		"balanced twice":   {func(c *dataplane.Config) { c.VNets[0].Balancers[1].Ports.First = 80 }, "share ports"},
		"front end taken":  {func(c *dataplane.Config) { c.VNets[0].Balancers[2].Address = addr("10.224.0.5") }, "already used"},
		"front end and forwarded": {func(c *dataplane.Config) {
			c.VNets[0].Balancers[0].Address, c.VNets[0].Balancers[0].Ports = addr("192.88.99.2"), dataplane.Ports{First: 440, Last: 450}
		}, "forwarded already"},
		"floating port":      {func(c *dataplane.Config) { c.VNets[0].Balancers[0].BackendPort = 8080 }, "stays as it is"},
		"whole, restricted":  {func(c *dataplane.Config) { c.VNets[0].Public[1].Restricted = true }, "neither a target port nor"},
		"whole of nobody":    {func(c *dataplane.Config) { c.VNets[0].Public[1].Target = addr("10.224.7.7") }, "No interface"},
		"allowed for what":   {func(c *dataplane.Config) { c.VNets[0].Public[0].Restricted = false }, "need Restricted"},
		"idle for ever":      {func(c *dataplane.Config) { c.VNets[0].Balancers[0].Idle = 1 << 30 }, "a day is the most"},
		"long origin":        {func(c *dataplane.Config) { c.VNets[0].Peers[0].Origin = strings.Repeat("x", 201) }, "at most 200 characters"},
		"own peer":           {func(c *dataplane.Config) { c.VNets[0].Peers[0].VNet = "a" }, "its own peer"},
		"peer's prefix":      {func(c *dataplane.Config) { c.VNets[0].Peers[0].Prefixes[0] = prefix("10.224.0.0/16") }, "overlaps with the network itself"},
		"port twice":         {func(c *dataplane.Config) { c.VNets[0].Public = append(c.VNets[0].Public, c.VNets[0].Public[0]) }, "forwarded twice"},
		"target outside":     {func(c *dataplane.Config) { c.VNets[0].Public[0].Target = addr("1.2.3.4") }, "isn't in the network"},
		"name":               {func(c *dataplane.Config) { c.Edge.Names[0].Name = "a b" }, "isn't a DNS name"},
		"name, a hosts line": {func(c *dataplane.Config) { c.Edge.Names[0].Name = "a\n1.2.3.4" }, "isn't a DNS name"},
		"name of nothing":    {func(c *dataplane.Config) { c.Edge.Names[0].Addresses = nil }, "no address"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			config := good()
			c.spoil(config)
			err := config.Validate()
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("want a problem with %q, got %v", c.want, err)
			}
		})
	}
}

func TestValidateReportsAllAtOnce(t *testing.T) {
	c := good()
	c.Edge.FrontDoor = addr("1.1.1.1")
	c.VNets[0].NICs[0].Subnet = "x"
	c.VNets[0].Public[0].TPort = 0
	if f := fault.From(c.Validate()); len(f.Details) != 3 {
		t.Fatalf("want 3 problems, got %v", f)
	}
}

func FuzzValidate(f *testing.F) {
	seed, err := json.Marshal(good())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte(`{"vnets":[{"id":"a","subnets":[{"prefix":""}],"nics":[{}],"public":[{}],"routes":[{}]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var c dataplane.Config
		if json.Unmarshal(data, &c) != nil {
			return
		}
		first := c.Validate()
		if second := c.Validate(); (first == nil) != (second == nil) {
			t.Fatalf("two verdicts on one configuration: %v, %v", first, second)
		}
	})
}

func TestLinkName(t *testing.T) {
	a, b := dataplane.LinkName("bst", "one", "vnet/a"), dataplane.LinkName("bst", "two", "vnet/a")
	if a == b || len(a) != 15 || len(b) != 15 {
		t.Fatalf("names %q and %q", a, b)
	}
	if dataplane.LinkName("n", "ab", "c") == dataplane.LinkName("n", "a", "bc") {
		t.Fatal("the border between instance and id doesn't count")
	}
}
