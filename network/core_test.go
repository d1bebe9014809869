// SPDX-License-Identifier: Apache-2.0

package network

import (
	"fmt"
	"strings"
	"testing"

	"bastide.dev/arm"
	"bastide.dev/resource"
)

const (
	vnetA = edgeNetwork + "virtualNetworks/a"
	nsgG  = edgeNetwork + "networkSecurityGroups/g"
	rtT   = edgeNetwork + "routeTables/t"
	nicN  = edgeNetwork + "networkInterfaces/n"
)

func vnetBody(prefixes, subnets, more string) string {
	return fmt.Sprintf(`{"location":"eastus","properties":{"addressSpace":{"addressPrefixes":[%s]},"subnets":[%s]%s}}`, prefixes, subnets, more)
}

func subnetBody(name, prefix string) string {
	return fmt.Sprintf(`{"name":%q,"properties":{"addressPrefix":%q}}`, name, prefix)
}

func ruleJSON(name string, priority int, changes ...string) string {
	properties := `"access":"Allow","direction":"Inbound","protocol":"Tcp","sourceAddressPrefix":"*","sourcePortRange":"*","destinationAddressPrefix":"*","destinationPortRange":"80"`
	for i := 0; i+1 < len(changes); i += 2 {
		if !strings.Contains(properties, changes[i]) {
			panic("the rule has no " + changes[i])
		}
		properties = strings.Replace(properties, changes[i], changes[i+1], 1)
	}
	return fmt.Sprintf(`{"name":%q,"properties":{"priority":%d,%s}}`, name, priority, properties)
}

func groupBody(rules ...string) string {
	return `{"location":"eastus","properties":{"securityRules":[` + strings.Join(rules, ",") + `]}}`
}

func tableBody(routes string) string {
	return `{"location":"eastus","properties":{"routes":[` + routes + `]}}`
}

func routeBody(prefix, hop, address string) string {
	return fmt.Sprintf(`{"name":"r","properties":{"addressPrefix":%q,"nextHopType":%q,"nextHopIpAddress":%q}}`, prefix, hop, address)
}

func nicBody(subnet, more string) string {
	return `{"location":"eastus","properties":{"ipConfigurations":[{"name":"c","properties":{"subnet":{"id":"` + subnet + `"}` + more + `}}]}}`
}

