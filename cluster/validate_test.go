// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	aks "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"

	"bastide.dev/fault"
	"bastide.dev/resource"
)

// change is azBody(1) with the value at path replaced.
func change(t *testing.T, path string, value any) string {
	t.Helper()
	var body object
	if err := json.Unmarshal([]byte(azBody(1)), &body); err != nil {
		t.Fatal(err)
	}
	if rest, isPool := strings.CutPrefix(path, "pool."); isPool {
		set(get(body, "properties.agentPoolProfiles").([]any)[0].(object), rest, value)
	} else if path != "" {
		set(body, path, value)
	}
	raw, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestBadClusters(t *testing.T) {
	const net, pool = "properties.networkProfile.", "properties.agentPoolProfiles[0]."
	system := func(name string) object { return object{"name": name, "count": 1, "mode": "System"} }
	for _, c := range []struct {
		path         string
		value        any
		code, target string
		message      string
	}{
		{"properties.kubernetesVersion", "1.12.3", "K8sVersionNotSupported", "properties.kubernetesVersion", "1.35.4, 1.36.3"},
		{"properties.kubernetesVersion", "latest", "K8sVersionNotSupported", "properties.kubernetesVersion", "latest"},
		{"properties.dnsPrefix", "-bad-", "InvalidParameter", "properties.dnsPrefix", "1 to 54"},
		{"properties.dnsPrefix", "", "InvalidParameter", "properties.dnsPrefix", "required"},
		{"location", "westus", "LocationNotAvailableForResourceType", "location", "eastus"},
		{"identity", nil, "InvalidParameter", "identity.type", "SystemAssigned"},
		{"identity.type", "UserAssigned", "InvalidIdentityNumber", "identity.userAssignedIdentities", "exactly one"},
		{"identity.type", "Sometimes", "PropertyNotSupported", "identity.type", "UserAssigned"},
		{"sku", object{"tier": "Gold"}, "InvalidParameter", "sku.tier", "Gold"},
		{net + "podCidr", "10.244.0.0", "InvalidParameter", net + "podCidr", "CIDR"},
		{net + "podCidr", "10.244.1.0/16", "InvalidParameter", net + "podCidr", "10.244.0.0/16"},
		{net + "podCidr", "fd00::/64", "InvalidParameter", net + "podCidr", "IPv4"},
		{net + "podCidr", "10.0.0.0/20", "InvalidParameter", net + "podCidr", "overlaps"},
		{net + "podCidr", "10.224.0.0/16", "InvalidParameter", net + "podCidr", "virtual network"},
		{net + "podCidr", "10.244.0.0/26", "InvalidParameter", net + "podCidr", "/24"},
		{net + "serviceCidr", "10.230.0.0/16", "ServiceCidrOverlapExistingSubnetsCidr", net + "serviceCidr", "virtual network"},
		{net + "serviceCidr", "169.254.0.0/16", "ServiceCidrOverlapExistingSubnetsCidr", net + "serviceCidr", "link-local"},
		{net + "serviceCidr", "10.0.0.0/8", "InvalidParameter", net + "serviceCidr", "/12"},
		{net + "dnsServiceIP", "10.1.0.10", "InvalidParameter", net + "dnsServiceIP", "isn't in"},
		{net + "dnsServiceIP", "10.0.0.1", "InvalidParameter", net + "dnsServiceIP", "API server"},
		{net + "dnsServiceIP", "ten", "InvalidParameter", net + "dnsServiceIP", "IPv4 address"},
		{net + "networkPlugin", "none", "PropertyNotSupported", net + "networkPlugin", "kubenet and azure"},
		{net + "networkPolicy", "azure", "InvalidParameter", net + "networkPolicy", "calico"},
		{net + "networkPolicy", "cilium", "PropertyNotSupported", net + "networkPolicy", "calico"},
		{net + "networkPluginMode", "overlay", "InvalidParameter", net + "networkPluginMode", "overlay"},
		{net + "outboundType", "userDefinedRouting", "InvalidParameter", net + "outboundType", "subnet of yours"},
		{net + "outboundType", "userAssignedNATGateway", "InvalidParameter", net + "outboundType", "subnet of yours"},
		{net + "outboundType", "carrier pigeon", "InvalidParameter", net + "outboundType", "loadBalancer"},
		{net + "loadBalancerSku", "basic", "PropertyNotSupported", net + "loadBalancerSku", "standard"},
		{net + "loadBalancerProfile", object{"managedOutboundIPs": object{"count": 101}}, "InvalidLoadBalancerProfile", net + "loadBalancerProfile.managedOutboundIPs.count", "1 to 100"},
		{net + "loadBalancerProfile", object{"allocatedOutboundPorts": 7}, "InvalidLoadBalancerProfile", net + "loadBalancerProfile.allocatedOutboundPorts", "multiple of 8"},
		{net + "loadBalancerProfile", object{"idleTimeoutInMinutes": 3}, "InvalidLoadBalancerProfile", net + "loadBalancerProfile.idleTimeoutInMinutes", "4 to 120"},
		{net + "loadBalancerProfile", object{"outboundIPs": object{"publicIPs": []any{object{"id": "x"}}}}, "LinkedInvalidPropertyId", net + "loadBalancerProfile.outboundIPs.publicIPs[0].id", ""},
		{net + "dockerBridgeCidr", "172.18.0.1/16", "PropertyNotSupported", net + "dockerBridgeCidr", "Docker"},
		{"properties.enableRBAC", false, "PropertyNotSupported", "properties.enableRBAC", "RBAC"},
		{"properties.disableLocalAccounts", true, "InvalidParameter", "properties.disableLocalAccounts", "local accounts"},
		{"properties.aadProfile", object{"enableAzureRBAC": true}, "InvalidParameter", "properties.aadProfile.managed", "true"},
		{"properties.aadProfile", object{"managed": true, "serverAppSecret": "s"}, "PropertyNotSupported", "properties.aadProfile.serverAppSecret", "managed"},
		{"properties.aadProfile", object{"managed": true, "adminGroupObjectIDs": []any{"admins"}}, "InvalidParameter", "properties.aadProfile.adminGroupObjectIDs", "admins"},
		{"properties.aadProfile", object{"managed": true, "tenantID": "0b1f6471-1bf0-4dda-aec3-cb9272f09590"}, "InvalidParameter", "properties.aadProfile.tenantID", "tenant"},
		{"properties.aadProfile", object{"managed": true, "admins": "x"}, "PropertyNotSupported", "properties.aadProfile.admins", ""},
		{"properties.addonProfiles", object{"azurepolicy": object{"enabled": true}}, "PropertyNotSupported", "properties.addonProfiles.azurepolicy.enabled", "add-on"},
		{"properties.apiServerAccessProfile", object{"authorizedIPRanges": []any{"1.2.3.4/33"}}, "InvalidAuthorizedIPRange", "properties.apiServerAccessProfile.authorizedIPRanges[0]", ""},
		{"properties.apiServerAccessProfile", object{"authorizedIPRanges": []any{"2001:db8::/32"}}, "InvalidAuthorizedIPRange", "properties.apiServerAccessProfile.authorizedIPRanges[0]", "IPv4"},
		{"properties.apiServerAccessProfile", object{"authorizedIPRanges": manyRanges(201)}, "InvalidParameter", "properties.apiServerAccessProfile.authorizedIPRanges", "at most 200"},
		{"properties.apiServerAccessProfile", object{"enablePrivateCluster": true, "authorizedIPRanges": []any{"1.2.3.4/32"}}, "InvalidParameter", "properties.apiServerAccessProfile.authorizedIPRanges", "private cluster"},
		{"properties.apiServerAccessProfile", object{"enablePrivateCluster": true, "privateDNSZone": "none", "enablePrivateClusterPublicFQDN": false}, "InvalidParameter", "properties.apiServerAccessProfile.privateDNSZone", "public name"},
		{"properties.apiServerAccessProfile", object{"enablePrivateCluster": true, "privateDNSZone": "x"}, "InvalidParameter", "properties.apiServerAccessProfile.privateDNSZone", "private DNS zone"},
		{"properties.fqdnSubdomain", "me", "InvalidParameter", "properties.fqdnSubdomain", "private clusters"},
		{"properties.apiServerAccessProfile", object{"enableVnetIntegration": true}, "PropertyNotSupported", "properties.apiServerAccessProfile.enableVnetIntegration", "anyway"},
		{"properties.windowsProfile", object{"adminUsername": "a"}, "PropertyNotSupported", "properties.windowsProfile.adminUsername", "Windows"},
		{"properties.autoUpgradeProfile", object{"upgradeChannel": "nightly"}, "InvalidParameter", "properties.autoUpgradeProfile.upgradeChannel", "none, patch, stable, rapid, node-image"},
		{"properties.autoUpgradeProfile", object{"nodeOSUpgradeChannel": "Weekly"}, "InvalidParameter", "properties.autoUpgradeProfile.nodeOSUpgradeChannel", "SecurityPatch"},
		{"properties.autoUpgradeProfile", object{"upgradeChannel": "node-image", "nodeOSUpgradeChannel": "SecurityPatch"}, "InvalidParameter", "properties.autoUpgradeProfile.nodeOSUpgradeChannel", "NodeImage"},
		{"properties.securityProfile", object{"workloadIdentity": object{"enabled": true}}, "BadRequest", "properties.securityProfile.workloadIdentity.enabled", "OIDC issuer"},
		{"properties.storageProfile", object{"diskCSIDriver": object{"enabled": true}}, "PropertyNotSupported", "properties.storageProfile.diskCSIDriver.enabled", "storage"},
		{"properties.linuxProfile.ssh.publicKeys", []any{object{"keyData": "none"}}, "InvalidParameter", "properties.linuxProfile.ssh.publicKeys.keyData", "SSH"},
		{"properties.linuxProfile.adminUsername", "1st", "InvalidParameter", "properties.linuxProfile.adminUsername", "letter"},
		{"properties.linuxProfile.adminUsername", "root", "InvalidParameter", "properties.linuxProfile.adminUsername", "reserved"},
		{"properties.linuxProfile.adminUsername", "sshd", "InvalidParameter", "properties.linuxProfile.adminUsername", "reserved"},
		{"properties.nodeResourceGroup", "a/b", "InvalidParameter", "properties.nodeResourceGroup", "resource group"},
		{"properties.servicePrincipalProfile", object{"clientId": "x", "secret": "wrong"}, "InvalidParameter", "identity.type", "not both"},
		{"properties.agentPoolProfiles", nil, "InvalidParameter", "properties.agentPoolProfiles", "at least one"},
		{"properties.agentPoolProfiles", []any{system("a"), system("a")}, "InvalidParameter", "properties.agentPoolProfiles[1].name", "twice"},
		{"properties.agentPoolProfiles", "two", "InvalidRequestContent", "properties.agentPoolProfiles", "string"},
		{"properties.agentPoolProfiles", []any{nil}, "InvalidParameter", "properties.agentPoolProfiles[0]", "null"},
		{"pool.name", "UPPER", "InvalidParameter", pool + "name", "lowercase"},
		{"pool.name", "morethantwelve", "InvalidParameter", pool + "name", "1 to 12"},
		{"pool.count", 0, "InvalidParameter", pool + "count", "1 to 1000"},
		{"pool.count", 1001, "InvalidParameter", pool + "count", "1 to 1000"},
		{"pool.count", -1, "InvalidParameter", pool + "count", "1 to 1000"},
		{"pool.count", "three", "InvalidRequestContent", "properties.agentPoolProfiles.count", "string"},
		{"pool.count", 300, "InsufficientSubnetSize", "properties.agentPoolProfiles", "256 nodes"},
		{"pool.mode", "User", "InvalidParameter", "properties.agentPoolProfiles", "System"},
		{"pool.mode", "Both", "InvalidParameter", pool + "mode", "Both"},
		{"pool.maxPods", 5, "InvalidParameter", pool + "maxPods", "10 to 250"},
		{"pool.maxPods", 251, "InvalidParameter", pool + "maxPods", "10 to 250"},
		{"pool.vmSize", "Standard_Huge", "VMSizeNotSupported", pool + "vmSize", "Standard_D2s_v5"},
		{"pool.osType", "Windows", "PropertyNotSupported", pool + "osType", "Linux"},
		{"pool.osSKU", "AzureLinux", "PropertyNotSupported", pool + "osSKU", "Debian"},
		{"pool.orchestratorVersion", "1.36.3", "NodePoolMcVersionIncompatible", pool + "orchestratorVersion", "newer"},
		{"pool.orchestratorVersion", "1.2.3", "AgentPoolK8sVersionNotSupported", pool + "orchestratorVersion", "1.35.4"},
		{"pool.minCount", 1, "InvalidParameter", pool + "minCount", "only with enableAutoScaling"},
		{"pool.enableFIPS", true, "PropertyNotSupported", pool + "enableFIPS", ""},
		{"pool.availabilityZones", []any{"1"}, "PropertyNotSupported", pool + "availabilityZones[0]", "zone"},
		{"pool.osDiskSizeGB", 64, "PropertyNotSupported", pool + "osDiskSizeGB", "disk"},
		{"pool.vnetSubnetID", "/x", "LinkedInvalidPropertyId", pool + "vnetSubnetID", "subnet"},
		{"pool.vnetSubnetID", strings.Replace(testCluster, "Microsoft.ContainerService/managedClusters/c1", "Microsoft.Network/virtualNetworks/v/subnets/s", 1), "SubnetNotFound", pool + "vnetSubnetID", "wasn't found"},
		{"pool.scaleSetPriority", "Spot", "PropertyNotSupported", pool + "scaleSetPriority", "spot"},
		{"pool.type", "AvailabilitySet", "PropertyNotSupported", pool + "type", "VirtualMachineScaleSets"},
		{"pool.upgradeSettings", object{"maxSurge": "101%"}, "InvalidParameter", pool + "upgradeSettings.maxSurge", "33%"},
		{"pool.upgradeSettings", object{"maxSurge": "some"}, "InvalidParameter", pool + "upgradeSettings.maxSurge", "33%"},
		{"pool.upgradeSettings", object{"maxSurge": "-1"}, "InvalidParameter", pool + "upgradeSettings.maxSurge", "33%"},
		{"pool.upgradeSettings", object{"maxSurge": "0"}, "InvalidParameter", pool + "upgradeSettings.maxSurge", "both be 0"},
		{"pool.upgradeSettings", object{"maxUnavailable": "1001"}, "InvalidParameter", pool + "upgradeSettings.maxUnavailable", "1000"},
		{"pool.upgradeSettings", object{"drainTimeoutInMinutes": 4}, "InvalidParameter", pool + "upgradeSettings.drainTimeoutInMinutes", "5 to 1440"},
		{"pool.upgradeSettings", object{"drainTimeoutInMinutes": 1441}, "InvalidParameter", pool + "upgradeSettings.drainTimeoutInMinutes", "5 to 1440"},
		{"pool.upgradeSettings", object{"nodeSoakDurationInMinutes": 31}, "InvalidParameter", pool + "upgradeSettings.nodeSoakDurationInMinutes", "0 to 30"},
		{"pool.upgradeSettings", object{"undrainableNodeBehavior": "Leave"}, "InvalidParameter", pool + "upgradeSettings.undrainableNodeBehavior", "Cordon"},
		{"pool.upgradeSettings", object{"newThing": 1}, "PropertyNotSupported", pool + "upgradeSettings.newThing", "newThing"},
		{"pool.nodeLabels", object{"bad key": "v"}, "InvalidParameter", pool + "nodeLabels", "bad key"},
		{"pool.nodeLabels", object{"kubernetes.azure.com/mode": "x"}, "InvalidParameter", pool + "nodeLabels", "reserved"},
		{"pool.nodeLabels", object{"node-role.kubernetes.io/x": ""}, "InvalidParameter", pool + "nodeLabels", "reserved"},
		{"pool.nodeTaints", []any{"a=b:Never"}, "InvalidParameter", pool + "nodeTaints", "NoExecute"},
		{"pool.nodeTaints", []any{"a=b:NoSchedule"}, "InvalidParameter", pool + "nodeTaints", "CriticalAddonsOnly"},
		{"pool.newThing", 7, "PropertyNotSupported", pool + "newThing", "newThing"},
	} {
		t.Run(fmt.Sprintf("%s=%v", c.path, c.value), func(t *testing.T) {
			w := newWorld(t)
			_, _, err := w.do(t.Context(), "PUT", testCluster, change(t, c.path, c.value))
			for _, p := range problems(err) {
				if p.Code == c.code && (c.target == "" || p.Target == c.target) && strings.Contains(p.Message, c.message) {
					return
				}
			}
			t.Errorf("got %v\nwant %s at %s, with %q", err, c.code, c.target, c.message)
		})
	}
}

func TestGoodClusters(t *testing.T) {
	for path, value := range map[string]any{
		"":                                  nil,
		"properties.kubernetesVersion":      "1.36",
		"properties.agentPoolProfiles":      []any{object{"name": "a", "count": 1, "mode": "system"}, object{"name": "b", "count": 0, "mode": "user"}},
		"properties.networkProfile":         object{"networkPlugin": "azure"},
		"properties.autoUpgradeProfile":     object{"upgradeChannel": "Stable", "nodeOSUpgradeChannel": "securitypatch"},
		"properties.apiServerAccessProfile": object{"enablePrivateCluster": false},
		"pool.nodeTaints":                   []any{systemTaint},
		"pool.nodeLabels":                   object{"team": "a", "example.com/x": "y"},
	} {
		w := newWorld(t)
		if _, _, err := w.do(t.Context(), "PUT", testCluster, change(t, path, value)); err != nil {
			t.Errorf("%s = %v: %v", path, value, err)
		}
	}
}

func TestServicePrincipal(t *testing.T) {
	w := newWorld(t)
	body := func(secret string) string {
		sp := `"servicePrincipalProfile":{"clientId":"x","secret":"` + secret + `"}`
		return strings.NewReplacer(`"identity":{"type":"SystemAssigned"},`, "", `"enableRBAC":true`, sp).Replace(azBody(1))
	}
	if _, _, err := w.do(t.Context(), "PUT", testCluster, body("wrong")); problems(err) == nil || problems(err)[0].Code != "ServicePrincipalValidationClientError" {
		t.Errorf("a wrong secret: %v", err)
	}
	w.must("PUT", testCluster, body("right"), resource.Succeeded)
	view := w.view(testCluster, testVersion)
	if get(view, "properties.servicePrincipalProfile.clientId") != "x" || get(view, "properties.servicePrincipalProfile.secret") != nil {
		t.Errorf("the service principal reads %v", get(view, "properties.servicePrincipalProfile"))
	}
	if len(w.directory.made) > 0 {
		t.Errorf("identities were made: %v", w.directory.made)
	}
	// az aks scale leaves the profile out: the principal stays.
	w.must("PUT", testCluster, strings.Replace(azBody(2), `"identity":{"type":"SystemAssigned"},`, "", 1), resource.Succeeded)
	if got := get(w.view(testCluster, testVersion), "properties.servicePrincipalProfile.clientId"); got != "x" {
		t.Errorf("after scaling the service principal is %v", got)
	}
	w.must("DELETE", testCluster, "", resource.Succeeded)
	w.nothingLeft()
}

func TestAllProblemsAtOnce(t *testing.T) {
	w := newWorld(t)
	body := strings.NewReplacer(`"10.0.0.10"`, `"10.9.0.10"`, `"enableRBAC":true`, `"enableRBAC":false`, `Standard_DS2_v2`, `Standard_None`).Replace(azBody(1))
	_, _, err := w.do(t.Context(), "PUT", testCluster, body)
	if n := len(problems(err)); n != 3 {
		t.Errorf("%d problems are told, want 3: %v", n, err)
	}
}

func TestChangesNotAllowed(t *testing.T) {
	for path, value := range map[string]any{
		"properties.dnsPrefix":                    "other",
		"properties.nodeResourceGroup":            "other",
		"properties.linuxProfile.adminUsername":   "other",
		"properties.networkProfile.networkPlugin": "azure",
		"properties.networkProfile.podCidr":       "10.100.0.0/16",
		"properties.networkProfile.serviceCidr":   "10.1.0.0/16",
		"properties.networkProfile.dnsServiceIP":  "10.0.0.11",
		"pool.vmSize":                             "Standard_D4s_v5",
		"pool.maxPods":                            50,
		"pool.nodeLabels":                         object{"a": "b"},
		"properties.agentPoolProfiles":            []any{object{"name": "other", "count": 1, "mode": "System"}},
		"properties.kubernetesVersion":            "1.34.4",
	} {
		w := newWorld(t)
		w.must("PUT", testCluster, azBody(1), resource.Succeeded)
		_, _, err := w.do(t.Context(), "PUT", testCluster, change(t, path, value))
		if !fault.Is(err, fault.Invalid) && !fault.Is(err, fault.Unsupported) {
			t.Errorf("%s = %v: %v", path, value, err)
		}
	}
}

func TestBadPools(t *testing.T) {
	w := newWorld(t)
	w.must("PUT", testCluster, azBody(1), resource.Succeeded)
	const base = testCluster + "/agentPools/"
	for _, c := range []struct{ method, path, body, want string }{
		{"PUT", base + "NP", `{"properties":{"count":1}}`, "lowercase"},
		{"PUT", base + "np", `{"properties":{"count":1,"osType":"Windows"}}`, "Linux"},
		{"PUT", base + "np", `{"properties":{"count":1,"vmSize":"x"}}`, "not available"},
		{"PUT", base + "np", `{"properties":{"count":1,"orchestratorVersion":"1.36.3"}}`, "newer"},
		{"PUT", base + "np", `{"properties":{"count":256}}`, "256 nodes; these are 257"},
		{"PUT", base + "np", `{"properties":{"count":"x"}}`, "deserialized"},
		{"PUT", base + "nodepool1", `{"properties":{"count":0}}`, "1 to 1000"},
		{"PUT", base + "nodepool1", `{"properties":{"mode":"User"}}`, "mode System"},
		{"DELETE", base + "nodepool1", "", "at least one agent pool of mode System"},
		{"PUT", "/subscriptions/0b1f6471-1bf0-4dda-aec3-cb9272f09590/resourceGroups/rg1/providers/Microsoft.ContainerService/managedClusters/none/agentPools/np", `{}`, "not found"},
	} {
		if _, _, err := w.do(t.Context(), c.method, c.path, c.body); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %s %s: %v, want %q", c.method, c.path, c.body, err, c.want)
		}
	}
}

