// SPDX-License-Identifier: Apache-2.0

package network

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"bastide.dev/arm"
)

// The page for users says what the tables say (go test -update writes it anew),
// about every type that takes requests.
func TestPropertiesPage(t *testing.T) {
	var b strings.Builder
	b.WriteString("# Properties of networks\n\n" +
		"What becomes of each property in a request: it is *effective*, *plain* (kept and given back), *read-only* (ours to say),\n" +
		"*fixed* (only the values that say what is so anyway), or *refused* by name unless it is off or empty. A property that isn't\n" +
		"here is refused; what is said of an object holds for all in it. This page is generated from the tables in `network`.\n")
	paged := map[string]bool{}
	for _, c := range []struct {
		title string
		rows  []arm.Property
	}{
		{"virtualNetworks", vnetRows()}, {"virtualNetworks/subnets", subnetRows()}, {"virtualNetworks/virtualNetworkPeerings", peeringRows()},
		{"networkSecurityGroups", groupRows()}, {"networkSecurityGroups/securityRules", ruleRows()},
		{"applicationSecurityGroups", applicationGroupRows()},
		{"routeTables", tableRows()}, {"routeTables/routes", routeRows()},
		{"networkInterfaces", interfaceRows()},
		{"networkWatchers", watcherRows()}, {"networkWatchers/flowLogs", flowLogRows()},
		{"loadBalancers", balancerProperties()},
		{"publicIPAddresses", publicIPProperties()}, {"publicIPPrefixes", publicPrefixProperties()},
		{"natGateways", natGatewayProperties()},
		{"privateEndpoints", privateEndpointProperties()}, {"privateEndpoints/privateDnsZoneGroups", zoneGroupProperties()},
		{"privateDnsZones", zoneProperties()}, {"privateDnsZones/virtualNetworkLinks", zoneLinkProperties()},
		{"privateDnsZones/A", recordSetProperties("aRecords")}, {"privateDnsZones/CNAME", recordSetProperties("cnameRecord")},
	} {
		paged[c.title] = true
		fmt.Fprintf(&b, "\n## %s\n\n| property | treatment | note |\n|---|---|---|\n", c.title)
		for _, row := range c.rows {
			treatment := string(row.Treatment)
			for _, v := range row.Values {
				treatment += fmt.Sprintf(" `%v`", v)
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", row.Path, treatment, row.Note)
		}
	}
	b.WriteString("\n## Refused as a whole\n\n")
	for _, typ := range []string{"privateDnsZones/AAAA", "privateDnsZones/MX", "privateDnsZones/PTR", "privateDnsZones/SRV", "privateDnsZones/TXT", "privateLinkServices"} {
		paged[typ] = true
		fmt.Fprintf(&b, "- `%s`\n", typ)
	}
	for _, typ := range (&Provider{}).ARM()[0].Types {
		// The parts of a load balancer are judged with it.
		if (typ.Put != nil || typ.Embedded != "") && !paged[typ.Name] && !strings.HasPrefix(typ.Name, "loadBalancers/") {
			t.Errorf("the page says nothing of %s", typ.Name)
		}
	}
	const page = "../docs/properties-network.md"
	if *update {
		if err := os.WriteFile(page, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if have, err := os.ReadFile(page); err != nil || string(have) != b.String() {
		t.Errorf("%s isn't what the tables say; -update writes it anew (%v)", page, err)
	}
}
