// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/resource"
	"bastide.dev/store"
)

// userIdentity makes a user-assigned identity as package managedidentity keeps it.
func (w *world) userIdentity(name string) string {
	w.t.Helper()
	id := resource.GroupID(testSubscription, "rg1").Resource("Microsoft.ManagedIdentity", "userAssignedIdentities", name)
	body := fmt.Sprintf(`{"properties":{"tenantId":"t1","principalId":"user-principal-%s","clientId":"user-client-%s"}}`, name, name)
	change, err := arm.PutDocument(&arm.Document{Envelope: resource.Envelope{ID: id, Type: identityType, Name: name, Location: "eastus",
		ProvisioningState: resource.Succeeded, Body: json.RawMessage(body)}})
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.memory.Txn(w.t.Context(), store.Change{Key: change.Key, Value: change.Value, Revision: store.Any}); err != nil {
		w.t.Fatal(err)
	}
	return id.String()
}

// as is a cluster's body with these identities; kubelet "" leaves its profile out.
func as(kind, user, kubelet string) string {
	identity := `"identity":{"type":"` + kind + `"},`
	if user != "" {
		identity = `"identity":{"type":"` + kind + `","userAssignedIdentities":{"` + user + `":{}}},`
	}
	body := strings.Replace(azBody(1), `"identity":{"type":"SystemAssigned"},`, identity, 1)
	if kubelet != "" {
		body = strings.Replace(body, `"enableRBAC":true`, `"enableRBAC":true,"identityProfile":{"kubeletidentity":{"resourceId":"`+kubelet+`"}}`, 1)
	}
	return body
}

// withPrincipal is a cluster's body with a service principal.
func withPrincipal(client string) string {
	return strings.NewReplacer(`"identity":{"type":"SystemAssigned"},`, "", `"enableRBAC":true`,
		`"servicePrincipalProfile":{"clientId":"`+client+`","secret":"right"}`).Replace(azBody(1))
}

// acts is the client id that the running controllers have.
func (w *world) acts() string {
	for _, plane := range w.host.Planes {
		if plane.Cloud != nil {
			return plane.Cloud.ClientID + " " + plane.Cloud.Secret
		}
	}
	return ""
}

// withCloud lets clusters have their cloud-controller-manager; the routes that it would write nobody waits for.
func (w *world) withCloud() { w.p.Cloud = "1.34.3" }

const (
	madeKubelet = "/subscriptions/" + testSubscription + "/resourceGroups/MC_rg1_c1_eastus/providers/Microsoft.ManagedIdentity/userAssignedIdentities/c1-agentpool"
	groupScope  = "/subscriptions/" + testSubscription + "/resourceGroups/MC_rg1_c1_eastus"
)

// azureNodes makes a body's nodes ones that need no routes.
func azureNodes(body string) string {
	return strings.NewReplacer(`"networkPlugin":"kubenet"`, `"networkPlugin":"azure"`, `"podCidr":"10.244.0.0/16",`, "").Replace(body)
}

func (w *world) role(principal string) bool {
	return slices.Contains(w.directory.roles, principal+" "+contributorRole+" "+groupScope)
}

func TestUserAssignedIdentity(t *testing.T) {
	w := newWorld(t)
	w.withCloud()
	user := w.userIdentity("id1")
	w.must("PUT", testCluster, azureNodes(as("UserAssigned", user, "")), resource.Succeeded)
	view := w.view(testCluster, testVersion)
	identities, _ := get(view, "identity.userAssignedIdentities").(object)
	if shown, _ := identities[user].(object); shown["principalId"] != "user-principal-id1" || shown["clientId"] != "user-client-id1" || len(identities) != 1 {
		t.Errorf("identities read %v", identities)
	}
	if get(view, "identity.principalId") != nil || get(view, "properties.servicePrincipalProfile.clientId") != "msi" {
		t.Errorf("identity reads %v", get(view, "identity"))
	}
	if got := get(view, "properties.identityProfile.kubeletidentity.resourceId"); got != madeKubelet {
		t.Errorf("kubelet identity %v", got)
	}
	if got := w.acts(); got != "client-of-user-principal-id1 secret-of-user-principal-id1" {
		t.Errorf("controllers act as %q", got)
	}
	if !w.role("user-principal-id1") {
		t.Errorf("roles %v", w.directory.roles)
	}
	kubelet := w.stored(resource.MustParseID(madeKubelet))
	if get(kubelet, "properties.principalId") != "principal-of-c1-agentpool" || get(kubelet, "properties.tenantId") != "t1" {
		t.Errorf("the kubelet identity's document is %v", kubelet)
	}
	set := w.stored(w.whole().scaleSet("nodepool1"))
	assigned, _ := get(set, "identity.userAssignedIdentities").(object)
	if get(set, "identity.type") != "UserAssigned" || assigned[madeKubelet] == nil {
		t.Errorf("the scale set's identity is %v", set["identity"])
	}
	// What was read can be written again.
	raw, err := json.Marshal(view)
	if err != nil {
		t.Fatal(err)
	}
	if _, plan, err := w.do(t.Context(), "PUT", testCluster, string(raw)); err != nil || plan.Async {
		t.Errorf("the read body written again: %+v, %v", plan, err)
	}
	w.must("DELETE", testCluster, "", resource.Succeeded)
	if len(w.directory.made) > 0 {
		t.Errorf("left over: %v", w.directory.made)
	}
	if w.document(t.Context(), resource.MustParseID(user)) == nil {
		t.Error("the user's identity went with the cluster")
	}
}

