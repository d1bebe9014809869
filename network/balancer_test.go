// SPDX-License-Identifier: Apache-2.0

package network

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

const (
	edgeLB       = edgeNetwork + "loadBalancers/kubernetes"
	edgeInternal = edgeNetwork + "loadBalancers/kubernetes-internal"
	edgeScaleSet = edgeGroup + "/providers/Microsoft.Compute/virtualMachineScaleSets/aks-np1-1-vmss"
)

// kubernetesLB is what cloud-provider-azure sends for its first public Service:
// the outbound front end and rule are the cluster's, the public address is named by its id alone.
func kubernetesLB(extra string) string {
	ids := func(list, name string) string { return fmt.Sprintf(`{"id":"%s/%s/%s"}`, edgeLB, list, name) }
	return `{"location":"eastus","name":"kubernetes","sku":{"name":"Standard"},"tags":{"aks-managed-cluster-name":"c1"},"properties":{
	"frontendIPConfigurations":[
		{"name":"out","properties":{"publicIPAddress":{"id":"` + edgePIP + `out"}}},
		{"name":"a1","id":"` + edgeLB + `/frontendIPConfigurations/a1","properties":{"publicIPAddress":{"id":"` + edgePIP + `a1","properties":{"ipAddress":"1.2.3.4"}}}}],
	"backendAddressPools":[{"name":"kubernetes"},{"name":"aksOutboundBackendPool"}],
	"loadBalancingRules":[{"name":"a1-TCP-80","properties":{"protocol":"Tcp","frontendPort":80,"backendPort":80,"disableOutboundSnat":true,"enableFloatingIP":true,
		"loadDistribution":"Default","frontendIPConfiguration":` + ids("frontendIPConfigurations", "a1") + `,"backendAddressPool":` + ids("backendAddressPools", "kubernetes") + `,
		"probe":` + ids("probes", "a1-TCP-80") + `,"idleTimeoutInMinutes":4,"enableTcpReset":true}}],
	"probes":[{"name":"a1-TCP-80","properties":{"protocol":"Tcp","port":31234,"intervalInSeconds":5,"probeThreshold":2}}],
	"outboundRules":[{"name":"aksOutboundRule","properties":{"protocol":"All","allocatedOutboundPorts":8000,"enableTcpReset":true,"idleTimeoutInMinutes":30,
		"frontendIPConfigurations":[` + ids("frontendIPConfigurations", "out") + `],"backendAddressPool":` + ids("backendAddressPools", "aksOutboundBackendPool") + `}}]` + extra + `}}`
}

// instance is a scale set's instance in back-end pools.
func (w *edgeWorld) instance(n int, pools ...string) {
	refs := make([]string, len(pools))
	for i, pool := range pools {
		refs[i] = fmt.Sprintf(`{"id":"%s"}`, pool)
	}
	w.document(fmt.Sprintf("%s/virtualMachines/%d", edgeScaleSet, n), `{"properties":{"networkProfileConfiguration":{"networkInterfaceConfigurations":[{"name":"nic","properties":{
		"primary":true,"ipConfigurations":[{"name":"ipconfig1","properties":{"subnet":{"id":"`+edgeSubnet+`"},"loadBalancerBackendAddressPools":[`+strings.Join(refs, ",")+`]}}]}}]}}}`,
		InterfaceState{Machine: fmt.Sprint("m", n)})
}