func TestCoreRefusals(t *testing.T) {
	t.Parallel()
	w := newEdge(t)
	const ten = `"10.0.0.0/16"`
	for name, c := range map[string]struct {
		path, body string
		codes      []string
	}{
		"no space":             {vnetA, vnetBody(``, ``, ``), []string{"InvalidRequestFormat"}},
		"no prefix":            {vnetA, vnetBody(`"ten"`, ``, ``), []string{"InvalidAddressPrefixFormat"}},
		"host bits":            {vnetA, vnetBody(`"10.0.0.1/16"`, ``, ``), []string{"InvalidCIDRNotation"}},
		"IPv6":                 {vnetA, vnetBody(`"fd00::/64"`, ``, ``), []string{"PropertyNotSupported"}},
		"all there is":         {vnetA, vnetBody(`"0.0.0.0/0"`, ``, ``), []string{"InvalidAddressPrefixFormat"}},
		"link-local":           {vnetA, vnetBody(`"169.254.0.0/16"`, ``, ``), []string{"AddressPrefixNotAllowed"}},
		"the public pool":      {vnetA, vnetBody(`"192.88.99.0/24"`, ``, ``), []string{"AddressPrefixNotAllowed"}},
		"twice the same":       {vnetA, vnetBody(`"10.0.0.0/16","10.0.1.0/24"`, ``, ``), []string{"VnetAddressPrefixesOverlap"}},
		"another region":       {vnetA, strings.Replace(vnetBody(ten, ``, ``), "eastus", "westus", 1), []string{"LocationNotAvailableForResourceType"}},
		"bad name":             {edgeNetwork + "virtualNetworks/-a", vnetBody(ten, ``, ``), []string{"InvalidResourceName"}},
		"subnet outside":       {vnetA, vnetBody(ten, subnetBody("s", "10.1.0.0/24"), ``), []string{"NetcfgInvalidSubnet"}},
		"subnet too small":     {vnetA, vnetBody(ten, subnetBody("s", "10.0.0.0/30"), ``), []string{"NetcfgInvalidSubnet"}},
		"subnet too large":     {vnetA, vnetBody(ten, subnetBody("s", "10.0.0.0/15"), ``), []string{"NetcfgInvalidSubnet"}},
		"subnets overlap":      {vnetA, vnetBody(ten, subnetBody("s", "10.0.0.0/24")+","+subnetBody("u", "10.0.0.128/25"), ``), []string{"NetcfgSubnetRangesOverlap"}},
		"subnet of two ranges": {vnetA, vnetBody(ten, `{"name":"s","properties":{"addressPrefixes":["10.0.0.0/24","10.0.1.0/24"]}}`, ``), []string{"PropertyNotSupported"}},
		"all at once": {vnetA, vnetBody(`"10.0.0.1/16","ten"`, subnetBody("s", "x"), `,"ddosProtectionPlan":{"id":"x"},"bogus":1`),
			[]string{"InvalidCIDRNotation", "InvalidAddressPrefixFormat", "PropertyNotSupported", "InvalidParameter"}},
		"no such group":     {vnetA, vnetBody(ten, `{"name":"s","properties":{"addressPrefix":"10.0.0.0/24","networkSecurityGroup":{"id":"`+nsgG+`x"}}}`, ``), []string{"InvalidResourceReference"}},
		"group of a kind":   {vnetA, vnetBody(ten, `{"name":"s","properties":{"addressPrefix":"10.0.0.0/24","networkSecurityGroup":{"id":"`+rtT+`"}}}`, ``), []string{"LinkedInvalidPropertyId"}},
		"service endpoints": {vnetA, vnetBody(ten, `{"name":"s","properties":{"addressPrefix":"10.0.0.0/24","serviceEndpoints":[{"service":"Microsoft.Storage"}]}}`, ``), []string{"PropertyNotSupported"}},
		"own resolver":      {vnetA, vnetBody(ten, ``, `,"dhcpOptions":{"dnsServers":["10.0.0.10"]}`), []string{"PropertyNotSupported"}},
		"peer of nothing":   {vnetA + "/virtualNetworkPeerings/p", `{"properties":{"remoteVirtualNetwork":{"id":"` + vnetA + `x"}}}`, []string{"ParentResourceNotFound"}},

		"low priority":        {nsgG, groupBody(ruleJSON("r", 99)), []string{"SecurityRuleInvalidPriority"}},
		"high priority":       {nsgG, groupBody(ruleJSON("r", 4097)), []string{"SecurityRuleInvalidPriority"}},
		"same priority":       {nsgG, groupBody(ruleJSON("r", 100), ruleJSON("s", 100)), []string{"SecurityRuleConflict"}},
		"port of letters":     {nsgG, groupBody(ruleJSON("r", 100, `"80"`, `"http"`)), []string{"SecurityRuleInvalidPortRange"}},
		"port too high":       {nsgG, groupBody(ruleJSON("r", 100, `"80"`, `"65536"`)), []string{"SecurityRuleInvalidPortRange"}},
		"ports reversed":      {nsgG, groupBody(ruleJSON("r", 100, `"80"`, `"90-80"`)), []string{"SecurityRuleInvalidPortRange"}},
		"ports listed in one": {nsgG, groupBody(ruleJSON("r", 100, `"80"`, `"80,90"`)), []string{"SecurityRuleInvalidPortRange"}},
		"no address":          {nsgG, groupBody(ruleJSON("r", 100, `"sourceAddressPrefix":"*"`, `"sourceAddressPrefix":"10.0.0"`)), []string{"SecurityRuleInvalidAddressPrefix"}},
		"IPv6 address":        {nsgG, groupBody(ruleJSON("r", 100, `"sourceAddressPrefix":"*"`, `"sourceAddressPrefix":"fd00::/8"`)), []string{"PropertyNotSupported"}},
		"unknown tag":         {nsgG, groupBody(ruleJSON("r", 100, `"sourceAddressPrefix":"*"`, `"sourceAddressPrefix":"Intranet"`)), []string{"SecurityRuleInvalidAddressPrefix"}},
		"both forms":          {nsgG, groupBody(ruleJSON("r", 100, `"80"`, `"80","destinationPortRanges":["90"]`)), []string{"SecurityRuleParameterConflict"}},
		"neither form":        {nsgG, groupBody(ruleJSON("r", 100, `"destinationPortRange":"80"`, `"destinationPortRanges":[]`)), []string{"SecurityRuleParameterNotSpecified"}},
		"star in a list":      {nsgG, groupBody(ruleJSON("r", 100, `"sourceAddressPrefix":"*"`, `"sourceAddressPrefixes":["*","10.0.0.0/8"]`)), []string{"SecurityRuleParameterContainsUnsupportedValue"}},
		"no access":           {nsgG, groupBody(ruleJSON("r", 100, `"access":"Allow",`, ``)), []string{"SecurityRuleParameterNotSpecified"}},
		"a protocol of none":  {nsgG, groupBody(ruleJSON("r", 100, `"Tcp"`, `"Sctp"`)), []string{"SecurityRuleParameterContainsUnsupportedValue"}},
		"no such application group": {nsgG, groupBody(ruleJSON("r", 100, `"sourceAddressPrefix":"*"`, `"sourceApplicationSecurityGroups":[{"id":"`+edgeNetwork+`applicationSecurityGroups/no"}]`)),
			[]string{"InvalidResourceReference"}},

		"hop without address": {rtT, tableBody(routeBody("0.0.0.0/0", "VirtualAppliance", "")), []string{"NextHopIpAddressRequired"}},
		"address without hop": {rtT, tableBody(routeBody("0.0.0.0/0", "None", "10.0.0.4")), []string{"NextHopIpAddressNotAllowed"}},
		"hop to a gateway":    {rtT, tableBody(routeBody("0.0.0.0/0", "VirtualNetworkGateway", "")), []string{"PropertyNotSupported"}},
		"hop to anywhere":     {rtT, tableBody(routeBody("0.0.0.0/0", "Anywhere", "")), []string{"InvalidRequestFormat"}},
		"route of host bits":  {rtT, tableBody(routeBody("10.0.0.1/8", "None", "")), []string{"InvalidCIDRNotation"}},
		"route to a tag":      {rtT, tableBody(routeBody("AzureCloud", "Internet", "")), []string{"PropertyNotSupported"}},
		"two routes":          {rtT, tableBody(routeBody("0.0.0.0/0", "None", "") + "," + strings.Replace(routeBody("0.0.0.0/0", "Internet", ""), `"r"`, `"s"`, 1)), []string{"RouteConflict"}},

		"no such subnet":       {nicN, nicBody(edgeSubnet+"x", ``), []string{"InvalidResourceReference"}},
		"reserved address":     {nicN, nicBody(edgeSubnet, `,"privateIPAllocationMethod":"Static","privateIPAddress":"10.0.0.3"`), []string{"PrivateIPAddressInReservedRange"}},
		"address elsewhere":    {nicN, nicBody(edgeSubnet, `,"privateIPAllocationMethod":"Static","privateIPAddress":"10.9.0.9"`), []string{"PrivateIPAddressNotInSubnet"}},
		"static without":       {nicN, nicBody(edgeSubnet, `,"privateIPAllocationMethod":"Static"`), []string{"PrivateIPAddressMissing"}},
		"two configurations":   {nicN, `{"location":"eastus","properties":{"ipConfigurations":[{"name":"a"},{"name":"b"}]}}`, []string{"PropertyNotSupported"}},
		"no such pool":         {nicN, nicBody(edgeSubnet, `,"loadBalancerBackendAddressPools":[{"id":"`+edgeNetwork+`loadBalancers/no/backendAddressPools/p"}]`), []string{"InvalidResourceReference"}},
		"own resolver of it":   {nicN, strings.Replace(nicBody(edgeSubnet, ``), `"properties":{`, `"properties":{"dnsSettings":{"dnsServers":["1.1.1.1"]},`, 1), []string{"PropertyNotSupported"}},
		"nothing to delete in": {nsgG + "/securityRules/r", ruleJSON("r", 100), []string{"ParentResourceNotFound"}},
	} {
		t.Run(name, func(t *testing.T) {
			(&edgeWorld{t: t, store: w.store, p: w.p, server: w.server}).refuses("PUT", c.path, c.body, c.codes...)
		})
	}
}

