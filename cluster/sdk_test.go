// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	azarm "github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	sdk "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v6"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/resource"
	"bastide.dev/store"
)

const testSubscription = "0b1f6471-1bf0-4dda-aec3-cb9272f09590"

// anyone may do anything here: tokens and roles are other packages' tests.
type anyone struct{}

func (anyone) Authenticate(_ context.Context, bearer string) (arm.Principal, error) {
	if bearer != "token" {
		return arm.Principal{}, fault.New(fault.Unauthorized, "InvalidAuthenticationToken", "The token is wrong.")
	}
	return arm.Principal{ID: "p1", Kind: "ServicePrincipal", Name: "test"}, nil
}

func (anyone) Authorize(context.Context, arm.Principal, string, resource.ID) error { return nil }

func (anyone) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: "token", ExpiresOn: time.Now().Add(time.Hour)}, nil
}

// service is the front door with this provider, its reconciler, and a host.
func service(t *testing.T, wait time.Duration) (*world, *sdk.ClientFactory) {
	t.Helper()
	w := newWorld(t)
	server := httptest.NewUnstartedServer(nil)
	url := "https://" + server.Listener.Addr().String()
	handler, err := arm.New(arm.Config{Store: w.memory, Authenticator: anyone{}, Authorizer: anyone{},
		Providers: []arm.Provider{w.p.ARM()}, Tenant: arm.Tenant{ID: "t1"},
		Subscriptions: []arm.Subscription{{ID: testSubscription, DisplayName: "test"}},
		Endpoints:     arm.Endpoints{ResourceManager: url, Login: url}, Logger: slog.New(slog.DiscardHandler), Wait: wait})
	if err != nil {
		t.Fatal(err)
	}
	server.Config.Handler = handler
	server.StartTLS()
	t.Cleanup(server.Close)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 2)
	go func() { done <- w.p.Run(ctx) }()
	go func() { done <- answer(ctx, w) }()
	t.Cleanup(func() {
		stop()
		for range 2 {
			if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
	})
	w.group("rg1")
	factory, err := sdk.NewClientFactory(testSubscription, anyone{}, &azarm.ClientOptions{ClientOptions: policy.ClientOptions{
		Transport: server.Client(),
		Cloud:     cloud.Configuration{Services: map[cloud.ServiceName]cloud.ServiceConfiguration{cloud.ResourceManager: {Endpoint: url, Audience: url}}},
		Retry:     policy.RetryOptions{MaxRetries: -1},
	}, DisableRPRegistration: true})
	if err != nil {
		t.Fatal(err)
	}
	return w, factory
}

// group makes a resource group as the front door keeps it.
func (w *world) group(name string) {
	w.t.Helper()
	change, err := arm.PutDocument(&arm.Document{Envelope: resource.Envelope{ID: resource.GroupID(testSubscription, name),
		Type: resource.TypeGroup, Name: name, Location: "eastus", ProvisioningState: resource.Succeeded, Body: json.RawMessage(`{}`)}})
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.memory.Txn(w.t.Context(), store.Change{Key: change.Key, Value: change.Value, Revision: store.Any}); err != nil {
		w.t.Fatal(err)
	}
}

