// SPDX-License-Identifier: Apache-2.0

package network_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bastide.dev/dataplane"
	"bastide.dev/fault"
	"bastide.dev/network"
)

var update = flag.Bool("update", false, "write the golden files anew")

func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }
func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func wants(count, maxPods int) []network.Want {
	var all []network.Want
	for i := range count {
		all = append(all, network.Want{ID: fmt.Sprintf("n%d", i), MaxPods: maxPods})
	}
	return all
}

func model(t *testing.T, plugin string, nodes int) network.Model {
	t.Helper()
	p := network.Default(plugin)
	leases, err := p.Allocate(nil, wants(nodes, network.DefaultMaxPods(plugin)))
	if err != nil {
		t.Fatal(err)
	}
	m := network.Model{ID: "c1", Profile: p, Egress: addr("192.88.99.2"), Public: addr("192.88.99.3")}
	for _, l := range leases {
		m.Nodes = append(m.Nodes, network.Node{Lease: l, Machine: "m-" + l.ID, Hostname: "aks-pool-" + l.ID})
	}
	return m
}

func TestCompile(t *testing.T) {
	private := model(t, network.Kubenet, 1)
	private.Public = netip.Addr{}
	models := map[string]network.Model{
		"kubenet": model(t, network.Kubenet, 2), "azure": model(t, network.Azure, 2), "empty": model(t, network.Azure, 0), "private": private,
	}
	for name, m := range models {
		t.Run(name, func(t *testing.T) {
			v := network.Compile(m)
			slices.Reverse(m.Nodes)
			got, err := json.MarshalIndent(v, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			again, err := json.MarshalIndent(network.Compile(m), "", "  ")
			if err != nil || !bytes.Equal(got, again) {
				t.Errorf("the order of the nodes shows (%v)", err)
			}
			config := dataplane.Config{Edge: dataplane.Edge{Pools: []netip.Prefix{prefix("192.88.99.0/28")}, FrontDoor: addr("192.88.99.1")}, VNets: []dataplane.VNet{v}}
			if err := config.Validate(); err != nil {
				t.Errorf("the data plane would refuse it: %v", err)
			}
			golden(t, name, append(got, '\n'))
		})
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name+".json")
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (-update writes it):\n%s", path, got)
	}
}

func TestValidate(t *testing.T) {
	for _, plugin := range []string{network.Kubenet, network.Azure} {
		p := network.Default(plugin)
		if problems := p.Validate(); len(problems) != 0 {
			t.Fatalf("the default of %s: %v", plugin, problems)
		}
	}
	const prefixOf = "properties.networkProfile."
	cases := map[string]struct {
		spoil        func(*network.Profile)
		target, code string
	}{
		"plugin":          {func(p *network.Profile) { p.Plugin = "cilium" }, prefixOf + "networkPlugin", "PropertyNotSupported"},
		"no pods":         {func(p *network.Profile) { p.Pods = nil }, prefixOf + "podCidr", "InvalidParameter"},
		"azure with pods": {func(p *network.Profile) { p.Plugin = network.Azure }, prefixOf + "podCidr", "InvalidParameter"},
		"pods too small":  {func(p *network.Profile) { p.Pods[0] = prefix("10.244.0.0/25") }, prefixOf + "podCidr", "InvalidParameter"},
		"host bits":       {func(p *network.Profile) { p.Pods[0] = netip.PrefixFrom(addr("10.244.0.1"), 16) }, prefixOf + "podCidr", "InvalidParameter"},
		"services in vnet": {func(p *network.Profile) {
			p.Services[0] = prefix("10.225.0.0/16")
			p.DNSServiceIP = addr("10.225.0.10")
		}, prefixOf + "serviceCidr", "ServiceCidrOverlapExistingSubnetsCidr"},
		"services and pods": {func(p *network.Profile) { p.Pods[0] = prefix("10.0.0.0/14") }, prefixOf + "serviceCidr", "InvalidParameter"},
		"pods in vnet":      {func(p *network.Profile) { p.Pods[0] = prefix("10.230.0.0/16") }, prefixOf + "podCidr", "InvalidParameter"},
		"services too wide": {func(p *network.Profile) { p.Services[0] = prefix("10.0.0.0/9") }, prefixOf + "serviceCidr", "InvalidParameter"},
		"services reserved": {func(p *network.Profile) {
			p.Services[0] = prefix("172.30.0.0/16")
			p.DNSServiceIP = addr("172.30.0.10")
		}, prefixOf + "serviceCidr", "InvalidParameter"},
		"dns outside":        {func(p *network.Profile) { p.DNSServiceIP = addr("10.1.0.10") }, prefixOf + "dnsServiceIP", "InvalidParameter"},
		"dns is the range":   {func(p *network.Profile) { p.DNSServiceIP = addr("10.0.0.0") }, prefixOf + "dnsServiceIP", "InvalidParameter"},
		"dns is the server":  {func(p *network.Profile) { p.DNSServiceIP = addr("10.0.0.1") }, prefixOf + "dnsServiceIP", "InvalidParameter"},
		"dns is missing":     {func(p *network.Profile) { p.DNSServiceIP = netip.Addr{} }, prefixOf + "dnsServiceIP", "InvalidParameter"},
		"subnet outside":     {func(p *network.Profile) { p.Nodes.Prefix = prefix("10.1.0.0/16") }, "properties.agentPoolProfiles.vnetSubnetID", "InvalidParameter"},
		"subnets overlap":    {func(p *network.Profile) { p.Server.Prefix = prefix("10.224.8.0/28") }, "properties.agentPoolProfiles.vnetSubnetID", "InvalidParameter"},
		"subnet full":        {func(p *network.Profile) { p.Nodes.Prefix = prefix("10.225.0.0/30") }, "properties.agentPoolProfiles.vnetSubnetID", "InsufficientSubnetSize"},
		"server subnet tiny": {func(p *network.Profile) { p.Server.Prefix = prefix("10.226.0.0/29") }, "properties.agentPoolProfiles.vnetSubnetID", "InsufficientSubnetSize"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			p := network.Default(network.Kubenet)
			c.spoil(&p)
			problems := p.Validate()
			if !slices.ContainsFunc(problems, func(f *fault.Error) bool { return f.Target == c.target && f.Code == c.code }) {
				t.Errorf("want %s at %s, got %v", c.code, c.target, problems)
			}
		})
	}
}