func TestManyRules(t *testing.T) {
	t.Parallel()
	w := newEdge(t)
	rules := make([]string, 0, maxRules+1)
	for i := range maxRules + 1 {
		rules = append(rules, ruleJSON(fmt.Sprintf("r%d", i), 100+i))
	}
	w.refuses("PUT", nsgG, groupBody(rules...), "SecurityRuleCountLimitReached")
	w.must("PUT", nsgG, groupBody(rules[:maxRules]...))
	w.refuses("PUT", nsgG+"/securityRules/more", ruleJSON("more", 4000), "SecurityRuleCountLimitReached")
	if got := w.must("PUT", nsgG+"/securityRules/R7", ruleJSON("r7", 4000)); got.get("properties", "priority") != 4000.0 || got.get("name") != "r7" {
		t.Errorf("a rule changed: %s", got.text)
	}
}

// What is in use isn't deleted, and goes when it isn't.
func TestCoreDependencies(t *testing.T) {
	t.Parallel()
	w := newEdge(t)
	w.must("PUT", nsgG, groupBody())
	w.must("PUT", rtT, tableBody(""))
	asg := edgeNetwork + "applicationSecurityGroups/web"
	w.must("PUT", asg, `{"location":"eastus"}`)
	subnet := `{"name":"s","properties":{"addressPrefix":"10.0.0.0/24","networkSecurityGroup":{"id":"` + nsgG + `"},"routeTable":{"id":"` + rtT + `"}}}`
	w.must("PUT", vnetA, vnetBody(`"10.0.0.0/16"`, subnet, ``))
	w.must("PUT", nicN, nicBody(vnetA+"/subnets/S", `,"applicationSecurityGroups":[{"id":"`+asg+`"}],"privateIPAllocationMethod":"Static","privateIPAddress":"10.0.0.10"`))
	w.refuses("PUT", nicN+"2", nicBody(vnetA+"/subnets/s", `,"privateIPAllocationMethod":"Static","privateIPAddress":"10.0.0.10"`), "PrivateIPAddressIsAllocated")
	w.refuses("PUT", nicN, nicBody(edgeSubnet, ``), "SubnetsNotInSameVnet")
	w.refuses("DELETE", nsgG, "", "InUseNetworkSecurityGroupCannotBeDeleted")
	w.refuses("DELETE", rtT, "", "InUseRouteTableCannotBeDeleted")
	w.refuses("DELETE", asg, "", "InUseApplicationSecurityGroupCannotBeDeleted")
	w.refuses("DELETE", vnetA, "", "InUseSubnetCannotBeDeleted")
	w.refuses("DELETE", vnetA+"/subnets/s", "", "InUseSubnetCannotBeDeleted")
	w.refuses("PUT", vnetA, vnetBody(`"10.0.0.0/16"`, strings.Replace(subnet, "/24", "/25", 1), ``), "InUsePrefixCannotBeDeleted")
	if got := w.must("PUT", vnetA, `{"location":"eastus","properties":{"addressSpace":{"addressPrefixes":["10.0.0.0/16","10.9.0.0/16"]}}}`); got.get("properties", "subnets", "name") != "s" {
		t.Errorf("a network without a list of subnets: %s", got.text)
	}
	w.must("DELETE", nicN, "")
	w.must("PUT", vnetA+"/subnets/s", strings.Replace(subnet, "/24", "/25", 1))
	w.must("DELETE", vnetA+"/subnets/s", "")
	w.must("DELETE", asg, "")
	w.must("DELETE", nsgG, "")
	w.must("DELETE", rtT, "")
	w.must("DELETE", vnetA, "")
}

