// SPDX-License-Identifier: Apache-2.0

package network

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v7"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/resource"
	"bastide.dev/store"
)

const edgePIP = edgeNetwork + "publicIPAddresses/"

func pip(properties string) string {
	return `{"location":"eastus","sku":{"name":"Standard"},"properties":{"publicIPAllocationMethod":"Static"` + properties + `}}`
}

func TestPublicAddress(t *testing.T) {
	t.Parallel()
	w := newEdge(t)
	a := w.must("PUT", edgePIP+"pip1", pip(`,"dnsSettings":{"domainNameLabel":"Web1"}`))
	if a.get("properties", "ipAddress") != "192.88.99.2" || a.get("properties", "dnsSettings", "fqdn") != "web1.eastus.cloudapp.bastide.internal" ||
		a.get("properties", "idleTimeoutInMinutes") != 4.0 || a.get("sku", "tier") != "Regional" {
		t.Errorf("made %s", a.text)
	}
	operations := len(w.keys(arm.OperationPrefix))
	w.must("PUT", edgePIP+"pip2", pip(""))
	if now := len(w.keys(arm.OperationPrefix)); now != operations {
		t.Error("an address that no one has yet made an operation")
	}
	w.refuses("PUT", edgePIP+"pip3", pip(`,"dnsSettings":{"domainNameLabel":"web1"}`), "DnsRecordInUse")
	for label, want := range map[string]any{"web1": false, "web2": true} {
		got := w.must("GET", "/subscriptions/"+edgeSub+"/providers/Microsoft.Network/locations/eastus/CheckDnsNameAvailability"+edgeVersion+"&domainNameLabel="+label, "")
		if got.get("available") != want {
			t.Errorf("label %s: %s", label, got.text)
		}
	}
	// The label goes to another address, and the address stays the same over a change.
	if a := w.must("PUT", edgePIP+"pip1", pip("")); a.get("properties", "ipAddress") != "192.88.99.2" || a.get("properties", "dnsSettings") != nil {
		t.Errorf("changed %s", a.text)
	}
	w.must("PUT", edgePIP+"pip2", pip(`,"dnsSettings":{"domainNameLabel":"web1"}`))
	usages, _ := w.must("GET", "/subscriptions/"+edgeSub+"/providers/Microsoft.Network/locations/eastus/usages", "").body["value"].([]any)
	for _, row := range usages {
		if row := (edgeAnswer{body: row.(map[string]any)}); row.get("name", "value") == "PublicIPAddresses" && (row.get("currentValue") != 2.0 || row.get("limit") != 64.0) {
			t.Errorf("usage %v", row.body)
		}
	}
	w.must("DELETE", edgePIP+"pip1", "")
	w.must("DELETE", edgePIP+"pip2", "")
	if left := w.keys("addresses/"); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

func TestPublicAddressRefusals(t *testing.T) {
	t.Parallel()
	w := newEdge(t)
	for _, c := range []struct{ body, code string }{
		{`{"location":"eastus","sku":{"name":"Basic"},"properties":{}}`, "PropertyNotSupported"},
		{`{"location":"eastus","properties":{"publicIPAllocationMethod":"Dynamic"}}`, "PropertyNotSupported"},
		{`{"location":"westus","properties":{}}`, "LocationNotAvailableForResourceType"},
		{pip(`,"publicIPAddressVersion":"IPv6"`), "PropertyNotSupported"},
		{pip(`,"ipTags":[{"ipTagType":"RoutingPreference","tag":"Internet"}]`), "PropertyNotSupported"},
		{`{"location":"eastus","zones":["1"],"properties":{}}`, "PropertyNotSupported"},
		{pip(`,"idleTimeoutInMinutes":31`), "InvalidIdleTimeout"},
		{pip(`,"dnsSettings":{"domainNameLabel":"1web"}`), "InvalidDomainNameLabel"},
		{pip(`,"dnsSettings":{"domainNameLabel":"web","domainNameLabelScope":"TenantReuse"}`), "PropertyNotSupported"},
		{pip(`,"publicIPPrefix":{"id":"` + edgeNetwork + `publicIPPrefixes/none"}`), "InvalidResourceReference"},
		{pip(`,"nonsense":1`), "InvalidParameter"},
	} {
		w.refuses("PUT", edgePIP+"bad", c.body, c.code)
	}
	// Every problem at once.
	w.refuses("PUT", edgePIP+"bad", `{"location":"westus","zones":["1"],"properties":{"idleTimeoutInMinutes":1,"dnsSettings":{"domainNameLabel":"-"}}}`,
		"LocationNotAvailableForResourceType", "PropertyNotSupported", "InvalidIdleTimeout", "InvalidDomainNameLabel")
	if left := w.keys("addresses/"); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

// Two requests at once never get the same address, also not out of a prefix.
func TestPublicAddressesAreUnique(t *testing.T) {
	t.Parallel()
	w := newEdge(t)
	w.must("PUT", edgeNetwork+"publicIPPrefixes/block", `{"location":"eastus","properties":{"prefixLength":29}}`)
	const each = 8
	var group sync.WaitGroup
	for i := range 2 * each {
		group.Go(func() {
			body := pip("")
			if i%2 == 0 {
				body = pip(`,"publicIPPrefix":{"id":"` + edgeNetwork + `publicIPPrefixes/block"}`)
			}
			if a := w.do("PUT", fmt.Sprintf("%spip%d", edgePIP, i), body); a.code != 201 {
				t.Errorf("pip%d: %d %s", i, a.code, a.text)
			}
		})
	}
	group.Wait()
	block := netip.MustParsePrefix(w.must("GET", edgeNetwork+"publicIPPrefixes/block", "").get("properties", "ipPrefix").(string))
	seen := map[netip.Addr]int{}
	for i := range 2 * each {
		a := netip.MustParseAddr(w.must("GET", fmt.Sprintf("%spip%d", edgePIP, i), "").get("properties", "ipAddress").(string))
		if other, found := seen[a]; found {
			t.Errorf("pip%d and pip%d have %s", i, other, a)
		}
		if block.Contains(a) != (i%2 == 0) {
			t.Errorf("pip%d has %s, the prefix is %s", i, a, block)
		}
		seen[a] = i
	}
	w.refuses("PUT", edgePIP+"more", pip(`,"publicIPPrefix":{"id":"`+edgeNetwork+`publicIPPrefixes/block"}`), "PublicIPPrefixOutOfIpAddressesForPublicIps")
	w.refuses("DELETE", edgeNetwork+"publicIPPrefixes/block", "", "PublicIpPrefixCannotBeDeleted")
	w.refuses("PUT", edgeLB, prefixLB("block", 8000), "PublicIPAddressInUse")
	w.refuses("PUT", edgeNetwork+"publicIPPrefixes/big", `{"location":"eastus","properties":{"prefixLength":27}}`, "InvalidPublicIPPrefixLength")
	w.refuses("PUT", edgeNetwork+"publicIPPrefixes/block", `{"location":"eastus","properties":{"prefixLength":30}}`, "PublicIPPrefixLengthCannotBeChanged")
	for i := range 2 * each {
		w.must("DELETE", fmt.Sprintf("%spip%d", edgePIP, i), "")
	}
	w.must("DELETE", edgeNetwork+"publicIPPrefixes/block", "")
	if left := w.keys("addresses/"); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

func TestPublicPoolRunsOut(t *testing.T) {
	t.Parallel()
	w := newEdge(t)
	for i := range 4 { // 64 less network, front door and broadcast: three blocks of 16 would be 48, the first holds the front door
		a := w.do("PUT", fmt.Sprintf("%spublicIPPrefixes/p%d", edgeNetwork, i), `{"location":"eastus","properties":{"prefixLength":28}}`)
		if (a.code == 201) != (i < 2) {
			t.Errorf("prefix %d: %d %s", i, a.code, a.text)
		}
	}
}

// The Azure SDK makes, reads, lists and deletes addresses.
func TestPublicAddressSDK(t *testing.T) {
	t.Parallel()
	w := newEdge(t)
	ctx := t.Context()
	client, err := armnetwork.NewPublicIPAddressesClient(edgeSub, edgeAnyone{}, w.options())
	if err != nil {
		t.Fatal(err)
	}
	poller, err := client.BeginCreateOrUpdate(ctx, "rg1", "pip1", armnetwork.PublicIPAddress{Location: ptr("East US"), Tags: map[string]*string{"k8s-azure-service": ptr("default/web")},
		SKU:        &armnetwork.PublicIPAddressSKU{Name: ptr(armnetwork.PublicIPAddressSKUNameStandard)},
		Properties: &armnetwork.PublicIPAddressPropertiesFormat{PublicIPAllocationMethod: ptr(armnetwork.IPAllocationMethodStatic)}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	made, err := poller.PollUntilDone(ctx, &runtime.PollUntilDoneOptions{Frequency: time.Millisecond})
	if err != nil || *made.Properties.IPAddress != "192.88.99.2" {
		t.Fatalf("%+v, %v", made, err)
	}
	// What was read goes back, with its etag, as cloud-provider-azure sends it.
	again, err := client.BeginCreateOrUpdate(ctx, "rg1", "pip1", made.PublicIPAddress, nil)
	if err != nil {
		t.Fatal(err)
	}
	same, err := again.PollUntilDone(ctx, &runtime.PollUntilDoneOptions{Frequency: time.Millisecond})
	if err != nil || *same.Properties.IPAddress != *made.Properties.IPAddress || *same.Tags["k8s-azure-service"] != "default/web" {
		t.Errorf("%+v, %v", same, err)
	}
	page, err := client.NewListPager("rg1", nil).NextPage(ctx)
	if err != nil || len(page.Value) != 1 {
		t.Errorf("%+v, %v", page, err)
	}
	gone, err := client.BeginDelete(ctx, "rg1", "pip1", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := gone.PollUntilDone(ctx, &runtime.PollUntilDoneOptions{Frequency: time.Millisecond}); err != nil {
		t.Error(err)
	}
}

// What takes an address and what deletes it at the same moment don't both succeed.
func TestPublicAddressHeld(t *testing.T) {
	t.Parallel()
	w := newEdge(t)
	for round := range 20 {
		address, balancer := fmt.Sprintf("%sp%d", edgePIP, round), fmt.Sprintf("%sloadBalancers/lb%d", edgeNetwork, round)
		w.must("PUT", address, pip(""))
		body := `{"location":"eastus","properties":{"frontendIPConfigurations":[{"name":"f","properties":{"publicIPAddress":{"id":"` + address + `"}}}]}}`
		var group sync.WaitGroup
		codes := make([]int, 3)
		group.Go(func() { codes[0] = w.do("PUT", balancer, body).code })
		group.Go(func() { codes[1] = w.do("PUT", balancer+"b", body).code })
		group.Go(func() { codes[2] = w.do("DELETE", address, "").code })
		group.Wait()
		taken := 0
		for _, code := range codes {
			if code < 300 {
				taken++
			}
		}
		if taken != 1 {
			t.Fatalf("round %d: %v", round, codes)
		}
	}
}

// Who asked before another's transaction went through has to ask again.
func TestPublicAddressesOfTwo(t *testing.T) {
	t.Parallel()
	w := newEdge(t)
	ctx := t.Context()
	block := netip.MustParsePrefix("192.88.99.16/29")
	for what, ask := range map[string]func() ([]store.Change, error){
		"addresses": func() ([]store.Change, error) {
			_, changes, err := w.p.PublicAddresses(ctx, resource.MustParseID(edgePIP+"x"), 2)
			return changes, err
		},
		"a block": func() ([]store.Change, error) {
			_, changes, err := w.p.publicBlock(ctx, resource.MustParseID(edgePIP+"x"), 30)
			return changes, err
		},
		"a member": func() ([]store.Change, error) {
			_, changes, err := w.p.memberAddress(ctx, resource.MustParseID(edgePIP+"x"), block)
			return changes, err
		},
		"a label": func() ([]store.Change, error) {
			return w.p.labelChanges(ctx, resource.MustParseID(edgePIP+"x"), "", "web")
		},
	} {
		one, err := ask()
		if err != nil {
			t.Fatal(err)
		}
		two, err := ask()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.store.Txn(ctx, one...); err != nil {
			t.Errorf("%s: the first: %v", what, err)
		}
		if _, err := w.store.Txn(ctx, two...); !fault.Is(err, fault.Precondition) {
			t.Errorf("%s: the second: %v", what, err)
		}
	}
}