func TestValidateReportsEveryOverlap(t *testing.T) {
	p := network.Default(network.Kubenet)
	p.Services, p.Pods, p.DNSServiceIP = []netip.Prefix{prefix("10.224.0.0/16")}, []netip.Prefix{prefix("10.224.0.0/14")}, addr("10.224.0.10")
	var overlaps int
	for _, f := range p.Validate() {
		if strings.Contains(f.Message, "overlaps") {
			overlaps++
		}
	}
	if overlaps != 3 {
		t.Errorf("three pairs meet, %d are told", overlaps)
	}
}

func TestAllocate(t *testing.T) {
	kubenet, azure := network.Default(network.Kubenet), network.Default(network.Azure)
	show := func(p network.Profile, used []network.Lease, want []network.Want) string {
		leases, err := p.Allocate(used, want)
		if err != nil {
			return fault.From(err).Code
		}
		var texts []string
		for _, l := range leases {
			texts = append(texts, fmt.Sprint(l.ID, " ", l.Address, " ", l.Pods))
		}
		return strings.Join(texts, "; ")
	}
	second := network.Lease{ID: "n1", Address: addr("10.224.0.5"), Pods: []netip.Prefix{prefix("10.244.1.0/24")}}
	small := azure
	small.Nodes.Prefix = prefix("10.224.0.0/24")
	tight := kubenet
	tight.Pods = []netip.Prefix{prefix("10.244.0.0/23")}
	cases := []struct{ name, got, want string }{
		{"kubenet", show(kubenet, nil, wants(2, 110)), "n0 10.224.0.4 [10.244.0.0/24]; n1 10.224.0.5 [10.244.1.0/24]"},
		{"a hole is filled, the rest stays", show(kubenet, []network.Lease{second}, wants(3, 110)), "n0 10.224.0.4 [10.244.0.0/24]; n1 10.224.0.5 [10.244.1.0/24]; n2 10.224.0.6 [10.244.2.0/24]"},
		{"azure", show(azure, nil, wants(2, 3)), "n0 10.224.0.4 [10.224.0.5/32 10.224.0.6/31]; n1 10.224.0.8 [10.224.0.9/32 10.224.0.10/31]"},
		// AKS: a /24 has 251 addresses, a node of 30 pods takes 31.
		{"azure's capacity", fmt.Sprint(len(strings.Split(show(small, nil, wants(8, 30)), ";"))), "8"},
		{"azure's capacity and one", show(small, nil, wants(9, 30)), "SubnetIsFull"},
		{"pod range is used up", show(tight, nil, wants(3, 110)), "InsufficientPodCidrSize"},
	}
	for _, c := range cases {
		if c.got != c.want {
			t.Errorf("%s: %s, want %s", c.name, c.got, c.want)
		}
	}
	if _, err := tight.Allocate(nil, wants(3, 110)); !fault.Is(err, fault.Exhausted) {
		t.Errorf("no room is %v", err)
	}
	if problems := tight.Fits(nil, wants(3, 110)); len(problems) != 1 || problems[0].Kind != fault.Invalid || problems[0].Target == "" {
		t.Errorf("fits: %v", problems)
	}
}