func manyRanges(count int) []any {
	var ranges []any
	for n := range count {
		ranges = append(ranges, fmt.Sprintf("1.2.%d.%d/32", n/250, n%250))
	}
	return ranges
}

// Every property that the SDK's models have is decided by a row of its own or of what it is in.
func TestEveryPropertyIsDecided(t *testing.T) {
	for _, c := range []struct {
		model any
		rows  []Property
	}{{&aks.ManagedCluster{}, ClusterProperties()}, {&aks.AgentPool{}, PoolProperties()}} {
		sample(reflect.ValueOf(c.model).Elem(), 0)
		raw, err := json.Marshal(c.model)
		if err != nil {
			t.Fatal(err)
		}
		var body object
		if err := json.Unmarshal(raw, &body); err != nil {
			t.Fatal(err)
		}
		rows := map[string]bool{}
		for _, row := range c.rows {
			if rows[strings.ToLower(row.Path)] {
				t.Errorf("%s is decided twice", row.Path)
			}
			rows[strings.ToLower(row.Path)] = true
		}
		undecided(t, body, "", rows)
	}
}

func undecided(t *testing.T, v any, path string, rows map[string]bool) {
	if rows[strings.ToLower(path)] {
		return
	}
	switch v := v.(type) {
	case object:
		for name, value := range v {
			undecided(t, value, strings.TrimPrefix(path+"."+name, "."), rows)
		}
	case []any:
		for _, value := range v {
			undecided(t, value, path+"[]", rows)
		}
	default:
		t.Errorf("no row decides %s", path)
	}
}

