// SPDX-License-Identifier: Apache-2.0

package identity_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"bastide.dev/fault"
	"bastide.dev/identity"
)

const (
	nodeGroup = "/subscriptions/s/resourceGroups/MC_g_c_eastus"
	balancer  = nodeGroup + "/providers/Microsoft.Network/loadBalancers/kubernetes"
)

func TestRolesGrantWhatAzureSays(t *testing.T) {
	w := newWorld(t)
	principals := map[string]string{}
	for name, role := range map[string]string{"owner": identity.OwnerRole, "contributor": strings.ToUpper(identity.ContributorRole), "reader": identity.ReaderRole,
		"network": identity.NetworkContributorRole, "operator": identity.ManagedIdentityOperatorRole} {
		id, _, err := w.CreateManagedIdentity(t.Context(), name, nodeGroup+"/x/"+name)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := w.Assign(t.Context(), id, role, nodeGroup); err != nil {
				t.Fatal(err)
			}
		}
		principals[name] = id
	}
	cases := []struct{ action, scope, may string }{
		{"Microsoft.Network/loadBalancers/write", balancer, "contributor network owner"},
		{"microsoft.network/loadbalancers/READ", strings.ToLower(balancer), "contributor network owner reader"},
		{"Microsoft.Network/loadBalancers", balancer, "contributor network owner"},
		{"Microsoft.Compute/virtualMachineScaleSets/write", nodeGroup, "contributor owner"},
		{"Microsoft.ContainerService/managedClusters/listClusterAdminCredential/action", nodeGroup, "contributor owner"},
		{"Microsoft.Authorization/roleAssignments/write", nodeGroup, "owner"},
		{"Microsoft.Authorization/roleAssignments/DELETE", nodeGroup, "owner"},
		{"Microsoft.Authorization/elevateAccess/action", nodeGroup, "owner"},
		{"Microsoft.Authorization/roleAssignments/read", nodeGroup, "contributor network operator owner reader"},
		{"Microsoft.ManagedIdentity/userAssignedIdentities/assign/action", nodeGroup, "contributor operator owner"},
		{"Microsoft.ManagedIdentity/userAssignedIdentities/write", nodeGroup, "contributor owner"},
		{"Microsoft.Resources/subscriptions/resourceGroups/read", nodeGroup, "contributor network operator owner reader"},
		{"Microsoft.Resources/subscriptions/resourceGroups/write", nodeGroup, "contributor owner"},
		{"Microsoft.Network/loadBalancers/read", nodeGroup + "2", ""},
		{"Microsoft.Network/loadBalancers/read", "/subscriptions/s", ""},
		{"Microsoft.Resources/subscriptions/providers/read", "/subscriptions/s", "contributor network operator owner reader"},
		{"Microsoft.Resources/subscriptions/providers/read", "/subscriptions/other", ""},
		{"Microsoft.Resources/subscriptions/resourceGroups/read", "/subscriptions/s", ""},
	}
	for _, c := range cases {
		for name, id := range principals {
			err := w.Authorize(t.Context(), identity.Principal{ID: id}, c.action, c.scope)
			if want := strings.Contains(" "+c.may+" ", " "+name+" "); (err == nil) != want {
				t.Errorf("%s may %s on %s: %v, want %v", name, c.action, c.scope, err == nil, want)
			}
		}
	}
	if err := w.Unassign(t.Context(), principals["owner"]); err != nil {
		t.Fatal(err)
	}
	wantCode(t, w.Authorize(t.Context(), identity.Principal{ID: principals["owner"]}, "a/read", nodeGroup), "AuthorizationFailed")
	if err := w.Assign(t.Context(), principals["owner"], identity.OwnerRole, nodeGroup); err != nil {
		t.Fatal(err)
	}
	if err := w.Authorize(t.Context(), identity.Principal{ID: principals["owner"]}, "a/read", nodeGroup); err != nil {
		t.Errorf("a role that was taken and given again: %v", err)
	}
}

