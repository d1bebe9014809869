// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	azarm "github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"bastide.dev/arm"
	"bastide.dev/resource"
	"bastide.dev/store"
	"bastide.dev/store/memory"
)

const (
	edgeSub     = "0b1f6471-1bf0-4dda-aec3-cb9272f09590"
	edgeGroup   = "/subscriptions/" + edgeSub + "/resourceGroups/rg1"
	edgeNetwork = edgeGroup + "/providers/Microsoft.Network/"
	edgeSubnet  = edgeNetwork + "virtualNetworks/vnet1/subnets/nodes"
	edgeVersion = "?api-version=2024-07-01"
	zoneVersion = "?api-version=2020-06-01"
)

// edgeAnyone may do anything here.
type edgeAnyone struct{}

func (edgeAnyone) Authenticate(context.Context, string) (arm.Principal, error) {
	return arm.Principal{ID: "p1", Kind: "User", Name: "tester"}, nil
}

func (edgeAnyone) Authorize(context.Context, arm.Principal, string, resource.ID) error { return nil }

func (edgeAnyone) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: "token", ExpiresOn: time.Now().Add(time.Hour)}, nil
}

// edgeWorld is the front door with this provider, and someone who ends every
// operation at once, as the reconciler does when the host has applied.
type edgeWorld struct {
	t      *testing.T
	store  *memory.Store
	p      *Provider
	server *httptest.Server
}