func TestBalancerOfCloudProvider(t *testing.T) {
	t.Parallel()
	w := newEdge(t)
	w.must("PUT", edgePIP+"out", pip(""))
	w.must("PUT", edgePIP+"a1", pip(""))
	w.must("PUT", edgeLB, kubernetesLB(""))
	w.instance(0, edgeLB+"/backendAddressPools/kubernetes", edgeLB+"/backendAddressPools/aksOutboundBackendPool")
	read := w.must("GET", edgeLB+edgeVersion+"&$expand=x", "")
	rule := edgeLB + "/loadBalancingRules/a1-TCP-80"
	for _, c := range []struct {
		want any
		path []string
	}{
		{"192.88.99.2", nil},
		{rule, []string{"properties", "probes", "properties", "loadBalancingRules", "id"}},
		{rule, []string{"properties", "backendAddressPools", "properties", "loadBalancingRules", "id"}},
		{edgeLB + "/outboundRules/aksOutboundRule", []string{"properties", "frontendIPConfigurations", "properties", "outboundRules", "id"}},
		{edgeScaleSet + "/virtualMachines/0/networkInterfaces/nic/ipConfigurations/ipconfig1", []string{"properties", "backendAddressPools", "properties", "backendIPConfigurations", "id"}},
		{edgeLB + "/backendAddressPools/kubernetes", []string{"properties", "loadBalancingRules", "properties", "backendAddressPools", "id"}},
		{"Microsoft.Network/loadBalancers/probes", []string{"properties", "probes", "type"}},
		{"Succeeded", []string{"properties", "probes", "properties", "provisioningState"}},
	} {
		if got := read.get(c.path...); c.path != nil && got != c.want {
			t.Errorf("%v is %v, want %v", c.path, got, c.want)
		}
	}
	if got := w.must("GET", edgePIP+"a1", "").get("properties", "ipConfiguration", "id"); got != edgeLB+"/frontendIPConfigurations/a1" {
		t.Errorf("the address is %v's", got)
	}
	// What was read goes back under its etag, and nothing changes: not the view, and no operation is started.
	operations := len(w.keys("operations/"))
	w.must("PUT", edgeLB, read.text, "If-Match", read.get("etag").(string))
	if got := len(w.keys("operations/")); got != operations {
		t.Errorf("a write that changes nothing made %d operations", got-operations)
	}
	after := w.must("GET", edgeLB, "")
	if a, b := withoutEtags(read.text), withoutEtags(after.text); !reflect.DeepEqual(a, b) {
		t.Errorf("GET, PUT, GET:\n%v\n%v", a, b)
	}
	w.refuses("DELETE", edgePIP+"a1", "", "PublicIPAddressCannotBeDeleted")
	w.refuses("DELETE", edgeLB, "", "LoadBalancerInUseByVirtualMachineScaleSet")
	w.instance(0)
	w.must("DELETE", edgeLB, "")
	w.must("DELETE", edgePIP+"a1", "")
}

// withoutEtags is a body without what each write changes.
func withoutEtags(text string) any {
	var body any
	if err := json.Unmarshal([]byte(text), &body); err != nil {
		return err
	}
	var strip func(any)
	strip = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			delete(v, "etag")
			for _, member := range v {
				strip(member)
			}
		case []any:
			for _, member := range v {
				strip(member)
			}
		}
	}
	strip(body)
	return body
}

// parts of load balancers for the tables below.
func ref(balancer, list, name string) string {
	return fmt.Sprintf(`{"id":"%s/%s/%s"}`, balancer, list, name)
}

func lbRule(name, protocol string, port, back int, more string) string {
	return fmt.Sprintf(`{"name":"%s","properties":{"protocol":"%s","frontendPort":%d,"backendPort":%d,"frontendIPConfiguration":%s,"backendAddressPool":%s%s}}`,
		name, protocol, port, back, ref(edgeLB, "frontendIPConfigurations", "f1"), ref(edgeLB, "backendAddressPools", "b1"), more)
}

func lbBody(lists ...string) string {
	all := append([]string{`"backendAddressPools":[{"name":"b1"}]`}, lists...)
	if !strings.HasPrefix(strings.Join(lists, ""), `"frontendIPConfigurations":[`) {
		all = append(all, `"frontendIPConfigurations":[{"name":"f1","properties":{"publicIPAddress":{"id":"`+edgePIP+`p1"}}}]`)
	}
	return `{"location":"eastus","sku":{"name":"Standard"},"properties":{` + strings.Join(all, ",") + `}}`
}