func TestAssignIsOneDocument(t *testing.T) {
	w := newWorld(t)
	user, err := w.CreateUser(t.Context(), "u", "U", "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	before, _, err := w.store.List(t.Context(), "identity/assignments/")
	if err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	for range 4 {
		d := open(t, w.store, w.clock)
		wait.Go(func() {
			if err := d.Assign(context.Background(), user.ID, identity.ReaderRole, nodeGroup); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if after, _, err := w.store.List(t.Context(), "identity/assignments/"); err != nil || len(after) != len(before)+1 {
		t.Errorf("%d assignments became %d, %v", len(before), len(after), err)
	}
	fresh := open(t, w.store, w.clock)
	if err := fresh.DeleteUser(t.Context(), user.ID); err != nil {
		t.Fatal(err)
	}
	if after, _, err := w.store.List(t.Context(), "identity/assignments/"); err != nil || len(after) != len(before) {
		t.Errorf("%d assignments instead of %d after the user went, %v", len(after), len(before), err)
	}
}

func TestPlatformSecret(t *testing.T) {
	w := newWorld(t)
	id, clientID, err := w.CreateManagedIdentity(t.Context(), "c", nodeGroup+"/c")
	if err != nil {
		t.Fatal(err)
	}
	secrets := make([]string, 4)
	var wait sync.WaitGroup
	for i := range secrets {
		d := open(t, w.store, w.clock)
		wait.Go(func() {
			client, secret, err := d.PlatformSecret(context.Background(), id)
			if err != nil || client != clientID {
				t.Error(client, err)
			}
			secrets[i] = secret
		})
	}
	wait.Wait()
	if fmt.Sprint(secrets) != fmt.Sprint([]string{secrets[0], secrets[0], secrets[0], secrets[0]}) || len(secrets[0]) != 40 {
		t.Fatalf("replicas disagree: %d secrets", len(secrets))
	}
	replica := open(t, w.store, w.clock)
	if !signsIn(t, replica, clientID, secrets[0]) {
		t.Error("the secret is refused")
	}
	records, _, err := w.store.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		if !strings.HasPrefix(r.Key, "secrets/") && strings.Contains(string(r.Value), secrets[0]) {
			t.Errorf("%s holds the secret in clear", r.Key)
		}
	}
	// What Graph shows and lets others replace doesn't have it.
	if err := replica.UpdateServicePrincipal(t.Context(), id, func(sp *identity.ServicePrincipal) { sp.Secrets = nil }); err != nil {
		t.Fatal(err)
	}
	if !signsIn(t, replica, clientID, secrets[0]) {
		t.Error("a credential reset takes the service's own secret")
	}
	w.clock.add(6 * 365 * 24 * time.Hour)
	late := open(t, w.store, w.clock)
	_, next, err := late.PlatformSecret(t.Context(), id)
	if err != nil || next == secrets[0] {
		t.Fatalf("it isn't renewed: %v", err)
	}
	if !signsIn(t, late, clientID, next) || !signsIn(t, late, clientID, secrets[0]) {
		t.Error("the new or the old secret is refused while both live")
	}
	if err := late.DeletePrincipal(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if _, _, err := late.PlatformSecret(t.Context(), id); !fault.Is(err, fault.NotFound) {
		t.Errorf("a secret of nobody: %v", err)
	}
	if left, _, err := w.store.List(t.Context(), "secrets/identity/platform/"); err != nil || len(left) > 0 {
		t.Errorf("%d secrets left, %v", len(left), err)
	}
}

// signsIn tells whether a client gets a token for Resource Manager that is accepted.
func signsIn(t *testing.T, w world, clientID, secret string) bool {
	t.Helper()
	sp, credential, err := w.CheckSecret(t.Context(), clientID, secret, "1.1.1.1")
	if err != nil {
		return false
	}
	arm, err := w.Resource(t.Context(), "https://management.test")
	if err != nil {
		t.Fatal(err)
	}
	token, err := w.PrincipalToken(t.Context(), sp, arm, credential)
	if err != nil {
		t.Fatal(err)
	}
	p, err := w.Authenticate(t.Context(), token)
	return err == nil && p.ID == sp.ID
}