func TestPeeringRefusals(t *testing.T) {
	t.Parallel()
	w := newEdge(t)
	id := func(name string) string { return edgeNetwork + "virtualNetworks/" + name }
	to := func(name string) string { return `{"properties":{"remoteVirtualNetwork":{"id":"` + id(name) + `"}}}` }
	for name, prefix := range map[string]string{"hub": "10.1.0.0/16", "same": "10.1.128.0/17", "spoke": "10.2.0.0/16", "spoke2": "10.2.0.0/17"} {
		w.must("PUT", id(name), vnetBody(`"`+prefix+`"`, ``, ``))
	}
	peering := id("hub") + "/virtualNetworkPeerings/p"
	w.refuses("PUT", peering, to("hub"), "VnetCannotPeerWithItself")
	w.refuses("PUT", peering, to("nowhere"), "InvalidResourceReference")
	w.refuses("PUT", peering, to("same"), "VnetAddressSpacesOverlap")
	w.refuses("PUT", peering, strings.Replace(to("spoke"), `"properties":{`, `"properties":{"useRemoteGateways":true,`, 1), "PropertyNotSupported")
	w.must("PUT", peering, to("spoke"))
	w.refuses("PUT", peering+"2", to("spoke2"), "VnetAddressSpaceOverlapsWithAlreadyPeeredVnet")
	w.refuses("PUT", peering+"2", to("SPOKE"), "AnotherPeeringAlreadyReferencesRemoteVnet")
	w.refuses("PUT", id("hub"), `{"location":"eastus","properties":{"addressSpace":{"addressPrefixes":["10.1.0.0/16","10.2.0.0/24"]}}}`, "VnetAddressSpacesOverlap")
	if got := w.must("GET", peering, ""); got.get("properties", "peeringState") != "Initiated" {
		t.Errorf("peering: %s", got.text)
	}
}

