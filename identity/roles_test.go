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
	"bastide.dev/store"
)

const (
	nodeGroup = "/subscriptions/s/resourceGroups/MC_g_c_eastus"
	balancer  = nodeGroup + "/providers/Microsoft.Network/loadBalancers/kubernetes"
)

// TestFormerAssignmentsAreNoTrouble opens an older instance's directory, which
// held role assignments of Azure's resources.
func TestFormerAssignmentsAreNoTrouble(t *testing.T) {
	w := newWorld(t)
	if _, err := w.store.Put(t.Context(), "identity/assignments/1", []byte(`{"id":"1","principalId":"p"}`), store.Absent); err != nil {
		t.Fatal(err)
	}
	fresh := open(t, w.store, w.clock)
	if _, err := fresh.User(t.Context(), fresh.first.Administrator); err != nil {
		t.Error(err)
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