func TestBalancerRefusals(t *testing.T) {
	t.Parallel()
	w := newEdge(t)
	for _, name := range []string{"p1", "p2", "other"} {
		w.must("PUT", edgePIP+name, pip(""))
	}
	w.must("PUT", edgeNetwork+"loadBalancers/other", strings.ReplaceAll(lbBody(), "p1", "other"))
	for i := range 10 {
		w.instance(i, edgeLB+"/backendAddressPools/b1")
	}
	rules := func(all ...string) string {
		return lbBody(`"loadBalancingRules":[` + strings.Join(all, ",") + `]`)
	}
	probe := func(text string) string { return lbBody(`"probes":[{"name":"pr","properties":{` + text + `}}]`) }
	outbound := func(text string) string {
		return lbBody(`"outboundRules":[{"name":"o1","properties":{"protocol":"All","backendAddressPool":` + ref(edgeLB, "backendAddressPools", "b1") +
			`,"frontendIPConfigurations":[` + ref(edgeLB, "frontendIPConfigurations", "f1") + `]` + text + `}}]`)
	}
	frontend := func(text string) string {
		return lbBody(`"frontendIPConfigurations":[` + text + `]`)
	}
	subnet := `"subnet":{"id":"` + edgeSubnet + `"}`
	for _, c := range []struct{ what, body, code string }{
		{"the Basic SKU", strings.Replace(lbBody(), "Standard", "Basic", 1), "PropertyNotSupported"},
		{"another region", strings.Replace(lbBody(), "eastus", "westus", 1), "LocationNotAvailableForResourceType"},
		{"one front-end port twice", rules(lbRule("r1", "Tcp", 80, 80, ""), lbRule("r2", "Tcp", 80, 81, "")), "RulesUseSameFrontendPortProtocolAndIPConfig"},
		{"one back-end port twice", rules(lbRule("r1", "Tcp", 80, 80, ""), lbRule("r2", "Tcp", 81, 80, "")), "RulesUseSameBackendPortProtocolAndPool"},
		{"one floating port twice", rules(lbRule("r1", "Tcp", 80, 80, `,"enableFloatingIP":true`), lbRule("r2", "Tcp", 80, 80, `,"enableFloatingIP":true`)), "RulesUseSameBackendPortProtocolAndPoolAndFrontendIPWithFloatingIPEnabled"},
		{"floating to another port", rules(lbRule("r1", "Tcp", 80, 8080, `,"enableFloatingIP":true`)), "FloatingIPRequiresSameFrontendAndBackendPort"},
		{"HA ports in public", rules(lbRule("r1", "All", 0, 0, "")), "LoadBalancingRuleHAPortsRequireInternalFrontend"},
		{"HA ports with a port", rules(lbRule("r1", "All", 80, 0, "")), "LoadBalancingRuleProtocolAllMustHavePortZero"},
		{"a port out of range", rules(lbRule("r1", "Tcp", 65535, 80, "")), "LoadBalancingRuleInvalidFrontendPort"},
		{"an idle timeout out of range", rules(lbRule("r1", "Tcp", 80, 80, `,"idleTimeoutInMinutes":101`)), "LoadBalancingRuleInvalidIdleTimeout"},
		{"a protocol that isn't there", rules(lbRule("r1", "Sctp", 80, 80, "")), "InvalidRequestFormat"},
		{"no probe of the name", rules(lbRule("r1", "Tcp", 80, 80, `,"probe":`+ref(edgeLB, "probes", "none"))), "InvalidResourceReference"},
		{"two rules of a name", rules(lbRule("r1", "Tcp", 80, 80, ""), lbRule("R1", "Tcp", 81, 81, "")), "DuplicateResourceName"},
		{"a short probe interval", probe(`"protocol":"Tcp","port":80,"intervalInSeconds":4`), "ProbeInvalidInterval"},
		{"an HTTP probe without path", probe(`"protocol":"Http","port":80`), "ProbeRequestPathRequired"},
		{"a TCP probe with path", probe(`"protocol":"Tcp","port":80,"requestPath":"/"`), "ProbeRequestPathNotAllowed"},
		{"a probe without port", probe(`"protocol":"Tcp"`), "ProbeInvalidPort"},
		{"probes that are ignored", probe(`"protocol":"Tcp","port":80,"noHealthyBackendsBehavior":"AllProbedUp"`), "PropertyNotSupported"},
		{"ports not by eight", outbound(`,"allocatedOutboundPorts":1001`), "SpecifiedAllocatedOutboundPortsForOutboundRuleIsNotAMultipleOfEight"},
		{"ports of more than there are", outbound(`,"allocatedOutboundPorts":64008`), "SpecifiedAllocatedOutboundPortsForOutboundRuleExceedsTotalNumberOfAllowedPortsPerRule"},
		{"ports for ten of 64000", outbound(`,"allocatedOutboundPorts":6408`), "SpecifiedAllocatedOutboundPortsForOutboundRuleExceedsTotalNumberOfAvailablePorts"},
		{"an outbound rule for TCP", strings.Replace(outbound(""), "All", "Tcp", 1), "PropertyNotSupported"},
		{"SNAT twice", strings.Replace(outbound(""), `"outboundRules"`, `"loadBalancingRules":[`+lbRule("r1", "Tcp", 80, 80, "")+`],"outboundRules"`, 1),
			"LoadBalancingRuleMustDisableSNATSinceSameFrontendIPConfigurationIsReferencedByOutboundRule"},
		{"another's address", strings.ReplaceAll(lbBody(), "p1", "other"), "PublicIPAddressInUse"},
		{"one address twice", frontend(`{"name":"f1","properties":{"publicIPAddress":{"id":"` + edgePIP + `p1"}}},{"name":"f2","properties":{"publicIPAddress":{"id":"` + edgePIP + `p1"}}}`), "PublicIPAddressInUse"},
		{"no such address", strings.ReplaceAll(lbBody(), "p1", "none"), "InvalidResourceReference"},
		{"a front end of nothing", frontend(`{"name":"f1","properties":{}}`), "FrontendIPConfigurationMustHaveSubnetOrPublicIPAddress"},
		{"front ends of two kinds", frontend(`{"name":"f1","properties":{"publicIPAddress":{"id":"` + edgePIP + `p1"}}},{"name":"f2","properties":{` + subnet + `}}`), "LoadBalancerFrontendIPConfigurationsOfDifferentTypes"},
		{"zones", frontend(`{"name":"f1","zones":["1"],"properties":{` + subnet + `}}`), "PropertyNotSupported"},
		{"an address of another subnet", frontend(`{"name":"f1","properties":{"privateIPAllocationMethod":"Static","privateIPAddress":"10.0.9.9",` + subnet + `}}`), "PrivateIPAddressNotInSubnet"},
		{"no static address", frontend(`{"name":"f1","properties":{"privateIPAllocationMethod":"Static",` + subnet + `}}`), "InvalidIPAddress"},
		{"no such subnet", frontend(`{"name":"f1","properties":{"subnet":{"id":"` + edgeSubnet + `x"}}}`), "InvalidResourceReference"},
		{"a pool of addresses without network", strings.Replace(lbBody(), `{"name":"b1"}`, `{"name":"b1","properties":{"loadBalancerBackendAddresses":[{"name":"a","properties":{"ipAddress":"10.0.0.9"}}]}}`, 1), "BackendAddressMustHaveVirtualNetwork"},
		{"NAT over ranges", lbBody(`"inboundNatRules":[{"name":"n1","properties":{"protocol":"Tcp","frontendPortRangeStart":500,"frontendPortRangeEnd":600,"backendPort":22,"frontendIPConfiguration":` + ref(edgeLB, "frontendIPConfigurations", "f1") + `}}]`), "PropertyNotSupported"},
		{"NAT where a rule listens", strings.Replace(rules(lbRule("r1", "Tcp", 22, 22, "")), `"loadBalancingRules"`, `"inboundNatRules":[{"name":"n1","properties":{"protocol":"Tcp","frontendPort":22,"backendPort":22,"frontendIPConfiguration":`+
			ref(edgeLB, "frontendIPConfigurations", "f1")+`}}],"loadBalancingRules"`, 1), "RulesUseSameFrontendPortProtocolAndIPConfig"},
	} {
		t.Run(c.what, func(t *testing.T) {
			one := *w
			one.t = t
			one.refuses("PUT", edgeLB, c.body, c.code)
		})
	}
	w.must("PUT", edgeLB, outbound(`,"allocatedOutboundPorts":6400`)) // ten of 64,000 are
	w.refuses("PUT", edgeLB, strings.ReplaceAll(lbBody(), `"b1"`, `"b2"`), "LoadBalancerInUseByVirtualMachineScaleSet")
}

