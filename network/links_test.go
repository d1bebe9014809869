// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/resource"
)

// edgeWriter may write everything, and take nothing of others into use but in their own group.
type edgeWriter struct{ edgeAnyone }

func (edgeWriter) Authorize(_ context.Context, _ arm.Principal, action string, scope resource.ID) error {
	if strings.EqualFold(scope.Group(), "theirs") || strings.HasSuffix(action, "/join/action") && strings.EqualFold(scope.Name(), "tiny") {
		return fault.New(fault.Forbidden, "AuthorizationFailed", "no %s", action)
	}
	return nil
}

func TestOthersResourcesAreJoinedByThoseWhoMay(t *testing.T) {
	w := newEdge(t)
	h, err := arm.New(arm.Config{Store: w.store, Authenticator: edgeAnyone{}, Authorizer: edgeWriter{}, Providers: w.p.ARM(), Tenant: arm.Tenant{ID: "t1"},
		Subscriptions: []arm.Subscription{{ID: edgeSub}}, Endpoints: arm.Endpoints{ResourceManager: "https://a.test", Login: "https://a.test"}})
	if err != nil {
		t.Fatal(err)
	}
	theirs := strings.Replace(edgeNetwork, "/rg1/", "/theirs/", 1)
	id := func(rest string) string { return `{"id":"` + theirs + rest + `"}` }
	config := func(more string) string {
		return `{"location":"eastus","properties":{"ipConfigurations":[{"name":"a","properties":{` + more + `}}]}}`
	}
	subnet := func(more string) string {
		return `{"location":"eastus","properties":{"addressSpace":{"addressPrefixes":["10.9.0.0/16"]},` + more + `}}`
	}
	for path, bodies := range map[string][]string{
		"networkInterfaces/n": {config(`"subnet":` + id("virtualNetworks/v/subnets/s")), config(`"publicIPAddress":` + id("publicIPAddresses/a")), config(`"SUBNET":{"ID":"` + edgeNetwork + `virtualNetworks/vnet1/subnets/tiny"}`),
			config(`"loadBalancerBackendAddressPools":[` + id("loadBalancers/b/backendAddressPools/p") + `]`), config(`"applicationSecurityGroups":[` + id("applicationSecurityGroups/g") + `]`),
			`{"location":"eastus","properties":{"networkSecurityGroup":` + id("networkSecurityGroups/g") + `}}`},
		"virtualNetworks/new": {subnet(`"subnets":[{"name":"a","properties":{"addressPrefix":"10.9.0.0/24"}},{"name":"s","properties":{"addressPrefix":"10.9.1.0/24","networkSecurityGroup":` + id("networkSecurityGroups/g") + `}}]`),
			subnet(`"subnets":[{"name":"s","properties":{"addressPrefix":"10.9.0.0/24","routeTable":` + id("routeTables/t") + `}}]`), subnet(`"subnets":[{"name":"s","properties":{"addressPrefix":"10.9.0.0/24","natGateway":` + id("natGateways/n") + `}}]`),
			subnet(`"virtualNetworkPeerings":[{"name":"p","properties":{"remoteVirtualNetwork":` + id("virtualNetworks/v") + `}}]`)},
		"virtualNetworks/vnet1/subnets/more": {`{"properties":{"addressPrefix":"10.0.7.0/24","networkSecurityGroup":` + id("networkSecurityGroups/g") + `}}`},
		"loadBalancers/l": {`{"location":"eastus","properties":{"frontendIPConfigurations":[{"name":"f","properties":{"publicIPAddress":` + id("publicIPAddresses/a") + `}}]}}`,
			`{"location":"eastus","properties":{"frontendIPConfigurations":[{"name":"f","properties":{"subnet":` + id("virtualNetworks/v/subnets/s") + `}}]}}`},
		"natGateways/n":      {`{"location":"eastus","properties":{"publicIpAddresses":[` + id("publicIPAddresses/a") + `]}}`},
		"privateEndpoints/e": {`{"location":"eastus","properties":{"subnet":` + id("virtualNetworks/v/subnets/s") + `}}`},
	} {
		for _, body := range bodies {
			r := httptest.NewRequestWithContext(t.Context(), "PUT", "https://a.test"+edgeNetwork+path+edgeVersion, strings.NewReader(body))
			r.Header.Set("Authorization", "Bearer token")
			answer := httptest.NewRecorder()
			h.ServeHTTP(answer, r)
			if answer.Code != 403 || !strings.Contains(answer.Body.String(), "LinkedAuthorizationFailed") {
				t.Errorf("PUT %s %s: %d %s", path, body, answer.Code, answer.Body)
			}
		}
	}
	// What stands in other parts of a network isn't asked for again by a write to one part.
	w.document(edgeNetwork+"virtualNetworks/vnet1", `{"properties":{"addressSpace":{"addressPrefixes":["10.0.0.0/16"]},"subnets":[
		{"name":"nodes","properties":{"addressPrefix":"10.0.0.0/24","networkSecurityGroup":`+id("networkSecurityGroups/g")+`}}]}}`, nil)
	r := httptest.NewRequestWithContext(t.Context(), "PUT", "https://a.test"+edgeNetwork+"virtualNetworks/vnet1/subnets/more"+edgeVersion, strings.NewReader(`{"properties":{"addressPrefix":"10.0.7.0/24"}}`))
	r.Header.Set("Authorization", "Bearer token")
	answer := httptest.NewRecorder()
	h.ServeHTTP(answer, r)
	if answer.Code == 403 {
		t.Errorf("PUT of a part: %d %s", answer.Code, answer.Body)
	}
}