// A write that changes nothing is no operation; one of a rule is.
func TestWhatIsAnOperation(t *testing.T) {
	t.Parallel()
	w := newEdge(t)
	operations := func() int { return len(w.keys(arm.OperationPrefix)) }
	w.must("PUT", nsgG, groupBody(ruleJSON("r", 100)))
	before := operations()
	got := w.must("GET", nsgG, "")
	w.must("PUT", nsgG, got.text)
	w.must("PATCH", nsgG, `{"tags":{"a":"b"}}`)
	w.must("PUT", nsgG+"/securityRules/r", ruleJSON("r", 100, `"Tcp"`, `"TCP"`))
	if operations() != before {
		t.Errorf("%d operations for nothing", operations()-before)
	}
	w.must("PUT", nsgG+"/securityRules/r", ruleJSON("r", 100, `"80"`, `"81"`))
	if operations() != before+1 {
		t.Errorf("%d operations for a change", operations()-before)
	}
}

func TestReferences(t *testing.T) {
	t.Parallel()
	w := newEdge(t)
	w.must("PUT", nicN, nicBody(edgeSubnet, ``))
	w.document(edgeGroup+"/providers/Microsoft.ContainerService/managedClusters/c", `{"properties":{"agentPoolProfiles":[{"vnetSubnetID":"`+strings.ToUpper(edgeSubnet)+`"}]}}`, nil)
	w.document(edgeGroup+"/providers/Microsoft.Compute/virtualMachineScaleSets/s/virtualMachines/0", `{}`, map[string]string{"subnet": edgeSubnet})
	w.apiServer("k", false)
	for id, want := range map[string]int{edgeSubnet: 4, edgeNetwork + "virtualNetworks/vnet1": 4, edgeSubnet + "x": 0, edgeSubnet[:len(edgeSubnet)-1]: 0, nicN: 0} {
		got, err := w.p.references(t.Context(), resource.MustParseID(id))
		if err != nil || len(got) != want {
			t.Errorf("%s is named by %v, %v", id, got, err)
		}
	}
}

// What a client read it may send back, as a whole, and nothing happens.
func TestRoundTrips(t *testing.T) {
	t.Parallel()
	w := newEdge(t)
	w.must("PUT", nsgG, groupBody())
	w.must("PUT", rtT, tableBody(routeBody("0.0.0.0/0", "virtualappliance", "10.0.0.4")))
	w.must("PUT", vnetA+"b", vnetBody(`"10.1.0.0/16"`, ``, ``))
	delegated := `{"name":"api","properties":{"addressPrefixes":["10.0.1.0/24"],"delegations":[{"name":"aks","properties":{"serviceName":"Microsoft.ContainerService/managedClusters"}}]}}`
	w.must("PUT", vnetA, vnetBody(`"10.0.0.0/16"`, `{"name":"s","properties":{"addressPrefix":"10.0.0.0/24","networkSecurityGroup":{"id":"`+nsgG+`"},"routeTable":{"id":"`+rtT+`"}}},`+delegated, ``))
	w.must("PUT", vnetA+"/virtualNetworkPeerings/p", `{"properties":{"remoteVirtualNetwork":{"id":"`+vnetA+`b"}}}`)
	w.must("PUT", nicN, nicBody(vnetA+"/subnets/s", ``))
	w.refuses("PUT", nicN+"2", nicBody(vnetA+"/subnets/api", ``), "SubnetWithDelegationsCannotBeUsed")
	before := len(w.keys(arm.OperationPrefix))
	for _, id := range []string{vnetA, vnetA + "/subnets/s", vnetA + "/subnets/api", vnetA + "/virtualNetworkPeerings/p", nsgG, rtT, rtT + "/routes/r", nicN} {
		w.must("PUT", id, w.must("GET", id, "").text)
	}
	if after := len(w.keys(arm.OperationPrefix)); after != before {
		t.Errorf("%d operations for nothing", after-before)
	}
}