// prefixLB is a load balancer whose way out is a whole public prefix.
func prefixLB(prefix string, ports int) string {
	return fmt.Sprintf(`{"location":"eastus","properties":{"frontendIPConfigurations":[{"name":"f1","properties":{"publicIPPrefix":{"id":"%s"}}}],"backendAddressPools":[{"name":"b1"}],
	"outboundRules":[{"name":"o1","properties":{"protocol":"All","allocatedOutboundPorts":%d,"backendAddressPool":%s,"frontendIPConfigurations":[%s]}}]}}`,
		edgePrefixID(prefix), ports, ref(edgeLB, "backendAddressPools", "b1"), ref(edgeLB, "frontendIPConfigurations", "f1"))
}

func TestBalancerOfPrefix(t *testing.T) {
	t.Parallel()
	w := newEdge(t)
	w.must("PUT", edgePrefixID("block"), `{"location":"eastus","properties":{"prefixLength":31}}`)
	for i := range 4 {
		w.instance(i, edgeLB+"/backendAddressPools/b1")
	}
	w.refuses("PUT", edgeLB, prefixLB("block", 32008), "SpecifiedAllocatedOutboundPortsForOutboundRuleExceedsTotalNumberOfAvailablePorts")
	w.must("PUT", edgeLB, prefixLB("block", 32000)) // two addresses for four
	if got := w.must("GET", edgePrefixID("block"), "").get("properties", "loadBalancerFrontendIpConfiguration", "id"); got != edgeLB+"/frontendIPConfigurations/f1" {
		t.Errorf("the prefix is %v's", got)
	}
	w.refuses("PUT", edgePIP+"p1", pip(`,"publicIPPrefix":{"id":"`+edgePrefixID("block")+`"}`), "PublicIPPrefixInUse")
	w.refuses("PUT", edgeLB+"/loadBalancingRules/r1", `{"properties":{"protocol":"Tcp","frontendPort":80,"backendPort":80,"disableOutboundSnat":true,"frontendIPConfiguration":`+
		ref(edgeLB, "frontendIPConfigurations", "f1")+`}}`, "PublicIPPrefixFrontendIsForOutboundRules")
	w.refuses("DELETE", edgePrefixID("block"), "", "PublicIpPrefixCannotBeDeleted")
}

