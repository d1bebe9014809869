// SPDX-License-Identifier: Apache-2.0

package network

import (
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v7"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/privatedns/armprivatedns"

	"bastide.dev/arm"
)

func TestNATGateway(t *testing.T) {
	t.Parallel()
	w := newEdge(t)
	gateway := edgeNetwork + "natGateways/ng1"
	w.must("PUT", edgePIP+"p1", pip(""))
	w.must("PUT", edgePIP+"p2", pip(""))
	w.must("PUT", edgeNetwork+"publicIPPrefixes/block", `{"location":"eastus","properties":{"prefixLength":28}}`)
	w.must("PUT", edgeLB, strings.ReplaceAll(lbBody(), "p1", "p2"))
	body := func(text string) string {
		return `{"location":"eastus","sku":{"name":"Standard"},"properties":{` + text + `}}`
	}
	one := `"publicIpAddresses":[{"id":"` + edgePIP + `p1"}]`
	for text, code := range map[string]string{
		`"idleTimeoutInMinutes":121`:                                         "InvalidIdleTimeout",
		`"publicIpAddresses":[{"id":"` + edgePIP + `p2"}]`:                   "PublicIPAddressInUse",
		`"publicIpAddresses":[{"id":"` + edgePIP + `none"}]`:                 "InvalidResourceReference",
		`"publicIpAddresses":[{"id":"` + edgeLB + `"}]`:                      "LinkedInvalidPropertyId",
		one + `,"publicIpPrefixes":[{"id":"` + edgePrefixID("block") + `"}]`: "NatGatewayPublicIpLimitExceeded",
	} {
		w.refuses("PUT", gateway, body(text), code)
	}
	w.refuses("PUT", gateway, strings.Replace(body(one), `"properties"`, `"zones":["1"],"properties"`, 1), "PropertyNotSupported")
	w.must("PUT", gateway, body(one))
	if got := w.must("GET", edgePIP+"p1", "").get("properties", "natGateway", "id"); got != gateway {
		t.Errorf("the address is %v's", got)
	}
	w.document(edgeNetwork+"virtualNetworks/vnet1", `{"properties":{"addressSpace":{"addressPrefixes":["10.0.0.0/16"]},"subnets":[
		{"name":"nodes","properties":{"addressPrefix":"10.0.0.0/24","natGateway":{"id":"`+gateway+`"}}}]}}`, nil)
	if got := w.must("GET", gateway, "").get("properties", "subnets", "id"); got != edgeSubnet {
		t.Errorf("subnets %v", got)
	}
	w.refuses("DELETE", gateway, "", "InUseNatGatewayCannotBeDeleted")
	w.document(edgeNetwork+"virtualNetworks/vnet1", `{"properties":{}}`, nil)
	w.must("DELETE", gateway, "")
	w.must("DELETE", edgePIP+"p1", "")
}

func edgePrefixID(name string) string { return edgeNetwork + "publicIPPrefixes/" + name }

func endpointBody(cluster, more string) string {
	return `{"location":"eastus","properties":{"subnet":{"id":"` + edgeSubnet + `"},"privateLinkServiceConnections":[{"name":"c","properties":{"groupIds":["management"],
		"privateLinkServiceId":"` + edgeGroup + `/providers/Microsoft.ContainerService/managedClusters/` + cluster + `"}}]` + more + `}}`
}

const (
	edgeEndpoint = edgeNetwork + "privateEndpoints/pe1"
	edgeZone     = edgeNetwork + "privateDnsZones/privatelink.eastus.azmk8s.io"
)