// sample fills every field of an SDK model.
func sample(v reflect.Value, depth int) {
	if depth > 9 {
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		sample(v.Elem(), depth+1)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				sample(v.Field(i), depth+1)
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		sample(v.Index(0), depth+1)
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		value := reflect.New(v.Type().Elem()).Elem()
		sample(value, depth+1)
		v.SetMapIndex(reflect.ValueOf("key"), value)
	case reflect.String:
		v.SetString("text")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int32, reflect.Int64:
		v.SetInt(7)
	case reflect.Float32, reflect.Float64:
		v.SetFloat(7)
	case reflect.Uint8:
		v.SetUint(7)
	}
}

// The page for users says what the table says (go test -update writes it anew).
func TestPropertiesPage(t *testing.T) {
	var b strings.Builder
	b.WriteString("# Properties of clusters and agent pools\n\n" +
		"What becomes of each property in a request: it is *effective*, *plain* (kept and given back), *read-only* (ours to say),\n" +
		"*fixed* (only the values that say what is so anyway), or *refused* by name unless it is off or empty. A property that isn't\n" +
		"here is refused. This page is generated from `cluster/properties.go`.\n")
	for _, c := range []struct {
		title string
		rows  []Property
	}{{"managedClusters", ClusterProperties()}, {"managedClusters/agentPools", PoolProperties()}} {
		fmt.Fprintf(&b, "\n## %s\n\n| property | treatment | note |\n|---|---|---|\n", c.title)
		for _, p := range c.rows {
			treatment := string(p.Treatment)
			for _, v := range p.Values {
				treatment += fmt.Sprintf(" `%v`", v)
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", p.Path, treatment, p.Note)
		}
	}
	golden(t, "../docs/properties.md", []byte(b.String()))
}