func TestInternalBalancer(t *testing.T) {
	t.Parallel()
	w := newEdge(t)
	body := func(more string) string {
		return `{"location":"eastus","sku":{"name":"Standard"},"properties":{"frontendIPConfigurations":[{"name":"f1","properties":{"privateIPAllocationMethod":"Dynamic","subnet":{"id":"` + edgeSubnet + `"}}}` + more + `],
		"backendAddressPools":[{"name":"b1"}],"loadBalancingRules":[{"name":"ha","properties":{"protocol":"All","frontendPort":0,"backendPort":0,"enableFloatingIP":true,
		"frontendIPConfiguration":` + ref(edgeInternal, "frontendIPConfigurations", "f1") + `,"backendAddressPool":` + ref(edgeInternal, "backendAddressPools", "b1") + `}}]}}`
	}
	a := w.must("PUT", edgeInternal, body(""))
	if got := a.get("properties", "frontendIPConfigurations", "properties", "privateIPAddress"); got != "10.0.0.4" {
		t.Errorf("dynamic address %v", got)
	}
	// A second front end doesn't move the first, and a static address that is taken is refused.
	static := `,{"name":"f2","properties":{"privateIPAllocationMethod":"Static","privateIPAddress":"10.0.0.%d","subnet":{"id":"` + edgeSubnet + `"}}}`
	a = w.must("PUT", edgeInternal, body(fmt.Sprintf(static, 50)))
	if got := a.get("properties", "frontendIPConfigurations", "properties", "privateIPAddress"); got != "10.0.0.4" {
		t.Errorf("after a second one: %v", got)
	}
	other := strings.ReplaceAll(body(fmt.Sprintf(static, 50)), "kubernetes-internal", "second")
	w.refuses("PUT", edgeNetwork+"loadBalancers/second", other, "PrivateIPAddressIsAllocated")
	w.must("DELETE", edgeInternal, "")
	a = w.must("PUT", edgeNetwork+"loadBalancers/second", other)
	if got := a.get("properties", "frontendIPConfigurations", "properties", "privateIPAddress"); got != "10.0.0.4" {
		t.Errorf("after the first is gone: %v", got)
	}
}