// Identities change while the cluster runs, and what it was is no good any more.
func TestIdentityChanges(t *testing.T) {
	w := newWorld(t)
	w.withCloud()
	one, two, kubelet := w.userIdentity("id1"), w.userIdentity("id2"), w.userIdentity("kub")
	put := func(body, acts string) {
		t.Helper()
		w.must("PUT", testCluster, azureNodes(body), resource.Succeeded)
		if got := w.acts(); !strings.HasPrefix(got, acts+" ") {
			t.Errorf("controllers act as %q, want %s", got, acts)
		}
		if former := w.state().Former; len(former) > 0 {
			t.Errorf("not retired: %v", former)
		}
	}
	put(withPrincipal("x"), "x")
	set := w.stored(w.whole().scaleSet("nodepool1"))
	if set["identity"] != nil || w.document(t.Context(), resource.MustParseID(madeKubelet)) != nil {
		t.Errorf("with a service principal nodes have the identity %v", set["identity"])
	}
	put(as("SystemAssigned", "", ""), "client-of-principal-of-c1")
	if w.role("principal-of-x") || !w.role("principal-of-c1") {
		t.Errorf("roles %v", w.directory.roles)
	}
	if _, err := w.memory.Get(t.Context(), principalKey(w.state().UID)); err == nil {
		t.Error("the service principal's secret is kept")
	}
	put(as("UserAssigned", one, ""), "client-of-user-principal-id1")
	if len(w.directory.made) != 1 {
		t.Errorf("the system-assigned identity is left: %v", w.directory.made)
	}
	put(as("UserAssigned", two, kubelet), "client-of-user-principal-id2")
	if w.role("user-principal-id1") || !w.role("user-principal-id2") {
		t.Errorf("roles %v", w.directory.roles)
	}
	if len(w.directory.made) != 0 || w.document(t.Context(), resource.MustParseID(madeKubelet)) != nil {
		t.Errorf("the made kubelet identity is left: %v", w.directory.made)
	}
	set = w.stored(w.whole().scaleSet("nodepool1"))
	if assigned, _ := get(set, "identity.userAssignedIdentities").(object); assigned[kubelet] == nil || len(assigned) != 1 {
		t.Errorf("the scale set's identity is %v", set["identity"])
	}
	if got := get(w.view(testCluster, testVersion), "properties.identityProfile.kubeletidentity.clientId"); got != "user-client-kub" {
		t.Errorf("kubelet identity %v", got)
	}
	put(as("SystemAssigned", "", madeKubelet), "client-of-principal-of-c1")
	if len(w.directory.made) != 2 || w.document(t.Context(), resource.MustParseID(madeKubelet)) == nil {
		t.Errorf("made: %v", w.directory.made)
	}
	_, _, err := w.do(t.Context(), "PUT", testCluster, azureNodes(withPrincipal("x")))
	if err == nil {
		t.Error("back to a service principal")
	}
	w.must("DELETE", testCluster, "", resource.Succeeded)
	if len(w.directory.made) > 0 {
		t.Errorf("left over: %v", w.directory.made)
	}
}

