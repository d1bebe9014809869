// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v7"
)

func sdkOf(t *testing.T, w *edgeWorld) *armnetwork.ClientFactory {
	t.Helper()
	factory, err := armnetwork.NewClientFactory(edgeSub, edgeAnyone{}, w.options())
	if err != nil {
		t.Fatal(err)
	}
	return factory
}

// ended waits for the end of what a client began.
func ended[T any](t *testing.T, begin func(context.Context) (*runtime.Poller[T], error)) T {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
	defer stop()
	poller, err := begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := poller.PollUntilDone(ctx, &runtime.PollUntilDoneOptions{Frequency: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

func vnetModel(prefix string) armnetwork.VirtualNetwork {
	return armnetwork.VirtualNetwork{Location: ptr("eastus"), Properties: &armnetwork.VirtualNetworkPropertiesFormat{
		AddressSpace: &armnetwork.AddressSpace{AddressPrefixes: []*string{&prefix}}}}
}

func TestNetworkBySDK(t *testing.T) {
	t.Parallel()
	w := newEdge(t)
	f := sdkOf(t, w)
	vnets, subnets, groups, tables := f.NewVirtualNetworksClient(), f.NewSubnetsClient(), f.NewSecurityGroupsClient(), f.NewRouteTablesClient()
	vnet := ended(t, func(ctx context.Context) (*runtime.Poller[armnetwork.VirtualNetworksClientCreateOrUpdateResponse], error) {
		return vnets.BeginCreateOrUpdate(ctx, "rg1", "v1", vnetModel("10.1.0.0/16"), nil)
	})
	if value(vnet.Properties.ProvisioningState) != armnetwork.ProvisioningStateSucceeded || !strings.HasPrefix(value(vnet.Etag), `W/"`) || value(vnet.Properties.ResourceGUID) == "" {
		t.Errorf("virtual network %+v", vnet.Properties)
	}
	group := ended(t, func(ctx context.Context) (*runtime.Poller[armnetwork.SecurityGroupsClientCreateOrUpdateResponse], error) {
		return groups.BeginCreateOrUpdate(ctx, "rg1", "g1", armnetwork.SecurityGroup{Location: ptr("eastus")}, nil)
	})
	table := ended(t, func(ctx context.Context) (*runtime.Poller[armnetwork.RouteTablesClientCreateOrUpdateResponse], error) {
		return tables.BeginCreateOrUpdate(ctx, "rg1", "t1", armnetwork.RouteTable{Location: ptr("eastus")}, nil)
	})
	subnet := ended(t, func(ctx context.Context) (*runtime.Poller[armnetwork.SubnetsClientCreateOrUpdateResponse], error) {
		return subnets.BeginCreateOrUpdate(ctx, "rg1", "v1", "web", armnetwork.Subnet{Properties: &armnetwork.SubnetPropertiesFormat{
			AddressPrefix: ptr("10.1.1.0/24"), NetworkSecurityGroup: &group.SecurityGroup, RouteTable: &table.RouteTable}}, nil)
	})
	if value(subnet.ID) != edgeNetwork+"virtualNetworks/v1/subnets/web" || value(subnet.Properties.ProvisioningState) != "Succeeded" {
		t.Errorf("subnet %+v", subnet.Subnet)
	}
	// What a client read it may send back, with everything that is read-only in it.
	again := ended(t, func(ctx context.Context) (*runtime.Poller[armnetwork.SubnetsClientCreateOrUpdateResponse], error) {
		return subnets.BeginCreateOrUpdate(ctx, "rg1", "v1", "web", subnet.Subnet, nil)
	})
	got, err := groups.Get(t.Context(), "rg1", "g1", nil)
	if err != nil || len(got.Properties.Subnets) != 1 || value(got.Properties.Subnets[0].ID) != value(again.ID) || len(got.Properties.DefaultSecurityRules) != 6 {
		t.Errorf("group %+v, %v", got.Properties, err)
	}
	if got, err := tables.Get(t.Context(), "rg1", "t1", nil); err != nil || len(got.Properties.Subnets) != 1 {
		t.Errorf("table %+v, %v", got.Properties, err)
	}
	if _, err := vnets.UpdateTags(t.Context(), "rg1", "v1", armnetwork.TagsObject{Tags: map[string]*string{"a": ptr("b")}}, nil); err != nil {
		t.Errorf("tags: %v", err)
	}
	ended(t, func(ctx context.Context) (*runtime.Poller[armnetwork.SubnetsClientDeleteResponse], error) {
		return subnets.BeginDelete(ctx, "rg1", "v1", "web", nil)
	})
	ended(t, func(ctx context.Context) (*runtime.Poller[armnetwork.VirtualNetworksClientDeleteResponse], error) {
		return vnets.BeginDelete(ctx, "rg1", "v1", nil)
	})
	ended(t, func(ctx context.Context) (*runtime.Poller[armnetwork.SecurityGroupsClientDeleteResponse], error) {
		return groups.BeginDelete(ctx, "rg1", "g1", nil)
	})
}

func TestRulesBySDK(t *testing.T) {
	t.Parallel()
	w := newEdge(t)
	f := sdkOf(t, w)
	rules := f.NewSecurityRulesClient()
	w.must("PUT", edgeNetwork+"networkSecurityGroups/g1", `{"location":"eastus"}`)
	var all sync.WaitGroup
	for i := range 6 { // as OpenTofu writes them: at once
		all.Go(func() {
			name := "r" + string(rune('a'+i))
			poller, err := rules.BeginCreateOrUpdate(t.Context(), "rg1", "g1", name, armnetwork.SecurityRule{Properties: &armnetwork.SecurityRulePropertiesFormat{
				Access: ptr(armnetwork.SecurityRuleAccessAllow), Direction: ptr(armnetwork.SecurityRuleDirectionInbound), Priority: ptr(int32(100 + i)),
				Protocol: ptr(armnetwork.SecurityRuleProtocolTCP), SourceAddressPrefix: ptr("Internet"), SourcePortRange: ptr("*"),
				DestinationAddressPrefix: ptr("*"), DestinationPortRange: ptr("443")}}, nil)
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := poller.PollUntilDone(t.Context(), nil); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	page, err := rules.NewListPager("rg1", "g1", nil).NextPage(t.Context())
	if err != nil || len(page.Value) != 6 {
		t.Fatalf("%d rules, %v", len(page.Value), err)
	}
	ended(t, func(ctx context.Context) (*runtime.Poller[armnetwork.SecurityRulesClientDeleteResponse], error) {
		return rules.BeginDelete(ctx, "rg1", "g1", "ra", nil)
	})
	if _, err := rules.Get(t.Context(), "rg1", "g1", "ra", nil); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("a deleted rule: %v", err)
	}
	if got, err := f.NewDefaultSecurityRulesClient().Get(t.Context(), "rg1", "g1", "DenyAllInBound", nil); err != nil || value(got.Properties.Priority) != 65500 {
		t.Errorf("default rule: %v", err)
	}
	defaults, err := f.NewDefaultSecurityRulesClient().NewListPager("rg1", "g1", nil).NextPage(t.Context())
	if err != nil || len(defaults.Value) != 6 {
		t.Errorf("default rules: %v", err)
	}
}

func TestRoutesAndPeeringsBySDK(t *testing.T) {
	t.Parallel()
	w := newEdge(t)
	f := sdkOf(t, w)
	w.must("PUT", edgeNetwork+"routeTables/t1", `{"location":"eastus"}`)
	route := ended(t, func(ctx context.Context) (*runtime.Poller[armnetwork.RoutesClientCreateOrUpdateResponse], error) {
		return f.NewRoutesClient().BeginCreateOrUpdate(ctx, "rg1", "t1", "fw", armnetwork.Route{Properties: &armnetwork.RoutePropertiesFormat{
			AddressPrefix: ptr("0.0.0.0/0"), NextHopType: ptr(armnetwork.RouteNextHopTypeVirtualAppliance), NextHopIPAddress: ptr("10.0.0.4")}}, nil)
	})
	if value(route.Properties.NextHopIPAddress) != "10.0.0.4" || value(route.Name) != "fw" {
		t.Errorf("route %+v", route.Properties)
	}
	for name, prefix := range map[string]string{"a": "10.10.0.0/16", "b": "10.20.0.0/16"} {
		w.must("PUT", edgeNetwork+"virtualNetworks/"+name, `{"location":"eastus","properties":{"addressSpace":{"addressPrefixes":["`+prefix+`"]}}}`)
	}
	peer := func(from, to string) *armnetwork.VirtualNetworkPeeringPropertiesFormat {
		return ended(t, func(ctx context.Context) (*runtime.Poller[armnetwork.VirtualNetworkPeeringsClientCreateOrUpdateResponse], error) {
			return f.NewVirtualNetworkPeeringsClient().BeginCreateOrUpdate(ctx, "rg1", from, "to-"+to, armnetwork.VirtualNetworkPeering{
				Properties: &armnetwork.VirtualNetworkPeeringPropertiesFormat{AllowForwardedTraffic: ptr(true),
					RemoteVirtualNetwork: &armnetwork.SubResource{ID: ptr(edgeNetwork + "virtualNetworks/" + to)}}}, nil)
		}).Properties
	}
	if first := peer("a", "b"); value(first.PeeringState) != armnetwork.VirtualNetworkPeeringStateInitiated || !value(first.AllowVirtualNetworkAccess) {
		t.Errorf("one side: %+v", first)
	}
	if second := peer("b", "a"); value(second.PeeringState) != armnetwork.VirtualNetworkPeeringStateConnected ||
		value(second.RemoteAddressSpace.AddressPrefixes[0]) != "10.10.0.0/16" {
		t.Errorf("both sides: %+v", second)
	}
	w.must("DELETE", edgeNetwork+"virtualNetworks/a", "")
	if got := w.must("GET", edgeNetwork+"virtualNetworks/b/virtualNetworkPeerings/to-a", ""); got.get("properties", "peeringState") != "Disconnected" {
		t.Errorf("after the other network's end: %s", got.text)
	}
}

func TestInterfaceBySDK(t *testing.T) {
	t.Parallel()
	w := newEdge(t)
	f := sdkOf(t, w)
	nics := f.NewInterfacesClient()
	model := armnetwork.Interface{Location: ptr("eastus"), Properties: &armnetwork.InterfacePropertiesFormat{
		IPConfigurations: []*armnetwork.InterfaceIPConfiguration{{Name: ptr("ipconfig1"), Properties: &armnetwork.InterfaceIPConfigurationPropertiesFormat{
			Subnet: &armnetwork.Subnet{ID: ptr(edgeSubnet)}}}}}}
	put := func(name string, m armnetwork.Interface) armnetwork.Interface {
		return ended(t, func(ctx context.Context) (*runtime.Poller[armnetwork.InterfacesClientCreateOrUpdateResponse], error) {
			return nics.BeginCreateOrUpdate(ctx, "rg1", name, m, nil)
		}).Interface
	}
	one, two := put("n1", model), put("n2", model)
	address := func(n armnetwork.Interface) string {
		return value(n.Properties.IPConfigurations[0].Properties.PrivateIPAddress)
	}
	if address(one) != "10.0.0.4" || address(two) != "10.0.0.5" || value(one.Properties.IPConfigurations[0].ID) != edgeNetwork+"networkInterfaces/n1/ipConfigurations/ipconfig1" {
		t.Errorf("addresses %s and %s", address(one), address(two))
	}
	one.Properties.EnableIPForwarding = ptr(true)
	if again := put("n1", one); address(again) != "10.0.0.4" || !value(again.Properties.EnableIPForwarding) {
		t.Errorf("after an update: %s", address(again))
	}
	subnet, err := f.NewSubnetsClient().Get(t.Context(), "rg1", "vnet1", "nodes", nil)
	if err != nil || len(subnet.Properties.IPConfigurations) != 2 {
		t.Errorf("subnet's configurations: %+v, %v", subnet.Properties, err)
	}
	check, err := f.NewVirtualNetworksClient().CheckIPAddressAvailability(t.Context(), "rg1", "vnet1", "10.0.0.4", nil)
	if err != nil || value(check.Available) || len(check.AvailableIPAddresses) != 5 || value(check.AvailableIPAddresses[0]) != "10.0.0.6" {
		t.Errorf("availability: %+v, %v", check, err)
	}
	if check, err := f.NewVirtualNetworksClient().CheckIPAddressAvailability(t.Context(), "rg1", "vnet1", "10.0.0.99", nil); err != nil || !value(check.Available) {
		t.Errorf("availability: %+v, %v", check, err)
	}
	w.document(edgeGroup+"/providers/Microsoft.Compute/virtualMachines/vm1",
		`{"properties":{"networkProfile":{"networkInterfaces":[{"id":"`+edgeNetwork+`networkInterfaces/N1"}]}}}`, nil)
	got, err := nics.Get(t.Context(), "rg1", "n1", nil)
	if err != nil || !strings.HasSuffix(value(got.Properties.VirtualMachine.ID), "/virtualMachines/vm1") || !value(got.Properties.Primary) {
		t.Errorf("interface %+v, %v", got.Properties, err)
	}
	w.refuses("DELETE", edgeNetwork+"networkInterfaces/n1", "", "NicInUse")
	ended(t, func(ctx context.Context) (*runtime.Poller[armnetwork.InterfacesClientDeleteResponse], error) {
		return nics.BeginDelete(ctx, "rg1", "n2", nil)
	})
}

func TestServiceTagsAndFlowLogsBySDK(t *testing.T) {
	t.Parallel()
	w := newEdge(t)
	f := sdkOf(t, w)
	tags, err := f.NewServiceTagsClient().List(t.Context(), "eastus", nil)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, v := range tags.Values {
		if prefixes := v.Properties.AddressPrefixes; len(prefixes) > 0 {
			found[value(v.Name)] = value(prefixes[0])
		}
	}
	if found["AzureLoadBalancer"] != "168.63.129.16/32" || found["AzureCloud.eastus"] != "192.88.99.1/32" {
		t.Errorf("tags %v", found)
	}
	w.must("PUT", edgeNetwork+"networkSecurityGroups/g1", `{"location":"eastus"}`)
	w.must("PUT", edgeNetwork+"networkWatchers/w1", `{"location":"eastus"}`)
	log := ended(t, func(ctx context.Context) (*runtime.Poller[armnetwork.FlowLogsClientCreateOrUpdateResponse], error) {
		return f.NewFlowLogsClient().BeginCreateOrUpdate(ctx, "rg1", "w1", "l1", armnetwork.FlowLog{Location: ptr("eastus"), Properties: &armnetwork.FlowLogPropertiesFormat{
			StorageID: ptr(""), TargetResourceID: ptr(edgeNetwork + "networkSecurityGroups/g1"), Enabled: ptr(true)}}, nil)
	})
	if !value(log.Properties.Enabled) || value(log.Properties.TargetResourceGUID) == "" {
		t.Errorf("flow log %+v", log.Properties)
	}
	w.refuses("PUT", edgeNetwork+"networkWatchers/w1/flowLogs/l2", `{"location":"eastus","properties":{"storageId":"/x","targetResourceId":"`+edgeNetwork+`networkSecurityGroups/no"}}`,
		"PropertyNotSupported", "InvalidResourceReference")
	w.refuses("DELETE", edgeNetwork+"networkSecurityGroups/g1", "", "InUseNetworkSecurityGroupCannotBeDeleted")
}