func TestPrivateEndpoint(t *testing.T) {
	t.Parallel()
	w := newEdge(t)
	w.apiServer("private", true)
	w.apiServer("public", false)
	for body, code := range map[string]string{
		endpointBody("public", ""): "PrivateLinkNotSupported",
		endpointBody("nobody", ""): "InvalidResourceReference",
		endpointBody("private", `,"ipConfigurations":[{"name":"i","properties":{"privateIPAddress":"10.0.9.9"}}]`):                  "PrivateIPAddressNotInSubnet",
		endpointBody("private", `,"ipConfigurations":[{"name":"i","properties":{"groupId":"blob","privateIPAddress":"10.0.0.9"}}]`): "InvalidPrivateEndpointIpConfigurations",
		endpointBody("private", `,"manualPrivateLinkServiceConnections":[{"name":"m"}]`):                                            "PropertyNotSupported",
		strings.Replace(endpointBody("private", ""), "management", "blob", 1):                                                       "PrivateLinkServiceGroupIdNotSupported",
		strings.Replace(endpointBody("private", ""), "/nodes", "/none", 1):                                                          "InvalidResourceReference",
	} {
		w.refuses("PUT", edgeEndpoint, body, code)
	}
	a := w.must("PUT", edgeEndpoint, endpointBody("private", ""))
	if a.get("properties", "privateLinkServiceConnections", "properties", "privateLinkServiceConnectionState", "status") != "Approved" {
		t.Errorf("made %s", a.text)
	}
	addresses, _ := a.get("properties", "customDnsConfigs", "ipAddresses").([]any)
	if len(addresses) != 1 || addresses[0] != "10.0.0.4" {
		t.Fatalf("addresses %v", addresses)
	}
	w.must("PUT", edgeEndpoint, a.text) // what was read goes back, and the address stays
	if again := w.must("GET", edgeEndpoint, ""); again.get("properties", "customDnsConfigs", "ipAddresses").([]any)[0] != "10.0.0.4" {
		t.Errorf("after a second PUT %s", again.text)
	}
}

// Private link services aren't offered, and a list of them is empty, not an error.
func TestNoLinkServices(t *testing.T) {
	t.Parallel()
	w := newEdge(t)
	w.refuses("PUT", edgeNetwork+"privateLinkServices/pls1", `{"location":"eastus","properties":{}}`, "PrivateLinkServiceNotSupported")
	a := w.must("GET", strings.TrimSuffix(edgeNetwork, "/")+"/privateLinkServices?api-version=2019-03-01", "")
	if list, ok := a.body["value"].([]any); !ok || len(list) != 0 {
		t.Errorf("list %s", a.text)
	}
}

// A zone group keeps the endpoint's record in a zone, and takes it away again.
func TestZoneGroup(t *testing.T) {
	t.Parallel()
	w := newEdge(t)
	w.apiServer("private", true)
	w.must("PUT", edgeEndpoint, endpointBody("private", ""))
	w.must("PUT", edgeZone, `{"location":"global"}`)
	group := edgeEndpoint + "/privateDnsZoneGroups/default"
	body := `{"properties":{"privateDnsZoneConfigs":[{"name":"z","properties":{"privateDnsZoneId":"` + edgeZone + `"}}]}}`
	w.refuses("PUT", group, strings.Replace(body, "azmk8s", "none", 1), "InvalidResourceReference")
	a := w.must("PUT", group, body)
	if got := a.get("properties", "privateDnsZoneConfigs", "properties", "recordSets", "recordSetName"); got != "private-1a2b3c4d" {
		t.Errorf("group %s", a.text)
	}
	record := edgeZone + "/A/private-1a2b3c4d"
	if got := w.must("GET", record, "").get("properties", "aRecords", "ipv4Address"); got != "10.0.0.4" {
		t.Errorf("record of %v", got)
	}
	w.refuses("DELETE", record, "", "RecordSetKeptByPrivateEndpoint")
	w.refuses("PUT", edgeEndpoint+"/privateDnsZoneGroups/second", body, "PrivateEndpointHasPrivateDnsZoneGroup")
	w.must("PUT", group, body)
	w.must("DELETE", group, "")
	w.refuses("GET", record, "", "ResourceNotFound")
	w.must("PUT", group, body)
	w.must("DELETE", edgeEndpoint, "")
	w.refuses("GET", record, "", "ResourceNotFound")
}

