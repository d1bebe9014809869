// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"testing"

	"golang.org/x/sys/unix"

	"bastide.dev/dataplane"
)

// group is a network security group with Azure's default rules behind its own.
func group(id string, rules ...dataplane.NSGRule) dataplane.NSG {
	virtual := dataplanePrefixes("10.224.0.0/12", "10.244.0.0/16", "168.63.129.16/32")
	probes := dataplanePrefixes("168.63.129.16/32")
	return dataplane.NSG{ID: id, Rules: append(rules,
		dataplane.NSGRule{Name: "AllowVnetInBound", Priority: 65000, Inbound: true, Allow: true, Sources: virtual, Destinations: virtual},
		dataplane.NSGRule{Name: "AllowAzureLoadBalancerInBound", Priority: 65001, Inbound: true, Allow: true, Sources: probes},
		dataplane.NSGRule{Name: "DenyAllInBound", Priority: 65500, Inbound: true},
		dataplane.NSGRule{Name: "AllowVnetOutBound", Priority: 65000, Allow: true, Sources: virtual, Destinations: virtual},
		dataplane.NSGRule{Name: "AllowInternetOutBound", Priority: 65001, Allow: true},
		dataplane.NSGRule{Name: "DenyAllOutBound", Priority: 65500},
	)}
}

func tcpPorts(first, last uint16) []dataplane.Ports {
	return []dataplane.Ports{{First: first, Last: last}}
}

// pair of nodes a-n0 (10.224.0.4) and a-n1 (10.224.0.5).
func pairOf(t *testing.T) (*world, dataplane.VNet) {
	t.Helper()
	w := newWorld(t)
	w.boot("a-n0")
	w.boot("a-n1")
	return w, network("a", "198.19.99.242", "198.19.99.243", 2)
}

func TestSecurityGroups(t *testing.T) {
	w, v := pairOf(t)
	in := func(nsg *dataplane.NSG) {
		v.NSGs = []dataplane.NSG{*nsg}
		w.apply(configOf(v))
	}
	deny := func(name string, priority int, inbound bool, ports []dataplane.Ports, from ...string) dataplane.NSGRule {
		r := dataplane.NSGRule{Name: name, Priority: priority, Inbound: inbound, Protocol: unix.IPPROTO_TCP, DestinationPorts: ports}
		r.Sources = dataplanePrefixes(from...)
		return r
	}
	v.NICs[0].Platform = false // until the end
	w.apply(configOf(v))
	serve(t, w.node("a-n1"), "10.224.0.5:80", "second")
	serve(t, w.node("a-n1"), "10.224.0.5:81", "other port")
	serve(t, w.node("a-n0"), "10.224.0.4:80", "first")
	ok := func(path, to, want string) { t.Helper(); answersTCP(t, path, to, want) }
	no := func(path, to string) {
		t.Helper()
		if got := ask(t, path, "tcp4", "", to, nothing); got != "" {
			t.Errorf("%s: %q", to, got)
		}
	}
	t.Run("without any", func(*testing.T) { ok(w.node("a-n0"), "10.224.0.5:80", "second sees 10.224.0.4") })
	t.Run("inbound at the interface", func(*testing.T) {
		v.NICs[2].NSG = "rg/nic"
		g := group("rg/nic", deny("web", 100, true, tcpPorts(80, 80), "10.224.0.4/32"))
		in(&g)
		no(w.node("a-n0"), "10.224.0.5:80")
		ok(w.api("a"), "10.224.0.5:80", "second sees 10.226.0.4")
		ok(w.node("a-n0"), "10.224.0.5:81", "other port sees 10.224.0.4")
		ok(w.node("a-n1"), "10.224.0.4:80", "first sees 10.224.0.5")
	})
	t.Run("the first by priority decides", func(*testing.T) {
		allow := deny("allow", 90, true, tcpPorts(80, 80), "10.224.0.0/24")
		allow.Allow = true
		g := group("rg/nic", deny("web", 100, true, tcpPorts(80, 80), "10.224.0.4/32"), allow)
		in(&g)
		ok(w.node("a-n0"), "10.224.0.5:80", "second sees 10.224.0.4")
	})
	t.Run("outbound at the interface, stateful", func(*testing.T) {
		g := group("rg/nic", deny("out", 100, false, nil))
		in(&g)
		no(w.node("a-n1"), "10.224.0.4:80")
		ok(w.node("a-n0"), "10.224.0.5:80", "second sees 10.224.0.4") // its answers pass
	})
	t.Run("inbound at the subnet", func(*testing.T) {
		v.NICs[2].NSG, v.Subnets[0].NSG = "", "rg/subnet"
		g := group("rg/subnet", deny("web", 100, true, tcpPorts(80, 80), "10.226.0.0/28"))
		in(&g)
		no(w.api("a"), "10.224.0.5:80")
		no(w.api("a"), "10.224.0.4:80")
		ok(w.node("a-n0"), "10.224.0.5:80", "second sees 10.224.0.4")
	})
	t.Run("both levels must allow", func(*testing.T) {
		v.NICs[2].NSG = "rg/nic"
		subnet := group("rg/subnet")
		nic := group("rg/nic", deny("web", 100, true, tcpPorts(80, 80)))
		v.NSGs = []dataplane.NSG{subnet, nic}
		w.apply(configOf(v))
		no(w.node("a-n0"), "10.224.0.5:80")
		ok(w.node("a-n0"), "10.224.0.5:81", "other port sees 10.224.0.4")
	})
	t.Run("an API server passes", func(*testing.T) {
		v.NICs[0].Platform = true
		w.apply(configOf(v))
		ok(w.api("a"), "10.224.0.5:80", "second sees 10.226.0.4")
	})
	t.Run("counters", func(t *testing.T) {
		counters, err := w.plane.Counters("a")
		must(t, err)
		for _, c := range counters {
			if c.Origin == "nsg/rg/nic/web" && c.Packets > 0 {
				return
			}
		}
		t.Errorf("no packet was counted for the rule: %v", counters)
	})
}

