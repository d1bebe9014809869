// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v7"
)

// attached is a network with a peer and a route table, and an interface that a machine has.
func attached(t *testing.T) *runWorld {
	t.Helper()
	w := newRun(t)
	w.must("PUT", ownTags+"Office"+ownVersion, tagBody("203.0.113.0/24"))
	w.must("PUT", runGroup, groupBody(ruleJSON("ssh", 100, `"sourceAddressPrefix":"*"`, `"sourceAddressPrefixes":["Office","198.51.100.7"]`),
		ruleJSON("icmp", 200, `"Tcp"`, `"Icmp"`, `"destinationPortRange":"80"`, `"destinationPortRange":"*"`)))
	w.must("PUT", nsgG+"2", groupBody(ruleJSON("web", 300, `"destinationPortRange":"80"`, `"destinationPortRanges":["80","8080-8090"]`)))
	w.must("PUT", rtT, tableBody(routeBody("0.0.0.0/0", "VirtualAppliance", "10.7.0.9")))
	w.must("PUT", edgeNetwork+"virtualNetworks/far", vnetBody(`"10.8.0.0/16"`, ``, ``))
	w.must("PUT", runVNet, vnetBody(`"10.7.0.0/16"`, `{"name":"a","properties":{"addressPrefix":"10.7.0.0/24","networkSecurityGroup":{"id":"`+runGroup+`"},"routeTable":{"id":"`+rtT+`"}}}`, ``))
	w.must("PUT", runVNet+"/virtualNetworkPeerings/p", `{"properties":{"remoteVirtualNetwork":{"id":"`+edgeNetwork+`virtualNetworks/far"}}}`)
	w.must("PUT", edgeNetwork+"virtualNetworks/far/virtualNetworkPeerings/p", `{"properties":{"remoteVirtualNetwork":{"id":"`+runVNet+`"}}}`)
	body := nicBody(runVNet+"/subnets/a", ``)
	w.must("PUT", nicN, strings.Replace(body, `"properties":{`, `"properties":{"networkSecurityGroup":{"id":"`+nsgG+`2"},`, 1))
	return w
}

func (w *runWorld) machine() {
	w.t.Helper()
	w.document(edgeGroup+"/providers/Microsoft.Compute/virtualMachines/vm",
		`{"properties":{"networkProfile":{"networkInterfaces":[{"id":"`+nicN+`"}]}}}`, InterfaceState{Machine: "m"})
}

func TestEffectiveRoutes(t *testing.T) {
	t.Parallel()
	w := attached(t)
	client := sdkOf(t, w.edgeWorld).NewInterfacesClient()
	if _, err := client.BeginGetEffectiveRouteTable(t.Context(), "rg1", "n", nil); err == nil || !strings.Contains(err.Error(), "NicMustBeAttachedToRunningVM") {
		t.Errorf("of an interface that no machine has: %v", err)
	}
	w.machine()
	answer := ended(t, func(ctx context.Context) (*runtime.Poller[armnetwork.InterfacesClientGetEffectiveRouteTableResponse], error) {
		return client.BeginGetEffectiveRouteTable(ctx, "rg1", "n", nil)
	})
	var got []string
	for _, r := range answer.Value {
		text := fmt.Sprint(value(r.Source), " ", value(r.State), " ", value(r.AddressPrefix[0]), " ", value(r.NextHopType))
		for _, via := range r.NextHopIPAddress {
			text += " " + value(via)
		}
		got = append(got, text)
	}
	for _, want := range []string{"Default Active 10.7.0.0/16 VnetLocal", "Default Active 10.8.0.0/16 VNetPeering", "Default Invalid 0.0.0.0/0 Internet",
		"Default Active 10.0.0.0/8 None", "Default Active 192.168.0.0/16 None", "User Active 0.0.0.0/0 VirtualAppliance 10.7.0.9"} {
		if !slices.Contains(got, want) {
			t.Errorf("no %s in\n%s", want, strings.Join(got, "\n"))
		}
	}
	if got[0] != "Default Active 10.7.0.0/16 VnetLocal" || slices.ContainsFunc(got, func(s string) bool { return strings.Contains(s, "168.63.129.16") || strings.Contains(s, "::") }) {
		t.Errorf("%s", strings.Join(got, "\n"))
	}
}

func TestEffectiveGroups(t *testing.T) {
	t.Parallel()
	w := attached(t)
	w.machine()
	client := sdkOf(t, w.edgeWorld).NewInterfacesClient()
	answer := ended(t, func(ctx context.Context) (*runtime.Poller[armnetwork.InterfacesClientListEffectiveNetworkSecurityGroupsResponse], error) {
		return client.BeginListEffectiveNetworkSecurityGroups(ctx, "rg1", "n", nil)
	})
	if len(answer.Value) != 2 || value(orEmpty(answer.Value[0].Association.Subnet).ID) != runVNet+"/subnets/a" ||
		value(orEmpty(answer.Value[1].Association.NetworkInterface).ID) != nicN || value(answer.Value[1].NetworkSecurityGroup.ID) != nsgG+"2" {
		t.Fatalf("%+v", answer.Value)
	}
	list := func(texts []*string) (all []string) {
		for _, text := range texts {
			all = append(all, value(text))
		}
		return all
	}
	rules := map[string]*armnetwork.EffectiveNetworkSecurityRule{}
	for _, g := range answer.Value {
		for _, r := range g.EffectiveSecurityRules {
			rules[value(r.Name)] = r
		}
		if n := len(g.EffectiveSecurityRules); n < 7 {
			t.Errorf("%d rules", n)
		}
	}
	ssh := rules["securityRules/ssh"]
	if ssh == nil || !slices.Equal(list(ssh.SourceAddressPrefixes), []string{"Office", "198.51.100.7"}) ||
		!slices.Equal(list(ssh.ExpandedSourceAddressPrefix), []string{"198.51.100.7/32", "203.0.113.0/24"}) ||
		value(ssh.DestinationPortRange) != "80-80" || value(ssh.SourcePortRange) != "0-65535" || value(ssh.DestinationAddressPrefix) != "0.0.0.0/0" || value(ssh.Priority) != 100 {
		t.Errorf("%+v", ssh)
	}
	if icmp := rules["securityRules/icmp"]; icmp == nil || value(icmp.Protocol) != "Icmp" {
		t.Errorf("%+v", icmp)
	}
	if web := rules["securityRules/web"]; web == nil || !slices.Equal(list(web.DestinationPortRanges), []string{"80-80", "8080-8090"}) || value(web.Protocol) != "Tcp" {
		t.Errorf("%+v", web)
	}
	// The route table leads all to an appliance, so that all is the tag VirtualNetwork, as on Azure.
	internal := rules["defaultSecurityRules/AllowVnetInBound"]
	if internal == nil || value(internal.SourceAddressPrefix) != "VirtualNetwork" || !slices.Equal(list(internal.ExpandedSourceAddressPrefix), []string{"0.0.0.0/0"}) || value(internal.Protocol) != "All" {
		t.Errorf("%+v", internal)
	}
}

func TestSubnetUsages(t *testing.T) {
	t.Parallel()
	w := attached(t)
	page, err := sdkOf(t, w.edgeWorld).NewVirtualNetworksClient().NewListUsagePager("rg1", "run", nil).NextPage(t.Context())
	if err != nil || len(page.Value) != 1 || value(page.Value[0].ID) != runVNet+"/subnets/a" || value(page.Value[0].CurrentValue) != 1 ||
		value(page.Value[0].Limit) != 251 || value(page.Value[0].Unit) != "Count" {
		t.Errorf("%+v, %v", page.Value, err)
	}
}