func TestPrivateZone(t *testing.T) {
	t.Parallel()
	w := newEdge(t)
	w.refuses("PUT", edgeNetwork+"privateDnsZones/corp.example", `{"location":"eastus"}`, "LocationNotAvailableForResourceType")
	w.refuses("PUT", edgeNetwork+"privateDnsZones/single", `{"location":"global"}`, "BadRequest")
	zone := edgeNetwork + "privateDnsZones/corp.example"
	w.must("PUT", zone, `{"location":"global"}`)
	link := func(more string) string {
		return `{"location":"global","properties":{"virtualNetwork":{"id":"` + edgeNetwork + `virtualNetworks/vnet1"}` + more + `}}`
	}
	w.refuses("PUT", zone+"/virtualNetworkLinks/l1", strings.Replace(link(""), "vnet1", "none", 1), "InvalidResourceReference")
	w.refuses("PUT", zone+"/virtualNetworkLinks/l1", link(`,"resolutionPolicy":"NxDomainRedirect"`), "PropertyNotSupported")
	w.must("PUT", zone+"/virtualNetworkLinks/l1", link(`,"registrationEnabled":true`))
	w.refuses("PUT", zone+"/virtualNetworkLinks/l2", link(""), "Conflict")
	w.must("PUT", edgeNetwork+"privateDnsZones/other.example", `{"location":"global"}`)
	w.refuses("PUT", edgeNetwork+"privateDnsZones/other.example/virtualNetworkLinks/l1", link(`,"registrationEnabled":true`), "Conflict")
	w.must("PUT", edgeNetwork+"privateDnsZones/other.example/virtualNetworkLinks/l1", link(""))
	if got := w.must("PATCH", zone+"/virtualNetworkLinks/l1", `{"properties":{"registrationEnabled":false}}`); got.get("properties", "registrationEnabled") != false {
		t.Errorf("patched %s", got.text)
	}
	records(w, zone)
	a := w.must("GET", zone, "")
	if a.get("properties", "numberOfRecordSets") != 5.0 || a.get("properties", "numberOfVirtualNetworkLinks") != 1.0 || a.get("location") != "global" {
		t.Errorf("zone %s", a.text)
	}
	if all, _ := w.must("GET", zone+"/ALL", "").body["value"].([]any); len(all) != 5 {
		t.Errorf("all record sets: %v", all)
	}
	w.refuses("DELETE", zone, "", "CannotDeleteResource")
	w.must("DELETE", zone+"/virtualNetworkLinks/l1", "")
	w.must("DELETE", zone, "")
	w.refuses("GET", zone+"/A/www", "", "ParentResourceNotFound")
}

func records(w *edgeWorld, zone string) {
	w.t.Helper()
	address := `{"properties":{"ttl":300,"aRecords":[{"ipv4Address":"10.0.0.9"}]}}`
	for _, name := range []string{"@", "www", "*.apps"} {
		w.must("PUT", zone+"/A/"+name, address)
	}
	w.must("PUT", zone+"/CNAME/alias", `{"properties":{"ttl":300,"cnameRecord":{"cname":"www.corp.example."}}}`)
	for path, c := range map[string]struct{ body, code string }{
		"/A/none":    {`{"properties":{"ttl":300}}`, "BadRequest"},
		"/A/twice":   {`{"properties":{"aRecords":[{"ipv4Address":"10.0.0.9"},{"ipv4Address":"10.0.0.9"}]}}`, "BadRequest"},
		"/A/six":     {`{"properties":{"aRecords":[{"ipv4Address":"fd00::1"}]}}`, "BadRequest"},
		"/A/a.*.b":   {address, "BadRequest"},
		"/A/alias":   {address, "CnameRecordConflict"},
		"/CNAME/www": {`{"properties":{"cnameRecord":{"cname":"x.corp.example"}}}`, "CnameRecordConflict"},
		"/CNAME/far": {`{"properties":{"cnameRecord":{"cname":"www.elsewhere.test"}}}`, "PropertyNotSupported"},
		"/CNAME/@":   {`{"properties":{"cnameRecord":{"cname":"www.corp.example"}}}`, "BadRequest"},
		"/TXT/t":     {`{"properties":{"ttl":300,"txtRecords":[{"value":["x"]}]}}`, "RecordTypeNotSupported"},
		"/AAAA/t":    {`{"properties":{"ttl":300,"aaaaRecords":[{"ipv6Address":"fd00::1"}]}}`, "RecordTypeNotSupported"},
		"/A/mixed":   {`{"properties":{"aRecords":[{"ipv4Address":"10.0.0.9"}],"cnameRecord":{"cname":"www.corp.example"}}}`, "PropertyNotSupported"},
	} {
		w.refuses("PUT", zone+path, c.body, c.code)
	}
}