func newEdge(t *testing.T) *edgeWorld {
	t.Helper()
	s := memory.New(0)
	p, err := New(Config{Store: s, Log: slog.New(slog.DiscardHandler), Host: "h1", Location: "eastus", Domain: "bastide.internal",
		PublicPool: netip.MustParsePrefix("192.88.99.0/26"), FrontDoor: netip.MustParseAddr("192.88.99.1")})
	if err != nil {
		t.Fatal(err)
	}
	w := &edgeWorld{t: t, store: s, p: p, server: httptest.NewUnstartedServer(nil)}
	url := "https://" + w.server.Listener.Addr().String()
	h, err := arm.New(arm.Config{Store: s, Authenticator: edgeAnyone{}, Authorizer: edgeAnyone{}, Providers: p.ARM(), Tenant: arm.Tenant{ID: "t1"},
		Subscriptions: []arm.Subscription{{ID: edgeSub, DisplayName: "test"}},
		Endpoints:     arm.Endpoints{ResourceManager: url, Login: url}, Logger: slog.New(slog.DiscardHandler), Wait: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	w.server.Config.Handler = h
	w.server.StartTLS()
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- h.Run(ctx) }()
	go func() { done <- w.finishAll(ctx) }()
	t.Cleanup(func() {
		stop()
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		w.server.Close()
	})
	w.document(edgeGroup, `{}`, nil)
	w.document(edgeNetwork+"virtualNetworks/vnet1", `{"properties":{"addressSpace":{"addressPrefixes":["10.0.0.0/16"]},"subnets":[
		{"name":"nodes","properties":{"addressPrefix":"10.0.0.0/24"}},{"name":"tiny","properties":{"addressPrefix":"10.0.1.0/29"}}]}}`, nil)
	return w
}

// finishAll ends the operations of this provider as they come.
func (w *edgeWorld) finishAll(ctx context.Context) error {
	for e := range w.store.Watch(ctx, arm.OperationPrefix, 0) {
		var op arm.Operation
		if e.Deleted || json.Unmarshal(e.Value, &op) != nil || op.Done() || op.Resource.IsType(resource.TypeGroup) {
			continue
		}
		if err := w.p.ops.Finish(ctx, op.ID, arm.Ending{}); err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

// document puts a document there as another provider would.
func (w *edgeWorld) document(id, body string, state any) {
	w.t.Helper()
	parsed := resource.MustParseID(id)
	raw, err := json.Marshal(state)
	if err != nil {
		w.t.Fatal(err)
	}
	change, err := arm.PutDocument(&arm.Document{Envelope: resource.Envelope{ID: parsed, Type: parsed.Type(), Name: parsed.Name(), Location: "eastus", Etag: "e",
		ProvisioningState: resource.Succeeded, Body: json.RawMessage(body), State: raw}})
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.store.Txn(w.t.Context(), store.Change{Key: change.Key, Value: change.Value, Revision: store.Any}); err != nil {
		w.t.Fatal(err)
	}
}

type edgeAnswer struct {
	code int
	body map[string]any
	text string
}

func (w *edgeWorld) do(method, path, body string, headers ...string) edgeAnswer {
	w.t.Helper()
	if !strings.Contains(path, "?") {
		path += edgeVersion
		if strings.Contains(path, "privateDnsZones/") {
			path = strings.Replace(path, edgeVersion, zoneVersion, 1)
		}
	}
	r, err := http.NewRequestWithContext(w.t.Context(), method, w.server.URL+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer token")
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	response, err := w.server.Client().Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer response.Body.Close()
	a := edgeAnswer{code: response.StatusCode}
	var raw json.RawMessage
	if err := json.NewDecoder(response.Body).Decode(&raw); err == nil {
		a.text = string(raw)
		if err := json.Unmarshal(raw, &a.body); err != nil {
			w.t.Fatal(err)
		}
	}
	return a
}

// must sends a request that has to be taken.
func (w *edgeWorld) must(method, path, body string, headers ...string) edgeAnswer {
	w.t.Helper()
	a := w.do(method, path, body, headers...)
	if a.code >= 300 {
		w.t.Fatalf("%s %s: %d %s", method, path, a.code, a.text)
	}
	if method == http.MethodPut && a.get("properties", "provisioningState") != "Succeeded" && !strings.Contains(path, "privateDnsZones/") {
		w.t.Fatalf("%s %s: %s", method, path, a.text)
	}
	return a
}

// refuses sends a request that has to be refused with each of the codes.
func (w *edgeWorld) refuses(method, path, body string, codes ...string) edgeAnswer {
	w.t.Helper()
	a := w.do(method, path, body)
	if a.code < 400 {
		w.t.Errorf("%s %s %s was taken", method, path, body)
	}
	for _, code := range codes {
		if !strings.Contains(a.text, `"`+code+`"`) {
			w.t.Errorf("%s %s: want %s, got %d %s", method, path, code, a.code, a.text)
		}
	}
	return a
}

// get walks into objects by name and into lists by their only or first element.
func (a edgeAnswer) get(path ...string) any {
	var at any = a.body
	for _, name := range path {
		if list, ok := at.([]any); ok && len(list) > 0 {
			at = list[0]
		}
		object, _ := at.(map[string]any)
		at = object[name]
	}
	return at
}

func (w *edgeWorld) options() *azarm.ClientOptions {
	return &azarm.ClientOptions{DisableRPRegistration: true, ClientOptions: policy.ClientOptions{
		Transport: w.server.Client(), Retry: policy.RetryOptions{MaxRetries: -1},
		Cloud: cloud.Configuration{Services: map[cloud.ServiceName]cloud.ServiceConfiguration{cloud.ResourceManager: {Endpoint: w.server.URL, Audience: w.server.URL}}},
	}}
}

func (w *edgeWorld) keys(prefix string) []string {
	records, _, err := w.store.List(w.t.Context(), prefix)
	if err != nil {
		w.t.Fatal(err)
	}
	keys := make([]string, len(records))
	for i, r := range records {
		keys[i] = r.Key
	}
	return keys
}

// server makes a cluster's API server, as its cluster records it.
func (w *edgeWorld) apiServer(name string, private bool) {
	w.t.Helper()
	cluster := resource.MustParseID(edgeGroup + "/providers/Microsoft.ContainerService/managedClusters/" + name)
	change, err := ServerChange(cluster, &Server{Cluster: cluster, Namespace: "ns-" + name, Subnet: resource.MustParseID(edgeSubnet),
		Address: netip.MustParseAddr("10.0.0.200"), Port: 443, Private: private, FQDN: name + "-1a2b3c4d.hcp.eastus.bastide.internal"})
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.store.Txn(w.t.Context(), change); err != nil {
		w.t.Fatal(err)
	}
}

// forgetServers removes every API server, as deleted clusters do.
func (w *edgeWorld) forgetServers() {
	w.t.Helper()
	for _, key := range w.keys(serverPrefix) {
		if err := w.store.Delete(w.t.Context(), key, store.Any); err != nil {
			w.t.Fatal(err)
		}
	}
}