// An open connection lives on when a rule that would refuse it comes.
func TestSecurityGroupsLeaveConnections(t *testing.T) {
	w, v := pairOf(t)
	v.Subnets[0].NSG = "rg/subnet"
	v.NSGs = []dataplane.NSG{group("rg/subnet")}
	w.apply(configOf(v))
	conn := openConnection(t, w.node("a-n0"), "10.224.0.5:9000", w.node("a-n1"))
	v.NSGs = []dataplane.NSG{group("rg/subnet", dataplane.NSGRule{Name: "none", Priority: 100, Inbound: true})}
	w.apply(configOf(v))
	conn.stillWorks()
	serve(t, w.node("a-n1"), "10.224.0.5:80", "second")
	silent(t, w.node("a-n0"), "10.224.0.5:80")
}

func TestRouteTables(t *testing.T) {
	w := newWorld(t)
	for _, id := range []string{"a-n0", "a-n1", "a-n2"} {
		w.boot(id)
	}
	v := network("a", "198.19.99.242", "198.19.99.243", 3)
	// The appliance has a subnet of its own: its packets don't come back to it.
	v.Subnets = append(v.Subnets, dataplane.Subnet{Name: "hub", Prefix: prefix("10.227.0.0/28")})
	v.NICs[3].Subnet, v.NICs[3].Address, v.NICs[3].Pods, v.NICs[3].Forwarding = "hub", addr("10.227.0.4"), nil, true
	w.apply(configOf(v))
	serve(t, w.api("a"), "10.226.0.4:80", "api")
	answers(t, w.node("a-n0"), "10.226.0.4:80", "api sees 10.224.0.4")

	visit(t, w.node("a-n2"), func() error {
		return apply([]setting{{forwarding, "1"}, {"ipv4/conf/all/rp_filter", "0"}, {"ipv4/conf/eth0/send_redirects", "0"}})
	})
	before := forwarded(t, w.node("a-n2"))
	v.Subnets[0].RouteTable = "rg/udr"
	v.RouteTables = []dataplane.RouteTable{{ID: "rg/udr", Routes: []dataplane.UserRoute{
		{Name: "fw", Prefix: prefix("10.226.0.0/28"), Hop: dataplane.HopAppliance, Via: addr("10.227.0.4")},
	}}}
	w.apply(configOf(v))
	answers(t, w.node("a-n0"), "10.226.0.4:80", "api sees 10.224.0.4")
	if after := forwarded(t, w.node("a-n2")); after <= before {
		t.Errorf("the appliance forwarded nothing: %d, then %d", before, after)
	}
	// None: what is sent there goes nowhere, and other subnets don't mind.
	v.RouteTables[0].Routes[0] = dataplane.UserRoute{Name: "none", Prefix: prefix("10.226.0.0/28"), Hop: dataplane.HopNone}
	w.apply(configOf(v))
	silent(t, w.node("a-n0"), "10.226.0.4:80")
	answers(t, w.node("a-n2"), "10.226.0.4:80", "api sees 10.227.0.4")
	// No table: as before.
	v.Subnets[0].RouteTable, v.RouteTables = "", nil
	w.apply(configOf(v))
	answers(t, w.node("a-n0"), "10.226.0.4:80", "api sees 10.224.0.4")
}

// forwarded counts what an appliance passed on.
func forwarded(t *testing.T, path string) uint64 {
	t.Helper()
	return snmp(t, path, "Ip:", "ForwDatagrams")
}

// A default route to an appliance, which sends on by its own egress.
func TestDefaultRouteToAnAppliance(t *testing.T) {
	w, v := pairOf(t)
	outside := newOutside(t)
	serve(t, outside, "198.51.100.2:80", "outside")
	v.Subnets = append(v.Subnets, dataplane.Subnet{Name: "hub", Prefix: prefix("10.227.0.0/28")})
	v.NICs[2].Subnet, v.NICs[2].Address, v.NICs[2].Pods, v.NICs[2].Forwarding = "hub", addr("10.227.0.4"), nil, true
	v.Subnets[0].RouteTable = "rg/udr"
	v.RouteTables = []dataplane.RouteTable{{ID: "rg/udr", Routes: []dataplane.UserRoute{
		{Name: "fw", Prefix: prefix("0.0.0.0/0"), Hop: dataplane.HopAppliance, Via: addr("10.227.0.4")},
	}}}
	v.NICs[1].Egress = nil
	w.apply(configOf(v))
	visit(t, w.node("a-n1"), func() error { return apply([]setting{{forwarding, "1"}}) })
	if got := ask(t, w.node("a-n0"), "tcp4", "", "198.51.100.2:80", nothing); got != "" {
		t.Errorf("the appliance doesn't translate yet: %q", got)
	}
	masqueradeAt(t, w.node("a-n1"))
	answers(t, w.node("a-n0"), "198.51.100.2:80", "outside sees 198.51.100.1")
}