// Deleting a resource group takes everything along, whatever holds on to what.
func TestGroupGoes(t *testing.T) {
	t.Parallel()
	w := newEdge(t)
	w.apiServer("private", true)
	w.must("PUT", edgeZone, `{"location":"global"}`)
	w.must("PUT", edgeZone+"/virtualNetworkLinks/l1", `{"location":"global","properties":{"virtualNetwork":{"id":"`+edgeNetwork+`virtualNetworks/vnet1"}}}`)
	w.must("PUT", edgeEndpoint, endpointBody("private", ""))
	w.must("PUT", edgeEndpoint+"/privateDnsZoneGroups/default", `{"properties":{"privateDnsZoneConfigs":[{"name":"z","properties":{"privateDnsZoneId":"`+edgeZone+`"}}]}}`)
	w.must("PUT", edgePrefixID("block"), `{"location":"eastus","properties":{"prefixLength":29}}`)
	w.must("PUT", edgePIP+"out", pip(`,"dnsSettings":{"domainNameLabel":"out"},"publicIPPrefix":{"id":"`+edgePrefixID("block")+`"}`))
	w.must("PUT", edgePIP+"a1", pip(""))
	w.must("PUT", edgePIP+"nat", pip(""))
	w.must("PUT", edgeLB, kubernetesLB(""))
	w.must("PUT", edgeNetwork+"natGateways/ng1", `{"location":"eastus","properties":{"publicIpAddresses":[{"id":"`+edgePIP+`nat"}]}}`)
	w.forgetServers()
	a := w.do("DELETE", edgeGroup+"?api-version=2021-04-01", "")
	if a.code != 200 && a.code != 202 {
		t.Fatalf("%d %s", a.code, a.text)
	}
	deadline := time.Now().Add(2 * time.Minute)
	for len(w.keys(arm.DocumentPrefix)) > 0 {
		if time.Now().After(deadline) {
			t.Fatalf("left over: %v", w.keys(arm.DocumentPrefix))
		}
		time.Sleep(10 * time.Millisecond)
	}
	if left := w.keys("addresses/"); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

// The Azure SDK's own clients of private endpoints and zones.
func TestPrivateSDK(t *testing.T) {
	t.Parallel()
	w := newEdge(t)
	w.apiServer("private", true)
	ctx := t.Context()
	zones, err := armprivatedns.NewClientFactory(edgeSub, edgeAnyone{}, w.options())
	if err != nil {
		t.Fatal(err)
	}
	often := &runtime.PollUntilDoneOptions{Frequency: time.Millisecond}
	zone, err := zones.NewPrivateZonesClient().BeginCreateOrUpdate(ctx, "rg1", "corp.example", armprivatedns.PrivateZone{Location: ptr("global")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	made, err := zone.PollUntilDone(ctx, often)
	if err != nil || *made.Properties.NumberOfRecordSets != 1 {
		t.Fatalf("%+v, %v", made, err)
	}
	link, err := zones.NewVirtualNetworkLinksClient().BeginCreateOrUpdate(ctx, "rg1", "corp.example", "l1", armprivatedns.VirtualNetworkLink{Location: ptr("global"),
		Properties: &armprivatedns.VirtualNetworkLinkProperties{RegistrationEnabled: ptr(false), VirtualNetwork: &armprivatedns.SubResource{ID: ptr(edgeNetwork + "virtualNetworks/vnet1")}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if linked, err := link.PollUntilDone(ctx, often); err != nil || *linked.Properties.VirtualNetworkLinkState != armprivatedns.VirtualNetworkLinkStateCompleted {
		t.Errorf("%+v, %v", linked, err)
	}
	sets := zones.NewRecordSetsClient()
	set := armprivatedns.RecordSet{Properties: &armprivatedns.RecordSetProperties{TTL: ptr[int64](60), ARecords: []*armprivatedns.ARecord{{IPv4Address: ptr("10.0.0.9")}}}}
	if got, err := sets.CreateOrUpdate(ctx, "rg1", "corp.example", armprivatedns.RecordTypeA, "www", set, nil); err != nil || *got.Properties.Fqdn != "www.corp.example." {
		t.Errorf("%+v, %v", got, err)
	}
	page, err := sets.NewListPager("rg1", "corp.example", nil).NextPage(ctx)
	if err != nil || len(page.Value) != 2 {
		t.Errorf("%+v, %v", page, err)
	}
	client, err := armnetwork.NewPrivateEndpointsClient(edgeSub, edgeAnyone{}, w.options())
	if err != nil {
		t.Fatal(err)
	}
	poller, err := client.BeginCreateOrUpdate(ctx, "rg1", "pe1", armnetwork.PrivateEndpoint{Location: ptr("eastus"), Properties: &armnetwork.PrivateEndpointProperties{
		Subnet: &armnetwork.Subnet{ID: ptr(edgeSubnet)}, PrivateLinkServiceConnections: []*armnetwork.PrivateLinkServiceConnection{{Name: ptr("c"),
			Properties: &armnetwork.PrivateLinkServiceConnectionProperties{GroupIDs: []*string{ptr("management")},
				PrivateLinkServiceID: ptr(edgeGroup + "/providers/Microsoft.ContainerService/managedClusters/private")}}}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if endpoint, err := poller.PollUntilDone(ctx, often); err != nil || *endpoint.Properties.CustomDNSConfigs[0].IPAddresses[0] != "10.0.0.4" {
		t.Errorf("%+v, %v", endpoint, err)
	}
}