// TestAllocateNeverTwice comes and goes at random, and looks for a meeting.
func TestAllocateNeverTwice(t *testing.T) {
	for _, plugin := range []string{network.Kubenet, network.Azure} {
		p := network.Default(plugin)
		p.Nodes.Prefix = prefix("10.224.0.0/20")
		random := rand.New(rand.NewPCG(1, 2)) // a fixed sequence
		var used []network.Lease
		for i := range 300 {
			leases, err := p.Allocate(used, []network.Want{{ID: fmt.Sprint(i), MaxPods: 10 + random.IntN(100)}})
			if err == nil {
				used = append(used, leases...)
			}
			if len(used) > 20 {
				at := random.IntN(len(used))
				used = slices.Delete(used, at, at+1)
			}
			m := network.Model{ID: "c", Profile: p}
			for _, l := range used {
				m.Nodes = append(m.Nodes, network.Node{Lease: l, Machine: "m" + l.ID})
			}
			config := dataplane.Config{Edge: dataplane.Edge{Pools: []netip.Prefix{prefix("192.88.99.0/28")}, FrontDoor: addr("192.88.99.1")}, VNets: []dataplane.VNet{network.Compile(m)}}
			if err := config.Validate(); err != nil {
				t.Fatalf("%s, round %d: %v", plugin, i, err)
			}
		}
	}
}

func TestPublicPool(t *testing.T) {
	pool := network.PublicPool{prefix("192.88.99.240/29")}
	if got := pool.FrontDoor(); got != addr("192.88.99.241") {
		t.Errorf("front door %s", got)
	}
	var used []netip.Addr
	for _, want := range []string{"192.88.99.242", "192.88.99.243", "192.88.99.244", "192.88.99.245", "192.88.99.246"} {
		got, err := pool.Allocate(used)
		if err != nil || got != addr(want) {
			t.Fatalf("%v %v, want %s", got, err, want)
		}
		used = append(used, got)
	}
	if _, err := pool.Allocate(used); !fault.Is(err, fault.Exhausted) {
		t.Errorf("an empty pool: %v", err)
	}
	if got, err := pool.Allocate(used[1:]); err != nil || got != used[0] {
		t.Errorf("what was given back: %v %v", got, err)
	}
}

func TestIPv6IsNoStranger(t *testing.T) {
	p := network.Default(network.Kubenet)
	p.Pods = append(p.Pods, prefix("fd12:3456::/64"))
	if problems := p.Validate(); len(problems) != 0 {
		t.Fatal(problems)
	}
	leases, err := p.Allocate(nil, wants(2, 110))
	if err != nil || leases[1].Pods[1] != prefix("fd12:3456::100/120") {
		t.Errorf("%v %v", leases, err)
	}
}

func FuzzProfile(f *testing.F) {
	for _, plugin := range []string{network.Kubenet, network.Azure} {
		seed, err := json.Marshal(network.Default(plugin))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(seed)
	}
	f.Add([]byte(`{"plugin":"kubenet","vnet":["::/0"],"pods":["255.255.255.0/24","ffff::/1"],"services":["0.0.0.0/0"],"dnsServiceIP":"::1"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var p network.Profile
		if json.Unmarshal(data, &p) != nil {
			return
		}
		problems := p.Validate()
		for _, problem := range problems {
			if problem.Target == "" || problem.Message == "" {
				t.Errorf("a problem without target or message: %v", problem)
			}
		}
		leases, err := p.Allocate(nil, wants(3, 30))
		if len(problems) > 0 || err != nil {
			return
		}
		m := network.Model{ID: "c", Profile: p}
		for _, l := range leases {
			m.Nodes = append(m.Nodes, network.Node{Lease: l, Machine: l.ID})
		}
		config := dataplane.Config{Edge: dataplane.Edge{Pools: []netip.Prefix{prefix("192.88.99.0/28")}, FrontDoor: addr("192.88.99.1")}, VNets: []dataplane.VNet{network.Compile(m)}}
		if err := config.Validate(); err != nil {
			t.Errorf("a good profile compiles to what the data plane refuses: %v", err)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add("10.0.0.0/8")
	f.Add("::ffff:1.2.3.4/100")
	f.Fuzz(func(t *testing.T, text string) {
		if p, problem := network.ParsePrefix("x", text); problem == nil && (!p.IsValid() || p != p.Masked()) {
			t.Errorf("%q became %s", text, p)
		}
		if a, problem := network.ParseAddr("x", text); problem == nil && !a.IsValid() {
			t.Errorf("%q became %s", text, a)
		}
	})
}
