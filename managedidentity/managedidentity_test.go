// SPDX-License-Identifier: Apache-2.0

package managedidentity_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	azarm "github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/msi/armmsi"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/identity"
	"bastide.dev/managedidentity"
	"bastide.dev/resource"
	"bastide.dev/store"
	"bastide.dev/store/memory"
)

const subscription = "0b1f6471-1bf0-4dda-aec3-cb9272f09590"

// anyone may do anything here: tokens and roles are other packages' tests.
type anyone struct{}

func (anyone) Authenticate(context.Context, string) (arm.Principal, error) {
	return arm.Principal{ID: "p1", Kind: "ServicePrincipal", Name: "test"}, nil
}
func (anyone) Authorize(context.Context, arm.Principal, string, resource.ID) error { return nil }
func (anyone) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: "token", ExpiresOn: time.Now().Add(time.Hour)}, nil
}

// directory is the real one, as cmd/bastide hands it over.
type directory struct{ *identity.Directory }

func (d directory) PlanIdentity(ctx context.Context, name, id string) (managedidentity.Principal, []store.Change, error) {
	principal, client, changes, err := d.PlanManagedIdentity(ctx, name, id)
	return managedidentity.Principal{ID: principal, ClientID: client}, changes, err
}

func (d directory) PlanCredentials(ctx context.Context, principalID string, edit func([]managedidentity.Credential) ([]managedidentity.Credential, error)) (store.Change, error) {
	return d.PlanFederated(ctx, principalID, func(have []identity.FederatedCredential) ([]identity.FederatedCredential, error) {
		var credentials []managedidentity.Credential
		for _, c := range have {
			credentials = append(credentials, managedidentity.Credential{ID: c.ID, Name: c.Name, Issuer: c.Issuer, Subject: c.Subject, Audiences: c.Audiences})
		}
		credentials, err := edit(credentials)
		var next []identity.FederatedCredential
		for _, c := range credentials {
			next = append(next, identity.FederatedCredential{ID: c.ID, Name: c.Name, Issuer: c.Issuer, Subject: c.Subject, Audiences: c.Audiences})
		}
		return next, err
	})
}

func (d directory) Identity(ctx context.Context, id string) (managedidentity.Principal, error) {
	sp, err := d.ManagedIdentity(ctx, id)
	return managedidentity.Principal{ID: sp.ID, ClientID: sp.AppID}, err
}

// failing is a store whose next transactions fail, before or after they are made.
type failing struct {
	store.Store
	before, after bool
}

func (f *failing) Txn(ctx context.Context, changes ...store.Change) (int64, error) {
	if f.before {
		return 0, fault.New(fault.Unavailable, "StoreDown", "The store is down.")
	}
	revision, err := f.Store.Txn(ctx, changes...)
	if f.after {
		return 0, fault.New(fault.Unavailable, "StoreDown", "The store went down.")
	}
	return revision, err
}

