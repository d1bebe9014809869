// SPDX-License-Identifier: Apache-2.0

package network

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
)

const (
	ownTags    = "/subscriptions/" + edgeSub + "/providers/Bastide.Network/serviceTags/"
	ownVersion = "?api-version=2026-11-01"
)

func tagBody(prefixes ...string) string {
	quoted := make([]string, len(prefixes))
	for i, p := range prefixes {
		quoted[i] = `"` + p + `"`
	}
	return `{"properties":{"addressPrefixes":[` + strings.Join(quoted, ",") + `]}}`
}

func TestServiceTagRefusals(t *testing.T) {
	t.Parallel()
	w := newEdge(t)
	for name, c := range map[string]struct{ tag, body, code string }{
		"built in":           {"AzureCloud", tagBody("198.51.100.0/24"), "ServiceTagNameTaken"},
		"built in, regional": {"azurecloud.westeurope", tagBody("198.51.100.0/24"), "ServiceTagNameTaken"},
		"of each network":    {"Internet", tagBody("198.51.100.0/24"), "ServiceTagNameTaken"},
		"any":                {"Any", tagBody("198.51.100.0/24"), "ServiceTagNameTaken"},
		"like an address":    {"10.0.0.1", tagBody("198.51.100.0/24"), "InvalidResourceName"},
		"long":               {"a" + strings.Repeat("b", maxTagName), tagBody("198.51.100.0/24"), "InvalidResourceName"},
		"no list":            {"Office", `{"properties":{}}`, "MissingProperty"},
		"no prefix":          {"Office", tagBody("198.51.100"), "InvalidAddressPrefixFormat"},
		"host bits":          {"Office", tagBody("198.51.100.1/24"), "InvalidCIDRNotation"},
		"IPv6":               {"Office", tagBody("2001:db8::/32"), "PropertyNotSupported"},
		"too many":           {"Office", tagBody(slices.Repeat([]string{"198.51.100.1"}, maxTagPrefixes+1)...), "ServiceTagLimitReached"},
		"unknown property":   {"Office", `{"properties":{"addressPrefixes":[],"colour":"red"}}`, "InvalidParameter"},
	} {
		t.Log(name)
		w.refuses(http.MethodPut, ownTags+c.tag+ownVersion, c.body, c.code)
	}
	w.refuses(http.MethodPut, edgeGroup+"/providers/Bastide.Network/serviceTags/Office"+ownVersion, tagBody(), "InvalidResourceType")
}

func TestServiceTagLife(t *testing.T) {
	t.Parallel()
	w := newEdge(t)
	officeRule := groupBody(ruleJSON("r", 100, `"sourceAddressPrefix":"*"`, `"sourceAddressPrefixes":["office","10.0.0.0/8"]`))
	w.refuses(http.MethodPut, nsgG, officeRule, "SecurityRuleInvalidAddressPrefix")
	w.must(http.MethodPut, ownTags+"Office"+ownVersion, tagBody("198.51.100.0/24", "203.0.113.7"))
	a := w.must(http.MethodGet, ownTags+"office"+ownVersion, "")
	if text := a.text; !strings.Contains(text, `"203.0.113.7/32"`) || !strings.Contains(text, `"name":"Office"`) {
		t.Error(text)
	}
	w.must(http.MethodPut, nsgG, officeRule)
	w.refuses(http.MethodDelete, ownTags+"Office"+ownVersion, "", "InUseServiceTagCannotBeDeleted")
	var shown struct {
		Values []struct {
			Name       string
			Properties struct{ AddressPrefixes []string }
		}
	}
	a = w.must(http.MethodGet, "/subscriptions/"+edgeSub+"/providers/Microsoft.Network/locations/eastus/serviceTags"+edgeVersion, "")
	if err := json.Unmarshal([]byte(a.text), &shown); err != nil {
		t.Fatal(err)
	}
	seen := map[string][]string{}
	for _, v := range shown.Values {
		seen[v.Name] = v.Properties.AddressPrefixes
	}
	if !slices.Equal(seen["Office"], []string{"198.51.100.0/24", "203.0.113.7/32"}) || len(seen["AzureCloud"]) == 0 || seen["AzureCloud.eastus"] == nil {
		t.Errorf("%s", a.text)
	}
	w.must(http.MethodPut, nsgG, groupBody())
	w.must(http.MethodDelete, ownTags+"Office"+ownVersion, "")
	w.refuses(http.MethodPut, nsgG, officeRule, "SecurityRuleInvalidAddressPrefix")
}

// A tag's new addresses are in the networks that name it when its PUT has ended.
func TestServiceTagTakesEffect(t *testing.T) {
	t.Parallel()
	w := newRun(t)
	w.network()
	w.must("PUT", ownTags+"Office"+ownVersion, tagBody("203.0.113.0/24"))
	w.must("PUT", runGroup+"/securityRules/office", strings.Replace(webRule("100"), "Internet", "OFFICE", 1))
	for _, prefix := range []string{"203.0.113.0/24", "198.51.100.0/24"} {
		w.must("PUT", ownTags+"Office"+ownVersion, tagBody(prefix))
		v, _ := w.vnet(runVNet)
		raw, err := json.Marshal(v.NSGs)
		if err != nil || !strings.Contains(string(raw), `["`+prefix+`"]`) {
			t.Errorf("%s isn't there: %s, %v", prefix, raw, err)
		}
	}
}
