// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	aks "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"

	"bastide.dev/arm"
	"bastide.dev/resource"
)

const (
	testVNet   = "/subscriptions/0b1f6471-1bf0-4dda-aec3-cb9272f09590/resourceGroups/net/providers/Microsoft.Network/virtualNetworks/v1"
	testSubnet = testVNet + "/subnets/nodes"
)

// withVNet stores a network of the user's.
func (w *world) withVNet(subnet string) {
	w.t.Helper()
	d := &arm.Document{Envelope: resource.Envelope{ID: resource.MustParseID(testVNet), Type: "Microsoft.Network/virtualNetworks",
		Name: "v1", Location: "eastus", ProvisioningState: resource.Succeeded}}
	d.Body = json.RawMessage(`{"properties":{"addressSpace":{"addressPrefixes":["10.1.0.0/16"]},"subnets":[` + subnet + `]}}`)
	change, err := arm.PutDocument(d)
	if err == nil {
		_, err = w.memory.Txn(w.t.Context(), change)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// body is azBody with changes, by path; "pool." is the first pool's.
func changed(t *testing.T, changes object) string {
	t.Helper()
	var body object
	if err := json.Unmarshal([]byte(azBody(2)), &body); err != nil {
		t.Fatal(err)
	}
	for path, v := range changes {
		if name, ok := strings.CutPrefix(path, "pool."); ok {
			get(body, "properties.agentPoolProfiles").([]any)[0].(object)[name] = v
		} else {
			set(body, path, v)
		}
	}
	raw, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func (w *world) stored(id resource.ID) object {
	w.t.Helper()
	d := w.document(w.t.Context(), id)
	if d == nil {
		return nil
	}
	var body object
	if err := json.Unmarshal(d.Body, &body); err != nil {
		w.t.Fatal(err)
	}
	return body
}

func (w *world) whole() *whole {
	w.t.Helper()
	found, err := w.p.load(w.t.Context(), w.document(w.t.Context(), resource.MustParseID(testCluster)))
	if err != nil {
		w.t.Fatal(err)
	}
	return found
}

// In a subnet of the user's, kubenet's route table is given to the subnet, the
// group guards the interfaces, and all of it goes with the cluster.
func TestOwnSubnet(t *testing.T) {
	w := newWorld(t)
	w.withVNet(`{"name":"nodes","properties":{"addressPrefix":"10.1.2.0/24"}}`)
	w.must("PUT", testCluster, changed(t, object{"pool.vnetSubnetID": testSubnet}), resource.Succeeded)
	c := w.whole()
	if !netip.MustParsePrefix("10.1.2.0/24").Contains(c.state.Server) || !netip.MustParsePrefix("10.1.2.0/24").Contains(c.pools[0].Nodes[0].Address) {
		t.Errorf("the API server is at %s, the first node at %s", c.state.Server, c.pools[0].Nodes[0].Address)
	}
	if w.stored(c.vnetID()) != nil {
		t.Error("the cluster has a network of its own beside the user's")
	}
	table := func() string {
		list := get(w.stored(resource.MustParseID(testVNet)), "properties.subnets").([]any)
		return fmt.Sprint(get(list[0].(object), "properties.routeTable.id"))
	}
	if want := c.ownRouteTable().String(); table() != want {
		t.Errorf("the subnet's route table is %s, want %s", table(), want)
	}
	instance := w.stored(c.instance("nodepool1", 0))
	nics := get(instance, "properties.networkProfileConfiguration.networkInterfaceConfigurations").([]any)
	if got := get(nics[0].(object), "properties.networkSecurityGroup.id"); got != c.nsgID().String() {
		t.Errorf("the interface's group is %v", got)
	}
	if !strings.Contains(strings.Join(w.directory.roles, "\n"), networkRole+" "+testVNet) {
		t.Errorf("the cluster has no role on the network: %v", w.directory.roles)
	}
	w.must("DELETE", testCluster, "", resource.Succeeded)
	if got := table(); got != "<nil>" {
		t.Errorf("after the deletion the subnet's route table is %s", got)
	}
}

func TestSubnetsOfTheUser(t *testing.T) {
	w := newWorld(t)
	w.withVNet(`{"name":"nodes","properties":{"addressPrefix":"10.1.2.0/26"}},{"name":"routed","properties":{"addressPrefix":"10.1.3.0/24","routeTable":{"id":"` +
		strings.Replace(testVNet, "virtualNetworks/v1", "routeTables/r1", 1) + `"}}}`)
	for _, c := range []struct {
		changes object
		code    string
	}{
		{object{"pool.vnetSubnetID": testSubnet, "properties.networkProfile.networkPlugin": "azure", "properties.networkProfile.podCidr": nil}, "InsufficientSubnetSize"},
		{object{"pool.vnetSubnetID": testSubnet, "properties.networkProfile.podCidr": "10.1.0.0/16"}, "PodCidrOverlapExistingSubnetsCidr"},
		{object{"pool.vnetSubnetID": testSubnet, "properties.networkProfile.serviceCidr": "10.1.2.0/24", "properties.networkProfile.dnsServiceIP": "10.1.2.10"}, "ServiceCidrOverlapExistingSubnetsCidr"},
		{object{"pool.vnetSubnetID": testSubnet, "properties.networkProfile.outboundType": "userDefinedRouting"}, "ExistingRouteTableNotAssociatedWithSubnet"},
		{object{"pool.vnetSubnetID": testSubnet, "properties.networkProfile.outboundType": "userAssignedNATGateway"}, "InvalidParameter"},
	} {
		_, _, err := w.do(t.Context(), "PUT", testCluster, changed(t, c.changes))
		found := false
		for _, f := range problems(err) {
			found = found || f.Code == c.code
		}
		if !found {
			t.Errorf("%v: %v, want %s", c.changes, err, c.code)
		}
	}
	w.must("PUT", testCluster, changed(t, object{"pool.vnetSubnetID": testVNet + "/subnets/routed", "properties.networkProfile.outboundType": "userDefinedRouting"}), resource.Succeeded)
	if c := w.whole(); w.stored(c.balancerID()) != nil || len(c.state.Outbound) != 0 || w.stored(c.ownRouteTable()) != nil {
		t.Error("with routes of the user's the cluster has outbound resources of its own")
	}
}

// Two overlays of one network can't have the same pod addresses.
func TestOverlaysOfOneNetwork(t *testing.T) {
	w := newWorld(t)
	w.withVNet(`{"name":"nodes","properties":{"addressPrefix":"10.1.2.0/24"}}`)
	overlay := object{"pool.vnetSubnetID": testSubnet, "properties.networkProfile.networkPlugin": "azure", "properties.networkProfile.networkPluginMode": "overlay"}
	w.must("PUT", testCluster, changed(t, overlay), resource.Succeeded)
	_, _, err := w.do(t.Context(), "PUT", testCluster+"2", changed(t, overlay))
	if err == nil || !strings.Contains(err.Error(), "10.244.0.0/16 of cluster c1") {
		t.Errorf("a second overlay with the same range: %v", err)
	}
	overlay["properties.networkProfile.podCidr"] = "10.245.0.0/16"
	if _, _, err := w.do(t.Context(), "PUT", testCluster+"2", changed(t, overlay)); err != nil {
		t.Error(err)
	}
}

// The managed addresses grow and shrink, in the load balancer too; what others
// keep in it stays.
func TestManagedOutbound(t *testing.T) {
	w := newWorld(t)
	w.must("PUT", testCluster, changed(t, object{"properties.networkProfile.loadBalancerProfile": object{"managedOutboundIPs": object{"count": 3}}}), resource.Succeeded)
	c := w.whole()
	fronts := func() int {
		return len(get(w.stored(c.balancerID()), "properties.frontendIPConfigurations").([]any))
	}
	if len(c.state.Outbound) != 3 || fronts() != 3 {
		t.Fatalf("%d addresses, %d front ends, want 3 of each", len(c.state.Outbound), fronts())
	}
	d := w.document(t.Context(), c.balancerID())
	d.Body = json.RawMessage(strings.Replace(string(d.Body), `"loadBalancingRules":[]`, `"loadBalancingRules":[{"name":"a-TCP-80","properties":{}}]`, 1))
	change, err := arm.PutDocument(d)
	if err == nil {
		_, err = w.memory.Txn(t.Context(), change)
	}
	if err != nil {
		t.Fatal(err)
	}
	w.must("PUT", testCluster, changed(t, object{"properties.networkProfile.loadBalancerProfile": object{"managedOutboundIPs": object{"count": 1}}}), resource.Succeeded)
	gone := c.own("publicIPAddresses", c.state.Outbound[2].Name)
	if c = w.whole(); len(c.state.Outbound) != 1 || fronts() != 1 || w.stored(gone) != nil {
		t.Errorf("%d addresses, %d front ends, the third address %v", len(c.state.Outbound), fronts(), w.stored(gone))
	}
	if rules := get(w.stored(c.balancerID()), "properties.loadBalancingRules").([]any); len(rules) != 1 {
		t.Errorf("the rules of others: %v", rules)
	}
	effective := get(w.view(testCluster, testVersion), "properties.networkProfile.loadBalancerProfile.effectiveOutboundIPs").([]any)
	if len(effective) != 1 {
		t.Errorf("effective outbound addresses: %v", effective)
	}
}

func TestPrivateCluster(t *testing.T) {
	w := newWorld(t)
	w.must("PUT", testCluster, changed(t, object{"properties.apiServerAccessProfile": object{"enablePrivateCluster": true}}), resource.Succeeded)
	c := w.whole()
	view := w.view(testCluster, testVersion)
	private, _ := get(view, "properties.privateFQDN").(string)
	if !strings.Contains(private, ".privatelink.eastus.bastide.internal") || get(view, "properties.fqdn") != c.state.FQDN {
		t.Errorf("names %q and %v", private, get(view, "properties.fqdn"))
	}
	record := w.stored(c.zoneID().Child("A", c.privateLabel()))
	if got := fmt.Sprint(get(record, "properties.aRecords")); !strings.Contains(got, c.state.Server.String()) {
		t.Errorf("the record leads to %s, want %s", got, c.state.Server)
	}
	if s := c.server(); !s.Private || s.FQDN != c.state.FQDN {
		t.Errorf("server %+v", s)
	}
	if names := w.host.Planes[c.state.ID].Names; len(names) != 1 || names[0] != private {
		t.Errorf("the certificate's further names are %v", names)
	}
	for query, want := range map[string]string{"": private, "public": c.state.FQDN} {
		_, plan, err := w.ask("POST", testCluster+"/listClusterAdminCredential", "", map[string]string{"server-fqdn": query})
		if err != nil {
			t.Fatal(err)
		}
		if config := string(plan.Answer.(aks.CredentialResults).Kubeconfigs[0].Value); !strings.Contains(config, "https://"+want+":443") {
			t.Errorf("server-fqdn=%q gives %s", query, config)
		}
	}
	_, _, err := w.do(t.Context(), "PUT", testCluster, changed(t, object{"properties.apiServerAccessProfile": object{"enablePrivateCluster": true, "authorizedIPRanges": []any{"1.2.3.0/24"}}}))
	if err == nil || !strings.Contains(err.Error(), "private cluster") {
		t.Errorf("ranges on a private cluster: %v", err)
	}
	w.must("DELETE", testCluster, "", resource.Succeeded)
	w.nothingLeft()
}

func TestAuthorizedRanges(t *testing.T) {
	w := newWorld(t)
	w.must("PUT", testCluster, changed(t, nil), resource.Succeeded)
	ranges := func(list ...any) {
		t.Helper()
		w.must("PUT", testCluster, changed(t, object{"properties.apiServerAccessProfile": object{"authorizedIPRanges": list}}), resource.Succeeded)
	}
	ranges("1.2.3.4", "5.6.7.9/24")
	if s := w.whole().server(); !s.Restricted || fmt.Sprint(s.Allowed) != "[1.2.3.4/32 5.6.7.0/24]" {
		t.Errorf("server %+v", s)
	}
	ranges("0.0.0.0/32")
	if s := w.whole().server(); !s.Restricted || len(s.Allowed) != 0 {
		t.Errorf("server %+v", s)
	}
	w.must("PUT", testCluster, changed(t, nil), resource.Succeeded) // a body without the property leaves it
	if s := w.whole().server(); !s.Restricted {
		t.Errorf("server %+v", s)
	}
	ranges([]any{}...)
	if s := w.whole().server(); s.Restricted {
		t.Errorf("server %+v", s)
	}
}