func TestBadIdentities(t *testing.T) {
	w := newWorld(t)
	one, two, kubelet := w.userIdentity("id1"), w.userIdentity("id2"), w.userIdentity("kub")
	both := strings.Replace(as("UserAssigned", one, ""), `"`+one+`":{}`, `"`+one+`":{},"`+two+`":{}`, 1)
	wrong := strings.Replace(as("UserAssigned", one, kubelet), `"resourceId"`, `"clientId":"another","resourceId"`, 1)
	other := strings.Replace(as("UserAssigned", one, kubelet), "kubeletidentity", "others", 1)
	for name, c := range map[string]struct{ body, denied, code string }{
		"none":           {body: as("UserAssigned", "", ""), code: "InvalidIdentityNumber"},
		"two":            {body: both, code: "InvalidIdentityNumber"},
		"missing":        {body: as("UserAssigned", one+"x", ""), code: "FailedIdentityOperation"},
		"no identity":    {body: as("UserAssigned", testCluster, ""), code: "InvalidParameter"},
		"both kinds":     {body: as("SystemAssigned, UserAssigned", one, ""), code: "PropertyNotSupported"},
		"kubelet alone":  {body: as("SystemAssigned", "", kubelet), code: "CustomKubeletIdentityOnlySupportedOnUserAssignedMSICluster"},
		"kubelet gone":   {body: as("UserAssigned", one, kubelet+"x"), code: "FailedIdentityOperation"},
		"not operator":   {body: as("UserAssigned", one, kubelet), denied: assignAction, code: "CustomKubeletIdentityMissingPermissionError"},
		"another client": {body: wrong, code: "InvalidParameter"},
		"other profile":  {body: other, code: "PropertyNotSupported"},
	} {
		w.directory.denied = map[string]bool{c.denied: true}
		_, _, err := w.do(t.Context(), "PUT", testCluster, c.body)
		if found := problems(err); len(found) != 1 || found[0].Code != c.code {
			t.Errorf("%s: %v, want %s", name, err, c.code)
		}
	}
	w.nothingMade()
}

func (w *world) nothingMade() {
	if len(w.directory.made)+len(w.directory.roles) > 0 {
		w.t.Errorf("refused, but made: %v %v", w.directory.made, w.directory.roles)
	}
}

// The service gives a user's identity no role on a network of the user's.
func TestUserAssignedIdentityInSubnet(t *testing.T) {
	w := newWorld(t)
	w.withVNet(`{"name":"nodes","properties":{"addressPrefix":"10.1.2.0/24"}}`)
	user := w.userIdentity("id1")
	body := strings.Replace(as("UserAssigned", user, ""), `"name":"nodepool1"`, `"name":"nodepool1","vnetSubnetID":"`+testSubnet+`"`, 1)
	w.directory.denied = map[string]bool{joinSubnetAction: true}
	if _, _, err := w.do(t.Context(), "PUT", testCluster, body); len(problems(err)) != 1 || problems(err)[0].Code != "ResourceMissingPermissionError" {
		t.Errorf("without a role on the subnet: %v", err)
	}
	w.directory.denied = nil
	w.must("PUT", testCluster, body, resource.Succeeded)
	for _, role := range w.directory.roles {
		if strings.Contains(role, networkRole) {
			t.Errorf("the service gave %s", role)
		}
	}
}

func TestResetServicePrincipal(t *testing.T) {
	w := newWorld(t)
	w.withCloud()
	w.must("PUT", testCluster, azureNodes(withPrincipal("x")), resource.Succeeded)
	for _, body := range []string{`{}`, `{"clientId":"y"}`, `{"clientId":"y","secret":"wrong"}`, `{"clientId":7,"secret":"right"}`} {
		if _, _, err := w.do(t.Context(), "POST", testCluster+"/resetServicePrincipalProfile", body); err == nil {
			t.Errorf("%s is accepted", body)
		}
	}
	w.must("POST", testCluster+"/resetServicePrincipalProfile", `{"clientId":"y","secret":"right"}`, resource.Succeeded)
	if got := w.acts(); got != "y right" {
		t.Errorf("controllers act as %q", got)
	}
	if w.role("principal-of-x") || !w.role("principal-of-y") {
		t.Errorf("roles %v", w.directory.roles)
	}
	view := w.view(testCluster, testVersion)
	raw, err := json.Marshal(view)
	if err != nil || get(view, "properties.servicePrincipalProfile.clientId") != "y" || strings.Contains(string(raw), "right") {
		t.Errorf("it reads %s, %v", raw, err)
	}
	if _, plan, err := w.do(t.Context(), "PUT", testCluster, string(raw)); err != nil || plan.Async {
		t.Errorf("the read body written again: %+v, %v", plan, err)
	}
	w.must("POST", testCluster+"/stop", "", resource.Succeeded)
	if _, _, err := w.do(t.Context(), "POST", testCluster+"/resetServicePrincipalProfile", `{"clientId":"y","secret":"right"}`); err == nil {
		t.Error("a stopped cluster is reset")
	}
}