// done waits for an operation of the SDK's.
func done[T any](t *testing.T) func(*runtime.Poller[T], error) T {
	return func(poller *runtime.Poller[T], err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		result, err := poller.PollUntilDone(t.Context(), &runtime.PollUntilDoneOptions{Frequency: time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		return result
	}
}

// The Azure SDK drives the whole life of a cluster through the real front door;
// the wait is short, so that each operation is followed by its polling.
func TestAzureSDK(t *testing.T) {
	t.Parallel()
	w, factory := service(t, time.Nanosecond)
	ctx := t.Context()
	clusters, pools := factory.NewManagedClustersClient(), factory.NewAgentPoolsClient()
	created := done[sdk.ManagedClustersClientCreateOrUpdateResponse](t)(clusters.BeginCreateOrUpdate(ctx, "rg1", "c1", sdk.ManagedCluster{
		Location: ptr("eastus"), Tags: map[string]*string{"a": ptr("b")},
		Identity: &sdk.ManagedClusterIdentity{Type: ptr(sdk.ResourceIdentityTypeSystemAssigned)},
		Properties: &sdk.ManagedClusterProperties{DNSPrefix: ptr("c1"), KubernetesVersion: ptr("1.36"), AgentPoolProfiles: []*sdk.ManagedClusterAgentPoolProfile{
			{Name: ptr("system"), Count: ptr[int32](1), VMSize: ptr("Standard_D2s_v5"), Mode: ptr(sdk.AgentPoolModeSystem)}}},
	}, nil))
	if got := *created.Properties.CurrentKubernetesVersion; got != "1.36.3" || *created.Properties.ProvisioningState != "Succeeded" {
		t.Errorf("created with version %s, state %s", got, *created.Properties.ProvisioningState)
	}
	if created.Identity.PrincipalID == nil || *created.Properties.IdentityProfile["kubeletidentity"].ClientID != "client-of-c1-agentpool" {
		t.Errorf("identities: %+v", created.Identity)
	}
	done[sdk.AgentPoolsClientCreateOrUpdateResponse](t)(pools.BeginCreateOrUpdate(ctx, "rg1", "c1", "np2", sdk.AgentPool{
		Properties: &sdk.ManagedClusterAgentPoolProfileProperties{Count: ptr[int32](2), VMSize: ptr("Standard_D2s_v5")}}, nil))
	read, err := clusters.Get(ctx, "rg1", "c1", nil)
	if err != nil || len(read.Properties.AgentPoolProfiles) != 2 || *read.Properties.AgentPoolProfiles[0].Count != 2 {
		t.Fatalf("the cluster's pools: %+v, %v", read.Properties, err)
	}
	// What was read is written back, changed: scale through the cluster.
	read.Properties.AgentPoolProfiles[0].Count = ptr[int32](1)
	done[sdk.ManagedClustersClientCreateOrUpdateResponse](t)(clusters.BeginCreateOrUpdate(ctx, "rg1", "c1", read.ManagedCluster, nil))
	pool, err := pools.Get(ctx, "rg1", "c1", "np2", nil)
	if err != nil || *pool.Properties.Count != 1 || *pool.Properties.ProvisioningState != "Succeeded" {
		t.Errorf("the pool after scaling: %+v, %v", pool.Properties, err)
	}
	done[sdk.ManagedClustersClientStopResponse](t)(clusters.BeginStop(ctx, "rg1", "c1", nil))
	if read, err = clusters.Get(ctx, "rg1", "c1", nil); err != nil || *read.Properties.PowerState.Code != sdk.CodeStopped {
		t.Errorf("stopped: %+v, %v", read.Properties.PowerState, err)
	}
	done[sdk.ManagedClustersClientStartResponse](t)(clusters.BeginStart(ctx, "rg1", "c1", nil))
	done[sdk.AgentPoolsClientDeleteResponse](t)(pools.BeginDelete(ctx, "rg1", "c1", "np2", nil))
	for page := pools.NewListPager("rg1", "c1", nil); page.More(); {
		list, err := page.NextPage(ctx)
		if err != nil || len(list.Value) != 1 {
			t.Fatalf("pools: %+v, %v", list.Value, err)
		}
	}
	readOnlyCalls(t, w, factory)
	done[sdk.ManagedClustersClientDeleteResponse](t)(clusters.BeginDelete(ctx, "rg1", "c1", nil))
	if _, err := clusters.Get(ctx, "rg1", "c1", nil); status(err) != http.StatusNotFound {
		t.Errorf("a deleted cluster: %v", err)
	}
}

// readOnlyCalls reads what else there is of a cluster.
func readOnlyCalls(t *testing.T, w *world, factory *sdk.ClientFactory) {
	t.Helper()
	ctx := t.Context()
	clusters, pools := factory.NewManagedClustersClient(), factory.NewAgentPoolsClient()
	credentials, err := clusters.ListClusterAdminCredentials(ctx, "rg1", "c1", nil)
	if err != nil || !strings.Contains(string(credentials.Kubeconfigs[0].Value), w.state().FQDN) {
		t.Errorf("credentials: %v", err)
	}
	if _, err := clusters.ListClusterUserCredentials(ctx, "rg1", "c1", nil); err != nil {
		t.Errorf("user credentials: %v", err)
	}
	profile, err := clusters.GetAccessProfile(ctx, "rg1", "c1", "clusterAdmin", nil)
	if err != nil || !strings.Contains(string(profile.Properties.KubeConfig), w.state().FQDN) {
		t.Errorf("access profile: %v", err)
	}
	upgrades, err := clusters.GetUpgradeProfile(ctx, "rg1", "c1", nil)
	if err != nil || *upgrades.Properties.ControlPlaneProfile.KubernetesVersion != "1.36.3" {
		t.Errorf("upgrade profile: %v", err)
	}
	if _, err := pools.GetUpgradeProfile(ctx, "rg1", "c1", "system", nil); err != nil {
		t.Errorf("pool's upgrade profile: %v", err)
	}
	versions, err := pools.GetAvailableAgentPoolVersions(ctx, "rg1", "c1", nil)
	if err != nil || len(versions.Properties.AgentPoolVersions) != 3 {
		t.Errorf("pool versions: %+v, %v", versions.Properties, err)
	}
	kubernetes, err := clusters.ListKubernetesVersions(ctx, "eastus", nil)
	if err != nil || len(kubernetes.Values) != 3 {
		t.Errorf("versions: %+v, %v", kubernetes.Values, err)
	}
	if _, err := clusters.BeginRunCommand(ctx, "rg1", "c1", sdk.RunCommandRequest{Command: ptr("id")}, nil); status(err) != http.StatusBadRequest {
		t.Errorf("run command: %v", err)
	}
	for pager := clusters.NewListPager(nil); pager.More(); {
		page, err := pager.NextPage(ctx)
		if err != nil || len(page.Value) != 1 || *page.Value[0].Name != "c1" {
			t.Fatalf("clusters of the subscription: %+v, %v", page.Value, err)
		}
	}
}

func status(err error) int {
	var response *azcore.ResponseError
	if errors.As(err, &response) {
		return response.StatusCode
	}
	return 0
}
