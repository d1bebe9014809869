// SPDX-License-Identifier: Apache-2.0

package network

import (
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"bastide.dev/resource"
)

const testSubnet = "/subscriptions/s/resourceGroups/rg/providers/Microsoft.Network/virtualNetworks/v/subnets/a"

func subnetOf(prefix string) SubnetInfo {
	id := resource.MustParseID(testSubnet)
	return SubnetInfo{ID: id, VNet: id.Parent(), Prefix: netip.MustParsePrefix(prefix)}
}

func ip(s string) netip.Addr     { return netip.MustParseAddr(s) }
func cidr(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func usedBy(texts ...string) (all []taken) {
	for _, text := range texts {
		all = append(all, taken{spanOf(cidr(text)), "another"})
	}
	return all
}

func TestGrantLowestFree(t *testing.T) {
	grants, problem := grant(subnetOf("10.0.0.0/24"), usedBy("10.0.0.5/32"), []Want{{}, {Address: ip("10.0.0.7")}, {}, {}})
	if problem != nil {
		t.Fatal(problem)
	}
	var got []string
	for _, g := range grants {
		got = append(got, g.Address.String())
	}
	if want := "10.0.0.4 10.0.0.7 10.0.0.6 10.0.0.8"; strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

func TestGrantRefuses(t *testing.T) {
	for _, c := range []struct {
		want Want
		code string
	}{
		{Want{Address: ip("10.0.1.9")}, "PrivateIPAddressNotInSubnet"},
		{Want{Address: ip("10.0.0.3")}, "PrivateIPAddressInReservedRange"},
		{Want{Address: ip("10.0.0.15")}, "PrivateIPAddressInReservedRange"},
		{Want{Address: ip("10.0.0.9")}, "PrivateIPAddressIsAllocated"},
		{Want{Pods: 11}, "InsufficientSubnetSize"},
	} {
		if _, problem := grant(subnetOf("10.0.0.0/28"), usedBy("10.0.0.9/32"), []Want{c.want}); problem == nil || problem.Code != c.code {
			t.Errorf("%v: %v, want %s", c.want, problem, c.code)
		}
	}
	if _, problem := grant(subnetOf("10.0.0.0/28"), nil, make([]Want, 12)); problem == nil || problem.Code != "SubnetIsFull" {
		t.Errorf("12 addresses of a /28: %v", problem)
	}
	if _, problem := grant(subnetOf("10.0.0.0/28"), nil, []Want{{Address: ip("10.0.0.8")}, {Address: ip("10.0.0.8")}}); problem == nil {
		t.Error("one address was given twice")
	}
}

// A /24 has 251 addresses: 8 nodes of 30 pods, and not one more.
func TestGrantExactCapacity(t *testing.T) {
	wants := make([]Want, 8)
	for i := range wants {
		wants[i].Pods = 30
	}
	wants = append(wants, Want{Pods: 2})
	grants, problem := grant(subnetOf("10.0.0.0/24"), nil, wants)
	if problem != nil {
		t.Fatal(problem)
	}
	disjoint(t, subnetOf("10.0.0.0/24"), nil, wants, grants)
	if _, problem := grant(subnetOf("10.0.0.0/24"), nil, append(wants, Want{})); problem == nil {
		t.Error("252 addresses of a /24 were granted")
	}
}

// disjoint checks that every want has as much as it wants, inside the usable
// part of the subnet, and that no address is anyone else's.
func disjoint(t *testing.T, subnet SubnetInfo, used []taken, wants []Want, grants []Grant) {
	t.Helper()
	seen := map[netip.Addr]bool{}
	for _, u := range used {
		for a := u.first; u.contains(a); a = a.Next() {
			seen[a] = true
		}
	}
	take := func(a netip.Addr) {
		if seen[a] || !usable(subnet.Prefix)[0].contains(a) {
			t.Fatalf("%s is taken, reserved or outside", a)
		}
		seen[a] = true
	}
	for i, g := range grants {
		take(g.Address)
		pods := 0
		for _, p := range g.Pods {
			for a := p.Addr(); p.Contains(a); a = a.Next() {
				take(a)
				pods++
			}
		}
		if pods != wants[i].Pods || (wants[i].Address.IsValid() && g.Address != wants[i].Address) {
			t.Fatalf("%+v got %+v", wants[i], g)
		}
	}
}

func TestGrantRandomly(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	subnet := subnetOf("10.0.0.0/23")
	for range 300 {
		var used []taken
		for n := range 508 - 4 {
			if a, _ := advance(ip("10.0.0.4"), uint64(n)); random.IntN(3) == 0 {
				used = append(used, taken{single(a), "x"})
			}
		}
		left := 507 - len(used)
		var wants []Want
		for left > 0 {
			w := Want{Pods: random.IntN(min(left, 40))}
			left -= w.Pods + 1
			wants = append(wants, w)
		}
		grants, problem := grant(subnet, used, wants)
		if problem != nil {
			t.Fatal(problem)
		}
		disjoint(t, subnet, used, wants, grants)
		if _, problem := grant(subnet, used, append(wants, Want{})); problem == nil {
			t.Fatal("a full subnet granted one more")
		}
	}
}

func TestGrantManyNodesQuickly(t *testing.T) {
	wants := make([]Want, 2100)
	for i := range wants {
		wants[i].Pods = 30
	}
	subnet := subnetOf("10.0.0.0/15")
	var used []taken
	for n := range uint64(20000) { // every second address of a part is taken
		a, _ := advance(ip("10.0.0.4"), 2*n)
		used = append(used, taken{single(a), "x"})
	}
	start := time.Now()
	grants, problem := grant(subnet, used, wants)
	if problem != nil {
		t.Fatal(problem)
	}
	t.Logf("it took %s", time.Since(start).Round(time.Millisecond))
	disjoint(t, subnet, used, wants, grants)
}

func TestMerged(t *testing.T) {
	got := merged([]netip.Prefix{cidr("10.0.1.0/24"), cidr("10.0.0.0/24"), cidr("10.0.0.128/25"), cidr("10.9.0.0/16"), cidr("fd00::/64")})
	want := []netip.Prefix{cidr("10.0.0.0/23"), cidr("10.9.0.0/16"), cidr("fd00::/64")}
	if len(got) != len(want) || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] {
		t.Errorf("got %v", got)
	}
}