// Parts of a load balancer are resources, too.
func TestBalancerParts(t *testing.T) {
	t.Parallel()
	w := newEdge(t)
	w.must("PUT", edgePIP+"p1", pip(""))
	w.must("PUT", edgeLB, lbBody())
	pool := w.must("PUT", edgeLB+"/backendAddressPools/ips", `{"Properties":{"VirtualNetwork":{"id":"`+edgeNetwork+`virtualNetworks/vnet1"},
		"loadBalancerBackendAddresses":[{"name":"one","properties":{"ipAddress":"10.0.0.9"}}]}}`)
	if pool.get("id") != edgeLB+"/backendAddressPools/ips" || pool.get("properties", "loadBalancerBackendAddresses", "properties", "ipAddress") != "10.0.0.9" {
		t.Errorf("pool %s", pool.text)
	}
	w.must("PUT", edgeLB+"/inboundNatRules/ssh", `{"properties":{"protocol":"Tcp","frontendPort":50022,"backendPort":22,"frontendIPConfiguration":`+ref(edgeLB, "frontendIPConfigurations", "f1")+`}}`)
	w.document(edgeNetwork+"networkInterfaces/nic1", `{"properties":{"ipConfigurations":[{"name":"c1","properties":{"privateIPAddress":"10.0.0.7","subnet":{"id":"`+edgeSubnet+`"},
		"loadBalancerInboundNatRules":[{"id":"`+edgeLB+`/inboundNatRules/ssh"}],"loadBalancerBackendAddressPools":[{"id":"`+edgeLB+`/backendAddressPools/b1"}]}}]}}`, nil)
	if got := w.must("GET", edgeLB+"/inboundNatRules/ssh", "").get("properties", "backendIPConfiguration", "id"); got != edgeNetwork+"networkInterfaces/nic1/ipConfigurations/c1" {
		t.Errorf("the NAT rule leads to %v", got)
	}
	w.refuses("DELETE", edgeLB+"/inboundNatRules/ssh", "", "LoadBalancerInUse")
	w.must("DELETE", edgeLB+"/backendAddressPools/ips", "")
	if list, _ := w.must("GET", edgeLB+"/backendAddressPools", "").body["value"].([]any); len(list) != 1 {
		t.Errorf("pools %v", list)
	}
	w.refuses("PUT", edgeLB+"/loadBalancingRules/bad", `{"properties":{"protocol":"Tcp","frontendPort":0,"backendPort":22}}`, "InvalidRequestFormat", "LoadBalancingRuleInvalidFrontendPort")
}