type world struct {
	t         *testing.T
	store     *failing
	directory *identity.Directory
	sdk       *armmsi.ClientFactory
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, store: &failing{Store: memory.New(0)}}
	server := httptest.NewUnstartedServer(nil)
	url := "https://" + server.Listener.Addr().String()
	var err error
	w.directory, err = identity.New(identity.Config{Store: w.store, Log: slog.New(slog.DiscardHandler),
		Endpoints: identity.Endpoints{Authority: url, ResourceManager: url, Graph: url, Registry: url}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.directory.Bootstrap(t.Context(), identity.BootstrapOptions{SubscriptionID: subscription}); err != nil {
		t.Fatal(err)
	}
	p, err := managedidentity.New(managedidentity.Config{Store: w.store, Directory: directory{w.directory}, Tenant: "5c7d4d1c-5a9c-4a50-a27a-5ca5a0c3b6a1", Location: "eastus"})
	if err != nil {
		t.Fatal(err)
	}
	handler, err := arm.New(arm.Config{Store: w.store, Authenticator: anyone{}, Authorizer: anyone{}, Providers: []arm.Provider{p.ARM()},
		Tenant: arm.Tenant{ID: "5c7d4d1c-5a9c-4a50-a27a-5ca5a0c3b6a1"}, Subscriptions: []arm.Subscription{{ID: subscription, DisplayName: "test"}},
		Endpoints: arm.Endpoints{ResourceManager: url, Login: url}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	server.Config.Handler = handler
	server.StartTLS()
	t.Cleanup(server.Close)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	go func() { ended <- w.directory.Run(ctx) }()
	go func() { ended <- handler.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	})
	w.group("rg1")
	w.sdk, err = armmsi.NewClientFactory(subscription, anyone{}, &azarm.ClientOptions{DisableRPRegistration: true, ClientOptions: policy.ClientOptions{
		Transport: server.Client(), Retry: policy.RetryOptions{MaxRetries: -1},
		Cloud: cloud.Configuration{Services: map[cloud.ServiceName]cloud.ServiceConfiguration{cloud.ResourceManager: {Endpoint: url, Audience: url}}}}})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) group(name string) {
	w.t.Helper()
	change, err := arm.PutDocument(&arm.Document{Envelope: resource.Envelope{ID: resource.GroupID(subscription, name), Type: resource.TypeGroup,
		Name: name, Location: "eastus", ProvisioningState: resource.Succeeded, Body: []byte(`{}`)}})
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.store.Store.Txn(w.t.Context(), change); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) identities() *armmsi.UserAssignedIdentitiesClient {
	return w.sdk.NewUserAssignedIdentitiesClient()
}
func (w *world) credentials() *armmsi.FederatedIdentityCredentialsClient {
	return w.sdk.NewFederatedIdentityCredentialsClient()
}

func (w *world) make(name string) armmsi.Identity {
	w.t.Helper()
	made, err := w.identities().CreateOrUpdate(w.t.Context(), "rg1", name, armmsi.Identity{Location: ptr("eastus"), Tags: map[string]*string{"k": ptr("v")}}, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return made.Identity
}

func credential(issuer, subject string) armmsi.FederatedIdentityCredential {
	return armmsi.FederatedIdentityCredential{Properties: &armmsi.FederatedIdentityCredentialProperties{
		Issuer: ptr(issuer), Subject: ptr(subject), Audiences: []*string{ptr("api://AzureADTokenExchange")}}}
}

func ptr[T any](v T) *T { return &v }

func code(err error) string {
	var answer *azcore.ResponseError
	if errors.As(err, &answer) {
		return answer.ErrorCode
	}
	return fmt.Sprint(err)
}

// An identity lives in Resource Manager and in the directory alike.
func TestLife(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	made := w.make("id1")
	sp, err := w.directory.ServicePrincipal(ctx, *made.Properties.PrincipalID)
	if err != nil || sp.AppID != *made.Properties.ClientID || sp.Type != identity.ManagedIdentity || !strings.EqualFold(sp.ResourceID, *made.ID) {
		t.Fatalf("principal %+v, %v", sp, err)
	}
	if *made.Properties.TenantID == "" || *made.Tags["k"] != "v" {
		t.Errorf("%+v", made)
	}
	if again := w.make("id1"); *again.Properties.PrincipalID != sp.ID {
		t.Errorf("another PUT drew another principal")
	}
	patched, err := w.identities().Update(ctx, "rg1", "id1", armmsi.IdentityUpdate{Tags: map[string]*string{"a": ptr("b")}}, nil)
	if err != nil || *patched.Tags["a"] != "b" || *patched.Properties.PrincipalID != sp.ID {
		t.Errorf("PATCH: %+v, %v", patched, err)
	}
	w.make("id2")
	for _, list := range []func() (int, error){
		func() (int, error) {
			page, err := w.identities().NewListByResourceGroupPager("rg1", nil).NextPage(ctx)
			return len(page.Value), err
		},
		func() (int, error) {
			page, err := w.identities().NewListBySubscriptionPager(nil).NextPage(ctx)
			return len(page.Value), err
		},
	} {
		if n, err := list(); n != 2 || err != nil {
			t.Errorf("list has %d, %v", n, err)
		}
	}
	_, secret, err := w.directory.PlatformSecret(ctx, sp.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.identities().Delete(ctx, "rg1", "id1", nil); err != nil {
		t.Fatal(err)
	}
	w.eventually(func() bool {
		_, _, err := w.directory.CheckSecret(ctx, sp.AppID, secret, "")
		return err != nil
	})
	w.nothingOf(sp.ID)
	if again := w.make("id1"); *again.Properties.PrincipalID == sp.ID {
		t.Error("the identity made anew is the old one: it would have the old one's roles")
	}
}

// nothingOf checks that no document of the store but the logs names a principal any more.
func (w *world) nothingOf(id string) {
	w.t.Helper()
	records, _, err := w.store.List(w.t.Context(), "")
	if err != nil {
		w.t.Fatal(err)
	}
	for _, r := range records {
		if strings.Contains(r.Key+string(r.Value), id) && !strings.HasPrefix(r.Key, arm.ActivityPrefix) && !strings.HasPrefix(r.Key, "identity-audit/") {
			w.t.Errorf("%s is left of %s", r.Key, id)
		}
	}
}

func (w *world) eventually(reached func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !reached(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatal("it doesn't come to that")
		}
	}
}

// Who an identity is says the directory, not the client.
func TestPrincipalsCantBeChosen(t *testing.T) {
	w := newWorld(t)
	other := w.make("other")
	made, err := w.identities().CreateOrUpdate(t.Context(), "rg1", "thief", armmsi.Identity{Location: ptr("eastus"),
		Properties: &armmsi.UserAssignedIdentityProperties{PrincipalID: other.Properties.PrincipalID, ClientID: other.Properties.ClientID}}, nil)
	if err != nil || *made.Properties.PrincipalID == *other.Properties.PrincipalID {
		t.Errorf("%+v, %v", made, err)
	}
	if _, err := w.identities().Delete(t.Context(), "rg1", "thief", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := w.directory.ServicePrincipal(t.Context(), *other.Properties.PrincipalID); err != nil {
		t.Errorf("the other's principal is gone: %v", err)
	}
}

func TestRefusedIdentities(t *testing.T) {
	w := newWorld(t)
	for name, location := range map[string]string{"ab": "eastus", "-abc": "eastus", "good": "westus"} {
		if _, err := w.identities().CreateOrUpdate(t.Context(), "rg1", name, armmsi.Identity{Location: ptr(location)}, nil); err == nil {
			t.Errorf("%s in %s is accepted", name, location)
		}
	}
}

// A store that fails before or after a transaction leaves neither half alone.
func TestNoHalves(t *testing.T) {
	for _, after := range []bool{false, true} {
		w := newWorld(t)
		ctx := t.Context()
		fails := func(yes bool) { w.store.before, w.store.after = yes && !after, yes && after }
		check := func(step string) {
			t.Helper()
			documents, _, err := arm.ListDocuments(ctx, w.store, resource.GroupID(subscription, "rg1"), "")
			if err != nil {
				t.Fatal(err)
			}
			sps, credentials, docs, creds := 0, 0, 0, 0
			w.eventually(func() bool { // the directory's watch
				all, err := w.directory.ServicePrincipals(ctx)
				if err != nil {
					t.Fatal(err)
				}
				sps, credentials, docs, creds = 0, 0, 0, 0
				for _, sp := range all {
					if sp.Type == identity.ManagedIdentity {
						sps++
						credentials += len(sp.Federated)
					}
				}
				for _, d := range documents {
					if d.ID.IsType(managedidentity.Type) {
						docs++
					} else {
						creds++
					}
				}
				return sps == docs && credentials == creds
			})
			t.Logf("after=%v %s: %d identities, %d credentials", after, step, docs, creds)
		}
		put := func() error {
			_, err := w.identities().CreateOrUpdate(ctx, "rg1", "id1", armmsi.Identity{Location: ptr("eastus")}, nil)
			return err
		}
		bind := func() error {
			_, err := w.credentials().CreateOrUpdate(ctx, "rg1", "id1", "cred", credential("https://issuer.example/", "sub"), nil)
			return err
		}
		unbind := func() error { _, err := w.credentials().Delete(ctx, "rg1", "id1", "cred", nil); return err }
		remove := func() error { _, err := w.identities().Delete(ctx, "rg1", "id1", nil); return err }
		for _, step := range []struct {
			name string
			do   func() error
		}{{"put", put}, {"bind", bind}, {"unbind", unbind}, {"bind again", bind}, {"delete", remove}} {
			fails(true)
			if err := step.do(); err == nil && !after {
				t.Errorf("%s succeeded without a store", step.name)
			}
			fails(false)
			check(step.name + " failed")
			if err := step.do(); err != nil {
				t.Errorf("%s again: %v", step.name, err)
			}
			check(step.name)
		}
	}
}

func TestCredentials(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	made := w.make("id1")
	put := func(name string, c armmsi.FederatedIdentityCredential) error {
		_, err := w.credentials().CreateOrUpdate(ctx, "rg1", "id1", name, c, nil)
		return err
	}
	bad := []armmsi.FederatedIdentityCredential{
		credential("http://issuer.example/", "sub"), credential("issuer.example", "sub"), credential("https://user@issuer.example/", "sub"),
		credential("https://issuer.example/?x=y", "sub"), credential("https://issuer.example/#", "sub"), credential("https:///", "sub"),
		credential("https://issuer.example/", ""), credential("https://issuer.example/", strings.Repeat("x", 601)),
		credential("https://issuer.example/"+strings.Repeat("x", 600), "sub"),
	}
	two := credential("https://issuer.example/", "sub")
	two.Properties.Audiences = append(two.Properties.Audiences, ptr("another"))
	none := credential("https://issuer.example/", "sub")
	none.Properties.Audiences = nil
	for i, c := range append(bad, two, none) {
		if err := put("cred", c); err == nil {
			t.Errorf("bad credential %d is accepted", i)
		}
	}
	for i := range 20 {
		if err := put(fmt.Sprintf("cred%d", i), credential("https://issuer.example/", fmt.Sprintf("sub%d", i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := put("cred20", credential("https://issuer.example/", "sub20")); err == nil {
		t.Error("a 21st credential is accepted")
	}
	if err := put("cred1", credential("https://issuer.example/", "sub0")); code(err) != "Conflict" {
		t.Errorf("a second one of an issuer and subject: %v", err)
	}
	if err := put("cred1", credential("https://issuer.example/", "Sub0")); err != nil {
		t.Errorf("subjects have a case: %v", err)
	}
	page, err := w.credentials().NewListPager("rg1", "id1", nil).NextPage(ctx)
	if err != nil || len(page.Value) != 20 {
		t.Errorf("list has %d, %v", len(page.Value), err)
	}
	w.eventually(func() bool {
		sp, err := w.directory.ServicePrincipal(ctx, *made.Properties.PrincipalID)
		return err == nil && len(sp.Federated) == 20 && sp.Federated[1].Subject == "Sub0" && sp.Federated[0].ID != ""
	})
}

// Writers of one identity's credentials at the same time don't undo each other.
func TestCredentialsAtOnce(t *testing.T) {
	w := newWorld(t)
	made := w.make("id1")
	done := make(chan error)
	for i := range 8 {
		go func() {
			_, err := w.credentials().CreateOrUpdate(t.Context(), "rg1", "id1", fmt.Sprintf("cred%d", i), credential("https://issuer.example/", fmt.Sprint(i)), nil)
			done <- err
		}()
	}
	for range 8 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	w.eventually(func() bool {
		sp, err := w.directory.ServicePrincipal(t.Context(), *made.Properties.PrincipalID)
		return err == nil && len(sp.Federated) == 8
	})
}

func TestSystemAssigned(t *testing.T) {
	w := newWorld(t)
	scope := "/subscriptions/" + subscription + "/resourceGroups/rg1/providers/Microsoft.Compute/virtualMachines/vm1"
	principal, client, err := w.directory.CreateManagedIdentity(t.Context(), "vm1", scope)
	if err != nil {
		t.Fatal(err)
	}
	got, err := w.sdk.NewSystemAssignedIdentitiesClient().GetByScope(t.Context(), scope, nil)
	if err != nil || *got.Properties.PrincipalID != principal || *got.Properties.ClientID != client {
		t.Errorf("%+v, %v", got, err)
	}
	made := w.make("id1")
	for _, without := range []string{scope + "x", *made.ID} {
		if _, err := w.sdk.NewSystemAssignedIdentitiesClient().GetByScope(t.Context(), without, nil); code(err) != "ResourceNotFound" {
			t.Errorf("%s: %v", without, err)
		}
	}
}