func TestResetNeedsAServicePrincipal(t *testing.T) {
	w := newWorld(t)
	w.must("PUT", testCluster, azBody(1), resource.Succeeded)
	if _, _, err := w.do(t.Context(), "POST", testCluster+"/resetServicePrincipalProfile", `{"clientId":"y","secret":"right"}`); err == nil {
		t.Error("a cluster with a managed identity is reset")
	}
}

// A secret that ended or is gone is said of the cluster that has it.
func TestEndedSecretsAreTold(t *testing.T) {
	w := newWorld(t)
	w.must("PUT", testCluster, withPrincipal("x"), resource.Succeeded)
	for _, c := range []struct {
		end  time.Time
		code any
	}{{time.Now().Add(time.Hour), nil}, {time.Now().Add(-time.Hour), "ServicePrincipalSecretExpired"}, {time.Time{}, "ServicePrincipalNotFound"}} {
		w.directory.ends["x"] = c.end
		view := w.view(testCluster, testVersion)
		if got := get(view, "properties.status.provisioningError.code"); got != c.code {
			t.Errorf("end %s: %v", c.end, got)
		}
	}
}

// Whatever write serve is killed at while a cluster changes its identities: in
// the end it is what was asked for last, and of the others nothing is left.
func TestIdentitiesKilledAtEveryWrite(t *testing.T) {
	for _, after := range []bool{false, true} {
		deaths := 0
		for n := 1; ; n++ {
			w := newWorld(t)
			one, kubelet := w.userIdentity("id1"), w.userIdentity("kub")
			k := &killer{Store: w.memory, left: n, after: after}
			died := false
			w.restart(k)
			for _, s := range []struct{ method, path, body string }{
				{"PUT", testCluster, withPrincipal("x")},
				{"POST", testCluster + "/resetServicePrincipalProfile", `{"clientId":"y","secret":"right"}`},
				{"PUT", testCluster, as("SystemAssigned", "", "")},
				{"PUT", testCluster, as("UserAssigned", one, kubelet)},
				{"PUT", testCluster, as("SystemAssigned", "", madeKubelet)},
				{"PUT", testCluster, as("UserAssigned", one, "")},
			} {
				died = w.survive(k, s.method, s.path, s.body) || died
			}
			if roles, made := w.directory.roles, w.directory.made; !w.role("user-principal-id1") || w.role("principal-of-x") || w.role("principal-of-y") || len(made) != 1 {
				t.Fatalf("killed at %d: made %v, roles %v", n, made, roles)
			}
			died = w.survive(k, "DELETE", testCluster, "") || died
			if len(w.directory.made) > 0 {
				t.Fatalf("killed at %d: left over %v", n, w.directory.made)
			}
			if !died {
				break
			}
			deaths++
		}
		if deaths < 15 {
			t.Errorf("only %d writes were there to be killed at", deaths)
		}
	}
}

// only lets a caller do one thing.
type only struct{ scope string }

func (only) Authenticate(context.Context, string) (arm.Principal, error) { return arm.Principal{}, nil }
func (o only) Authorize(_ context.Context, _ arm.Principal, action string, scope resource.ID) error {
	if action == assignAction && strings.EqualFold(scope.String(), o.scope) {
		return nil
	}
	return fault.New(fault.Forbidden, "AuthorizationFailed", "No.")
}

// Nobody gets an identity's powers by giving it to a cluster of his.
func TestIdentitiesAreTheirOwners(t *testing.T) {
	w := newWorld(t)
	one, two, kubelet := w.userIdentity("id1"), w.userIdentity("id2"), w.userIdentity("kub")
	w.p.Authorizer = only{one}
	for _, body := range []string{as("UserAssigned", two, ""), as("UserAssigned", two+"missing", ""), as("UserAssigned", one, kubelet)} {
		_, _, err := w.do(t.Context(), "PUT", testCluster, body)
		if found := problems(err); len(found) != 1 || found[0].Code != "LinkedAuthorizationFailed" {
			t.Errorf("%v", err)
		}
	}
	w.nothingMade()
	w.must("PUT", testCluster, as("UserAssigned", one, ""), resource.Succeeded)
	// Who may only work with the cluster keeps what it has, and gives it nothing else.
	w.p.Authorizer = only{}
	w.must("PUT", testCluster, strings.Replace(as("UserAssigned", one, ""), `"count":1`, `"count":2`, 1), resource.Succeeded)
	if _, _, err := w.do(t.Context(), "PUT", testCluster, as("UserAssigned", two, "")); err == nil {
		t.Error("the cluster gets another identity")
	}
}
