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
			Names: []dataplane.Name{{Name: "*.hcp.local.test", Addresses: []netip.Addr{addr("192.88.99.1")}}},
		},
		VNets: []dataplane.VNet{{
			ID: "a", Prefixes: []netip.Prefix{prefix("10.224.0.0/12")},
			Subnets: []dataplane.Subnet{{Name: "nodes", Prefix: prefix("10.224.0.0/16")}},
			NICs: []dataplane.NIC{
				{ID: "a-api", Namespace: "a", Address: addr("10.224.0.4"), Subnet: "nodes"},
				{ID: "a-n0", Machine: "n0", Address: addr("10.224.0.5"), Subnet: "nodes", Pods: []netip.Prefix{prefix("10.244.0.0/24")}},
			},
			Routes: []dataplane.Route{{Prefix: prefix("10.250.0.0/16"), Via: addr("10.224.0.5")}},
			Egress: addr("192.88.99.3"),
			Public: []dataplane.Public{{Address: addr("192.88.99.2"), Port: 443, Target: addr("10.224.0.4"), TPort: 443}},
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
		"address in pods":   {func(c *dataplane.Config) { c.VNets[0].NICs[1].Pods[0] = prefix("10.224.0.0/24") }, "already used"},
		"both places":       {func(c *dataplane.Config) { c.VNets[0].NICs[0].Machine = "m" }, "either a namespace or a machine"},
		"no place":          {func(c *dataplane.Config) { c.VNets[0].NICs[0].Namespace = "" }, "either a namespace or a machine"},
		"namespace path":    {func(c *dataplane.Config) { c.VNets[0].NICs[0].Namespace = "a/b" }, "valid namespace"},
		"route to nobody":   {func(c *dataplane.Config) { c.VNets[0].Routes[0].Via = addr("10.224.0.9") }, "No interface"},
		"egress outside":    {func(c *dataplane.Config) { c.VNets[0].Egress = addr("8.8.8.8") }, "none of the instance's pools"},
		"public front door": {func(c *dataplane.Config) { c.VNets[0].Egress = c.Edge.FrontDoor }, "front door's"},
		"public of another": {func(c *dataplane.Config) {
			c.VNets = append(c.VNets, dataplane.VNet{ID: "b", Egress: addr("192.88.99.2")})
		}, "belongs to network a"},
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
	c.VNets[0].Public[0].Port = 0
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
