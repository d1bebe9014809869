// SPDX-License-Identifier: Apache-2.0

package testcloud_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	aks "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v6"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/resources/armresources"

	"bastide.dev/testcloud"
)

// sdk is the Azure SDK for Go, as its users set it up for a cloud of their own.
type sdk struct {
	cred    *azidentity.ClientSecretCredential
	options *arm.ClientOptions
	sub     string
	http    *http.Client
	base    string
}

func newSDK(t testing.TB, c *testcloud.Cloud) *sdk {
	t.Helper()
	bundle, err := os.ReadFile(c.Env["SSL_CERT_FILE"])
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(bundle)
	s := &sdk{sub: c.Env["AZURE_SUBSCRIPTION_ID"], base: "https://management." + c.Env["BASTIDE_DOMAIN"]}
	s.http = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, MaxIdleConnsPerHost: 64, ForceAttemptHTTP2: true}}
	own := cloud.Configuration{
		ActiveDirectoryAuthorityHost: c.Env["AZURE_AUTHORITY_HOST"],
		Services:                     map[cloud.ServiceName]cloud.ServiceConfiguration{cloud.ResourceManager: {Endpoint: s.base, Audience: s.base}},
	}
	options := azcore.ClientOptions{Cloud: own, Transport: s.http, Retry: policy.RetryOptions{MaxRetries: -1}}
	s.options = &arm.ClientOptions{ClientOptions: options, DisableRPRegistration: false}
	s.cred, err = azidentity.NewClientSecretCredential(c.Env["AZURE_TENANT_ID"], c.Env["AZURE_CLIENT_ID"], c.Env["AZURE_CLIENT_SECRET"],
		&azidentity.ClientSecretCredentialOptions{ClientOptions: options, DisableInstanceDiscovery: true})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *sdk) clusters(t testing.TB) *aks.ManagedClustersClient {
	t.Helper()
	client, err := aks.NewManagedClustersClient(s.sub, s.cred, s.options)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func (s *sdk) group(t testing.TB, name string) {
	t.Helper()
	client, err := armresources.NewResourceGroupsClient(s.sub, s.cred, s.options)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.CreateOrUpdate(t.Context(), name, armresources.ResourceGroup{Location: to.Ptr("eastus")}, nil); err != nil {
		t.Fatal(err)
	}
}

func oneNode() aks.ManagedCluster {
	return aks.ManagedCluster{
		Location: to.Ptr("eastus"),
		Identity: &aks.ManagedClusterIdentity{Type: to.Ptr(aks.ResourceIdentityTypeSystemAssigned)},
		Properties: &aks.ManagedClusterProperties{
			DNSPrefix:         to.Ptr("sdk"),
			AgentPoolProfiles: []*aks.ManagedClusterAgentPoolProfile{{Name: to.Ptr("np"), Count: to.Ptr[int32](1), Mode: to.Ptr(aks.AgentPoolModeSystem), VMSize: to.Ptr("Standard_B2s")}},
		},
	}
}

// TestSDK drives the instance with the Azure SDK for Go, and with the requests
// that no SDK would send.
func TestSDK(t *testing.T) {
	c := testcloud.Start(t, "sdk")
	s := newSDK(t, c)
	s.group(t, "rg")
	t.Run("life of a cluster", func(t *testing.T) { sdkLife(t, s) })
	t.Run("bad requests", func(t *testing.T) { badRequests(t, s) })
	t.Run("tokens", func(t *testing.T) { badTokens(t, s) })
}

func sdkLife(t *testing.T, s *sdk) {
	clusters := s.clusters(t)
	poller, err := clusters.BeginCreateOrUpdate(t.Context(), "rg", "c", oneNode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	poll := &runtime.PollUntilDoneOptions{Frequency: time.Second}
	done, err := poller.PollUntilDone(t.Context(), poll)
	if err != nil {
		t.Fatal(err)
	}
	if p := done.Properties; *p.ProvisioningState != "Succeeded" || *p.PowerState.Code != aks.CodeRunning || p.Fqdn == nil || *p.MaxAgentPools != 100 {
		t.Errorf("created: %+v", p)
	}
	second := done.ManagedCluster
	second.Tags = map[string]*string{"team": to.Ptr("blue")}
	update, err := clusters.BeginCreateOrUpdate(t.Context(), "rg", "c", second, nil)
	if err != nil {
		t.Fatalf("a GET's answer, put back: %v", err)
	}
	again, err := update.PollUntilDone(t.Context(), poll)
	if err != nil || *again.Tags["team"] != "blue" {
		t.Fatalf("%v %v", again.Tags, err)
	}
	count := 0
	for pager := clusters.NewListPager(nil); pager.More(); {
		page, err := pager.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		count += len(page.Value)
	}
	if count != 1 {
		t.Errorf("%d clusters listed", count)
	}
	creds, err := clusters.ListClusterAdminCredentials(t.Context(), "rg", "c", nil)
	if err != nil || len(creds.Kubeconfigs) != 1 || !bytes.Contains(creds.Kubeconfigs[0].Value, []byte("client-certificate-data")) {
		t.Errorf("admin credentials: %v", err)
	}
	deletion, err := clusters.BeginDelete(t.Context(), "rg", "c", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := deletion.PollUntilDone(t.Context(), poll); err != nil {
		t.Fatal(err)
	}
	var refused *azcore.ResponseError
	if _, err := clusters.Get(t.Context(), "rg", "c", nil); !errors.As(err, &refused) || refused.ErrorCode != "ResourceNotFound" {
		t.Errorf("after deletion: %v", err)
	}
}

// request sends what it is told to and returns status and error code.
func (s *sdk) request(t *testing.T, method, path, token, body string) (int, errorBody, http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.base+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := s.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	var e struct{ Error errorBody }
	_ = json.Unmarshal(text, &e)
	return resp.StatusCode, e.Error, resp.Header
}

type errorBody struct {
	Code, Message, Target string
	Details               []errorBody
}

func (s *sdk) token(t testing.TB) string {
	t.Helper()
	token, err := s.cred.GetToken(context.Background(), s.scope())
	if err != nil {
		t.Fatal(err)
	}
	return token.Token
}

func (s *sdk) scope() policy.TokenRequestOptions {
	return policy.TokenRequestOptions{Scopes: []string{s.base + "/.default"}}
}

func badRequests(t *testing.T, s *sdk) {
	token := s.token(t)
	path := func(name string) string {
		return "/subscriptions/" + s.sub + "/resourceGroups/rg/providers/Microsoft.ContainerService/managedClusters/" + name + "?api-version=2025-02-01"
	}
	body := func(properties string) string {
		return `{"location":"eastus","properties":{"dnsPrefix":"x","agentPoolProfiles":[{"name":"np","count":1,"mode":"System","vmSize":"Standard_B2s"}]` + properties + `}}`
	}
	for _, bad := range []struct {
		name, path, body string
		status           int
		targets          []string
	}{
		{"malformed JSON", path("c"), `{"location":`, 400, nil},
		{"no JSON object", path("c"), `[]`, 400, nil},
		{"too large", path("c"), `{"location":"` + strings.Repeat("x", 5<<20) + `"}`, 413, nil},
		{"bad name", path("c_"), body(""), 400, nil},
		{"no api-version", strings.Split(path("c"), "?")[0], body(""), 400, nil},
		{"unknown api-version", strings.Split(path("c"), "?")[0] + "?api-version=1999-01-01", body(""), 400, nil},
		{"unknown property", path("c"), body(`,"teapot":true`), 400, []string{"properties.teapot"}},
		{"overlapping ranges", path("c"), body(`,"networkProfile":{"podCidr":"10.0.0.0/15","serviceCidr":"10.0.0.0/16","dnsServiceIP":"10.0.0.10"}`), 400, []string{"cidr"}},
		{"bad CIDR", path("c"), body(`,"networkProfile":{"podCidr":"10.0.0.0/99"}`), 400, []string{"podCidr"}},
		{"several at once", path("c"), `{"location":"eastus","properties":{"dnsPrefix":"-","kubernetesVersion":"1.2.3","agentPoolProfiles":[{"name":"NP","count":5000,"mode":"System","vmSize":"Standard_Z1"}]}}`, 400,
			[]string{"dnsPrefix", "kubernetesVersion", "name", "count", "vmSize"}},
	} {
		t.Run(bad.name, func(t *testing.T) {
			status, e, _ := s.request(t, http.MethodPut, bad.path, token, bad.body)
			if status != bad.status || e.Code == "" || e.Message == "" {
				t.Fatalf("%d %+v", status, e)
			}
			all := strings.ToLower(fmt.Sprintf("%+v", e))
			for _, target := range bad.targets {
				if !strings.Contains(all, strings.ToLower(target)) {
					t.Errorf("%s isn't named: %+v", target, e)
				}
			}
		})
	}
}

func badTokens(t *testing.T, s *sdk) {
	good := s.token(t)
	parts := strings.Split(good, ".")
	for name, token := range map[string]string{
		"none":              "",
		"garbage":           "abc",
		"no signature":      parts[0] + "." + parts[1] + ".",
		"another's payload": parts[0] + "." + strings.Repeat("e30", 1) + "." + parts[2],
		"alg none":          "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0." + parts[1] + ".",
	} {
		t.Run(name, func(t *testing.T) {
			status, e, header := s.request(t, http.MethodGet, "/subscriptions/"+s.sub+"/resourceGroups?api-version=2021-04-01", token, "")
			if status != http.StatusUnauthorized || e.Code == "" || !strings.HasPrefix(header.Get("WWW-Authenticate"), "Bearer ") {
				t.Errorf("%d %+v %q", status, e, header.Get("WWW-Authenticate"))
			}
		})
	}
	if status, e, _ := s.request(t, http.MethodGet, "/subscriptions/"+s.sub+"/resourceGroups?api-version=2021-04-01", good, ""); status != 200 {
		t.Errorf("the good one: %d %+v", status, e)
	}
}
